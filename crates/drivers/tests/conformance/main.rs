//! What every driver must do, and proof that the exec driver does it.
//!
//! A case gets a [`bed::Driver`] and uses nothing but the words of `wire`, so another driver is
//! another value of that type. The suite needs root, control groups and namespaces, and fails
//! without them; it never skips. It is its own shim: started as `conformance shim DIR` it is the
//! process under test. `conformance NAME` runs the cases whose names contain `NAME`.

#![expect(
    clippy::unwrap_used,
    clippy::wildcard_enum_match_arm,
    reason = "a case that meets what it does not expect has failed"
)]

mod bed;
mod files;
mod isolation;
mod life;
mod output;
mod speed;
mod tenure;

use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use bed::Driver;

/// A sentence, and what proves it.
pub(crate) type Case = (&'static str, fn(&Driver));

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.as_slice() {
        [verb, directory] if verb == "shim" => return drivers::shim::main(Path::new(directory)),
        [verb] if verb == "unprivileged" || verb == "plain" => return isolation::child(verb),
        [verb] if verb == "no-freezer" => return tenure::child(),
        [verb, directory] if verb == "daemon" => return tenure::daemon(Path::new(directory)),
        _ => {}
    }
    let wanted: Vec<&String> = arguments.iter().filter(|a| !a.starts_with("--")).collect();
    let is_listing = arguments.iter().any(|argument| argument == "--list");
    let driver = Driver::exec();
    let mut failed = Vec::new();
    let cases = [
        life::CASES,
        output::CASES,
        files::CASES,
        isolation::CASES,
        tenure::CASES,
        speed::CASES,
    ];
    for (name, case) in cases.into_iter().flatten() {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        if is_listing {
            say(&format!("{name}: test"));
            continue;
        }
        let outcome = catch_unwind(AssertUnwindSafe(|| case(&driver)));
        say(&format!(
            "test {name} ... {}",
            if outcome.is_ok() { "ok" } else { "FAILED" }
        ));
        if outcome.is_err() {
            failed.push(*name);
        }
    }
    drivers::exec::remove_control_groups(bed::NODE);
    if failed.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&format!("failed: {}", failed.join(", ")));
    ExitCode::FAILURE
}

/// One line for whoever runs the suite.
pub(crate) fn say(line: &str) {
    writeln!(std::io::stdout(), "{line}").expect("standard output takes a line");
}
