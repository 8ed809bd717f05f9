//! What never runs twice does not: across a cut, and when a daemon dies that should have stopped it.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use end_to_end::{LabCloud, LoopbackCloud, objects_of, running_of, until, words};
use lab::Ways;

const PATIENCE: Duration = Duration::from_secs(60);
/// What `--on-partition once` promises unless it is told otherwise, in seconds.
const TAKEOVER: f64 = 15.0;
/// A user without any rights.
const NOBODY: u32 = 65_534;

/// A program that would do harm if it ran twice: it says again and again what time it is, by a clock
/// that all hosts of a lab share, and in which epoch.
const CLOCK: &str =
    "while read up idle < /proc/uptime; do echo $WELKIN_EPOCH $up; sleep 0.02; done";

/// The times at which an epoch of [`CLOCK`] ran, in seconds, from a log.
fn times(log: &str, epoch: u64) -> Vec<f64> {
    let own = |line: &str| {
        let mut parts = line.split_whitespace().rev();
        let time = parts.next()?.parse().ok()?;
        (parts.next()?.parse() == Ok(epoch)).then_some(time)
    };
    log.lines().filter_map(own).collect()
}

fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").expect("the kernel tells it");
    let first = text.split_whitespace().next().expect("two numbers");
    first.parse().expect("a number")
}

#[test]
fn what_never_runs_twice_ends_on_one_side_of_a_cut_before_it_begins_on_the_other() {
    let cloud = LabCloud::new(5, None);
    let mut arguments = words("run -d --name clock --restart always --on-partition once -- sh -c");
    arguments.push(CLOCK.to_string());
    let _clock = cloud.welkin_with("h1", &arguments, b"").ok();
    let object = cloud.await_running("h1", "clock", 1).remove(0);
    let id = object["object"].as_str().expect("an id").to_string();
    let host = cloud.name_of("h1", object["node"].as_str().expect("a node"));
    let inspected = cloud.welkin("h1", "inspect clock -o json").json();
    let guardians = inspected[0]["guardians"].as_array().expect("a list");
    let guardians: BTreeSet<&str> = guardians.iter().filter_map(|it| it.as_str()).collect();
    let names = cloud.names();
    let company = names
        .iter()
        .find(|name| **name != host && !guardians.contains(name.as_str()));
    let company = company.expect("five hosts, three guardians").clone();
    let (few, most): (Vec<String>, Vec<String>) = names
        .into_iter()
        .partition(|name| *name == host || *name == company);

    let cut_at = uptime();
    cloud.lab.cut(&few, &most, Ways::Both).expect("a cut");
    until("it runs where most guardians are", PATIENCE, || {
        let running = running_of(cloud.objects(&most[0], "clock"));
        running
            .iter()
            .any(|it| it["object"] != id.as_str())
            .then_some(())
    });
    let first = until("the second says the time", PATIENCE, || {
        let log = cloud.welkin(&most[0], "logs clock").stdout;
        times(&log, 2).first().copied()
    });
    let log = cloud.welkin(&host, &format!("logs {id}")).ok();
    let last = times(&log, 1).last().copied().expect("it ran before");
    assert!(
        last < first,
        "the first ran until {last}, the second from {first}"
    );
    // It was frozen after 0.7 of the term, which is two thirds of the whole.
    assert!(
        last - cut_at < TAKEOVER * 0.7 * 2.0 / 3.0 + 0.5,
        "{last} {cut_at}"
    );
    assert!(first - cut_at < TAKEOVER, "{first} {cut_at}");

    cloud.lab.heal().expect("no cut");
    until("the first is forgotten", PATIENCE, || {
        let objects = cloud.objects(&host, "clock");
        (objects.len() == 1 && objects[0]["object"] != id.as_str()).then_some(())
    });
    assert_eq!(running_of(cloud.objects(&host, "clock")).len(), 1);
}

#[test]
fn what_never_runs_twice_ends_also_when_its_daemon_is_dead() {
    let cloud = LoopbackCloud::new(3, Some(NOBODY));
    let run = "run -d --name app --restart always --on-partition once:6s -- sleep 1000";
    let _app = cloud.welkin(0, run).ok();
    let running = |node: usize| running_of(objects_of(&cloud.welkin(node, "ps app -a -o json")));
    let object = until("it runs", PATIENCE, || running(0).pop());
    let pid = object["pid"].as_u64().expect("it runs");
    let nodes = cloud.welkin(0, "nodes -o json").json();
    let nodes = nodes["nodes"].as_array().expect("a list").clone();
    let host = nodes.iter().find(|it| it["node"] == object["node"]);
    let host = host
        .and_then(|it| it["name"].as_str())
        .expect("it is a node");
    let host: usize = host[1..].parse().expect("nodes are n0, n1, n2");
    let daemon = cloud.daemon(host).expect("it runs");
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(daemon),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("it was there");

    let witness = (host + 1) % 3;
    until("it runs elsewhere", PATIENCE, || {
        let other = |it: &serde_json::Value| it["object"] != object["object"];
        running(witness).iter().any(other).then_some(())
    });
    assert!(
        !Path::new(&format!("/proc/{pid}")).exists(),
        "it was ended before, by its shim"
    );
    let _back = cloud.welkin(host, "up").ok();
    until("one runs, no more, as all see it", PATIENCE, || {
        let one = |node| running(node).len() == 1;
        (0..3).all(one).then_some(())
    });
}
