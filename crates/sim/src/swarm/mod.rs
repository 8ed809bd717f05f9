//! The swarm: clouds of random size, random calls and random faults; what must never happen is
//! watched throughout, and then everything is healed and must become right in bounded time.
//!
//! One number makes a run, and the same number makes the same run again.

mod model;
mod trouble;

use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::invariants::faults;
use crate::invariants::survey::{Expected, Survey};
use crate::latency::Matrix;
use crate::network::Weather;
use crate::world::{Counts, Hardware, JoinOutcome, MachineId, Off, World};
use model::Model;
use trouble::Trouble;
use wire::call::{Invite, Response};

/// How long nodes have to find each other after a heal.
const MEETING: Duration = Duration::from_secs(15);
/// How often a healed cloud is looked at.
const LOOK: Duration = Duration::from_secs(2);

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many machines.
    pub machines: RangeInclusive<usize>,
    /// Calls and nothing else, so that something is there to be lost.
    pub calm: Duration,
    /// Calls and faults.
    pub chaos: Duration,
    /// By when everything must be right after the heal.
    pub heal: Duration,
    /// Where machines may be.
    pub matrix: Matrix,
    /// How many of the last named events a failure shows.
    pub events: usize,
}

impl Default for Options {
    /// Five to seven machines in cities, about sixty seconds.
    fn default() -> Self {
        Self {
            machines: 5..=7,
            calm: Duration::from_secs(10),
            chaos: Duration::from_secs(30),
            heal: Duration::from_secs(120),
            matrix: Matrix::cities(),
            events: 60,
        }
    }
}

/// What a run was.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// How much happened.
    pub counts: Counts,
    /// How long the world went on.
    pub simulated: Duration,
    /// How long after the heal everything was right.
    pub healed_after: Duration,
    /// Calls that were acknowledged.
    pub acknowledged: u64,
    /// Calls that were refused, or not answered.
    pub refused: u64,
}

/// A run that went wrong.
#[derive(Debug, Clone)]
pub struct Failure {
    /// It makes the same run again.
    pub seed: u64,
    /// What is wrong, in sentences.
    pub what: Vec<String>,
    /// The last named events.
    pub events: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.events)?;
        for what in &self.what {
            writeln!(f, "wrong: {what}")?;
        }
        write!(
            f,
            "seed {} (WELKIN_SEED={} runs it again)",
            self.seed, self.seed
        )
    }
}

impl std::error::Error for Failure {}

/// Many runs.
#[derive(Debug, Clone, Copy, Default)]
pub struct Summary {
    /// How many.
    pub seeds: u64,
    /// How long their worlds went on, together.
    pub simulated: Duration,
    /// The longest time to heal, and its seed.
    pub slowest_heal: (Duration, u64),
    /// Calls that were acknowledged.
    pub acknowledged: u64,
}

/// Runs seed after seed, from `first_seed`, as long as `go_on` says so.
///
/// # Errors
/// The first [`Failure`].
pub fn run_for(
    go_on: impl FnMut(&Summary) -> bool,
    first_seed: u64,
) -> Result<Summary, Box<Failure>> {
    run_with(go_on, first_seed, &Options::default())
}

/// The same, with other options.
///
/// # Errors
/// The first [`Failure`].
pub fn run_with(
    mut go_on: impl FnMut(&Summary) -> bool,
    first_seed: u64,
    options: &Options,
) -> Result<Summary, Box<Failure>> {
    let mut summary = Summary::default();
    let mut seed = first_seed;
    while go_on(&summary) {
        let stats = swarm(seed, options)?;
        summary.seeds += 1;
        summary.simulated += stats.simulated;
        summary.acknowledged += stats.acknowledged;
        summary.slowest_heal = summary.slowest_heal.max((stats.healed_after, seed));
        seed = seed.wrapping_add(1);
    }
    Ok(summary)
}

/// One run.
///
/// # Errors
/// A [`Failure`] that says what went wrong.
pub fn swarm(seed: u64, options: &Options) -> Result<Stats, Box<Failure>> {
    let mut run = Run::new(seed, options);
    match run.all(options) {
        Ok(stats) => Ok(stats),
        Err(what) => Err(Box::new(Failure {
            seed,
            what,
            events: run.world.journal().tail(options.events) + &run.seen,
        })),
    }
}

struct Run {
    world: World,
    model: Model,
    trouble: Trouble,
    /// What the last survey found, a line for each record.
    seen: String,
}

impl Run {
    fn new(seed: u64, options: &Options) -> Self {
        let mut world = World::new(seed, options.matrix.clone());
        let count = world.random().random_range(options.machines.clone());
        for number in 0..count {
            let mut hardware = Hardware::ordinary(&format!("n{number}"));
            hardware.place = world.random().random_range(0..options.matrix.places());
            hardware.wall_ahead_ms = world.random().random_range(-1500..1500);
            world.add(hardware);
        }
        Self {
            world,
            model: Model::new(),
            trouble: Trouble::default(),
            seen: String::new(),
        }
    }

    fn all(&mut self, options: &Options) -> Result<Stats, Vec<String>> {
        self.assemble()?;
        self.go_on(options.calm, false)?;
        if self.world.random().random() {
            self.world.weather(Weather::ROUGH);
        }
        self.go_on(options.chaos, true)?;
        self.heal();
        let healed_after = self.demand(options.heal)?;
        if self.world.random().random_range(0..3) == 0 {
            self.cut_all_power();
            self.demand(options.heal)?;
        }
        Ok(Stats {
            counts: self.world.counts(),
            simulated: self.world.age(),
            healed_after,
            acknowledged: self.model.acknowledged,
            refused: self.model.refused,
        })
    }

    /// One machine founds the cloud, the others join through it.
    fn assemble(&mut self) -> Result<(), Vec<String>> {
        let founder = MachineId(0);
        self.world.found(founder);
        self.world.pass(Duration::from_secs(1));
        let invite = Invite {
            uses: 100,
            ttl_s: 3600,
            labels: Default::default(),
        };
        let invitation = self.world.ask(founder, invite, Duration::from_secs(10));
        let Ok(Response::Invite(invitation)) = invitation else {
            return Err(vec![format!("no ticket: {invitation:?}")]);
        };
        let joiners: Vec<MachineId> = self.world.machines().filter(|it| *it != founder).collect();
        for machine in joiners {
            let outcome = self.world.join_and_wait(machine, &invitation.ticket);
            if !matches!(outcome, JoinOutcome::Admitted(_)) {
                return Err(vec![format!("a machine cannot join: {outcome:?}")]);
            }
        }
        self.world.pass(Duration::from_secs(3));
        Ok(())
    }

    fn go_on(&mut self, duration: Duration, faults: bool) -> Result<(), Vec<String>> {
        let end = self.world.now() + duration;
        while self.world.now() < end {
            let pause = self.world.random().random_range(50..1200);
            self.world.pass(Duration::from_millis(pause));
            self.safe()?;
            self.trouble.look(&self.world);
            let is_calm = self.trouble.is_calm(&self.world);
            let is_sighted = self.trouble.is_sighted(&self.world);
            self.model.collect(&self.world, is_calm, is_sighted);
            let dice = self.world.random().random_range(0..100);
            if faults && dice < 45 {
                self.trouble.cause(&mut self.world);
            } else if dice < 90 {
                self.ask_something(is_calm);
            }
        }
        Ok(())
    }

    fn ask_something(&mut self, is_calm: bool) {
        let up: Vec<MachineId> = self
            .world
            .machines()
            .filter(|it| self.world.is_up(*it) && !self.trouble.removed.contains(it))
            .collect();
        let Some(at) = up.choose(self.world.random()).copied() else {
            return;
        };
        self.model.ask(&mut self.world, at, is_calm);
    }

    fn safe(&self) -> Result<(), Vec<String>> {
        let violations = self.world.violations();
        if violations.is_empty() {
            Ok(())
        } else {
            Err(violations.to_vec())
        }
    }

    /// Everything is as it should be for machines; kernels have to do the rest.
    fn heal(&mut self) {
        self.world.heal();
        self.world.weather(Weather::FAIR);
        for machine in self.world.machines() {
            self.world.thaw(machine);
            if !self.trouble.removed.contains(&machine) {
                self.world.start(machine);
            }
        }
    }

    /// Everybody loses their power at once.
    fn cut_all_power(&mut self) {
        let machines: Vec<MachineId> = self
            .world
            .machines()
            .filter(|it| self.world.is_up(*it))
            .collect();
        for machine in &machines {
            self.world.crash(*machine);
        }
        for machine in machines {
            let pause = self.world.random().random_range(0..5000);
            self.world.pass(Duration::from_millis(pause));
            self.world.start(machine);
        }
    }

    /// Everything must be right within that time; says how long it took.
    fn demand(&mut self, within: Duration) -> Result<Duration, Vec<String>> {
        let begin = self.world.now();
        let mut is_tidy = false;
        loop {
            self.world.pass(LOOK);
            self.safe()?;
            let taken = self.world.now().since(begin);
            if taken > MEETING && !std::mem::replace(&mut is_tidy, true) {
                self.trouble.tidy(&mut self.world);
            }
            self.trouble.look(&self.world);
            let is_sighted = self.trouble.is_sighted(&self.world);
            self.model.collect(&self.world, false, is_sighted);
            let is_idle = self.model.is_idle() && is_tidy;
            let wrong = if is_idle || taken > within {
                let expected = self.expected();
                let survey = Survey::take(&mut self.world, expected);
                self.seen = survey.to_string();
                faults(&survey)
            } else {
                vec!["calls are open".to_string()]
            };
            self.safe()?;
            if wrong.is_empty() {
                return Ok(taken);
            }
            if taken > within {
                return Err(wrong);
            }
        }
    }

    fn expected(&self) -> Expected {
        let members: Vec<MachineId> = self
            .world
            .machines()
            .filter(|it| self.world.is_admitted(*it) && !self.trouble.removed.contains(it))
            .collect();
        let up = members
            .iter()
            .filter(|it| self.world.off(**it) == Off::New || self.world.is_up(**it));
        Expected {
            up: up.map(|it| self.world.node(*it)).collect(),
            members: members.iter().map(|it| self.world.node(*it)).collect(),
            apps: self.model.expected(),
        }
    }
}
