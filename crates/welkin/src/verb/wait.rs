//! `welkin wait`: until programs have ended.

use clap::Args;
use wire::call::Wait;

use crate::context::Context;
use crate::failure::Failure;
use crate::{flags, manual, output, targets};

/// Wait until programs have ended; print their exit codes
#[derive(Debug, Args)]
#[command(after_help = manual::WAIT)]
pub(crate) struct Arguments {
    #[command(flatten)]
    targets: flags::Targets,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = |target: &str| Wait {
        target: target.to_owned(),
    };
    let names = &arguments.targets.targets;
    targets::each(context, "waiting", names, request, |_, waited| {
        let codes = waited.exits.iter().map(|it| it.exit.reason.code());
        codes
            .map(|code| code.to_string())
            .try_for_each(|code| output::line(&code))
    })
    .await
}
