//! The calls of a scenario, as the command line has them.
//!
//! `run APP [x N] [restart POLICY] [cpu N] [memory N] [port NAME=N] [host NODE] [where CONSTRAINT]
//! [grace TIME] [every SECONDS] [at SECONDS] [cron EXPRESSION] [deadline SECONDS] [spread] [once] -- PROGRAM…`, `apply [-k | -n] APP …` with the same words, `ps [-a]`, `nodes`, `inspect APP`, `explain APP`,
//! `resolve APP`, `stop APP`, `start APP`, `scale APP N`, `rm [-f] APP`, `wait APP`,
//! `signal APP N`, `drain NODE`, `resume NODE`, `label NODE K=V`, `remove [-f] NODE`, `down`,
//! `doctor`, `info`. A moment is in seconds since the world began, an expression has `_` for spaces.

use std::collections::BTreeMap;

use crate::world::EPOCH_MS;
use wire::call::{
    AppList, Apply, CloudInfo, Doctor, Expected, Explain, Inspect, Kill, NodeDown, NodeDrain,
    NodeLabel, NodeList, NodeRemove, NodeResume, Remove, Request, Resolve, Run, Scale, StartApp,
    StopApp, Wait,
};
use wire::health::{Check, Health};
use wire::id::UnixMillis;
use wire::job::Schedule;
use wire::spec::{
    AppSpec, OnPartition, Placement, Program, Resources, Restart, Stop, TAKEOVER_MS, parse_amount,
};

/// Reads a call.
pub(super) fn parse(words: &[&str]) -> Result<Request, String> {
    let text = |word: &&str| (*word).to_string();
    let (verb, rest) = words.split_first().ok_or("nothing to do")?;
    Ok(match (*verb, rest) {
        ("run", [name, rest @ ..]) => run(name, rest)?.into(),
        ("apply", [flags @ ("-k" | "-n"), name, rest @ ..]) => apply(flags, name, rest)?.into(),
        ("apply", [name, rest @ ..]) => apply("", name, rest)?.into(),
        ("ps", flags) => AppList {
            all: flags.contains(&"-a"),
            target: None,
        }
        .into(),
        ("nodes", []) => NodeList {}.into(),
        ("info", []) => CloudInfo {}.into(),
        ("doctor", []) => Doctor {}.into(),
        ("down", []) => NodeDown {}.into(),
        ("inspect", [target]) => Inspect {
            target: text(target),
        }
        .into(),
        ("explain", [target]) => Explain {
            target: text(target),
        }
        .into(),
        ("resolve", [target]) => Resolve {
            target: text(target),
        }
        .into(),
        ("stop", [target]) => StopApp {
            target: text(target),
            grace_ms: None,
        }
        .into(),
        ("start", [target]) => StartApp {
            target: text(target),
        }
        .into(),
        ("wait", [target]) => Wait {
            target: text(target),
        }
        .into(),
        ("scale", [target, replicas]) => Scale {
            target: text(target),
            replicas: number(replicas)?,
        }
        .into(),
        ("signal", [target, signal]) => Kill {
            target: text(target),
            signal: number(signal)?,
        }
        .into(),
        ("rm", [flags @ .., target]) => Remove {
            target: text(target),
            force: flags.contains(&"-f"),
        }
        .into(),
        _ => node_call(words)?,
    })
}

fn node_call(words: &[&str]) -> Result<Request, String> {
    let text = |word: &&str| (*word).to_string();
    Ok(match words {
        ["drain", flags @ .., node] => NodeDrain {
            node: text(node),
            force: flags.contains(&"-f"),
        }
        .into(),
        ["resume", node] => NodeResume { node: text(node) }.into(),
        ["remove", flags @ .., node] => NodeRemove {
            node: text(node),
            force: flags.contains(&"-f"),
        }
        .into(),
        ["label", node, label] => {
            let (key, value) = label.split_once('=').ok_or("a label is KEY=VALUE")?;
            NodeLabel {
                node: text(node),
                set: BTreeMap::from([(key.to_string(), value.to_string())]),
                remove: Vec::new(),
            }
            .into()
        }
        _ => return Err(words.join(" ")),
    })
}

fn run(name: &str, words: &[&str]) -> Result<Run, String> {
    let mut halves = words.splitn(2, |word| *word == "--");
    let mut options = halves.next().unwrap_or_default();
    let program = halves.next().unwrap_or_default();
    let mut spec = AppSpec {
        name: name.to_string(),
        replicas: 1,
        program: Program {
            arguments: program.iter().map(|word| (*word).to_string()).collect(),
            ..Program::default()
        },
        ports: BTreeMap::new(),
        resources: Resources::default(),
        restart: Restart::No,
        placement: Placement::default(),
        stop: Stop::default(),
        remove_when_done: false,
        on_partition: OnPartition::Available,
        health: None,
        after: Default::default(),
        schedule: None,
        deadline_ms: None,
    };
    loop {
        options = match options {
            [] => break,
            ["spread", rest @ ..] => {
                spec.placement.spread = true;
                rest
            }
            ["once", rest @ ..] => {
                spec.remove_when_done = true;
                rest
            }
            [key, value, rest @ ..] => {
                set(&mut spec, key, value)?;
                rest
            }
            [other] => return Err((*other).to_string()),
        };
    }
    Ok(Run {
        spec,
        attach: false,
    })
}

/// `-k` keeps what does not come up, `-n` expects that there is no such app.
fn apply(flags: &str, name: &str, words: &[&str]) -> Result<Apply, String> {
    Ok(Apply {
        spec: run(name, words)?.spec.into(),
        expected: match flags {
            "-n" => Expected::Absent,
            _ => Expected::Anything,
        },
        roll_back: flags != "-k",
    })
}

fn set(spec: &mut AppSpec, key: &str, value: &str) -> Result<(), String> {
    let wrong = || format!("{key} {value}");
    match key {
        "x" => spec.replicas = number(value)?,
        "restart" => {
            spec.restart = match value.split_once(':') {
                None if value == "always" => Restart::Always,
                None if value == "on-failure" => Restart::OnFailure { retries_max: None },
                None if value == "no" => Restart::No,
                Some(("on-failure", most)) => Restart::OnFailure {
                    retries_max: Some(number(most)?),
                },
                _ => return Err(wrong()),
            };
        }
        "cpu" => {
            let millis = parse_amount(value).ok_or_else(wrong)?;
            spec.resources.cpu_millis = u32::try_from(millis).map_err(|_large| wrong())?;
        }
        "memory" => {
            let bytes = parse_amount(value).ok_or_else(wrong)? / 1000;
            spec.resources.memory_bytes = u64::try_from(bytes).map_err(|_large| wrong())?;
        }
        "port" => {
            let (name, port) = value.split_once('=').ok_or_else(wrong)?;
            spec.ports.insert(name.to_string(), number(port)?);
        }
        "on-partition" => {
            spec.on_partition = match value {
                "available" => OnPartition::Available,
                "once" => OnPartition::Once {
                    takeover_ms: TAKEOVER_MS,
                },
                _ => return Err(wrong()),
            };
        }
        "every" => {
            let interval_ms = number::<u64>(value)? * 1000;
            spec.schedule = Some(Schedule::Every { interval_ms });
        }
        "deadline" => spec.deadline_ms = Some(number::<u64>(value)? * 1000),
        "at" => {
            let at = UnixMillis(EPOCH_MS + number::<u64>(value)? * 1000);
            spec.schedule = Some(Schedule::At { at });
        }
        "cron" => {
            let expression = value.replace('_', " ");
            spec.schedule = Some(Schedule::Cron { expression });
        }
        "after" => spec.after = value.split(',').map(str::to_string).collect(),
        // Seconds between two probes, and of the start period.
        "health" => {
            let mut health = Health::new(Check::Tcp { port: 80 });
            health.interval_ms = number::<u32>(value)? * 1000;
            health.start_period_ms = health.interval_ms;
            spec.health = Some(health.into());
        }
        "host" => spec.placement.host = Some(value.to_string()),
        "where" => {
            let constraint = value
                .parse()
                .map_err(|error: wire::spec::ConstraintError| error.to_string())?;
            spec.placement.constraints.push(constraint);
        }
        "grace" => {
            let millis = value.strip_suffix("ms").ok_or_else(wrong)?;
            spec.stop.grace_ms = number(millis)?;
        }
        _ => return Err(wrong()),
    }
    Ok(())
}

fn number<T: std::str::FromStr>(text: &str) -> Result<T, String> {
    text.parse()
        .map_err(|_not_one| format!("{text} is no number"))
}
