//! `welkin up`: this machine is a node from now on.

use std::time::Duration;

use clap::Args;
use wire::call::CloudInfo;

use crate::context::Context;
use crate::failure::Failure;
use crate::flags::Founding;
use crate::output::human;
use crate::{daemon, manual, output};

/// How often the node is asked whether the others answer it.
const PATIENCE_TURNS: u32 = 20;
/// The time between two such questions.
const PATIENCE_TURN: Duration = Duration::from_millis(100);

/// Start this node; found a cloud the first time
///
/// The first time, this machine becomes a cloud of its own, which others join with a ticket. Ever
/// after, the node goes on where it was. The command returns once the node serves; the daemon goes
/// on. It is no mistake to type it twice.
#[derive(Debug, Args)]
#[command(after_help = manual::UP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) founding: Founding,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    if context.client.is_up().await {
        return report(context, "already up").await;
    }
    let resumed = host::home::exists(&context.state_dir);
    daemon::start(context, &arguments.founding, None).await?;
    report(context, "up").await?;
    if !resumed {
        output::say("a new cloud was founded; to add a machine, make a ticket");
        output::hint(context.screen, "welkin invite");
    }
    Ok(0)
}

/// Is the daemon.
pub(crate) fn serve(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    daemon::serve(context, &arguments.founding, None)
}

/// Says which node is up, and in how large a cloud.
pub(crate) async fn report(context: &Context, state: &str) -> Result<u8, Failure> {
    let mut cloud = context.client.call(CloudInfo {}).await?;
    // The others need a moment to answer a node that has just come up.
    for _ in 0..PATIENCE_TURNS {
        if cloud.nodes_up == cloud.nodes {
            break;
        }
        tokio::time::sleep(PATIENCE_TURN).await;
        cloud = context.client.call(CloudInfo {}).await?;
    }
    let nodes = human::count(cloud.nodes, "node");
    let text = format!(
        "{} is {state}, in cloud {} ({} of {nodes} up)",
        cloud.name,
        cloud.cloud.short(),
        cloud.nodes_up
    );
    output::say(&text);
    Ok(0)
}
