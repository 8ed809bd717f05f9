//! What is known about nodes and objects.
//!
//! A fact has one owner, the node that it is about, and a version that only the owner raises.
//! Everybody else holds the newest version that reached them, which may be old: a hint.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::health::HealthState;
use crate::id::{AppId, NodeId, ObjectId, UnixMillis, Version};
use crate::spec::Restart;

/// Most addresses a node tells of itself.
pub const ADDRESSES_MAX: usize = 16;
/// Most labels on a node.
pub const LABELS_MAX: usize = 64;

/// What a node says about itself; spread by gossip.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeFacts {
    /// Whose they are.
    pub node: NodeId,
    /// Raised by the owner at each change; never repeats across restarts.
    pub version: u64,
    /// The name people use.
    pub name: String,
    /// Version of the program.
    pub program_version: String,
    /// The machine.
    pub platform: Platform,
    /// Where it can be reached: `ip:port`, as text so that nothing here resolves names.
    pub addresses: Vec<String>,
    /// `label.KEY` in constraints.
    pub labels: BTreeMap<String, String>,
    /// Whether new objects may come.
    pub availability: Availability,
    /// What it has, holds and uses.
    pub capacity: Capacity,
    /// What its program knows of what is said between nodes: [`crate::LEVEL`].
    #[serde(default = "first_level")]
    pub level: u32,
    /// Members that carry packets to it, for those that cannot reach its addresses; at most
    /// [`crate::relay::RELAYS_MAX`].
    #[serde(default)]
    pub relays: Vec<NodeId>,
}

fn first_level() -> u32 {
    1
}

/// What kind of machine a node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `x86_64`, `aarch64`, as `uname -m` says.
    pub arch: String,
    /// Kernel release.
    pub kernel: String,
}

/// Whether a node takes new objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Availability {
    /// New objects may come.
    Open,
    /// No new objects; those that are here are being moved away.
    Draining,
    /// The node is being stopped: everything leaves at once.
    Leaving,
}

/// What a node has, has promised, and uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Capacity {
    /// Thousandths of a core that exist.
    pub cpu_millis: u32,
    /// Bytes of memory that exist.
    pub memory_bytes: u64,
    /// Thousandths of a core promised to objects.
    pub cpu_held_millis: u32,
    /// Bytes of memory promised to objects.
    pub memory_held_bytes: u64,
    /// Thousandths of a core busy, lately.
    pub cpu_used_millis: u32,
    /// Bytes of memory that are not available to new programs.
    pub memory_used_bytes: u64,
    /// Objects that are alive.
    pub objects: u32,
}

/// What the host measures of its machine now and then.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Load {
    /// Thousandths of a core busy since the last measurement.
    pub cpu_used_millis: u32,
    /// Bytes of memory not available to new programs.
    pub memory_used_bytes: u64,
}

/// An object as its node knows it. The node that hosts it owns this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ObjectFacts {
    /// Which object.
    pub object: ObjectId,
    /// Of which app.
    pub app: AppId,
    /// The app's name.
    pub app_name: String,
    /// Which of the app's objects.
    pub index: u32,
    /// The hosting node.
    pub node: NodeId,
    /// Raised each time the object changes hands.
    pub epoch: u64,
    /// Raised by the hosting node at each change; orders reports within an epoch.
    pub revision: u64,
    /// What it does now.
    pub phase: Phase,
    /// Times it was started again here.
    pub restarts: u32,
    /// When it came into being.
    pub created: UnixMillis,
    /// When its program last started.
    pub started: Option<UnixMillis>,
    /// How its program last ended.
    pub last_exit: Option<Exit>,
    /// Process id of the program on the node.
    pub pid: Option<u32>,
    /// Protections that this machine could not give it, as sentences.
    pub protections_off: Vec<String>,
    /// It ended because somebody asked for it; `start` runs it again.
    pub halted: bool,
    /// Which change of its app's specification it runs: [`crate::peer::Wanted::revised`].
    pub revised: Version,
    /// The restart policy that its node follows.
    pub restart: Restart,
    /// Whether it does its work; nothing when its app has no check.
    pub health: Option<HealthState>,
    /// The number of the run that it carries out; 0 when its app has no schedule.
    #[serde(default)]
    pub run: u64,
}

impl ObjectFacts {
    /// Whether others can rely on it: its program runs and is, as far as is checked, healthy.
    #[must_use]
    pub fn serves(&self) -> bool {
        let is_well = matches!(self.health, None | Some(HealthState::Healthy));
        self.phase == Phase::Running && is_well
    }
}

/// What an object does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Its shim is being made.
    Starting,
    /// Its program runs.
    Running,
    /// Its program ended; it waits to be started again.
    Waiting,
    /// It was asked to end.
    Stopping,
    /// It has ended and will not be started again.
    Ended,
    /// It could not be started.
    Failed,
}

impl Phase {
    /// Whether the object holds resources: it runs or will run again by itself.
    #[must_use]
    pub fn is_alive(self) -> bool {
        match self {
            Self::Starting | Self::Running | Self::Waiting | Self::Stopping => true,
            Self::Ended | Self::Failed => false,
        }
    }
}

/// How a program ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Exit {
    /// Why.
    pub reason: ExitReason,
    /// When.
    pub at: UnixMillis,
    /// It had been asked to end: it may not have ended by itself.
    #[serde(default)]
    pub asked: bool,
}

/// Why a program ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ExitReason {
    /// It returned this code.
    Code(u8),
    /// This signal ended it.
    Signal(u8),
    /// The kernel killed it because its memory limit was reached.
    OutOfMemory,
    /// It could not be started: the code that a shell would give (126 or 127), and why.
    NotStarted {
        /// 127 when the program was not found, 126 when it could not be executed, 125 otherwise.
        code: u8,
        /// What was wrong, as a sentence.
        message: String,
    },
    /// Its node or its shim ended without saying how it ended.
    Lost,
    /// It was killed because it had lost sight of the guardians of its app, which never runs twice.
    Lapsed,
    /// It was ended because its health check failed, with this reason.
    Unhealthy(String),
    /// It was ended because it ran longer than its deadline.
    Overdue,
}

impl ExitReason {
    /// The exit code a shell would report: the program's own, or 128 + signal.
    #[must_use]
    pub fn code(&self) -> u8 {
        match self {
            Self::Code(code) | Self::NotStarted { code, .. } => *code,
            Self::Signal(signal) => signal.saturating_add(128),
            // As timeout(1) says it.
            Self::Overdue => 124,
            Self::OutOfMemory | Self::Lost | Self::Lapsed | Self::Unhealthy(_) => 137,
        }
    }

    /// Whether the program did what it was asked to.
    #[must_use]
    pub fn is_success(&self) -> bool {
        matches!(self, Self::Code(0))
    }
}

impl core::fmt::Display for ExitReason {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::Code(code) => write!(f, "ended with code {code}"),
            Self::Signal(signal) => write!(f, "was ended by signal {signal}"),
            Self::OutOfMemory => f.write_str("was killed: its memory limit was reached"),
            Self::NotStarted { code, message } => {
                write!(f, "could not be started ({code}): {message}")
            }
            Self::Lost => f.write_str("ended with its machine or its shim"),
            Self::Lapsed => {
                f.write_str("was killed: it had lost sight of most guardians of its app")
            }
            Self::Overdue => f.write_str("was ended: it ran longer than its deadline"),
            Self::Unhealthy(why) => write!(f, "was ended: its health check failed: {why}"),
        }
    }
}

/// What an object uses, as its node measured it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Usage {
    /// CPU time since it started, in microseconds.
    pub cpu_us: u64,
    /// Memory in bytes now.
    pub memory_bytes: u64,
    /// Processes and threads now.
    pub processes: u32,
}
