//! The command line: what can be typed, and which verb it means.

use std::io;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use tokio::runtime::Runtime;

use crate::context::Context;
use crate::failure::{EXIT_USAGE, Failure};
use crate::flags::Global;
use crate::{completion, manual, output, verb};

/// One small program on every Linux machine makes all of them one computer.
///
/// Type `welkin up` on the first machine and `welkin join TICKET` on the others; then run programs
/// with `welkin run` and forget that there are machines. Every verb works on every node.
///
/// An object is named by its app (web), by its app and index (web/0), or by the beginning of its
/// id.
#[derive(Debug, Parser)]
#[command(
    name = "welkin",
    version,
    max_term_width = 100,
    after_help = manual::WELKIN,
    subcommand_required = true,
    arg_required_else_help = true
)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    Up(verb::up::Arguments),
    Join(verb::join::Arguments),
    Invite(verb::invite::Arguments),
    Down(verb::down::Arguments),
    Nodes(verb::node::list::Arguments),
    Node(verb::node::Arguments),
    Run(verb::run::Arguments),
    Ps(verb::ps::Arguments),
    Logs(verb::logs::Arguments),
    Exec(verb::exec::Arguments),
    Attach(verb::attach::Arguments),
    Cp(verb::cp::Arguments),
    Stop(verb::stop::Arguments),
    Start(verb::start::Arguments),
    Kill(verb::kill::Arguments),
    Rm(verb::rm::Arguments),
    Wait(verb::wait::Arguments),
    Scale(verb::scale::Arguments),
    Apply(verb::apply::Arguments),
    Update(verb::update::Arguments),
    Inspect(verb::inspect::Arguments),
    Explain(verb::explain::Arguments),
    Stats(verb::stats::Arguments),
    Top(verb::top::Arguments),
    Events(verb::events::Arguments),
    Name(verb::name::Arguments),
    Doctor(verb::doctor::Arguments),
    SupportBundle(verb::support_bundle::Arguments),
    Version(verb::version::Arguments),
    Completion(verb::completion::Arguments),
    Man(verb::man::Arguments),
    Shim(verb::shim::Arguments),
}

/// The definition of the command line: for completion and manual pages.
pub(crate) fn command() -> clap::Command {
    Cli::command()
}

/// A runtime that costs nothing to start: everything happens on this thread.
pub(crate) fn runtime() -> io::Result<Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
}

/// Reads the command line and does what it says.
pub(crate) fn run() -> ExitCode {
    if let Some(answered) = completion::answer() {
        return answered;
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help goes to standard output and is no mistake; whoever closed it has seen enough.
            drop(error.print());
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    let context = Context::new(&cli.global);
    match start(&cli.verb, &context) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            output::failure(context.screen, &failure);
            ExitCode::from(failure.exit)
        }
    }
}

fn start(verb: &Verb, context: &Context) -> Result<u8, Failure> {
    // A daemon has a runtime of its own kind.
    if let Verb::Up(arguments) = verb
        && arguments.founding.foreground
    {
        return verb::up::serve(arguments, context);
    }
    if let Verb::Join(arguments) = verb
        && arguments.founding.foreground
    {
        return verb::join::serve(arguments, context);
    }
    let runtime = runtime()?;
    let outcome = runtime.block_on(Box::pin(dispatch(verb, context)));
    // A read of standard input may still wait for a key that nobody will press.
    runtime.shutdown_background();
    outcome
}

async fn dispatch(verb: &Verb, context: &Context) -> Result<u8, Failure> {
    match verb {
        Verb::Up(arguments) => verb::up::run(arguments, context).await,
        Verb::Join(arguments) => verb::join::run(arguments, context).await,
        Verb::Invite(arguments) => verb::invite::run(arguments, context).await,
        Verb::Down(arguments) => verb::down::run(arguments, context).await,
        Verb::Nodes(arguments) => verb::node::list::run(arguments, context).await,
        Verb::Node(arguments) => verb::node::run(arguments, context).await,
        Verb::Run(arguments) => verb::run::run(arguments, context).await,
        Verb::Ps(arguments) => verb::ps::run(arguments, context).await,
        Verb::Logs(arguments) => verb::logs::run(arguments, context).await,
        Verb::Exec(arguments) => verb::exec::run(arguments, context).await,
        Verb::Attach(arguments) => verb::attach::run(arguments, context).await,
        Verb::Cp(arguments) => verb::cp::run(arguments, context).await,
        Verb::Stop(arguments) => verb::stop::run(arguments, context).await,
        Verb::Start(arguments) => verb::start::run(arguments, context).await,
        Verb::Kill(arguments) => verb::kill::run(arguments, context).await,
        Verb::Rm(arguments) => verb::rm::run(arguments, context).await,
        Verb::Wait(arguments) => verb::wait::run(arguments, context).await,
        Verb::Scale(arguments) => verb::scale::run(arguments, context).await,
        Verb::Apply(arguments) => verb::apply::run(arguments, context).await,
        Verb::Update(arguments) => verb::update::run(arguments, context).await,
        Verb::Inspect(arguments) => verb::inspect::run(arguments, context).await,
        Verb::Explain(arguments) => verb::explain::run(arguments, context).await,
        Verb::Stats(arguments) => verb::stats::run(arguments, context).await,
        Verb::Top(arguments) => verb::top::run(arguments, context).await,
        Verb::Events(arguments) => verb::events::run(arguments, context).await,
        Verb::Name(arguments) => verb::name::run(arguments, context).await,
        Verb::Doctor(arguments) => verb::doctor::run(arguments, context).await,
        Verb::SupportBundle(arguments) => verb::support_bundle::run(arguments, context).await,
        Verb::Version(arguments) => verb::version::run(arguments, context).await,
        Verb::Completion(arguments) => verb::completion::run(arguments),
        Verb::Man(arguments) => verb::man::run(arguments),
        // Reached only when flags come before the verb.
        Verb::Shim(_) => Err(Failure::usage("write welkin shim DIR, without flags")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Verb, String> {
        let words = line.split(' ').filter(|word| !word.is_empty());
        Cli::try_parse_from(words)
            .map(|cli| cli.verb)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_program_keeps_its_own_flags() {
        let lines = [
            "welkin run --name web -- sleep --help -d 1",
            "welkin run --name web sleep --help -d 1",
        ];
        for line in lines {
            let Ok(Verb::Run(run)) = parse(line) else {
                panic!("{line}: {:?}", parse(line));
            };
            assert_eq!(run.command, ["sleep", "--help", "-d", "1"], "{line}");
            assert!(!run.detach, "{line}");
        }
        let Ok(Verb::Exec(exec)) = parse("welkin exec -it web/0 sh -c -i") else {
            panic!();
        };
        assert_eq!(exec.command, ["sh", "-c", "-i"]);
        assert!(exec.interaction.tty && exec.interaction.interactive);
    }

    #[test]
    fn a_mistyped_flag_is_not_taken_for_a_program() {
        assert!(
            parse("welkin run --nmae web sleep 1")
                .unwrap_err()
                .contains("--nmae")
        );
        assert!(parse("welkin run").unwrap_err().contains("PROGRAM"));
    }

    #[test]
    fn the_state_directory_can_be_named_after_any_verb() {
        for verb in ["ps", "node ls", "stop web", "name resolve web", "up"] {
            let line = format!("welkin {verb} --state-dir /x");
            let words = line.split(' ');
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.global.state_dir.unwrap(), std::path::Path::new("/x"));
        }
    }

    #[test]
    fn every_verb_has_examples_and_a_summary() {
        fn check(command: &clap::Command, path: &str) {
            for verb in command.get_subcommands().filter(|it| !it.is_hide_set()) {
                let path = format!("{path} {}", verb.get_name());
                assert!(verb.get_about().is_some(), "{path} has no summary");
                let help = verb.get_after_help().map(ToString::to_string);
                let help = help.unwrap_or_default();
                let examples = manual::examples(&help);
                assert!(!examples.is_empty(), "{path} has no examples");
                for (example, _) in examples {
                    check_example(&example);
                }
                check(verb, &path);
            }
        }
        check(&command(), "welkin");
    }

    /// Examples must be true: each line that is one plain command must parse.
    fn check_example(example: &str) {
        if example.contains(['|', '$', '<', '>', '\'', '"']) {
            return;
        }
        if let Err(error) = parse(example) {
            panic!("{example}: {error}");
        }
    }
}
