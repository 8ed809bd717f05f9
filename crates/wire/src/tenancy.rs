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

/// A vote on the tenancy of an app.
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
    /// By slot.
    pub homes: BTreeMap<u32, Home>,
}

/// A tenancy that was chosen.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Title {
    /// Under which ballot.
    pub ballot: Ballot,
    /// What it says.
    pub tenancy: Tenancy,
}

/// What is asked of a seat.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeatAsk {
    /// Accept nothing older than this any more, and say what was accepted.
    Prepare(Ballot),
    /// Accept this.
    Accept(Title),
    /// Let the object run for so long from now.
    Renew {
        /// Under which title.
        ballot: Ballot,
        /// The object.
        object: ObjectId,
        /// Thousandths of a second.
        term_ms: u32,
    },
    /// The object does not run, and will not without a renewal.
    Release(ObjectId),
}

/// What it answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SeatAnswer {
    /// To [`SeatAsk::Prepare`].
    Promised {
        /// What was accepted last.
        accepted: Option<Title>,
        /// Objects that hold a tenure here, and for how many more thousandths of a second.
        held: Vec<(ObjectId, u32)>,
    },
    /// To [`SeatAsk::Accept`].
    Accepted,
    /// To [`SeatAsk::Renew`]: it may run. To [`SeatAsk::Release`]: heard.
    Renewed,
    /// To [`SeatAsk::Prepare`] and [`SeatAsk::Accept`]: a later ballot was promised.
    Outvoted(Ballot),
    /// To [`SeatAsk::Accept`]: an object that would lose its slot may still run.
    Held {
        /// For so many thousandths of a second.
        by_ms: u32,
    },
    /// To [`SeatAsk::Renew`]: the title is old; this is the newest one known here.
    Superseded(Title),
    /// The node does not have that seat, or has it no more.
    Unknown,
}

/// A seat on the disk of its node; the key is its number, big endian.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredSeat {
    /// Which app it votes on.
    pub app: AppId,
    /// [`crate::peer::Wanted::born`] of that app.
    pub born: Version,
    /// Nothing older than this is accepted.
    pub promised: Ballot,
    /// What was accepted last.
    pub accepted: Option<Title>,
    /// The longest term of a tenure that it has granted, in thousandths of a second.
    pub term_ms: u32,
}
