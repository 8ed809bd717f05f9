//! One attempt to change a tenancy.
//!
//! ```text
//!             most promised               most accepted
//! preparing ───────────────► accepting ─────────────────────────────────────────► chosen
//!     ▲                          │ these seats had moved on already: that is now
//!     └──────────────────────────┘ certain, and the new seats are asked
//! ```
//!
//! It builds on what was accepted last, of what most seats may have accepted. Where another object
//! than that says holds a tenure, it hears all seats first: perhaps they rule it out.
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
    /// What each seat that has promised had accepted then.
    accepted: BTreeMap<Seat, Title>,
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
    /// The longest time for which a seat will not accept what it was asked to.
    closed_ms: Option<u32>,
    asks: Vec<(Seat, SeatAsk)>,
}

impl Proposer {
    /// Begins at the seats of `first`, with which a generation began, the newest that is known. No
    /// round of ballots may be used twice by one node.
    pub(crate) fn new(ballot: Ballot, first: Tenancy, change: Change) -> Self {
        let mut it = Self {
            change,
            ballot,
            first,
            accepted: BTreeMap::new(),
            next: None,
            round: 0,
            agreed: BTreeSet::new(),
            declined: BTreeSet::new(),
            unknown: BTreeSet::new(),
            outvoted: None,
            held_ms: BTreeMap::new(),
            closed_ms: None,
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
        self.next = None;
        self.accepted.clear();
        self.held_ms.clear();
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
                self.accepted.insert(seat, accepted);
                for (object, left_ms) in held {
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
            let is_clear = self.next.is_some() || !self.is_doubtful();
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
            let newest = self.newest();
            if newest.generation != generation {
                // Perhaps not most seats have heard of it: that is done first.
                self.accept(newest.clone());
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

    /// What was accepted last, of what most seats may have accepted. Whoever has promised will not
    /// accept anything older any more: where too many had not, it never was chosen, nor will be.
    fn newest(&self) -> &Tenancy {
        let seats = self.first.seats.len();
        let may_be_chosen = |title: &&Title| {
            let heard = self.accepted.values();
            let without = heard.filter(|it| it.ballot < title.ballot).count();
            seats - without >= majority(seats)
        };
        let possible = self.accepted.values().filter(may_be_chosen);
        let newest = possible.max_by_key(|title| title.ballot);
        newest.map_or(&self.first, |title| &title.tenancy)
    }

    /// Whether an object holds a tenure that would have lost its slot before.
    fn is_doubtful(&self) -> bool {
        let newest = self.newest();
        self.held_ms.keys().any(|object| !newest.has(*object))
    }

    fn changed(&self) -> Tenancy {
        let mut next = self.newest().clone();
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
