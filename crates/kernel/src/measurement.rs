//! Measurement: what this node knows of itself and of the others.
//!
//! What it is not: it decides nothing from what it knows. Facts of other nodes are hearsay: the
//! newest that their owner said and that reached this node.
//!
//! A node tells of changes in what it is (name, labels, addresses, availability) at once, and of
//! changes in what it uses only when they are large enough to matter to placement, so that an idle
//! cloud is silent.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use wire::fact::{ADDRESSES_MAX, Availability, Capacity, LABELS_MAX, Load, NodeFacts};
use wire::id::NodeId;
use wire::relay::RELAYS_MAX;

use crate::instant::Instant;
use crate::limits::NODES_MAX;

/// A change in what is used is told when it is larger than this part of what exists.
const CHANGE_PER_CENT: u64 = 10;
/// Changes in what is used are told at most this often.
const TELL_PERIOD: Duration = Duration::from_secs(2);
/// Weight of the newest round-trip time, as a power of two (RFC 6298 section 2 uses the same).
const RTT_SHIFT: u32 = 3;
/// Highest version of facts that anybody believes: as many as two thousand million boots reach. What
/// claims to be beyond is a lie, and its owner could not say anything newer.
const VERSION_MAX: u64 = 1 << 63;

/// The label of a node whose disk takes no writes. No name of a label has a dot, so nobody else sets
/// it.
const IMPAIRED: &str = "welkin.disk";

/// What is known of the nodes of the cloud.
#[derive(Debug)]
pub(crate) struct Measurement {
    me: NodeId,
    facts: BTreeMap<NodeId, NodeFacts>,
    /// Smoothed, in microseconds.
    rtt_us: BTreeMap<NodeId, u64>,
    /// What was last told of this node.
    told: Capacity,
    told_at: Instant,
    /// Of this node, as it is now.
    now: Capacity,
}

impl Measurement {
    pub(crate) fn new(facts: NodeFacts) -> Self {
        let (me, capacity) = (facts.node, facts.capacity);
        Self {
            me,
            facts: BTreeMap::from([(me, facts)]),
            rtt_us: BTreeMap::new(),
            told: capacity,
            told_at: Instant::default(),
            now: capacity,
        }
    }

    pub(crate) fn get(&self, node: NodeId) -> Option<&NodeFacts> {
        self.facts.get(&node)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &NodeFacts> {
        self.facts.values()
    }

    /// The name people use, or the short id of a node that has not told one.
    pub(crate) fn name(&self, node: NodeId) -> String {
        self.facts
            .get(&node)
            .map_or_else(|| node.short(), |facts| facts.name.clone())
    }

    pub(crate) fn rtt_us(&self, node: NodeId) -> Option<u64> {
        if node == self.me {
            Some(0)
        } else {
            self.rtt_us.get(&node).copied()
        }
    }

    pub(crate) fn availability(&self, node: NodeId) -> Availability {
        self.facts
            .get(&node)
            .map_or(Availability::Open, |facts| facts.availability)
    }

    /// Whether a node says that its disk takes no writes, or that its daemon is being restarted: it
    /// keeps what it has, takes nothing new and supervises nothing.
    pub(crate) fn is_impaired(&self, node: NodeId) -> bool {
        let facts = self.facts.get(&node);
        facts.is_some_and(|facts| facts.labels.contains_key(IMPAIRED))
    }

    /// Whether a node says that it is reached by relays.
    pub(crate) fn is_hidden(&self, node: NodeId) -> bool {
        let facts = self.facts.get(&node);
        facts.is_some_and(|facts| !facts.relays.is_empty())
    }

    /// Labels that a person gave to this node.
    pub(crate) fn own_labels(&self) -> BTreeMap<String, String> {
        let mut labels = self
            .facts
            .get(&self.me)
            .map_or_else(BTreeMap::new, |facts| facts.labels.clone());
        labels.remove(IMPAIRED);
        labels
    }

    /// This node can keep nothing new, or can again: the facts to be told at once.
    pub(crate) fn impair(&mut self, now: Instant, is_impaired: bool) -> NodeFacts {
        self.change(now, |facts| {
            if is_impaired {
                facts.labels.insert(IMPAIRED.into(), "refuses".into());
            } else {
                facts.labels.remove(IMPAIRED);
            }
        })
    }

    /// Everybody's newest capacity; this node's own as it is now.
    pub(crate) fn capacity(&self, node: NodeId) -> Capacity {
        if node == self.me {
            return self.now;
        }
        self.facts
            .get(&node)
            .map_or_else(Capacity::default, |facts| facts.capacity)
    }

    /// Takes in what a peer says a node said; `true` when it is news.
    pub(crate) fn learn(&mut self, facts: &NodeFacts) -> bool {
        let is_newer = self
            .facts
            .get(&facts.node)
            .is_none_or(|old| facts.version > old.version);
        let fits = facts.addresses.len() <= ADDRESSES_MAX
            && facts.labels.keys().filter(|key| *key != IMPAIRED).count() <= LABELS_MAX
            && facts.relays.len() <= RELAYS_MAX
            && facts.version <= VERSION_MAX;
        let has_room = self.facts.len() < NODES_MAX || self.facts.contains_key(&facts.node);
        if facts.node == self.me || !is_newer || !fits || !has_room {
            return false;
        }
        self.facts.insert(facts.node, facts.clone());
        true
    }

    /// The largest version that anybody claims this node has said; `true` when this node never said
    /// it and must say something newer: its disk was set back, or somebody lies.
    pub(crate) fn note_claim(&mut self, version: u64) -> bool {
        let mine = self.facts.get_mut(&self.me);
        let Some(mine) = mine.filter(|_| version <= VERSION_MAX) else {
            return false;
        };
        let is_beyond = version > mine.version;
        mine.version = mine.version.max(version);
        is_beyond
    }

    /// When there is no room for another node, forgets one that is no member; says which.
    pub(crate) fn make_room(&mut self, is_member: impl Fn(NodeId) -> bool) -> Option<NodeId> {
        if self.facts.len() < NODES_MAX {
            return None;
        }
        let mut known = self.facts.keys().copied();
        let stranger = known.find(|node| *node != self.me && !is_member(*node))?;
        self.forget(stranger);
        Some(stranger)
    }

    pub(crate) fn forget(&mut self, node: NodeId) {
        self.facts.remove(&node);
        self.rtt_us.remove(&node);
    }

    pub(crate) fn note_round_trip(&mut self, node: NodeId, rtt_us: u64) {
        let smoothed = self.rtt_us.entry(node).or_insert(rtt_us);
        *smoothed = *smoothed - (*smoothed >> RTT_SHIFT) + (rtt_us >> RTT_SHIFT);
    }

    /// Changes what this node is; the facts to be told at once.
    pub(crate) fn change(&mut self, now: Instant, edit: impl FnOnce(&mut NodeFacts)) -> NodeFacts {
        let capacity = self.now;
        let mine = self.facts.entry(self.me).and_modify(|facts| {
            edit(facts);
            facts.version = facts.version.saturating_add(1);
            facts.capacity = capacity;
        });
        let facts = mine
            .or_insert_with(|| unreachable!("a node always knows itself"))
            .clone();
        self.told = capacity;
        self.told_at = now;
        facts
    }

    /// What this node promised and hosts.
    pub(crate) fn note_held(&mut self, cpu_millis: u32, memory_bytes: u64, objects: usize) {
        self.now.cpu_held_millis = cpu_millis;
        self.now.memory_held_bytes = memory_bytes;
        self.now.objects = u32::try_from(objects).unwrap_or(u32::MAX);
    }

    pub(crate) fn note_load(&mut self, load: Load) {
        self.now.cpu_used_millis = load.cpu_used_millis;
        self.now.memory_used_bytes = load.memory_used_bytes;
    }

    /// Whether what this node uses differs enough from what others know.
    pub(crate) fn is_changed(&self) -> bool {
        let far = |a: u64, b: u64, whole: u64| a.abs_diff(b) * 100 > whole * CHANGE_PER_CENT;
        let (told, is) = (&self.told, &self.now);
        told.objects.abs_diff(is.objects) * 10 > told.objects
            || far(
                told.cpu_held_millis.into(),
                is.cpu_held_millis.into(),
                is.cpu_millis.into(),
            )
            || far(
                told.cpu_used_millis.into(),
                is.cpu_used_millis.into(),
                is.cpu_millis.into(),
            )
            || far(
                told.memory_held_bytes,
                is.memory_held_bytes,
                is.memory_bytes,
            )
            || far(
                told.memory_used_bytes,
                is.memory_used_bytes,
                is.memory_bytes,
            )
    }

    /// The next time at which it may be told.
    pub(crate) fn tell_after(&self) -> Instant {
        self.told_at + TELL_PERIOD
    }

    /// How busy this node is, in thousandths: the larger of what is promised and what is used.
    pub(crate) fn load_per_mille(&self) -> u32 {
        let part =
            |used: u64, whole: u64| used.saturating_mul(1000).checked_div(whole).unwrap_or(0);
        let is = &self.now;
        let cpu = part(
            is.cpu_held_millis.max(is.cpu_used_millis).into(),
            is.cpu_millis.into(),
        );
        let memory = part(
            is.memory_held_bytes.max(is.memory_used_bytes),
            is.memory_bytes,
        );
        u32::try_from(cpu.max(memory)).unwrap_or(u32::MAX)
    }

    /// Names that more than one node has.
    pub(crate) fn twins(&self) -> BTreeSet<String> {
        let mut seen = BTreeSet::new();
        let doubled = |facts: &&NodeFacts| !seen.insert(facts.name.clone());
        let doubled: Vec<&NodeFacts> = self.facts.values().filter(doubled).collect();
        doubled
            .into_iter()
            .map(|facts| facts.name.clone())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use wire::fact::Platform;

    use super::*;

    fn node(letter: u8) -> NodeId {
        NodeId([letter; 32])
    }

    fn facts(letter: u8, version: u64) -> NodeFacts {
        NodeFacts {
            node: node(letter),
            version,
            name: letter.to_string(),
            program_version: String::new(),
            platform: Platform {
                os: String::new(),
                arch: String::new(),
                kernel: String::new(),
            },
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            availability: Availability::Open,
            capacity: Capacity::default(),
            level: wire::LEVEL,
            relays: Vec::new(),
        }
    }

    /// A peer claimed the highest version there is; the next change of this node overflowed, which
    /// ended the process, and gossip brought the claim to every life after it.
    #[test]
    fn an_absurd_version_is_believed_of_nobody() {
        let mut measurement = Measurement::new(facts(1, 1 << 32));
        assert!(!measurement.note_claim(u64::MAX));
        assert!(!measurement.note_claim(VERSION_MAX + 1));
        let changed = measurement.change(Instant::default(), |_| {});
        assert_eq!(changed.version, (1 << 32) + 1);
        assert!(!measurement.learn(&facts(2, u64::MAX)));
        assert!(measurement.learn(&facts(2, 5)), "its owner is still heard");
        assert!(measurement.note_claim(VERSION_MAX), "high, and outdone");
        let changed = measurement.change(Instant::default(), |_| {});
        assert_eq!(changed.version, VERSION_MAX + 1);
    }

    /// Facts of nodes that nobody ever admitted filled the table, and members that came later had
    /// no name and no address.
    #[test]
    fn facts_of_strangers_make_room_for_those_of_members() {
        let mut measurement = Measurement::new(facts(1, 1));
        let mut stranger = facts(2, 1);
        for number in 1..u16::try_from(NODES_MAX).expect("fits") {
            let [high, low] = number.to_be_bytes();
            stranger.node.0[30] = high;
            stranger.node.0[31] = low;
            assert!(measurement.learn(&stranger));
        }
        let member = facts(3, 1);
        assert!(!measurement.learn(&member), "there is no room");
        assert_eq!(measurement.make_room(|_| true), None);
        let evicted = measurement.make_room(|node| node == member.node);
        assert!(evicted.is_some_and(|it| it != node(1)), "{evicted:?}");
        assert!(measurement.learn(&member));
        assert_eq!(measurement.make_room(|_| false).map(|it| it.0[0]), Some(2));
    }

    #[test]
    fn a_node_says_that_its_disk_refuses_and_keeps_its_labels() {
        let mut measurement = Measurement::new(facts(1, 1));
        let told = measurement.impair(Instant::default(), true);
        let mut other = Measurement::new(facts(2, 1));
        assert!(other.learn(&told));
        assert!(other.is_impaired(node(1)));
        assert_eq!(measurement.own_labels(), BTreeMap::new());
        let told = measurement.impair(Instant::default(), false);
        assert!(other.learn(&told));
        assert!(!other.is_impaired(node(1)));
    }
}
