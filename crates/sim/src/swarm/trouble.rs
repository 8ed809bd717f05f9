//! Random faults, and when there was none for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kernel::instant::Instant;
use rand::RngExt;
use rand::seq::IndexedRandom;
use wire::call::{NodeDown, NodeDrain, NodeLabel, NodeRemove, NodeResume, Request};

use crate::world::{Hardware, MachineId, Moment, World};

/// How long after the last fault the cloud counts as calm.
const CALM: Duration = Duration::from_secs(40);

/// No more machines join than so many.
const MACHINES_MAX: usize = 9;

/// Faults that are going on.
#[derive(Debug)]
pub(super) struct Trouble {
    /// The last fault began or ended then.
    last: Option<Instant>,
    /// Nodes could not see each other then, or too many were away: whoever acted may have acted on
    /// what was old.
    last_blind: Option<Instant>,
    /// Nodes that were removed from the cloud for good.
    pub(super) removed: BTreeSet<MachineId>,
    /// When the world was last looked at.
    seen: Instant,
    /// No clock was set.
    pub(super) is_steady: bool,
    /// A machine joined while others were away.
    has_joined: bool,
    /// What machines join with.
    pub(super) ticket: String,
    /// See [`super::Options::bad_days`].
    bad_days: bool,
}

impl Trouble {
    pub(super) fn new(bad_days: bool) -> Self {
        Self {
            last: None,
            last_blind: None,
            removed: BTreeSet::new(),
            seen: Instant::from_micros(0),
            is_steady: true,
            has_joined: false,
            ticket: String::new(),
            bad_days,
        }
    }

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
        let has_lost = world.blind_at() > self.seen;
        self.seen = world.now();
        if has_lost || !world.is_whole() || is_slow || away.count() > 1 {
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
        match world.random().random_range(0..26) {
            0..3 => revive(world, &off),
            3 if off.len() * 2 < machines.len() => world.crash(one),
            4 if off.len() * 2 < machines.len() => world.shut_down(one),
            5 => world.kill_daemon(one),
            6 => world.end_daemon(one),
            7..10 => doom(world, one),
            10 => split(world, &machines),
            11 => cut_one_way(world, &machines),
            12 => world.mend(),
            13 => world.mend_some(),
            14 => world.freeze(one),
            15 => machines.iter().for_each(|it| world.thaw(*it)),
            16 => {
                let lag = world.random().random_range(0..300);
                world.slow(one, Duration::from_millis(lag));
            }
            17 if self.bad_days => {
                let refuses = !world.disk_refuses(one);
                world.refuse_writes(one, refuses);
            }
            18 => manage(world, &machines),
            19 if self.bad_days => self.remove(world, &machines),
            20 if self.bad_days => self.step_clock(world, one),
            21 if self.bad_days => self.join(world),
            22 | 23 => manage(world, &machines),
            _ => revive(world, &off),
        }
    }

    /// A machine is removed from the cloud, mostly one that lost its power; seldom, and once.
    fn remove(&mut self, world: &mut World, machines: &[MachineId]) {
        let dice = world.random().random_range(0..8);
        let members = machines.iter().filter(|it| world.is_admitted(**it));
        let members: Vec<MachineId> = members.copied().collect();
        let up = members.iter().filter(|it| world.is_up(**it));
        let up: Vec<MachineId> = up.copied().collect();
        let off = members.iter().find(|it| !world.is_up(**it)).copied();
        let one = if dice == 0 { up.last().copied() } else { off };
        let (Some(one), Some(at)) = (one, up.first().copied()) else {
            return;
        };
        if dice > 2 || !self.removed.is_empty() || up.len() < 4 || !world.is_whole() || one == at {
            return;
        }
        // Whom the removed node has admitted stays only if whoever removes it knows of that.
        if !members.iter().all(|it| world.knows(at, *it)) {
            return;
        }
        let node = world.node(one).to_string();
        world.call(at, NodeRemove { node, force: true });
        self.removed.insert(one);
    }

    /// Somebody sets a clock an hour ahead or back, or right.
    fn step_clock(&mut self, world: &mut World, one: MachineId) {
        const HOUR_MS: i64 = 3_600_000;
        self.is_steady = false;
        let ahead_ms = *[HOUR_MS, -HOUR_MS, 0, 0]
            .choose(world.random())
            .unwrap_or(&0);
        world.set_wall(one, ahead_ms);
    }

    /// Another machine joins.
    fn join(&mut self, world: &mut World) {
        if world.machines().count() < MACHINES_MAX {
            let hardware = some_hardware(world);
            let joiner = world.add(hardware);
            world.join(joiner, &self.ticket);
            self.has_joined = true;
        }
    }

    /// What people do after a heal: every node takes objects again, and those who have let others in
    /// are back, for perhaps nobody else knows of that. And nobody may have been told whether a
    /// removal was done: it is asked for again.
    pub(super) fn tidy(&self, world: &mut World) {
        if self.has_joined {
            let all = world.machines().filter(|it| !self.removed.contains(it));
            all.for_each(|it| world.start(it));
        }
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

/// A machine as people have them, the next in number.
pub(super) fn some_hardware(world: &mut World) -> Hardware {
    let number = world.machines().count();
    let places = world.matrix().places();
    let mut hardware = Hardware::ordinary(&format!("n{number}"));
    hardware.place = world.random().random_range(0..places);
    hardware.wall_ahead_ms = world.random().random_range(-1500..1500);
    if world.random().random_range(0..4) == 0 {
        // Too small for everything.
        hardware.cpu_millis = world.random().random_range(1..6) * 200;
        hardware.memory_bytes = world.random().random_range(1..6) * (128 << 20);
    }
    if world.random().random_range(0..4) == 0 {
        let tier = ("tier".to_string(), "front".to_string());
        hardware.labels.extend([tier]);
    }
    hardware
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
    let request: Request = match world.random().random_range(0..5) {
        0 => NodeDrain {
            node: name,
            force: world.random().random(),
        }
        .into(),
        1 | 2 => NodeResume { node: name }.into(),
        3 => NodeLabel {
            node: name,
            set: BTreeMap::from([("tier".to_string(), "front".to_string())]),
            remove: Vec::new(),
        }
        .into(),
        _ => NodeDown {}.into(),
    };
    world.call(at, request);
}
