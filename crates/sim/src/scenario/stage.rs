//! The stage of a scenario: its world, and what each line does to it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use wire::call::{AppList, Invite, NodeList, Request, Response};
use wire::peer::Ticket;

use super::{calls, print};
use crate::latency::Matrix;
use crate::world::{Call, Hardware, JoinOutcome, MachineId, Outcome, World};

/// How long an answer may take before the story goes on without.
const PATIENCE: Duration = Duration::from_secs(60);
/// Events that are told when a scenario does not say otherwise.
const SHOWN: [&str; 15] = [
    "run.",
    "app.undone",
    "object.healthy",
    "object.running",
    "object.unhealthy",
    "object.waiting",
    "object.ended",
    "object.failed",
    "object.retired",
    "node.unreachable",
    "node.up",
    "node.down",
    "node.removed",
    "alarm",
    "violation",
];

/// See the module.
#[derive(Debug)]
pub(super) struct Stage {
    world: World,
    names: BTreeMap<String, MachineId>,
    tickets: BTreeMap<String, String>,
    later: BTreeMap<String, Call>,
    /// How much of the journal was told.
    told: u64,
    shown: Vec<String>,
    /// What the short ids of objects and nodes mean.
    objects: BTreeMap<String, String>,
}

type Lines = Result<Vec<String>, String>;

impl Stage {
    pub(super) fn new() -> Self {
        Self {
            world: World::new(1, Matrix::cities()),
            names: BTreeMap::new(),
            tickets: BTreeMap::new(),
            later: BTreeMap::new(),
            told: 0,
            shown: SHOWN.iter().map(|kind| (*kind).to_string()).collect(),
            objects: BTreeMap::new(),
        }
    }

    /// Does what a line says; what happened, a line each.
    pub(super) fn perform(&mut self, command: &str) -> Vec<String> {
        let words: Vec<&str> = command.split_whitespace().collect();
        let answer = self.act(&words);
        let mut lines = self.events();
        match answer {
            Ok(said) => lines.extend(said),
            Err(why) => lines.push(format!("not understood: {why}")),
        }
        lines
    }

    fn act(&mut self, words: &[&str]) -> Lines {
        let nothing = Ok(Vec::new());
        match words {
            ["machine", name, rest @ ..] => self.machine(name, rest).map(|_| Vec::new()),
            ["cloud", names @ ..] => self.cloud(names),
            ["found", name] => {
                let machine = self.ensure(name);
                self.world.found(machine);
                self.world.pass(Duration::from_millis(100));
                nothing
            }
            ["invite", name, rest @ ..] => self.invite(name, rest),
            ["forge", ticket, "as", name] => self.forge(ticket, name),
            ["join", name, "with", ticket] => self.join(name, ticket),
            ["on", name, call @ ..] => {
                let call = self.call(name, call)?;
                Ok(self.answer(call, PATIENCE))
            }
            ["later", word, "on", name, call @ ..] => {
                let call = self.call(name, call)?;
                self.later.insert((*word).to_string(), call);
                nothing
            }
            ["answer", word, within @ ..] => {
                let within = match within {
                    ["within", time] => duration(time)?,
                    _ => PATIENCE,
                };
                let call = self.later.remove(*word).ok_or("nobody asked that")?;
                Ok(self.answer(call, within))
            }
            ["abandon", word] => {
                let call = self.later.remove(*word).ok_or("nobody asked that")?;
                self.world.abandon(call);
                nothing
            }
            ["show", kinds @ ..] => {
                self.shown = kinds.iter().map(|kind| (*kind).to_string()).collect();
                nothing
            }
            ["pass", time] => {
                self.world.pass(duration(time)?);
                nothing
            }
            ["until", app, "runs", count, "on", name, "within", time] => {
                self.until(app, count, name, duration(time)?)
            }
            _ => self.trouble(words).map(|()| Vec::new()),
        }
    }

    fn trouble(&mut self, words: &[&str]) -> Result<(), String> {
        match words {
            ["heal"] => self.world.heal(),
            ["crash", name] => {
                let machine = self.find(name)?;
                self.world.crash(machine);
            }
            ["kill", name] => {
                let machine = self.find(name)?;
                self.world.kill_daemon(machine);
            }
            ["end", name] => {
                let machine = self.find(name)?;
                self.world.end_daemon(machine);
            }
            ["shut", name] => {
                let machine = self.find(name)?;
                self.world.shut_down(machine);
            }
            ["start", name] => {
                let machine = self.find(name)?;
                self.world.start(machine);
            }
            ["freeze", name] => {
                let machine = self.find(name)?;
                self.world.freeze(machine);
            }
            ["thaw", name] => {
                let machine = self.find(name)?;
                self.world.thaw(machine);
            }
            ["disk", name, state @ ("full" | "works")] => {
                let machine = self.find(name)?;
                self.world.refuse_writes(machine, *state == "full");
            }
            ["clock", name, "ahead", time] => {
                let machine = self.find(name)?;
                self.world.set_wall(machine, duration_ms(time)?);
            }
            ["clock", name, "behind", time] => {
                let machine = self.find(name)?;
                self.world.set_wall(machine, -duration_ms(time)?);
            }
            ["partition", names @ ..] => {
                let mut sides = names.split(|word| *word == "from");
                let (one, other) = (sides.next(), sides.next());
                let (Some(one), Some(other)) = (one, other) else {
                    return Err("partition NAME… from NAME…".to_string());
                };
                for (a, b) in one.iter().flat_map(|a| other.iter().map(move |b| (a, b))) {
                    let (a, b) = (self.find(a)?, self.find(b)?);
                    self.world.cut(a, b);
                    self.world.cut(b, a);
                }
            }
            _ => return Err(words.join(" ")),
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<MachineId, String> {
        let found = self.names.get(name).copied();
        found.ok_or_else(|| format!("there is no machine {name}"))
    }

    fn ensure(&mut self, name: &str) -> MachineId {
        match self.find(name) {
            Ok(machine) => machine,
            Err(_) => self.add(Hardware::ordinary(name)),
        }
    }

    fn add(&mut self, mut hardware: Hardware) -> MachineId {
        let name = hardware.name.clone();
        // Machines whose place is not told are each in another city.
        if hardware.place == 0 {
            hardware.place = self.names.len() % self.world.matrix().places();
        }
        let machine = self.world.add(hardware);
        self.names.insert(name, machine);
        machine
    }

    fn machine(&mut self, name: &str, mut rest: &[&str]) -> Result<MachineId, String> {
        let mut hardware = Hardware::ordinary(name);
        while let [key, value, more @ ..] = rest {
            rest = more;
            let wrong = || format!("{key} {value}");
            let amount = wire::spec::parse_amount(value);
            match *key {
                "in" => hardware.place = self.world.matrix().find(value).ok_or_else(wrong)?,
                "cpu" => {
                    let millis = amount.ok_or_else(wrong)?;
                    hardware.cpu_millis = u32::try_from(millis).map_err(|_large| wrong())?;
                }
                "memory" => {
                    let bytes = amount.ok_or_else(wrong)? / 1000;
                    hardware.memory_bytes = u64::try_from(bytes).map_err(|_large| wrong())?;
                }
                "behind" if *value == "router" => hardware.is_hidden = true,
                "arch" => hardware.arch = (*value).to_string(),
                "label" => {
                    let (key, value) = value.split_once('=').ok_or_else(wrong)?;
                    hardware.labels.insert(key.to_string(), value.to_string());
                }
                _ => return Err(wrong()),
            }
        }
        Ok(self.add(hardware))
    }

    fn cloud(&mut self, names: &[&str]) -> Lines {
        let machines: Vec<MachineId> = names.iter().map(|name| self.ensure(name)).collect();
        let [first, others @ ..] = &machines[..] else {
            return Err("a cloud has a machine at least".to_string());
        };
        self.world.found(*first);
        self.world.pass(Duration::from_millis(100));
        let invite = Invite {
            uses: 100,
            ttl_s: 86_400,
            labels: BTreeMap::new(),
        };
        let Ok(Response::Invite(invitation)) = self.world.ask(*first, invite, PATIENCE) else {
            return Err("no ticket".to_string());
        };
        for machine in others {
            let outcome = self.world.join_and_wait(*machine, &invitation.ticket);
            if !matches!(outcome, JoinOutcome::Admitted(_)) {
                return Err(format!("{outcome:?}"));
            }
        }
        for _ in 0..60 {
            self.world.pass(Duration::from_millis(500));
            if machines.iter().all(|it| self.sees(*it) == names.len()) {
                self.world.pass(Duration::from_secs(2));
                // How a cloud comes together is a story of its own.
                self.told = self.world.journal().count();
                return Ok(vec![format!("{} are one cloud", names.join(" "))]);
            }
        }
        Err("they do not find each other".to_string())
    }

    /// How many nodes a node says are up.
    fn sees(&mut self, machine: MachineId) -> usize {
        match self.world.ask(machine, NodeList {}, PATIENCE) {
            Ok(Response::NodeList(list)) => list.nodes.iter().filter(|it| it.state.is_up()).count(),
            Ok(_) | Err(_) => 0,
        }
    }

    fn invite(&mut self, name: &str, rest: &[&str]) -> Lines {
        let machine = self.find(name)?;
        let mut invite = Invite {
            uses: 1,
            ttl_s: 3600,
            labels: BTreeMap::new(),
        };
        let mut called = "ticket".to_string();
        let mut rest = rest;
        while let [key, value, more @ ..] = rest {
            rest = more;
            match *key {
                "uses" => invite.uses = value.parse().map_err(|_not_one| (*value).to_string())?,
                "for" => invite.ttl_s = duration(value)?.as_secs(),
                "as" => called = (*value).to_string(),
                _ => return Err(format!("{key} {value}")),
            }
        }
        match self.world.ask(machine, invite, PATIENCE) {
            Ok(Response::Invite(invitation)) => {
                let uses = invitation.uses;
                self.tickets.insert(called.clone(), invitation.ticket);
                Ok(vec![format!("{called} admits {uses}")])
            }
            Ok(_) => Err("another answer".to_string()),
            Err(problem) => Ok(vec![print::problem(problem.as_ref())]),
        }
    }

    fn forge(&mut self, ticket: &str, name: &str) -> Lines {
        let text = self.tickets.get(ticket).ok_or("there is no such ticket")?;
        let mut ticket = Ticket::from_text(text).map_err(|error| error.to_string())?;
        ticket.body.uses += 1;
        let text = ticket.to_text().map_err(|error| error.to_string())?;
        self.tickets.insert(name.to_string(), text);
        Ok(Vec::new())
    }

    fn join(&mut self, name: &str, ticket: &str) -> Lines {
        let machine = self.ensure(name);
        let text = self.tickets.get(ticket).cloned();
        let outcome = self
            .world
            .join_and_wait(machine, &text.unwrap_or_else(|| ticket.to_string()));
        self.world.pass(Duration::from_secs(3));
        Ok(vec![match outcome {
            JoinOutcome::Admitted(given) => {
                self.names.insert(given.clone(), machine);
                format!("{name} is a member, called {given}")
            }
            JoinOutcome::Refused(problem) => print::problem(Some(&problem)),
            JoinOutcome::NoTicket(why) => format!("no ticket: {why}"),
            JoinOutcome::Unreachable | JoinOutcome::Open => "nobody answers".to_string(),
        }])
    }

    fn call(&mut self, name: &str, words: &[&str]) -> Result<Call, String> {
        let machine = self.find(name)?;
        let request: Request = calls::parse(words)?;
        Ok(self.world.call(machine, request))
    }

    fn answer(&mut self, call: Call, within: Duration) -> Vec<String> {
        let answered = |world: &World| *world.outcome(call) != Outcome::Open;
        self.world.pass_until(within, answered);
        match self.world.outcome(call) {
            Outcome::Open => vec!["no answer".to_string()],
            Outcome::Broken => vec!["broken off".to_string()],
            Outcome::Answered(result) => match &**result {
                Ok(response) => print::response(&self.world, response),
                Err(problem) => vec![print::problem(Some(problem))],
            },
        }
    }

    fn until(&mut self, app: &str, count: &str, name: &str, within: Duration) -> Lines {
        let machine = self.find(name)?;
        let wanted: u32 = count.parse().map_err(|_not_one| count.to_string())?;
        let end = self.world.now() + within;
        loop {
            let list = AppList {
                all: true,
                target: Some(app.to_string()),
            };
            let runs = match self.world.ask(machine, list, PATIENCE) {
                Ok(Response::AppList(apps)) => apps.apps.iter().map(|it| it.running).sum::<u32>(),
                Ok(_) | Err(_) => 0,
            };
            if runs == wanted {
                return Ok(vec![format!("{app} runs {runs}")]);
            }
            if self.world.now() >= end {
                return Ok(vec![format!("{app} runs {runs} after {within:?}")]);
            }
            self.world.pass(Duration::from_millis(250));
        }
    }

    /// What was said since the last line. The same, said by several, is one line.
    fn events(&mut self) -> Vec<String> {
        let mut said: Vec<(String, BTreeSet<String>)> = Vec::new();
        for machine in self.world.machines() {
            let (id, name) = (self.world.node(machine).short(), self.world.name(machine));
            self.objects.insert(id, name.to_string());
        }
        for entry in self.world.journal().since(self.told) {
            if entry.kind == "object.starting" {
                let id = entry.message.clone();
                self.objects.insert(id, entry.subject.clone());
            }
            let is_shown = |kind: &String| entry.kind.starts_with(kind.as_str());
            if !self.shown.iter().any(is_shown) {
                continue;
            }
            let what = print::event(entry, &self.objects);
            match said.iter_mut().find(|(other, _)| *other == what) {
                Some((_, by)) => {
                    by.insert(entry.machine.clone());
                }
                None => said.push((what, BTreeSet::from([entry.machine.clone()]))),
            }
        }
        self.told = self.world.journal().count();
        let line = |(what, by): (String, BTreeSet<String>)| {
            let by: Vec<String> = by.into_iter().collect();
            format!("{}: {what}", by.join(" "))
        };
        said.into_iter().map(line).collect()
    }
}

fn duration_ms(text: &str) -> Result<i64, String> {
    i64::try_from(duration(text)?.as_millis()).map_err(|_large| format!("{text} is too long"))
}

fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let number: u64 = digits
        .parse()
        .map_err(|_not_one| format!("{text} is no time"))?;
    match text.strip_prefix(digits) {
        Some("ms") => Ok(Duration::from_millis(number)),
        Some("s") => Ok(Duration::from_secs(number)),
        Some("m") => Ok(Duration::from_secs(number * 60)),
        _ => Err(format!("{text} is no time")),
    }
}
