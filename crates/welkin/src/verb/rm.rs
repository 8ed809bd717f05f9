//! `welkin rm`: apps are forgotten.

use clap::Args;
use wire::call::Remove;

use crate::context::Context;
use crate::failure::Failure;
use crate::{flags, manual, output, targets};

/// Forget apps: their records, their logs, their scratch files
#[derive(Debug, Args)]
#[command(after_help = manual::RM)]
pub(crate) struct Arguments {
    #[command(flatten)]
    targets: flags::Targets,
    /// Also when they run.
    #[arg(short, long)]
    force: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = |target: &str| Remove {
        target: target.to_owned(),
        force: arguments.force,
    };
    let names = &arguments.targets.targets;
    targets::each(context, "removing", names, request, |name, _| {
        output::line(name)
    })
    .await
}
