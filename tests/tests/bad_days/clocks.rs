//! Clocks that are wrong.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use end_to_end::{LoopbackCloud, objects_of, run, until, words};

use crate::rest;

/// How long a cloud may take to be as it is to be.
const PATIENCE: Duration = Duration::from_secs(20);
/// Longer than a node takes to look at the clock: it does every 5 s.
const LOOK: Duration = Duration::from_secs(6);

/// A wall clock that is ahead by as many seconds as a file says; the others go on.
const CLOCK: &str = r#"
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
int clock_gettime(clockid_t clock, struct timespec *at) {
    long told = syscall(SYS_clock_gettime, clock, at);
    const char *path = getenv("CLOCK_AHEAD");
    if (told == 0 && path && clock == CLOCK_REALTIME) {
        char text[32] = {0};
        int file = open(path, O_RDONLY | O_CLOEXEC);
        if (file >= 0) {
            if (read(file, text, sizeof text - 1) > 0) at->tv_sec += atol(text);
            close(file);
        }
    }
    return (int)told;
}
"#;

fn build_clock(directory: &Path) {
    let source = directory.join("clock.c");
    fs::write(&source, CLOCK).expect("there is room");
    let mut compile = Command::new("cc");
    compile.args(["-shared", "-fPIC", "-O1", "-o"]);
    let _built = run(compile.arg(directory.join("clock.so")).arg(source), b"").ok();
}

/// The wall clock of a daemon steps an hour ahead, then two hours back: nobody is held as lost,
/// nothing is started anew, changes are taken on both sides, and ages are none of the future.
#[test]
fn a_clock_that_steps_changes_nothing() {
    let cloud = LoopbackCloud::new(1, None);
    let place = tempfile::tempdir().expect("a directory");
    build_clock(place.path());
    let ahead = place.path().join("ahead");
    fs::write(&ahead, "0").expect("there is room");
    let more = LoopbackCloud::strangers(1, None);
    let ticket = cloud.welkin(0, "invite").ok();
    let mut join = more.command(0);
    join.env("LD_PRELOAD", place.path().join("clock.so"));
    join.env("CLOCK_AHEAD", &ahead)
        .arg("join")
        .arg(ticket.trim());
    let _joined = run(join.args(words("--name odd --listen 127.0.0.1:0")), b"").ok();
    let both = |what: &str| {
        for one in [&cloud, &more] {
            until(what, PATIENCE, || {
                let nodes = one.welkin(0, "nodes -o json").json();
                let nodes = nodes["nodes"].as_array()?.clone();
                let up = nodes.iter().filter(|it| it["state"] == "up").count();
                (up == 2).then_some(())
            });
        }
    };
    both("both are up");
    for host in ["n0", "odd"] {
        let run = format!("run -d --name on-{host} --host {host} --restart always -- sleep 1000");
        let _app = cloud.welkin(0, &run).ok();
    }
    for (round, step) in ["3600", "-3600"].into_iter().enumerate() {
        fs::write(&ahead, step).expect("there is room");
        rest(LOOK);
        both("both are still up");
        for (number, one) in [&more, &cloud].into_iter().enumerate() {
            let label = format!("node label odd step={round}{number}");
            let _changed = one.welkin(0, &label).ok();
            for host in ["n0", "odd"] {
                let app = format!("on-{host}");
                let replicas = round * 2 + number + 2;
                let _scaled = one.welkin(0, &format!("scale {app}={replicas}")).ok();
                for seer in [&cloud, &more] {
                    let objects = objects_of(&seer.welkin(0, &format!("ps {app} -o json")));
                    assert_eq!(objects.len(), replicas, "{objects:?}");
                    assert!(objects.iter().all(|it| it["restarts"] == 0), "{objects:?}");
                }
            }
        }
        let events = cloud.welkin(0, "events -o json").stdout;
        assert!(!events.contains("node.down"), "{events}");
        // It really was wrong: the node says when an object was made, its shim when it was started.
        let made = objects_of(&cloud.welkin(0, "ps on-odd -o json"));
        let made = made.iter().max_by_key(|it| it["index"].as_u64());
        let made = made.expect("some run");
        let of = |what: &str| made[what].as_i64().expect("a time") / 1000;
        let off = of("created") - of("started");
        let step: i64 = step.parse().expect("a number");
        assert!((off - step).abs() < 60, "{made}");
    }
}
