//! `welkin node`: verbs about nodes.

pub(crate) mod drain;
pub(crate) mod inspect;
pub(crate) mod label;
pub(crate) mod list;
pub(crate) mod remove;
pub(crate) mod resume;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::failure::Failure;
use crate::manual;

/// Look after nodes: ls, inspect, drain, resume, label, rm
#[derive(Debug, Args)]
#[command(after_help = manual::NODE, arg_required_else_help = true)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    #[command(visible_alias = "list")]
    Ls(list::Arguments),
    Inspect(inspect::Arguments),
    Drain(drain::Arguments),
    Resume(resume::Arguments),
    Label(label::Arguments),
    #[command(visible_alias = "remove")]
    Rm(remove::Arguments),
}

pub(crate) async fn run(arguments: &Arguments, context: &Context) -> Result<u8, Failure> {
    match &arguments.verb {
        Verb::Ls(arguments) => list::run(arguments, context).await,
        Verb::Inspect(arguments) => inspect::run(arguments, context).await,
        Verb::Drain(arguments) => drain::run(arguments, context).await,
        Verb::Resume(arguments) => resume::run(arguments, context).await,
        Verb::Label(arguments) => label::run(arguments, context).await,
        Verb::Rm(arguments) => remove::run(arguments, context).await,
    }
}
