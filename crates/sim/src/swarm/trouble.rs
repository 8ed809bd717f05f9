//! Random faults, and when there was none for a while.

use std::collections::BTreeSet;
use std::time::Duration;

use kernel::instant::Instant;
use rand::RngExt;
use rand::seq::IndexedRandom;
use wire::call::{NodeDown, NodeDrain, NodeRemove, NodeResume, Request};

use crate::world::{MachineId, Moment, World};

/// How long after the last fault the cloud counts as calm.
const CALM: Duration = Duration::from_secs(40);

/// Faults that are going on.
#[derive(Debug, Default)]
pub(super) struct Trouble {
    /// The last fault began or ended then.
    last: Option<Instant>,
    /// Nodes could not see each other then, or too many were away: whoever acted may have acted on
    /// what was old.
    last_blind: Option<Instant>,
    /// Nodes that were removed from the cloud for good.
    pub(super) removed: BTreeSet<MachineId>,
}

impl Trouble {
    /// Whether nothing was wrong for long enough that everybody knows everything.
    pub(super) fn is_calm(&self, world: &World) -> bool {
        self.last.is_none_or(|last| world.now().since(last) > CALM)
    }

    /// Whether nobody can have acted on what was old, for a while.
    pub(super) fn is_sighted(&self, world: &World) -> bool {
        self.last_blind
            .is_none_or(|last| world.now().since(last) > CALM)
    }

    /// Looks at the world now and then.
    pub(super) fn look(&mut self, world: &World) {
        let away = world
            .machines()
            .filter(|it| !world.is_up(*it) && !self.removed.contains(it) && world.is_admitted(*it));
        let is_slow = world.machines().any(|it| world.is_slow(it));
        if !world.is_whole() || is_slow || away.count() > 1 {
            self.last_blind = Some(world.now());
        }
    }

    /// Begins or ends a fault.
    pub(super) fn cause(&mut self, world: &mut World) {
        self.last = Some(world.now());
        world.take_doomed();
        let machines: Vec<MachineId> = world
            .machines()
            .filter(|it| !self.removed.contains(it))
            .collect();
        let Some(one) = machines.choose(world.random()).copied() else {
            return;
        };
        let off: Vec<MachineId> = machines
            .iter()
            .copied()
            .filter(|it| !world.is_up(*it))
            .collect();
        match world.random().random_range(0..20) {
            0..3 => revive(world, &off),
            3 | 4 if off.len() * 2 < machines.len() => world.crash(one),
            5 | 6 => world.kill_daemon(one),
            7..10 => doom(world, one),
            10 => split(world, &machines),
            11 => cut_one_way(world, &machines),
            12 | 13 => world.mend(),
            14 => world.freeze(one),
            15 => machines.iter().for_each(|it| world.thaw(*it)),
            16 => {
                let lag = world.random().random_range(0..300);
                world.slow(one, Duration::from_millis(lag));
            }
            17 => {
                let refuses = !world.disk_refuses(one);
                world.refuse_writes(one, refuses);
            }
            18 => manage(world, &machines),
            19 => self.remove(world, &machines),
            _ => revive(world, &off),
        }
    }

    /// A machine that lost its power is removed from the cloud; seldom, and once.
    fn remove(&mut self, world: &mut World, machines: &[MachineId]) {
        let rare = world.random().random_range(0..4) == 0;
        let up = machines.iter().filter(|it| world.is_up(**it));
        let up: Vec<MachineId> = up.copied().collect();
        let off = machines.iter().find(|it| !world.is_up(**it)).copied();
        let (Some(off), Some(at)) = (off, up.first().copied()) else {
            return;
        };
        if !rare || !self.removed.is_empty() || up.len() < 4 || !world.is_whole() {
            return;
        }
        let node = world.node(off).to_string();
        world.call(at, NodeRemove { node, force: true });
        self.removed.insert(off);
    }

    /// What people do after a heal: every node takes objects again. And nobody may have been told
    /// whether a removal was done: it is asked for again.
    pub(super) fn tidy(&self, world: &mut World) {
        let up: Vec<MachineId> = world
            .machines()
            .filter(|it| world.is_up(*it) && !self.removed.contains(it))
            .collect();
        for at in &up {
            let node = world.node(*at).to_string();
            world.call(*at, NodeResume { node });
        }
        for (removed, at) in self.removed.iter().zip(up) {
            let node = world.node(*removed).to_string();
            world.call(at, NodeRemove { node, force: true });
        }
    }
}

fn revive(world: &mut World, off: &[MachineId]) {
    if let Some(one) = off.choose(world.random()).copied() {
        world.start(one);
    }
}

fn doom(world: &mut World, one: MachineId) {
    let moments = [
        Moment::BeforeDurable,
        Moment::AfterDurable,
        Moment::AfterSaying,
    ];
    let moment = *moments
        .choose(world.random())
        .unwrap_or(&Moment::AfterSaying);
    let count = world.random().random_range(1..6);
    world.doom(one, moment, count);
}

fn split(world: &mut World, machines: &[MachineId]) {
    let side: BTreeSet<MachineId> = machines
        .iter()
        .copied()
        .filter(|_| world.random().random())
        .collect();
    world.partition(&side);
}

fn cut_one_way(world: &mut World, machines: &[MachineId]) {
    let from = machines.choose(world.random()).copied();
    let to = machines.choose(world.random()).copied();
    if let (Some(from), Some(to)) = (from, to) {
        world.cut(from, to);
    }
}

/// Somebody drains a node, resumes it, or stops it.
fn manage(world: &mut World, machines: &[MachineId]) {
    let (Some(at), Some(node)) = (
        machines.choose(world.random()).copied(),
        machines.choose(world.random()).copied(),
    ) else {
        return;
    };
    let name = world.node(node).to_string();
    let request: Request = match world.random().random_range(0..3) {
        0 => NodeDrain {
            node: name,
            force: false,
        }
        .into(),
        1 => NodeResume { node: name }.into(),
        _ => NodeDown {}.into(),
    };
    world.call(at, request);
}
