//! The swarm: clouds of random size, random calls and random faults; what must never happen is
//! watched throughout, and then everything is healed and must become right in bounded time.
//!
//! One number makes a run, and the same number makes the same run again.

mod deed;
mod model;
mod trouble;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::invariants::faults;
use crate::invariants::survey::{Expected, Survey};
use crate::latency::Matrix;
use crate::network::Weather;
use crate::world::{Counts, JoinOutcome, MachineId, Off, World};
use model::{Model, View};
use trouble::Trouble;
use wire::call::{Invite, Response};
use wire::id::NodeId;

/// How long nodes have to find each other after a heal.
const MEETING: Duration = Duration::from_secs(15);
/// How often a healed cloud is looked at.
const LOOK: Duration = Duration::from_secs(2);
/// How long everything must stay right once it is, and how often that is looked at.
const HOLD: Duration = Duration::from_secs(30);
const GLANCE: Duration = Duration::from_secs(5);
/// How often it is looked, at the least and at the most, whether what was begun has come to an end.
const LOOKS_MIN: u32 = 5;
const LOOKS_MAX: u32 = 40;
/// How long the ticket is good for: longer than a wall clock is set ahead.
const TICKET_S: u64 = 30 * 86_400;

/// What a run is made of.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many machines, in most runs.
    pub machines: RangeInclusive<usize>,
    /// How many in one of four.
    pub few: RangeInclusive<usize>,
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
    /// Also disks that refuse, clocks that step, words that are lost on links that work, machines that
    /// join while all that happens, and live nodes that are removed: not everything is right yet on
    /// such days.
    pub bad_days: bool,
}

impl Default for Options {
    /// Five to seven machines in cities, or fewer, about a hundred seconds.
    fn default() -> Self {
        Self {
            machines: 5..=7,
            few: 1..=4,
            calm: Duration::from_secs(10),
            chaos: Duration::from_secs(30),
            heal: Duration::from_secs(120),
            matrix: Matrix::cities(),
            events: 60,
            bad_days: false,
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
        let are_few = world.random().random_range(0..4) == 0;
        let range = if are_few {
            &options.few
        } else {
            &options.machines
        };
        let count = world.random().random_range(range.clone());
        for _ in 0..count {
            let hardware = trouble::some_hardware(&mut world);
            world.add(hardware);
        }
        Self {
            world,
            model: Model::new(),
            trouble: Trouble::new(options.bad_days),
            seen: String::new(),
        }
    }

    fn all(&mut self, options: &Options) -> Result<Stats, Vec<String>> {
        self.assemble()?;
        self.go_on(options.calm, false)?;
        match self.world.random().random_range(0..4) {
            0 if options.bad_days => self.world.weather(Weather::BRITTLE),
            1 | 2 => self.world.weather(Weather::ROUGH),
            _ => {}
        }
        self.go_on(options.chaos, true)?;
        self.heal()?;
        let healed_after = self.demand(options.heal)?;
        self.hold()?;
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
        self.trouble.ticket = self.invite(founder)?;
        let joiners: Vec<MachineId> = self.world.machines().filter(|it| *it != founder).collect();
        for machine in joiners {
            let outcome = self.world.join_and_wait(machine, &self.trouble.ticket);
            if !matches!(outcome, JoinOutcome::Admitted(_)) {
                return Err(vec![format!("a machine cannot join: {outcome:?}")]);
            }
        }
        self.world.pass(Duration::from_secs(3));
        Ok(())
    }

    fn invite(&mut self, at: MachineId) -> Result<String, Vec<String>> {
        let invite = Invite {
            uses: 100,
            ttl_s: TICKET_S,
            labels: Default::default(),
        };
        match self.world.ask(at, invite, Duration::from_secs(10)) {
            Ok(Response::Invite(invitation)) => Ok(invitation.ticket),
            other => Err(vec![format!("no ticket: {other:?}")]),
        }
    }

    fn go_on(&mut self, duration: Duration, faults: bool) -> Result<(), Vec<String>> {
        let end = self.world.now() + duration;
        while self.world.now() < end {
            let most = if self.model.is_hasty() { 60 } else { 1200 };
            let pause = self.world.random().random_range(most / 24..most);
            self.world.pass(Duration::from_millis(pause));
            self.safe()?;
            let view = self.look();
            self.model.collect(&mut self.world, view);
            let Some(at) = self.anybody() else { continue };
            self.model.go_on(&mut self.world, at, view);
            if most < 1200 && self.world.random().random_range(0..8) > 0 {
                continue;
            }
            let dice = self.world.random().random_range(0..100);
            if faults && dice < 45 {
                self.trouble.cause(&mut self.world);
            } else if dice < 90 {
                self.model.ask(&mut self.world, at, view);
            }
        }
        Ok(())
    }

    fn look(&mut self) -> View {
        self.trouble.look(&self.world);
        View {
            is_calm: self.trouble.is_calm(&self.world),
            is_sighted: self.trouble.is_sighted(&self.world),
            is_steady: self.trouble.is_steady,
        }
    }

    /// A node that a person may ask: the first when none is up, which then does not answer.
    fn anybody(&mut self) -> Option<MachineId> {
        let members = self
            .world
            .machines()
            .filter(|it| self.world.is_admitted(*it));
        let all: Vec<MachineId> = members
            .filter(|it| !self.trouble.removed.contains(it))
            .collect();
        let up = all.iter().copied().filter(|it| self.world.is_up(*it));
        let up: Vec<MachineId> = up.collect();
        up.choose(self.world.random()).or(all.first()).copied()
    }

    fn safe(&self) -> Result<(), Vec<String>> {
        let mut wrong = self.world.violations().to_vec();
        wrong.extend(self.world.overdue());
        wrong.extend_from_slice(&self.model.wrong);
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// Everything is as it should be for machines; kernels have to do the rest.
    fn heal(&mut self) -> Result<(), Vec<String>> {
        self.model.rest();
        self.world.heal();
        self.world.weather(Weather::FAIR);
        for machine in self.world.machines() {
            self.world.thaw(machine);
            if !self.trouble.removed.contains(&machine) {
                self.world.start(machine);
            }
        }
        self.world.pass(MEETING);
        self.let_in()
    }

    /// Whoever was on its way into the cloud, perhaps admitted and not told, tries again.
    fn let_in(&mut self) -> Result<(), Vec<String>> {
        let outside: Vec<MachineId> = self
            .world
            .machines()
            .filter(|it| !self.world.is_admitted(*it))
            .collect();
        for machine in outside {
            // The doors of the first ticket may have been removed.
            let Some(door) = self.anybody() else {
                continue;
            };
            // Whoever is being asked may be asked to stop as well.
            let Ok(ticket) = self.invite(door) else {
                continue;
            };
            let outcome = self.world.join_and_wait(machine, &ticket);
            if !matches!(outcome, JoinOutcome::Admitted(_)) {
                return Err(vec![format!(
                    "a machine cannot join after all: {outcome:?}"
                )]);
            }
        }
        Ok(())
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
                self.let_in()?;
                // What was right without a node that takes objects again may not be with it.
                continue;
            }
            let view = self.look();
            self.model.collect(&mut self.world, view);
            self.model.rest();
            let is_idle = self.model.is_idle() && is_tidy;
            let wrong = if is_idle || taken > within {
                let survey = self.survey();
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

    /// Everything must stay right, all that was begun must come to an end, and calls that wait for
    /// what is the case must be answered.
    fn hold(&mut self) -> Result<(), Vec<String>> {
        let begin = self.world.now();
        let mut unfinished: Option<BTreeSet<(MachineId, &'static str)>> = None;
        let mut lingering = None;
        loop {
            let held = self.world.now().since(begin);
            let mut survey = self.survey();
            self.safe()?;
            // What is on its way is not wrong: only what is still wrong a moment later.
            if !faults(&survey).is_empty() {
                self.world.pass(GLANCE);
                survey = self.survey();
            }
            let wrong = faults(&survey);
            if !wrong.is_empty() {
                let after = |what| format!("{what} ({held:?} after all was right)");
                return Err(wrong.into_iter().map(after).collect());
            }
            let over = lingering.get_or_insert_with(|| survey.lingering());
            if held > HOLD {
                let still = survey.lingering();
                let still = over.intersection(&still);
                let mut wrong: Vec<String> = still
                    .map(|name| format!("at rest: {name} has ended and does not remove itself"))
                    .collect();
                wrong.extend(self.model.judge_waits(&mut self.world, &survey));
                if !wrong.is_empty() {
                    return Err(wrong);
                }
                break;
            }
            self.world.pass(GLANCE);
        }
        // Questions come and go, each second where apps run that often: what is wrong is one that is
        // there at every look.
        for look in 0..LOOKS_MAX {
            // Not in step with what comes again each second.
            let apart = Duration::from_millis(u64::from(look) * 37);
            self.world.pass(GLANCE / 2 + apart);
            let now: BTreeSet<_> = self.unfinished();
            let both: Option<BTreeSet<_>> =
                unfinished.map(|before| before.intersection(&now).copied().collect());
            let all = both.unwrap_or(now);
            let is_over = all.is_empty() && look >= LOOKS_MIN;
            unfinished = Some(all);
            if is_over {
                break;
            }
        }
        let sentence = |(machine, what): (MachineId, &str)| {
            format!(
                "at rest: {} never comes to the end of {what}",
                self.world.name(machine)
            )
        };
        let wrong: Vec<String> = unfinished.into_iter().flatten().map(sentence).collect();
        if wrong.is_empty() { Ok(()) } else { Err(wrong) }
    }

    /// What is going on in kernels, but for looking for places that there may not be.
    fn unfinished(&self) -> BTreeSet<(MachineId, &'static str)> {
        let members = self
            .world
            .machines()
            .filter(|it| !self.trouble.removed.contains(it));
        let of = |machine: MachineId| {
            let all = self.world.unfinished(machine).into_iter();
            all.map(move |what| (machine, what))
        };
        members.flat_map(of).collect()
    }

    fn survey(&mut self) -> Survey {
        let expected = self.expected();
        let survey = Survey::take(&mut self.world, expected);
        self.seen = survey.to_string();
        survey
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
        let up: BTreeSet<NodeId> = up.map(|it| self.world.node(*it)).collect();
        let has_removed = !self.trouble.removed.is_empty();
        Expected {
            apps: self.model.expected(has_removed, up.len() < members.len()),
            members: members.iter().map(|it| self.world.node(*it)).collect(),
            up,
            has_removed,
            is_steady: self.trouble.is_steady,
        }
    }
}
