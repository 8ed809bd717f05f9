//! DOC

extern crate std;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Ordering;
use core::hash::{Hash, Hasher};

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use stateright::{Checker, HasDiscoveries, Model, Property};
use std::hash::DefaultHasher;
use wire::id::{AppId, NodeId, ObjectId, Version};
use wire::tenancy::{Ballot, Claim, Home, Seat, SeatAnswer, SeatAsk, Tenancy, Title, majority};

use super::{Change, Outcome, Proposer, Seats};
use crate::instant::Instant;
use crate::tenure::{Event, Tenures};

/// One tick is a tenth of it: every deadline of the protocol is a whole number of ticks.
const TERM_TICKS: u64 = 10;
const TICK_US: u64 = 1_000;
/// The only slot.
const SLOT: u32 = 0;

/// What may happen in a run of the model, and how often.
#[derive(Debug, Clone, Default)]
struct Bounds {
    /// What each supervisor attempts, one after the other. An attempt may be given up for the next.
    attempts: Vec<Vec<Attempt>>,
    /// Whether the first attempt of supervisor zero has succeeded before, in all ways in which it can.
    has_begun: bool,
    /// The ticks at which something may happen; time goes from each to the next.
    moments: Vec<u64>,
    /// Rounds of renewals of each host.
    renewals: u32,
    /// Restarts of a node that has a seat.
    guardian_restarts: u32,
    /// Restarts of a host's daemon, and of its machine.
    host_restarts: u32,
    /// Programs that end and begin again at once.
    ends: u32,
    /// Messages that arrive twice.
    duplicates: u32,
    /// Questions whose asker is told that there is no answer, while they may still arrive.
    silences: u32,
    /// Whether the clock of the first host may lose a tick of ten.
    is_slow: bool,
    /// Whether the history of the register is kept and checked.
    has_history: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Attempt {
    /// The slot gets this object on this host.
    Place(u8, u8),
    /// The seats of that generation vote.
    Seat(u8),
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cloud {
    now: u64,
    /// Nodes that have seats.
    guardians: Vec<Seats>,
    hosts: Vec<Host>,
    supervisors: Vec<Supervisor>,
    network: BTreeSet<Posted>,
    record: Record,
    guardian_restarts: u32,
    host_restarts: u32,
    ends: u32,
    duplicates: u32,
    silences: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Host {
    tenures: Tenures,
    /// On its disk: objects that were launched here.
    placed: BTreeMap<ObjectId, Title>,
    /// What the shims know: when the object is killed.
    runs: BTreeMap<ObjectId, Instant>,
    /// Ticks that its clock has lost, and when it lost one last.
    lag: u64,
    lost_at: u64,
    claims: u64,
    life: u32,
    renewals: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Supervisor {
    /// With what the newest generation began that it knows of.
    first: Tenancy,
    /// The last round of ballots that it used or heard of.
    round: u64,
    attempts: usize,
    proposer: Option<Proposer>,
    /// The round of asks in which it is.
    asking: u32,
}

/// What is not there, but has to be true of what is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Record {
    /// Who has accepted what, by generation and ballot.
    votes: BTreeMap<(u64, Ballot), (Tenancy, BTreeSet<Seat>)>,
    /// Two tenancies were accepted under one ballot, or two began one generation.
    is_split: bool,
    history: Option<LinearizabilityTester<(usize, usize), Register>>,
    /// Whether an object has run, and whether another did after it.
    has_run: BTreeSet<u64>,
}

/// A message under way, by what it says.
#[derive(Debug, Clone)]
struct Posted {
    key: u64,
    message: Arc<Message>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
enum Message {
    Ask(Asker, Seat, SeatAsk),
    Answer(Asker, Seat, SeatAnswer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asker {
    Supervisor {
        index: usize,
        attempt: usize,
        round: u32,
    },
    Host {
        index: usize,
        life: u32,
        claim: Claim,
        asked_at: Instant,
    },
}

#[derive(Debug, Clone, PartialEq)]
enum Action {
    /// Time goes on; the clock of the first host loses a tick, or does not.
    Tick {
        is_slow: bool,
    },
    /// A supervisor begins its next attempt.
    Attempt(usize),
    /// A host asks for the renewals that are due.
    Renew(usize),
    Arrive(Posted),
    /// It arrives, and will again.
    ArriveTwice(Posted),
    /// The asker is told that there is no answer; the question arrives or does not.
    Silence(Posted),
    RestartGuardian(usize),
    RestartDaemon(usize),
    RestartMachine(usize),
    /// The program of the object ends, and begins anew.
    End(usize, ObjectId),
}

impl Message {
    fn post(self) -> Posted {
        let mut hasher = DefaultHasher::new();
        self.hash(&mut hasher);
        Posted {
            key: hasher.finish(),
            message: Arc::new(self),
        }
    }
}

impl PartialEq for Posted {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key
    }
}

impl Eq for Posted {}

impl PartialOrd for Posted {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Posted {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key.cmp(&other.key)
    }
}

impl Hash for Posted {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key.hash(state);
    }
}

/// What a register is, when there is only one of it and nothing fails: a change of what it says is
/// made at once, and one who made it knows what it says then.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Register(Tenancy);

impl SequentialSpec for Register {
    type Op = Change;
    type Ret = Tenancy;

    fn invoke(&mut self, change: &Change) -> Tenancy {
        match change {
            Change::Place {
                index,
                object,
                node,
            } => {
                let (object, node) = (*object, *node);
                let last = self.0.homes.get(index).map_or(0, |home| home.epoch);
                let epoch = last + 1;
                let home = Home {
                    object,
                    node,
                    epoch,
                };
                self.0.homes.insert(*index, home);
            }
            Change::Seat(seats) => {
                self.0.seats.clone_from(seats);
                self.0.generation += 1;
            }
        }
        self.0.clone()
    }
}

fn node(number: u8) -> NodeId {
    NodeId([number; 32])
}

/// Generation zero has seats at the guardians 0, 1 and 2, the first at 1, 2 and 3, and so on.
fn seats(generation: u8) -> Vec<Seat> {
    let seat = |index| Seat {
        node: node(generation + index),
        number: u64::from(generation * 10 + index),
    };
    (0..3).map(seat).collect()
}

fn tick(ticks: u64) -> Instant {
    Instant::from_micros(ticks * TICK_US)
}

fn guardian_of(seat: Seat) -> usize {
    usize::from(seat.node.0[0])
}

fn object(number: u8) -> ObjectId {
    ObjectId([number; 16])
}

impl Attempt {
    fn change(self) -> Change {
        match self {
            Self::Place(number, host) => Change::Place {
                index: SLOT,
                object: object(number),
                node: node(host),
            },
            Self::Seat(generation) => Change::Seat(seats(generation)),
        }
    }
}

impl Host {
    fn clock(&self, now: u64) -> Instant {
        tick(now - self.lag)
    }

    fn seek(&mut self, now: u64, object: ObjectId) {
        let Some(title) = self.placed.get(&object).cloned() else {
            return;
        };
        self.claims += 1;
        let claim = Claim {
            object,
            number: self.claims,
        };
        self.tenures.hold(self.clock(now), claim, title);
    }

    /// What the hub does with the events.
    fn heed(&mut self) {
        while let Some(event) = self.tenures.poll_event() {
            match event {
                Event::Extended {
                    object, kill_at, ..
                } => {
                    self.runs.insert(object, kill_at);
                }
                Event::Reseated { object, title } => {
                    self.placed.insert(object, title);
                }
                Event::Lost(object) => {
                    self.placed.remove(&object);
                    self.runs.remove(&object);
                }
            }
        }
    }
}

impl Cloud {
    fn new(bounds: &Bounds) -> Self {
        let generations = bounds.attempts.iter().flatten();
        let generations = generations.map(|attempt| match attempt {
            Attempt::Seat(generation) => *generation,
            Attempt::Place(..) => 0,
        });
        let last = generations.max().unwrap_or(0);
        let mut guardians = vec![Seats::default(); usize::from(last) + 3];
        for seat in (0..=last).flat_map(seats) {
            let born = Version::default();
            let is_taken = guardians[guardian_of(seat)].take(seat.number, AppId([0; 16]), born);
            assert!(is_taken, "there is room for a few seats");
        }
        let first = Tenancy {
            seats: seats(0),
            generation: 0,
            term_ms: u32::try_from(TERM_TICKS * TICK_US / 1000).expect("a short term"),
            homes: BTreeMap::new(),
        };
        let history = bounds
            .has_history
            .then(|| LinearizabilityTester::new(Register(first.clone())));
        let supervisor = Supervisor {
            first,
            round: 0,
            attempts: 0,
            proposer: None,
            asking: 0,
        };
        Self {
            now: 0,
            guardians,
            hosts: vec![Host::default(); 3],
            supervisors: vec![supervisor; bounds.attempts.len()],
            network: BTreeSet::new(),
            record: Record {
                votes: BTreeMap::new(),
                is_split: false,
                history,
                has_run: BTreeSet::new(),
            },
            guardian_restarts: 0,
            host_restarts: 0,
            ends: 0,
            duplicates: 0,
            silences: 0,
        }
    }

    /// The states in which the first attempt of supervisor zero has succeeded, and nothing is under
    /// way: all of its seats have accepted, or one of them has not, or was not even asked.
    fn begun(bounds: &Bounds) -> Vec<Self> {
        let without = |prepare: Option<usize>, accept: Option<usize>| {
            let mut cloud = Self::new(bounds);
            cloud.attempt(bounds, 0);
            while let Some(posted) = cloud.network.pop_first() {
                let lost = match &*posted.message {
                    Message::Ask(_, _, SeatAsk::Prepare { .. }) => prepare,
                    Message::Ask(_, _, SeatAsk::Accept(_)) => accept,
                    Message::Ask(..) | Message::Answer(..) => None,
                };
                let (Message::Ask(_, seat, _) | Message::Answer(_, seat, _)) = &*posted.message;
                if lost != Some(guardian_of(*seat)) {
                    cloud.arrive(bounds, &posted.message);
                }
            }
            cloud
        };
        vec![
            without(None, None),
            without(None, Some(2)),
            without(Some(2), Some(2)),
        ]
    }

    fn post(&mut self, message: Message) {
        let posted = message.post();
        if self.is_awaited(&posted) {
            self.network.insert(posted);
        }
    }

    /// Whether an answer means anything to who asked; what a seat is asked always does.
    fn is_awaited(&self, posted: &Posted) -> bool {
        let Message::Answer(asker, _, _) = &*posted.message else {
            return true;
        };
        match *asker {
            Asker::Supervisor { .. } => self.proposer_of(*asker).is_some(),
            Asker::Host { index, life, .. } => self.hosts[index].life == life,
        }
    }

    fn proposer_of(&self, asker: Asker) -> Option<usize> {
        let Asker::Supervisor {
            index,
            attempt,
            round,
        } = asker
        else {
            return None;
        };
        let supervisor = &self.supervisors[index];
        let is_current = supervisor.attempts == attempt && supervisor.asking == round;
        (supervisor.proposer.is_some() && is_current).then_some(index)
    }

    /// Leaves out what can have no effect any more, so that states which differ in that only are one.
    fn tidy(&mut self) {
        let mut network = core::mem::take(&mut self.network);
        network.retain(|posted| self.is_awaited(posted));
        self.network = network;
        let now = tick(self.now);
        for taken in self
            .guardians
            .iter_mut()
            .flat_map(|it| it.seats.values_mut())
        {
            taken.held.retain(|_, until| *until > now);
        }
        for host in &mut self.hosts {
            let clock = host.clock(self.now);
            host.runs.retain(|_, kill_at| *kill_at > clock);
        }
    }

    fn attempt(&mut self, bounds: &Bounds, index: usize) {
        let supervisor = &mut self.supervisors[index];
        let change = bounds.attempts[index][supervisor.attempts].change();
        supervisor.attempts += 1;
        supervisor.round += 1;
        let ballot = Ballot {
            round: supervisor.round,
            node: index as u64,
        };
        if let Some(history) = &mut self.record.history {
            let thread = (index, supervisor.attempts);
            let invoked = history.on_invoke(thread, change.clone());
            assert!(invoked.is_ok(), "each attempt is a thread of its own");
        }
        supervisor.proposer = Some(Proposer::new(ballot, supervisor.first.clone(), change));
        self.ask_as_supervisor(index);
    }

    fn ask_as_supervisor(&mut self, index: usize) {
        let supervisor = &mut self.supervisors[index];
        let attempt = supervisor.attempts;
        let mut asks = Vec::new();
        if let Some(proposer) = &mut supervisor.proposer {
            while let Some((round, seat, ask)) = proposer.poll_ask() {
                supervisor.asking = round;
                let asker = Asker::Supervisor {
                    index,
                    attempt,
                    round,
                };
                asks.push(Message::Ask(asker, seat, ask));
            }
        }
        for ask in asks {
            self.post(ask);
        }
    }

    fn ask_as_host(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        host.heed();
        let mut asks = Vec::new();
        while let Some((claim, seat, ask)) = host.tenures.poll_ask() {
            let asker = Asker::Host {
                index,
                life: host.life,
                claim,
                asked_at: host.clock(self.now),
            };
            asks.push(Message::Ask(asker, seat, ask));
        }
        for ask in asks {
            self.post(ask);
        }
        for (object, _) in self.running() {
            let homes = self.newest().homes.into_values();
            let epochs = homes.filter(|home| home.object == object);
            let epochs: Vec<u64> = epochs.map(|home| home.epoch).collect();
            self.record.has_run.extend(epochs);
        }
    }

    fn arrive(&mut self, bounds: &Bounds, message: &Message) {
        match message {
            Message::Ask(asker, seat, ask) => {
                let guardian = &mut self.guardians[guardian_of(*seat)];
                let (answer, _) = guardian.handle(tick(self.now), seat.number, ask.clone());
                if let (SeatAsk::Accept(title), SeatAnswer::Accepted) = (ask, &answer) {
                    self.record.vote(*seat, title);
                }
                self.post(Message::Answer(*asker, *seat, answer));
            }
            Message::Answer(asker, seat, answer) => match *asker {
                Asker::Supervisor { round, .. } => {
                    if let Some(index) = self.proposer_of(*asker) {
                        self.answered(bounds, index, round, *seat, Some(answer.clone()));
                    }
                }
                Asker::Host {
                    index,
                    claim,
                    asked_at,
                    ..
                } => {
                    let host = &mut self.hosts[index];
                    let clock = host.clock(self.now);
                    host.tenures
                        .handle(clock, claim, *seat, asked_at, answer.clone());
                    self.ask_as_host(index);
                }
            },
        }
    }

    fn answered(
        &mut self,
        bounds: &Bounds,
        index: usize,
        round: u32,
        seat: Seat,
        answer: Option<SeatAnswer>,
    ) {
        let supervisor = &mut self.supervisors[index];
        let Some(proposer) = &mut supervisor.proposer else {
            return;
        };
        let Some(outcome) = proposer.handle(round, seat, answer) else {
            return self.ask_as_supervisor(index);
        };
        supervisor.round = proposer.ballot().round.max(supervisor.round);
        supervisor.first = proposer.first().clone();
        supervisor.proposer = None;
        let attempt = supervisor.attempts;
        match outcome {
            Outcome::Chosen(title) => {
                if let Some(history) = &mut self.record.history {
                    let returned = history.on_return((index, attempt), title.tenancy.clone());
                    assert!(returned.is_ok(), "it was invoked");
                }
                match bounds.attempts[index][attempt - 1] {
                    Attempt::Place(number, host) => {
                        let host = &mut self.hosts[usize::from(host)];
                        host.placed.insert(object(number), title);
                        host.seek(self.now, object(number));
                    }
                    Attempt::Seat(_) => supervisor.first = title.tenancy,
                }
            }
            Outcome::Outvoted(by) => supervisor.round = by.round.max(supervisor.round),
            Outcome::Held { .. } | Outcome::TooFew { .. } => {}
        }
    }

    fn restart_guardian(&mut self, index: usize) {
        let former = core::mem::take(&mut self.guardians[index]);
        for (number, taken) in former.seats {
            self.guardians[index].restore(tick(self.now), number, taken.stored);
        }
    }

    fn restart_host(&mut self, index: usize, is_machine: bool) {
        let now = self.now;
        let host = &mut self.hosts[index];
        host.life += 1;
        host.tenures = Tenures::default();
        if is_machine {
            host.runs.clear();
        }
        let placed: Vec<ObjectId> = host.placed.keys().copied().collect();
        for object in placed {
            host.seek(now, object);
        }
    }

    fn end(&mut self, index: usize, object: ObjectId) {
        let host = &mut self.hosts[index];
        host.runs.remove(&object);
        host.tenures.release(object);
        host.seek(self.now, object);
        self.ask_as_host(index);
    }

    /// What runs, and where: also what is frozen and was not killed yet.
    fn running(&self) -> Vec<(ObjectId, usize)> {
        let hosts = self.hosts.iter().enumerate();
        let run = hosts.flat_map(|(index, host)| {
            let clock = host.clock(self.now);
            let runs = host
                .runs
                .iter()
                .filter(move |(_, kill_at)| **kill_at > clock);
            runs.map(move |(object, _)| (*object, index))
        });
        run.collect()
    }

    /// What was chosen last.
    fn newest(&self) -> Tenancy {
        let chosen = self.record.chosen().last();
        chosen
            .map(|(_, tenancy)| tenancy.clone())
            .unwrap_or_default()
    }
}

impl Record {
    fn vote(&mut self, seat: Seat, title: &Title) {
        let generation = seat.number / 10;
        let tenancy = title.tenancy.clone();
        let vote = self.votes.entry((generation, title.ballot));
        let (accepted, seats) = vote.or_insert((tenancy, BTreeSet::new()));
        self.is_split |= *accepted != title.tenancy;
        seats.insert(seat);
    }

    /// By generation and ballot.
    fn chosen(&self) -> impl Iterator<Item = (u64, &Tenancy)> {
        let is_chosen = |(_, (_, seats)): &(_, &(_, BTreeSet<Seat>))| seats.len() >= majority(3);
        let chosen = self.votes.iter().filter(is_chosen);
        chosen.map(|((generation, _), (tenancy, _))| (*generation, tenancy))
    }

    /// Each is built on the one before it, and only the last of a generation has other seats.
    fn is_chain(&self) -> bool {
        let chosen: Vec<_> = self.chosen().collect();
        let mut pairs = chosen.windows(2);
        let is_chain = pairs.all(|pair| {
            let [(before, former), (after, next)] = pair else {
                return false;
            };
            if after == before && former.generation != *before {
                // It was closed: only the same can be accepted again.
                return former == next;
            }
            let is_next = *after == former.generation;
            let home = |tenancy: &Tenancy| tenancy.homes.get(&SLOT).copied();
            let epoch = |tenancy: &Tenancy| home(tenancy).map_or(0, |home| home.epoch);
            let is_newer = home(former) == home(next) || epoch(former) < epoch(next);
            is_next && is_newer
        });
        is_chain && !self.is_split
    }
}

impl Model for Bounds {
    type State = Cloud;
    type Action = Action;

    fn init_states(&self) -> Vec<Cloud> {
        if self.has_begun {
            Cloud::begun(self)
        } else {
            vec![Cloud::new(self)]
        }
    }

    fn actions(&self, cloud: &Cloud, actions: &mut Vec<Action>) {
        for posted in &cloud.network {
            actions.push(Action::Arrive(posted.clone()));
            if cloud.duplicates < self.duplicates {
                actions.push(Action::ArriveTwice(posted.clone()));
            }
            let is_ask = matches!(&*posted.message, Message::Ask(by, _, _) if cloud.proposer_of(*by).is_some());
            if is_ask && cloud.silences < self.silences {
                actions.push(Action::Silence(posted.clone()));
            }
        }
        for (index, supervisor) in cloud.supervisors.iter().enumerate() {
            if supervisor.attempts < self.attempts[index].len() {
                actions.push(Action::Attempt(index));
            }
        }
        for (index, host) in cloud.hosts.iter().enumerate() {
            let is_due = host.tenures.poll_timeout() <= Some(host.clock(cloud.now));
            if host.tenures.poll_timeout().is_some() && is_due && host.renewals < self.renewals {
                actions.push(Action::Renew(index));
            }
            if !host.placed.is_empty() && cloud.host_restarts < self.host_restarts {
                actions.push(Action::RestartDaemon(index));
                actions.push(Action::RestartMachine(index));
            }
            if cloud.ends < self.ends {
                let ends = host.runs.keys().map(|it| Action::End(index, *it));
                actions.extend(ends);
            }
        }
        if cloud.guardian_restarts < self.guardian_restarts {
            let guardians = 0..cloud.guardians.len();
            actions.extend(guardians.map(Action::RestartGuardian));
        }
        if let Some(next) = self.moments.iter().find(|at| **at > cloud.now) {
            actions.push(Action::Tick { is_slow: false });
            let slow = &cloud.hosts[0];
            if self.is_slow && *next >= slow.lost_at + TERM_TICKS {
                actions.push(Action::Tick { is_slow: true });
            }
        }
    }

    fn next_state(&self, before: &Cloud, action: Action) -> Option<Cloud> {
        let mut cloud = before.clone();
        match action {
            Action::Tick { is_slow } => {
                cloud.now = *self.moments.iter().find(|at| **at > cloud.now)?;
                if is_slow {
                    let slow = &mut cloud.hosts[0];
                    slow.lag += 1;
                    slow.lost_at = cloud.now;
                }
            }
            Action::Attempt(index) => cloud.attempt(self, index),
            Action::Renew(index) => {
                let host = &mut cloud.hosts[index];
                host.renewals += 1;
                let clock = host.clock(cloud.now);
                host.tenures.handle_timeout(clock);
                cloud.ask_as_host(index);
            }
            Action::Arrive(posted) => {
                cloud.network.remove(&posted);
                cloud.arrive(self, &posted.message);
            }
            Action::ArriveTwice(posted) => {
                cloud.duplicates += 1;
                cloud.arrive(self, &posted.message);
            }
            Action::Silence(posted) => {
                cloud.silences += 1;
                let Message::Ask(asker, seat, _) = &*posted.message else {
                    return None;
                };
                let Asker::Supervisor { index, round, .. } = *asker else {
                    return None;
                };
                cloud.answered(self, index, round, *seat, None);
            }
            Action::RestartGuardian(index) => {
                cloud.guardian_restarts += 1;
                cloud.restart_guardian(index);
            }
            Action::RestartDaemon(index) => {
                cloud.host_restarts += 1;
                cloud.restart_host(index, false);
            }
            Action::RestartMachine(index) => {
                cloud.host_restarts += 1;
                cloud.restart_host(index, true);
            }
            Action::End(index, object) => {
                cloud.ends += 1;
                cloud.end(index, object);
            }
        }
        cloud.tidy();
        (cloud != *before).then_some(cloud)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always("one object runs", |_, cloud| cloud.running().len() <= 1),
            Property::<Self>::always("what runs was chosen last", |_, cloud| {
                let newest = cloud.newest();
                cloud.running().iter().all(|(it, _)| newest.has(*it))
            }),
            Property::<Self>::always("what is chosen is a chain", |_, cloud| {
                cloud.record.is_chain()
            }),
            Property::<Self>::always("a seat keeps its promise", |_, cloud| {
                let seats = cloud.guardians.iter().flat_map(|it| it.seats.values());
                seats.into_iter().all(|taken| {
                    let accepted = taken.stored.accepted.as_ref();
                    accepted.is_none_or(|it| it.ballot <= taken.stored.promised)
                })
            }),
        ];
        if self.has_history {
            properties.push(Property::<Self>::always(
                "the register is one",
                |_, cloud| {
                    let history = cloud.record.history.as_ref();
                    history.is_none_or(|it| it.serialized_history().is_some())
                },
            ));
        }
        properties
    }
}

fn explore(name: &str, bounds: Bounds) {
    let started = std::time::SystemTime::now();
    let checker = bounds
        .checker()
        .threads(2)
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    std::println!(
        "{name}: {} states, {} unique, depth {}, {:?}",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth(),
        started.elapsed()
    );
    checker.assert_properties();
}

#[test]
fn election() {
    explore(
        "election",
        Bounds {
            attempts: vec![vec![Attempt::Place(1, 0)], vec![Attempt::Place(2, 1)]],
            has_history: true,
            guardian_restarts: 0,
            ..Bounds::default()
        },
    );
}

#[test]
fn takeover() {
    explore(
        "takeover",
        Bounds {
            attempts: vec![vec![Attempt::Place(1, 0)], vec![Attempt::Place(2, 1)]],
            has_begun: true,
            moments: vec![0, 10],
            renewals: 1,
            ..Bounds::default()
        },
    );
}

#[test]
fn reseat() {
    explore(
        "reseat",
        Bounds {
            attempts: vec![
                vec![Attempt::Place(1, 0), Attempt::Seat(1)],
                vec![Attempt::Place(2, 1)],
            ],
            has_begun: true,
            moments: vec![0, 10],
            renewals: 1,
            ..Bounds::default()
        },
    );
}
