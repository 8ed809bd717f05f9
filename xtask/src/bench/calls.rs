//! How fast a node answers callers who keep their connection: as many calls as it can, and how
//! late the latest answers are while nodes come and go.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use end_to_end::{LoopbackCloud, until};

use super::{Figure, now, rest};

const OBJECTS: u32 = 100;
/// Callers who ask again as soon as they have an answer.
const EAGER_CALLERS: u32 = 64;
const EAGER_FOR: Duration = Duration::from_secs(5);
const GOAL_PER_SECOND: f64 = 5_000.0;
/// Callers who ask at fixed times. An answer is late by what has passed since its call was due, so
/// that calls that could not be made because one before was late count as well.
const STEADY_CALLERS: u32 = 8;
const STEADY_PERIOD: Duration = Duration::from_millis(40);
/// How long nothing happens before the first change and after the last.
const MARGIN: Duration = Duration::from_secs(2);
const GOAL_MS: f64 = 50.0;
/// So many runs are enough: each is of thousands of calls.
const RUNS_MAX: usize = 3;

pub(super) fn measure(runs: usize) -> Vec<Figure> {
    let runs = runs.clamp(1, RUNS_MAX);
    let rates = eager(runs);
    let rates = Figure::new("app/list, 100 objects, 64 callers, one node", "/s", rates);
    let fast = rates.median() >= GOAL_PER_SECOND;
    let mut figures = vec![rates.goal(format!("{GOAL_PER_SECOND} a second"), fast)];
    let mut latenesses = [const { Vec::new() }; 2];
    for _ in 0..runs {
        let run = steady(["node/list", "app/list"]);
        for (all, one) in latenesses.iter_mut().zip(run) {
            all.push(one);
        }
    }
    let [alone, all] = latenesses;
    for (what, samples) in [
        ("p99 of node/list while one joins and one dies", alone),
        ("p99 of app/list while one joins and one dies", all),
    ] {
        let figure = Figure::new(what, "ms", samples);
        let in_time = figure.median() <= GOAL_MS;
        figures.push(figure.goal(format!("{GOAL_MS} ms"), in_time));
    }
    figures
}

/// Calls per second, once for each run.
fn eager(runs: usize) -> Vec<f64> {
    let cloud = LoopbackCloud::new(1, None);
    let _name = cloud.welkin(0, &app()).ok();
    let socket = cloud.state_dir(0).join("welkin.sock");
    let mut caller = Caller::new(&socket, "app/list");
    let told = String::from_utf8_lossy(caller.call());
    let told = told.matches("\"running\"").count();
    assert!(told >= OBJECTS as usize, "{told} objects are told");
    (0..runs)
        .map(|_| {
            let began = now();
            let calls: u32 = thread::scope(|scope| {
                let ask = || {
                    let mut caller = Caller::new(&socket, "app/list");
                    let mut calls = 0;
                    while began.elapsed() < EAGER_FOR {
                        caller.call();
                        calls += 1;
                    }
                    calls
                };
                let callers: Vec<_> = (0..EAGER_CALLERS).map(|_| scope.spawn(ask)).collect();
                callers
                    .into_iter()
                    .map(|caller| caller.join().expect("it was answered"))
                    .sum()
            });
            f64::from(calls) / began.elapsed().as_secs_f64()
        })
        .collect()
}

/// The 99th percentile of the lateness of each call, in milliseconds, at the first of three nodes
/// while a fourth joins and then another loses its power.
fn steady(calls: [&str; 2]) -> [f64; 2] {
    let cloud = LoopbackCloud::strangers(4, None);
    cloud.found(3);
    let _name = cloud.welkin(0, &app()).ok();
    let socket = cloud.state_dir(0).join("welkin.sock");
    let is_over = AtomicBool::new(false);
    let latenesses = thread::scope(|scope| {
        let callers = calls.map(|call| {
            let ask = || ask_steadily(&socket, call, &is_over);
            let callers: Vec<_> = (0..STEADY_CALLERS).map(|_| scope.spawn(ask)).collect();
            callers
        });
        rest(MARGIN);
        cloud.join(3);
        cloud.kill(2);
        until("the others know", Duration::from_secs(60), || {
            (cloud.welkin(0, "nodes").ok().matches(" up ").count() == 3).then_some(())
        });
        rest(MARGIN);
        is_over.store(true, Ordering::Relaxed);
        callers.map(|callers| {
            let all = callers.into_iter();
            all.flat_map(|caller| caller.join().expect("it was answered"))
                .collect::<Vec<f64>>()
        })
    });
    // It takes away what its objects have left behind.
    let _back = cloud.welkin(2, "up").ok();
    let _removed = cloud.welkin(0, "rm -f app").ok();
    cloud.await_no_objects(2);
    latenesses.map(|mut samples| {
        samples.sort_by(f64::total_cmp);
        samples[samples.len() * 99 / 100]
    })
}

/// How late each answer was, in milliseconds.
fn ask_steadily(socket: &Path, call: &str, is_over: &AtomicBool) -> Vec<f64> {
    let mut caller = Caller::new(socket, call);
    let mut samples = Vec::new();
    let mut due = now();
    while !is_over.load(Ordering::Relaxed) {
        caller.call();
        samples.push(due.elapsed().as_secs_f64() * 1e3);
        due += STEADY_PERIOD;
        rest(due.saturating_duration_since(now()));
    }
    samples
}

fn app() -> String {
    format!("run -d --name app --restart always --replicas {OBJECTS} --processes 8 -- sleep 100000")
}

/// One caller with one connection: HTTP/1.1 by hand, so that as little as possible of this machine
/// goes into asking.
struct Caller {
    connection: UnixStream,
    request: Vec<u8>,
    answer: Vec<u8>,
}

impl Caller {
    fn new(socket: &Path, call: &str) -> Self {
        let request = format!(
            "POST /v1/{call} HTTP/1.1\r\nhost: node\r\ncontent-type: application/json\r\n\
             content-length: 2\r\n\r\n{{}}"
        );
        Self {
            connection: UnixStream::connect(socket).expect("the node is up"),
            request: request.into_bytes(),
            answer: vec![0; 1 << 20],
        }
    }

    /// Makes the call and reads the whole answer, with its head.
    fn call(&mut self) -> &[u8] {
        self.connection
            .write_all(&self.request)
            .expect("the node is up");
        let mut length = 0;
        let mut wanted = None;
        while wanted.is_none_or(|wanted| length < wanted) {
            let read = self
                .connection
                .read(&mut self.answer[length..])
                .expect("the node is up");
            assert!(read > 0, "the node hung up");
            length += read;
            wanted = wanted.or_else(|| length_of(&self.answer[..length]));
        }
        &self.answer[..length]
    }
}

/// How long an answer is with its head, once the head is whole.
fn length_of(answer: &[u8]) -> Option<usize> {
    let end = answer.windows(4).position(|it| it == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    assert!(head.starts_with("HTTP/1.1 200"), "refused: {head}");
    let field = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "))?;
    Some(end + 4 + field.parse::<usize>().expect("a number"))
}
