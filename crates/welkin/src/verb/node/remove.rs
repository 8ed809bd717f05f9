//! `welkin node rm`: a node leaves the cloud for good.

use clap::Args;
use wire::call::NodeRemove;

use crate::context::Context;
use crate::failure::Failure;
use crate::{flags, manual, output, progress};

/// Remove a node from the cloud, for good
///
/// Its key is never accepted again: the machine can only come back as a new node, with a ticket.
#[derive(Debug, Args)]
#[command(after_help = manual::NODE_RM)]
pub(crate) struct Arguments {
    #[command(flatten)]
    node: flags::Node,
    /// Also when it is up and has objects.
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = NodeRemove {
        node: arguments.node.node.clone(),
        force: arguments.force,
    };
    let asking = context.client.call(request);
    let node = progress::shown(context.screen, "removing the node", asking).await?;
    output::line(&node.name)?;
    Ok(0)
}
