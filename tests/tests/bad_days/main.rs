//! Bad days: what goes wrong on real machines, and what is to be left of a cloud afterwards.
//!
//! Each test says in its first line which day it is and how that day is to end. `docs/BAD-DAYS.md`
//! lists these beside the days that are proven elsewhere.

mod disk;

use end_to_end::{LabCloud, running_of};

/// The programs of an app that run, by their process numbers, as `host` tells.
fn processes(cloud: &LabCloud, host: &str, app: &str) -> Vec<u64> {
    let running = running_of(cloud.objects(host, app));
    let mut pids: Vec<u64> = running.iter().filter_map(|it| it["pid"].as_u64()).collect();
    pids.sort_unstable();
    pids
}
