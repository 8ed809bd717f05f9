//! Chores of the workspace.
//!
//! ```text
//! cargo xtask tidy                          rules that no compiler checks
//! cargo xtask sim --seconds 60 --seed 1     random faults against whole kernels, until time is up
//! cargo xtask sim --seed 1 --events 900      one failure with more of what happened before it
//! cargo xtask sim --seconds 60 --all        the first, and goes on after a failure; a line for each
//! cargo xtask sim --bad-days                and full disks, wrong clocks, lost words, nodes removed
//! cargo xtask bench                         every promised figure, beside its peers; needs root
//! cargo xtask bench churn --minutes 1       one of them, for a minute where it takes some
//! cargo xtask soak --minutes 30             five machines under callers and faults; needs root
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for people"
)]

mod bench;
mod soak;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("tidy") => run_tidy(),
        Some("sim") => run_sim(arguments.get(1..).unwrap_or_default()),
        Some("soak") => soak::run(arguments.get(1..).unwrap_or_default()),
        Some("bench") => bench::run(arguments.get(1..).unwrap_or_default()),
        _ => {
            eprintln!(
                "usage: cargo xtask tidy | bench [NAME…] [--runs N] [--minutes N] | sim [--seconds N] \
                 [--seed N] [--events N] [--all] [--bad-days] | soak [--minutes N] [--callers N] \
                 [--seed N]"
            );
            ExitCode::from(2)
        }
    }
}

fn run_tidy() -> ExitCode {
    let faults = tidy::check(&root());
    for fault in &faults {
        println!("{fault}");
    }
    if faults.is_empty() {
        println!("tidy: nothing to complain about");
        ExitCode::SUCCESS
    } else {
        println!("tidy: {} faults", faults.len());
        ExitCode::FAILURE
    }
}

/// Seeds from the first one on until the time is up; the first failure is printed with its seed.
fn run_sim(arguments: &[String]) -> ExitCode {
    let value = |flag: &str| {
        let at = arguments.iter().position(|argument| argument == flag)?;
        let text = arguments.get(at + 1)?;
        let number = text
            .strip_prefix("0x")
            .map(|hex| u64::from_str_radix(hex, 16));
        number.unwrap_or_else(|| text.parse()).ok()
    };
    let seconds = value("--seconds").unwrap_or(60);
    let seed = value("--seed").unwrap_or(1);
    println!("sim: {seconds} s from seed {seed}");
    let began = bench::now();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let mut options = sim::swarm::Options {
        bad_days: has("--bad-days"),
        ..sim::swarm::Options::default()
    };
    if has("--all") {
        return run_all(seed, &options, || {
            began.elapsed() < Duration::from_secs(seconds)
        });
    }
    if let Some(events) = value("--events").and_then(|events| usize::try_from(events).ok()) {
        options.events = events;
    }
    let go_on = |_: &sim::swarm::Summary| began.elapsed() < Duration::from_secs(seconds);
    match sim::swarm::run_with(go_on, seed, &options) {
        Ok(summary) => {
            println!("{summary:#?}");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
    }
}

/// Seeds from the first one on until the time is up; one line for each failure.
fn run_all(
    first_seed: u64,
    options: &sim::swarm::Options,
    mut go_on: impl FnMut() -> bool,
) -> ExitCode {
    let (mut seed, mut failures) = (first_seed, 0_u64);
    while go_on() {
        if let Err(failure) = sim::swarm::swarm(seed, options) {
            failures += 1;
            println!("seed {seed}: {}", failure.what.join("; "));
        }
        seed = seed.wrapping_add(1);
    }
    let seeds = seed.wrapping_sub(first_seed);
    println!("{failures} of {seeds} seeds fail");
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// The root of the checkout: one above this package.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_path_buf()
}
