//! Welkin: one small program on every Linux machine makes all of them one computer.
//!
//! This crate is the command line and nothing more: verbs, flags, output. What a verb does is one
//! file in [`verb`]; it asks the node through [`client`] and shows the answer through [`output`],
//! the only place that writes to the terminal.

mod appfile;
mod bundle;
mod cli;
mod clock;
mod completion;
mod context;
mod daemon;
mod failure;
mod flags;
mod follow;
mod lines;
mod manual;
mod merge;
mod output;
mod parse;
mod progress;
mod rollout;
mod schedule;
mod session;
mod signals;
mod targets;
mod terminal;
mod verb;
mod watch;

use std::process::ExitCode;

fn main() -> ExitCode {
    // A shim holds one object and is started for each: nothing may come before it.
    let mut arguments = std::env::args_os().skip(1);
    if arguments.next().is_some_and(|verb| verb == "shim") {
        return verb::shim::run(arguments.next());
    }
    cli::run()
}
