//! `welkin exec`: one more program inside an object.

use clap::Args;
use clap_complete::engine::ArgValueCompleter;
use wire::call::{Locate, Located};
use wire::fact::{ObjectFacts, Phase};
use wire::stream::{Open, What};

use crate::context::{Context, object_name};
use crate::failure::Failure;
use crate::session::{Program, Session};
use crate::signals::Signals;
use crate::{completion, flags, manual};

/// Run one more program inside an object
///
/// When the app has several objects, the first that runs is taken. In a terminal, Ctrl-P Ctrl-Q
/// leaves; a program that was started so is hung up.
#[derive(Debug, Args)]
#[command(after_help = manual::EXEC)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) interaction: flags::Interaction,
    #[command(flatten)]
    surroundings: flags::Surroundings,
    /// An app, an object (app/index), or the beginning of an object's id.
    #[arg(value_name = "TARGET", add = ArgValueCompleter::new(completion::targets))]
    target: String,
    /// The program and its arguments.
    #[arg(
        required = true,
        trailing_var_arg = true,
        value_names = ["PROGRAM", "ARGUMENTS"],
        num_args = 1..
    )]
    pub(crate) command: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let done = inside(arguments, context).await;
    done.map_err(Failure::beside_a_program)
}

async fn inside(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    let target = arguments.target.clone();
    let located = context.client.call(Locate { target }).await?;
    let object = running(&located)?;
    let program = arguments
        .surroundings
        .program(&arguments.command, arguments.interaction);
    let open = Open {
        node: object.node,
        object: object.object,
        what: What::Exec { program },
    };
    let mut signals = Signals::catch()?;
    let stream = context.client.open(open).await?;
    let session = Session {
        stdin: arguments.interaction.interactive,
        terminal: arguments.interaction.tty,
        program: Program::Further,
        name: object_name(object),
    };
    let ending = session.run(context, stream, &mut signals).await?;
    session.conclude(context, ending)
}

/// The first object that runs.
pub(crate) fn running(located: &Located) -> Result<&ObjectFacts, Failure> {
    let mut objects = located.objects.iter();
    let runs = |object: &&ObjectFacts| object.phase == Phase::Running;
    objects.find(runs).ok_or_else(|| {
        Failure::new(format!("{} does not run", located.name))
            .remedy(format!("welkin ps -a {}", located.name))
    })
}
