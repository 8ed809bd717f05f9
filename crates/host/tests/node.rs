//! Whole nodes in one process: kernels, disks, links and real objects.
//!
//! Not a libtest harness, because this program must also be the shim of its objects, as `welkin`
//! is: `node shim DIR`. Objects need root (control groups, namespaces) on this machine; without it
//! they run with fewer protections. Name a case on the command line to run only that one.

#![expect(clippy::print_stderr, reason = "a test harness reports to people")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use host::{Host, Options, Ready};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use wire::stream::{Frame, Kind};

/// A node that runs.
struct Node {
    ready: Ready,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Node {
    async fn start(state_dir: &Path, name: &str, ticket: Option<&str>) -> Self {
        let options = Options {
            listen: vec!["127.0.0.1:0".parse().expect("an address")],
            name: Some(name.to_owned()),
            ticket: ticket.map(ToOwned::to_owned),
            ..Options::new(state_dir.to_path_buf())
        };
        let program = std::env::current_exe().expect("this program has a path");
        let host = Box::pin(Host::start_with(options, program)).await;
        let host = host.unwrap_or_else(|error| panic!("the node starts: {error}"));
        let (ready, stop) = (host.ready().clone(), CancellationToken::new());
        let mut tasks = JoinSet::new();
        tasks.spawn(host.run_until(stop.clone().cancelled_owned()));
        Self { ready, stop, tasks }
    }

    async fn end(mut self) {
        self.stop.cancel();
        while self.tasks.join_next().await.is_some() {}
    }

    async fn call(&self, path: &str, body: Value) -> Value {
        let (status, answer) = self.try_call(path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
        answer
    }

    async fn try_call(&self, path: &str, body: Value) -> (u16, Value) {
        let mut stream = UnixStream::connect(&self.ready.socket)
            .await
            .expect("a socket");
        let body = body.to_string();
        let request = format!(
            "POST /v1/{path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream
            .write_all(request.as_bytes())
            .await
            .expect("a request");
        let mut text = String::new();
        stream.read_to_string(&mut text).await.expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let body = serde_json::from_str(body).expect("JSON");
        (status.expect("a status"), body)
    }

    /// Opens a stream and gives all its frames until its end.
    async fn stream(&self, open: Value) -> Vec<Frame> {
        let mut stream = UnixStream::connect(&self.ready.socket)
            .await
            .expect("a socket");
        let request = b"POST /v1/stream HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\n\
                        Upgrade: welkin-stream/1\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(request).await.expect("a request");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.expect("a head"));
        }
        let mut bytes = Vec::new();
        Frame::new(Kind::Open, open.to_string().as_bytes()).encode(&mut bytes);
        stream.write_all(&bytes).await.expect("an Open frame");
        bytes.clear();
        stream.read_to_end(&mut bytes).await.expect("frames");
        let (mut frames, mut rest) = (Vec::new(), bytes.as_slice());
        while let Some((frame, taken)) = Frame::decode(rest).expect("frames") {
            frames.push(frame);
            rest = &rest[taken..];
        }
        assert!(rest.is_empty(), "a frame was cut off");
        frames
    }

    async fn run(&self, name: &str, arguments: &[&str], placement: Value) -> Value {
        let program = json!({ "arguments": arguments });
        let spec = json!({ "name": name, "program": program, "placement": placement });
        self.call("app/run", json!({ "spec": spec })).await
    }

    /// Asks again until `is_so`; the kernel's own timers decide when that is.
    async fn until(&self, path: &str, body: Value, is_so: impl Fn(&Value) -> bool) -> Value {
        let asking = async {
            let mut ticks = tokio::time::interval(Duration::from_millis(20));
            loop {
                ticks.tick().await;
                let (_, answer) = self.try_call(path, body.clone()).await;
                if is_so(&answer) {
                    return answer;
                }
            }
        };
        timeout(Duration::from_secs(30), asking)
            .await
            .expect("it becomes so in time")
    }
}

fn output(frames: &[Frame]) -> String {
    let stdout = frames.iter().filter(|frame| frame.kind == Kind::Stdout);
    let bytes: Vec<u8> = stdout.flat_map(|frame| frame.payload.clone()).collect();
    String::from_utf8(bytes).expect("text")
}

fn attach(object: &Value) -> Value {
    let what = json!({ "attach": { "stdin": false, "replay": true } });
    json!({ "node": object["node"], "object": object["object"], "what": what })
}

async fn a_founder_runs_a_program_and_shows_what_it_said(directory: PathBuf) {
    let node = Node::start(&directory, "a", None).await;
    let started = node.run("hello", &["echo", "hi there"], json!({})).await;
    let object = &started["objects"][0];
    let waited = node.call("app/wait", json!({ "target": "hello" })).await;
    assert_eq!(
        waited["exits"][0]["exit"]["reason"],
        json!({ "code": 0 }),
        "{waited}"
    );
    let frames = node.stream(attach(object)).await;
    assert_eq!(output(&frames), "hi there\n");
    assert_eq!(frames.last().map(|frame| frame.kind), Some(Kind::Exit));
    node.call("app/remove", json!({ "target": "hello", "force": true }))
        .await;
    node.end().await;
}

/// Two nodes that know each other.
async fn pair(directory: &Path) -> (Node, Node) {
    let first = Node::start(&directory.join("a"), "a", None).await;
    let invitation = first.call("cloud/invite", json!({})).await;
    let ticket = invitation["ticket"].as_str().expect("a ticket");
    let second = Node::start(&directory.join("b"), "b", Some(ticket)).await;
    let both_up = |nodes: &Value| {
        let nodes = nodes["nodes"].as_array();
        let is_up = |node: &&Value| node["state"] == "up";
        nodes.is_some_and(|nodes| nodes.iter().filter(is_up).count() == 2)
    };
    first.until("node/list", json!({}), both_up).await;
    second.until("node/list", json!({}), both_up).await;
    (first, second)
}

async fn a_second_node_joins_and_objects_there_are_reached_through_the_first(directory: PathBuf) {
    let (first, second) = pair(&directory).await;
    let started = first
        .run("far", &["echo", "from b"], json!({ "host": "b" }))
        .await;
    let object = &started["objects"][0];
    assert_eq!(
        object["node"],
        json!(second.ready.node.to_string()),
        "{started}"
    );
    first.call("app/wait", json!({ "target": "far" })).await;
    assert_eq!(output(&first.stream(attach(object)).await), "from b\n");
    first
        .call("app/remove", json!({ "target": "far", "force": true }))
        .await;
    second.end().await;
    first.end().await;
}

/// The node that came back at once, with an empty disk and a boot number that it had used before,
/// was taken for the one that had all its records, and nobody brought them.
async fn a_damaged_disk_is_set_aside_and_filled_again_by_others(directory: PathBuf) {
    let (first, second) = pair(&directory).await;
    // Of several apps, each of the two supervises some.
    let apps = ["kept-0", "kept-1", "kept-2", "kept-3"];
    for app in apps {
        first.run(app, &["true"], json!({ "host": "a" })).await;
    }
    let disk = directory.join("b/disk.redb");
    let holds_all_records = |_: &Value| {
        let bytes = std::fs::read(&disk).expect("a disk");
        let holds = |app: &str| bytes.windows(app.len()).any(|it| it == app.as_bytes());
        apps.into_iter().all(holds)
    };
    second
        .until("node/list", json!({}), holds_all_records)
        .await;
    second.end().await;
    std::fs::write(&disk, "this is no disk").expect("a file");
    let second = Node::start(&directory.join("b"), "b", None).await;
    let doctor = second.call("node/doctor", json!({})).await.to_string();
    assert!(doctor.contains("disk-damaged"), "{doctor}");
    assert!(doctor.contains("was set aside as"), "{doctor}");
    second
        .until("node/list", json!({}), holds_all_records)
        .await;
    for app in apps {
        let target = json!({ "target": app, "force": true });
        first.call("app/remove", target).await;
    }
    second.end().await;
    first.end().await;
}

async fn objects_go_on_while_the_daemon_is_away(directory: PathBuf) {
    let node = Node::start(&directory, "a", None).await;
    node.run("sleeper", &["sleep", "1000"], json!({})).await;
    let is_running = |answer: &Value| answer["objects"][0]["phase"] == "running";
    let target = json!({ "target": "sleeper" });
    let before = node.until("app/inspect", target.clone(), is_running).await;
    node.end().await;
    let node = Node::start(&directory, "a", None).await;
    let after = node.until("app/inspect", target.clone(), is_running).await;
    assert_eq!(before["objects"][0]["pid"], after["objects"][0]["pid"]);
    node.call("app/stop", json!({ "target": "sleeper", "grace_ms": 100 }))
        .await;
    let has_ended = |answer: &Value| answer["objects"][0]["phase"] == "ended";
    node.until("app/inspect", target, has_ended).await;
    let groups = format!("welkin-{}", node.ready.node.short());
    assert!(has_control_groups(&groups), "as long as it has objects");
    node.call("app/remove", json!({ "target": "sleeper", "force": true }))
        .await;
    let objects = || std::fs::read_dir(directory.join("objects")).expect("a directory");
    while objects().next().is_some() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    node.end().await;
    // Every node that had ever been on a machine left some there until the next boot.
    assert!(!has_control_groups(&groups), "nothing is left of the node");
}

/// Whether there is a control group of this name in any hierarchy.
fn has_control_groups(name: &str) -> bool {
    let mut directories = vec![PathBuf::from("/sys/fs/cgroup")];
    while let Some(directory) = directories.pop() {
        // It may be gone by now.
        for entry in std::fs::read_dir(directory).into_iter().flatten().flatten() {
            if entry.file_name() == name {
                return true;
            }
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                directories.push(entry.path());
            }
        }
    }
    false
}

async fn a_node_that_goes_down_says_so_to_its_caller(directory: PathBuf) {
    let mut node = Node::start(&directory, "a", None).await;
    let (status, answer) = node.try_call("node/down", json!({})).await;
    assert_eq!(status, 200, "{answer}");
    let ended = timeout(Duration::from_secs(30), node.tasks.join_next()).await;
    assert!(ended.is_ok(), "the node ends by itself");
    assert!(!node.ready.socket.exists());
}

/// Prints what calls and runs cost. Not a check.
async fn measurements(directory: PathBuf) {
    let node = Node::start(&directory, "a", None).await;
    let mut times = [
        ("call", vec![]),
        ("run `true`", vec![]),
        ("and attach", vec![]),
        ("remove", vec![]),
    ];
    for _ in 0..500 {
        let began = tokio::time::Instant::now();
        node.call("cloud/info", json!({})).await;
        times[0].1.push(began.elapsed().as_micros());
    }
    for number in 0..40 {
        let name = format!("run-{number}");
        let began = tokio::time::Instant::now();
        let started = node.run(&name, &["true"], json!({})).await;
        times[1].1.push(began.elapsed().as_micros());
        node.stream(attach(&started["objects"][0])).await;
        times[2].1.push(began.elapsed().as_micros());
        let began = tokio::time::Instant::now();
        node.call("app/remove", json!({ "target": name, "force": true }))
            .await;
        times[3].1.push(began.elapsed().as_micros());
    }
    for (what, mut times) in times {
        times.sort_unstable();
        let part = |tenths: usize| times[(times.len() - 1) * tenths / 10];
        eprintln!(
            "  {what}: p50 {} us, p90 {} us, most {} us",
            part(5),
            part(9),
            part(10)
        );
    }
    node.end().await;
}

macro_rules! cases {
    ($($case:ident)*) => { [$((stringify!($case), |directory| Box::pin($case(directory)))),*] };
}

type Case = fn(PathBuf) -> std::pin::Pin<Box<dyn Future<Output = ()>>>;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let [_, verb, directory] = arguments.as_slice()
        && verb == "shim"
    {
        return drivers::shim::main(Path::new(directory));
    }
    let wanted = arguments
        .iter()
        .skip(1)
        .find(|argument| !argument.starts_with('-'));
    let cases: [(&str, Case); 6] = cases!(
        a_founder_runs_a_program_and_shows_what_it_said
        a_second_node_joins_and_objects_there_are_reached_through_the_first
        a_damaged_disk_is_set_aside_and_filled_again_by_others
        objects_go_on_while_the_daemon_is_away
        a_node_that_goes_down_says_so_to_its_caller
        measurements
    );
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let mut failed = 0_u8;
    for (name, case) in cases {
        if wanted.is_some_and(|wanted| !name.contains(wanted.as_str())) {
            continue;
        }
        let directory = tempfile::tempdir().expect("a directory");
        let run = || runtime.block_on(case(directory.path().to_path_buf()));
        let passed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).is_ok();
        eprintln!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += u8::from(!passed);
    }
    ExitCode::from(failed.min(101))
}
