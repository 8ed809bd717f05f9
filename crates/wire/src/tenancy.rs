//! Which object is the one of each slot of an app that never runs twice, and who votes on that:
//! between kernels, and on their disks. What it all means is in `docs/protocols/once.md`.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::id::{AppId, NodeId, ObjectId, Version};

/// Most seats of one app: three, and as many again while they change.
pub const SEATS_MAX: usize = 8;

/// The number of an attempt to change a tenancy (`CASPaxos`, Rystsov 2018). No two proposers ever
/// use the same one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
pub struct Ballot {
    /// Counts up.
    pub round: u64,
    /// Short id of the proposer.
    pub node: u64,
}

/// A vote on the tenancy of an app. New ones are drawn for every generation of seats, also by a
/// node that stays, so that no two generations share any state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Seat {
    /// Who has it.
    pub node: NodeId,
    /// Random, drawn by that node. What lost its disk has lost its seats.
    pub number: u64,
}

/// The one object of a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Home {
    /// The object.
    pub object: ObjectId,
    /// Where it is.
    pub node: NodeId,
    /// Larger than that of any object that had the slot before.
    pub epoch: u64,
}

/// The value of an app's register.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Tenancy {
    /// Who votes on the next one.
    pub seats: Vec<Seat>,
    /// Times that the seats changed.
    pub generation: u64,
    /// How long one renewal lets an object run, in thousandths of a second.
    pub term_ms: u32,
    /// By slot.
    pub homes: BTreeMap<u32, Home>,
    /// The largest epoch that was ever given to a home.
    pub epoch: u64,
}

impl Tenancy {
    /// Whether the object is the one of its slot.
    #[must_use]
    pub fn has(&self, object: ObjectId) -> bool {
        self.homes.values().any(|home| home.object == object)
    }
}

/// How many of `seats` are most of them.
#[must_use]
pub fn majority(seats: usize) -> usize {
    (seats / 2).saturating_add(1)
}

/// A tenancy and the ballot under which it was accepted. That with which a generation of seats
/// begins has the ballot zero.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Title {
    /// Under which ballot.
    pub ballot: Ballot,
    /// What it says.
    pub tenancy: Tenancy,
}

/// An object that seeks the right to run, from when it begins to until it gives that up. Messages
/// overtake each other: what was said of a former claim must not be taken for the present one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Claim {
    /// The object.
    pub object: ObjectId,
    /// Random, drawn by its host. Zero is for what a seat assumes.
    pub number: u64,
}

/// What is asked of a seat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeatAsk {
    /// Accept nothing older than this any more, and say what was accepted.
    Prepare {
        /// The ballot.
        ballot: Ballot,
        /// The tenancy with which the generation of these seats began.
        first: Tenancy,
    },
    /// Accept this.
    Accept(Title),
    /// This was chosen: keep it, if nothing newer is kept.
    Learn(Title),
    /// Let the object run for another term.
    Renew {
        /// Who asks.
        claim: Claim,
        /// Under which title.
        ballot: Ballot,
        /// [`Tenancy::generation`] of that title.
        generation: u64,
    },
    /// The object does not run, and will not by this claim.
    Release(Claim),
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeatAnswer {
    /// To [`SeatAsk::Prepare`].
    Promised {
        /// What was accepted last.
        accepted: Title,
        /// Objects that hold a tenure here, and for how many more thousandths of a second.
        held: Vec<(ObjectId, u32)>,
    },
    /// To [`SeatAsk::Accept`] and [`SeatAsk::Learn`].
    Accepted,
    /// To [`SeatAsk::Renew`]: it may run. To [`SeatAsk::Release`]: heard.
    Renewed,
    /// To [`SeatAsk::Renew`] and [`SeatAsk::Accept`]: too little is known here yet.
    Behind,
    /// To [`SeatAsk::Prepare`] and [`SeatAsk::Accept`]: a later ballot was promised.
    Outvoted(Ballot),
    /// To [`SeatAsk::Accept`]: an object that would lose its slot may still run.
    Held {
        /// For so many thousandths of a second.
        by_ms: u32,
    },
    /// To [`SeatAsk::Renew`]: this was accepted here since. It may never be chosen: only what most
    /// seats say counts.
    Superseded(Title),
    /// The node does not have that seat, or has it no more.
    Unknown,
}

/// A seat on the disk of its node; the key is its number, big endian.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct StoredSeat {
    /// Which app it votes on.
    pub app: AppId,
    /// [`crate::peer::Wanted::born`] of that app.
    pub born: Version,
    /// The tenancy with which its generation began.
    pub first: Option<Tenancy>,
    /// Nothing older than this is accepted.
    pub promised: Ballot,
    /// What was accepted last.
    pub accepted: Option<Title>,
}
