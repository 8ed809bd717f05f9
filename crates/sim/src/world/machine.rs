//! One machine of the world: its keys, its disk, its programs, and the kernel that lives on it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::{Signer, SigningKey};
use kernel::Kernel;
use kernel::instant::Instant;
use kernel::world::{Config, Input};
use wire::fact::{Availability, Capacity, NodeFacts, Platform};
use wire::id::{CloudId, NodeId, UnixMillis};
use wire::peer::{Signature, Statement};

use super::MachineId;
use crate::disk::Disk;
use crate::driver::Driver;

/// The version of the program that every machine says it has.
const PROGRAM_VERSION: &str = "0.1.0";

/// What a machine is made of.
#[derive(Debug, Clone)]
pub struct Hardware {
    /// The name that it asks for.
    pub name: String,
    /// Where it is: an index into the places of the [`crate::latency::Matrix`].
    pub place: usize,
    /// Thousandths of a core.
    pub cpu_millis: u32,
    /// Bytes of memory.
    pub memory_bytes: u64,
    /// What `uname -m` says.
    pub arch: String,
    /// Labels that it begins with.
    pub labels: BTreeMap<String, String>,
    /// How far its wall clock is ahead, or behind when negative.
    pub wall_ahead_ms: i64,
    /// It is behind a router: nobody can dial it.
    pub is_hidden: bool,
}

impl Hardware {
    /// Four cores and eight GiB, at the first place.
    #[must_use]
    pub fn ordinary(name: &str) -> Self {
        Self {
            name: name.to_string(),
            place: 0,
            cpu_millis: 4000,
            memory_bytes: 8 << 30,
            arch: "x86_64".to_string(),
            labels: BTreeMap::new(),
            wall_ahead_ms: 0,
            is_hidden: false,
        }
    }
}

/// Why a machine has no kernel now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Off {
    /// It belongs to no cloud yet.
    New,
    /// It was stopped by `node/down`.
    Stopped,
    /// Its daemon was killed; its programs go on.
    DaemonKilled,
    /// It lost its power.
    Crashed,
}

/// What a machine was given when it came into its cloud; its disk keeps it.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    pub(crate) cloud: CloudId,
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) statements: Arc<[Statement]>,
    pub(crate) facts: Arc<[NodeFacts]>,
}

/// When a machine is to lose its power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moment {
    /// A batch has been given to the disk and is not durable.
    BeforeDurable,
    /// A batch is durable and the kernel does not know.
    AfterDurable,
    /// Something was just said: a reply, a message, an answer to a joiner.
    AfterSaying,
}

/// Where a machine can be reached.
pub(crate) fn address(machine: MachineId) -> String {
    format!("10.0.{}.{}:7117", machine.0 / 250, machine.0 % 250 + 1)
}

/// What a kernel said of a member.
#[derive(Debug, Clone, Default)]
pub(crate) struct Peer {
    pub(crate) has_address: bool,
    pub(crate) relays: Vec<NodeId>,
}

/// A machine.
#[derive(Debug)]
pub(crate) struct Machine {
    pub(crate) hardware: Hardware,
    key: SigningKey,
    pub(crate) node: NodeId,
    pub(crate) admission: Option<Admission>,
    pub(crate) disk: Disk,
    pub(crate) driver: Driver,
    pub(crate) kernel: Option<Kernel>,
    pub(crate) off: Off,
    /// Counts the kernels that lived here.
    pub(crate) life: u64,
    pub(crate) since: Instant,
    /// When the kernel is to be woken.
    pub(crate) wake_at: Option<Instant>,
    /// Members that may be linked.
    pub(crate) peers: BTreeMap<NodeId, Peer>,
    /// Members to which it has open lines.
    pub(crate) lines: BTreeSet<NodeId>,
    /// When it last sent something to a machine: behind a router, that one is let in for a while.
    pub(crate) called: BTreeMap<MachineId, Instant>,
    /// Nodes that this life was told to expel.
    pub(crate) expelled: BTreeSet<NodeId>,
    /// Inputs that wait until it thaws.
    pub(crate) held: Vec<Input>,
    pub(crate) frozen: bool,
    /// It was frozen or slow, or its disk refused, up to here.
    pub(crate) ill_until: Instant,
    /// How late it notices everything.
    pub(crate) lag: Duration,
    /// When it will have noticed all that has come.
    pub(crate) fed_until: Instant,
    /// Crash when this happens for the so-many-th time from now.
    pub(crate) doom: Option<(Moment, u32)>,
    /// Timeouts at one moment, in a row.
    pub(crate) spins: u32,
}

impl Machine {
    pub(crate) fn new(now: Instant, hardware: Hardware, secret: [u8; 32]) -> Self {
        let key = SigningKey::from_bytes(&secret);
        let node = NodeId(key.verifying_key().to_bytes());
        Self {
            hardware,
            key,
            node,
            admission: None,
            disk: Disk::default(),
            driver: Driver::default(),
            kernel: None,
            off: Off::New,
            life: 0,
            since: now,
            wake_at: None,
            peers: BTreeMap::new(),
            lines: BTreeSet::new(),
            called: BTreeMap::new(),
            expelled: BTreeSet::new(),
            held: Vec::new(),
            frozen: false,
            ill_until: now,
            lag: Duration::ZERO,
            fed_until: now,
            doom: None,
            spins: 0,
        }
    }

    /// It is frozen or slow, or its disk refuses.
    pub(crate) fn is_ill(&self) -> bool {
        self.frozen || !self.lag.is_zero() || self.disk.refuses
    }

    pub(crate) fn sign(&self, bytes: &[u8]) -> Signature {
        Signature(self.key.sign(bytes).to_bytes())
    }

    fn platform(&self) -> Platform {
        Platform {
            os: "linux".to_string(),
            arch: self.hardware.arch.clone(),
            kernel: "6.12.0".to_string(),
        }
    }

    /// What it says of itself when it first starts, for those who heard of it before.
    pub(crate) fn hearsay(&self, address: String) -> NodeFacts {
        NodeFacts {
            node: self.node,
            version: 1 << 32,
            name: self.hardware.name.clone(),
            program_version: PROGRAM_VERSION.to_string(),
            platform: self.platform(),
            addresses: vec![address],
            labels: self.hardware.labels.clone(),
            availability: Availability::Open,
            capacity: Capacity {
                cpu_millis: self.hardware.cpu_millis,
                memory_bytes: self.hardware.memory_bytes,
                ..Capacity::default()
            },
            level: wire::LEVEL,
            relays: Vec::new(),
        }
    }

    /// What its wall clock shows.
    pub(crate) fn wall(&self, wall: UnixMillis) -> UnixMillis {
        UnixMillis(wall.0.saturating_add_signed(self.hardware.wall_ahead_ms))
    }

    /// What the next kernel is told at birth.
    pub(crate) fn config(
        &self,
        wall: UnixMillis,
        seed: [u8; 32],
        address: String,
    ) -> Option<Config> {
        let admission = self.admission.as_ref()?;
        let is_first = !self.disk.is_used();
        let told = is_first.then_some(admission);
        Some(Config {
            node: self.node,
            cloud: admission.cloud,
            name: admission.name.clone(),
            labels: admission.labels.clone(),
            program_version: PROGRAM_VERSION.to_string(),
            platform: self.platform(),
            addresses: vec![address],
            cpu_millis: self.hardware.cpu_millis,
            memory_bytes: self.hardware.memory_bytes,
            hidden_directories: vec!["/var/lib/welkin".to_string()],
            wall: self.wall(wall),
            seed,
            statements: told.map(|it| it.statements.to_vec()).unwrap_or_default(),
            facts: told.map(|it| it.facts.to_vec()).unwrap_or_default(),
            stored: self.disk.rows(),
            survivors: self.driver.survivors(),
        })
    }
}
