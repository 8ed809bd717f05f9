//! What programs on hosts see of their machine, and how hosts die and come back.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use lab::{HostError, Lab};

use crate::{eventually, mark, now, processes_with, start};

fn shell(lab: &Lab, host: &str, script: &str) -> Command {
    let mut command = lab.host(host).command("/bin/sh");
    command.args(["-c", script]);
    command
}

fn says(lab: &Lab, host: &str, script: &str) -> String {
    let output = shell(lab, host, script).output().expect("it starts");
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        output.status.success(),
        "{script}: {} {error}",
        output.status
    );
    String::from_utf8(output.stdout)
        .expect("text")
        .trim()
        .to_owned()
}

fn signal(pid: u32, name: &str) {
    let kill = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(kill.expect("kill is there").success());
}

#[test]
fn a_host_has_its_own_name_processes_network_and_directories() {
    let lab = start(Lab::builder().hosts(2).private_directory("/mnt"));
    assert_eq!(says(&lab, "h2", "hostname"), "h2");
    assert_eq!(says(&lab, "h2", "cat /proc/1/comm"), "lab-h2");
    assert_eq!(says(&lab, "h2", "ls /sys/class/net"), "eth0\nlo");
    assert_eq!(
        says(&lab, "h2", "pwd"),
        std::env::current_dir().expect("one").display().to_string()
    );
    for place in ["/var/lib/welkin", "/run/welkin", "/mnt", "/dev/shm"] {
        says(&lab, "h1", &format!("echo one > {place}/file"));
        assert_eq!(says(&lab, "h2", &format!("ls {place}")), "", "{place}");
        assert_eq!(says(&lab, "h1", &format!("cat {place}/file")), "one");
    }
    let outside = lab.host("h1").state_dir_outside().join("file");
    assert_eq!(fs::read_to_string(outside).expect("it is there"), "one\n");
    assert_eq!(lab.host("h1").state_dir().to_str(), Some("/var/lib/welkin"));
}

#[test]
fn streams_exit_codes_and_signals_pass_through() {
    let lab = start(Lab::builder().hosts(1));
    let status = |script| shell(&lab, "h1", script).status().expect("it starts");
    assert_eq!(status("exit 7").code(), Some(7));
    assert_eq!(status("kill -KILL $$").signal(), Some(9));
    assert_eq!(status("kill -SEGV $$").signal(), Some(11));

    let mut cat = shell(&lab, "h1", "cat; echo end >&2")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    cat.stdin
        .take()
        .expect("piped")
        .write_all(b"through")
        .expect("it goes");
    let output = cat.wait_with_output().expect("it ends");
    assert_eq!(
        (output.stdout.as_slice(), output.stderr.as_slice()),
        (&b"through"[..], &b"end\n"[..])
    );

    let absent = lab.host("h1").command("/no/such/program").spawn();
    assert_eq!(absent.expect_err("absent").raw_os_error(), Some(2));
}

#[test]
fn a_signal_to_the_child_reaches_the_program() {
    let lab = start(Lab::builder().hosts(1));
    let mut child = shell(
        &lab,
        "h1",
        "trap 'exit 5' TERM; echo ready; while :; do sleep 0.01; done",
    )
    .stdout(Stdio::piped())
    .spawn()
    .expect("it starts");
    let mut line = String::new();
    let mut output = BufReader::new(child.stdout.take().expect("piped"));
    output.read_line(&mut line).expect("it says ready");
    signal(child.id(), "-TERM");
    assert_eq!(child.wait().expect("it ends").code(), Some(5));
}

#[test]
fn a_stopped_program_stops_its_child_and_goes_on_with_it() {
    let lab = start(Lab::builder().hosts(1));
    let mut child = shell(&lab, "h1", "kill -STOP $$; exit 6")
        .spawn()
        .expect("it starts");
    let stat = format!("/proc/{}/stat", child.id());
    eventually("the relay stops", || {
        let stat = fs::read_to_string(&stat).expect("it is there");
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    });
    signal(child.id(), "-CONT");
    assert_eq!(child.wait().expect("it ends").code(), Some(6));
}

#[test]
fn killing_the_child_kills_the_program_and_leaves_nothing_that_holds_the_host() {
    let lab = start(Lab::builder().hosts(1));
    let seconds = mark(1);
    let mut child = lab
        .host("h1")
        .command("sleep")
        .arg(&seconds)
        .spawn()
        .expect("it starts");
    assert!(!processes_with(&seconds).is_empty());
    child.kill().expect("it is there");
    assert_eq!(child.wait().expect("it ends").signal(), Some(9));
    eventually("the program is gone", || {
        processes_with(&seconds).is_empty()
    });
    let begin = now();
    lab.host("h1").kill().expect("it dies");
    assert!(begin.elapsed() < std::time::Duration::from_secs(5));
}

#[test]
fn killing_a_host_kills_everything_on_it_at_once_and_nothing_elsewhere() {
    let lab = start(Lab::builder().hosts(2));
    let (seconds, other) = (mark(2), mark(3));
    let script = format!("setsid sleep {seconds} & sleep {seconds} & echo ready; wait");
    let mut child = shell(&lab, "h1", &script)
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut output = child.stdout.take().expect("piped");
    output.read_exact(&mut [0; 6]).expect("it says ready");
    let mut elsewhere = lab
        .host("h2")
        .command("sleep")
        .arg(&other)
        .spawn()
        .expect("it starts");
    eventually("both sleep", || {
        processes_with(&format!("sleep\0{seconds}")).len() == 2
    });

    lab.host("h1").kill().expect("it dies");
    assert_eq!(processes_with(&format!("sleep\0{seconds}")), [0; 0]);
    assert_eq!(child.wait().expect("it ends").signal(), Some(9));
    assert!(!lab.host("h1").is_up());
    assert!(
        elsewhere.try_wait().expect("ours").is_none(),
        "the other host lives"
    );

    let down = lab.host("h1").command("true").spawn();
    assert_eq!(down.expect_err("down").raw_os_error(), Some(112));
    lab.host("h1").kill().expect("it is dead already");
    elsewhere.kill().expect("it is there");
    elsewhere.wait().expect("it ends");
}

#[test]
fn a_host_that_boots_again_has_its_address_and_its_disk() {
    let lab = start(Lab::builder().hosts(2));
    let address = lab.host("h1").address();
    says(&lab, "h1", "echo kept > /var/lib/welkin/file");
    assert!(matches!(lab.host("h1").start(), Err(HostError::AlreadyUp)));
    for _ in 0..3 {
        lab.host("h1").kill().expect("it dies");
        lab.host("h1").start().expect("it boots");
        assert_eq!(says(&lab, "h1", "cat /var/lib/welkin/file"), "kept");
        assert_eq!(lab.host("h1").address(), address);
        let ends = [lab.host("h1"), lab.host("h2")].map(|host| {
            host.in_network(|| std::net::UdpSocket::bind((host.address(), 0)))
                .expect("a port is free")
        });
        crate::network::round_trip(&ends[0], &ends[1], 1);
    }
}

#[test]
fn hosts_can_be_killed_and_started_from_threads_that_end() {
    let lab = start(Lab::builder().hosts(2));
    std::thread::scope(|scope| {
        for host in lab.hosts() {
            scope.spawn(|| {
                host.kill().expect("it dies");
                host.start().expect("it boots");
            });
        }
    });
    assert_eq!(says(&lab, "h1", "hostname"), "h1");
    assert_eq!(says(&lab, "h2", "hostname"), "h2");
}

#[test]
fn a_host_with_frozen_processes_dies_as_well() {
    let lab = start(Lab::builder().hosts(1));
    let script = "
        own=$(sed -n 's/^[0-9]*:freezer://p' /proc/self/cgroup)
        [ -n \"$own\" ] || exit 0
        mkdir /sys/fs/cgroup/freezer$own/inner
        sleep 1000 &
        echo $! > /sys/fs/cgroup/freezer$own/inner/cgroup.procs
        echo FROZEN > /sys/fs/cgroup/freezer$own/inner/freezer.state";
    let status = shell(&lab, "h1", script).status().expect("it starts");
    assert!(status.success());
    lab.host("h1").kill().expect("it dies");
}
