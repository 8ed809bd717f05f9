//! Chores of the workspace.
//!
//! ```text
//! cargo xtask tidy                          rules that no compiler checks
//! cargo xtask sim --seconds 60 --seed 1     random faults against whole kernels, until time is up
//! cargo xtask bench                         every promised figure, beside its peers; needs root
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a tool for people"
)]

mod bench;
mod tidy;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("tidy") => run_tidy(),
        Some("sim") => run_sim(arguments.get(1..).unwrap_or_default()),
        Some("bench") => bench::run(arguments.get(1..).unwrap_or_default()),
        _ => {
            eprintln!(
                "usage: cargo xtask tidy | bench [NAME…] [--runs N] | sim [--seconds N] [--seed N]"
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
    match sim::swarm::run_for(|_| began.elapsed() < Duration::from_secs(seconds), seed) {
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

/// The root of the checkout: one above this package.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."))
        .to_path_buf()
}
