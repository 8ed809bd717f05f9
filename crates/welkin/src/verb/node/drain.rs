//! `welkin node drain`: a node is emptied.

use clap::Args;
use wire::call::NodeDrain;

use crate::context::Context;
use crate::failure::Failure;
use crate::output::human;
use crate::{flags, manual, output, progress};

/// Move everything away from a node and send nothing new there
#[derive(Debug, Args)]
#[command(after_help = manual::NODE_DRAIN)]
pub(crate) struct Arguments {
    #[command(flatten)]
    node: flags::Node,
    /// Also end objects that will not be started again elsewhere.
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = NodeDrain {
        node: arguments.node.node.clone(),
        force: arguments.force,
    };
    let asking = context.client.call(request);
    let node = progress::shown(context.screen, "draining", asking).await?;
    let objects = human::count(node.capacity.objects, "object");
    output::line(&node.name)?;
    output::say(&format!(
        "{} takes nothing new; {objects} still there",
        node.name
    ));
    output::hint(context.screen, &format!("welkin node resume {}", node.name));
    Ok(0)
}
