//! The directory: which nodes keep what, and the records that this node keeps.
//!
//! What it is not: it does not send anything. The hub asks it who ranks where, hands it records
//! that arrive, and asks what is yet to be copied where.
//!
//! Guardians are found by rendezvous hashing (Thaler and Ravishankar 1998): every node computes
//! the same order of all nodes for an app, without asking anybody, and the loss of a node moves
//! only what that node kept.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use wire::id::{AppId, NodeId, Version};
use wire::peer::{AppRecord, Wanted};
use wire::tenancy::Tenancy;

use crate::limits::{DECISIONS_MAX, GUARDIANS, RECORDS_MAX};

/// The records of one node.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    records: BTreeMap<AppId, AppRecord>,
    /// Which version of a record other guardians have acknowledged.
    copies: BTreeMap<AppId, BTreeMap<NodeId, (Version, Version)>>,
}

/// What became of a record that arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Joined {
    /// Something in it was newer.
    Changed,
    /// Nothing in it was newer.
    Same,
    /// There is no room for another app.
    Full,
    /// It cannot be what anybody wrote who means well.
    Refused,
}

impl Directory {
    pub(crate) fn get(&self, app: AppId) -> Option<&AppRecord> {
        self.records.get(&app)
    }

    pub(crate) fn get_mut(&mut self, app: AppId) -> Option<&mut AppRecord> {
        self.records.get_mut(&app)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &AppRecord> {
        self.records.values()
    }

    pub(crate) fn remove(&mut self, app: AppId) {
        self.records.remove(&app);
        self.copies.remove(&app);
    }

    /// Takes in a record that another node, the disk or this node wrote.
    pub(crate) fn join(&mut self, record: AppRecord) -> Joined {
        let Some(mine) = self.records.get_mut(&record.app) else {
            if self.records.len() >= RECORDS_MAX {
                return Joined::Full;
            }
            self.records.insert(record.app, record);
            return Joined::Changed;
        };
        let state = |it: &AppRecord| {
            let tenancy = it.wanted.tenancy.as_ref();
            let generation = tenancy.map(|tenancy| tenancy.generation);
            (it.version, it.wanted.version, generation, it.job.clone())
        };
        let before = state(mine);
        join_into(mine, record);
        if state(mine) == before {
            Joined::Same
        } else {
            Joined::Changed
        }
    }

    /// Gives back the room of what a removed app has no more: its tombstone stays for long.
    pub(crate) fn trim(&mut self, app: AppId) {
        let record = self.records.get_mut(&app);
        if let Some(record) = record.filter(|record| record.wanted.spec.is_none()) {
            record.objects.shrink_to_fit();
            record.decisions.shrink_to_fit();
        }
    }

    /// The oldest tombstones beyond `count` that have no objects and that `is_held` by all who
    /// should.
    pub(crate) fn spare_tombstones(
        &self,
        count: usize,
        is_held: impl Fn(AppId) -> bool,
    ) -> Vec<AppId> {
        let is_tombstone = |record: &&AppRecord| record.wanted.spec.is_none();
        let mut all: Vec<&AppRecord> = self.records.values().filter(is_tombstone).collect();
        let surplus = all.len().saturating_sub(count);
        if surplus == 0 {
            return Vec::new();
        }
        all.sort_by_key(|record| record.wanted.version);
        all.into_iter()
            .filter(|record| record.objects.is_empty() && is_held(record.app))
            .map(|record| record.app)
            .take(surplus)
            .collect()
    }

    /// Remembers that `node` has this version.
    pub(crate) fn note_copy(&mut self, app: AppId, node: NodeId, versions: (Version, Version)) {
        let copy = self
            .copies
            .entry(app)
            .or_default()
            .entry(node)
            .or_insert(versions);
        *copy = (copy.0.max(versions.0), copy.1.max(versions.1));
    }

    /// Forgets what others than these have of an app.
    pub(crate) fn forget_copies_but(&mut self, app: AppId, guardians: &[NodeId]) {
        if let Some(copies) = self.copies.get_mut(&app) {
            copies.retain(|node, _| guardians.contains(node));
        }
    }

    /// Forgets what `node` had: it may have lost it.
    pub(crate) fn forget_copies_of(&mut self, node: NodeId) {
        self.copies.values_mut().for_each(|copies| {
            copies.remove(&node);
        });
    }

    /// Which of `guardians` lack the newest version of a record.
    pub(crate) fn lacking(&self, app: AppId, guardians: &[NodeId]) -> Vec<NodeId> {
        let Some(record) = self.records.get(&app) else {
            return Vec::new();
        };
        let newest = (record.version, record.wanted.version);
        let copies = self.copies.get(&app);
        let has = |node: &NodeId| {
            copies
                .and_then(|all| all.get(node))
                .is_some_and(|it| it.0 >= newest.0 && it.1 >= newest.1)
        };
        guardians
            .iter()
            .copied()
            .filter(|node| !has(node))
            .collect()
    }
}

/// `mine` becomes the join of both: commutative, associative and idempotent, because versions are
/// unique to one write.
pub(crate) fn join_into(mine: &mut AppRecord, other: AppRecord) {
    let newest_tenancy = newest_tenancy(&mine.wanted, &other.wanted);
    if other.wanted.version > mine.wanted.version {
        mine.wanted = other.wanted;
    }
    if let Some(newest) = newest_tenancy {
        mine.wanted.tenancy = Some(newest);
    }
    if other.version > mine.version {
        mine.version = other.version;
        mine.objects = other.objects;
        mine.objects_born = other.objects_born;
        mine.decisions = other.decisions;
        mine.decisions.truncate(DECISIONS_MAX);
        mine.settled = other.settled;
    }
    mine.begun = mine.begun.max(other.begun);
    mine.job.join(other.job);
}

/// Whoever wishes may not have heard who votes on the app now: that is not lost with its wish.
fn newest_tenancy(a: &Wanted, b: &Wanted) -> Option<Tenancy> {
    let both = [&a.tenancy, &b.tenancy].into_iter().flatten();
    let newest = both.max_by_key(|tenancy| tenancy.generation);
    newest.filter(|_| a.born == b.born).cloned()
}

/// `nodes` in the order in which they are responsible for `app`.
pub(crate) fn rank(app: AppId, nodes: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ranked: Vec<(u64, NodeId)> = nodes.map(|node| (score(app, node), node)).collect();
    ranked.sort_unstable_by(|a, b| b.cmp(a));
    ranked.into_iter().map(|(_, node)| node).collect()
}

/// The first [`GUARDIANS`] of [`rank`].
pub(crate) fn guardians(app: AppId, nodes: impl Iterator<Item = NodeId>) -> Vec<NodeId> {
    let mut ranked = rank(app, nodes);
    ranked.truncate(GUARDIANS);
    ranked
}

/// A weight that every node computes alike; the finalizer of `SplitMix64` (Steele et al. 2014)
/// over both ids, which are themselves uniform.
fn score(app: AppId, node: NodeId) -> u64 {
    let [a, b, c, d, e, f, g, h, rest @ ..] = app.0;
    let low = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
    let high = u64::from_be_bytes(rest);
    mix(mix(low ^ node.short_id()) ^ high)
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;

    use super::*;
    use proptest::prelude::*;
    use wire::fact::{Exit, ExitReason};
    use wire::id::{ObjectId, UnixMillis};
    use wire::job::{Attempt, RUNS_MAX, Run};

    /// A node that removed 1,000 apps of twenty objects each kept about 10 MiB of room for them.
    #[test]
    fn a_tombstone_takes_no_room_for_objects() {
        let mut directory = Directory::default();
        let mut gone = record(1, 1);
        gone.objects.reserve(20);
        let app = gone.app;
        assert_eq!(directory.join(gone), Joined::Changed);
        directory.trim(app);
        let kept = directory.get(app).expect("it has joined");
        assert_eq!(kept.objects.capacity(), 0);
    }

    fn run(number: u64, version: u64) -> Run {
        let attempt = |version: u64| Attempt {
            object: ObjectId([u8::try_from(version % 7).expect("small"); 16]),
            node: NodeId([1; 32]),
            started: version.is_multiple_of(3).then_some(UnixMillis(version)),
            exit: version.is_multiple_of(5).then_some(Exit {
                reason: ExitReason::Code(u8::try_from(version % 4).expect("small")),
                at: UnixMillis(version % 8),
                asked: version.is_multiple_of(2),
            }),
        };
        Run {
            skipped: u32::try_from(version % 5).expect("small"),
            attempt: (version % 6 > 1).then(|| attempt(version)),
            ..Run::new(number, UnixMillis(version % 9), UnixMillis(version % 11))
        }
    }

    #[test]
    fn a_join_forgets_no_run_that_either_knows() {
        let runs = |numbers: &[u64]| {
            let mut it = record(1, 1);
            it.job.born = it.wanted.born;
            it.job.runs = numbers.iter().map(|number| run(*number, 1)).collect();
            it
        };
        let older = runs(&[1, 2, 3, 5]);
        let newer = AppRecord {
            version: older.version,
            ..runs(&[2, 4])
        };
        let numbers =
            |it: &AppRecord| -> Vec<u64> { it.job.runs.iter().map(|run| run.number).collect() };
        assert_eq!(numbers(&joined(&older, &newer)), [1, 2, 3, 4, 5]);
        let many: Vec<u64> = (1..20).collect();
        assert_eq!(numbers(&joined(&older, &runs(&many))).len(), RUNS_MAX);
        let mut reborn = runs(&[1]);
        reborn.job.born.millis += 1;
        assert_eq!(
            numbers(&joined(&older, &reborn)),
            [1],
            "of another app of the name"
        );
    }

    /// A record whose content follows from its versions, as in life: a version is one write.
    fn record(version: u64, wanted: u64) -> AppRecord {
        let at = |counter: u64| Version {
            millis: counter / 4,
            counter: 0,
            node: counter % 4,
        };
        AppRecord {
            app: AppId::of_name("web"),
            version: at(version),
            wanted: Wanted {
                version: at(wanted),
                spec: None,
                stopped: wanted.is_multiple_of(2),
                rested: Default::default(),
                created: UnixMillis(wanted),
                born: at(0),
                tenancy: None,
                revised: at(0),
                previous: None,
                rolls_back: false,
                undone: None,
                scheduled: UnixMillis::default(),
            },
            objects: Vec::new(),
            objects_born: Version::default(),
            settled: at(version),
            begun: at(version % 4),
            job: wire::job::Job {
                born: at(version % 2),
                runs: (version / 8 + version % 3..version)
                    .take(RUNS_MAX)
                    .map(|number| run(number, version))
                    .collect(),
            },
            decisions: alloc::vec![wire::call::Decision {
                index: 0,
                at: UnixMillis(version),
                node: Some(version.to_string()),
                reasons: Vec::new(),
            }],
        }
    }

    fn joined(a: &AppRecord, b: &AppRecord) -> AppRecord {
        let mut a = a.clone();
        join_into(&mut a, b.clone());
        a
    }

    proptest! {
        #[test]
        fn joins_are_commutative_associative_and_idempotent(
            a in (0_u64..40, 0_u64..40), b in (0_u64..40, 0_u64..40), c in (0_u64..40, 0_u64..40),
        ) {
            let (a, b, c) = (record(a.0, a.1), record(b.0, b.1), record(c.0, c.1));
            prop_assert_eq!(joined(&a, &b), joined(&b, &a));
            prop_assert_eq!(joined(&joined(&a, &b), &c), joined(&a, &joined(&b, &c)));
            prop_assert_eq!(joined(&a, &a), a.clone());
        }

        #[test]
        fn the_loss_of_a_node_moves_only_what_it_kept(seed: [u8; 16], lost in 0_u8..20) {
            let nodes = || (0_u8..20).map(|i| NodeId([i.wrapping_mul(37); 32]));
            let app = AppId(seed);
            let gone = NodeId([lost.wrapping_mul(37); 32]);
            let before = guardians(app, nodes());
            let after = guardians(app, nodes().filter(|node| *node != gone));
            let kept: Vec<NodeId> = before.iter().copied().filter(|node| *node != gone).collect();
            prop_assert_eq!(&after[..kept.len()], &kept[..]);
        }
    }

    /// Each program that was run in the foreground left one for a month, and when there were 8,192 of
    /// them nothing could be run any more.
    #[test]
    fn the_oldest_tombstones_make_room() {
        let mut directory = Directory::default();
        for number in 1..=6_u64 {
            let mut tombstone = record(number, number * 8);
            tombstone.app = AppId([u8::try_from(number).expect("few"); 16]);
            directory.join(tombstone);
        }
        let app = |number: u8| AppId([number; 16]);
        let all = |_| true;
        assert_eq!(directory.spare_tombstones(6, all), []);
        assert_eq!(directory.spare_tombstones(4, all), [app(1), app(2)]);
        let not_the_first = |it| it != app(1);
        assert_eq!(directory.spare_tombstones(5, not_the_first), [app(2)]);
    }

    #[test]
    fn guardians_are_spread_evenly() {
        let mut count = BTreeMap::new();
        for i in 0..3000_u32 {
            let nodes = (0_u8..10).map(|i| NodeId([i.wrapping_mul(91); 32]));
            let app = AppId::of_name(&i.to_string());
            for node in guardians(app, nodes) {
                *count.entry(node).or_insert(0_u32) += 1;
            }
        }
        assert!(
            count.values().all(|count| (750..1050).contains(count)),
            "{count:?}"
        );
    }
}
