//! Supervision: what must be done so that an app is as it should be.
//!
//! What it is not: it sends nothing and remembers nothing about nodes. [`plan`] is a pure function
//! of an app's record and of who can be reached; the hub carries its steps out and asks again
//! whenever one of them changed.
//!
//! The first reachable node in the app's rank supervises it (partition policy `available`). Two
//! sides of a partition each have one and each keep the wanted count; after the heal the surplus is
//! retired, youngest first, because the plan keeps the oldest object of every slot.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use wire::fact::{ObjectFacts, Phase};
use wire::id::{AppId, NodeId, ObjectId};
use wire::peer::{AppRecord, Wanted};
use wire::spec::{AppSpec, OnPartition, Restart};

use crate::instant::Instant;

/// First wait before a place is looked for again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Wait before a place is looked for again that was promised to somebody else.
const CONTENDED_PAUSE: Duration = Duration::from_millis(200);
/// Longest wait before a place is looked for again.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// How a node looks from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// It answers, and takes objects.
    Open,
    /// It answers, and its objects are to leave.
    Draining,
    /// It does not answer.
    Lost,
    /// It does not belong to the cloud any more.
    Removed,
}

/// One thing to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Find a place for the slot.
    Place { index: u32 },
    /// End the object and forget it.
    Retire {
        object: ObjectId,
        node: NodeId,
        why: &'static str,
    },
    /// End the object.
    Stop { object: ObjectId, node: NodeId },
    /// Run the halted object again.
    Start { object: ObjectId, node: NodeId },
    /// Nothing is left to do and nobody wants to keep it: remove the app.
    Forget,
}

/// What must be done for `record`; slots in `busy` are being placed already.
pub(crate) fn plan(
    record: &AppRecord,
    reach: impl Fn(NodeId) -> Reach,
    busy: &BTreeSet<u32>,
) -> Vec<Step> {
    let mut steps = Vec::new();
    let Some(spec) = &record.wanted.spec else {
        let here = |facts: &&ObjectFacts| is_reachable(reach(facts.node));
        steps.extend(
            record
                .objects
                .iter()
                .filter(here)
                .map(|it| retire(it, "the app was removed")),
        );
        return steps;
    };
    if record.wanted.stopped {
        let runs = |facts: &&ObjectFacts| {
            is_reachable(reach(facts.node))
                && facts.phase.is_alive()
                && facts.phase != Phase::Stopping
        };
        let stop = |it: &ObjectFacts| Step::Stop {
            object: it.object,
            node: it.node,
        };
        steps.extend(record.objects.iter().filter(runs).map(stop));
        return steps;
    }
    for index in 0..spec.replicas {
        let slot: Vec<&ObjectFacts> = record
            .objects
            .iter()
            .filter(|it| it.index == index)
            .collect();
        plan_slot(
            &record.wanted,
            index,
            &slot,
            &reach,
            busy.contains(&index),
            &mut steps,
        );
    }
    let beyond = |it: &&ObjectFacts| it.index >= spec.replicas && is_reachable(reach(it.node));
    steps.extend(
        record
            .objects
            .iter()
            .filter(beyond)
            .map(|it| retire(it, "scaled down")),
    );
    if spec.remove_when_done && busy.is_empty() && is_done(spec, record) {
        steps.push(Step::Forget);
    }
    steps
}

/// The slots that need a place or a start, whether or not it is tried now.
pub(crate) fn lacking(record: &AppRecord, reach: impl Fn(NodeId) -> Reach) -> BTreeSet<u32> {
    let index_of = |object: &ObjectId| {
        let facts = record.objects.iter().find(|it| it.object == *object);
        facts.map(|it| it.index)
    };
    let slot = |step: &Step| match step {
        Step::Place { index } => Some(*index),
        Step::Start { object, .. } => index_of(object),
        Step::Retire { .. } | Step::Stop { .. } | Step::Forget => None,
    };
    let steps = plan(record, reach, &BTreeSet::new());
    steps.iter().filter_map(slot).collect()
}

fn is_reachable(reach: Reach) -> bool {
    matches!(reach, Reach::Open | Reach::Draining)
}

fn retire(facts: &ObjectFacts, why: &'static str) -> Step {
    Step::Retire {
        object: facts.object,
        node: facts.node,
        why,
    }
}

fn is_done(spec: &AppSpec, record: &AppRecord) -> bool {
    (0..spec.replicas).all(|index| {
        let mut slot = record
            .objects
            .iter()
            .filter(|it| it.index == index)
            .peekable();
        slot.peek().is_some() && slot.all(|it| !it.phase.is_alive())
    })
}

fn plan_slot(
    wanted: &Wanted,
    index: u32,
    slot: &[&ObjectFacts],
    reach: &impl Fn(NodeId) -> Reach,
    is_busy: bool,
    steps: &mut Vec<Step>,
) {
    let spec = wanted.spec.as_ref();
    let restart = spec.map_or(Restart::No, |spec| spec.restart);
    let never_twice = spec.is_some_and(|spec| spec.on_partition != OnPartition::Available);
    let here: Vec<&ObjectFacts> = slot
        .iter()
        .copied()
        .filter(|it| is_reachable(reach(it.node)))
        .collect();
    let serving = here
        .iter()
        .filter(|it| it.phase.is_alive() && it.phase != Phase::Stopping);
    let preference = |it: &&&ObjectFacts| {
        (
            // Of an app that never runs twice, the newest is the one.
            never_twice.then_some(Reverse(it.epoch)),
            reach(it.node) == Reach::Draining,
            it.phase != Phase::Running,
            it.created,
            it.object,
        )
    };
    if let Some(keep) = serving.min_by_key(preference) {
        let leaving = reach(keep.node) == Reach::Draining;
        if leaving && restart != Restart::No && !is_busy {
            // What never runs twice must have ended before it can begin elsewhere.
            steps.push(if never_twice {
                retire(keep, "its node drains")
            } else {
                Step::Place { index }
            });
        }
        for other in here.iter().filter(|it| it.object != keep.object) {
            let in_use = other.phase == Phase::Running && keep.phase != Phase::Running;
            if !in_use && other.phase != Phase::Stopping {
                let draining = reach(other.node) == Reach::Draining;
                let why = if draining {
                    "its node drains"
                } else {
                    "surplus"
                };
                steps.push(retire(other, why));
            }
        }
        return;
    }
    if is_busy || here.iter().any(|it| it.phase == Phase::Stopping) {
        return;
    }
    if let Some(last) = slot
        .iter()
        .filter(|it| !it.phase.is_alive())
        .max_by_key(|it| it.created)
    {
        // Nobody can ask a removed node whether the object is even one of this birth of the app.
        let is_of_nobody = reach(last.node) == Reach::Removed;
        // What was ended because its app was stopped runs again once the app is not.
        let was_halted = last.halted && !wanted.rested.contains(&index);
        let again = was_halted || (is_of_nobody && restart == Restart::Always);
        match (again, reach(last.node)) {
            (true, Reach::Open) => {
                steps.push(Step::Start {
                    object: last.object,
                    node: last.node,
                });
            }
            (true, Reach::Draining | Reach::Lost | Reach::Removed) => {
                steps.push(Step::Place { index });
            }
            (false, _) => {}
        }
        return;
    }
    if slot.is_empty() || restart != Restart::No {
        steps.push(Step::Place { index });
    }
}

/// What a supervisor remembers between two plans.
#[derive(Debug, Default)]
pub(crate) struct Supervision {
    /// Apps whose plan may have changed.
    dirty: BTreeSet<AppId>,
    /// Slots that are being placed, and the number of that attempt. An attempt whose number is not
    /// here any more has nothing to say.
    busy: BTreeMap<AppId, BTreeMap<u32, u64>>,
    /// Slots without a place: when to look again (nothing once that time has come), and how long
    /// to wait after the next failure.
    retries: BTreeMap<(AppId, u32), (Option<Instant>, Duration)>,
    /// What keeps an app from being as it should.
    trouble: BTreeMap<(AppId, u32), Trouble>,
}

/// What keeps a slot empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// No node takes it, for this reason.
    NoFit(String),
    /// Too few guardians answer; it must not run twice.
    TooFew(String),
    /// Another object may still run there; it must not run twice. That passes by itself.
    Held(String),
}

impl core::fmt::Display for Trouble {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::NoFit(why) => write!(f, "no node fits: {why}"),
            Self::TooFew(why) | Self::Held(why) => write!(f, "it may not start now: {why}"),
        }
    }
}

impl Supervision {
    pub(crate) fn touch(&mut self, app: AppId) {
        self.dirty.insert(app);
    }

    pub(crate) fn next_dirty(&mut self) -> Option<AppId> {
        self.dirty.pop_first()
    }

    /// Slots for which no place is to be looked for now.
    pub(crate) fn busy(&self, app: AppId) -> BTreeSet<u32> {
        let placing = self.busy.get(&app);
        let mut busy: BTreeSet<u32> = placing
            .map(|placing| placing.keys().copied().collect())
            .unwrap_or_default();
        let waiting = self.retries.range((app, 0)..=(app, u32::MAX));
        let waiting = waiting.filter(|(_, (at, _))| at.is_some());
        busy.extend(waiting.map(|((_, index), _)| *index));
        busy
    }

    /// The slot is being placed, in the attempt of this number.
    pub(crate) fn begin(&mut self, app: AppId, index: u32, attempt: u64) {
        self.busy.entry(app).or_default().insert(index, attempt);
    }

    /// Whether that attempt still is the one that places the slot.
    pub(crate) fn is_current(&self, app: AppId, index: u32, attempt: u64) -> bool {
        let placing = self.busy.get(&app).and_then(|slots| slots.get(&index));
        placing == Some(&attempt)
    }

    /// How many slots of the app are being placed.
    pub(crate) fn placing_count(&self, app: AppId) -> usize {
        self.busy.get(&app).map_or(0, BTreeMap::len)
    }

    /// Whether any slot of any app is being placed.
    pub(crate) fn is_placing(&self) -> bool {
        !self.busy.is_empty()
    }

    /// The slot has a place.
    pub(crate) fn placed(&mut self, app: AppId, index: u32) {
        self.finish(app, index);
        self.retries.remove(&(app, index));
        self.trouble.remove(&(app, index));
    }

    /// The slot has no place, for this reason; look again later.
    pub(crate) fn unplaced(&mut self, now: Instant, app: AppId, index: u32, why: String) {
        self.finish(app, index);
        let wait = self
            .retries
            .get(&(app, index))
            .map_or(RETRY_MIN, |(_, wait)| *wait);
        let next = (wait * 2).min(RETRY_MAX);
        self.retries.insert((app, index), (Some(now + wait), next));
        self.trouble.insert((app, index), Trouble::NoFit(why));
    }

    /// The slot is looked at again then, and not sooner; for this reason, if that matters to anybody.
    pub(crate) fn put_off(&mut self, at: Instant, app: AppId, index: u32, why: Option<Trouble>) {
        self.finish(app, index);
        self.retries.insert((app, index), (Some(at), RETRY_MIN));
        if let Some(why) = why {
            self.trouble.insert((app, index), why);
        }
    }

    /// Somebody else holds what the slot needs, and will have taken it or left it in a moment.
    pub(crate) fn contended(&mut self, now: Instant, app: AppId, index: u32) {
        self.finish(app, index);
        let next = self
            .retries
            .get(&(app, index))
            .map_or(RETRY_MIN, |(_, wait)| *wait);
        self.retries
            .insert((app, index), (Some(now + CONTENDED_PAUSE), next));
    }

    fn finish(&mut self, app: AppId, index: u32) {
        if let Some(busy) = self.busy.get_mut(&app) {
            busy.remove(&index);
            if busy.is_empty() {
                self.busy.remove(&app);
            }
        }
    }

    pub(crate) fn trouble(&self, app: AppId) -> Option<&Trouble> {
        self.trouble
            .range((app, 0)..=(app, u32::MAX))
            .next()
            .map(|(_, why)| why)
    }

    /// What was in the way of the app's slots is of no interest any more: its wish is another.
    pub(crate) fn start_afresh(&mut self, app: AppId) {
        self.trouble.retain(|(other, _), _| *other != app);
        self.retries.retain(|(other, _), _| *other != app);
    }

    /// Whether anything is in the way of any of the app's slots.
    pub(crate) fn has_trouble(&self, app: AppId) -> bool {
        let slots = (app, 0)..=(app, u32::MAX);
        self.trouble.range(slots.clone()).next().is_some()
            || self.retries.range(slots).next().is_some()
    }

    /// Only these slots lack anything: nothing is in the way of the others.
    pub(crate) fn only_lacking(&mut self, app: AppId, lacking: &BTreeSet<u32>) {
        let keep = |other: &AppId, index: &u32| *other != app || lacking.contains(index);
        self.trouble.retain(|(other, index), _| keep(other, index));
        self.retries.retain(|(other, index), _| keep(other, index));
    }

    /// The app is gone, or is somebody else's now.
    pub(crate) fn forget(&mut self, app: AppId) {
        self.busy.remove(&app);
        self.start_afresh(app);
    }

    /// Something changed for the better: look for places now.
    pub(crate) fn retry_now(&mut self) {
        for ((app, _), (at, wait)) in &mut self.retries {
            *at = None;
            *wait = RETRY_MIN;
            self.dirty.insert(*app);
        }
    }

    /// Apps with slots for which a place is looked for later.
    pub(crate) fn waiting_apps(&self) -> BTreeSet<AppId> {
        let waiting = self.retries.iter().filter(|(_, (at, _))| at.is_some());
        waiting.map(|((app, _), _)| *app).collect()
    }

    /// There may be a place for slots of the app: look for it now.
    pub(crate) fn retry_app_now(&mut self, app: AppId) {
        for (_, (at, _)) in self.retries.range_mut((app, 0)..=(app, u32::MAX)) {
            *at = None;
        }
        self.dirty.insert(app);
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for ((app, _), (at, _)) in &mut self.retries {
            if at.is_some_and(|at| at <= now) {
                *at = None;
                self.dirty.insert(*app);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retries.values().filter_map(|(at, _)| *at).min()
    }
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;

    use expect_test::{Expect, expect};
    use wire::id::{UnixMillis, Version};
    use wire::spec::Program;

    use super::*;

    /// `slots` are objects as `NODE INDEX PHASE CREATED`; nodes are letters.
    fn record(restart: Restart, replicas: u32, slots: &[(char, u32, Phase, u64)]) -> AppRecord {
        let spec = AppSpec {
            name: "web".to_string(),
            replicas,
            program: Program {
                arguments: vec!["true".to_string()],
                ..Program::default()
            },
            ports: BTreeMap::new(),
            resources: wire::spec::Resources::default(),
            restart,
            placement: wire::spec::Placement::default(),
            stop: wire::spec::Stop::default(),
            remove_when_done: false,
            on_partition: OnPartition::Available,
        };
        let object =
            |(i, (node, index, phase, created)): (usize, &(char, u32, Phase, u64))| ObjectFacts {
                object: ObjectId([u8::try_from(i).expect("few"); 16]),
                app: AppId::of_name("web"),
                app_name: "web".to_string(),
                index: *index,
                node: node_id(*node),
                epoch: 1,
                revision: 1,
                phase: *phase,
                restarts: 0,
                created: UnixMillis(*created),
                started: None,
                last_exit: None,
                pid: None,
                protections_off: vec![],
                halted: false,
            };
        AppRecord {
            app: AppId::of_name("web"),
            version: Version::default(),
            wanted: Wanted {
                version: Version::default(),
                spec: Some(spec),
                stopped: false,
                rested: BTreeSet::new(),
                created: UnixMillis(0),
                born: Version::default(),
                tenancy: None,
            },
            objects: slots.iter().enumerate().map(object).collect(),
            objects_born: Version::default(),
            decisions: vec![],
        }
    }

    fn node_id(letter: char) -> NodeId {
        NodeId([u8::try_from(letter).expect("a letter"); 32])
    }

    /// Lower-case nodes answer, `D` drains, `L` is lost, `R` was removed.
    fn reach(node: NodeId) -> Reach {
        match char::from(node.0[0]) {
            'D' => Reach::Draining,
            'L' => Reach::Lost,
            'R' => Reach::Removed,
            _ => Reach::Open,
        }
    }

    fn check(record: &AppRecord, expect: Expect) {
        let name = |object: ObjectId| object.0[0];
        let line = |step: &Step| match step {
            Step::Place { index } => format!("place {index}"),
            Step::Retire { object, why, .. } => format!("retire {}: {why}", name(*object)),
            Step::Stop { object, .. } => format!("stop {}", name(*object)),
            Step::Start { object, .. } => format!("start {}", name(*object)),
            Step::Forget => "forget".to_string(),
        };
        let steps = plan(record, reach, &BTreeSet::new());
        let lines: Vec<String> = steps.iter().map(line).collect();
        expect.assert_eq(&lines.join("; "));
    }

    #[test]
    fn empty_slots_are_placed() {
        check(&record(Restart::No, 2, &[]), expect!["place 0; place 1"]);
        check(&record(Restart::No, 0, &[]), expect![""]);
    }

    #[test]
    fn what_runs_is_left_alone() {
        let slots = [('a', 0, Phase::Running, 1), ('b', 1, Phase::Waiting, 1)];
        check(&record(Restart::Always, 2, &slots), expect![""]);
    }

    #[test]
    fn a_lost_object_is_replaced_by_its_restart_policy() {
        let slots = [('L', 0, Phase::Running, 1)];
        check(&record(Restart::Always, 1, &slots), expect!["place 0"]);
        let retries_max = None;
        check(
            &record(Restart::OnFailure { retries_max }, 1, &slots),
            expect!["place 0"],
        );
        check(&record(Restart::No, 1, &slots), expect![""]);
    }

    #[test]
    fn after_a_heal_the_youngest_is_surplus() {
        let slots = [('a', 0, Phase::Running, 2), ('b', 0, Phase::Running, 1)];
        check(
            &record(Restart::Always, 1, &slots),
            expect!["retire 0: surplus"],
        );
    }

    #[test]
    fn a_surplus_object_serves_until_the_one_that_stays_runs() {
        let slots = [('a', 0, Phase::Running, 2), ('D', 0, Phase::Running, 1)];
        check(
            &record(Restart::Always, 1, &slots),
            expect!["retire 1: its node drains"],
        );
        let slots = [('a', 0, Phase::Starting, 2), ('D', 0, Phase::Running, 1)];
        check(&record(Restart::Always, 1, &slots), expect![""]);
    }

    #[test]
    fn a_draining_node_keeps_its_object_until_another_is_placed() {
        let slots = [('D', 0, Phase::Running, 1)];
        check(&record(Restart::Always, 1, &slots), expect!["place 0"]);
        check(&record(Restart::No, 1, &slots), expect![""]);
    }

    /// A guardian that had been away joined its record of a removed app with the wish for a new one of
    /// that name: an object that had ended on a node that was removed since held the slot for good.
    #[test]
    fn what_ended_on_a_removed_node_keeps_no_slot_of_what_always_runs() {
        let slots = [('R', 0, Phase::Ended, 1)];
        check(&record(Restart::Always, 1, &slots), expect!["place 0"]);
        let retries_max = None;
        check(
            &record(Restart::OnFailure { retries_max }, 1, &slots),
            expect![""],
        );
        check(&record(Restart::No, 1, &slots), expect![""]);
    }

    #[test]
    fn an_ended_program_stays_ended() {
        let slots = [('a', 0, Phase::Ended, 1)];
        check(&record(Restart::No, 1, &slots), expect![""]);
        let slots = [('L', 0, Phase::Ended, 1)];
        check(&record(Restart::No, 1, &slots), expect![""]);
    }

    #[test]
    fn objects_beyond_the_wanted_count_are_retired() {
        let slots = [('a', 0, Phase::Running, 1), ('b', 1, Phase::Running, 1)];
        check(
            &record(Restart::Always, 1, &slots),
            expect!["retire 1: scaled down"],
        );
    }

    #[test]
    fn the_object_of_a_removed_node_is_replaced_by_its_restart_policy() {
        let slots = [('R', 0, Phase::Running, 1)];
        check(&record(Restart::Always, 1, &slots), expect!["place 0"]);
        check(&record(Restart::No, 1, &slots), expect![""]);
    }

    #[test]
    fn a_stopped_app_ends_and_a_removed_one_leaves() {
        let slots = [('a', 0, Phase::Running, 1), ('L', 1, Phase::Running, 1)];
        let mut stopped = record(Restart::Always, 2, &slots);
        stopped.wanted.stopped = true;
        check(&stopped, expect!["stop 0"]);
        stopped.wanted.spec = None;
        check(&stopped, expect!["retire 0: the app was removed"]);
    }

    #[test]
    fn a_one_off_app_is_forgotten_once_it_is_done() {
        let mut done = record(Restart::No, 1, &[('a', 0, Phase::Ended, 1)]);
        if let Some(spec) = &mut done.wanted.spec {
            spec.remove_when_done = true;
        }
        check(&done, expect!["forget"]);
    }
}
