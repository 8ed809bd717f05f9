//! `welkin down`: this node stops.

use std::time::Duration;

use clap::Args;
use wire::call::NodeDown;

use crate::context::Context;
use crate::failure::Failure;
use crate::{manual, output, progress};

/// How often it is looked whether the node is still there.
const POLL: Duration = Duration::from_millis(20);
/// How long a node may take to end after it said that it would.
const PATIENCE: Duration = Duration::from_secs(60);

/// Stop this node; its apps move by their restart policy
///
/// The machine stays part of the cloud: `welkin up` brings it back. To remove it for good, use
/// `welkin node rm` on another one.
#[derive(Debug, Args)]
#[command(after_help = manual::DOWN)]
pub(crate) struct Arguments {}

pub(crate) async fn run(_arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let stopping = async {
        let node = context.client.call(NodeDown {}).await?;
        let gone = async {
            while context.client.is_up().await || host::home::is_held(&context.state_dir) {
                tokio::time::sleep(POLL).await;
            }
        };
        let ended = tokio::time::timeout(PATIENCE, gone).await.is_ok();
        Ok::<_, Failure>((node.name, ended))
    };
    let (name, ended) = progress::shown(context.screen, "stopping the node", stopping).await?;
    if !ended {
        return Err(
            Failure::new(format!("{name} is stopping but has not ended yet"))
                .remedy(format!("less {}/daemon.log", context.state_dir.display())),
        );
    }
    output::say(&format!("{name} is down"));
    output::hint(context.screen, "welkin up, to bring it back");
    Ok(0)
}
