use std::collections::BTreeMap;
use std::net::SocketAddr;

use kernel::world::Input;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;
use wire::call::{Event, Findings};
use wire::id::{NodeId, ObjectId, UnixMillis};
use wire::stream::{Frame, Kind, Open, What};

use super::*;
use crate::frames::{FrameReader, write_frame};
use crate::links::Links;
use crate::shims::Shims;
use crate::streams::{LOOK, STREAMS_MAX};

/// A server whose kernel answers every call of the doctor and nothing else.
struct Place {
    _directory: tempfile::TempDir,
    path: PathBuf,
    events: Events,
    heartbeat: Heartbeat,
    others: Arc<Others>,
    stop: CancellationToken,
    /// What the kernel was told and did not answer.
    unanswered: mpsc::Receiver<Input>,
}

async fn place_at(below: &str, policy: Policy) -> Place {
    let directory = tempfile::tempdir().unwrap();
    let home = directory.path().join(below);
    std::fs::create_dir_all(&home).unwrap();
    let path = home.join("welkin.sock");
    let (inputs, mut told) = mpsc::channel(16);
    let (arrivals, _) = mpsc::channel(1);
    let metrics = Metrics::default();
    let events = Events::new(metrics.clone());
    let key = ed25519_dalek::SigningKey::from_bytes(&[1; 32]);
    let listen: [SocketAddr; 1] = ["127.0.0.1:0".parse().unwrap()];
    let (heard, counted) = (inputs.clone(), metrics.clone());
    let links = Links::bind(&key, &listen, heard, arrivals, counted, true);
    let links = links.await.unwrap();
    let program = PathBuf::from("/nonexistent");
    let shims = Shims::new(program, home.clone(), inputs.clone(), metrics.clone());
    let calls = Calls::new(inputs);
    let here = NodeId(key.verifying_key().to_bytes());
    let streams = Streams {
        here,
        links,
        shims,
        events: events.clone(),
        metrics: metrics.clone(),
        places: Arc::new(Semaphore::new(STREAMS_MAX)),
    };
    let patient = nobody_in(home);
    let stop = CancellationToken::new();
    let (heartbeat, others) = (Heartbeat::new(), Arc::<Others>::default());
    let server = Server {
        calls: calls.clone(),
        streams,
        events: events.clone(),
        metrics,
        policy,
        patient: Arc::new(patient),
        others: Arc::clone(&others),
        heartbeat: heartbeat.clone(),
        tasks: TaskTracker::new(),
        stop: stop.clone(),
    };
    let tasks = server.tasks.clone();
    let (to_unanswered, unanswered) = mpsc::channel(16);
    tasks.spawn(server.run(listen_at(&path)));
    tasks.spawn(async move {
        while let Some(input) = told.recv().await {
            if let Input::Call { call, request } = &input
                && matches!(**request, Request::Doctor(_))
            {
                calls.answer(*call, Ok(Response::Doctor(Findings { findings: vec![] })));
            } else {
                to_unanswered.send(input).await.unwrap();
            }
        }
    });
    Place {
        _directory: directory,
        path,
        events,
        heartbeat,
        others,
        stop,
        unanswered,
    }
}

fn nobody_in(state_dir: PathBuf) -> Patient {
    Patient {
        state_dir,
        bound: vec![],
        addresses: vec![],
        alarms: vec![],
        control_groups: vec![],
    }
}

fn listen_at(path: &Path) -> UnixListener {
    listen(path).unwrap()
}

async fn place() -> Place {
    place_at("state", Policy::of_this_process()).await
}

async fn connect(path: &Path) -> UnixStream {
    // As long as the path may be, its directory has a short name.
    let directory = std::fs::File::open(path.parent().unwrap()).unwrap();
    let short = format!("/proc/self/fd/{}/welkin.sock", directory.as_raw_fd());
    UnixStream::connect(short).await.unwrap()
}

/// Status, headers and body of one request on a connection of its own.
async fn ask(place: &Place, method: &str, path: &str, body: &str) -> (u16, String, String) {
    let mut stream = connect(&place.path).await;
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: welkin\r\nConnection: close\r\nContent-Length: {}\r\n\
         \r\n{body}",
        body.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, head.to_lowercase(), body.to_owned())
}

fn problem(answer: &(u16, String, String)) -> Problem {
    assert!(
        answer.1.contains("content-type: application/problem+json"),
        "{}",
        answer.1
    );
    serde_json::from_str(&answer.2).unwrap()
}

#[tokio::test]
async fn a_call_is_answered_and_the_doctor_adds_what_the_host_knows() {
    let place = place().await;
    let (status, _, body) = ask(&place, "POST", "/v1/node/doctor", "{}").await;
    assert_eq!(status, 200);
    let findings: Findings = serde_json::from_str(&body).unwrap();
    assert!(findings.findings.len() > 3, "{body}");
}

#[tokio::test]
async fn refusals_are_problems_that_say_what_is_wrong() {
    let place = place().await;
    let answer = ask(
        &place,
        "POST",
        "/v1/app/scale",
        r#"{"target":"a","replicas":-1}"#,
    )
    .await;
    assert_eq!(answer.0, 400);
    assert!(
        problem(&answer).detail.contains("`replicas`"),
        "{}",
        answer.2
    );
    let answer = ask(&place, "POST", "/v1/app/fly", "{}").await;
    assert_eq!(
        (answer.0, problem(&answer).code),
        (404, ProblemCode::NotFound)
    );
    let answer = ask(&place, "GET", "/v1/app/run", "").await;
    assert_eq!(
        (answer.0, problem(&answer).code),
        (405, ProblemCode::Invalid)
    );
    assert!(answer.1.contains("allow: post"), "{}", answer.1);
    let long = format!(r#"{{"target":"{}"}}"#, "a".repeat(CALL_BYTES_MAX));
    let answer = ask(&place, "POST", "/v1/app/stop", &long).await;
    assert_eq!(
        (answer.0, problem(&answer).code),
        (400, ProblemCode::Invalid)
    );
    let answer = ask(&place, "POST", "/v1/stream", "").await;
    assert!(
        problem(&answer).detail.contains("welkin-stream/1"),
        "{}",
        answer.2
    );
}

#[tokio::test]
async fn every_path_of_the_served_document_is_answered() {
    let place = place().await;
    let (status, _, body) = ask(&place, "GET", "/v1/openapi.json", "").await;
    assert_eq!(status, 200);
    let document: serde_json::Value = serde_json::from_str(&body).unwrap();
    for path in document["paths"].as_object().unwrap().keys() {
        // Nothing is called: the body is of the wrong type.
        let (status, ..) = ask(&place, "POST", path, "1").await;
        assert_eq!(status, 400, "{path}");
    }
    for path in ["/v1/health", "/metrics"] {
        assert_eq!(ask(&place, "GET", path, "").await.0, 200, "{path}");
    }
}

#[test]
fn only_root_the_owner_and_the_group_may_call() {
    let policy = Policy {
        own_uid: 1000,
        root_uid: 0,
    };
    assert!(policy.is_owner(0) && policy.is_owner(1000));
    assert!(!policy.is_owner(1001) && !is_group_member(4_000_000_001, 4_000_000_001));
}

#[tokio::test]
async fn a_foreign_caller_hears_why_it_may_not() {
    // Whoever runs this is not one of these, unless it has a very odd number.
    let place = place_at("state", nobody()).await;
    let answer = ask(&place, "POST", "/v1/cloud/info", "{}").await;
    assert_eq!(
        (answer.0, problem(&answer).code),
        (403, ProblemCode::Forbidden)
    );
    assert!(problem(&answer).remedy.contains("usermod -aG welkin"));
}

#[tokio::test]
async fn a_socket_may_lie_deeper_than_its_address_can_say() {
    let deep = ["d".repeat(100), "e".repeat(100)].join("/");
    let place = place_at(&deep, Policy::of_this_process()).await;
    assert!(place.path.as_os_str().len() > 200);
    assert_eq!(ask(&place, "GET", "/v1/health", "").await.0, 200);
}

async fn open(place: &Place, open: &Open) -> FrameReader<UnixStream> {
    let (mut stream, _) = upgraded(place).await.into_parts();
    let frame = Frame::new(Kind::Open, &serde_json::to_vec(open).unwrap());
    write_frame(&mut stream, &frame).await.unwrap();
    FrameReader::new(stream)
}

/// A connection on which a stream may be opened.
async fn upgraded(place: &Place) -> FrameReader<UnixStream> {
    let mut stream = connect(&place.path).await;
    let request = b"POST /v1/stream HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\
                    Upgrade: welkin-stream/1\r\nContent-Length: 0\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(
        head.starts_with(b"HTTP/1.1 101 "),
        "{}",
        String::from_utf8_lossy(&head)
    );
    FrameReader::new(stream)
}

fn event(subject: &str, at: u64) -> Event {
    Event {
        at: UnixMillis(at),
        node: "a".to_owned(),
        kind: "test".to_owned(),
        subject: subject.to_owned(),
        message: String::new(),
    }
}

async fn next_event(reader: &mut FrameReader<UnixStream>) -> Event {
    let frame = reader.next().await.unwrap().unwrap();
    assert_eq!(frame.kind, Kind::Event);
    serde_json::from_slice(&frame.payload).unwrap()
}

#[tokio::test]
async fn events_flow_as_they_happen_until_the_caller_leaves() {
    let place = place().await;
    place.events.push(event("old", 1));
    place.events.push(event("kept", 10));
    let what = What::Events {
        follow: true,
        since_ms: Some(5),
    };
    let (node, object) = (NodeId([0; 32]), ObjectId([0; 16]));
    let mut reader = open(&place, &Open { node, object, what }).await;
    assert_eq!(next_event(&mut reader).await.subject, "kept");
    place.events.push(event("new", 20));
    assert_eq!(next_event(&mut reader).await.subject, "new");
}

#[tokio::test]
async fn a_stream_to_nobody_ends_with_a_problem() {
    let place = place().await;
    let what = What::Attach {
        stdin: false,
        replay: true,
    };
    let (node, object) = (NodeId([0; 32]), ObjectId([9; 16]));
    let mut reader = open(&place, &Open { node, object, what }).await;
    let frame = reader.next().await.unwrap().unwrap();
    assert_eq!(frame.kind, Kind::Failure);
    let problem: Problem = serde_json::from_slice(&frame.payload).unwrap();
    assert_eq!(problem.code, ProblemCode::NotFound);
    assert_eq!(reader.next().await.unwrap(), None);
}

#[tokio::test]
async fn an_ended_object_still_shows_its_log() {
    let place = place().await;
    let object = ObjectId([3; 16]);
    let directory = place.path.parent().unwrap().join(object.to_string());
    std::fs::create_dir(&directory).unwrap();
    let mut log = drivers::log::Writer::open(&directory, 1024 * 1024).unwrap();
    log.append(drivers::log::Stream::Stdout, 1, b"hello\n")
        .unwrap();
    log.append(drivers::log::Stream::Stderr, 2, b"oh\n")
        .unwrap();
    let exit = wire::fact::Exit {
        reason: wire::fact::ExitReason::Code(3),
        at: UnixMillis(1),
        asked: false,
    };
    std::fs::write(directory.join("exit"), wire::encode(&exit).unwrap()).unwrap();
    let what = What::Attach {
        stdin: false,
        replay: true,
    };
    let node = NodeId([0; 32]);
    let mut reader = open(&place, &Open { node, object, what }).await;
    let mut heard = BTreeMap::new();
    while let Some(frame) = reader.next().await.unwrap() {
        heard.insert(frame.kind as u8, String::from_utf8(frame.payload).unwrap());
    }
    assert_eq!(heard[&(Kind::Stdout as u8)], "hello\n");
    assert_eq!(heard[&(Kind::Stderr as u8)], "oh\n");
    assert_eq!(heard[&(Kind::Exit as u8)], r#"{"code":3}"#);
}

#[tokio::test]
async fn a_caller_that_hangs_up_is_told_to_the_kernel() {
    let mut place = place().await;
    let mut stream = connect(&place.path).await;
    let body = r#"{"target":"a"}"#;
    let head = "POST /v1/app/wait HTTP/1.1\r\nHost: a\r\nContent-Length: 14\r\n\r\n";
    stream
        .write_all(format!("{head}{body}").as_bytes())
        .await
        .unwrap();
    let asked = place.unanswered.recv().await;
    let Some(Input::Call { call, .. }) = asked else {
        panic!("a call was expected");
    };
    drop(stream);
    assert_eq!(
        place.unanswered.recv().await,
        Some(Input::Abandoned { call })
    );
}

#[tokio::test]
async fn a_stopped_server_closes_idle_connections() {
    let place = place().await;
    let mut idle = connect(&place.path).await;
    place.stop.cancel();
    let mut nothing = Vec::new();
    // One that was not taken yet is reset when the listener goes.
    if let Err(error) = idle.read_to_end(&mut nothing).await {
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }
    assert_eq!(nothing, b"");
}

/// Plays the shim of an object: takes one connection and its first frame.
struct FakeShim(std::os::unix::net::UnixListener, ObjectId);

impl FakeShim {
    fn new(place: &Place) -> Self {
        let object = ObjectId([4; 16]);
        let directory = place.path.parent().unwrap().join(object.to_string());
        std::fs::create_dir(&directory).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(directory.join("shim.sock"));
        let listener = listener.unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener, object)
    }

    async fn accept(self) -> FrameReader<UnixStream> {
        let listener = UnixListener::from_std(self.0).unwrap();
        let mut reader = FrameReader::new(listener.accept().await.unwrap().0);
        let opening = reader.next().await.unwrap().unwrap();
        assert_eq!(opening.kind, Kind::Open);
        reader
    }
}

/// Whether the other side has closed, not only ended what it sends.
fn is_closed(socket: &UnixStream) -> bool {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
    poll(&mut asked, PollTimeout::ZERO).unwrap();
    asked[0].revents().unwrap().contains(PollFlags::POLLHUP)
}

fn exec() -> What {
    let program = wire::spec::Program {
        arguments: vec!["sleep".to_owned(), "1000".to_owned()],
        ..wire::spec::Program::default()
    };
    What::Exec { program }
}

/// A program that says nothing: nobody writes to its caller, so nobody noticed that it had left.
/// The program was never hung up, and its stream never given back.
#[tokio::test]
async fn a_caller_that_leaves_a_silent_program_is_noticed() {
    let place = place().await;
    let shim = FakeShim::new(&place);
    let (node, object, what) = (NodeId([0; 32]), shim.1, exec());
    let caller = open(&place, &Open { node, object, what }).await;
    let (shim, _) = shim.accept().await.into_parts();
    drop(caller);
    // From here on time passes as soon as nobody has anything to do.
    tokio::time::pause();
    tokio::time::sleep(3 * LOOK).await;
    assert!(is_closed(&shim), "the far end sees the close");
}

#[tokio::test]
async fn a_caller_that_only_sends_no_more_still_hears_the_program() {
    let place = place().await;
    let shim = FakeShim::new(&place);
    let (node, object, what) = (NodeId([0; 32]), shim.1, exec());
    let (mut caller, _) = open(&place, &Open { node, object, what })
        .await
        .into_parts();
    let mut shim = shim.accept().await;
    caller.shutdown().await.unwrap();
    assert_eq!(shim.next().await.unwrap(), None);
    // Longer than it takes to notice a caller that has left; the clock of the test alone passes.
    tokio::time::pause();
    tokio::time::sleep(3 * LOOK).await;
    tokio::time::resume();
    let (mut shim, _) = shim.into_parts();
    let said = Frame::new(Kind::Stdout, b"late");
    write_frame(&mut shim, &said).await.unwrap();
    let mut caller = FrameReader::new(caller);
    assert_eq!(caller.next().await.unwrap(), Some(said));
}

/// The `Open` frame was decoded and encoded anew: a field that this version does not know was lost
/// on the way, and one that had grown beyond a frame was cut.
#[tokio::test]
async fn what_opens_a_stream_is_passed_on_as_it_came() {
    let place = place().await;
    let shim = FakeShim::new(&place);
    let (node, object, what) = (NodeId([0; 32]), shim.1, exec());
    let mut json = serde_json::to_value(Open { node, object, what }).unwrap();
    json["tomorrow"] = "a field of a later version".into();
    let stream = upgraded(&place).await;
    let opening = Frame::new(Kind::Open, json.to_string().as_bytes());
    let (mut stream, _) = stream.into_parts();
    write_frame(&mut stream, &opening).await.unwrap();
    let listener = UnixListener::from_std(shim.0).unwrap();
    let mut shim = FrameReader::new(listener.accept().await.unwrap().0);
    assert_eq!(shim.next().await.unwrap(), Some(opening));
}

/// A reader of a log held a thread while it was slow; sixteen of them held all.
#[test]
fn a_slow_reader_of_a_log_holds_no_thread() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let place = place().await;
        let object = ObjectId([3; 16]);
        let directory = place.path.parent().unwrap().join(object.to_string());
        std::fs::create_dir(&directory).unwrap();
        let mut log = drivers::log::Writer::open(&directory, 8 * 1024 * 1024).unwrap();
        for number in 0..200 {
            log.append(drivers::log::Stream::Stdout, number, &[b'a'; 16 * 1024])
                .unwrap();
        }
        let open_log = || {
            let what = What::Logs {
                follow: false,
                tail_lines: None,
                since_ms: None,
            };
            let (node, object) = (NodeId([0; 32]), object);
            Open { node, object, what }
        };
        let mut slow = open(&place, &open_log()).await;
        assert_eq!(slow.next().await.unwrap().unwrap().kind, Kind::Log);
        let mut quick = open(&place, &open_log()).await;
        let mut records = 0;
        let reading = async {
            while let Some(frame) = quick.next().await.unwrap() {
                records += usize::from(frame.kind == Kind::Log);
            }
        };
        timeout(Duration::from_secs(10), reading).await.unwrap();
        assert_eq!(records, 200);
    });
}

#[tokio::test]
async fn a_follower_that_was_too_slow_is_told_how_many_events_it_missed() {
    let place = place().await;
    place.events.push(event("first", 1));
    let what = What::Events {
        follow: true,
        since_ms: None,
    };
    let (node, object) = (NodeId([0; 32]), ObjectId([0; 16]));
    let mut reader = open(&place, &Open { node, object, what }).await;
    assert_eq!(next_event(&mut reader).await.subject, "first");
    // More than the ring and the connection hold, before the follower has its turn.
    for number in 0..5000 {
        place.events.push(event(&number.to_string(), number));
    }
    let told = next_event(&mut reader).await;
    assert_eq!(
        (told.kind.as_str(), told.subject.as_str()),
        ("events.lost", "904")
    );
    assert_eq!(next_event(&mut reader).await.subject, "904");
}

#[tokio::test]
async fn a_node_whose_loop_does_not_turn_is_not_healthy() {
    let place = place().await;
    assert_eq!(ask(&place, "GET", "/v1/health", "").await.0, 200);
    place.heartbeat.0.store(0, Ordering::Relaxed);
    let answer = ask(&place, "GET", "/v1/health", "").await;
    assert_eq!(answer.0, 503);
    assert!(problem(&answer).detail.contains("done nothing"));
    place.heartbeat.beat();
    assert_eq!(ask(&place, "GET", "/v1/health", "").await.0, 200);
}

/// The server waited an hour where its document said a minute.
#[test]
fn each_call_has_the_deadline_that_is_promised() {
    let of = |path: &str, body: &str| deadline(&api::parse(path, body.as_bytes()).unwrap());
    assert_eq!(of("cloud/info", "{}"), Some(Duration::from_secs(60)));
    assert_eq!(
        of("app/stop", r#"{"target":"a","grace_ms":90000}"#),
        Some(Duration::from_secs(150))
    );
    assert_eq!(of("app/wait", r#"{"target":"a"}"#), None);
}

fn nobody() -> Policy {
    // Whoever runs this test is not one of these, unless it has a very odd number.
    Policy {
        own_uid: 4_000_000_001,
        root_uid: 4_000_000_002,
    }
}

/// Any user could hold all places of callers who are not known yet, and members of the group were
/// turned away without a word.
#[tokio::test]
async fn one_user_takes_few_places_and_is_told_when_there_is_none() {
    let place = place_at("state", nobody()).await;
    let mut held = Vec::new();
    for _ in 0..OTHERS_OF_USER_MAX {
        held.push(connect(&place.path).await);
    }
    while place.others.waiting().values().sum::<usize>() < OTHERS_OF_USER_MAX {
        tokio::task::yield_now().await;
    }
    let mut refused = connect(&place.path).await;
    let mut text = String::new();
    refused.read_to_string(&mut text).await.unwrap();
    assert!(text.starts_with("HTTP/1.1 429 "), "{text}");
    assert!(text.contains(r#""code":"busy""#), "{text}");
    // Another user has places of their own.
    assert!(place.others.place(4_000_000_003).is_some());
    drop(held);
    while !place.others.waiting().is_empty() {
        tokio::task::yield_now().await;
    }
    assert_eq!(ask(&place, "GET", "/v1/health", "").await.0, 403);
}

#[tokio::test]
async fn a_user_who_may_call_needs_no_place_the_next_time() {
    let place = place_at("state", nobody()).await;
    let (uid, gid) = (nix::unistd::geteuid(), nix::unistd::getegid());
    let _taken: Vec<_> = (0..OTHERS_MAX)
        .map(|number| place.others.place(u32::try_from(number).unwrap() + 5000))
        .collect();
    place.others.permit(uid.as_raw(), gid.as_raw());
    assert_eq!(ask(&place, "GET", "/v1/health", "").await.0, 200);
}
