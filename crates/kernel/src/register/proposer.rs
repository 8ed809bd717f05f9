//! One attempt to change a tenancy.
//!
//! ```text
//!             most promised               most accepted
//! preparing ───────────────► accepting ─────────────────────────────────────────► chosen
//!     ▲                          │ these seats had moved on already: that is now
//!     └──────────────────────────┘ certain, and the new seats are asked
//! ```
//!
//! It ends in an [`Outcome`] as soon as that is certain; what comes later says nothing to it.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;

use wire::id::{NodeId, ObjectId};
use wire::tenancy::{Ballot, Home, Seat, SeatAnswer, SeatAsk, Tenancy, Title, majority};

/// What is to become different.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Change {
    /// The slot gets this object, which no attempt was about before. Else what seats have granted
    /// because of a former one, which was superseded since, would count with what others grant
    /// because of this one before it is chosen.
    Place {
        index: u32,
        object: ObjectId,
        node: NodeId,
    },
    /// These vote from now on. They are new, and have never voted.
    Seat(Vec<Seat>),
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Outcome {
    /// It was chosen. New seats begin with its tenancy, under the ballot zero.
    Chosen(Title),
    /// An object that would lose its slot may still run, for so long.
    Held { by_ms: u32 },
    /// Somebody else tries with this later ballot.
    Outvoted(Ballot),
    /// So many of the seats take part, which are too few.
    TooFew { present: usize, seats: usize },
}

/// One attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Proposer {
    change: Change,
    ballot: Ballot,
    /// With what the generation began whose seats are asked.
    first: Tenancy,
    /// What was accepted under the highest ballot, of what was heard in this generation.
    newest: Title,
    /// What the seats are to accept, once most have promised.
    next: Option<Title>,
    /// Counts the rounds of asks, so that an answer to an earlier one is known as such.
    round: u32,
    agreed: BTreeSet<Seat>,
    declined: BTreeSet<Seat>,
    unknown: BTreeSet<Seat>,
    outvoted: Option<Ballot>,
    /// Objects that hold a tenure at some seat, and the longest time that is left of it.
    held_ms: BTreeMap<ObjectId, u32>,
    /// Who said so of each of them.
    holders: BTreeMap<ObjectId, BTreeSet<Seat>>,
    /// The homes that were heard of, of any ballot.
    heard: BTreeMap<ObjectId, (u32, Home)>,
    /// The longest time for which a seat will not accept what it was asked to.
    closed_ms: Option<u32>,
    /// What the seats are asked to accept gives back what another attempt took.
    is_mending: bool,
    asks: Vec<(Seat, SeatAsk)>,
}

impl Proposer {
    /// Begins at the seats of `first`, with which a generation began, the newest that is known. No
    /// round of ballots may be used twice by one node.
    pub(crate) fn new(ballot: Ballot, first: Tenancy, change: Change) -> Self {
        let mut it = Self {
            change,
            ballot,
            newest: began(&first),
            first,
            next: None,
            round: 0,
            agreed: BTreeSet::new(),
            declined: BTreeSet::new(),
            unknown: BTreeSet::new(),
            outvoted: None,
            held_ms: BTreeMap::new(),
            holders: BTreeMap::new(),
            heard: BTreeMap::new(),
            closed_ms: None,
            is_mending: false,
            asks: Vec::new(),
        };
        it.prepare();
        it
    }

    /// What is to be asked now, of whom, and in which round. Each is answered at most once.
    pub(crate) fn poll_ask(&mut self) -> Option<(u32, Seat, SeatAsk)> {
        let (seat, ask) = self.asks.pop()?;
        Some((self.round, seat, ask))
    }

    /// Seats that their nodes do not know: they count for nothing, and should be replaced.
    pub(crate) fn unknown(&self) -> &BTreeSet<Seat> {
        &self.unknown
    }

    /// The last ballot that it used: the next attempt needs a larger one.
    pub(crate) fn ballot(&self) -> Ballot {
        self.ballot
    }

    /// With what the newest generation began that was heard of.
    pub(crate) fn first(&self) -> &Tenancy {
        &self.first
    }

    fn prepare(&mut self) {
        self.newest = began(&self.first);
        self.next = None;
        self.held_ms.clear();
        self.holders.clear();
        self.heard.clear();
        self.closed_ms = None;
        self.unknown.clear();
        self.ask_all(&SeatAsk::Prepare {
            ballot: self.ballot,
            first: self.first.clone(),
        });
    }

    fn accept(&mut self, tenancy: Tenancy) {
        let ballot = self.ballot;
        let next = Title { ballot, tenancy };
        self.ask_all(&SeatAsk::Accept(next.clone()));
        self.next = Some(next);
    }

    fn ask_all(&mut self, ask: &SeatAsk) {
        self.round += 1;
        self.agreed.clear();
        self.declined.clear();
        let seats = self.first.seats.iter();
        self.asks = seats.map(|seat| (*seat, ask.clone())).collect();
    }

    /// What a seat answered in a round, `None` when it did not.
    pub(crate) fn handle(
        &mut self,
        round: u32,
        seat: Seat,
        answer: Option<SeatAnswer>,
    ) -> Option<Outcome> {
        let is_asked = self.first.seats.contains(&seat);
        if round != self.round || !is_asked || self.agreed.contains(&seat) {
            return None;
        }
        match answer {
            Some(SeatAnswer::Promised { accepted, held }) if self.next.is_none() => {
                self.agreed.insert(seat);
                for (index, home) in &accepted.tenancy.homes {
                    self.heard.insert(home.object, (*index, *home));
                }
                if accepted.ballot > self.newest.ballot {
                    self.newest = accepted;
                }
                for (object, left_ms) in held {
                    self.holders.entry(object).or_default().insert(seat);
                    let longest = self.held_ms.entry(object).or_insert(left_ms);
                    *longest = left_ms.max(*longest);
                }
            }
            Some(SeatAnswer::Accepted) if self.next.is_some() => {
                self.agreed.insert(seat);
            }
            Some(SeatAnswer::Held { by_ms }) => {
                self.declined.insert(seat);
                self.closed_ms = self.closed_ms.max(Some(by_ms));
            }
            Some(SeatAnswer::Outvoted(by)) => {
                self.declined.insert(seat);
                self.outvoted = self.outvoted.max(Some(by));
            }
            Some(SeatAnswer::Unknown) => {
                self.declined.insert(seat);
                self.unknown.insert(seat);
            }
            Some(_) | None => {
                self.declined.insert(seat);
            }
        }
        let seats = self.first.seats.len();
        if self.agreed.len() >= majority(seats) {
            let is_complete = self.agreed.len() + self.declined.len() == seats;
            let is_clear = self.next.is_some() || self.strays().next().is_none();
            return (is_complete || is_clear).then(|| self.advance())?;
        }
        let possible = seats.saturating_sub(self.declined.len());
        (possible < majority(seats)).then(|| self.failed())
    }

    fn failed(&self) -> Outcome {
        let seats = self.first.seats.len();
        match (self.outvoted, self.closed_ms) {
            (Some(by), _) => Outcome::Outvoted(by),
            (None, Some(by_ms)) => Outcome::Held { by_ms },
            (None, None) => Outcome::TooFew {
                present: seats.saturating_sub(self.declined.len()),
                seats,
            },
        }
    }

    /// Most have said yes.
    fn advance(&mut self) -> Option<Outcome> {
        let generation = self.first.generation;
        let Some(next) = self.next.take() else {
            let newest = &self.newest.tenancy;
            if newest.generation != generation {
                // Perhaps not most seats have heard of it: that is done first.
                self.accept(newest.clone());
                return None;
            }
            if let Some(mended) = self.mended() {
                self.is_mending = true;
                self.accept(mended);
                return None;
            }
            let tenancy = self.changed();
            // What others have taken the slot from is a memory of few seats.
            let loses = |it: ObjectId| newest.has(it) && !tenancy.has(it);
            let losing = self.held_ms.iter().filter(|(it, _)| loses(**it));
            if let Some(by_ms) = losing.map(|(_, left_ms)| *left_ms).max() {
                // Nothing was said to the seats yet: whoever runs is not disturbed.
                return Some(Outcome::Held { by_ms });
            }
            self.accept(tenancy);
            return None;
        };
        if core::mem::take(&mut self.is_mending) {
            self.ballot.round += 1;
            self.prepare();
            return None;
        }
        let is_mine = match &self.change {
            Change::Place { .. } => next.tenancy.generation == generation,
            Change::Seat(seats) => *seats == next.tenancy.seats,
        };
        if is_mine {
            return Some(Outcome::Chosen(next));
        }
        self.first = next.tenancy;
        self.ballot.round += 1;
        self.prepare();
        None
    }

    /// Objects that hold a tenure and have lost their slot to another.
    fn strays(&self) -> impl Iterator<Item = ObjectId> + '_ {
        let held = self.held_ms.keys().copied();
        held.filter(|object| !self.newest.tenancy.has(*object))
    }

    /// A seat has accepted that another object takes a slot, most others have not, and have gone on
    /// to renew the former one: it never lost the slot, and gets it back.
    fn mended(&self) -> Option<Tenancy> {
        let seats = self.first.seats.len();
        let is_held = |object: &ObjectId| {
            let holders = self.holders.get(object).map_or(0, BTreeSet::len);
            holders >= majority(seats)
        };
        let mut next = self.newest.tenancy.clone();
        for object in self.strays().filter(is_held) {
            let (index, home) = self.heard.get(&object)?;
            next.homes.insert(*index, *home);
        }
        (next != self.newest.tenancy).then_some(next)
    }

    fn changed(&self) -> Tenancy {
        let mut next = self.newest.tenancy.clone();
        match &self.change {
            Change::Place {
                index,
                object,
                node,
            } => {
                next.epoch += 1;
                let home = Home {
                    object: *object,
                    node: *node,
                    epoch: next.epoch,
                };
                next.homes.insert(*index, home);
            }
            Change::Seat(seats) => {
                next.seats.clone_from(seats);
                next.generation += 1;
            }
        }
        next
    }
}

/// The title with which a generation begins.
pub(crate) fn began(first: &Tenancy) -> Title {
    Title {
        ballot: Ballot::default(),
        tenancy: first.clone(),
    }
}
