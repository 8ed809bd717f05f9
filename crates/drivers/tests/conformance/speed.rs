//! How long a start takes and how much memory a shim holds. The bounds are loose enough for a
//! busy machine and a debug build; the figures are printed.

use std::path::PathBuf;

use drivers::exec;
use wire::driver::{ShimReport, ShimRequest};
use wire::fact::ExitReason;

use crate::bed::{Caller, Driver, launch, now};
use crate::{Case, say};

pub(crate) const CASES: &[Case] = &[
    ("a_start_is_quick", start_is_quick),
    ("a_shim_is_small", shim_is_small),
];

fn start_is_quick(driver: &Driver) {
    let home = tempfile::tempdir_in("/var/tmp").unwrap();
    let (mut calls, mut runs, mut exits, mut ends) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..100 {
        let launch = launch(&["/bin/true"]);
        let directory: PathBuf = home.path().join(round.to_string());
        let start = now();
        (driver.launch)(&directory, &launch);
        calls.push(start.elapsed());
        let mut caller = Caller {
            stream: exec::connect(&directory).unwrap(),
        };
        caller.request(&ShimRequest::Watch);
        assert!(matches!(caller.report(), ShimReport::Running { .. }));
        runs.push(start.elapsed());
        assert_eq!(caller.exit(), ExitReason::Code(0));
        exits.push(start.elapsed());
        assert!(caller.frame().is_none());
        ends.push(start.elapsed());
        exec::remove(&directory).unwrap();
    }
    let mut report = Vec::new();
    for (name, mut times) in [
        ("launch returns", calls),
        ("running", runs),
        ("exited", exits),
        ("gone", ends),
    ] {
        times.sort_unstable();
        let (median, least, p90) = (
            times[50].as_micros(),
            times[0].as_micros(),
            times[90].as_micros(),
        );
        report.push(median);
        say(&format!(
            "  {name}: median {median} us, least {least} us, p90 {p90} us"
        ));
    }
    assert!(report[2] < 60_000, "a start takes {} us", report[2]);
}

fn shim_is_small(driver: &Driver) {
    let object = driver.shell("exec sleep 600");
    object.running();
    let init = object.processes().into_iter().min().unwrap();
    let total: u64 = [object.shim_pid(), init]
        .into_iter()
        .map(|pid| {
            let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix("Pss:"))
                .unwrap();
            let kib: u64 = line.trim().trim_end_matches(" kB").parse().unwrap();
            say(&format!("  {pid}: {kib} KiB"));
            kib
        })
        .sum();
    assert!(total < 3 * 1024, "shim and init hold {total} KiB");
}
