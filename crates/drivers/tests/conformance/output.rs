//! Standard streams: attaching, logs, terminals, further programs.

use std::io::Write;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wire::driver::ShimRequest;
use wire::fact::ExitReason;
use wire::stream::{Kind, What};

use crate::Case;
use crate::bed::{Driver, Object, eventually, is_alive, launch, program};

pub(crate) const CASES: &[Case] = &[
    ("standard_input_reaches_the_program", stdin),
    ("without_standard_input_it_is_empty", no_stdin),
    ("only_one_caller_types", one_typist),
    ("a_late_caller_gets_every_byte_once_and_in_order", replay),
    ("a_caller_that_does_not_read_delays_nobody", slow_caller),
    ("an_only_caller_gets_all_of_much_output", only_caller),
    ("logs_have_a_tail_and_follow", logs),
    ("a_log_is_bounded", log_bounded),
    ("a_caller_who_lost_some_of_the_log_is_told", log_gap),
    ("a_torn_log_is_read_and_continued", log_torn),
    ("a_terminal_has_a_size_and_echoes", terminal),
    ("a_further_program_runs_inside", exec),
    ("a_further_program_takes_input", exec_stdin),
    ("a_further_program_can_have_a_terminal", exec_terminal),
    ("a_further_program_that_cannot_start_says_why", exec_missing),
    ("a_caller_that_goes_hangs_up_its_program", exec_hangup),
    (
        "a_caller_that_goes_hangs_up_who_ignores_it_too",
        exec_hangup_ignored,
    ),
    ("a_probe_tells_how_it_ended", probe),
    ("a_probe_that_hangs_is_killed_with_all_of_it", probe_hangs),
    ("what_a_probe_leaves_is_killed", probe_leaves),
    (
        "a_caller_that_goes_while_its_input_waits_is_gone",
        gone_while_stalled,
    ),
    ("silent_callers_make_room_for_others", silent),
    ("too_many_callers_are_turned_away", too_many),
];

fn attach(stdin: bool, replay: bool) -> What {
    What::Attach { stdin, replay }
}

fn logs_of(tail_lines: Option<u64>, follow: bool) -> What {
    What::Logs {
        follow,
        tail_lines,
        since_ms: None,
    }
}

fn with_stdin(driver: &Driver, script: &str) -> Object {
    let mut launch = launch(&["/bin/sh", "-c", script]);
    launch.program.stdin = true;
    driver.start(launch)
}

fn stdin(driver: &Driver) {
    let object = with_stdin(driver, "cat; echo end >&2");
    let mut caller = object.open(attach(true, true));
    let text = vec![b'x'; 300_000];
    let mut writer = crate::bed::Caller {
        stream: caller.stream.try_clone().unwrap(),
    };
    let sent = text.clone();
    let thread = std::thread::spawn(move || {
        sent.chunks(60_000)
            .for_each(|piece| writer.send(Kind::Stdin, piece));
        writer.send(Kind::StdinEnd, &[]);
    });
    let (out, err, reason) = caller.outputs();
    thread.join().unwrap();
    assert_eq!((out.len(), out == text), (text.len(), true));
    assert_eq!(
        (err.as_slice(), reason),
        (b"end\n".as_slice(), ExitReason::Code(0))
    );
}

fn no_stdin(driver: &Driver) {
    let object =
        driver.shell("sleep 0.1; cat; test -e /dev/stdin && echo open; ls -l /proc/self/fd");
    let output = object.output();
    assert!(output.contains("open"), "{output}");
    assert_eq!(
        output.matches("->").count(),
        4,
        "only 0 to 2 and the listing itself: {output}"
    );
}

fn one_typist(driver: &Driver) {
    let object = with_stdin(driver, "cat");
    let mut first = object.open(attach(true, false));
    first.send(Kind::Stdin, b"mine\n");
    assert_eq!(first.until("mine"), "mine\n");
    let failure = object.open(attach(true, false)).failure();
    assert!(failure.contains("conflict"), "{failure}");
    // It needs no more than to say nothing any more: a node that passes its caller on still listens.
    first.stream.shutdown(std::net::Shutdown::Write).unwrap();
    eventually("the place is free again", || {
        let mut next = object.open(attach(true, false));
        next.send(Kind::Stdin, b"next\n");
        matches!(next.frame(), Some((Kind::Stdout, _)))
    });
}

/// A script that prints numbered lines, slowly enough to be attached to in the middle.
const NUMBERS: &str = "i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done; sleep 0.2";

fn numbers() -> String {
    (0..20_000).map(|number| format!("{number}\n")).collect()
}

fn replay(driver: &Driver) {
    let object = driver.shell(NUMBERS);
    let callers: Vec<_> = (0..8)
        .map(|_| {
            object.wait_for("\n");
            let mut caller = object.open(attach(false, true));
            std::thread::spawn(move || caller.outputs())
        })
        .collect();
    for caller in callers {
        let (out, _, reason) = caller.join().unwrap();
        assert_eq!(reason, ExitReason::Code(0));
        assert!(
            String::from_utf8(out).unwrap() == numbers(),
            "every byte once, in order"
        );
    }
}

fn slow_caller(driver: &Driver) {
    let mut launch = launch(&[
        "/bin/sh",
        "-c",
        "head -c 20000000 /dev/zero; echo over; sleep 600",
    ]);
    launch.log_bytes_max = 1 << 20;
    let object = driver.start(launch);
    let mut slow = object.open(attach(false, true));
    let (kind, _) = slow.frame().unwrap();
    assert_eq!(kind, Kind::Stdout);
    let mut other = object.open(logs_of(None, true));
    eventually("the other one sees the end", || {
        let (kind, payload) = other.frame().unwrap();
        if kind == Kind::Failure {
            // Even this one was too slow for a log of this size; it begins again.
            other = object.open(logs_of(None, true));
        }
        payload.ends_with(b"over\n")
    });
    let failure = slow.failure();
    assert!(failure.contains("busy"), "{failure}");
}

fn only_caller(driver: &Driver) {
    let mut launch = launch(&["/bin/sh", "-c", "head -c 20000000 /dev/zero; echo over"]);
    launch.log_bytes_max = 1 << 20;
    launch.program.stdin = true;
    launch.program.arguments[2].insert_str(0, "read go; ");
    let object = driver.start(launch);
    let mut caller = object.open(attach(true, true));
    caller.send(Kind::Stdin, b"go\n");
    let (out, _, reason) = caller.outputs();
    assert_eq!((out.len(), reason), (20_000_005, ExitReason::Code(0)));
}

fn logs(driver: &Driver) {
    let object = driver.shell("for i in 1 2 3 4 5; do echo line $i; done; sleep 0.3; echo late");
    object.wait_for("line 5\n");
    let (out, _, reason) = object.open(logs_of(Some(2), false)).outputs();
    assert_eq!(
        (String::from_utf8(out).unwrap().as_str(), reason),
        ("line 4\nline 5\n", ExitReason::Code(0))
    );
    let (out, _, _) = object.open(logs_of(Some(1), true)).outputs();
    assert_eq!(String::from_utf8(out).unwrap(), "line 5\nlate\n");
}

fn log_bounded(driver: &Driver) {
    let mut launch = launch(&[
        "/bin/sh",
        "-c",
        "head -c 10000000 /dev/zero; echo over; sleep 600",
    ]);
    launch.log_bytes_max = 1 << 20;
    let object = driver.start(launch);
    object.wait_for("over\n");
    let (out, _, _) = object.open(logs_of(None, false)).outputs();
    assert!(out.len() <= 1 << 20 && out.ends_with(b"over\n"));
    let files = std::fs::read_dir(&object.directory).unwrap();
    let bytes: u64 = files
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("log."))
        .map(|entry| entry.metadata().unwrap().len())
        .sum();
    assert!(bytes <= 1 << 20, "{bytes}");
}

// What was deleted from the log before it was read was left out without a word.
fn log_gap(driver: &Driver) {
    let script = "head -c 900000 /dev/zero; echo; echo full; read go; head -c 5000000 /dev/zero; \
                  echo over; sleep 600";
    let mut launch = launch(&["/bin/sh", "-c", script]);
    launch.log_bytes_max = 1 << 20;
    launch.program.stdin = true;
    let object = driver.start(launch);
    object.wait_for("full");
    let mut slow = object.open(logs_of(None, false));
    slow.frame().unwrap();
    let mut typist = object.open(attach(true, false));
    typist.send(Kind::Stdin, b"go\n");
    typist.until("over");
    let failure = slow.failure();
    assert!(failure.contains("busy"), "{failure}");
}

fn log_torn(driver: &Driver) {
    let mut object = driver.shell("echo whole; echo run $WELKIN_RESTARTS");
    object.reason();
    eventually("the shim has ended", || object.groups().is_empty());
    let log = object.directory.join("log.0");
    let mut bytes = std::fs::read(&log).unwrap();
    bytes.extend([7, 0, 0, 0, 1, 2, 3]);
    std::fs::File::create(&log)
        .unwrap()
        .write_all(&bytes)
        .unwrap();
    object.launch.restarts = 1;
    object.launch.program.arguments[2].push_str("; sleep 0.2");
    driver.restart(&mut object);
    assert_eq!(object.output(), "whole\nrun 0\nwhole\nrun 1\n");
}

fn terminal(driver: &Driver) {
    let mut launch = launch(&[
        "/bin/sh",
        "-c",
        "read a; tty; stty size; echo got $a; test -t 2 && echo yes $TERM",
    ]);
    launch.program.terminal = true;
    launch.program.stdin = true;
    let object = driver.start(launch);
    object.running();
    let mut caller = object.open(attach(true, true));
    caller.send(Kind::Resize, &[0, 33, 0, 101]);
    caller.send(Kind::Stdin, b"word\n");
    let (out, err, reason) = caller.outputs();
    let out = String::from_utf8(out).unwrap();
    assert_eq!(
        out,
        "word\r\n/dev/pts/0\r\n33 101\r\ngot word\r\nyes xterm\r\n"
    );
    assert_eq!((err.len(), reason), (0, ExitReason::Code(0)));
}

fn exec(driver: &Driver) {
    let mut launch = launch(&["/bin/sh", "-c", "echo x > /tmp/mark; echo ready; sleep 600"]);
    launch
        .program
        .environment
        .insert("MINE".to_string(), "1".to_string());
    let object = driver.start(launch);
    object.wait_for("ready");
    let script = "cat /tmp/mark; hostname; echo $MINE $WELKIN_APP; echo err >&2; ls /proc | grep -c '^[0-9]'; exit 11";
    let (output, reason) = object.exec_shell(script);
    assert_eq!(reason, ExitReason::Code(11));
    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(&lines[..3], ["x", "case-3", "1 case"], "{output}");
    assert!(lines.contains(&"err"), "{output}");
    let groups = object.exec_shell("cat /proc/self/cgroup").0;
    let id = object.launch.object.to_string();
    assert_eq!(
        groups.matches(&id).count(),
        object.groups().len(),
        "it is under the same limits: {groups}"
    );
    assert!(!object.groups().is_empty());
}

fn exec_stdin(driver: &Driver) {
    let object = driver.shell("sleep 600");
    object.running();
    let mut wanted = program(&["cat"]);
    wanted.stdin = true;
    let mut caller = object.open(What::Exec { program: wanted });
    caller.send(Kind::Stdin, b"hello");
    caller.send(Kind::StdinEnd, &[]);
    let (out, _, reason) = caller.outputs();
    assert_eq!(
        (out.as_slice(), reason),
        (b"hello".as_slice(), ExitReason::Code(0))
    );
}

fn exec_terminal(driver: &Driver) {
    let object = driver.shell("sleep 600");
    object.running();
    let mut wanted = program(&["/bin/sh", "-c", "read a; stty size; exit 4"]);
    wanted.terminal = true;
    wanted.stdin = true;
    let mut caller = object.open(What::Exec { program: wanted });
    caller.send(Kind::Resize, &[0, 20, 0, 40]);
    caller.send(Kind::Stdin, b"a\n");
    let (out, _, reason) = caller.outputs();
    assert_eq!(String::from_utf8(out).unwrap(), "a\r\n20 40\r\n");
    assert_eq!(reason, ExitReason::Code(4));
}

fn exec_missing(driver: &Driver) {
    let object = driver.shell("sleep 600");
    object.running();
    let (_, reason) = object.exec(program(&["no-such-program"]));
    assert!(
        matches!(reason, ExitReason::NotStarted { code: 127, .. }),
        "{reason:?}"
    );
}

fn exec_hangup(driver: &Driver) {
    let object = driver.shell("exec sleep 600");
    object.running();
    let without = object.processes().len();
    let script = "trap 'echo hup > /tmp/hup' HUP; echo ready; while :; do :; done";
    let mut caller = object.open(What::Exec {
        program: program(&["/bin/sh", "-c", script]),
    });
    caller.until("ready");
    let before = object.processes();
    assert!(before.len() > without, "{before:?}");
    drop(caller);
    eventually("it is hung up, then killed", || {
        object.processes().len() == without
    });
    assert_eq!(object.exec_shell("cat /tmp/hup").0, "hup\n");
    assert_eq!(before.iter().filter(|pid| is_alive(**pid)).count(), without);
}

// The program ended of the hang-up, was forgotten, and what it had started went on for ever.
fn exec_hangup_ignored(driver: &Driver) {
    let object = driver.shell("exec sleep 600");
    object.running();
    let without = object.processes().len();
    let script = "(trap '' HUP; exec sleep 600) & echo ready; wait";
    let mut caller = object.open(What::Exec {
        program: program(&["/bin/sh", "-c", script]),
    });
    caller.until("ready");
    eventually("both run", || object.processes().len() == without + 2);
    drop(caller);
    eventually("both are killed", || object.processes().len() == without);
}

fn probe_of(script: &str) -> What {
    What::Probe {
        program: program(&["/bin/sh", "-c", script]),
    }
}

fn probe(driver: &Driver) {
    let object = driver.shell("exec sleep 600");
    object.running();
    let (out, _, reason) = object.open(probe_of("echo no; exit 3")).outputs();
    assert_eq!((out, reason), (b"no\n".to_vec(), ExitReason::Code(3)));
}

// What had left its process group outlived the probe, and one more came with each.
fn probe_hangs(driver: &Driver) {
    let object = driver.shell("exec sleep 600");
    object.running();
    let without = object.processes().len();
    let script = "setsid sh -c 'trap \"\" HUP TERM; sleep 600' & echo ready; sleep 600";
    let mut caller = object.open(probe_of(script));
    caller.until("ready");
    eventually("all run", || object.processes().len() >= without + 3);
    drop(caller);
    eventually("all are killed", || object.processes().len() == without);
}

fn probe_leaves(driver: &Driver) {
    let object = driver.shell("exec sleep 600");
    object.running();
    let without = object.processes().len();
    let script = "setsid sleep 600 >/dev/null 2>&1 & exit 0";
    let (_, _, reason) = object.open(probe_of(script)).outputs();
    assert_eq!(reason, ExitReason::Code(0));
    eventually("it is killed", || object.processes().len() == without);
}

/// Sends more than a program takes that does not read.
fn flood(caller: &mut crate::bed::Caller) {
    caller.stream.set_nonblocking(true).unwrap();
    let mut frame = vec![Kind::Stdin as u8, 0, 0, 0x80, 0];
    frame.extend([b'x'; 0x8000]);
    let mut sent = 0;
    let mut refusals = 0;
    while refusals < 100 {
        match caller.stream.write(&frame[sent..]) {
            Ok(length) => sent = (sent + length) % frame.len(),
            Err(_) => {
                refusals += 1;
                let nothing: &mut [nix::poll::PollFd<'_>] = &mut [];
                let _timed_out = nix::poll::poll(nothing, 2_u8);
            }
        }
    }
}

// The frames of a caller that had gone waited for the program for ever, and the caller with them.
fn gone_while_stalled(driver: &Driver) {
    let object = with_stdin(driver, "exec sleep 600");
    object.running();
    let without = object.processes().len();
    let mut wanted = program(&["sleep", "600"]);
    wanted.stdin = true;
    let mut caller = object.open(What::Exec { program: wanted });
    eventually("it runs", || object.processes().len() == without + 1);
    flood(&mut caller);
    drop(caller);
    eventually("it is hung up", || object.processes().len() == without);
    let sockets = || {
        let path = format!("/proc/{}/fd", object.shim_pid());
        std::fs::read_dir(path).unwrap().count()
    };
    let before = sockets();
    let mut typist = object.open(attach(true, true));
    flood(&mut typist);
    assert!(sockets() > before);
    drop(typist);
    eventually("it is forgotten", || sockets() <= before);
}

fn silent(driver: &Driver) {
    let object = driver.shell("sleep 600");
    object.running();
    let followers: Vec<_> = (0..64)
        .map(|_| {
            let caller = object.open(logs_of(None, true));
            caller.stream.shutdown(std::net::Shutdown::Write).unwrap();
            caller
        })
        .collect();
    eventually("there is room", || {
        let mut caller = object.caller();
        caller.request(&ShimRequest::Watch);
        caller.frame().is_some()
    });
    drop(followers);
}

fn too_many(driver: &Driver) {
    let object = driver.shell("sleep 600");
    let mut watcher = object.watch();
    watcher.report();
    let callers: Vec<_> = (0..100).map(|_| object.caller()).collect();
    watcher.request(&ShimRequest::Usage);
    watcher.report();
    drop(callers);
    eventually("there is room again", || {
        let mut caller = object.caller();
        let request = wire::encode(&ShimRequest::Watch).unwrap();
        let mut bytes = vec![13, 0, 0, 0, 1];
        bytes.extend(request);
        caller.stream.write_all(&bytes).is_ok() && caller.frame().is_some()
    });
    kill(Pid::from_raw(object.shim_pid()), Signal::SIGHUP).unwrap();
    watcher.request(&ShimRequest::Usage);
    watcher.report();
}
