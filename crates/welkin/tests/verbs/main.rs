//! The real program against a pretended node: what it prints, where, and how it exits.
#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that cannot go on has failed; the node it waits for is a thread"
)]

mod apply;
#[path = "../../../client/tests/fake/mod.rs"]
mod fake;
mod nodes;

use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use fake::{Answer, Frames, serve};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::Pid;
use wire::call::{Apps, Located, Problem, ProblemCode, Request, Run, Started};
use wire::fact::{ExitReason, ObjectFacts, Phase};
use wire::id::{AppId, NodeId, ObjectId, UnixMillis};
use wire::stream::{Kind, Open, What};

fn object(index: u8) -> ObjectFacts {
    ObjectFacts {
        object: ObjectId([index + 16; 16]),
        app: AppId::of_name("web"),
        app_name: "web".to_owned(),
        index: u32::from(index),
        node: NodeId([1; 32]),
        epoch: 1,
        revision: 1,
        phase: Phase::Running,
        halted: false,
        revised: wire::id::Version::default(),
        restart: wire::spec::Restart::Always,
        health: None,
        run: 0,
        restarts: 0,
        created: UnixMillis(0),
        started: Some(UnixMillis(0)),
        last_exit: None,
        pid: Some(1),
        protections_off: Vec::new(),
    }
}

fn ok(value: &impl serde::Serialize) -> Answer {
    Answer::Json(200, serde_json::to_string(value).unwrap())
}

fn refused(problem: &Problem) -> Answer {
    Answer::Json(problem.status(), serde_json::to_string(problem).unwrap())
}

fn started() -> Answer {
    ok(&Started {
        app: AppId::of_name("web"),
        name: "web".to_owned(),
        objects: vec![object(0)],
        waiting: None,
        next: None,
    })
}

fn located(objects: u8) -> Answer {
    ok(&Located {
        app: AppId::of_name("web"),
        name: "web".to_owned(),
        objects: (0..objects).map(object).collect(),
    })
}

fn no_nodes() -> Answer {
    Answer::Json(200, r#"{"nodes":[]}"#.to_owned())
}

fn exit(frames: &mut Frames, reason: &ExitReason) {
    frames.send(Kind::Exit, &serde_json::to_vec(reason).unwrap());
}

fn opened(frames: &mut Frames) -> Open {
    serde_json::from_slice(&frames.next().unwrap().payload).unwrap()
}

fn welkin(state: &Path, line: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_welkin"));
    command
        .args(line.split(' '))
        .env("WELKIN_STATE_DIR", state)
        .env_remove("WELKIN_SOCKET")
        .env_remove("COMPLETE")
        .stdin(Stdio::null());
    command
}

/// Exit code, standard output, standard error.
fn said(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let code = output.status.code().unwrap();
    (code, text(&output.stdout), text(&output.stderr))
}

/// Runs a command line against a node that answers by the script.
fn against(
    line: &str,
    script: impl Fn(&str, &str) -> Answer + Send + Sync + 'static,
) -> (i32, String, String) {
    let state = tempfile::tempdir().unwrap();
    serve(state.path(), script);
    said(&welkin(state.path(), line).output().unwrap())
}

#[test]
fn without_a_node_every_verb_says_how_to_get_one() {
    let state = tempfile::tempdir().unwrap();
    let socket = state.path().join("welkin.sock");
    let told = format!(
        "welkin: this node is not up (no answer at {})\n  try: welkin up\n",
        socket.display()
    );
    for (line, code) in [("ps", 1), ("nodes", 1), ("stop web", 1), ("run true", 125)] {
        let output = welkin(state.path(), line).output().unwrap();
        assert_eq!(said(&output), (code, String::new(), told.clone()), "{line}");
    }
}

#[test]
fn a_refusal_is_shown_with_what_to_do() {
    let problem = Problem::not_found("app", "foo").remedy("welkin ps");
    let (code, out, err) = against("inspect foo", move |_, _| refused(&problem));
    assert_eq!((code, out.as_str()), (1, ""));
    assert_eq!(err, "welkin: no app is called `foo`\n  try: welkin ps\n");
}

#[test]
fn wrong_usage_exits_with_2() {
    let state = tempfile::tempdir().unwrap();
    for line in [
        "frobnicate",
        "run",
        "run --replicas 3 true",
        "run --replicas 0 true",
        "run --name Web! true",
        "up --listen 7117",
        "ps -w -o json",
        "ps --format {{x}}x -o json",
    ] {
        let output = welkin(state.path(), line).output().unwrap();
        assert_eq!(said(&output).0, 2, "{line}");
    }
}

#[test]
fn empty_lists_say_what_to_do_next_beside_the_data() {
    let empty = |path: &str, _: &str| match path {
        "node/list" => no_nodes(),
        _ => ok(&Apps {
            apps: Vec::new(),
            objects: Vec::new(),
            unanswered: vec!["cellar".to_owned()],
        }),
    };
    let (code, out, err) = against("ps", empty);
    assert_eq!((code, out.as_str()), (0, ""));
    assert!(err.starts_with("nothing runs\n  try: welkin "), "{err}");
    assert!(err.contains("no answer in time from cellar"), "{err}");
    let (_, out, _) = against("ps -o json", empty);
    assert_eq!(
        serde_json::from_str::<Apps>(&out).unwrap().unanswered,
        ["cellar"]
    );
}

#[test]
fn run_passes_output_and_exit_code_on() {
    let (code, out, err) = against("run --name web -- prog --flag", |path, body| match path {
        "app/run" => {
            let run: Run = serde_json::from_str(body).unwrap();
            assert_eq!(run.spec.program.arguments, ["prog", "--flag"]);
            assert!(run.attach && !run.spec.remove_when_done);
            assert!(matches!(Request::from(run), Request::Run(_)));
            started()
        }
        _ => Answer::Stream(Box::new(|frames| {
            let open = opened(frames);
            assert_eq!(open.object, object(0).object);
            assert!(matches!(
                open.what,
                What::Attach {
                    stdin: false,
                    replay: true
                }
            ));
            frames.send(Kind::Stdout, b"data\n");
            frames.send(Kind::Stderr, b"complaint\n");
            exit(frames, &ExitReason::Code(42));
        })),
    });
    assert_eq!(
        (code, out.as_str(), err.as_str()),
        (42, "data\n", "complaint\n")
    );
}

#[test]
fn run_exits_as_docker_does_when_nothing_ran() {
    let not_started = |exit| Problem::new(ProblemCode::NotStarted { exit }, "it did not start");
    for (problem, expected) in [
        (not_started(127), 127),
        (not_started(126), 126),
        (Problem::new(ProblemCode::NoFit, "no node fits"), 125),
    ] {
        let (code, _, err) = against("run prog", move |_, _| refused(&problem));
        assert_eq!(code, expected, "{err}");
    }
    let (code, _, err) = against("run prog", |path, _| match path {
        "app/run" => started(),
        _ => Answer::Stream(Box::new(|frames| {
            opened(frames);
            let message = "prog: not found".to_owned();
            exit(frames, &ExitReason::NotStarted { code: 127, message });
        })),
    });
    assert_eq!(code, 127);
    assert!(
        err.starts_with("welkin: prog: not found\n  try: welkin run -- sh -c"),
        "{err}"
    );
    let (code, _, err) = against("run prog", |path, _| match path {
        "app/run" => started(),
        _ => Answer::Stream(Box::new(|frames| drop(opened(frames)))),
    });
    assert_eq!(code, 125, "{err}");
    assert!(err.contains("connection to the program was lost"), "{err}");
}

#[test]
fn a_detached_app_is_known_by_its_name() {
    let (code, out, _) = against("run -d --replicas 3 prog", |_, body| {
        let run: Run = serde_json::from_str(body).unwrap();
        assert!(!run.attach && run.spec.replicas == 3);
        started()
    });
    assert_eq!((code, out.as_str()), (0, "web\n"));
}

#[test]
fn standard_input_reaches_the_program_to_its_end() {
    let state = tempfile::tempdir().unwrap();
    serve(state.path(), |path, _| match path {
        "app/run" => started(),
        _ => Answer::Stream(Box::new(|frames| {
            opened(frames);
            loop {
                let frame = frames.next().unwrap();
                if frame.kind == Kind::StdinEnd {
                    break;
                }
                frames.send(Kind::Stdout, &frame.payload);
            }
            exit(frames, &ExitReason::Code(0));
        })),
    });
    let mut child = welkin(state.path(), "run -i cat")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let text = vec![b'x'; 300_000];
    let mut stdin = child.stdin.take().unwrap();
    let sent = text.clone();
    let feeding = std::thread::spawn(move || stdin.write_all(&sent).unwrap());
    let output = child.wait_with_output().unwrap();
    feeding.join().unwrap();
    assert!(output.status.success() && output.stdout == text);
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn signals_go_to_the_program() {
    let state = tempfile::tempdir().unwrap();
    let (ready, attached) = std::sync::mpsc::sync_channel(1);
    serve(state.path(), move |path, _| match path {
        "app/run" => started(),
        _ => {
            let ready = ready.clone();
            Answer::Stream(Box::new(move |frames| {
                opened(frames);
                frames.send(Kind::Stdout, b"up\n");
                ready.send(()).unwrap();
                let mut seen = Vec::new();
                while seen.last() != Some(&9) {
                    let frame = frames.next().unwrap();
                    assert_eq!(frame.kind, Kind::Signal);
                    seen.extend(frame.payload);
                    ready.send(()).unwrap();
                }
                frames.send(Kind::Stdout, format!("{seen:?}").as_bytes());
                exit(frames, &ExitReason::Signal(9));
            }))
        }
    });
    let child = welkin(state.path(), "run prog")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    for next in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGINT] {
        attached.recv().unwrap();
        // Its handlers were made before it opened the stream.
        signal(&child, next);
    }
    let (code, out, _) = said(&child.wait_with_output().unwrap());
    assert_eq!((code, out.as_str()), (137, "up\n[15, 2, 9]"));
}

/// `welkin run -- yes | head -1` ended well and left `yes` running for ever.
#[test]
fn a_program_whose_output_nobody_reads_is_ended() {
    let state = tempfile::tempdir().unwrap();
    let (asked, was_asked) = std::sync::mpsc::channel();
    serve(state.path(), move |path, body| match path {
        "app/run" => started(),
        "stream" => Answer::Stream(Box::new(|frames| {
            opened(frames);
            (0..2000).for_each(|_| frames.send(Kind::Stdout, &[b'y'; 60_000]));
        })),
        _ => {
            asked.send(format!("{path} {body}")).unwrap();
            Answer::Json(200, r#"{"objects":[]}"#.to_owned())
        }
    });
    let mut child = welkin(state.path(), "run yes")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(said(&output), (141, String::new(), String::new()));
    let id = object(0).object;
    let asked: Vec<String> = was_asked.try_iter().collect();
    assert_eq!(
        asked,
        [
            format!(r#"app/kill {{"target":"{id}","signal":13}}"#),
            format!(r#"app/stop {{"target":"{id}","grace_ms":0}}"#),
        ]
    );
}

/// Ctrl-C was sent to the server first, then it was killed, then all of its app was stopped.
#[test]
fn attach_is_left_by_an_interrupt_and_the_program_goes_on() {
    let inspection = |body: &str| {
        assert!(body.contains("web"));
        let app = AppId::of_name("web");
        let object = serde_json::to_string(&object(0)).unwrap();
        let spec = r#"{"name":"web","program":{"arguments":["serve"]}}"#;
        Answer::Json(
            200,
            format!(
                r#"{{"app":"{app}","spec":{spec},"stopped":false,"objects":[{object}],
                     "guardians":[],"trouble":null}}"#
            ),
        )
    };
    for (line, expected) in [("attach web", None), ("attach --signals web", Some(2))] {
        let state = tempfile::tempdir().unwrap();
        let (ready, attached) = std::sync::mpsc::sync_channel(1);
        serve(state.path(), move |path, body| match path {
            "app/inspect" => inspection(body),
            "stream" => {
                let ready = ready.clone();
                Answer::Stream(Box::new(move |frames| {
                    opened(frames);
                    ready.send(()).unwrap();
                    let seen = frames.next().map(|frame| (frame.kind, frame.payload));
                    let signal = expected.map(|number| (Kind::Signal, vec![number]));
                    assert_eq!(seen, signal);
                    exit(frames, &ExitReason::Code(3));
                }))
            }
            _ => panic!("{path}: it was to be left alone"),
        });
        let child = welkin(state.path(), line)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        attached.recv().unwrap();
        signal(&child, Signal::SIGINT);
        let (code, _, err) = said(&child.wait_with_output().unwrap());
        if expected.is_some() {
            assert_eq!((code, err.as_str()), (3, ""));
        } else {
            let left = "left web/0; it goes on\n  try: welkin attach web/0\n";
            assert_eq!((code, err.as_str()), (0, left));
        }
    }
}

#[test]
fn an_interrupt_before_the_start_leaves_the_call() {
    let state = tempfile::tempdir().unwrap();
    let (asked, was_asked) = std::sync::mpsc::sync_channel(1);
    serve(state.path(), move |_, _| {
        asked.send(()).unwrap();
        std::thread::sleep(std::time::Duration::from_secs(20));
        Answer::Hang
    });
    let child = welkin(state.path(), "run prog")
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    was_asked.recv().unwrap();
    signal(&child, Signal::SIGINT);
    assert_eq!(said(&child.wait_with_output().unwrap()).0, 130);
}

#[test]
fn the_detach_keys_leave_exec_too() {
    let state = tempfile::tempdir().unwrap();
    let pty = nix::pty::openpty(None, None).unwrap();
    let (ready, attached) = std::sync::mpsc::sync_channel(1);
    serve(state.path(), move |path, _| match path {
        "app/locate" => located(1),
        _ => {
            let ready = ready.clone();
            Answer::Stream(Box::new(move |frames| {
                opened(frames);
                frames.send(Kind::Stdout, b"$ ");
                ready.send(()).unwrap();
                while frames.next().is_some() {}
            }))
        }
    });
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let child = welkin(state.path(), "exec -it web sh")
        .stdin(end(&pty.slave))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    attached.recv().unwrap();
    // Typed before the terminal is raw, the keys would be the terminal's own.
    while tcgetattr(&pty.slave)
        .unwrap()
        .local_flags
        .contains(LocalFlags::ICANON)
    {
        std::thread::yield_now();
    }
    std::fs::File::from(pty.master)
        .write_all(b"\x10\x11")
        .unwrap();
    let (code, _, err) = said(&child.wait_with_output().unwrap());
    assert_eq!(
        (code, err.as_str()),
        (0, "\nleft; the program was hung up\n")
    );
}

#[test]
fn a_terminal_is_raw_while_the_program_has_it_and_is_given_back() {
    let state = tempfile::tempdir().unwrap();
    let pty = nix::pty::openpty(
        Some(&nix::pty::Winsize {
            ws_row: 33,
            ws_col: 77,
            ws_xpixel: 0,
            ws_ypixel: 0,
        }),
        None,
    )
    .unwrap();
    let slave = pty.slave.try_clone().unwrap();
    serve(state.path(), move |path, body| match path {
        "app/run" => {
            assert!(body.contains(r#""terminal":true,"stdin":true"#), "{body}");
            started()
        }
        _ => {
            let slave = slave.try_clone().unwrap();
            Answer::Stream(Box::new(move |frames| {
                opened(frames);
                let resize = frames.next().unwrap();
                assert_eq!(
                    (resize.kind, resize.payload.as_slice()),
                    (Kind::Resize, &[0, 33, 0, 77][..])
                );
                let flags = tcgetattr(&slave).unwrap().local_flags;
                let raw = !flags.contains(LocalFlags::ICANON) && !flags.contains(LocalFlags::ECHO);
                exit(frames, &ExitReason::Code(if raw { 7 } else { 1 }));
            }))
        }
    });
    let end = |fd: &OwnedFd| Stdio::from(fd.try_clone().unwrap());
    let status = welkin(state.path(), "run -it sh")
        .stdin(end(&pty.slave))
        .stdout(end(&pty.slave))
        .stderr(end(&pty.slave))
        .status()
        .unwrap();
    assert_eq!(status.code(), Some(7));
    let flags = tcgetattr(&pty.slave).unwrap().local_flags;
    assert!(flags.contains(LocalFlags::ICANON) && flags.contains(LocalFlags::ECHO));
}

#[test]
fn exec_runs_in_the_first_object_that_runs() {
    let (code, out, _) = against("exec --env A=b web -- prog -x", |path, _| match path {
        "app/locate" => located(2),
        _ => Answer::Stream(Box::new(|frames| {
            let open = opened(frames);
            let What::Exec { program } = open.what else {
                panic!("{:?}", open.what);
            };
            assert_eq!(program.arguments, ["prog", "-x"]);
            frames.send(Kind::Stdout, program.environment["A"].as_bytes());
            exit(frames, &ExitReason::Code(9));
        })),
    });
    assert_eq!((code, out.as_str()), (9, "b"));
    let none = Problem::not_found("app", "web");
    assert_eq!(against("exec web prog", move |_, _| refused(&none)).0, 125);
}

fn log(stream: u8, at_us: u64, text: &str) -> Vec<u8> {
    let mut payload = vec![stream];
    payload.extend(at_us.to_be_bytes());
    payload.extend(text.as_bytes());
    payload
}

#[test]
fn logs_of_several_objects_are_one_story() {
    let script = |path: &str, _: &str| match path {
        "app/locate" => located(2),
        _ => Answer::Stream(Box::new(|frames: &mut Frames| {
            let first = opened(frames).object == object(0).object;
            let lines: &[(u8, u64, &str)] = if first {
                &[(1, 1_000_000, "one\nth"), (1, 3_000_000, "ree\n")]
            } else {
                &[(2, 2_000_000, "two\n"), (1, 4_000_000, "four")]
            };
            for (stream, at_us, text) in lines {
                frames.send(Kind::Log, &log(*stream, *at_us, text));
            }
            exit(frames, &ExitReason::Code(0));
        })),
    };
    let (code, out, err) = against("logs web", script);
    assert_eq!((code, err.as_str()), (0, ""));
    assert_eq!(
        out,
        "web/0 | one\nweb/1 | two\nweb/0 | three\nweb/1 | four\n"
    );
    let (_, out, _) = against("logs -t --no-prefix web", script);
    let times: Vec<&str> = out
        .lines()
        .map(|line| line.split(' ').next().unwrap())
        .collect();
    assert_eq!(times[1], "1970-01-01T00:00:02.000Z");
}

#[test]
fn a_followed_log_goes_on_after_its_node_was_away() {
    let opened_logs = std::sync::atomic::AtomicU32::new(0);
    let located_before = std::sync::atomic::AtomicU32::new(0);
    let count =
        |of: &std::sync::atomic::AtomicU32| of.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
    let (code, out, err) = against("logs -f -n 3 web", move |path, _| {
        if path == "app/locate" {
            let mut ended = object(0);
            if count(&located_before) > 1 {
                ended.phase = Phase::Ended;
            }
            return ok(&Located {
                app: ended.app,
                name: "web".to_owned(),
                objects: vec![ended],
            });
        }
        let again = count(&opened_logs) > 0;
        Answer::Stream(Box::new(move |frames| {
            let What::Logs {
                since_ms,
                tail_lines,
                ..
            } = opened(frames).what
            else {
                panic!("not the log");
            };
            if again {
                assert_eq!((since_ms, tail_lines), (Some(6), None));
                frames.send(Kind::Log, &log(1, 7_000, "two\n"));
                exit(frames, &ExitReason::Code(0));
            } else {
                assert_eq!((since_ms, tail_lines), (None, Some(3)));
                frames.send(Kind::Log, &log(1, 5_000, "one\n"));
            }
        }))
    });
    assert_eq!((code, out.as_str()), (0, "one\ntwo\n"));
    assert_eq!(err.lines().count(), 1, "{err}");
    assert!(err.contains("the log of web/0 breaks off"), "{err}");
}

#[test]
fn the_log_of_one_object_is_what_it_wrote() {
    let (code, out, _) = against("logs --tail 5 web", |path, _| match path {
        "app/locate" => located(1),
        _ => Answer::Stream(Box::new(|frames| {
            let What::Logs { tail_lines, .. } = opened(frames).what else {
                panic!("not the log");
            };
            assert_eq!(tail_lines, Some(5));
            frames.send(Kind::Log, &log(1, 1, "no line\r"));
            exit(frames, &ExitReason::Code(0));
        })),
    });
    assert_eq!((code, out.as_str()), (0, "no line\r"));
}

#[test]
fn several_targets_are_all_tried() {
    let (code, out, err) = against("stop a b c", |_, body| {
        if body.contains("\"b\"") {
            refused(&Problem::not_found("app", "b"))
        } else {
            Answer::Json(200, r#"{"objects":[]}"#.to_owned())
        }
    });
    assert_eq!((code, out.as_str()), (1, "a\nc\n"));
    assert_eq!(
        err,
        "welkin: no app is called `b`\n  try: welkin ps -a; welkin nodes\n"
    );
}

/// It looked as if the app were there and nothing of it ran.
#[test]
fn a_mistyped_name_is_no_outage() {
    let script = |path: &str, body: &str| match path {
        "node/list" => no_nodes(),
        "app/list" => ok(&Apps {
            apps: Vec::new(),
            objects: Vec::new(),
            unanswered: Vec::new(),
        }),
        "app/stats" => Answer::Json(200, r#"{"objects":[],"unanswered":[]}"#.to_owned()),
        "app/locate" if body.contains("\"web\"") => located(0),
        _ => refused(&Problem::not_found("app", "wbe").remedy("welkin ps -a")),
    };
    for line in ["ps wbe", "ps wbe -o json", "stats wbe", "logs wbe"] {
        let (code, out, err) = against(line, script);
        assert_eq!((code, out.as_str()), (1, ""), "{line}");
        assert_eq!(
            err, "welkin: no app is called `wbe`\n  try: welkin ps -a\n",
            "{line}"
        );
    }
    for line in ["ps web", "stats web"] {
        let (code, out, err) = against(line, script);
        assert_eq!((code, out.as_str()), (0, ""), "{line}");
        assert_eq!(
            err, "nothing of web runs\n  try: welkin explain web\n",
            "{line}"
        );
    }
}

/// `-o name` had no end, and a pipe got table after table.
#[test]
fn stats_in_a_pipe_are_shown_once_in_the_form_that_was_asked_for() {
    let script = |path: &str, _: &str| match path {
        "node/list" => no_nodes(),
        _ => {
            let (id, node) = (object(0).object, object(0).node);
            Answer::Json(
                200,
                format!(
                    r#"{{"unanswered":[],"objects":[{{"object":"{id}","app_name":"web","index":0,
                         "node":"{node}","usage":{{"cpu_us":0,"memory_bytes":0,"processes":1}},
                         "cpu_limit_millis":0,"memory_limit_bytes":0}}]}}"#
                ),
            )
        }
    };
    let (code, out, _) = against("stats -o name", script);
    assert_eq!((code, out.as_str()), (0, "web/0\n"));
    let (code, out, _) = against("stats", script);
    assert_eq!((code, out.lines().count()), (0, 2), "{out}");
    let (_, out, _) = against("stats -o wide", script);
    assert!(
        out.contains("CPU TIME") && out.contains(&object(0).object.to_string()),
        "{out}"
    );
}

#[test]
fn an_app_that_wants_no_objects_is_not_started_in_silence() {
    let (code, out, err) = against("start web", |path, _| match path {
        "app/start" => Answer::Json(
            200,
            format!(
                r#"{{"app":"{}","name":"web","objects":[]}}"#,
                AppId::of_name("web")
            ),
        ),
        _ => Answer::Json(
            200,
            format!(
                r#"{{"app":"{}","spec":{{"name":"web","replicas":0,"program":{{"arguments":["x"]}}}},
                     "stopped":false,"objects":[],"guardians":[],"trouble":null}}"#,
                AppId::of_name("web")
            ),
        ),
    });
    assert_eq!((code, out.as_str()), (0, "web\n"));
    assert_eq!(
        err,
        "note: web wants no objects\n  try: welkin scale web=1\n"
    );
}

#[test]
fn wait_prints_the_exit_code() {
    let (code, out, _) = against("wait job", |_, _| {
        let exit = r#"{"reason":{"signal":9},"at":1}"#;
        let object = object(0).object;
        let answer = format!(r#"{{"exits":[{{"object":"{object}","index":0,"exit":{exit}}}]}}"#);
        Answer::Json(200, answer)
    });
    assert_eq!((code, out.as_str()), (0, "137\n"));
}

#[test]
fn a_reader_that_leaves_ends_it_quietly() {
    let state = tempfile::tempdir().unwrap();
    serve(state.path(), |path, _| match path {
        "app/locate" => located(1),
        _ => Answer::Stream(Box::new(|frames| {
            opened(frames);
            (0..2000).for_each(|_| frames.send(Kind::Log, &log(1, 1, &"x".repeat(60_000))));
            exit(frames, &ExitReason::Code(0));
        })),
    });
    let mut child = welkin(state.path(), "logs web")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(said(&output), (0, String::new(), String::new()));
}

/// An object whose only directory is `root`, called /srv.
#[expect(clippy::wildcard_enum_match_arm, reason = "all else is not there")]
fn copies(frames: &mut Frames, root: &Path) {
    match opened(frames).what {
        What::Write { path } => {
            assert_eq!(path, "/srv/");
            let mut archive = Vec::new();
            while let Some(frame) = frames.next().filter(|it| it.kind == Kind::Data) {
                archive.extend(frame.payload);
            }
            tar::Archive::new(archive.as_slice()).unpack(root).unwrap();
            exit(frames, &ExitReason::Code(0));
        }
        What::Read { path } if path == "/srv/site" => {
            let mut archive = tar::Builder::new(Vec::new());
            archive.append_dir_all("site", root.join("site")).unwrap();
            let bytes = archive.into_inner().unwrap();
            bytes
                .chunks(1000)
                .for_each(|piece| frames.send(Kind::Data, piece));
            frames.send(Kind::DataEnd, &[]);
            exit(frames, &ExitReason::Code(0));
        }
        other => {
            let problem = Problem::new(ProblemCode::NotFound, format!("{other:?}"));
            frames.send(Kind::Failure, &serde_json::to_vec(&problem).unwrap());
        }
    }
}

#[test]
fn files_go_into_an_object_and_come_back() {
    let state = tempfile::tempdir().unwrap();
    let inside = tempfile::tempdir().unwrap();
    let root = inside.path().to_path_buf();
    serve(state.path(), move |path, _| {
        if path == "app/locate" {
            return located(1);
        }
        let root = root.clone();
        Answer::Stream(Box::new(move |frames| copies(frames, &root)))
    });
    let here = tempfile::tempdir().unwrap();
    std::fs::create_dir(here.path().join("site")).unwrap();
    std::fs::write(here.path().join("site/page"), "hello").unwrap();
    let copy = |line: &str| {
        let output = welkin(state.path(), line)
            .current_dir(here.path())
            .output()
            .unwrap();
        said(&output)
    };
    assert_eq!(copy("cp site web:/srv/"), (0, String::new(), String::new()));
    assert_eq!(
        copy("cp web:/srv/site copy"),
        (0, String::new(), String::new())
    );
    let page = std::fs::read_to_string(here.path().join("copy/page")).unwrap();
    assert_eq!(page, "hello");
    let (code, _, err) = copy("cp web:/nowhere .");
    assert!(code == 1 && err.contains("/nowhere"), "{err}");
    assert_eq!(copy("cp absent web:/srv/").0, 1);
}

#[test]
fn names_are_completed_from_the_cloud() {
    let state = tempfile::tempdir().unwrap();
    serve(state.path(), |path, _| match path {
        "node/list" => no_nodes(),
        _ => ok(&Apps {
            apps: Vec::new(),
            objects: vec![object(0), object(1)],
            unanswered: Vec::new(),
        }),
    });
    let output = welkin(state.path(), "-- welkin stop we")
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "2")
        .env("_CLAP_IFS", "\n")
        .output()
        .unwrap();
    let (code, out, err) = said(&output);
    assert_eq!((code, out.as_str(), err.as_str()), (0, "web/0\nweb/1", ""));
    // Without a node there are no names, and no complaints in the middle of typing.
    let nowhere = tempfile::tempdir().unwrap();
    let output = welkin(nowhere.path(), "-- welkin stop we")
        .env("COMPLETE", "bash")
        .env("_CLAP_COMPLETE_INDEX", "2")
        .output()
        .unwrap();
    assert_eq!(said(&output), (0, String::new(), String::new()));
}

/// One look-up that failed (the node was started again) ended it as if all were well.
#[test]
fn a_followed_log_outlives_a_node_that_cannot_say_what_there_is() {
    let looks = std::sync::atomic::AtomicU32::new(0);
    let (code, out, err) = against("logs -f web", move |path, _| {
        if path == "app/locate" {
            return match looks.fetch_add(1, std::sync::atomic::Ordering::SeqCst) {
                0 => located(1),
                1 => refused(&Problem::new(ProblemCode::Unreachable, "nobody knows")),
                _ => refused(&Problem::not_found("app", "web")),
            };
        }
        Answer::Stream(Box::new(|frames| {
            opened(frames);
            frames.send(Kind::Stdout, b"one\n");
            exit(frames, &ExitReason::Code(0));
        }))
    });
    assert_eq!((code, out.as_str()), (0, "one\n"));
    assert_eq!(
        err,
        "note: it is not known what else there is: nobody knows\n"
    );
}

#[test]
fn the_ticket_is_the_only_line_of_data() {
    let (code, out, err) = against("invite --uses 2 --ttl 1h", |_, body| {
        assert_eq!(body, r#"{"uses":2,"ttl_s":3600,"labels":{}}"#);
        Answer::Json(
            200,
            r#"{"ticket":"welkin1abc","uses":2,"expires":0}"#.to_owned(),
        )
    });
    assert_eq!((code, out.as_str()), (0, "welkin1abc\n"));
    assert!(err.ends_with("  try: welkin join TICKET\n"), "{err}");
}

#[test]
fn a_deep_state_directory_works() {
    let top = tempfile::tempdir().unwrap();
    let deep = top.path().join("d".repeat(100)).join("e".repeat(100));
    std::fs::create_dir_all(&deep).unwrap();
    serve(&deep, |_, _| no_nodes());
    let output = welkin(&deep, "nodes -o json").output().unwrap();
    assert_eq!(said(&output).0, 0);
}
