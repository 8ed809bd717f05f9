//! A made-up network full of [`Membership`]s, for tests: a queue of events on a clock of its own.
//!
//! Datagrams get lost; messages of anti-entropy do not, unless there is no way. A node can be
//! killed, started again, cut off from others, deafened (its datagrams are lost both ways while
//! its clock goes on) and paused (nothing happens in it until it goes on).

use alloc::collections::{BTreeMap, BinaryHeap};
use alloc::vec;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::peer::MemberItem;

use super::datagram::Datagram;
use super::{BOOTS_RESERVED, Event, Membership};
use crate::alarm::Alarm;
use crate::instant::Instant;

/// Bytes that IP and UDP add to a datagram.
pub(super) const PACKET_OVERHEAD_BYTES: u64 = 28;

/// How long things take from one node to another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// 0.2 to 0.5 ms.
    Room,
    /// Up to a quarter of a second one way: places on a globe, some with a slow way to them.
    World,
}

/// What an observer saw of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    Up,
    Unreachable,
    Left,
    Gone,
}

/// Somebody saw something.
#[derive(Debug, Clone, Copy)]
pub(super) struct Record {
    pub(super) at: Instant,
    pub(super) observer: u64,
    pub(super) subject: u64,
    pub(super) sight: Sight,
    /// The subject was running then, and was not started a moment ago.
    pub(super) was_running: bool,
}

#[derive(Debug, Clone)]
enum Sync {
    Hello(u64, bool),
    Buckets(Vec<u64>, bool),
    Items(Vec<MemberItem>, u64, bool),
}

#[derive(Debug)]
enum What {
    Wake(u64),
    Datagram(u64, u64, Vec<u8>),
    Sync(u64, u64, Sync),
    Reserved(u64, u32),
}

/// One machine.
#[derive(Debug)]
pub(super) struct Machine {
    pub(super) membership: Option<Membership>,
    pub(super) boot_on_disk: u32,
    /// How often it was told the time.
    pub(super) wakes: u64,
    wake: Option<Instant>,
    deaf: bool,
    paused: bool,
    held_back: Vec<What>,
    group: u32,
    position: [f64; 3],
    access_ms: f64,
    pub(super) datagrams: u64,
    pub(super) datagram_bytes: u64,
    pub(super) sync_bytes: u64,
    /// Datagrams that came.
    pub(super) received: u64,
}

/// The network and all machines; machine i has short id i + 1.
#[derive(Debug)]
pub(super) struct Simulation {
    pub(super) now: Instant,
    queue: BinaryHeap<Reverse<(Instant, u64)>>,
    whats: BTreeMap<u64, What>,
    order: u64,
    pub(super) machines: Vec<Machine>,
    random: ChaCha8Rng,
    place: Place,
    pub(super) loss: f64,
    pub(super) records: Vec<Record>,
    pub(super) alarms: Vec<(u64, Alarm)>,
}

impl Simulation {
    /// So many machines, all admitted, none started.
    pub(super) fn new(count: u64, place: Place, seed: u64) -> Self {
        let mut random = ChaCha8Rng::seed_from_u64(seed);
        let machines = (0..count).map(|_| Machine::new(&mut random)).collect();
        Self {
            now: Instant::from_micros(1_000_000_000),
            queue: BinaryHeap::new(),
            whats: BTreeMap::new(),
            order: 0,
            machines,
            random,
            place,
            loss: 0.0,
            records: Vec::new(),
            alarms: Vec::new(),
        }
    }

    /// The same, all started, and they know each other from the first moment: to make the acquaintance
    /// of many takes long to simulate.
    pub(super) fn acquainted(count: u64, place: Place, seed: u64) -> Self {
        let mut simulation = Self::new(count, place, seed);
        for id in simulation.ids() {
            simulation.start(id);
        }
        for id in simulation.ids() {
            let wait = simulation.random.random_range(0..2_000_000 / count);
            simulation.run_for(Duration::from_micros(wait));
            let all: Vec<u64> = simulation.ids().collect();
            simulation.with(id, |now, membership| membership.assume_up(now, &all));
        }
        simulation.run_for(Duration::from_secs(10));
        simulation
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = u64> + use<> {
        1..=u64::try_from(self.machines.len()).unwrap()
    }

    pub(super) fn machine(&mut self, id: u64) -> &mut Machine {
        let index = usize::try_from(id - 1).unwrap();
        &mut self.machines[index]
    }

    pub(super) fn chance(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }

    fn at(&self, id: u64) -> &Machine {
        &self.machines[usize::try_from(id - 1).unwrap()]
    }

    pub(super) fn membership(&self, id: u64) -> &Membership {
        self.at(id).membership.as_ref().unwrap()
    }

    /// Starts a machine, for the first time or again.
    pub(super) fn start(&mut self, id: u64) {
        let roster: Vec<u64> = self.ids().collect();
        self.start_with(id, &roster);
    }

    /// The same, with a roster of its own.
    pub(super) fn start_with(&mut self, id: u64, roster: &[u64]) {
        let seed: [u8; 32] = self.random.random();
        let now = self.now;
        let machine = self.machine(id);
        let boot = machine.boot_on_disk;
        machine.boot_on_disk += BOOTS_RESERVED;
        machine.wake = None;
        let roster = roster.iter().copied();
        machine.membership = Some(Membership::new(now, id, boot, roster, seed));
        self.drain(id);
    }

    /// Turns a machine off without a word.
    pub(super) fn kill(&mut self, id: u64) {
        self.machine(id).membership = None;
    }

    /// Its datagrams and messages are lost, both ways.
    pub(super) fn deafen(&mut self, id: u64, deaf: bool) {
        self.machine(id).deaf = deaf;
    }

    /// Nothing happens in it; what comes for it waits.
    pub(super) fn pause(&mut self, id: u64) {
        self.machine(id).paused = true;
    }

    /// It goes on with what waited.
    pub(super) fn resume(&mut self, id: u64) {
        let machine = self.machine(id);
        machine.paused = false;
        let held_back = core::mem::take(&mut machine.held_back);
        for what in held_back {
            self.add(self.now, what);
        }
    }

    /// Only machines of the same group reach each other.
    pub(super) fn group(&mut self, id: u64, group: u32) {
        self.machine(id).group = group;
    }

    /// Lets time pass.
    pub(super) fn run_for(&mut self, duration: Duration) {
        let end = self.now + duration;
        while let Some(Reverse((at, order))) = self.queue.peek().copied() {
            if at > end {
                break;
            }
            self.queue.pop();
            self.now = at.max(self.now);
            let what = self.whats.remove(&order).unwrap();
            self.happen(what);
        }
        self.now = end;
    }

    /// Lets time pass until it is so, and tells how long that took.
    pub(super) fn run_until(
        &mut self,
        longest: Duration,
        so: impl Fn(&Self) -> bool,
    ) -> Option<Duration> {
        let start = self.now;
        while self.now.since(start) < longest {
            if so(self) {
                return Some(self.now.since(start));
            }
            self.run_for(Duration::from_millis(250));
        }
        so(self).then(|| self.now.since(start))
    }

    /// Asks one machine to do something.
    pub(super) fn with(&mut self, id: u64, act: impl FnOnce(Instant, &mut Membership)) {
        let now = self.now;
        if let Some(membership) = &mut self.machine(id).membership {
            act(now, membership);
        }
        self.drain(id);
    }

    /// Every running machine holds exactly the running ones as up.
    pub(super) fn agree(&self) -> bool {
        let running = |id: u64| self.at(id).membership.is_some();
        self.machines.iter().all(|machine| {
            machine.membership.as_ref().is_none_or(|membership| {
                membership
                    .members()
                    .all(|(id, liveness)| liveness.is_up() == running(id))
            })
        })
    }

    /// Losses that were none, since then.
    pub(super) fn false_losses(&self, since: Instant) -> usize {
        let is_false = |record: &&Record| {
            record.at >= since && record.sight == Sight::Unreachable && record.was_running
        };
        self.records.iter().filter(is_false).count()
    }

    /// Whether the machine is on.
    pub(super) fn is_running(&self, id: u64) -> bool {
        self.at(id).membership.is_some()
    }

    /// Bytes that were sent so far, by all.
    pub(super) fn traffic(&self) -> u64 {
        let sent = |machine: &Machine| machine.datagram_bytes + machine.sync_bytes;
        self.machines.iter().map(sent).sum()
    }

    /// How often they were told the time so far, all together.
    pub(super) fn wakes(&self) -> u64 {
        self.machines.iter().map(|machine| machine.wakes).sum()
    }

    fn add(&mut self, at: Instant, what: What) {
        self.whats.insert(self.order, what);
        self.queue.push(Reverse((at, self.order)));
        self.order += 1;
    }

    fn happen(&mut self, what: What) {
        let id = match &what {
            What::Wake(id) | What::Reserved(id, _) => *id,
            What::Datagram(_, to, _) | What::Sync(_, to, _) => *to,
        };
        let now = self.now;
        let machine = self.machine(id);
        if machine.paused {
            machine.held_back.push(what);
            return;
        }
        if machine.membership.is_none() {
            return;
        }
        match what {
            What::Wake(_) => {
                if machine.wake.is_none_or(|wake| wake > now) {
                    return;
                }
                machine.wake = None;
                machine.wakes += 1;
                let membership = machine.membership.as_mut().unwrap();
                if membership.poll_timeout().is_some_and(|at| at <= now) {
                    membership.handle_timeout(now);
                }
            }
            What::Reserved(_, until) => {
                machine.boot_on_disk = machine.boot_on_disk.max(until);
                let membership = machine.membership.as_mut().unwrap();
                membership.reserved(now, until);
            }
            What::Datagram(from, _, bytes) => {
                if machine.deaf {
                    return;
                }
                machine.received += 1;
                let membership = machine.membership.as_mut().unwrap();
                membership.handle_datagram(now, from, &bytes);
            }
            What::Sync(from, _, sync) => {
                if machine.deaf {
                    return;
                }
                self.handle_sync(from, id, sync);
            }
        }
        self.drain(id);
    }

    /// What the hub does with the messages of anti-entropy.
    fn handle_sync(&mut self, from: u64, me: u64, sync: Sync) {
        let now = self.now;
        let membership = self.machine(me).membership.as_mut().unwrap();
        let estranged = membership.is_estranged(from);
        match sync {
            Sync::Hello(hash, theirs) => {
                if hash != membership.members_hash() {
                    let hashes = membership.bucket_hashes();
                    self.send_sync(me, from, Sync::Buckets(hashes, estranged || theirs));
                }
            }
            Sync::Buckets(theirs, flag) => {
                let mine = membership.bucket_hashes();
                let differ = mine.iter().zip(&theirs).enumerate();
                let mask = differ
                    .filter(|(_, (mine, theirs))| mine != theirs)
                    .fold(0_u64, |mask, (bucket, _)| mask | 1 << bucket);
                let items = membership.items(mask);
                self.send_sync(me, from, Sync::Items(items, mask, estranged || flag));
            }
            Sync::Items(items, wanted, flag) => {
                let mine = membership.items(wanted);
                membership.merge(now, from, &items, estranged || flag);
                if wanted != 0 {
                    self.send_sync(me, from, Sync::Items(mine, 0, estranged || flag));
                }
            }
        }
    }

    fn send_sync(&mut self, from: u64, to: u64, sync: Sync) {
        let bytes = match &sync {
            Sync::Hello(..) => 30,
            Sync::Buckets(..) => 2 * 64 * 9,
            Sync::Items(items, ..) => 20 + 13 * items.len(),
        };
        self.machine(from).sync_bytes += u64::try_from(bytes).unwrap() + 2 * PACKET_OVERHEAD_BYTES;
        if self.connected(from, to) {
            let delay = self.delay(from, to) * 3;
            self.add(self.now + delay, What::Sync(from, to, sync));
        }
    }

    fn connected(&self, from: u64, to: u64) -> bool {
        let (a, b) = (self.at(from), self.at(to));
        a.group == b.group && !a.deaf && !b.deaf
    }

    fn delay(&mut self, from: u64, to: u64) -> Duration {
        let milliseconds = match self.place {
            Place::Room => self.random.random_range(0.2..0.5),
            Place::World => {
                let (a, b) = (self.at(from), self.at(to));
                let cosine: f64 = a.position.iter().zip(&b.position).map(|(a, b)| a * b).sum();
                // The chord stands for the arc: at most 2, so at most 90 ms.
                let chord = f64::max(0.0, 2.0 - 2.0 * cosine).powf(0.5);
                let milliseconds = 45.0 * chord + a.access_ms + b.access_ms;
                milliseconds * self.random.random_range(1.0..1.1)
            }
        };
        Duration::from_secs_f64(milliseconds / 1e3)
    }

    /// Carries out what a machine wants.
    fn drain(&mut self, id: u64) {
        let now = self.now;
        loop {
            let Some(membership) = &mut self.machine(id).membership else {
                return;
            };
            let Some(event) = membership.poll_event() else {
                break;
            };
            match event {
                Event::Send { to, bytes } => self.send(id, to, bytes),
                Event::SyncWith(to) => {
                    let membership = self.membership(id);
                    let hello = Sync::Hello(membership.members_hash(), membership.is_estranged(to));
                    self.send_sync(id, to, hello);
                }
                Event::Reserve { until } => {
                    self.add(now + Duration::from_millis(20), What::Reserved(id, until));
                }
                Event::Up(subject) => self.note(id, subject, Sight::Up),
                Event::Anew(_) => {}
                Event::Unreachable(subject) => self.note(id, subject, Sight::Unreachable),
                Event::Left(subject) => self.note(id, subject, Sight::Left),
                Event::Gone(subject) => self.note(id, subject, Sight::Gone),
                Event::Alarm { alarm, .. } => self.alarms.push((id, alarm)),
            }
        }
        let machine = self.machine(id);
        let next = machine.membership.as_ref().unwrap().poll_timeout();
        if let Some(at) = next
            && machine.wake.is_none_or(|wake| at < wake)
        {
            machine.wake = Some(at);
            self.add(at, What::Wake(id));
        }
    }

    fn send(&mut self, from: u64, to: u64, bytes: Vec<u8>) {
        assert!(bytes.len() <= crate::limits::DATAGRAM_BYTES_MAX);
        let boot = Datagram::parse(from, to, &bytes).unwrap().from.boot;
        let machine = self.machine(from);
        assert!(boot < machine.boot_on_disk, "boot {boot} is not reserved");
        machine.datagrams += 1;
        machine.datagram_bytes += u64::try_from(bytes.len()).unwrap() + PACKET_OVERHEAD_BYTES;
        let lost = self.loss > 0.0 && self.random.random_bool(self.loss);
        if !lost && self.connected(from, to) {
            let delay = self.delay(from, to);
            self.add(self.now + delay, What::Datagram(from, to, bytes));
        }
    }

    fn note(&mut self, observer: u64, subject: u64, sight: Sight) {
        let machine = self.at(subject);
        let was_running = machine.membership.is_some();
        self.records.push(Record {
            at: self.now,
            observer,
            subject,
            sight,
            was_running,
        });
    }
}

impl Machine {
    fn new(random: &mut ChaCha8Rng) -> Self {
        let mut position = [0.0; 3];
        // Uniform on a sphere: a point in the ball, drawn out to its surface.
        loop {
            for coordinate in &mut position {
                *coordinate = random.random_range(-1.0..1.0);
            }
            let length_squared: f64 = position.iter().map(|x| x * x).sum();
            if (0.01..1.0).contains(&length_squared) {
                let length = length_squared.powf(0.5);
                for coordinate in &mut position {
                    *coordinate /= length;
                }
                break;
            }
        }
        let slow = random.random_bool(0.05);
        let access_ms = random.random_range(if slow { 30.0..90.0 } else { 1.0..10.0 });
        Self {
            membership: None,
            boot_on_disk: 0,
            wakes: 0,
            wake: None,
            deaf: false,
            paused: false,
            held_back: vec![],
            group: 0,
            position,
            access_ms,
            datagrams: 0,
            datagram_bytes: 0,
            sync_bytes: 0,
            received: 0,
        }
    }
}
