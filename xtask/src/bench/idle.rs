//! What an idle node of a cloud of five costs: memory of everything that runs there, CPU, and what
//! a shim adds.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use end_to_end::LabCloud;
use lab::Wan;

use super::{Figure, rest};

/// How long nothing happens while it is measured.
const IDLE: Duration = Duration::from_secs(60);
/// Time for a new cloud to calm down.
const CALM: Duration = Duration::from_secs(20);

/// The daemons of this machine that belong to the cloud, by process id, and their shims.
fn processes() -> (Vec<u32>, Vec<u32>) {
    let binary = end_to_end::welkin();
    let mut daemons = Vec::new();
    let mut shims = Vec::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        let is_ours = fs::read_link(entry.path().join("exe")).is_ok_and(|exe| exe == binary);
        if !is_ours {
            continue;
        }
        let line = fs::read_to_string(entry.path().join("cmdline")).unwrap_or_default();
        if line.split('\0').nth(1) == Some("shim") {
            shims.push(pid)
        } else {
            daemons.push(pid)
        }
    }
    (daemons, shims)
}

/// A line of `smaps_rollup`, in MiB.
fn memory_mib(pid: u32, line: &str) -> f64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let kib = text.lines().find_map(|it| {
        it.strip_prefix(line)?
            .strip_prefix(':')?
            .split_whitespace()
            .next()?
            .parse::<u32>()
            .ok()
    });
    kib.map_or(f64::NAN, |kib| f64::from(kib) / 1024.0)
}

/// Clock ticks of CPU that a process has used: fields 14 and 15 of `proc_pid_stat(5)`.
fn ticks(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let rest = stat.rsplit(')').next().unwrap_or_default();
    let field = |n: usize| {
        rest.split_whitespace()
            .nth(n)
            .and_then(|it| it.parse::<u32>().ok())
    };
    field(11).unwrap_or(0) + field(12).unwrap_or(0)
}

pub(super) fn measure() -> Vec<Figure> {
    let cloud = LabCloud::new(5, Some(Wan::builtin()));
    rest(CALM);
    let (daemons, _) = processes();
    let before: BTreeMap<u32, u32> = daemons.iter().map(|pid| (*pid, ticks(*pid))).collect();
    rest(IDLE);
    // A tick is 1/100 s on every Linux that we know of.
    let cpu = before
        .iter()
        .map(|(pid, then)| f64::from(ticks(*pid) - then) / IDLE.as_secs_f64())
        .collect();
    let rss = daemons.iter().map(|pid| memory_mib(*pid, "Rss")).collect();
    let _app = cloud
        .welkin("h1", "run -d --name idle --replicas 10 -- sleep 100000")
        .ok();
    cloud.await_running("h1", "idle", 10);
    let (_, shims) = processes();
    // Each object has a shim and the first process inside, which is of the same program.
    let pss = shims.iter().map(|pid| memory_mib(*pid, "Pss")).sum::<f64>() / 10.0;
    let rss = Figure::new("idle node of five: resident memory", "MiB", rss);
    let cpu = Figure::new("idle node of five: CPU, part of one core", "%", cpu);
    let (small, calm) = (rss.median() <= 30.0, cpu.median() <= 0.5);
    vec![
        rss.goal("30 MiB", small),
        cpu.goal("0.5 %", calm),
        Figure::new("a shim: proportional memory", "MiB", vec![pss]).goal("3 MiB", pss <= 3.0),
    ]
}
