//! The command `lab`: hosts on this machine, by hand. It is thin: verbs are in [`cli`], what people
//! read is in [`output`], and everything else is the library.

mod cli;
mod output;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
