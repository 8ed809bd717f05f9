//! What stays when a lab is over: nothing.

use std::fs;
use std::path::{Path, PathBuf};

use lab::Lab;

use crate::{eventually, mark, processes_with, start};

/// Everything of a lab that can be found on this machine.
pub(crate) fn remains(name: &str) -> Vec<String> {
    let mut found = Vec::new();
    for path in [format!("/run/lab-{name}"), format!("/var/tmp/lab-{name}")] {
        found.extend(Path::new(&path).exists().then_some(path));
    }
    let mounts = fs::read_to_string("/proc/mounts").expect("it can be read");
    let mounted = mounts
        .lines()
        .filter(|line| line.contains(&format!("lab-{name}")));
    found.extend(mounted.map(str::to_owned));
    found.extend(cgroups_of(name).iter().map(|it| it.display().to_string()));
    found
}

fn cgroups_of(name: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = next.pop() {
        for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("lab-{name}-"))
            {
                found.push(path);
            } else if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                next.push(path);
            }
        }
    }
    found
}

fn init_pids(lab: &Lab) -> Vec<i32> {
    let hosts = lab.status().hosts;
    hosts.iter().filter_map(|host| host.init_pid).collect()
}

fn is_there(pid: i32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// A lab with a program that has a cgroup of its own, below that of its host.
fn busy_lab(seconds: &str) -> Lab {
    let lab = start(Lab::builder().hosts(2));
    let script = format!(
        "for line in $(cat /proc/self/cgroup); do
             path=${{line##*:}}; kind=${{line#*:}}; kind=${{kind%%:*}}; kind=${{kind#name=}}
             cd /sys/fs/cgroup/${{kind:-unified}}$path && mkdir -p inner/most
         done
         [ -d inner/most ] || exit 1
         setsid sleep {seconds} & "
    );
    let status = lab
        .host("h1")
        .command("/bin/sh")
        .args(["-c", &script])
        .status();
    assert!(status.expect("it starts").success());
    eventually("it sleeps", || {
        processes_with(seconds).iter().any(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n")
        })
    });
    lab
}

#[test]
fn nothing_stays_after_a_lab_is_dropped() {
    let seconds = mark(10);
    let lab = busy_lab(&seconds);
    let (name, inits) = (lab.name().to_owned(), init_pids(&lab));
    assert!(
        remains(&name).len() > 2,
        "the search finds a lab that is up"
    );
    assert_eq!(inits.len(), 2);
    drop(lab);
    assert_eq!(remains(&name), [""; 0]);
    assert_eq!(processes_with(&seconds), [0; 0]);
    assert!(!inits.iter().any(|pid| is_there(*pid)));
}

#[test]
fn nothing_stays_after_a_test_panics() {
    let seconds = mark(11);
    let (tell, told) = std::sync::mpsc::sync_channel(1);
    let inner = seconds.clone();
    let panicked = std::thread::spawn(move || {
        let lab = busy_lab(&inner);
        tell.send((lab.name().to_owned(), init_pids(&lab)))
            .expect("it is heard");
        panic!("this panic is part of the test");
    });
    panicked.join().expect_err("it panics");
    let (name, inits) = told.recv().expect("it was said");
    assert_eq!(remains(&name), [""; 0]);
    assert_eq!(processes_with(&seconds), [0; 0]);
    assert!(!inits.iter().any(|pid| is_there(*pid)));
}

#[test]
fn a_host_that_outlives_its_lab_is_down() {
    let lab = start(Lab::builder().hosts(1));
    let host = lab.host("h1").clone();
    lab.down().expect("it goes down");
    assert!(!host.is_up());
    assert_eq!(
        host.start().expect_err("closed").to_string(),
        "the lab is down"
    );
}

#[test]
fn a_name_is_taken_while_its_lab_is_up_and_free_afterwards() {
    let name = format!("taken-{}", std::process::id());
    let lab = start(Lab::builder().hosts(1).name(name.as_str()));
    let second = Lab::builder().hosts(1).name(name.as_str()).start();
    assert!(second.expect_err("taken").to_string().contains("is up"));
    lab.down().expect("it goes down");
    start(Lab::builder().hosts(1).name(name.as_str()));
    for bad in ["", "A", "a/b", "a b", &"x".repeat(33)] {
        let refused = Lab::builder().name(bad).start();
        assert!(
            refused
                .expect_err(bad)
                .to_string()
                .contains("cannot be the name")
        );
    }
}
