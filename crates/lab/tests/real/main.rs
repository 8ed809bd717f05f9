//! Labs with real hosts, on this machine. These tests need root and `/dev/net/tun`, and fail without.

#![expect(clippy::expect_used, reason = "a test says what it expected and stops")]

mod command;
mod fallback;
mod hosts;
mod measure;
mod network;
mod remains;

use std::fs;
use std::time::{Duration, Instant};

use lab::{Builder, Lab};

/// How long something may take that is expected to happen soon.
const SOON: Duration = Duration::from_secs(10);

/// A lab with namespaces, or a failure that says what is missing.
fn start(builder: Builder) -> Lab {
    let lab = builder.start().expect("the lab starts");
    let missing = &lab.capabilities().missing;
    assert!(missing.is_empty(), "these tests need root: {missing:?}");
    lab
}

#[expect(clippy::disallowed_methods, reason = "these tests measure real time")]
fn now() -> Instant {
    Instant::now()
}

/// Asks until the answer is yes; fails when it does not come soon.
#[expect(
    clippy::disallowed_methods,
    reason = "a pause between two looks at /proc"
)]
fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let start = now();
    while !done() {
        assert!(start.elapsed() < SOON, "not soon enough: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Living processes whose command line contains `text`.
fn processes_with(text: &str) -> Vec<i32> {
    let pids = fs::read_dir("/proc").expect("/proc is there").flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(text)
        })
        .collect()
}

/// A duration in seconds that no other test sleeps, to know a process by.
fn mark(number: u32) -> String {
    format!("{}.{number}", 100_000_000 + u64::from(std::process::id()))
}
