//! `welkin scale`: how many objects an app has.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use wire::call::Scale;

use super::run::say_waiting;
use crate::context::Context;
use crate::failure::Failure;
use crate::output::human;
use crate::{completion, manual, output, parse, targets};

/// Change how many objects apps have
#[derive(Debug, Args)]
#[command(after_help = manual::SCALE)]
pub(crate) struct Arguments {
    /// How many objects each app is to have.
    #[arg(
        required = true,
        value_name = "APP=COUNT",
        value_parser = parse::scale,
        add = ArgValueCompleter::new(completion::counts)
    )]
    counts: Vec<(String, u32)>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let counts: std::collections::BTreeMap<_, _> = arguments.counts.iter().cloned().collect();
    let names: Vec<String> = counts.keys().cloned().collect();
    let request = |target: &str| Scale {
        target: target.to_owned(),
        replicas: counts.get(target).copied().unwrap_or_default(),
    };
    targets::each(context, "scaling", &names, request, |name, started| {
        let living = started
            .objects
            .iter()
            .filter(|it| it.phase.is_alive())
            .count();
        let living = u64::try_from(living).unwrap_or(u64::MAX);
        output::say(&format!("{name} has {}", human::count(living, "object")));
        say_waiting(&started);
        output::line(name)
    })
    .await
}
