//! `welkin version`: this program, and the node that answers.

use clap::Args;
use wire::call::CloudInfo;

use crate::context::Context;
use crate::failure::Failure;
use crate::{manual, output};

/// Show the version of this program, and of the node if another runs
#[derive(Debug, Args)]
#[command(after_help = manual::VERSION)]
pub(crate) struct Arguments {}

pub(crate) async fn run(_arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let ours = env!("CARGO_PKG_VERSION");
    output::line(&format!("welkin {ours}"))?;
    // Without a node there is only one version to tell.
    if let Ok(cloud) = context.client.call(CloudInfo {}).await
        && cloud.program_version != ours
    {
        let theirs = cloud.program_version;
        let text = format!(
            "the node {} runs {theirs}, this command is {ours}",
            cloud.name
        );
        output::warn(context.screen, &text);
        output::hint(
            context.screen,
            "welkin down && welkin up, to run the new one",
        );
    }
    Ok(0)
}
