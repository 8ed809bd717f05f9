//! What the WAN does to frames, as a pure machine: which frame goes where, when it is due, and
//! which are lost. It is not a switch: it owns no socket and reads no clock. Time is an argument in
//! nanoseconds, chance is a seed.
//!
//! - `handle_frame` and `handle_time` say what happened; frames that are due come back at once
//!   through `deliver`.
//! - `poll_timeout` says when the next frame is due.
//! - Everything else is a command or a getter.
//!
//! A *lane* is one direction between two hosts. A frame on a lane is, in this order: dropped if the
//! lane is cut, lost by chance, queued behind the lane's rate (dropped if the queue is full), delayed,
//! and delivered in order. A cut also drops what is in flight, so nothing arrives after it.

use std::cmp::{Ordering, Reverse};
use std::collections::{BTreeMap, BinaryHeap};
use std::net::Ipv4Addr;
use std::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::link::Link;
use crate::nat::Router;

/// Nanoseconds of the monotonic clock.
pub(crate) type Nanoseconds = u64;

/// A lane that can send at a limited rate may first send this many bytes at once.
const BURST_BYTES: u64 = 16 << 10;
/// The queue before a rate-limited lane holds this much time at that rate, ...
const QUEUE_NANOSECONDS: u64 = 100_000_000;
/// ... but always this many bytes.
const QUEUE_BYTES_MIN: u64 = 64 << 10;
/// A lane holds this many bytes in flight; beyond it frames are dropped.
const FLYING_BYTES_MAX: usize = 64 << 20;
/// Buffers that are kept for the next frames.
const SPARE_BUFFERS_MAX: usize = 4096;

/// What became of frames since the lab started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counters {
    /// Frames handed to the other host.
    pub delivered: u64,
    /// Frames lost by chance, as the link asks for.
    pub lost: u64,
    /// Frames dropped because of a cut or a dead host.
    pub cut: u64,
    /// Frames dropped because a queue was full.
    pub overflowed: u64,
}

/// All lanes between `hosts` hosts and the frames in flight on them.
#[derive(Debug)]
pub(crate) struct Fabric {
    hosts: usize,
    lanes: Vec<Lane>,
    flying: BinaryHeap<Reverse<Flight>>,
    next_sequence: u64,
    spare: Vec<Vec<u8>>,
    chance: ChaCha8Rng,
    counters: Counters,
    /// The routers of the hosts that are behind one.
    routers: BTreeMap<usize, Router>,
    /// Where hosts are that are not at the address of their number.
    moved: BTreeMap<usize, Ipv4Addr>,
}

#[derive(Debug, Default)]
struct Lane {
    link: Link,
    cut: bool,
    /// Frames of earlier epochs are dropped when they are due.
    epoch: u32,
    /// When the rate limit lets the next byte go.
    free_at: Nanoseconds,
    /// When the last frame in flight is due: no later one may be due before.
    last_due: Nanoseconds,
    flying_bytes: usize,
}

#[derive(Debug)]
struct Flight {
    due: Nanoseconds,
    sequence: u64,
    lane: usize,
    epoch: u32,
    frame: Vec<u8>,
}

enum Verdict {
    Now,
    Due(Nanoseconds),
    Lost,
    Cut,
    Overflow,
}

impl Fabric {
    pub(crate) fn new(hosts: usize, seed: u64) -> Self {
        Self {
            hosts,
            lanes: std::iter::repeat_with(Lane::default)
                .take(hosts * hosts)
                .collect(),
            flying: BinaryHeap::new(),
            next_sequence: 0,
            spare: Vec::new(),
            chance: ChaCha8Rng::seed_from_u64(seed),
            counters: Counters::default(),
            routers: BTreeMap::new(),
            moved: BTreeMap::new(),
        }
    }

    /// From now on this host is behind a router.
    pub(crate) fn set_router(&mut self, host: usize, router: Router) {
        self.routers.insert(host, router);
    }

    /// The host, or its router, has another address; without one, that of its number again.
    pub(crate) fn set_place(&mut self, host: usize, address: Option<Ipv4Addr>) {
        match address {
            None => {
                self.moved.remove(&host);
            }
            Some(address) => {
                self.moved.insert(host, address);
                if let Some(router) = self.routers.get_mut(&host) {
                    router.move_to(address);
                }
            }
        }
    }

    /// Host `from` has sent `frame`. `deliver(host, frame)` is called for those who get it at once.
    pub(crate) fn handle_frame(
        &mut self,
        now: Nanoseconds,
        from: usize,
        frame: &[u8],
        deliver: &mut impl FnMut(usize, &[u8]),
    ) {
        let translated;
        let moved = &self.moved;
        let frame = match self.routers.get_mut(&from) {
            None => frame,
            Some(router) => match router.outward(now, frame, |it| host_at(moved, it)) {
                None => return,
                Some(frame) => {
                    translated = frame;
                    &translated
                }
            },
        };
        match destination(frame) {
            Destination::Host(to) if to < self.hosts && to != from => {
                self.admit(now, from, to, frame, deliver);
            }
            Destination::All => {
                for to in (0..self.hosts).filter(|to| *to != from) {
                    self.admit(now, from, to, frame, deliver);
                }
            }
            Destination::Host(_) | Destination::Nobody => {}
        }
    }

    /// Delivers what is due.
    pub(crate) fn handle_time(&mut self, now: Nanoseconds, deliver: &mut impl FnMut(usize, &[u8])) {
        while self.flying.peek().is_some_and(|first| first.0.due <= now) {
            let Some(Reverse(flight)) = self.flying.pop() else {
                return;
            };
            let lane = &mut self.lanes[flight.lane];
            lane.flying_bytes = lane.flying_bytes.saturating_sub(flight.frame.len());
            if lane.epoch == flight.epoch {
                self.hand_over(now, flight.lane % self.hosts, &flight.frame, deliver);
                self.counters.delivered += 1;
            } else {
                self.counters.cut += 1;
            }
            if self.spare.len() < SPARE_BUFFERS_MAX {
                self.spare.push(flight.frame);
            }
        }
    }

    /// When the next frame is due.
    pub(crate) fn poll_timeout(&self) -> Option<Nanoseconds> {
        self.flying.peek().map(|first| first.0.due)
    }

    pub(crate) fn link(&self, from: usize, to: usize) -> Link {
        self.lanes[self.lane(from, to)].link
    }

    /// Frames in flight keep the times they had; later ones may overtake them.
    pub(crate) fn set_link(&mut self, from: usize, to: usize, link: Link) {
        let index = self.lane(from, to);
        let lane = &mut self.lanes[index];
        lane.link = link;
        lane.free_at = 0;
        lane.last_due = 0;
    }

    pub(crate) fn is_cut(&self, from: usize, to: usize) -> bool {
        self.lanes[self.lane(from, to)].cut
    }

    pub(crate) fn set_cut(&mut self, from: usize, to: usize, cut: bool) {
        let index = self.lane(from, to);
        let lane = &mut self.lanes[index];
        lane.cut = cut;
        if cut {
            lane.forget();
        }
    }

    /// Drops what is in flight from and to this host, as if it had lost power.
    pub(crate) fn forget_host(&mut self, host: usize) {
        for other in 0..self.hosts {
            for index in [self.lane(host, other), self.lane(other, host)] {
                self.lanes[index].forget();
            }
        }
    }

    pub(crate) fn counters(&self) -> Counters {
        self.counters
    }

    fn lane(&self, from: usize, to: usize) -> usize {
        from * self.hosts + to
    }

    /// Gives a frame to a host, through its router.
    fn hand_over(
        &self,
        now: Nanoseconds,
        to: usize,
        frame: &[u8],
        deliver: &mut impl FnMut(usize, &[u8]),
    ) {
        let Some(router) = self.routers.get(&to) else {
            return deliver(to, frame);
        };
        if let Some(frame) = router.inward(now, frame, ethernet_address(to)) {
            deliver(to, &frame);
        }
    }

    fn admit(
        &mut self,
        now: Nanoseconds,
        from: usize,
        to: usize,
        frame: &[u8],
        deliver: &mut impl FnMut(usize, &[u8]),
    ) {
        let index = self.lane(from, to);
        match self.lanes[index].judge(now, frame.len(), &mut self.chance) {
            Verdict::Now => {
                self.hand_over(now, to, frame, deliver);
                self.counters.delivered += 1;
            }
            Verdict::Due(due) => {
                let mut buffer = self.spare.pop().unwrap_or_default();
                buffer.clear();
                buffer.extend_from_slice(frame);
                self.flying.push(Reverse(Flight {
                    due,
                    sequence: self.next_sequence,
                    lane: index,
                    epoch: self.lanes[index].epoch,
                    frame: buffer,
                }));
                self.next_sequence += 1;
            }
            Verdict::Lost => self.counters.lost += 1,
            Verdict::Cut => self.counters.cut += 1,
            Verdict::Overflow => self.counters.overflowed += 1,
        }
    }
}

impl Lane {
    /// Decides over one frame and, if it is to fly, accounts for it.
    fn judge(&mut self, now: Nanoseconds, bytes: usize, chance: &mut ChaCha8Rng) -> Verdict {
        if self.cut {
            return Verdict::Cut;
        }
        if self.link.loss > 0.0 && chance.random::<f64>() < self.link.loss {
            return Verdict::Lost;
        }
        let Some(departs) = self.depart(now, bytes as u64) else {
            return Verdict::Overflow;
        };
        let delay = nanoseconds(self.link.delay);
        let jitter = nanoseconds(self.link.jitter);
        let drawn = match jitter {
            0 => delay,
            jitter => (delay + chance.random_range(0..=2 * jitter)).saturating_sub(jitter),
        };
        let due = (departs + drawn).max(self.last_due);
        if due <= now && self.flying_bytes == 0 {
            return Verdict::Now;
        }
        if self.flying_bytes + bytes > FLYING_BYTES_MAX {
            return Verdict::Overflow;
        }
        self.flying_bytes += bytes;
        self.last_due = due;
        Verdict::Due(due)
    }

    /// When the last bit of a frame has left through the rate limit; `None` if the queue is full.
    fn depart(&mut self, now: Nanoseconds, bytes: u64) -> Option<Nanoseconds> {
        let Some(rate) = self.link.rate else {
            return Some(now);
        };
        let burst = nanoseconds_on_wire(BURST_BYTES, rate);
        let queue = QUEUE_NANOSECONDS.max(nanoseconds_on_wire(QUEUE_BYTES_MIN, rate));
        let start = self.free_at.max(now.saturating_sub(burst));
        if start.saturating_sub(now) > queue {
            return None;
        }
        self.free_at = start + nanoseconds_on_wire(bytes, rate);
        Some(self.free_at.max(now))
    }

    fn forget(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
        self.free_at = 0;
        self.last_due = 0;
    }
}

impl Ord for Flight {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.due, self.sequence).cmp(&(other.due, other.sequence))
    }
}

impl PartialOrd for Flight {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Flight {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Flight {}

/// The Ethernet address of a host: locally administered, with the index in the last two bytes.
pub(crate) fn ethernet_address(host: usize) -> [u8; 6] {
    let number = u16::try_from(host).expect("a lab has at most 250 hosts");
    let [high, low] = number.to_be_bytes();
    [0x02, 0x77, 0x6c, 0x61, high, low]
}

#[derive(Debug, PartialEq, Eq)]
enum Destination {
    Host(usize),
    All,
    Nobody,
}

fn destination(frame: &[u8]) -> Destination {
    match frame {
        [0x02, 0x77, 0x6c, 0x61, high, low, ..] => {
            Destination::Host(usize::from(u16::from_be_bytes([*high, *low])))
        }
        [first, _, _, _, _, _, ..] if first & 1 == 1 => Destination::All,
        _ => Destination::Nobody,
    }
}

fn host_at(moved: &BTreeMap<usize, Ipv4Addr>, address: Ipv4Addr) -> Option<usize> {
    if let Some((host, _)) = moved.iter().find(|(_, place)| **place == address) {
        return Some(*host);
    }
    let [.., number] = address.octets();
    let host = usize::from(number).checked_sub(1)?;
    (!moved.contains_key(&host)).then_some(host)
}

fn nanoseconds(duration: Duration) -> Nanoseconds {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

fn nanoseconds_on_wire(bytes: u64, bits_per_second: u64) -> Nanoseconds {
    bytes.saturating_mul(8_000_000_000) / bits_per_second.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Three hosts; what each got, as (time in ms, host, last byte of the frame).
    struct World {
        fabric: Fabric,
        now: u64,
        got: Vec<(u64, usize, u8)>,
    }

    impl World {
        fn new() -> Self {
            Self {
                fabric: Fabric::new(3, 7),
                now: 1_000 * MS,
                got: Vec::new(),
            }
        }

        fn send(&mut self, from: usize, to: [u8; 6], mark: u8) {
            let mut frame = to.to_vec();
            frame.resize(100, mark);
            let at = self.now / MS - 1_000;
            let got = &mut self.got;
            self.fabric
                .handle_frame(self.now, from, &frame, &mut |to, frame| {
                    got.push((at, to, frame[99]));
                });
        }

        fn run(&mut self) {
            while let Some(due) = self.fabric.poll_timeout() {
                self.now = self.now.max(due);
                let at = self.now / MS - 1_000;
                let got = &mut self.got;
                self.fabric.handle_time(self.now, &mut |to, frame| {
                    got.push((at, to, frame[99]));
                });
            }
        }
    }

    fn link_ms(delay: u64) -> Link {
        Link::with_delay(Duration::from_millis(delay))
    }

    #[test]
    fn a_perfect_link_delivers_at_once_and_a_slow_one_later() {
        let mut world = World::new();
        world.fabric.set_link(0, 2, link_ms(40));
        world.send(0, ethernet_address(1), 1);
        world.send(0, ethernet_address(2), 2);
        assert_eq!(world.got, [(0, 1, 1)]);
        world.run();
        assert_eq!(world.got, [(0, 1, 1), (40, 2, 2)]);
    }

    #[test]
    fn a_broadcast_reaches_everyone_else_each_over_its_own_lane() {
        let mut world = World::new();
        world.fabric.set_link(1, 2, link_ms(5));
        world.send(1, [0xff; 6], 9);
        world.run();
        assert_eq!(world.got, [(0, 0, 9), (5, 2, 9)]);
    }

    #[test]
    fn unknown_addresses_and_short_frames_go_nowhere() {
        let mut world = World::new();
        world.send(0, [2, 0, 0, 0, 0, 1], 1);
        world.send(0, ethernet_address(9), 1);
        world.send(0, ethernet_address(0), 1);
        world.fabric.handle_frame(0, 0, &[1, 2], &mut |_, _| {
            panic!("a frame without an address was delivered")
        });
        assert_eq!(world.got, []);
    }

    #[test]
    fn a_cut_drops_what_is_in_flight_and_a_heal_does_not_bring_it_back() {
        let mut world = World::new();
        world.fabric.set_link(0, 1, link_ms(40));
        world.send(0, ethernet_address(1), 1);
        world.fabric.set_cut(0, 1, true);
        world.send(0, ethernet_address(1), 2);
        world.send(1, ethernet_address(0), 3);
        world.fabric.set_cut(0, 1, false);
        world.send(0, ethernet_address(1), 4);
        world.run();
        assert_eq!(world.got, [(0, 0, 3), (40, 1, 4)]);
        assert_eq!(world.fabric.counters().cut, 2);
    }

    #[test]
    fn jitter_stays_in_its_bounds_and_keeps_the_order() {
        let mut world = World::new();
        let link = link_ms(40).jitter(Duration::from_millis(5));
        world.fabric.set_link(0, 1, link);
        for mark in 0..100 {
            world.send(0, ethernet_address(1), mark);
        }
        world.run();
        let marks: Vec<u8> = world.got.iter().map(|got| got.2).collect();
        assert_eq!(marks, (0..100).collect::<Vec<u8>>());
        assert!(world.got.iter().all(|got| (35..=45).contains(&got.0)));
    }

    #[test]
    fn loss_is_the_asked_share_and_the_same_for_the_same_seed() {
        let run = || {
            let mut world = World::new();
            world.fabric.set_link(0, 1, Link::default().loss(0.25));
            for _ in 0..10_000 {
                world.send(0, ethernet_address(1), 0);
            }
            world.fabric.counters()
        };
        let counters = run();
        assert!((2_300..2_700).contains(&counters.lost), "{counters:?}");
        assert_eq!(counters, run());
    }

    #[test]
    fn a_rate_spreads_frames_out_and_drops_what_its_queue_cannot_hold() {
        let mut world = World::new();
        // 800 kbit/s is 1000 frames of 100 bytes a second; the queue is 64 KiB and the burst 16.
        world.fabric.set_link(0, 1, Link::default().rate(800_000));
        for _ in 0..2_000 {
            world.send(0, ethernet_address(1), 0);
        }
        world.run();
        let counters = world.fabric.counters();
        assert!((800..=840).contains(&counters.delivered), "{counters:?}");
        assert_eq!(counters.delivered + counters.overflowed, 2_000);
        let last = world.got.last().map(|got| got.0);
        assert!((640..=670).contains(&last.unwrap_or(0)), "{last:?}");
    }

    #[test]
    fn a_dead_host_gets_nothing_that_was_sent_before() {
        let mut world = World::new();
        world.fabric.set_link(0, 1, link_ms(40));
        world.fabric.set_link(1, 2, link_ms(40));
        world.send(0, ethernet_address(1), 1);
        world.send(1, ethernet_address(2), 2);
        world.fabric.forget_host(1);
        world.run();
        assert_eq!(world.got, []);
    }
}
