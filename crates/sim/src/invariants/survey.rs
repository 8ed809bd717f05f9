//! What a cloud looks like that was healed: everybody's answers, and the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use wire::call::{AppList, Apps, Inspect, Inspection, NodeList, Nodes, ProblemCode, Response};
use wire::disk::Table;
use wire::id::{NodeId, ObjectId};
use wire::peer::AppRecord;

use crate::world::{Call, MachineId, Outcome, World};

/// How long the answers may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// What a person wants of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    /// It does not exist.
    Absent,
    /// It exists.
    Present {
        /// How many objects.
        replicas: u32,
        /// Stopped by a person.
        stopped: bool,
        /// It goes on until somebody ends it; otherwise its objects may have ended by themselves.
        lasting: bool,
    },
}

/// What must be the case.
#[derive(Debug, Clone, Default)]
pub struct Expected {
    /// Everybody who belongs to the cloud and is up.
    pub up: BTreeSet<NodeId>,
    /// Everybody who belongs to the cloud.
    pub members: BTreeSet<NodeId>,
    /// For each app, all that it may be: more than one when nobody was told which.
    pub apps: BTreeMap<String, BTreeSet<Wish>>,
}

/// A program that truly runs.
#[derive(Debug, Clone)]
pub struct Running {
    /// Where.
    pub machine: MachineId,
    /// Of which object.
    pub object: ObjectId,
    /// Of which app.
    pub app: String,
    /// Which of its objects.
    pub index: u32,
}

/// What everybody says.
#[derive(Debug)]
pub struct Survey {
    /// What must be the case.
    pub expected: Expected,
    /// The name of each machine in the order of [`MachineId`].
    pub names: Vec<String>,
    /// The nodes, as each node that is up lists them; `None` when it did not answer.
    pub nodes: BTreeMap<MachineId, Option<Nodes>>,
    /// The apps, as each node that is up lists them.
    pub apps: BTreeMap<MachineId, Option<Apps>>,
    /// Each app, as each node that is up describes it: nothing when there is no such app.
    pub inspections: BTreeMap<(MachineId, String), Result<Option<Inspection>, String>>,
    /// What truly runs on members that are up.
    pub running: Vec<Running>,
    /// Records that are durable on members that are up.
    pub records: Vec<(MachineId, AppRecord)>,
}

impl Survey {
    /// Asks everybody. Takes a little time in the world.
    pub fn take(world: &mut World, expected: Expected) -> Self {
        let up: Vec<MachineId> = expected
            .up
            .iter()
            .filter_map(|node| world.machine_of(*node))
            .collect();
        let mut calls: Vec<Call> = Vec::new();
        let mut asked = Vec::new();
        for machine in &up {
            let nodes = world.call(*machine, NodeList {});
            let list = AppList {
                all: true,
                target: None,
            };
            let apps = world.call(*machine, list);
            let inspect = |name: &String| Inspect {
                target: name.clone(),
            };
            let inspections: Vec<(String, Call)> = expected
                .apps
                .keys()
                .map(|name| (name.clone(), world.call(*machine, inspect(name))))
                .collect();
            calls.extend([nodes, apps]);
            calls.extend(inspections.iter().map(|(_, call)| *call));
            asked.push((*machine, nodes, apps, inspections));
        }
        let open = |world: &World| calls.iter().all(|it| *world.outcome(*it) != Outcome::Open);
        world.pass_until(PATIENCE, open);
        let mut survey = Self {
            names: world
                .machines()
                .map(|it| world.name(it).to_string())
                .collect(),
            nodes: BTreeMap::new(),
            apps: BTreeMap::new(),
            inspections: BTreeMap::new(),
            running: running(world, &up),
            records: records(world, &up),
            expected,
        };
        for (machine, nodes, apps, inspections) in asked {
            survey.nodes.insert(machine, nodes_of(world.outcome(nodes)));
            survey.apps.insert(machine, apps_of(world.outcome(apps)));
            for (name, call) in inspections {
                let inspection = inspection_of(world.outcome(call));
                survey.inspections.insert((machine, name), inspection);
            }
        }
        for call in calls {
            world.abandon(call);
        }
        survey
    }

    /// The name of a machine.
    #[must_use]
    pub fn name(&self, machine: MachineId) -> &str {
        self.names.get(machine.0).map_or("?", String::as_str)
    }
}

impl fmt::Display for Survey {
    /// Every record that is durable somewhere, and what truly runs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut records: Vec<_> = self.records.iter().collect();
        records.sort_by_key(|(machine, record)| (record.app, *machine));
        for (machine, record) in records {
            let wanted = match &record.wanted.spec {
                None => "removed".to_string(),
                Some(spec) if record.wanted.stopped => format!("{} stopped", spec.name),
                Some(spec) => format!("{} x{}", spec.name, spec.replicas),
            };
            let version = |it: wire::id::Version| {
                format!(
                    "{}.{}.{:04x}",
                    it.millis % 1_000_000,
                    it.counter,
                    it.node >> 48
                )
            };
            let (who, app) = (self.name(*machine), record.app.short());
            let (is, wish) = (version(record.version), version(record.wanted.version));
            write!(
                f,
                "{who} keeps {app} {wanted}, written {is}, wished {wish}:"
            )?;
            for it in &record.objects {
                let (id, phase) = (it.object.short(), it.phase.word());
                let halted = if it.halted { " halted" } else { "" };
                write!(
                    f,
                    " {}={id} {phase}{halted} on {};",
                    it.index,
                    it.node.short()
                )?;
            }
            writeln!(f)?;
        }
        for ((machine, app), inspection) in &self.inspections {
            if let Ok(Some(it)) = inspection
                && let Some(trouble) = &it.trouble
            {
                writeln!(
                    f,
                    "{} sees trouble with {app}: {trouble}",
                    self.name(*machine)
                )?;
            }
        }
        for it in &self.running {
            let (on, id) = (self.name(it.machine), it.object.short());
            writeln!(f, "{}/{} {id} runs on {on}", it.app, it.index)?;
        }
        Ok(())
    }
}

fn running(world: &World, up: &[MachineId]) -> Vec<Running> {
    let mut running = Vec::new();
    for machine in up {
        for (object, launch) in world.programs(*machine) {
            running.push(Running {
                machine: *machine,
                object,
                app: launch.app_name.clone(),
                index: launch.index,
            });
        }
    }
    running
}

fn records(world: &World, up: &[MachineId]) -> Vec<(MachineId, AppRecord)> {
    let mut records = Vec::new();
    for machine in up {
        for (table, _, value) in world.rows(*machine) {
            if table == Table::Records
                && let Ok(record) = wire::disk::unseal(&value)
            {
                records.push((*machine, record));
            }
        }
    }
    records
}

fn answer(outcome: &Outcome) -> Option<&Response> {
    match outcome {
        Outcome::Answered(result) => result.as_ref().as_ref().ok(),
        Outcome::Open | Outcome::Broken => None,
    }
}

fn nodes_of(outcome: &Outcome) -> Option<Nodes> {
    answer(outcome)
        .cloned()
        .and_then(<NodeList as wire::call::Call>::response)
}

fn apps_of(outcome: &Outcome) -> Option<Apps> {
    answer(outcome)
        .cloned()
        .and_then(<AppList as wire::call::Call>::response)
}

fn inspection_of(outcome: &Outcome) -> Result<Option<Inspection>, String> {
    match outcome {
        Outcome::Open => Err("no answer".to_string()),
        Outcome::Broken => Err("broken off".to_string()),
        Outcome::Answered(result) => match &**result {
            Ok(Response::Inspect(inspection)) => Ok(Some(inspection.clone())),
            Err(problem) if problem.code == ProblemCode::NotFound => Ok(None),
            Err(problem) => Err(problem.to_string()),
            Ok(_) => Err("an answer to another call".to_string()),
        },
    }
}
