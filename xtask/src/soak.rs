//! A cloud under callers and faults for long: `cargo xtask soak [--minutes N] [--callers N]
//! [--seed N]`.
//!
//! Five machines; callers who type random verbs, each with apps of its own; and one fault after the
//! other: a daemon killed or stopped, a machine cut off, slowed, or without power. Then all is healed,
//! and must be right: one membership, each app as it was last acknowledged, on every node; and once
//! all apps are removed, nothing left of them. Needs root. A failing soak says its seed, which draws the same
//! verbs and faults, though never in the same moments.

mod callers;
mod faults;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use end_to_end::wishes::{Dice, Wishes};
use end_to_end::{LabCloud, until};

use crate::bench::{now, rest};
use callers::Tally;

const HOSTS: usize = 5;
/// How long a healed cloud may take to be as it is to be.
const HEALING: Duration = Duration::from_secs(120);
/// How long what ends by itself may take, such as idle connections.
const LEAVING: Duration = Duration::from_secs(30);
/// How much memory a daemon may hold in the end.
const RESIDENT_MIB_MAX: u64 = 96;

/// What was asked for.
struct Options {
    minutes: u32,
    callers: u32,
    seed: u32,
}

/// Runs it.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let number = |flag: &str, otherwise| {
        let at = arguments.iter().position(|argument| argument == flag);
        let text = at.and_then(|at| arguments.get(at + 1));
        text.map_or(Ok(otherwise), |text| text.parse::<u32>())
    };
    let options = (|| {
        Ok::<_, std::num::ParseIntError>(Options {
            minutes: number("--minutes", 30)?,
            callers: number("--callers", 20)?,
            seed: number("--seed", 1)?,
        })
    })();
    let Ok(options) = options else {
        eprintln!("usage: cargo xtask soak [--minutes N] [--callers N] [--seed N]");
        return ExitCode::from(2);
    };
    let (minutes, callers, seed) = (options.minutes, options.callers, options.seed);
    println!("soak: {minutes} min, {callers} callers, seed {seed}");
    // Helpers of the tests panic when what they wait for does not come; the lab ends with them.
    match catch_unwind(AssertUnwindSafe(|| soak(&options))) {
        Ok(faults) if faults.is_empty() => {
            println!("soak: all is right");
            ExitCode::SUCCESS
        }
        Ok(faults) => {
            faults.iter().for_each(|fault| println!("soak: {fault}"));
            println!("soak: seed {seed} failed: {} faults", faults.len());
            ExitCode::FAILURE
        }
        Err(_panic) => {
            println!("soak: seed {seed} failed");
            ExitCode::FAILURE
        }
    }
}

/// What of it was not right.
fn soak(options: &Options) -> Vec<String> {
    let cloud = LabCloud::new(HOSTS, None);
    let names = cloud.names().into_iter();
    let before = names.map(|host| (host.clone(), census(&cloud, &host)));
    let before = before.collect();
    let wishes = Wishes::default();
    let tally = Tally::default();
    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        let (cloud, wishes, tally, is_over) = (&cloud, &wishes, &tally, &is_over);
        for number in 0..options.callers {
            let dice = Dice(u64::from(options.seed) << 32 | u64::from(number));
            scope.spawn(move || callers::call(cloud, wishes, tally, number, dice, is_over));
        }
        let dice = Dice(u64::from(options.seed));
        let faults = scope.spawn(move || faults::cause(cloud, tally, dice, is_over));
        for minute in 1..=options.minutes {
            rest(Duration::from_secs(60));
            println!("minute {minute}: {}", tally.minute());
            println!("  {}", resident(cloud));
        }
        is_over.store(true, Ordering::Relaxed);
        if faults.join().is_err() {
            println!("soak: a fault could not be caused or healed");
        }
    });
    println!("soak: healed; {}", tally.slowest());
    let mut wrong = tally.wrong();
    wrong.extend(judge(&cloud, &wishes));
    wrong.extend(judge_what_is_left(&cloud, &before));
    wrong
}

/// Whether the cloud is one, and as it was wished.
fn judge(cloud: &LabCloud, wishes: &Wishes) -> Vec<String> {
    cloud.await_up(HOSTS);
    let mut wrong = Vec::new();
    for host in cloud.names() {
        let began = now();
        let broken = until("what is wished", HEALING * 2, || {
            let broken = wishes.broken(cloud, &host);
            (broken.is_empty() || began.elapsed() > HEALING).then_some(broken)
        });
        wrong.extend(broken);
        let log = "grep -h 'panicked at' -A3 /var/lib/welkin/daemon.log*; true";
        let panics = cloud.shell(&host, log).stdout;
        wrong.extend(panics.lines().map(|line| format!("{host}: {line}")));
        let report = cloud.welkin(&host, "doctor").stdout;
        for alarm in report.lines().filter(|line| line.starts_with("alarm")) {
            println!("  {alarm}");
        }
    }
    let seen = cloud.names().into_iter().map(|host| table(cloud, &host));
    let mut seen: Vec<String> = seen.collect();
    seen.dedup();
    if seen.len() > 1 {
        wrong.push(format!("nodes tell different things: {seen:#?}"));
    }
    wrong
}

/// All objects as a node tells of them.
fn table(cloud: &LabCloud, host: &str) -> String {
    let objects = end_to_end::objects_of(&cloud.welkin(host, "ps -a -o json"));
    let mut lines: Vec<String> = objects
        .iter()
        .map(|it| format!("{} {} {}", it["app_name"], it["object"], it["phase"]))
        .collect();
    lines.sort();
    lines.join("\n")
}

/// Whether anything is left of apps that are not there any more.
fn judge_what_is_left(cloud: &LabCloud, before: &BTreeMap<String, Census>) -> Vec<String> {
    cloud.remove_all("h1");
    cloud.await_nothing_left();
    let mut wrong = Vec::new();
    for host in cloud.names() {
        let began = now();
        let more = until("a census", LEAVING * 2, || {
            let more = census(cloud, &host).more_than(&before[&host]);
            (more.is_empty() || began.elapsed() > LEAVING).then_some(more)
        });
        wrong.extend(more.into_iter().map(|what| format!("{host}: {what}")));
        let mib = resident_mib(cloud, &host);
        if mib.is_none_or(|mib| mib > RESIDENT_MIB_MAX) {
            wrong.push(format!("{host}: the daemon holds {mib:?} MiB"));
        }
    }
    println!("  {}", resident(cloud));
    wrong
}

/// What a host holds, a line for each thing.
struct Census(BTreeMap<&'static str, Vec<String>>);

/// What is counted on each host, how, and how much more of it there may be in the end.
const COUNTED: [(&str, &str, usize); 4] = [
    (
        "processes",
        "for it in /proc/[0-9]*; do tr '\\0' ' ' <$it/cmdline; echo; done 2>/dev/null",
        0,
    ),
    ("mounts", "cat /proc/self/mountinfo", 0),
    // The log of the daemon that was put aside.
    ("files", "find /var/lib/welkin /run/welkin -type f", 1),
    // Links and callers that came and did not go yet.
    (
        "descriptors",
        "ls -l /proc/$(cut -d' ' -f1 /var/lib/welkin/lock)/fd",
        64,
    ),
];

/// Counts what a host holds.
fn census(cloud: &LabCloud, host: &str) -> Census {
    let lines = |how| {
        let counted = cloud.shell(host, how).stdout;
        counted.lines().map(str::to_owned).collect()
    };
    Census(COUNTED.map(|(what, how, _)| (what, lines(how))).into())
}

impl Census {
    /// What there is more of than before and may not be, with all of it.
    fn more_than(&self, before: &Self) -> Vec<String> {
        let more = COUNTED.iter().filter_map(|(what, _, allowed)| {
            let (before, after) = (before.0[what].len(), &self.0[what]);
            let is_more = after.len() > before + allowed;
            is_more.then(|| format!("{} {what}, {before} before: {after:#?}", after.len()))
        });
        more.collect()
    }
}

fn resident_mib(cloud: &LabCloud, host: &str) -> Option<u64> {
    if !cloud.host(host).is_up() {
        return None;
    }
    let read = "grep VmRSS /proc/$(cut -d' ' -f1 /var/lib/welkin/lock)/status";
    let line = cloud.shell(host, read).stdout;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib >> 10)
}

/// The memory of the daemons, in words.
fn resident(cloud: &LabCloud) -> String {
    let of_host = |host: &String| match resident_mib(cloud, host) {
        Some(mib) => format!("{host} {mib} MiB"),
        None => format!("{host} down"),
    };
    let hosts: Vec<String> = cloud.names().iter().map(of_host).collect();
    format!("resident: {}", hosts.join(", "))
}
