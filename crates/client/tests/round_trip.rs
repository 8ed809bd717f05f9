//! A client and a pretended node: calls, problems, streams.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod fake;

use client::{CallError, Client};
use fake::{Answer, serve};
use wire::call::{Kill, NodeList, Problem, ProblemCode, StopApp, Wait};
use wire::id::{NodeId, ObjectId};
use wire::stream::{Frame, Kind, Open, PAYLOAD_BYTES_MAX, What};

fn wait<T>(future: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(future)
}

fn attach() -> Open {
    Open {
        node: NodeId([1; 32]),
        object: ObjectId([2; 16]),
        what: What::Attach {
            stdin: true,
            replay: true,
        },
    }
}

#[test]
fn a_call_travels_as_json_and_its_answer_comes_back_typed() {
    let directory = tempfile::tempdir().unwrap();
    let socket = serve(directory.path(), |path, body| {
        assert_eq!(path, "app/kill");
        assert_eq!(body, r#"{"target":"web","signal":9}"#);
        Answer::Json(
            200,
            r#"{"objects":["0202020202020202020202020202020202"]}"#.into(),
        )
    });
    let client = Client::at(&socket);
    let kill = || Kill {
        target: "web".into(),
        signal: 9,
    };
    // An id of the wrong length makes no sense, and is said to.
    let error = wait(client.call(kill())).unwrap_err();
    assert!(matches!(&error, CallError::Protocol(why) if why.contains("app/kill")));

    let directory = tempfile::tempdir().unwrap();
    let socket = serve(directory.path(), |_, _| {
        Answer::Json(
            200,
            r#"{"objects":["02020202020202020202020202020202"]}"#.into(),
        )
    });
    let affected = wait(Client::at(socket).call(kill())).unwrap();
    assert_eq!(affected.objects, [ObjectId([2; 16])]);
}

#[test]
fn a_refusal_is_a_problem_even_of_an_unknown_kind() {
    let directory = tempfile::tempdir().unwrap();
    let problem = Problem::not_found("app", "web").remedy("welkin ps");
    let body = serde_json::to_string(&problem).unwrap();
    let socket = serve(directory.path(), move |path, _| match path {
        "app/stop" => Answer::Json(404, body.clone()),
        "node/list" => Answer::Json(418, r#"{"code":"teapot","detail":"no coffee"}"#.into()),
        _ => Answer::Json(502, "oh no".into()),
    });
    let client = Client::at(&socket);
    let stop = StopApp {
        target: "web".into(),
        grace_ms: None,
    };
    let error = wait(client.call(stop)).unwrap_err();
    assert_eq!(error, CallError::Problem(problem));
    let error = wait(client.call(NodeList {})).unwrap_err();
    let expected = Problem::new(ProblemCode::Internal, "no coffee");
    assert_eq!(error, CallError::Problem(expected));
    let error = wait(client.open(attach())).unwrap_err();
    assert!(matches!(error, CallError::Protocol(why) if why.contains("oh no")));
}

#[test]
fn without_a_listener_the_node_is_not_up() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("welkin.sock");
    let client = Client::at(&path);
    assert!(!wait(client.is_up()));
    let error = wait(client.call(NodeList {})).unwrap_err();
    assert_eq!(error, CallError::NotUp { path: path.clone() });
    assert!(error.to_string().contains(&path.display().to_string()));
}

#[test]
fn a_connection_that_breaks_is_not_a_refusal() {
    let directory = tempfile::tempdir().unwrap();
    let socket = serve(directory.path(), |_, _| Answer::Hang);
    let error = wait(Client::at(socket).call(NodeList {})).unwrap_err();
    assert!(matches!(error, CallError::Protocol(_)));
}

#[test]
fn frames_of_every_size_arrive_whole_and_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let socket = serve(directory.path(), |path, _| {
        assert_eq!(path, "stream");
        Answer::Stream(Box::new(|frames| {
            let open = frames.next().unwrap();
            let open: Open = serde_json::from_slice(&open.payload).unwrap();
            assert_eq!(open, attach());
            // Everything back, and one more.
            while let Some(frame) = frames.next() {
                frames.send(Kind::Stdout, &frame.payload);
                if frame.kind == Kind::StdinEnd {
                    break;
                }
            }
            frames.send(Kind::Exit, br#"{"code":3}"#);
        }))
    });
    let sizes = [0, 1, 5, 4096, PAYLOAD_BYTES_MAX, 17];
    let seen = wait(async {
        let (mut reader, mut writer) = Client::at(socket).open(attach()).await.unwrap().split();
        for size in sizes {
            let frame = Frame::new(Kind::Stdin, &vec![7; size]);
            writer.send(frame).await.unwrap();
            assert_eq!(reader.next().await.unwrap().unwrap().payload.len(), size);
        }
        writer.send(Frame::new(Kind::StdinEnd, &[])).await.unwrap();
        let mut kinds = Vec::new();
        while let Some(frame) = reader.next().await.unwrap() {
            kinds.push(frame.kind);
        }
        kinds
    });
    assert_eq!(seen, [Kind::Stdout, Kind::Exit]);
}

/// It was cut to the length of a frame, and the node answered that its JSON made no sense.
#[test]
fn more_than_a_frame_holds_is_refused_before_it_is_sent() {
    let directory = tempfile::tempdir().unwrap();
    let socket = serve(directory.path(), |_, _| {
        Answer::Stream(Box::new(|frames| assert_eq!(frames.next(), None)))
    });
    let mut open = attach();
    open.what = What::Read {
        path: "a".repeat(PAYLOAD_BYTES_MAX),
    };
    let Err(CallError::Problem(problem)) = wait(Client::at(socket).open(open)) else {
        panic!("a refusal was expected");
    };
    assert_eq!(problem.code, ProblemCode::Invalid);
    assert!(problem.detail.contains("65536"), "{problem}");
}

#[test]
fn a_frame_that_is_cut_off_is_an_error_and_not_an_end() {
    let directory = tempfile::tempdir().unwrap();
    let socket = serve(directory.path(), |_, _| {
        Answer::Stream(Box::new(|frames| {
            frames.next();
            frames.send_bytes(&[Kind::Stdout as u8, 0, 0, 0, 9, 1]);
        }))
    });
    let end = wait(async {
        let mut stream = Client::at(socket).open(attach()).await.unwrap();
        stream.next().await
    });
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::UnexpectedEof);
}

#[test]
fn a_path_longer_than_a_socket_address_works() {
    let directory = tempfile::tempdir().unwrap();
    let deep = directory.path().join("d".repeat(120)).join("e".repeat(90));
    std::fs::create_dir_all(&deep).unwrap();
    let socket = serve(&deep, |_, _| Answer::Json(200, r#"{"nodes":[]}"#.into()));
    let client = Client::at(socket);
    assert!(wait(client.is_up()));
    assert!(wait(client.call(NodeList {})).unwrap().nodes.is_empty());
    let nobody = Client::at(deep.join("other.sock"));
    let error = wait(nobody.call(NodeList {})).unwrap_err();
    assert!(matches!(error, CallError::NotUp { .. }));
}

/// A node that hung (a disk that did not come back) held every verb for ever, and its callers did
/// not learn which process to look at.
#[test]
fn a_node_that_takes_calls_and_says_nothing_is_given_up_on() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("welkin.sock");
    let _silent = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .start_paused(true)
        .build()
        .unwrap();
    let client = Client::at(&socket);
    let silent = |seconds| CallError::Silent {
        path: socket.clone(),
        pid: Some(std::process::id()),
        waited: std::time::Duration::from_secs(seconds),
    };
    let stop = |grace_ms| StopApp {
        target: "web".into(),
        grace_ms,
    };
    runtime.block_on(async {
        assert_eq!(client.health().await, Err(silent(2)));
        assert_eq!(client.call(NodeList {}).await, Err(silent(65)));
        assert_eq!(client.call(stop(Some(90_000))).await, Err(silent(155)));
        assert_eq!(client.open(attach()).await.unwrap_err(), silent(65));
        // A program may run for ever, but not at a node that does not say that it is well.
        let target = "job".into();
        assert_eq!(client.call(Wait { target }).await, Err(silent(15)));
        assert_eq!(client.call(stop(None)).await, Err(silent(15)));
    });
}

#[test]
fn a_full_queue_is_tried_again_before_it_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("welkin.sock");
    let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
    let _in_the_queue = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    let error = wait(Client::at(&socket).health()).unwrap_err();
    assert!(
        matches!(error, CallError::Silent { pid: None, .. }),
        "{error:?}"
    );
}
