//! `welkin start`: stopped apps run again.

use clap::Args;
use wire::call::StartApp;

use crate::context::Context;
use crate::failure::Failure;
use crate::{flags, manual, output, targets};

/// Start stopped apps again
#[derive(Debug, Args)]
#[command(after_help = manual::START)]
pub(crate) struct Arguments {
    #[command(flatten)]
    targets: flags::Targets,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = |target: &str| StartApp {
        target: target.to_owned(),
    };
    let names = &arguments.targets.targets;
    targets::each(context, "starting", names, request, |name, _| {
        output::line(name)
    })
    .await
}
