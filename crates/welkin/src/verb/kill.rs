//! `welkin kill`: a signal for programs.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use wire::call::Kill;

use crate::context::Context;
use crate::failure::Failure;
use crate::{completion, flags, manual, output, parse, targets};

/// Send a signal to programs
#[derive(Debug, Args)]
#[command(after_help = manual::KILL)]
pub(crate) struct Arguments {
    #[command(flatten)]
    targets: flags::Targets,
    /// The signal: a name or a number.
    #[arg(short, long, default_value = "KILL", value_parser = parse::signal,
        add = ArgValueCompleter::new(completion::signals))]
    signal: u8,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = |target: &str| Kill {
        target: target.to_owned(),
        signal: arguments.signal,
    };
    let names = &arguments.targets.targets;
    targets::each(context, "sending", names, request, |name, _| {
        output::line(name)
    })
    .await
}
