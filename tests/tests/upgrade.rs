//! An upgrade that nobody notices: one node after the other gets another program while the cloud
//! works, and no object and no caller sees it.
//!
//! `WELKIN_PREVIOUS` names the program to begin with: `make upgrade` builds the one of the last
//! release. Without it the nodes begin with the program under test, which shows the restart alone.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use end_to_end::{LoopbackCloud, Ran, running_of, throughout, until, words};

const NODES: usize = 3;
const PATIENCE: Duration = Duration::from_secs(60);

/// Objects of an app by id, with their process ids and how often they were started again.
fn objects(ran: &Ran) -> BTreeMap<String, (u64, u64)> {
    let row = |object: &serde_json::Value| {
        let id = object["object"].as_str()?.to_string();
        Some((id, (object["pid"].as_u64()?, object["restarts"].as_u64()?)))
    };
    let running = running_of(end_to_end::objects_of(ran));
    running.iter().filter_map(row).collect()
}

/// Most apps that are made meanwhile.
const CHANGES_MAX: usize = 24;

/// Tells a caller to end, also when the test fails.
struct Ending<'a>(&'a AtomicBool);

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Calls all nodes but the one that is being replaced until it is told to end. Reads are answered
/// by every one of them. A change that was on its way to the node that ends may be refused, with
/// the name of that node. Says which changes were acknowledged.
fn call_all_the_time(cloud: &LoopbackCloud, away: &AtomicUsize, ends: &AtomicBool) -> Vec<String> {
    let mut made = Vec::new();
    let mut calls = 0;
    while !ends.load(Ordering::Relaxed) {
        let node = calls % NODES;
        calls += 1;
        // It may be taken away between the look and the end of the call.
        let is_away = || away.load(Ordering::Relaxed) == node;
        if is_away() {
            continue;
        }
        let seen = cloud.welkin(node, "ps -o json");
        if !is_away() {
            let _table = seen.json();
        }
        if made.len() >= CHANGES_MAX || is_away() {
            continue;
        }
        let name = format!("change-{calls}");
        let run = format!("run -d --name {name} --restart always -- sleep 1000");
        let ran = cloud.welkin(node, &run);
        if ran.code == 0 {
            made.push(name);
        } else if !is_away() {
            assert!(ran.stderr.contains("does not answer"), "{}", ran.stderr);
        }
    }
    made
}

/// Ends the daemon as an upgrade does.
fn end(cloud: &LoopbackCloud, node: usize) {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let daemon = Pid::from_raw(cloud.daemon(node).expect("it runs"));
    kill(daemon, Signal::SIGTERM).expect("it runs");
    // It has ended when it is a zombie too: who adopted it may take a while to notice.
    until("the old daemon has ended", PATIENCE, || {
        let status = std::fs::read_to_string(format!("/proc/{daemon}/stat")).ok();
        let is_alive = status.is_some_and(|it| !it.contains(") Z"));
        (!is_alive).then_some(())
    });
}

/// Ends the daemon, and starts the new program on what it left.
fn replace(cloud: &LoopbackCloud, node: usize, program: &std::path::Path) {
    end(cloud, node);
    cloud.set_program(node, program.to_path_buf());
    let _up = cloud.welkin(node, "up").ok();
    for other in 0..NODES {
        until("all nodes are up again", PATIENCE, || {
            (nodes_up(cloud, other)? == NODES).then_some(())
        });
    }
}

fn nodes_up(cloud: &LoopbackCloud, at: usize) -> Option<usize> {
    let table = cloud.welkin(at, "nodes -o json");
    let table: serde_json::Value = serde_json::from_str(&table.stdout).ok()?;
    let nodes = table["nodes"].as_array()?;
    Some(nodes.iter().filter(|it| it["state"] == "up").count())
}

#[test]
fn one_node_after_the_other_gets_another_program_and_nobody_notices() {
    let new = end_to_end::welkin();
    let old = std::env::var_os("WELKIN_PREVIOUS").map_or_else(|| new.clone(), PathBuf::from);
    let cloud = LoopbackCloud::with_program(NODES, &old);
    let run = "run -d --name web --replicas 6 --spread --restart always -- sh -c";
    let mut arguments = words(run);
    arguments.push("i=0; while :; do echo $i; i=$((i+1)); sleep 0.05; done".to_string());
    let _web = cloud.welkin_with(0, &arguments, b"").ok();
    let _once = cloud
        .welkin(
            0,
            "run -d --name single --restart always --on-partition once -- sleep 1000",
        )
        .ok();
    let before = until("six objects run", PATIENCE, || {
        let objects = objects(&cloud.welkin(0, "ps web -o json"));
        (objects.len() == 6).then_some(objects)
    });
    let single = objects(&cloud.welkin(0, "ps single -o json"));

    let away = AtomicUsize::new(NODES);
    let ends = AtomicBool::new(false);
    let made = std::thread::scope(|scope| {
        let ending = Ending(&ends);
        let caller = scope.spawn(|| call_all_the_time(&cloud, &away, &ends));
        for node in 0..NODES {
            away.store(node, Ordering::Relaxed);
            replace(&cloud, node, &new);
            away.store(NODES, Ordering::Relaxed);
            // Two programs at once: each sees what runs on the others, and reads its output.
            for at in 0..NODES {
                // Of a slow start others may have made up meanwhile: that goes, and these stay.
                until("the same objects run", PATIENCE, || {
                    (objects(&cloud.welkin(at, "ps web -o json")) == before).then_some(())
                });
                let log = cloud.welkin(at, "logs web --tail 1").ok();
                assert_eq!(log.lines().count(), 6, "{log}");
            }
        }
        drop(ending);
        caller.join().expect("every call was answered")
    });

    assert!(made.len() > NODES, "{made:?}");
    for name in &made {
        until("every change is there", PATIENCE, || {
            let objects = objects(&cloud.welkin(1, &format!("ps {name} -o json")));
            (objects.len() == 1).then_some(())
        });
    }
    assert_eq!(objects(&cloud.welkin(1, "ps single -o json")), single);
    let log = cloud.welkin(2, "logs web/0 --no-prefix").stdout;
    let numbers: Vec<u32> = log.lines().filter_map(|it| it.parse().ok()).collect();
    let expected: Vec<u32> = (0..u32::try_from(numbers.len()).expect("few")).collect();
    assert_eq!(numbers, expected, "no line is lost or doubled");
}

/// Longer than it takes until a node is held as lost that has said nothing.
const SLOW_START: Duration = Duration::from_secs(9);

#[test]
fn a_daemon_that_is_slow_to_begin_again_is_missed_by_nobody() {
    let cloud = LoopbackCloud::new(NODES, None);
    let run = "run -d --name web --replicas 3 --spread --restart always -- sleep 1000";
    let _web = cloud.welkin(0, run).ok();
    let before = until("three objects run", PATIENCE, || {
        let objects = objects(&cloud.welkin(0, "ps web -o json"));
        (objects.len() == 3).then_some(objects)
    });
    // Each of them is the supervisor of some.
    let others = ["db", "cache", "queue", "mail"];
    for name in others {
        let _made = cloud
            .welkin(
                0,
                &format!("run -d --name {name} --restart always -- sleep 1000"),
            )
            .ok();
    }
    end(&cloud, 2);
    throughout(SLOW_START, || {
        for (at, name) in (0..2).cycle().zip(others) {
            assert_eq!(nodes_up(&cloud, at), Some(NODES));
            let shown = objects(&cloud.welkin(at, "ps web -o json"));
            assert!(shown.keys().all(|it| before.contains_key(it)), "{shown:?}");
            // Whoever supervised it, it can be changed.
            let _scaled = cloud.welkin(at, &format!("scale {name}=1")).ok();
        }
    });
    let _up = cloud.welkin(2, "up").ok();
    until("the same objects run", PATIENCE, || {
        (objects(&cloud.welkin(2, "ps web -o json")) == before).then_some(())
    });
}
