//! `welkin stop`: programs are asked to end, and stay ended.

use std::time::Duration;

use clap::Args;
use wire::call::StopApp;

use crate::context::Context;
use crate::failure::Failure;
use crate::parse::milliseconds;
use crate::{flags, manual, output, parse, targets};

/// Ask programs to end, and keep them ended
#[derive(Debug, Args)]
#[command(after_help = manual::STOP)]
pub(crate) struct Arguments {
    #[command(flatten)]
    targets: flags::Targets,
    /// Kill after so many seconds; the app's own grace period when absent.
    #[arg(short, long = "timeout", visible_alias = "time", value_name = "SECONDS", value_parser = parse::duration)]
    timeout: Option<Duration>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = |target: &str| StopApp {
        target: target.to_owned(),
        grace_ms: arguments.timeout.map(milliseconds),
    };
    let names = &arguments.targets.targets;
    targets::each(context, "stopping", names, request, |name, _| {
        output::line(name)
    })
    .await
}
