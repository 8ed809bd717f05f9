//! Verbs about nodes: coming, going, being emptied, and what happens on them.

use std::process::Stdio;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use wire::id::AppId;
use wire::stream::{Kind, What};

use crate::fake::{Answer, Frames, serve};
use crate::{against, object, opened, said, signal, welkin};

#[test]
fn up_is_content_with_a_node_that_is_up() {
    let (code, out, err) = against("up", |path, _| {
        assert_eq!(path, "cloud/info");
        cloud_of(2)
    });
    assert_eq!((code, out.as_str()), (0, ""));
    assert_eq!(
        err,
        "atlas is already up, in cloud 0000000000 (2 of 2 nodes up)\n"
    );
}

#[test]
fn up_says_which_flags_a_node_that_is_up_does_not_heed() {
    let (code, _, err) = against("up --label disk=ssd", |_, _| cloud_of(2));
    assert_eq!(code, 0);
    assert!(
        err.ends_with("note: --label is for a new node; welkin node label atlas disk=ssd\n"),
        "{err}"
    );
}

/// A cloud of so many nodes, of which all are up.
fn cloud_of(nodes: u32) -> Answer {
    let id = "0".repeat(64);
    let info = format!(
        r#"{{"cloud":"{id}","node":"{id}","name":"atlas","program_version":"0.1.0",
             "nodes_up":{nodes},"nodes":{nodes}}}"#
    );
    Answer::Json(200, info)
}

/// Whoever had typed `up` before `join` was told to type `up`.
#[test]
fn a_cloud_of_one_says_how_to_join_another() {
    for nodes in [1, 2] {
        let state = tempfile::tempdir().unwrap();
        std::fs::write(state.path().join("admission"), "").unwrap();
        serve(state.path(), move |_, _| cloud_of(nodes));
        let output = welkin(state.path(), "join TICKET").output().unwrap();
        let (code, _, err) = said(&output);
        let directory = state.path().display();
        let way = format!("welkin down; mv {directory} {directory}.old; welkin join TICKET");
        assert_eq!((code, err.contains(&way)), (1, nodes == 1), "{err}");
    }
}

/// A machine whose node does not start was told to start it.
#[test]
fn doctor_examines_a_machine_without_a_node() {
    let state = tempfile::tempdir().unwrap();
    std::fs::write(state.path().join("daemon.log"), "one\nit broke\n").unwrap();
    let output = welkin(state.path(), "doctor").output().unwrap();
    let (code, out, err) = said(&output);
    assert_eq!(code, 1, "{err}");
    assert!(out.starts_with("missing  this node is not up"), "{out}");
    assert!(out.contains("MiB are free"), "{out}");
    assert!(
        err.ends_with("daemon.log ends with:\n  one\n  it broke\n"),
        "{err}"
    );
    // A node that breaks calls off is not sent to the doctor again.
    let (code, out, _) = against("doctor", |_, _| Answer::Hang);
    assert_eq!(code, 1);
    assert!(
        !out.contains("welkin doctor") && out.contains("daemon.log"),
        "{out}"
    );
}

/// The daemon went on by itself, in a session of its own.
#[test]
fn whoever_interrupts_a_start_leaves_no_daemon_behind() {
    let state = tempfile::tempdir().unwrap();
    // A key that never comes: the daemon waits for it, and does not even hear that it is to end.
    let key = state.path().join("node.key");
    nix::unistd::mkfifo(&key, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let child = welkin(state.path(), "up").spawn().unwrap();
    let lock = state.path().join("lock");
    let daemon = loop {
        let text = std::fs::read_to_string(&lock).unwrap_or_default();
        if let Ok(pid) = text.parse() {
            break Pid::from_raw(pid);
        }
        std::thread::yield_now();
    };
    signal(&child, Signal::SIGINT);
    assert_eq!(said(&child.wait_with_output().unwrap()).0, 130);
    assert_eq!(kill(daemon, None), Err(nix::errno::Errno::ESRCH));
}

fn nodes(state: &str) -> Answer {
    let id = object(0).node;
    Answer::Json(
        200,
        format!(r#"{{"nodes":[{}]}}"#, node(&id.to_string(), state)),
    )
}

fn node(id: &str, state: &str) -> String {
    format!(
        r#"{{"node":"{id}","name":"c","state":"{state}","program_version":"0.1.0",
             "platform":{{"os":"linux","arch":"x86_64","kernel":"6.12.1"}},
             "capacity":{{"cpu_millis":0,"memory_bytes":0,"cpu_held_millis":0,
                          "memory_held_bytes":0,"cpu_used_millis":0,"memory_used_bytes":0,
                          "objects":0}},
             "labels":{{}},"rtt_us":0}}"#
    )
}

/// It returned at once, and advised to undo it.
#[test]
fn drain_waits_until_only_what_stays_is_left() {
    let looks = std::sync::atomic::AtomicU32::new(0);
    let script = move |path: &str, _: &str| {
        if path == "node/drain" {
            return Answer::Json(200, node(&object(0).node.to_string(), "draining"));
        }
        let app = |name: &str, restart: &str| {
            let id = AppId::of_name(name);
            format!(
                r#"{{"app":"{id}","name":"{name}","wanted":1,"running":1,"command":["x"],
                     "restart":"{restart}","ports":{{}},"created":0,"trouble":null}}"#
            )
        };
        let mut job = object(1);
        (job.app, job.app_name) = (AppId::of_name("job"), "job".to_owned());
        let mut objects = vec![job];
        if looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) < 2 {
            objects.push(object(0));
        }
        let objects = serde_json::to_string(&objects).unwrap();
        let apps = [app("job", "no"), app("web", "always")].join(",");
        let answer = format!(r#"{{"apps":[{apps}],"objects":{objects},"unanswered":[]}}"#);
        Answer::Json(200, answer)
    };
    let (code, out, err) = against("node drain c", script);
    assert_eq!((code, out.as_str()), (0, "c\n"));
    assert_eq!(
        err,
        "c takes nothing new; what is not restarted elsewhere stays: job/1\n  \
         try: welkin node drain --force c, to end that too\n"
    );
}

/// Tells an event that happened at this time.
fn tell(frames: &mut Frames, at: u64) {
    let event = format!(r#"{{"at":{at},"node":"c","kind":"k","subject":"s{at}","message":""}}"#);
    frames.send(Kind::Event, event.as_bytes());
}

/// The events of a node that had been away were missing from then on.
#[test]
fn followed_events_go_on_after_their_node_was_away() {
    let state = tempfile::tempdir().unwrap();
    let opened_before = std::sync::atomic::AtomicU32::new(0);
    serve(state.path(), move |path, _| {
        if path == "node/list" {
            return nodes("up");
        }
        let again = opened_before.fetch_add(1, std::sync::atomic::Ordering::SeqCst) > 0;
        Answer::Stream(Box::new(move |frames| {
            let What::Events { since_ms, .. } = opened(frames).what else {
                panic!("not events");
            };
            assert_eq!(since_ms, again.then_some(6));
            tell(frames, if again { 7 } else { 5 });
            if again {
                let _until_it_leaves = frames.next();
            }
        }))
    });
    let mut child = welkin(state.path(), "events -f -q")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = [0; 6];
    let mut stdout = child.stdout.take().unwrap();
    std::io::Read::read_exact(&mut stdout, &mut out).unwrap();
    assert_eq!(&out, b"s5\ns7\n");
    child.kill().unwrap();
    let output = child.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert!(err.starts_with("note: the events of c break off"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
}
