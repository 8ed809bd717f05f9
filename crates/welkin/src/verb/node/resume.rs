//! `welkin node resume`: a drained node takes objects again.

use clap::Args;
use wire::call::NodeResume;

use crate::context::Context;
use crate::failure::Failure;
use crate::{flags, manual, output};

/// Let a drained node take objects again
#[derive(Debug, Args)]
#[command(after_help = manual::NODE_RESUME)]
pub(crate) struct Arguments {
    #[command(flatten)]
    node: flags::Node,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let node = arguments.node.node.clone();
    let node = context.client.call(NodeResume { node }).await?;
    output::line(&node.name)?;
    Ok(0)
}
