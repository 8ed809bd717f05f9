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
const EAGER_CALLERS: usize = 64;
const EAGER_FOR: Duration = Duration::from_secs(5);
const GOAL_PER_SECOND: f64 = 5_000.0;
/// Callers who ask at fixed times. An answer is late by what has passed since its call was due, so
/// that calls that could not be made because one before was late count as well.
const STEADY_CALLERS: usize = 8;
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
    let mut waits = Vec::new();
    let mut latenesses = [const { Vec::new() }; 2];
    for _ in 0..runs {
        waits.push(eager_while_nodes_change());
        let run = steady(["node/list", "app/list"]);
        for (all, one) in latenesses.iter_mut().zip(run) {
            all.push(one);
        }
    }
    let waits = Figure::new(
        "p99 of app/list, 64 callers, one joins and one dies",
        "ms",
        waits,
    );
    let in_time = waits.median() <= GOAL_MS;
    figures.push(waits.goal(format!("{GOAL_MS} ms"), in_time));
    let [alone, all] = latenesses;
    for (what, samples) in [
        ("p99 lateness of node/list meanwhile, steady", alone),
        ("p99 lateness of app/list meanwhile, steady", all),
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

/// The 99th percentile of how long a call took, in milliseconds, when each caller asks again as soon
/// as it has an answer.
fn eager_while_nodes_change() -> f64 {
    let [samples] = while_nodes_change(["app/list"], EAGER_CALLERS, |caller, samples, is_over| {
        while !is_over() {
            let asked = now();
            caller.call();
            samples.push(asked.elapsed().as_secs_f64() * 1e3);
        }
    });
    p99(samples)
}

/// The 99th percentile of the lateness of each call, in milliseconds, when each is made at its time.
fn steady(calls: [&str; 2]) -> [f64; 2] {
    let samples = while_nodes_change(calls, STEADY_CALLERS, |caller, samples, is_over| {
        let mut due = now();
        while !is_over() {
            caller.call();
            samples.push(due.elapsed().as_secs_f64() * 1e3);
            due += STEADY_PERIOD;
            rest(due.saturating_duration_since(now()));
        }
    });
    samples.map(p99)
}

fn p99(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    samples[samples.len() * 99 / 100]
}

/// What so many callers of each of the calls have measured at the first of three nodes, while a
/// fourth joins and then another loses its power.
fn while_nodes_change<const KINDS: usize>(
    calls: [&str; KINDS],
    callers_each: usize,
    ask: impl Fn(&mut Caller, &mut Vec<f64>, &dyn Fn() -> bool) + Sync,
) -> [Vec<f64>; KINDS] {
    let cloud = LoopbackCloud::strangers(4, None);
    cloud.found(3);
    let _name = cloud.welkin(0, &app()).ok();
    let socket = cloud.state_dir(0).join("welkin.sock");
    let is_over = AtomicBool::new(false);
    let ask = |call: &str| {
        let mut caller = Caller::new(&socket, call);
        let mut samples = Vec::new();
        ask(&mut caller, &mut samples, &|| {
            is_over.load(Ordering::Relaxed)
        });
        samples
    };
    let samples = thread::scope(|scope| {
        let ask = &ask;
        let begin = |call| (0..callers_each).map(move |_| scope.spawn(move || ask(call)));
        let callers = calls.map(|call| begin(call).collect::<Vec<_>>());
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
                .collect()
        })
    });
    // It takes away what its objects have left behind.
    let _back = cloud.welkin(2, "up").ok();
    let _removed = cloud.welkin(0, "rm -f app").ok();
    cloud.await_no_objects(2);
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
