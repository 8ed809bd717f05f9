//! Every figure that Welkin promises, measured: `cargo xtask bench [NAME…] [--runs N]
//! [--minutes N] [--json FILE]`.
//!
//! Peers are run side by side with us, in turn, in the same minute, because machines are shared and
//! drift; what counts is the ratio of the medians. Prints a table and writes JSON.

mod build;
mod calls;
mod churn;
mod failover;
mod heal;
mod idle;
mod list;
mod scale;
mod start;
mod starts;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Measures something.
type Measure<'a> = &'a dyn Fn() -> Vec<Figure>;

/// One figure.
#[derive(Debug)]
pub(crate) struct Figure {
    /// What was measured.
    pub(crate) what: String,
    /// All samples, in the unit.
    pub(crate) samples: Vec<f64>,
    /// `ms`, `s`, `min`, `MiB`, `MB`, `%`, `/s`; empty for a count.
    pub(crate) unit: &'static str,
    /// What is to be reached, in words; empty for a peer.
    pub(crate) goal: String,
    /// Whether it was; nothing when it cannot be said.
    pub(crate) reached: Option<bool>,
}

impl Figure {
    pub(crate) fn new(what: impl Into<String>, unit: &'static str, samples: Vec<f64>) -> Self {
        Self {
            what: what.into(),
            samples,
            unit,
            goal: String::new(),
            reached: None,
        }
    }

    pub(crate) fn goal(mut self, goal: impl Into<String>, reached: bool) -> Self {
        self.goal = goal.into();
        self.reached = Some(reached);
        self
    }

    pub(crate) fn median(&self) -> f64 {
        median(&self.samples)
    }

    pub(crate) fn worst(&self) -> f64 {
        self.samples.iter().copied().fold(f64::NAN, f64::max)
    }

    fn json(&self) -> Value {
        json!({
            "what": self.what, "unit": self.unit, "median": self.median(),
            "least": self.samples.iter().copied().fold(f64::NAN, f64::min),
            "worst": self.worst(), "samples": self.samples, "goal": self.goal,
            "reached": self.reached,
        })
    }
}

/// The middle of the samples.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}

/// How long a command takes, from outside, in milliseconds.
pub(crate) fn time_ms(command: &mut Command) -> f64 {
    let started = now();
    let output = command.stdin(Stdio::null()).stdout(Stdio::null()).output();
    let elapsed = started.elapsed();
    let output = output.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?} failed: {said}");
    elapsed.as_secs_f64() * 1e3
}

#[expect(clippy::disallowed_methods, reason = "what is measured is time")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Waits without doing anything: what is measured is an idle machine.
pub(crate) fn rest(duration: Duration) {
    let started = now();
    while started.elapsed() < duration {
        std::thread::park_timeout(duration.saturating_sub(started.elapsed()));
    }
}

/// Runs what was asked for.
pub(crate) fn run(arguments: &[String]) -> ExitCode {
    let mut names = Vec::new();
    let (mut runs, mut minutes) = (20, 10);
    let mut path = PathBuf::from("target/bench.json");
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        let mut number = || arguments.next().and_then(|it| it.parse::<u32>().ok());
        match argument.as_str() {
            "--runs" => runs = number().unwrap_or(runs),
            "--minutes" => minutes = number().unwrap_or(minutes),
            "--json" => path = arguments.next().map_or(path, PathBuf::from),
            name => names.push(name.to_string()),
        }
    }
    let runs = runs as usize;
    let all: [(&str, Measure<'_>); 10] = [
        ("start", &|| start::measure(runs)),
        ("starts", &|| starts::measure(runs)),
        ("list", &|| list::measure(runs)),
        ("calls", &|| calls::measure(runs)),
        ("idle", &idle::measure),
        ("failover", &|| failover::measure(runs)),
        ("heal", &|| heal::measure(runs)),
        ("churn", &|| churn::measure(minutes.into())),
        ("scale", &scale::measure),
        ("build", &build::measure),
    ];
    let mut figures = Vec::new();
    for (name, measure) in all {
        if names.is_empty() || names.iter().any(|it| it == name) {
            eprintln!("bench: {name}");
            figures.extend(measure());
        }
    }
    figures.extend(size());
    print(&figures);
    let document = json!({
        "machine": machine(),
        "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
    });
    let text = serde_json::to_string_pretty(&document).unwrap_or_default();
    if let Err(error) = fs::write(&path, text) {
        eprintln!("bench: {}: {error}", path.display());
    }
    let missed = figures
        .iter()
        .filter(|figure| figure.reached == Some(false))
        .count();
    println!(
        "\n{missed} goals missed; all samples are in {}",
        path.display()
    );
    ExitCode::SUCCESS
}

fn size() -> Option<Figure> {
    let bytes = fs::metadata(end_to_end::welkin()).ok()?.len();
    let mb = f64::from(u32::try_from(bytes / 1000).ok()?) / 1000.0;
    Some(Figure::new("size of the binary", "MB", vec![mb]).goal("under 35 MB", mb < 35.0))
}

fn machine() -> String {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let model = read("/proc/cpuinfo");
    let model = model
        .lines()
        .find(|line| line.starts_with("model name"))
        .unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!(
        "{cores} cores{}, Linux {}",
        model.replace("model name\t", ""),
        read("/proc/sys/kernel/osrelease").trim()
    )
}

fn print(figures: &[Figure]) {
    println!("{}\n", machine());
    println!(
        "{:<58} {:>9} {:>9} {:>9}  {:<8} goal",
        "what", "least", "median", "worst", ""
    );
    for figure in figures {
        let least = figure.samples.iter().copied().fold(f64::NAN, f64::min);
        let mark = match figure.reached {
            Some(true) => "reached",
            Some(false) => "MISSED",
            None => "",
        };
        println!(
            "{:<58} {least:>9.2} {:>9.2} {:>9.2}  {:<8} {} {mark}",
            figure.what,
            figure.median(),
            figure.worst(),
            format!("{} n={}", figure.unit, figure.samples.len()),
            figure.goal,
        );
    }
}
