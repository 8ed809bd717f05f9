//! Apps that run at certain times: when, and what is remembered of their runs.
//!
//! The whole conversation is in `docs/protocols/jobs.md`.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::RangeInclusive;

use serde::{Deserialize, Serialize};

use crate::fact::Exit;
use crate::id::{NodeId, ObjectId, UnixMillis, Version};

/// Longest cron expression: five full lists of numbers are shorter.
pub const CRON_BYTES_MAX: usize = 512;
/// Shortest and longest [`Schedule::Every::interval_ms`]: below, a run would be due before the one
/// before it has found its place; above, nobody would wait.
pub const EVERY_MS_RANGE: RangeInclusive<u64> = 1_000..=366 * 86_400_000;
/// Runs that a record remembers.
pub const RUNS_MAX: usize = 8;

/// When an app runs. All times are UTC.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Schedule {
    /// Once.
    At {
        /// When.
        at: UnixMillis,
    },
    /// Again and again, first one interval after the app was made.
    Every {
        /// From one run that is due to the next, in thousandths of a second.
        interval_ms: u64,
    },
    /// At every minute that fits.
    Cron {
        /// Five fields as in crontab(5), or a word such as `@hourly`.
        expression: String,
    },
}

impl Schedule {
    /// Whether there is no end to its runs.
    #[must_use]
    pub fn recurs(&self) -> bool {
        match self {
            Self::At { .. } => false,
            Self::Every { .. } | Self::Cron { .. } => true,
        }
    }
}

/// The runs of an app, as its record keeps them.
///
/// Joins: the larger birth; of one birth, all runs by their numbers, the last [`RUNS_MAX`] of them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Job {
    /// [`crate::peer::Wanted::born`] of the app whose runs these are.
    pub born: Version,
    /// By their numbers, which count up from 1.
    pub runs: Vec<Run>,
}

impl Job {
    /// This becomes the join of both: commutative, associative and idempotent.
    pub fn join(&mut self, other: Self) {
        if other.born > self.born {
            *self = other;
        } else if other.born == self.born {
            for run in other.runs {
                self.put(run);
            }
        }
    }

    /// Joins one run with what is known of it.
    pub fn put(&mut self, run: Run) {
        match self.runs.binary_search_by_key(&run.number, |it| it.number) {
            Ok(at) => {
                if let Some(known) = self.runs.get_mut(at) {
                    known.join(run);
                }
            }
            Err(at) => self.runs.insert(at, run),
        }
        let surplus = self.runs.len().saturating_sub(RUNS_MAX);
        self.runs.drain(..surplus);
    }
}

/// One run of an app.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Run {
    /// Counts up from 1.
    pub number: u64,
    /// When it was due, or somebody asked for it.
    pub due: UnixMillis,
    /// Up to here it is settled which runs there are: everything that was due has its run, or has
    /// been skipped.
    pub heeded: UnixMillis,
    /// So many were due while it went on, and were skipped.
    pub skipped: u32,
    /// The object that carried it out; nothing until it has a place.
    pub attempt: Option<Attempt>,
}

impl Run {
    /// A run that begins, at this moment, because it was due at that one.
    #[must_use]
    pub fn new(number: u64, due: UnixMillis, now: UnixMillis) -> Self {
        Self {
            number,
            due,
            heeded: due.max(now),
            skipped: 0,
            attempt: None,
        }
    }

    fn join(&mut self, other: Self) {
        self.due = self.due.max(other.due);
        self.heeded = self.heeded.max(other.heeded);
        self.skipped = self.skipped.max(other.skipped);
        let tells_more = {
            let key = |it| Option::map(it, Attempt::key);
            key(other.attempt.as_ref()) > key(self.attempt.as_ref())
        };
        if tells_more {
            self.attempt = other.attempt;
        }
    }
}

/// An object that carries out a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Attempt {
    /// The object.
    pub object: ObjectId,
    /// Where.
    pub node: NodeId,
    /// When its program last started; nothing when it has not.
    pub started: Option<UnixMillis>,
    /// How it ended; nothing while it has not, or when nobody knows.
    pub exit: Option<Exit>,
}

impl Attempt {
    /// Orders what is known of a run that more than one object carried out: what came to its own
    /// end tells more than what was ended, and that more than what goes on or was lost.
    fn key(&self) -> impl Ord + '_ {
        let ended = self.exit.as_ref().map(|it| (!it.asked, it.at, &it.reason));
        (ended, self.started, self.object, self.node)
    }
}
