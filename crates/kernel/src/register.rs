//! The register of an app that never runs twice: one value, the [`Tenancy`], with ballots, kept by
//! the *seats* of the app (`CASPaxos`, Rystsov 2018). The whole protocol is in
//! `docs/protocols/once.md`.
//!
//! What it is not: it sends nothing, knows no node by more than its id, and decides nothing about
//! places. [`Seats`] are the votes that this node has; a [`Proposer`] is one attempt to change a
//! tenancy. The hub carries asks and answers between them.
//!
//! # A seat
//!
//! ```text
//!          Prepare(b, first): accepted (0, first)           Accept(b, v)
//! (taken) ───────────────────────────────────────► promised b ─────────► accepted (b, v)
//!                                                      ▲                      │
//!                                                      └───── Prepare(b') ────┘
//! ```
//!
//! Seats are of one *generation*. Its last tenancy is one of the next generation, with other seats:
//! from then on nothing else is accepted here, and everybody is sent on.
//!
//! Beside that, in memory, it knows until when each object *holds a tenure*: it accepts nothing that
//! takes the slot from one that does. After a restart it assumes that all of them do.

mod proposer;
#[cfg(test)]
mod tests;

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use wire::id::{AppId, Version};
use wire::tenancy::{Ballot, Claim, SeatAnswer, SeatAsk, StoredSeat, Tenancy, Title};

pub(crate) use self::proposer::{Change, Outcome, Proposer};
use crate::instant::Instant;
use crate::limits::SEATS_ON_NODE_MAX;

/// The seats that this node has.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Seats {
    seats: BTreeMap<u64, Taken>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Taken {
    stored: StoredSeat,
    /// Until when objects hold a tenure here. What is assumed is released by nobody: an object may
    /// have asked for it before what it releases, or after.
    held: BTreeMap<Claim, Instant>,
    /// Until when nobody gets a tenure here who has none, because whoever prepared was told so.
    closed_until: Instant,
}

impl Seats {
    /// Back from the disk. Who renewed before is forgotten, so all are taken to have.
    pub(crate) fn restore(&mut self, now: Instant, number: u64, stored: StoredSeat) {
        let mut taken = Taken {
            stored,
            held: BTreeMap::new(),
            closed_until: now,
        };
        taken.hold_all(now);
        self.seats.insert(number, taken);
    }

    /// A new vote on an app; whether there was room. To be kept before it is told.
    pub(crate) fn take(&mut self, number: u64, app: AppId, born: Version) -> bool {
        if self.seats.len() >= SEATS_ON_NODE_MAX {
            return false;
        }
        let stored = StoredSeat {
            app,
            born,
            first: None,
            promised: Ballot::default(),
            accepted: None,
        };
        let taken = Taken {
            stored,
            held: BTreeMap::new(),
            closed_until: Instant::default(),
        };
        self.seats.insert(number, taken);
        true
    }

    /// What is to be kept of a seat.
    pub(crate) fn get(&self, number: u64) -> Option<&StoredSeat> {
        self.seats.get(&number).map(|taken| &taken.stored)
    }

    /// With what the newest generation began in which this node has a seat.
    pub(crate) fn first(&self, app: AppId, born: Version) -> Option<&Tenancy> {
        let votes_on_it = |it: &&StoredSeat| it.app == app && it.born == born;
        let seats = self.seats.values().map(|taken| &taken.stored);
        let known = seats.filter(votes_on_it).filter_map(|it| it.first.as_ref());
        known.max_by_key(|first| first.generation)
    }

    /// The apps that this node votes on.
    pub(crate) fn apps(&self) -> impl Iterator<Item = (AppId, Version)> + '_ {
        let stored = self.seats.values().map(|taken| &taken.stored);
        stored.map(|it| (it.app, it.born))
    }

    /// How long an object of such an app may still run, as far as the seats here know.
    pub(crate) fn tenure_left(
        &self,
        now: Instant,
        of: impl Fn(AppId, Version) -> bool,
    ) -> Option<Duration> {
        let seats = self.seats.values();
        let seats = seats.filter(|taken| of(taken.stored.app, taken.stored.born));
        let until = seats.flat_map(|taken| taken.held.values()).max()?;
        let left = until.since(now);
        (left > Duration::ZERO).then_some(left)
    }

    /// Gives up the seats of such apps; says which, for the disk.
    pub(crate) fn leave(&mut self, is_over: impl Fn(AppId, Version) -> bool) -> Vec<u64> {
        let over = self
            .seats
            .iter()
            .filter(|(_, taken)| is_over(taken.stored.app, taken.stored.born));
        let over: Vec<u64> = over.map(|(number, _)| *number).collect();
        for number in &over {
            self.seats.remove(number);
        }
        over
    }

    /// Answers, and says whether the seat has to be kept anew before the answer is told.
    pub(crate) fn handle(&mut self, now: Instant, number: u64, ask: SeatAsk) -> (SeatAnswer, bool) {
        let Some(taken) = self.seats.get_mut(&number) else {
            return (SeatAnswer::Unknown, false);
        };
        taken.held.retain(|_, until| *until > now);
        match ask {
            SeatAsk::Prepare { ballot, first } => taken.prepare(now, ballot, first),
            SeatAsk::Accept(title) => taken.accept(now, title),
            SeatAsk::Learn(title) => taken.learn(now, title),
            SeatAsk::Renew {
                claim,
                ballot,
                generation,
            } => (taken.renew(now, claim, ballot, generation), false),
            SeatAsk::Release(claim) => {
                taken.held.remove(&claim);
                (SeatAnswer::Renewed, false)
            }
        }
    }
}

impl Taken {
    fn prepare(&mut self, now: Instant, ballot: Ballot, first: Tenancy) -> (SeatAnswer, bool) {
        if self.stored.promised >= ballot {
            return (SeatAnswer::Outvoted(self.stored.promised), false);
        }
        self.stored.promised = ballot;
        self.closed_until = now + term(&first);
        let began = Title {
            ballot: Ballot::default(),
            tenancy: first,
        };
        let accepted = match &self.stored.accepted {
            Some(accepted) => accepted.clone(),
            None => {
                self.keep(now, began.clone());
                began.clone()
            }
        };
        self.stored.first.get_or_insert(began.tenancy);
        let left = |(claim, until): (&Claim, &Instant)| (claim.object, millis(until.since(now)));
        let held = self.held.iter().map(left).collect();
        (SeatAnswer::Promised { accepted, held }, true)
    }

    fn accept(&mut self, now: Instant, title: Title) -> (SeatAnswer, bool) {
        if self.stored.promised > title.ballot {
            return (SeatAnswer::Outvoted(self.stored.promised), false);
        }
        if self.stored.accepted.is_none() {
            // Who may run is not known here.
            return (SeatAnswer::Behind, false);
        }
        let loses = |(claim, _): &(&Claim, &Instant)| !title.tenancy.has(claim.object);
        let until = self.held.iter().filter(loses).map(|(_, until)| *until);
        if let Some(until) = until.max() {
            let by_ms = millis(until.since(now)).max(1);
            return (SeatAnswer::Held { by_ms }, false);
        }
        self.stored.promised = title.ballot;
        self.keep(now, title);
        (SeatAnswer::Accepted, true)
    }

    /// What was chosen can be kept whatever was promised: whoever prepared after it was chosen has
    /// heard of it from another seat. Nothing older can be chosen any more.
    fn learn(&mut self, now: Instant, title: Title) -> (SeatAnswer, bool) {
        let known = self.stored.accepted.as_ref().map(|it| it.ballot);
        if known >= Some(title.ballot) {
            return (SeatAnswer::Accepted, false);
        }
        if title.ballot == Ballot::default() {
            self.stored.first.get_or_insert(title.tenancy.clone());
        }
        self.stored.promised = title.ballot.max(self.stored.promised);
        self.keep(now, title);
        (SeatAnswer::Accepted, true)
    }

    fn keep(&mut self, now: Instant, title: Title) {
        let was_new = self.stored.accepted.is_none();
        self.stored.accepted = Some(title);
        if was_new {
            // What the former seats have granted until now is not known here.
            self.hold_all(now);
        }
    }

    fn renew(&mut self, now: Instant, claim: Claim, ballot: Ballot, generation: u64) -> SeatAnswer {
        let Some(title) = &self.stored.accepted else {
            return SeatAnswer::Behind;
        };
        let is_promised = self.stored.promised > title.ballot && self.closed_until > now;
        if is_promised && !self.held.contains_key(&claim) {
            // Or a proposal that took its slot would be accepted by some and refused by the others.
            return SeatAnswer::Outvoted(self.stored.promised);
        }
        if title.tenancy.generation == generation && title.tenancy.has(claim.object) {
            self.held.insert(claim, now + term(&title.tenancy));
            return SeatAnswer::Renewed;
        }
        if title.ballot < ballot {
            return SeatAnswer::Behind;
        }
        SeatAnswer::Superseded(title.clone())
    }

    fn hold_all(&mut self, now: Instant) {
        let Some(title) = &self.stored.accepted else {
            return;
        };
        let until = now + term(&title.tenancy);
        for home in title.tenancy.homes.values() {
            let claim = Claim {
                object: home.object,
                number: 0,
            };
            self.held.insert(claim, until);
        }
    }
}

fn term(tenancy: &Tenancy) -> Duration {
    Duration::from_millis(tenancy.term_ms.into())
}

/// In thousandths of a second, rounded up: nobody comes back too early.
fn millis(span: Duration) -> u32 {
    u32::try_from(span.as_micros().div_ceil(1000)).unwrap_or(u32::MAX)
}
