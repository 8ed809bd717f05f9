//! Between a node and the shims that hold its objects.
//!
//! A shim is one small process per object. It outlives the node's daemon: what it needs to know is
//! in its directory, and so is what the daemon must learn after an absence.
//!
//! # The conversation
//!
//! ```text
//! node                                            shim
//!   writes DIR/launch, starts `welkin shim DIR` ►  Preparing: namespaces, cgroup, root
//!                                                  listens on DIR/shim.sock
//!   connects                                   ►
//!   ShimRequest::Watch                         ►   ShimReport::Running { pid } once the program runs
//!   ShimRequest::Signal | Usage | Stop         ►   …
//!   ShimRequest::Tenure                        ►   freezes and kills at its moments, by itself
//!                                              ◄   ShimReport::Exited; DIR/exit was written first
//! ```
//!
//! Any number of connections may be open at once. A connection that begins with a
//! [`crate::stream::Kind::Open`] frame is a stream of bytes ([`crate::stream`]); one that begins
//! with a [`crate::stream::Kind::ShimRequest`] frame is control. The shim's states are
//! *preparing*, *running*, *stopping*, *frozen*, *ending* and *exited*; in the last it flushes what
//! callers still read, for at most five seconds, and ends.
//!
//! # The directory of an object
//!
//! | file | is |
//! | --- | --- |
//! | `launch` | encoded [`Launch`], written by the node before the shim starts |
//! | `shim.sock` | the shim listens here while it lives |
//! | `shim.pid` | process id of the shim, then of the program, one a line, once it runs |
//! | `exit` | encoded [`crate::fact::Exit`], written atomically and synced before anybody is told |
//! | `log.N` | the log, oldest N first; see `docs/formats/log.md` |
//! | `scratch/` | the files that the object changed |

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::fact::{Exit, ExitReason, Usage};
use crate::id::{NodeId, ObjectId, UnixMillis};
use crate::spec::{Program, Resources, Stop};

/// Longest `launch` file.
pub const LAUNCH_BYTES_MAX: usize = 512 * 1024;

/// All that a shim needs to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Launch {
    /// The object.
    pub object: ObjectId,
    /// Its node.
    pub node: NodeId,
    /// Name of its app, for `WELKIN_APP` and the host name inside.
    pub app_name: String,
    /// Which of the app's objects, for `WELKIN_INDEX`.
    pub index: u32,
    /// Times it was started before, for `WELKIN_RESTARTS`.
    pub restarts: u32,
    /// What to run.
    pub program: Program,
    /// Limits.
    pub resources: Resources,
    /// How it is asked to end.
    pub stop: Stop,
    /// How much log is kept.
    pub log_bytes_max: u64,
    /// Path of the node's state directory, which no object may see.
    pub hidden_directories: Vec<String>,
    /// Of an app that never runs twice: larger than that of any object that had the slot before,
    /// for `WELKIN_EPOCH`. 0 otherwise.
    pub epoch: u64,
    /// Of an app that never runs twice: how long it may run unless that is renewed.
    pub tenure: Option<Tenure>,
}

/// Until when an object may run. The shim keeps to it by itself: its daemon may be stopped, or
/// dead. Readings of `CLOCK_BOOTTIME` in microseconds; one that has passed takes effect at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tenure {
    /// Then everything in the object is frozen, until a later tenure comes.
    pub freeze_at_us: u64,
    /// Then everything in the object is killed.
    pub kill_at_us: u64,
}

/// What a node asks of a shim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShimRequest {
    /// Say what happens, from now on, beginning with the state it is in.
    Watch,
    /// Send this signal to the program.
    Signal {
        /// Its number.
        signal: u8,
    },
    /// Ask the program to end; kill everything in the object when the grace period is over.
    Stop {
        /// How long it may take.
        grace_ms: u32,
    },
    /// Measure what the object uses.
    Usage,
    /// The object may run so long. Only for one that was launched with a tenure.
    Tenure(Tenure),
}

/// What a shim says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShimReport {
    /// The program runs.
    Running {
        /// Its process id as the node sees it.
        pid: u32,
        /// When it started.
        started: UnixMillis,
        /// Protections that this machine could not give, as sentences.
        protections_off: Vec<String>,
    },
    /// The program has ended, or could not be started.
    Exited(Exit),
    /// The answer to [`ShimRequest::Usage`].
    Usage(Usage),
}

/// What a node's driver tells the kernel of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DriverReport {
    /// The program runs.
    Running {
        /// Its process id as the node sees it.
        pid: u32,
        /// When it started.
        started: UnixMillis,
        /// Protections that this machine could not give, as sentences.
        protections_off: Vec<String>,
    },
    /// The program has ended, or could not be started.
    Exited(Exit),
}

impl DriverReport {
    /// The program was never started, for this reason.
    #[must_use]
    pub fn not_started(code: u8, message: String, at: UnixMillis) -> Self {
        Self::Exited(Exit {
            reason: ExitReason::NotStarted { code, message },
            at,
            asked: false,
        })
    }
}
