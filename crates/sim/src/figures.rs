//! Figures of large clouds: whole kernels, in cities of the world, from one seed each.
//!
//! What it is not: it holds nothing against a goal. `cargo xtask bench` does, and so does
//! `tests/figures.rs` with clouds that are small enough for every day.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::RngExt;
use rand::seq::IndexedRandom;

use crate::latency::Matrix;
use crate::network::Weather;
use crate::world::{Counts, Hardware, MachineId, World};

/// Bytes that IPv4 and UDP add to a packet. QUIC adds its own: about 30 to each, and packets that
/// acknowledge; the simulator does not know them.
pub const PACKET_HEADER_BYTES: u32 = 28;

/// How often it is looked whether something is known.
const LOOK: Duration = Duration::from_millis(50);
/// The same, where every pair is looked at.
const LOOK_AT_ALL: Duration = Duration::from_millis(500);
/// How long a new cloud may take to know itself.
const MEETING: Duration = Duration::from_secs(300);
/// How long it then has to become quiet.
const CALM: Duration = Duration::from_secs(60);
/// Of fifty transmissions one is lost.
const LOSSY: Weather = Weather {
    loss_per_mille: 20,
    ..Weather::FAIR
};

/// A cloud in which everybody knows everybody.
#[derive(Debug)]
pub struct Cloud {
    world: World,
    machines: Vec<MachineId>,
}

/// What an idle cloud says in a while, in bytes a node and second, headers of packets left out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Traffic {
    /// Of probes and what they carry.
    pub datagram_bytes: f64,
    /// Datagrams a node and second: each costs a header.
    pub datagrams: f64,
    /// Of everything else.
    pub message_bytes: f64,
    /// Messages a node and second.
    pub messages: f64,
}

/// What was believed wrongly in a while in which nothing happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Errors {
    /// Live nodes that another suspected, and that protested.
    pub suspicions: u64,
    /// Live nodes that another held as lost.
    pub losses: u64,
}

/// How a cloud became one again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Merge {
    /// How long it took until all held all as up; nothing when it took too long.
    pub took: Option<Duration>,
    /// Bytes that a node has sent meanwhile, on average.
    pub bytes: f64,
}

impl Cloud {
    /// So many machines, spread over cities, that know each other and are at rest.
    ///
    /// # Panics
    /// When they do not find each other.
    #[must_use]
    pub fn at_rest(seed: u64, count: usize) -> Self {
        let mut world = World::new(seed, Matrix::cities());
        let places = world.matrix().places();
        for number in 0..count {
            let mut hardware = Hardware::ordinary(&format!("n{number}"));
            hardware.place = number % places;
            world.add(hardware);
        }
        world.assemble();
        let machines = world.machines().collect();
        let mut cloud = Self { world, machines };
        let met = cloud.until_one(MEETING);
        assert!(met.is_some(), "{count} machines do not find each other");
        cloud.world.pass(CALM);
        cloud
    }

    /// The world, to be looked at.
    #[must_use]
    pub fn world(&self) -> &World {
        &self.world
    }

    /// One machine loses its power: when each of the others knew, in order. It is back, and known to
    /// be, before the next thing happens.
    ///
    /// # Panics
    /// When somebody does not learn of it, or of the return.
    pub fn crash(&mut self) -> Vec<Duration> {
        let wait = self.world.random().random_range(0..5_000);
        self.world.pass(Duration::from_millis(wait));
        let machines = self.machines.clone();
        let victim = *machines
            .choose(self.world.random())
            .expect("a cloud has a machine");
        let began = self.world.now();
        self.world.crash(victim);
        let mut ignorant: Vec<MachineId> =
            machines.into_iter().filter(|it| *it != victim).collect();
        let mut known = Vec::new();
        while !ignorant.is_empty() {
            self.world.pass(LOOK);
            let taken = self.world.now().since(began);
            assert!(taken < MEETING, "{} do not know", ignorant.len());
            let before = ignorant.len();
            ignorant.retain(|it| self.world.sees(*it, victim));
            known.extend(std::iter::repeat_n(taken, before - ignorant.len()));
        }
        self.world.start(victim);
        assert!(self.until_one(MEETING).is_some(), "it does not come back");
        self.world.pass(CALM);
        known
    }

    /// Nothing happens for so long, and nothing is lost.
    pub fn idle(&mut self, duration: Duration) -> Traffic {
        let before = self.world.counts();
        self.world.pass(duration);
        let after = self.world.counts();
        let rate = |after: u64, before: u64| self.share(after - before) / duration.as_secs_f64();
        Traffic {
            datagram_bytes: rate(after.datagram_bytes, before.datagram_bytes),
            datagrams: rate(after.datagrams, before.datagrams),
            message_bytes: rate(after.message_bytes, before.message_bytes),
            messages: rate(after.messages, before.messages),
        }
    }

    /// Nothing happens for so long but that the network loses two of a hundred transmissions.
    pub fn lossy(&mut self, duration: Duration) -> Errors {
        let (losses, suspicions) = (self.world.counts().losses, self.world.suspicions());
        self.world.weather(LOSSY);
        self.world.pass(duration);
        self.world.weather(Weather::FAIR);
        Errors {
            suspicions: self.world.suspicions() - suspicions,
            losses: self.world.counts().losses - losses,
        }
    }

    /// Two halves do not hear of each other for so long.
    pub fn halves(&mut self, duration: Duration) -> Merge {
        let half = self.machines.iter().copied().step_by(2).collect();
        self.world.partition(&half);
        self.heal_after(duration)
    }

    /// So many hear nobody, each of them alone, for so long.
    pub fn isolation(&mut self, count: usize, duration: Duration) -> Merge {
        for machine in self
            .machines
            .iter()
            .copied()
            .step_by(self.machines.len() / count)
        {
            self.world.partition(&BTreeSet::from([machine]));
        }
        self.heal_after(duration)
    }

    fn heal_after(&mut self, duration: Duration) -> Merge {
        self.world.pass(duration);
        self.world.mend();
        let before = self.world.counts();
        let took = self.until_one(MEETING);
        let after = self.world.counts();
        let bytes = |it: Counts| it.datagram_bytes + it.message_bytes;
        Merge {
            took,
            bytes: self.share(bytes(after) - bytes(before)),
        }
    }

    /// Lets time pass until all hold all as up, and tells how long that took.
    fn until_one(&mut self, most: Duration) -> Option<Duration> {
        let began = self.world.now();
        while !self.is_one() {
            if self.world.now().since(began) >= most {
                return None;
            }
            self.world.pass(LOOK_AT_ALL);
        }
        Some(self.world.now().since(began))
    }

    fn is_one(&self) -> bool {
        let sees_all = |it: &MachineId| {
            self.machines
                .iter()
                .all(|other| self.world.sees(*it, *other))
        };
        self.machines.iter().all(sees_all)
    }

    /// A sum over all machines, as the share of one.
    fn share(&self, whole: u64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "figures are read by eye")]
        let (whole, machines) = (whole as f64, self.machines.len() as f64);
        whole / machines
    }
}
