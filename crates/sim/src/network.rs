//! The network between machines: how long things take, and what does not arrive.

use std::collections::BTreeSet;
use std::time::Duration;

use rand::{Rng, RngExt};

use crate::latency::Matrix;
use crate::world::MachineId;

/// What goes wrong on every path, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weather {
    /// Datagrams and transmissions that are lost.
    pub loss_per_mille: u32,
    /// Datagrams that arrive twice.
    pub duplicate_per_mille: u32,
    /// Most that a path takes longer than usual, by chance.
    pub jitter_per_mille: u32,
    /// Transmissions that are held up for long, so that later ones overtake them.
    pub straggle_per_mille: u32,
    /// Messages that a healthy link loses: the sender is told, or not, and some arrive all the
    /// same.
    pub break_per_mille: u32,
}

impl Weather {
    /// Nothing is lost; paths take up to a tenth longer.
    pub const FAIR: Self = Self {
        loss_per_mille: 0,
        duplicate_per_mille: 0,
        jitter_per_mille: 100,
        straggle_per_mille: 0,
        break_per_mille: 0,
    };

    /// As bad as a link may be that people still use.
    pub const ROUGH: Self = Self {
        loss_per_mille: 20,
        duplicate_per_mille: 10,
        jitter_per_mille: 500,
        straggle_per_mille: 20,
        break_per_mille: 0,
    };

    /// A good network on which links break now and then.
    pub const BRITTLE: Self = Self {
        break_per_mille: 15,
        ..Self::FAIR
    };
}

/// The network.
#[derive(Debug)]
pub(crate) struct Network {
    matrix: Matrix,
    /// How it is now.
    pub(crate) weather: Weather,
    /// Where each machine is.
    places: Vec<usize>,
    /// Ways that are cut, each in one direction.
    cut: BTreeSet<(MachineId, MachineId)>,
}

impl Network {
    pub(crate) fn new(matrix: Matrix) -> Self {
        Self {
            matrix,
            weather: Weather::FAIR,
            places: Vec::new(),
            cut: BTreeSet::new(),
        }
    }

    pub(crate) fn matrix(&self) -> &Matrix {
        &self.matrix
    }

    /// The next machine is at this place.
    pub(crate) fn settle(&mut self, place: usize) {
        self.places.push(place);
    }

    pub(crate) fn cut(&mut self, from: MachineId, to: MachineId) {
        self.cut.insert((from, to));
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }

    /// Each way that is cut is open again, or not, by chance.
    pub(crate) fn heal_some(&mut self, random: &mut impl Rng) {
        self.cut.retain(|_| random.random());
    }

    pub(crate) fn is_whole(&self) -> bool {
        self.cut.is_empty()
    }

    pub(crate) fn is_open(&self, from: MachineId, to: MachineId) -> bool {
        !self.cut.contains(&(from, to))
    }

    fn place(&self, machine: MachineId) -> usize {
        self.places.get(machine.0).copied().unwrap_or(0)
    }

    pub(crate) fn round_trip(&self, from: MachineId, to: MachineId) -> Duration {
        self.matrix.round_trip(self.place(from), self.place(to))
    }

    /// How long one transmission takes now.
    pub(crate) fn delay(&self, from: MachineId, to: MachineId, random: &mut impl Rng) -> Duration {
        let usual = self.round_trip(from, to) / 2;
        let more = random.random_range(0..=self.weather.jitter_per_mille);
        let straggles = self.happens(self.weather.straggle_per_mille, random);
        let held_up = if straggles {
            Duration::from_millis(random.random_range(50..1000))
        } else {
            Duration::ZERO
        };
        usual + usual * more / 1000 + held_up
    }

    pub(crate) fn loses(&self, random: &mut impl Rng) -> bool {
        self.happens(self.weather.loss_per_mille, random)
    }

    pub(crate) fn breaks(&self, random: &mut impl Rng) -> bool {
        self.happens(self.weather.break_per_mille, random)
    }

    pub(crate) fn doubles(&self, random: &mut impl Rng) -> bool {
        self.happens(self.weather.duplicate_per_mille, random)
    }

    fn happens(&self, per_mille: u32, random: &mut impl Rng) -> bool {
        per_mille > 0 && random.random_range(0..1000) < per_mille
    }
}
