//! Bad days: what goes wrong on real machines, and what is to be left of a cloud afterwards.
//!
//! Each test says in its first line which day it is and how that day is to end. `docs/BAD-DAYS.md`
//! lists these beside the days that are proven elsewhere.

mod clocks;
mod crowds;
mod daemons;
mod disk;
mod links;
mod output;

use std::thread;
use std::time::{Duration, Instant};

use end_to_end::{LabCloud, running_of};
use nix::sys::signal::Signal;
use nix::unistd::Pid;

/// The programs of an app that run, by their process numbers, as `host` tells.
fn processes(cloud: &LabCloud, host: &str, app: &str) -> Vec<u64> {
    let running = running_of(cloud.objects(host, app));
    let mut pids: Vec<u64> = running.iter().filter_map(|it| it["pid"].as_u64()).collect();
    pids.sort_unstable();
    pids
}

/// Lets time go by: what is tested is that it did.
#[expect(clippy::disallowed_methods, reason = "what goes by is real time")]
fn rest(duration: Duration) {
    let began = Instant::now();
    while began.elapsed() < duration {
        thread::park_timeout(duration.saturating_sub(began.elapsed()));
    }
}

/// Sends a signal to a process that is there.
fn signal(pid: i32, signal: Signal) {
    nix::sys::signal::kill(Pid::from_raw(pid), signal).expect("it is there");
}
