//! `welkin attach`: back to a program that runs.

use clap::Args;
use wire::call::{Inspect, Inspection};
use wire::fact::{ObjectFacts, Phase};
use wire::stream::{Open, What};

use crate::context::{Context, object_name};
use crate::failure::Failure;
use crate::session::{Program, Session};
use crate::signals::Signals;
use crate::{flags, manual};

/// Connect this terminal to a program that runs
///
/// Its output comes here; input goes to it. Ctrl-C leaves, and the program goes on; where the
/// program has a terminal, Ctrl-C is its own, and Ctrl-P Ctrl-Q leaves.
#[derive(Debug, Args)]
#[command(after_help = manual::ATTACH)]
pub(crate) struct Arguments {
    #[command(flatten)]
    target: flags::Target,
    /// Do not pass standard input on.
    #[arg(long)]
    no_stdin: bool,
    /// Pass signals, such as that of Ctrl-C, on to the program instead of leaving.
    #[arg(long)]
    signals: bool,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let done = to(arguments, context).await;
    done.map_err(Failure::beside_a_program)
}

async fn to(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let target = arguments.target.target.clone();
    let inspection = context.client.call(Inspect { target }).await?;
    let object = only(&inspection)?;
    let program = &inspection.spec.program;
    let stdin = program.stdin && !arguments.no_stdin;
    let open = Open {
        node: object.node,
        object: object.object,
        what: What::Attach {
            stdin,
            replay: false,
        },
    };
    let mut signals = Signals::catch()?;
    let stream = context.client.open(open).await?;
    let session = Session {
        stdin,
        terminal: program.terminal,
        program: Program::Visited {
            object: object.object,
            signals: arguments.signals,
        },
        name: object_name(object),
    };
    let ending = session.run(context, stream, &mut signals).await?;
    session.conclude(context, ending)
}

fn only(inspection: &Inspection) -> Result<&ObjectFacts, Failure> {
    let name = &inspection.spec.name;
    let runs = |object: &&ObjectFacts| object.phase == Phase::Running;
    let running: Vec<&ObjectFacts> = inspection.objects.iter().filter(runs).collect();
    match running.as_slice() {
        [one] => Ok(one),
        [] => Err(Failure::new(format!("{name} does not run"))
            .remedy(format!("welkin logs {name}, to see what it wrote"))),
        [first, ..] => Err(Failure::new(format!(
            "{name} has {} objects that run: name one of them",
            running.len()
        ))
        .remedy(format!("welkin attach {}", object_name(first)))),
    }
}
