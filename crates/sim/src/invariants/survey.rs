//! What a cloud looks like that was healed: everybody's answers, and the truth.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use wire::call::{AppList, Apps, Inspect, Inspection, NodeList, Nodes, ProblemCode, Response};
use wire::disk::Table;
use wire::fact::ObjectFacts;
use wire::id::{AppId, NodeId, ObjectId, UnixMillis};
use wire::peer::AppRecord;
use wire::spec::{AppSpec, Restart};
use wire::tenancy::{StoredSeat, majority};

use super::one_run::JOB;
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
        /// When it has ended.
        kind: Kind,
    },
}

/// When an app has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// When somebody ends it.
    Always,
    /// The same: it is started again after every failure, and does not end without one.
    Retried,
    /// Perhaps by itself.
    Single,
    /// When it has done its work, which is done once.
    Job,
    /// The same, and then there is no such app any more.
    Once,
    /// It runs again and again, by a schedule.
    Timed,
}

impl Kind {
    /// Whether it goes on until somebody ends it.
    #[must_use]
    pub fn lasts(self) -> bool {
        match self {
            Self::Always | Self::Retried | Self::Timed => true,
            Self::Single | Self::Job | Self::Once => false,
        }
    }
}

impl Wish {
    /// What an inspection says that an app is.
    #[must_use]
    pub fn of(inspection: Option<&Inspection>) -> Self {
        inspection.map_or(Self::Absent, |it| Self::Present {
            replicas: it.spec.replicas,
            stopped: it.stopped,
            kind: kind_of(&it.spec),
        })
    }

    /// When the app has ended, if there is one.
    #[must_use]
    pub fn kind(self) -> Option<Kind> {
        match self {
            Self::Absent => None,
            Self::Present { kind, .. } => Some(kind),
        }
    }
}

fn kind_of(spec: &AppSpec) -> Kind {
    match spec.restart {
        _ if spec.schedule.is_some() => Kind::Timed,
        _ if spec.remove_when_done => Kind::Once,
        Restart::Always => Kind::Always,
        Restart::OnFailure { retries_max: None } => Kind::Retried,
        Restart::OnFailure { .. } => Kind::Single,
        Restart::No if spec.program.environment.contains_key(JOB) => Kind::Job,
        Restart::No => Kind::Single,
    }
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
    /// Some node was removed from the cloud, perhaps with objects that run once.
    pub has_removed: bool,
    /// Nobody has set a clock.
    pub is_steady: bool,
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
    /// What a right wall clock showed then.
    pub wall: UnixMillis,
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
    /// The same of votes on apps that never run twice, by their numbers.
    pub seats: BTreeMap<u64, StoredSeat>,
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
            wall: world.wall(),
            names: world
                .machines()
                .map(|it| world.name(it).to_string())
                .collect(),
            nodes: BTreeMap::new(),
            apps: BTreeMap::new(),
            inspections: BTreeMap::new(),
            running: running(world, &up),
            records: records(world, &up),
            seats: seats(world, &up),
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

    /// An app, as those who are up describe it; they may not agree.
    pub fn described<'a>(
        &'a self,
        name: &'a str,
    ) -> impl Iterator<Item = (MachineId, &'a Inspection)> {
        let of_it = self
            .inspections
            .iter()
            .filter(move |((_, app), _)| app == name);
        of_it.filter_map(|((machine, _), it)| Some((*machine, it.as_ref().ok()?.as_ref()?)))
    }

    /// The facts of all objects on nodes that are up, as their hosts tell them to whoever asked
    /// first.
    pub fn objects(&self) -> impl Iterator<Item = &ObjectFacts> {
        let first = self.apps.values().flatten().next();
        first.into_iter().flat_map(|it| &it.objects)
    }

    /// Nothing of an app runs or will: it is not there, was stopped, or has done its work.
    #[must_use]
    pub fn is_over(&self, name: &str) -> bool {
        let mut own = self.objects().filter(|it| it.app_name == name).peekable();
        let has_objects = own.peek().is_some();
        let is_still = own.all(|it| !it.phase.is_alive());
        match super::acknowledged::agreed(self, name) {
            None => false,
            Some(Wish::Absent) => true,
            Some(Wish::Present { stopped, kind, .. }) => {
                // A slot for which no node is found has yet to run.
                let have_run = has_objects && super::wanted_count::missing(self, name).is_none();
                is_still && (stopped || (have_run && !kind.lasts()))
            }
        }
    }

    /// Whether objects of an app come and go every few seconds, so that no two answers are of the same
    /// moment: it has a schedule.
    #[must_use]
    pub fn is_in_flux(&self, name: &str) -> bool {
        let wish = super::acknowledged::agreed(self, name);
        wish.and_then(Wish::kind) == Some(Kind::Timed)
    }

    /// Whether an app never runs twice, and so not at all now: most of those who vote on it are not
    /// up.
    #[must_use]
    pub fn lacks_votes(&self, name: &str) -> bool {
        let app = AppId::of_name(name);
        let mut records = self.records.iter().map(|(_, record)| record);
        let Some(record) = records.find(|record| record.app == app) else {
            return false;
        };
        let votes = self.seats.values();
        let of_it = votes.filter(|it| it.app == app && it.born == record.wanted.born);
        let known = of_it.filter_map(|it| it.first.as_ref());
        let newest = known
            .chain(&record.wanted.tenancy)
            .max_by_key(|tenancy| tenancy.generation);
        newest.is_some_and(|tenancy| {
            let seats = tenancy.seats.iter();
            let present = seats.filter(|seat| self.seats.contains_key(&seat.number));
            present.count() < majority(tenancy.seats.len())
        })
    }

    /// Apps that have done their work and are to remove themselves.
    #[must_use]
    pub fn lingering(&self) -> BTreeSet<String> {
        // What was stopped is kept, to be started again.
        let is_once = |name: &String| {
            matches!(
                super::acknowledged::agreed(self, name),
                Some(Wish::Present {
                    stopped: false,
                    kind: Kind::Once,
                    ..
                })
            )
        };
        let names = self.expected.apps.keys();
        let over = names.filter(|name| is_once(name) && self.is_over(name));
        // An object on a node that is away, or will never be back, may not have ended.
        let is_whole = self.expected.up == self.expected.members && !self.expected.has_removed;
        over.filter(|_| is_whole).cloned().collect()
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

fn seats(world: &World, up: &[MachineId]) -> BTreeMap<u64, StoredSeat> {
    let rows = up.iter().flat_map(|machine| world.rows(*machine));
    let seat = |(table, key, value): (Table, Vec<u8>, Vec<u8>)| {
        let key = key.try_into().ok().filter(|_| table == Table::Seats)?;
        Some((u64::from_be_bytes(key), wire::disk::unseal(&value).ok()?))
    };
    rows.filter_map(seat).collect()
}
