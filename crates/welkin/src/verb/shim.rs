//! `welkin shim`: the small process that holds one object. Started by the node, not by people.

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Args;

use crate::output;

/// Hold one object
#[derive(Debug, Args)]
#[command(hide = true)]
pub(crate) struct Arguments {
    /// Directory of the object.
    #[arg(value_name = "DIR")]
    _directory: std::path::PathBuf,
}

/// Called before anything else in this process is set up.
pub(crate) fn run(directory: Option<OsString>) -> ExitCode {
    let Some(directory) = directory else {
        output::say("welkin: the shim is for the node; it needs the directory of an object");
        return ExitCode::from(crate::failure::EXIT_USAGE);
    };
    drivers::shim::main(std::path::Path::new(&directory))
}
