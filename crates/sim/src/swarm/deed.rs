//! What people do with apps.

use std::collections::{BTreeMap, BTreeSet};

use rand::RngExt;
use rand::seq::IndexedRandom;
use wire::call::{
    Apply, Expected, Inspect, Kill, Remove, Request, Run, Scale, StartApp, StopApp, Wait,
};
use wire::disk::Table;
use wire::health::{Check, Health};
use wire::id::AppId;
use wire::job::Schedule;
use wire::peer::AppRecord;
use wire::spec::{AppSpec, OnPartition, Placement, Program, Resources, Restart, Stop, TAKEOVER_MS};

use crate::invariants::capacity::PORT;
use crate::invariants::one_at_a_time::TIMED;
use crate::invariants::one_run::JOB;
use crate::invariants::survey::{Kind, Wish};
use crate::world::{MachineId, World};

/// Something that a person asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// A new app; `starts` when its program can be started.
    Run {
        replicas: u32,
        kind: Kind,
        starts: bool,
    },
    Scale(u32),
    /// What its objects run, and nothing else.
    Update {
        roll_back: bool,
    },
    Stop,
    /// One of its objects.
    StopOne(u32),
    Start,
    Remove {
        force: bool,
    },
    /// One of its objects, or all.
    Kill {
        index: Option<u32>,
        signal: u8,
    },
    Wait,
}

/// Something that may be asked of an app that may be one of `wishes`, and ever was one of `past`.
pub(super) fn choose(
    world: &mut World,
    (wishes, past): (&BTreeSet<Wish>, &BTreeSet<Wish>),
) -> Deed {
    let may_be_absent = wishes.contains(&Wish::Absent);
    let dice = world.random().random_range(0..24);
    if may_be_absent && (wishes.len() == 1 || dice < 10) {
        return any_run(world);
    }
    // What runs once is not started again, or nobody could tell whether it ran twice.
    let may_be = |kind: Kind| past.iter().any(|it| it.kind() == Some(kind));
    let is_job = may_be(Kind::Job) || may_be(Kind::Once);
    let index = world.random().random_range(0..3);
    match dice {
        0..5 if !is_job => Deed::Scale(world.random().random_range(0..4)),
        5..8 if !is_job => Deed::Update {
            roll_back: world.random().random(),
        },
        8..11 if !is_job => Deed::Stop,
        11..14 if !is_job => Deed::Start,
        14..16 if !is_job => {
            let signal = *[9, 15].choose(world.random()).unwrap_or(&9);
            let one: bool = world.random().random();
            let index = one.then_some(index);
            Deed::Kill { index, signal }
        }
        // A policy that does not start again what a person has stopped would leave a gap.
        16 if !is_job && !may_be(Kind::Retried) => Deed::StopOne(index),
        17 | 18 => Deed::Wait,
        19 | 20 => Deed::Remove { force: false },
        21..24 => Deed::Remove { force: true },
        _ => Deed::Wait,
    }
}

/// Some new app.
pub(super) fn any_run(world: &mut World) -> Deed {
    let kind = match world.random().random_range(0..14) {
        0..5 => Kind::Always,
        5 | 6 => Kind::Retried,
        7 => Kind::Single,
        8 | 9 => Kind::Job,
        10 | 11 => Kind::Once,
        _ => Kind::Timed,
    };
    let replicas = world.random().random_range(1..4);
    Deed::Run {
        replicas: if kind == Kind::Timed { 1 } else { replicas },
        kind,
        starts: world.random().random_range(0..16) > 0,
    }
}

pub(super) fn request(world: &mut World, name: &str, deed: Deed) -> Request {
    let target = name.to_string();
    match deed {
        Deed::Run {
            replicas,
            kind,
            starts,
        } => Request::Run(Run {
            spec: spec(world, name, (replicas, kind, starts)),
            attach: kind == Kind::Once && world.random().random(),
        }),
        Deed::Scale(replicas) => Request::Scale(Scale { target, replicas }),
        Deed::Update { roll_back } => update(world, name, roll_back),
        Deed::Stop => Request::StopApp(StopApp {
            target,
            grace_ms: None,
        }),
        Deed::StopOne(index) => Request::StopApp(StopApp {
            target: format!("{target}/{index}"),
            grace_ms: Some(500),
        }),
        Deed::Start => Request::StartApp(StartApp { target }),
        Deed::Remove { force } => Request::Remove(Remove { target, force }),
        Deed::Kill { index, signal } => Request::Kill(Kill {
            target: index.map_or(target.clone(), |index| format!("{target}/{index}")),
            signal,
        }),
        Deed::Wait => Request::Wait(Wait { target }),
    }
}

/// Made of the newest wish on any disk: refused where another one holds.
fn update(world: &mut World, name: &str, roll_back: bool) -> Request {
    let app = AppId::of_name(name);
    let machines: Vec<MachineId> = world.machines().collect();
    let rows = machines.iter().flat_map(|it| world.rows(*it));
    let records = rows.filter(|(table, _, _)| *table == Table::Records);
    let newest = records
        .filter_map(|(_, _, value)| wire::disk::unseal::<AppRecord>(&value).ok())
        .filter(|record| record.app == app)
        .map(|record| record.wanted)
        .max_by_key(|wanted| wanted.version);
    let target = name.to_string();
    let Some((version, mut spec)) = newest.and_then(|it| Some((it.version, it.spec?))) else {
        return Request::Inspect(Inspect { target });
    };
    let number: u64 = world.random().random();
    let environment = &mut spec.program.environment;
    environment.insert("UPDATE".to_string(), format!("{number:x}"));
    Request::Apply(Apply {
        spec: spec.into(),
        expected: Expected::Version(version),
        roll_back,
    })
}

fn spec(world: &mut World, name: &str, (replicas, kind, starts): (u32, Kind, bool)) -> AppSpec {
    let words = program(world, kind, starts);
    let is_job = matches!(kind, Kind::Job | Kind::Once);
    let mut environment = BTreeMap::new();
    if is_job {
        let number: u64 = world.random().random();
        environment.insert(JOB.to_string(), format!("{number:x}"));
    }
    let schedule = (kind == Kind::Timed).then(|| {
        let number: u64 = world.random().random();
        environment.insert(TIMED.to_string(), format!("{number:x}"));
        schedule(world)
    });
    let restart = match kind {
        Kind::Always => Restart::Always,
        Kind::Retried => Restart::OnFailure { retries_max: None },
        Kind::Single | Kind::Timed if world.random().random() => Restart::OnFailure {
            retries_max: Some(2),
        },
        Kind::Single | Kind::Job | Kind::Once | Kind::Timed => Restart::No,
    };
    let cpu_millis = match world.random().random_range(0..8) {
        0 => 1500,
        dice => dice % 3 * 100,
    };
    let mut ports = BTreeMap::new();
    if world.random().random_range(0..6) == 0 {
        let port: u16 = world.random().random_range(8000..8002);
        ports.insert("http".to_string(), port);
        environment.insert(PORT.to_string(), port.to_string());
    }
    let never_twice = matches!(kind, Kind::Always | Kind::Single);
    let on_partition = if never_twice && world.random().random_range(0..4) == 0 {
        let takeover_ms = *[6_000, TAKEOVER_MS]
            .choose(world.random())
            .unwrap_or(&6_000);
        OnPartition::Once { takeover_ms }
    } else {
        OnPartition::Available
    };
    let after = after(world, name, kind);
    let is_bounded = kind == Kind::Timed && world.random().random_range(0..3) == 0;
    let deadline_ms = is_bounded.then_some(4_000);
    let health = (world.random().random_range(0..4) == 0).then(|| health().into());
    AppSpec {
        name: name.to_string(),
        replicas,
        program: Program {
            arguments: words.iter().map(|word| (*word).to_string()).collect(),
            environment,
            ..Program::default()
        },
        ports,
        resources: Resources {
            cpu_millis,
            memory_bytes: world.random().random_range(1..5) * (64 << 20),
            processes: 16,
        },
        restart,
        placement: placement(world),
        stop: Stop {
            grace_ms: 2000,
            ..Stop::default()
        },
        remove_when_done: kind == Kind::Once,
        on_partition,
        health,
        after,
        schedule,
        deadline_ms,
    }
}

/// Names of apps after which this one comes, whether or not they are there. What is to run once does
/// not: nobody could say when it is over.
fn after(world: &mut World, name: &str, kind: Kind) -> BTreeSet<String> {
    if matches!(kind, Kind::Job | Kind::Once) || world.random().random_range(0..4) > 0 {
        return BTreeSet::new();
    }
    let count = world.random().random_range(1..3);
    let others = (0..count).map(|_| format!("app{}", world.random().random_range(0..5)));
    others.filter(|other| other != name).collect()
}

/// Times that come often.
fn schedule(world: &mut World) -> Schedule {
    let interval_ms = world.random().random_range(1..12) * 1000;
    match world.random().random_range(0..8) {
        0 => Schedule::Cron {
            expression: "* * * * *".to_string(),
        },
        _ => Schedule::Every { interval_ms },
    }
}

/// A check whose verdict comes soon.
fn health() -> Health {
    Health {
        interval_ms: 1000,
        start_period_ms: 2000,
        ..Health::new(Check::Tcp { port: 80 })
    }
}

fn program(world: &mut World, kind: Kind, starts: bool) -> &'static [&'static str] {
    let dice = world.random().random_range(0..6);
    match (kind, dice) {
        _ if !starts => &["missing"],
        (Kind::Job | Kind::Once, 0) => &["work", "2", "3"],
        (Kind::Job | Kind::Once, 1) => &["work", "9"],
        (Kind::Job | Kind::Once, _) => &["work", "4"],
        (Kind::Timed, 0) => &["work", "2", "3"],
        (Kind::Timed, 1) => &["serve"],
        (Kind::Timed, _) => &["work", "3"],
        (Kind::Always, 0) => &["work", "5"],
        (Kind::Always | Kind::Retried | Kind::Single, 1) => &["crash", "900"],
        (Kind::Always | Kind::Retried | Kind::Single, 2) => &["deaf"],
        (Kind::Always | Kind::Retried | Kind::Single, _) => &["serve"],
    }
}

fn placement(world: &mut World) -> Placement {
    let host = match world.random().random_range(0..16) {
        0 => Some(format!("n{}", world.random().random_range(0..5))),
        _ => None,
    };
    let constraint = match world.random().random_range(0..16) {
        0 => "label.tier=front".parse().ok(),
        1 => "label.tier!=front".parse().ok(),
        _ => None,
    };
    Placement {
        host,
        constraints: constraint.into_iter().collect(),
        spread: world.random().random(),
    }
}
