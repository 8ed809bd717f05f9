//! The protocol of `docs/protocols/once.md` in every order of events, within bounds: a model for
//! stateright, made of the real [`Seats`], [`Proposer`] and [`Tenures`].
//!
//! What it is not: a description of the protocol. What is written here is the world around it.
//!
//! # What it contains
//!
//! Guardians with seats, two hosts, two supervisors, one slot. A supervisor attempts what
//! [`Bounds::attempts`] says, one after the other, and may give up an attempt at any time. A message
//! is under way for as long as it likes, overtakes others, is lost, arrives twice; an answer may be
//! lost after its question has arrived. Guardians restart with what is on their disks, where an
//! answer and what it rests on are one step: nothing is said before it is durable. Of a host the
//! daemon restarts, while the shims keep the deadlines that they were told, or the whole machine
//! does. A program ends and begins again. Time goes from one of [`Bounds::moments`] to the next; the
//! clock of the first host may be slower by a tenth than those of the guardians.
//!
//! An object *runs* from when it holds a tenure to when the shim kills it, by the clock of its host.
//! The promise is only that two never run up to when they are frozen; this is more.
//!
//! # What it leaves out
//!
//! Seats that are lost with a disk: their nodes answer *unknown*, from which nothing follows but
//! that another seat is needed. Answers that never come: who asked would only give up sooner. More
//! than one slot. How seats are taken, that a seat is used in one generation only, how apps are
//! removed and made anew: that is the hub's. Where [`Bounds::has_late_answers`] is not set, and for
//! supervisors always, an answer arrives with its question: a supervisor goes on when most have
//! answered, whatever the order, and what it sends then may be late itself.

extern crate std;

mod keyed;
mod tests;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec;
use alloc::vec::Vec;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester, SequentialSpec};
use stateright::{Model, Property};
use wire::id::{AppId, NodeId, ObjectId, Version};
use wire::tenancy::{Ballot, Claim, Home, Seat, SeatAnswer, SeatAsk, Tenancy, Title, majority};

use self::keyed::Keyed;
use crate::instant::Instant;
use crate::register::{Change, Outcome, Proposer, Seats};
use crate::tenure::{Event, Tenures};

/// One tick is a tenth of it: every deadline of the protocol is a whole number of ticks.
const TERM_TICKS: u64 = 10;
const TERM_MS: u32 = 10;
const TICK_US: u64 = 1_000;
const HOSTS: usize = 2;
/// A host draws the number of a claim, and counts up from there.
const CLAIMS_APART: u64 = 100;
/// The only slot.
const SLOT: u32 = 0;

/// What may happen in a run of the model, and how often.
#[derive(Debug, Clone, Default)]
struct Bounds {
    /// What each supervisor attempts, one after the other. An attempt may be given up for the next.
    /// No object is placed twice.
    attempts: Vec<Vec<Attempt>>,
    /// Seats of each generation.
    seats: u8,
    /// So many attempts of the first supervisor have succeeded already, and nothing is under way.
    begun: usize,
    /// The first guardian has not heard of them.
    is_one_behind: bool,
    /// The ticks at which something happens; time goes from each to the next.
    moments: Vec<u64>,
    /// Whether the clock of the first host may lose a tick of ten.
    is_slow: bool,
    /// Rounds of renewals, by host.
    renewals: [u32; HOSTS],
    /// Whether answers to hosts take time, too. Else a question is answered as it arrives, or never.
    has_late_answers: bool,
    /// Restarts of nodes that have seats.
    guardian_restarts: u32,
    /// Restarts of a host's daemon, or of its machine.
    host_restarts: u32,
    /// Programs that end, to begin again.
    ends: u32,
    /// Messages that arrive twice.
    duplicates: u32,
    /// Questions that are lost, or their answers; a supervisor hears that there is none. Beside
    /// these, any message may be under way for ever, and an attempt be given up.
    losses: u32,
    /// Whether what an attempt has asked is lost when it is given up.
    forgets: bool,
    /// Whether the history of the register is checked, which takes long when many attempts never
    /// end.
    has_history: bool,
    /// What has to be possible: that an object of this epoch runs while this generation votes.
    reaches: Vec<Reach>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Attempt {
    /// The slot gets this object, on this host.
    Place(u8, u8),
    /// These seats vote: the first set after those with which the app began, or the second.
    Seat(u8),
}

#[derive(Debug, Clone, Copy)]
enum Reach {
    First,
    Second,
    SecondAfterReseat,
    FirstOutlivesSecond,
}

/// Everything there is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Cloud {
    now: u64,
    guardians: Vec<Keyed<Seats>>,
    hosts: Vec<Keyed<Host>>,
    supervisors: Vec<Keyed<Supervisor>>,
    network: BTreeSet<Keyed<Message>>,
    record: Keyed<Record>,
    spent: Spent,
}

/// How much of the bounds has happened.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Spent {
    guardian_restarts: u32,
    host_restarts: u32,
    ends: u32,
    duplicates: u32,
    losses: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
struct Host {
    tenures: Tenures,
    /// On its disk: objects that were launched here.
    placed: BTreeMap<ObjectId, Title>,
    /// What the shims know: when the object is killed.
    runs: BTreeMap<ObjectId, Instant>,
    /// Ticks that its clock has lost.
    lag: u64,
    /// When it lost one last.
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
    /// Objects that seats had accepted, as they said in this attempt.
    heard: BTreeSet<ObjectId>,
}

/// What nobody in the cloud knows, and the properties are about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Record {
    /// So many of a generation choose.
    needed: usize,
    /// Who has accepted what, by generation and ballot.
    votes: BTreeMap<(u64, Ballot), (Tenancy, BTreeSet<Seat>)>,
    /// Different tenancies were accepted under one ballot.
    is_split: bool,
    /// Each attempt is a client of its own: it may take effect also after it was given up.
    history: LinearizabilityTester<(usize, usize), Register>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Message {
    Ask(Asker, Seat, SeatAsk),
    Answer(Renewal, Seat, SeatAnswer),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Asker {
    Supervisor {
        index: usize,
        attempt: usize,
        round: u32,
    },
    Host(Renewal),
}

/// A question of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Renewal {
    host: usize,
    life: u32,
    claim: Claim,
    asked_at: Instant,
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
    /// A message arrives, and is no longer under way.
    Arrive(Keyed<Message>),
    /// It arrives, and the answer is lost.
    ArriveInVain(Keyed<Message>),
    /// It is lost itself, and a supervisor who waits for the answer hears that there is none.
    Vanish(Keyed<Message>),
    /// It arrives, and will again.
    ArriveTwice(Keyed<Message>),
    RestartGuardian(usize),
    RestartDaemon(usize),
    RestartMachine(usize),
    /// The program of the object ends, and is to begin again.
    End(usize, ObjectId),
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
                self.0.epoch += 1;
                let epoch = self.0.epoch;
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

/// A set of seats. The first is at the guardians 0, 1 and 2, the next at 1, 2 and 3, and so on.
fn seats(set: u8, count: u8) -> Vec<Seat> {
    let seat = |index| Seat {
        node: node(set + index),
        number: u64::from(set * 10 + index),
    };
    (0..count).map(seat).collect()
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
    fn change(self, seats_count: u8) -> Change {
        match self {
            Self::Place(number, host) => Change::Place {
                index: SLOT,
                object: object(number),
                node: node(host),
            },
            Self::Seat(set) => Change::Seat(seats(set, seats_count)),
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
        self.claims += CLAIMS_APART;
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
                // No seat is lost here.
                Event::Unseated(_) => {}
            }
        }
    }
}

impl Cloud {
    fn new(bounds: &Bounds) -> Self {
        let sets = bounds.attempts.iter().flatten().map(|it| match it {
            Attempt::Seat(set) => *set,
            Attempt::Place(..) => 0,
        });
        let last = sets.max().unwrap_or(0);
        let mut guardians = vec![Seats::default(); usize::from(last + bounds.seats)];
        for seat in (0..=last).flat_map(|it| seats(it, bounds.seats)) {
            let born = Version::default();
            let is_taken = guardians[guardian_of(seat)].take(seat.number, AppId([0; 16]), born);
            assert!(is_taken, "there is room for a few seats");
        }
        let first = Tenancy {
            seats: seats(0, bounds.seats),
            generation: 0,
            term_ms: TERM_MS,
            homes: BTreeMap::new(),
            epoch: 0,
        };
        let record = Record {
            needed: majority(bounds.seats.into()),
            votes: BTreeMap::new(),
            is_split: false,
            history: LinearizabilityTester::new(Register(first.clone())),
        };
        let supervisor = Keyed::new(Supervisor {
            first,
            round: 0,
            attempts: 0,
            proposer: None,
            heard: BTreeSet::new(),
        });
        Self {
            now: 0,
            guardians: guardians.into_iter().map(Keyed::new).collect(),
            hosts: vec![Keyed::new(Host::default()); HOSTS],
            supervisors: vec![supervisor; bounds.attempts.len()],
            network: BTreeSet::new(),
            record: Keyed::new(record),
            spent: Spent::default(),
        }
    }

    /// The first attempts have succeeded.
    fn begun(bounds: &Bounds) -> Self {
        let mut cloud = Self::new(bounds);
        for _ in 0..bounds.begun {
            cloud.attempt(bounds, 0);
            while let Some(message) = cloud.network.pop_first() {
                let (Message::Ask(_, seat, _) | Message::Answer(_, seat, _)) = &*message;
                if !bounds.is_one_behind || guardian_of(*seat) > 0 {
                    cloud.arrive(bounds, &message, true);
                }
            }
        }
        let first = cloud.supervisors[0].first.clone();
        for supervisor in &mut cloud.supervisors {
            supervisor.change(|it| it.first.clone_from(&first));
        }
        cloud
    }

    fn attempt(&mut self, bounds: &Bounds, index: usize) {
        let change = self.supervisors[index].change(|supervisor| {
            let change = bounds.attempts[index][supervisor.attempts].change(bounds.seats);
            supervisor.attempts += 1;
            supervisor.round += 1;
            supervisor.heard.clear();
            let ballot = Ballot {
                round: supervisor.round,
                node: index as u64,
            };
            let first = supervisor.first.clone();
            supervisor.proposer = Some(Proposer::new(ballot, first, change.clone()));
            change
        });
        if bounds.forgets {
            self.network.retain(|message| match &**message {
                Message::Ask(Asker::Supervisor { index: other, .. }, _, _) => *other != index,
                Message::Ask(Asker::Host(_), _, _) | Message::Answer(..) => true,
            });
        }
        let client = (index, self.supervisors[index].attempts);
        if !bounds.has_history {
            return self.ask_as_supervisor(index);
        }
        self.record.change(|record| {
            let invoked = record.history.on_invoke(client, change);
            assert!(invoked.is_ok(), "each attempt is a client of its own");
        });
        self.ask_as_supervisor(index);
    }

    fn ask_as_supervisor(&mut self, index: usize) {
        let network = &mut self.network;
        self.supervisors[index].change(|supervisor| {
            let attempt = supervisor.attempts;
            let proposer = supervisor.proposer.as_mut();
            for (round, seat, ask) in proposer.into_iter().flat_map(asks_of) {
                let asker = Asker::Supervisor {
                    index,
                    attempt,
                    round,
                };
                network.insert(Keyed::new(Message::Ask(asker, seat, ask)));
            }
        });
    }

    fn ask_as_host(&mut self, index: usize) {
        let (now, network) = (self.now, &mut self.network);
        self.hosts[index].change(|host| {
            host.heed();
            let (life, asked_at) = (host.life, host.clock(now));
            while let Some((claim, seat, ask)) = host.tenures.poll_ask() {
                let asker = Asker::Host(Renewal {
                    host: index,
                    life,
                    claim,
                    asked_at,
                });
                network.insert(Keyed::new(Message::Ask(asker, seat, ask)));
            }
        });
    }

    /// A message arrives; when it is a question the answer does, too, or is lost.
    fn arrive(&mut self, bounds: &Bounds, message: &Message, is_heard: bool) {
        match message {
            Message::Ask(asker, seat, ask) => {
                let answer = self.asked(*seat, ask);
                match *asker {
                    _ if !is_heard => self.unanswered(bounds, message),
                    Asker::Supervisor {
                        index,
                        attempt,
                        round,
                    } => {
                        if self.supervisors[index].attempts == attempt {
                            self.answered(bounds, index, round, *seat, Some(answer));
                        }
                    }
                    Asker::Host(renewal) if bounds.has_late_answers => {
                        if self.hosts[renewal.host].life == renewal.life {
                            let answer = Message::Answer(renewal, *seat, answer);
                            self.network.insert(Keyed::new(answer));
                        }
                    }
                    Asker::Host(renewal) => self.renewed(renewal, *seat, answer),
                }
            }
            Message::Answer(renewal, seat, answer) => {
                self.renewed(*renewal, *seat, answer.clone());
            }
        }
    }

    /// A supervisor that still waits for the answer hears that there is none.
    fn unanswered(&mut self, bounds: &Bounds, message: &Message) {
        let Message::Ask(asker, seat, _) = message else {
            return;
        };
        if let Asker::Supervisor {
            index,
            attempt,
            round,
        } = *asker
            && self.supervisors[index].attempts == attempt
        {
            self.answered(bounds, index, round, *seat, None);
        }
    }

    /// What it answers is durable: there is no state in which it was said and could be forgotten.
    fn asked(&mut self, seat: Seat, ask: &SeatAsk) -> SeatAnswer {
        let now = tick(self.now);
        let guardian = &mut self.guardians[guardian_of(seat)];
        let (answer, _) = guardian.change(|it| it.handle(now, seat.number, ask.clone()));
        if let (SeatAsk::Accept(title), SeatAnswer::Accepted) = (ask, &answer) {
            self.record.change(|record| record.vote(seat, title));
        }
        answer
    }

    fn renewed(&mut self, renewal: Renewal, seat: Seat, answer: SeatAnswer) {
        let now = self.now;
        let host = &mut self.hosts[renewal.host];
        if host.life != renewal.life {
            return;
        }
        host.change(|host| {
            let (clock, asked_at) = (host.clock(now), renewal.asked_at);
            let tenures = &mut host.tenures;
            tenures.handle(clock, renewal.claim, seat, asked_at, answer);
        });
        self.ask_as_host(renewal.host);
    }

    fn answered(
        &mut self,
        bounds: &Bounds,
        index: usize,
        round: u32,
        seat: Seat,
        answer: Option<SeatAnswer>,
    ) {
        let outcome = self.supervisors[index].change(|supervisor| {
            let proposer = supervisor.proposer.as_mut()?;
            if let Some(SeatAnswer::Promised { accepted, .. }) = &answer {
                let homes = accepted.tenancy.homes.values();
                supervisor.heard.extend(homes.map(|home| home.object));
            }
            let outcome = proposer.handle(round, seat, answer)?;
            supervisor.round = proposer.ballot().round.max(supervisor.round);
            supervisor.first = proposer.first().clone();
            supervisor.proposer = None;
            match &outcome {
                Outcome::Chosen(title)
                    if title.tenancy.generation > supervisor.first.generation =>
                {
                    supervisor.first = title.tenancy.clone();
                }
                Outcome::Outvoted(by) => supervisor.round = by.round.max(supervisor.round),
                Outcome::Chosen(_) | Outcome::Held { .. } | Outcome::TooFew { .. } => {}
            }
            Some(outcome)
        });
        self.ask_as_supervisor(index);
        let Some(Outcome::Chosen(title)) = outcome else {
            return;
        };
        let (now, attempt) = (self.now, self.supervisors[index].attempts);
        if bounds.has_history {
            self.record.change(|record| {
                let returned = record
                    .history
                    .on_return((index, attempt), title.tenancy.clone());
                assert!(returned.is_ok(), "it was invoked");
            });
        }
        if let Attempt::Place(number, host) = bounds.attempts[index][attempt - 1] {
            self.hosts[usize::from(host)].change(|host| {
                host.placed.insert(object(number), title);
                host.seek(now, object(number));
            });
        }
    }

    fn restart_guardian(&mut self, index: usize) {
        let now = tick(self.now);
        self.guardians[index].change(|seats| {
            for (number, taken) in core::mem::take(seats).seats {
                seats.restore(now, number, taken.stored);
            }
        });
    }

    fn restart_host(&mut self, index: usize, is_machine: bool) {
        let now = self.now;
        self.hosts[index].change(|host| {
            host.life += 1;
            host.tenures = Tenures::default();
            if is_machine {
                host.runs.clear();
            }
            let placed: Vec<ObjectId> = host.placed.keys().copied().collect();
            for object in placed {
                host.seek(now, object);
            }
        });
        self.network.retain(|message| match &**message {
            Message::Ask(..) => true,
            Message::Answer(renewal, _, _) => renewal.host != index,
        });
    }

    fn end(&mut self, index: usize, object: ObjectId) {
        let now = self.now;
        self.hosts[index].change(|host| {
            host.runs.remove(&object);
            host.tenures.release(object);
            host.seek(now, object);
        });
        self.ask_as_host(index);
    }

    /// Time goes on. What is over then is left out, so that states that differ in that only are one.
    fn tick(&mut self, now: u64, is_slow: bool) {
        self.now = now;
        if is_slow {
            self.hosts[0].change(|host| {
                host.lag += 1;
                host.lost_at = now;
            });
        }
        for host in &mut self.hosts {
            let clock = host.clock(now);
            host.change(|host| host.runs.retain(|_, kill_at| *kill_at > clock));
        }
        for guardian in &mut self.guardians {
            guardian.change(|seats| {
                for taken in seats.seats.values_mut() {
                    taken.held.retain(|_, until| *until > tick(now));
                }
            });
        }
    }

    /// What runs: also what is frozen and was not killed yet.
    fn running(&self) -> impl Iterator<Item = ObjectId> {
        let hosts = self.hosts.iter();
        hosts.flat_map(|host| {
            let clock = host.clock(self.now);
            let runs = host
                .runs
                .iter()
                .filter(move |(_, kill_at)| **kill_at > clock);
            runs.map(|(object, _)| *object)
        })
    }

    /// What was chosen last.
    fn newest(&self) -> Tenancy {
        let newest = self.record.chosen().last();
        newest
            .map(|(_, tenancy)| tenancy.clone())
            .unwrap_or_default()
    }

    /// Whether whoever has a seat knows of nothing else as the beginning of its generation than what
    /// was the end of the one before.
    fn begins_as_chosen(&self) -> bool {
        let seats = self.guardians.iter().flat_map(|it| it.seats.values());
        let mut firsts = seats.filter_map(|taken| taken.stored.first.as_ref());
        firsts.all(|first| {
            let mut chosen = self.record.chosen();
            first.generation == 0 || chosen.any(|(_, tenancy)| tenancy == first)
        })
    }

    /// Whether a supervisor has heard of an object, and left it out of what was chosen.
    fn has_left_out(&self) -> bool {
        let newest = self.newest();
        let mut heard = self.supervisors.iter().flat_map(|it| &it.heard);
        heard.any(|object| !newest.has(*object))
    }

    /// Whether an object runs that was placed after so many others, while that generation votes.
    fn has_reached(&self, generation: u64, epoch: u64) -> bool {
        let newest = self.newest();
        let home = newest.homes.get(&SLOT);
        let is_it = |home: &Home| home.epoch >= epoch && self.running().any(|it| it == home.object);
        newest.generation >= generation && home.is_some_and(is_it)
    }
}

fn asks_of(proposer: &mut Proposer) -> impl Iterator<Item = (u32, Seat, SeatAsk)> {
    core::iter::from_fn(|| proposer.poll_ask())
}

impl Record {
    fn vote(&mut self, seat: Seat, title: &Title) {
        let is_last = !title.tenancy.seats.contains(&seat);
        let generation = title.tenancy.generation - u64::from(is_last);
        let tenancy = title.tenancy.clone();
        let vote = self.votes.entry((generation, title.ballot));
        let (accepted, seats) = vote.or_insert((tenancy, BTreeSet::new()));
        self.is_split |= *accepted != title.tenancy;
        seats.insert(seat);
    }

    /// By generation and ballot.
    fn chosen(&self) -> impl Iterator<Item = (u64, &Tenancy)> {
        let is_chosen = |(_, (_, seats)): &(_, &(_, BTreeSet<_>))| seats.len() >= self.needed;
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
        vec![Cloud::begun(self)]
    }

    fn actions(&self, cloud: &Cloud, actions: &mut Vec<Action>) {
        for message in &cloud.network {
            actions.push(Action::Arrive(message.clone()));
            if cloud.spent.losses < self.losses && self.answers_at_once(cloud, message) {
                actions.push(Action::ArriveInVain(message.clone()));
                if matches!(&**message, Message::Ask(Asker::Supervisor { .. }, _, _)) {
                    actions.push(Action::Vanish(message.clone()));
                }
            }
            if cloud.spent.duplicates < self.duplicates {
                actions.push(Action::ArriveTwice(message.clone()));
            }
        }
        for (index, supervisor) in cloud.supervisors.iter().enumerate() {
            if supervisor.attempts < self.attempts[index].len() {
                actions.push(Action::Attempt(index));
            }
        }
        for (index, host) in cloud.hosts.iter().enumerate() {
            let due = host.tenures.poll_timeout();
            let is_due = due.is_some_and(|at| at <= host.clock(cloud.now));
            if is_due && host.renewals < self.renewals[index] {
                actions.push(Action::Renew(index));
            }
            if !host.placed.is_empty() && cloud.spent.host_restarts < self.host_restarts {
                actions.push(Action::RestartDaemon(index));
                actions.push(Action::RestartMachine(index));
            }
            if cloud.spent.ends < self.ends {
                actions.extend(host.placed.keys().map(|it| Action::End(index, *it)));
            }
        }
        if cloud.spent.guardian_restarts < self.guardian_restarts {
            let guardians = 0..cloud.guardians.len();
            actions.extend(guardians.map(Action::RestartGuardian));
        }
        if let Some(next) = self.next_moment(cloud) {
            actions.push(Action::Tick { is_slow: false });
            if self.is_slow && next >= cloud.hosts[0].lost_at + TERM_TICKS {
                actions.push(Action::Tick { is_slow: true });
            }
        }
    }

    fn next_state(&self, before: &Cloud, action: Action) -> Option<Cloud> {
        let mut cloud = before.clone();
        match action {
            Action::Tick { is_slow } => cloud.tick(self.next_moment(before)?, is_slow),
            Action::Attempt(index) => cloud.attempt(self, index),
            Action::Renew(index) => {
                let now = cloud.now;
                cloud.hosts[index].change(|host| {
                    host.renewals += 1;
                    host.tenures.handle_timeout(host.clock(now));
                });
                cloud.ask_as_host(index);
            }
            Action::Arrive(message) => {
                cloud.network.remove(&message);
                cloud.arrive(self, &message, true);
            }
            Action::ArriveInVain(message) => {
                cloud.spent.losses += 1;
                cloud.network.remove(&message);
                cloud.arrive(self, &message, false);
            }
            Action::Vanish(message) => {
                cloud.spent.losses += 1;
                cloud.network.remove(&message);
                cloud.unanswered(self, &message);
            }
            Action::ArriveTwice(message) => {
                cloud.spent.duplicates += 1;
                cloud.arrive(self, &message, true);
            }
            Action::RestartGuardian(index) => {
                cloud.spent.guardian_restarts += 1;
                cloud.restart_guardian(index);
            }
            Action::RestartDaemon(index) => {
                cloud.spent.host_restarts += 1;
                cloud.restart_host(index, false);
            }
            Action::RestartMachine(index) => {
                cloud.spent.host_restarts += 1;
                cloud.restart_host(index, true);
            }
            Action::End(index, object) => {
                cloud.spent.ends += 1;
                cloud.end(index, object);
            }
        }
        Some(cloud)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = vec![
            Property::<Self>::always("one object runs", |_, cloud| cloud.running().count() <= 1),
            Property::<Self>::always("what runs was chosen last", |_, cloud| {
                let newest = cloud.newest();
                cloud.running().all(|it| newest.has(it))
            }),
            Property::<Self>::always("what is chosen is a chain", |_, cloud| {
                cloud.record.is_chain() && cloud.begins_as_chosen()
            }),
            Property::<Self>::always("a seat has promised what it accepted", |_, cloud| {
                let seats = cloud.guardians.iter().flat_map(|it| it.seats.values());
                let mut stored = seats.map(|taken| &taken.stored);
                stored.all(|it| it.accepted.as_ref().map(|it| it.ballot) <= Some(it.promised))
            }),
        ];
        if self.has_history {
            properties.push(Property::<Self>::always(
                "the register is one",
                |_, cloud| cloud.record.history.serialized_history().is_some(),
            ));
        }
        properties.extend(self.reaches.iter().map(|reach| match reach {
            Reach::First => {
                Property::<Self>::sometimes("an object runs", |_, cloud| cloud.has_reached(0, 1))
            }
            Reach::Second => {
                Property::<Self>::sometimes("a second one runs", |_, cloud| cloud.has_reached(0, 2))
            }
            Reach::SecondAfterReseat => {
                Property::<Self>::sometimes("a second one runs by other seats", |_, cloud| {
                    cloud.has_reached(1, 2)
                })
            }
            Reach::FirstOutlivesSecond => Property::<Self>::sometimes(
                "the first one runs by other seats, and the second is left out",
                |_, cloud| {
                    cloud.has_reached(1, 1) && cloud.newest().epoch < 2 && cloud.has_left_out()
                },
            ),
        }));
        properties
    }
}

impl Bounds {
    fn next_moment(&self, cloud: &Cloud) -> Option<u64> {
        self.moments.iter().copied().find(|at| *at > cloud.now)
    }

    /// Whether who asked hears the answer as soon as the question arrives, if it is not lost.
    fn answers_at_once(&self, cloud: &Cloud, message: &Message) -> bool {
        match message {
            Message::Ask(Asker::Supervisor { index, attempt, .. }, _, _) => {
                let supervisor = &cloud.supervisors[*index];
                supervisor.attempts == *attempt && supervisor.proposer.is_some()
            }
            Message::Ask(Asker::Host(renewal), _, _) => {
                let is_current = cloud.hosts[renewal.host].life == renewal.life;
                is_current && !self.has_late_answers
            }
            Message::Answer(..) => false,
        }
    }
}
