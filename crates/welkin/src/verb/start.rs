//! `welkin start`: stopped apps run again.

use clap::Args;
use wire::call::{Inspect, StartApp};

use super::run::say_waiting;
use crate::context::Context;
use crate::failure::Failure;
use crate::{flags, manual, output, targets};

/// Start stopped apps again
///
/// An app that runs by a schedule goes by it again; when it was not stopped, it runs now.
#[derive(Debug, Args)]
#[command(after_help = manual::START)]
pub(crate) struct Arguments {
    #[command(flatten)]
    apps: flags::Apps,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let request = |target: &str| StartApp {
        target: target.to_owned(),
    };
    let names = &arguments.apps.apps;
    let mut empty = Vec::new();
    let exit = targets::each(context, "starting", names, request, |name, started| {
        say_waiting(&started);
        if !started.objects.iter().any(|it| it.phase.is_alive()) {
            empty.push(name.to_owned());
        }
        output::line(name)
    })
    .await?;
    for target in empty {
        let inspection = context.client.call(Inspect { target }).await?;
        if inspection.spec.replicas == 0 {
            let name = inspection.spec.name;
            output::warn(context.screen, &format!("{name} wants no objects"));
            output::hint(context.screen, &format!("welkin scale {name}=1"));
        }
    }
    Ok(exit)
}
