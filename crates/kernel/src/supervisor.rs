//! Supervision: what must be done so that an app is as it should be.
//!
//! What it is not: it sends nothing and remembers nothing about nodes. [`plan`] is a pure function
//! of an app's record and of who can be reached; the hub carries its steps out and asks again
//! whenever one of them changed.
//!
//! The first reachable node in the app's rank supervises it (partition policy `available`). Two
//! sides of a partition each have one and each keep the wanted count; after the heal the surplus is
//! retired, youngest first, because the plan keeps the oldest object of every slot.
//!
//! When what objects run was changed, those that run something older are replaced one after the
//! other, by [`plan_update`]:
//!
//! ```text
//!             placed                 runs for PROBATION
//! outdated ────────────► on trial ───────────────────────► up to date; the older one goes
//!    │ no room beside it    │ ends, cannot start, has no place
//!    ▼                      ▼
//! goes first             no further, or back to what it was before
//! ```

pub(crate) mod job;

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::cmp::Reverse;
use core::time::Duration;

use wire::fact::{Exit, ExitReason, ObjectFacts, Phase};
use wire::health::HealthState;
use wire::id::{AppId, NodeId, ObjectId, UnixMillis, Version};
use wire::peer::{AppRecord, Revision, Wanted};
use wire::spec::{AppSpec, OnPartition, Restart};

use crate::instant::Instant;

/// First wait before a place is looked for again; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_millis(500);
/// Wait before a place is looked for again that was promised to somebody else.
const CONTENDED_PAUSE: Duration = Duration::from_millis(200);
/// Longest wait before a place is looked for again.
const RETRY_MAX: Duration = Duration::from_secs(15);

/// How long the program of a newer object must run before it is relied on: enough for what is wrong
/// with its flags, its files or its port to show, and short beside what starting takes.
pub(crate) const PROBATION: Duration = Duration::from_secs(3);
/// Why an object goes that was replaced.
const OUTDATED: &str = "its app runs something else";
/// Longest reason of an undone change that a wish remembers.
const UNDONE_CHARACTERS_MAX: usize = 512;

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

/// What is known of an app's objects beside their facts.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Slots for which no place is to be looked for now.
    pub(crate) busy: BTreeSet<u32>,
    /// Objects whose program runs, but not for [`PROBATION`] yet.
    pub(crate) on_trial: BTreeSet<ObjectId>,
    /// Slots whose newer object has room only where the older one is.
    pub(crate) cramped: BTreeSet<u32>,
    /// Why a slot has no place.
    pub(crate) trouble: Option<String>,
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
    /// Tell its node the restart policy of its app, which is another than when it was started.
    SetRestart { object: ObjectId, node: NodeId },
    /// What objects run was changed, and all of them do by now.
    Settle,
    /// Undo the change of what objects run.
    RollBack { why: String },
    /// Nothing is left to do and nobody wants to keep it: remove the app.
    Forget,
}

/// The objects of an app, each slot's together, so that an app of thousands is gone through once.
#[derive(Debug)]
pub(crate) struct BySlot<'a>(Vec<&'a ObjectFacts>);

impl<'a> BySlot<'a> {
    pub(crate) fn of(objects: &'a [ObjectFacts]) -> Self {
        let mut by_slot: Vec<&ObjectFacts> = objects.iter().collect();
        // Records keep them in this order; then it takes one look at each.
        by_slot.sort_by_key(|it| it.index);
        Self(by_slot)
    }

    /// Those of one slot, in the order in which the record has them.
    pub(crate) fn get(&self, index: u32) -> &[&'a ObjectFacts] {
        let from = self.0.partition_point(|it| it.index < index);
        let rest = self.0.get(from..).unwrap_or_default();
        let count = rest.partition_point(|it| it.index == index);
        rest.get(..count).unwrap_or_default()
    }
}

/// What must be done for `record`.
pub(crate) fn plan(
    record: &AppRecord,
    reach: impl Fn(NodeId) -> Reach,
    known: &Known,
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
    if spec.schedule.is_some() {
        return job::plan(record, spec, reach, known);
    }
    let by_slot = BySlot::of(&record.objects);
    for index in 0..spec.replicas {
        let slot = by_slot.get(index);
        plan_slot(record, index, slot, &reach, known, &mut steps);
    }
    let beyond = |it: &&ObjectFacts| it.index >= spec.replicas && is_reachable(reach(it.node));
    steps.extend(
        record
            .objects
            .iter()
            .filter(beyond)
            .map(|it| retire(it, "scaled down")),
    );
    let follows_other = |it: &&ObjectFacts| {
        it.index < spec.replicas && it.restart != spec.restart && is_reachable(reach(it.node))
    };
    let set_restart = |it: &ObjectFacts| Step::SetRestart {
        object: it.object,
        node: it.node,
    };
    steps.extend(record.objects.iter().filter(follows_other).map(set_restart));
    if spec.remove_when_done && known.busy.is_empty() && is_done(spec, record) {
        steps.push(Step::Forget);
    }
    plan_update(record, spec, &reach, known, &mut steps);
    steps
}

/// How far a slot is from running what was wished last.
#[derive(Debug, PartialEq, Eq)]
enum Slot {
    /// It does, or is not to.
    Updated,
    /// What it runs is older.
    Outdated,
    /// Something is being done about it.
    Moving,
    /// The newer one failed.
    Failed(String),
}

fn slot_of(
    wanted: &Wanted,
    spec: &AppSpec,
    index: u32,
    slot: &[&ObjectFacts],
    reach: &impl Fn(NodeId) -> Reach,
    known: &Known,
) -> Slot {
    // What is lost with its node and is started elsewhere counts no more.
    let counts = |it: &&&ObjectFacts| {
        spec.restart == Restart::No || !it.phase.is_alive() || is_reachable(reach(it.node))
    };
    let is_newest = |it: &&&ObjectFacts| it.revised == wanted.revised;
    let here = |it: &&&ObjectFacts| is_reachable(reach(it.node));
    let older_lives = slot
        .iter()
        .filter(here)
        .any(|it| it.phase.is_alive() && it.revised != wanted.revised);
    let newest = slot
        .iter()
        .filter(is_newest)
        .filter(counts)
        .max_by_key(|it| {
            let answers = reach(it.node) == Reach::Open;
            (it.phase.is_alive() && answers, answers, it.created)
        });
    if let Some(newest) = newest {
        let is_lost = !is_reachable(reach(newest.node));
        return match newest.phase {
            // It may come back.
            phase if is_lost && phase.is_alive() => Slot::Updated,
            _ if reach(newest.node) == Reach::Draining => Slot::Moving,
            Phase::Running => match &newest.health {
                Some(HealthState::Unhealthy { why }) => {
                    Slot::Failed(alloc::format!("{}/{index} is unhealthy: {why}", spec.name))
                }
                Some(HealthState::Starting) => Slot::Moving,
                _ if known.on_trial.contains(&newest.object) || older_lives => Slot::Moving,
                Some(HealthState::Healthy) | None => Slot::Updated,
            },
            Phase::Starting | Phase::Stopping => Slot::Moving,
            Phase::Waiting | Phase::Ended | Phase::Failed => {
                let slot = ended(spec, newest);
                let one_goes = older_lives && slot == Slot::Updated;
                if one_goes { Slot::Moving } else { slot }
            }
        };
    }
    let reachable: Vec<_> = slot.iter().filter(here).collect();
    let is_to_stay = (wanted.rested.contains(&index) && !older_lives)
        // What is lost with its node and is not started elsewhere may come back.
        || (reachable.is_empty()
            && spec.restart == Restart::No
            && slot.iter().any(|it| it.phase.is_alive()));
    let is_placed_anyway = reachable.is_empty() && slot.iter().all(|it| it.phase.is_alive());
    if is_to_stay {
        Slot::Updated
    } else if is_placed_anyway || reachable.iter().any(|it| it.phase == Phase::Stopping) {
        Slot::Moving
    } else {
        Slot::Outdated
    }
}

/// A newest object whose program has ended.
fn ended(spec: &AppSpec, facts: &ObjectFacts) -> Slot {
    let Some(exit) = &facts.last_exit else {
        return Slot::Moving;
    };
    if facts.halted || has_done_it(spec.restart, facts) {
        Slot::Updated
    } else if exit.reason == ExitReason::Lost && facts.phase == Phase::Waiting {
        // That was its machine, which runs it again.
        Slot::Moving
    } else {
        let (name, index, reason) = (&spec.name, facts.index, &exit.reason);
        Slot::Failed(alloc::format!("{name}/{index} {reason}"))
    }
}

/// Whether the program has come to its own end, and is not to run again.
fn has_done_it(restart: Restart, facts: &ObjectFacts) -> bool {
    let is_success = |exit: &Exit| exit.reason.is_success();
    let has_succeeded = facts.last_exit.as_ref().is_some_and(is_success);
    has_succeeded && !facts.phase.is_alive() && restart != Restart::Always
}

/// How far the change of what an app's objects run is: how many do, and why it goes no further.
/// Nothing when none is under way.
pub(crate) fn progress(
    record: &AppRecord,
    reach: impl Fn(NodeId) -> Reach,
    known: &Known,
) -> Option<(u32, Option<String>)> {
    let spec = record.wanted.spec.as_ref()?;
    let slots = slots(record, spec, &reach, known)?;
    let updated = slots.iter().filter(|it| **it == Slot::Updated).count();
    let updated = u32::try_from(updated).unwrap_or(u32::MAX);
    Some((updated, failure(record, spec, &slots, known)))
}

/// Whether objects of the app are, or may yet be, replaced by newer ones.
pub(crate) fn is_updating(record: &AppRecord, reach: impl Fn(NodeId) -> Reach) -> bool {
    let wanted = &record.wanted;
    let is_older = |it: &ObjectFacts| it.revised != wanted.revised && is_reachable(reach(it.node));
    // What has a schedule is changed from its next run on.
    let lasts = |spec: &AppSpec| spec.schedule.is_none();
    wanted.spec.as_ref().is_some_and(lasts)
        && (record.settled != wanted.revised || record.objects.iter().any(is_older))
}

/// Every slot of an app whose objects do not all run what was wished last.
fn slots(
    record: &AppRecord,
    spec: &AppSpec,
    reach: &impl Fn(NodeId) -> Reach,
    known: &Known,
) -> Option<Vec<Slot>> {
    if !is_updating(record, reach) {
        return None;
    }
    let by_slot = BySlot::of(&record.objects);
    let slot = |index| {
        let slot = by_slot.get(index);
        slot_of(&record.wanted, spec, index, slot, reach, known)
    };
    Some((0..spec.replicas).map(slot).collect())
}

/// Why a change cannot be relied on. What objects ran before is.
fn failure(record: &AppRecord, spec: &AppSpec, slots: &[Slot], known: &Known) -> Option<String> {
    if record.settled == record.wanted.revised {
        return None;
    }
    let failed = slots.iter().find_map(|slot| match slot {
        Slot::Failed(why) => Some(why.clone()),
        Slot::Updated | Slot::Outdated | Slot::Moving => None,
    });
    let unplaced = known.trouble.as_ref();
    failed.or_else(|| unplaced.map(|why| alloc::format!("no node fits {}: {why}", spec.name)))
}

/// The next of the objects that run something older is replaced, once those before it are relied
/// on. The newer one comes first, so that no fewer run, unless there is no room for both.
fn plan_update(
    record: &AppRecord,
    spec: &AppSpec,
    reach: &impl Fn(NodeId) -> Reach,
    known: &Known,
    steps: &mut Vec<Step>,
) {
    let Some(slots) = slots(record, spec, reach, known) else {
        return;
    };
    let wanted = &record.wanted;
    if let Some(why) = failure(record, spec, &slots, known) {
        if wanted.rolls_back && wanted.previous.is_some() {
            *steps = [Step::RollBack { why }].into();
        }
        return;
    }
    if !known.busy.is_empty() || slots.contains(&Slot::Moving) {
        return;
    }
    let outdated = (0..).zip(&slots).filter(|(_, it)| **it == Slot::Outdated);
    let of = |index: u32| {
        let slot = record.objects.iter().filter(move |it| it.index == index);
        slot.filter(|it| is_reachable(reach(it.node)))
    };
    let runs = |index: u32| of(index).any(|it| it.phase == Phase::Running);
    let Some(index) = outdated.map(|(index, _)| index).min_by_key(|it| runs(*it)) else {
        if record.settled != wanted.revised {
            steps.push(Step::Settle);
        }
        return;
    };
    let lives = of(index).any(|it| it.phase.is_alive());
    let older_first = known.cramped.contains(&index) || never_runs_twice(spec);
    let next: Vec<Step> = if (lives && !older_first) || of(index).next().is_none() {
        [Step::Place { index }].into()
    } else if lives {
        let living = of(index).filter(|it| it.phase.is_alive());
        living
            .map(|it| retire(it, "the newer one needs its room"))
            .collect()
    } else {
        of(index).map(|it| retire(it, OUTDATED)).collect()
    };
    // Its slot may have asked for the same.
    let is_planned = |step: &Step| steps.contains(step);
    let next: Vec<Step> = next.into_iter().filter(|it| !is_planned(it)).collect();
    steps.extend(next);
}

/// The wish becomes this, as of `version`. `is_settled` says whether all objects had come up with
/// what they were to run until now; only such a specification is one to go back to.
pub(crate) fn revise(
    wanted: &mut Wanted,
    spec: AppSpec,
    version: Version,
    (is_settled, rolls_back): (bool, bool),
) {
    wanted.rested.retain(|slot| *slot < spec.replicas);
    let Some(old) = wanted.spec.replace(spec.clone()) else {
        return;
    };
    if old.runs_like(&spec) {
        if let Some(previous) = &mut wanted.previous {
            previous.spec.replicas = spec.replicas;
        }
        return;
    }
    wanted.undone = None;
    let old = Revision {
        revised: wanted.revised,
        spec: old,
    };
    let previous = wanted.previous.take();
    (wanted.revised, wanted.previous) = match previous {
        // Objects that run this already stay.
        Some(previous) if previous.spec.runs_like(&spec) => (previous.revised, Some(old.into())),
        Some(previous) if !is_settled => (version, Some(previous)),
        Some(_) | None => (version, Some(old.into())),
    };
    wanted.rolls_back = rolls_back;
}

/// The wish becomes what it was before the last change.
pub(crate) fn roll_back(wanted: &mut Wanted, why: &str) {
    let (Some(previous), Some(spec)) = (wanted.previous.take(), wanted.spec.take()) else {
        return;
    };
    let failed = Revision {
        revised: wanted.revised,
        spec,
    };
    wanted.revised = previous.revised;
    wanted.spec = Some(previous.spec);
    wanted.previous = Some(failed.into());
    wanted.rolls_back = false;
    wanted.undone = Some(why.chars().take(UNDONE_CHARACTERS_MAX).collect());
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
        Step::Retire { .. }
        | Step::Stop { .. }
        | Step::SetRestart { .. }
        | Step::Settle
        | Step::RollBack { .. }
        | Step::Forget => None,
    };
    let steps = plan(record, reach, &Known::default());
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

/// Whether an object must have ended before another one takes its slot.
fn never_runs_twice(spec: &AppSpec) -> bool {
    spec.on_partition != OnPartition::Available
}

fn plan_slot(
    record: &AppRecord,
    index: u32,
    slot: &[&ObjectFacts],
    reach: &impl Fn(NodeId) -> Reach,
    known: &Known,
    steps: &mut Vec<Step>,
) {
    let wanted = &record.wanted;
    let is_busy = known.busy.contains(&index);
    let is_older = |it: &ObjectFacts| it.revised != wanted.revised;
    let spec = wanted.spec.as_ref();
    let restart = spec.map_or(Restart::No, |spec| spec.restart);
    let never_twice = spec.is_some_and(never_runs_twice);
    let is_here = |it: &&&ObjectFacts| is_reachable(reach(it.node));
    let here: Vec<&ObjectFacts> = slot.iter().filter(is_here).copied().collect();
    let serving = here
        .iter()
        .filter(|it| it.phase.is_alive() && it.phase != Phase::Stopping);
    let preference = |it: &&&ObjectFacts| {
        (
            // Of an app that never runs twice, the newest is the one.
            never_twice.then_some(Reverse(it.epoch)),
            reach(it.node) == Reach::Draining,
            is_older(it),
            !it.serves(),
            it.phase != Phase::Running,
            it.created,
            it.object,
        )
    };
    // It has done what it should; or it was relied on once, so that nothing is undone any more.
    let is_settled = record.settled == wanted.revised;
    let replaces = |it: &&ObjectFacts| {
        let is_newest_and_over = !is_older(it) && !it.phase.is_alive() && !it.halted;
        is_newest_and_over && (is_settled || has_done_it(restart, it))
    };
    if let Some(keep) = serving.min_by_key(preference) {
        if is_older(keep) && here.iter().any(replaces) {
            let alive = |it: &&&ObjectFacts| it.phase.is_alive() && it.phase != Phase::Stopping;
            let replaced = here.iter().filter(alive);
            steps.extend(replaced.map(|it| retire(it, OUTDATED)));
            return;
        }
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
            let drains = reach(other.node) == Reach::Draining;
            let why = superfluous(wanted, keep, other, known);
            steps.extend(why.map(|why| match why {
                "surplus" if drains => retire(other, "its node drains"),
                why => retire(other, why),
            }));
        }
        return;
    }
    if is_busy || here.iter().any(|it| it.phase == Phase::Stopping) {
        return;
    }
    steps.extend(fill(wanted, index, slot, reach));
}

/// What a slot needs in which nothing runs.
fn fill(
    wanted: &Wanted,
    index: u32,
    slot: &[&ObjectFacts],
    reach: &impl Fn(NodeId) -> Reach,
) -> Option<Step> {
    let restart = wanted.spec.as_ref().map_or(Restart::No, |it| it.restart);
    let ended = slot.iter().filter(|it| !it.phase.is_alive());
    let Some(last) = ended.max_by_key(|it| it.created) else {
        let is_to_run = slot.is_empty() || restart != Restart::No;
        return is_to_run.then_some(Step::Place { index });
    };
    // What was ended because its app was stopped runs again once the app is not.
    let was_halted = last.halted && !wanted.rested.contains(&index);
    if !was_halted && restart != Restart::Always {
        return None;
    }
    Some(match reach(last.node) {
        Reach::Open if last.revised != wanted.revised => retire(last, OUTDATED),
        Reach::Open => Step::Start {
            object: last.object,
            node: last.node,
        },
        Reach::Draining | Reach::Lost | Reach::Removed => Step::Place { index },
    })
}

/// Why an object is not needed beside the one of its slot that is kept; nothing when it is.
fn superfluous(
    wanted: &Wanted,
    keep: &ObjectFacts,
    other: &ObjectFacts,
    known: &Known,
) -> Option<&'static str> {
    let is_older = |it: &ObjectFacts| it.revised != wanted.revised;
    let is_replaced = is_older(other) && !is_older(keep);
    let on_trial = is_replaced && known.on_trial.contains(&keep.object);
    let does_better = other.serves() && !keep.serves();
    let in_use = does_better
        || (other.phase == Phase::Running && (keep.phase != Phase::Running || on_trial));
    // It tells why the update goes no further, unless somebody asked it to end.
    let has_failed = is_older(keep) && !is_older(other) && !other.phase.is_alive() && !other.halted;
    let is_needed = in_use || has_failed || other.phase == Phase::Stopping;
    (!is_needed).then_some(if is_replaced { OUTDATED } else { "surplus" })
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
    /// Objects of apps that are updated, whose program runs; and until when they are on trial.
    trials: BTreeMap<(AppId, ObjectId), Option<Instant>>,
    /// See [`Known::cramped`].
    cramped: BTreeSet<(AppId, u32)>,
    /// When the next run is due, of apps with a schedule.
    pub(crate) timetable: BTreeMap<AppId, UnixMillis>,
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

    /// All that is known of an app's objects beside their facts.
    pub(crate) fn known(&self, app: AppId) -> Known {
        let cramped = self.cramped.range((app, 0)..=(app, u32::MAX));
        let trials = self.trials.range(trials_of(app));
        let on_trial = trials.filter(|(_, until)| until.is_some());
        Known {
            busy: self.busy(app),
            on_trial: on_trial.map(|((_, object), _)| *object).collect(),
            cramped: cramped.map(|(_, index)| *index).collect(),
            // What passes by itself is no failure.
            trouble: self.trouble(app).and_then(|trouble| match trouble {
                Trouble::NoFit(why) => Some(why.clone()),
                Trouble::TooFew(_) | Trouble::Held(_) => None,
            }),
        }
    }

    /// These objects of an app run what was wished last, while others may not: those that are seen
    /// for the first time are on trial.
    pub(crate) fn try_out(&mut self, now: Instant, app: AppId, running: &BTreeSet<ObjectId>) {
        self.trials
            .retain(|(other, object), _| *other != app || running.contains(object));
        for object in running {
            let until = Some(now + PROBATION);
            self.trials.entry((app, *object)).or_insert(until);
        }
    }

    /// There is no room for the slot's newer object, unless the older one goes first.
    pub(crate) fn cramp(&mut self, app: AppId, index: u32) {
        self.finish(app, index);
        self.cramped.insert((app, index));
        self.touch(app);
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
        self.cramped.remove(&(app, index));
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
        self.cramped.retain(|(other, _)| *other != app);
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
        self.timetable.remove(&app);
        self.try_out(Instant::default(), app, &BTreeSet::new());
        self.start_afresh(app);
    }

    /// The wall clock says this: runs of some apps may be due.
    pub(crate) fn handle_wall(&mut self, wall: UnixMillis) {
        let due = self.timetable.iter().filter(|(_, due)| **due <= wall);
        self.dirty.extend(due.map(|(app, _)| *app));
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
        for ((app, _), until) in &mut self.trials {
            if until.take_if(|until| *until <= now).is_some() {
                self.dirty.insert(*app);
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let retries = self.retries.values().filter_map(|(at, _)| *at);
        retries.chain(self.trials.values().flatten().copied()).min()
    }
}

fn trials_of(app: AppId) -> core::ops::RangeInclusive<(AppId, ObjectId)> {
    (app, ObjectId([0; 16]))..=(app, ObjectId([u8::MAX; 16]))
}

#[cfg(test)]
mod tests {
    use alloc::format;
    use alloc::string::ToString;
    use alloc::vec;

    use expect_test::{Expect, expect};
    use wire::fact::Exit;
    use wire::id::UnixMillis;
    use wire::spec::Program;

    use super::*;

    /// `slots` are objects as `NODE INDEX PHASE CREATED`; nodes are letters.
    pub(super) fn record(
        restart: Restart,
        replicas: u32,
        slots: &[(char, u32, Phase, u64)],
    ) -> AppRecord {
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
            health: None,
            after: Default::default(),
            schedule: None,
            deadline_ms: None,
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
                revised: Version::default(),
                restart,
                health: None,
                run: 0,
            };
        AppRecord {
            app: AppId::of_name("web"),
            version: Version::default(),
            wanted: Wanted::new(spec, Version::default(), UnixMillis(0)),
            objects: slots.iter().enumerate().map(object).collect(),
            objects_born: Version::default(),
            decisions: vec![],
            settled: Version::default(),
            begun: Version::default(),
            job: Default::default(),
        }
    }

    pub(super) fn node_id(letter: char) -> NodeId {
        NodeId([u8::try_from(letter).expect("a letter"); 32])
    }

    /// Lower-case nodes answer, `D` drains, `L` is lost, `R` was removed.
    pub(super) fn reach(node: NodeId) -> Reach {
        match char::from(node.0[0]) {
            'D' => Reach::Draining,
            'L' => Reach::Lost,
            'R' => Reach::Removed,
            _ => Reach::Open,
        }
    }

    fn check(record: &AppRecord, expect: Expect) {
        check_known(record, &Known::default(), expect);
    }

    fn check_known(record: &AppRecord, known: &Known, expect: Expect) {
        let steps = plan(record, reach, known);
        expect.assert_eq(&lines(&steps).join("; "));
    }

    /// Steps as people read them.
    pub(super) fn lines(steps: &[Step]) -> Vec<String> {
        let name = |object: ObjectId| object.0[0];
        let line = |step: &Step| match step {
            Step::Place { index } => format!("place {index}"),
            Step::Retire { object, why, .. } => format!("retire {}: {why}", name(*object)),
            Step::Stop { object, .. } => format!("stop {}", name(*object)),
            Step::Start { object, .. } => format!("start {}", name(*object)),
            Step::SetRestart { object, .. } => format!("set restart of {}", name(*object)),
            Step::Settle => "settle".to_string(),
            Step::RollBack { why } => format!("roll back: {why}"),
            Step::Forget => "forget".to_string(),
        };
        steps.iter().map(line).collect()
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

    fn version(millis: u64) -> Version {
        Version {
            millis,
            ..Version::default()
        }
    }

    /// An app whose program was changed, with the objects that run the newer one.
    fn revised(mut record: AppRecord, newer: &[u8]) -> AppRecord {
        let mut spec = record.wanted.spec.clone().expect("it is wanted");
        spec.program.arguments = vec!["false".to_string()];
        revise(&mut record.wanted, spec, version(7), (true, true));
        for it in record.objects.iter_mut() {
            if newer.contains(&it.object.0[0]) {
                it.revised = version(7);
            }
        }
        record
    }

    fn two(first: Phase, second: Phase) -> Vec<(char, u32, Phase, u64)> {
        vec![('a', 0, first, 1), ('b', 1, second, 1)]
    }

    #[test]
    fn what_runs_something_older_is_replaced_one_after_the_other() {
        use Phase::{Running, Starting, Stopping};
        let mut slots = two(Running, Running);
        let of = |slots: &[_], newer: &[u8]| revised(record(Restart::Always, 2, slots), newer);
        check(&of(&slots, &[]), expect!["place 0"]);
        // It is being placed, has a place, and runs, but not for long: the older one stays.
        let busy = Known {
            busy: [0].into(),
            ..Known::default()
        };
        check_known(&of(&slots, &[]), &busy, expect![""]);
        slots.push(('c', 0, Starting, 2));
        check(&of(&slots, &[2]), expect![""]);
        slots[2].2 = Running;
        let on_trial = Known {
            on_trial: [ObjectId([2; 16])].into(),
            ..Known::default()
        };
        check_known(&of(&slots, &[2]), &on_trial, expect![""]);
        // Then the older one goes, and the next one comes.
        check(
            &of(&slots, &[2]),
            expect!["retire 0: its app runs something else"],
        );
        slots[0].2 = Stopping;
        check(&of(&slots, &[2]), expect![""]);
        slots.remove(0);
        check(&of(&slots, &[1]), expect!["place 1"]);
        slots.push(('a', 1, Running, 3));
        check(
            &of(&slots, &[1, 2]),
            expect!["retire 0: its app runs something else"],
        );
        slots.remove(0);
        check(&of(&slots, &[0, 1]), expect!["settle"]);
    }

    #[test]
    fn a_newer_one_that_is_lost_with_its_node_is_placed_again() {
        let slots = [('a', 0, Phase::Running, 1), ('L', 0, Phase::Running, 2)];
        check(
            &revised(record(Restart::Always, 1, &slots), &[1]),
            expect!["place 0"],
        );
        check(
            &revised(record(Restart::No, 1, &slots), &[1]),
            expect!["settle"],
        );
    }

    #[test]
    fn without_room_for_both_the_older_one_goes_first() {
        let slots = two(Phase::Running, Phase::Running);
        let cramped = Known {
            cramped: [0].into(),
            ..Known::default()
        };
        let record = revised(record(Restart::Always, 2, &slots), &[]);
        check_known(
            &record,
            &cramped,
            expect!["retire 0: the newer one needs its room"],
        );
    }

    #[test]
    fn what_does_not_run_anyway_is_replaced_first() {
        let slots = two(Phase::Running, Phase::Waiting);
        check(
            &revised(record(Restart::Always, 2, &slots), &[]),
            expect!["place 1"],
        );
        // What has ended holds no room.
        let slots = two(Phase::Running, Phase::Ended);
        check(
            &revised(record(Restart::No, 2, &slots), &[]),
            expect!["retire 1: its app runs something else"],
        );
    }

    fn ends(record: &mut AppRecord, object: u8, phase: Phase, reason: ExitReason) {
        let at = UnixMillis(0);
        let objects = record.objects.iter_mut();
        for it in objects.filter(|it| it.object.0[0] == object) {
            it.phase = phase;
            it.last_exit = Some(Exit {
                asked: false,
                reason: reason.clone(),
                at,
            });
        }
    }

    #[test]
    fn a_newer_one_that_ends_undoes_the_change() {
        let mut slots = two(Phase::Running, Phase::Running);
        slots.push(('c', 0, Phase::Waiting, 2));
        let mut failing = revised(record(Restart::Always, 2, &slots), &[2]);
        ends(&mut failing, 2, Phase::Waiting, ExitReason::Code(3));
        check(&failing, expect!["roll back: web/0 ended with code 3"]);
        assert_eq!(
            progress(&failing, reach, &Known::default()),
            Some((0, Some("web/0 ended with code 3".to_string())))
        );
        // Nobody is to undo it: it goes no further.
        failing.wanted.rolls_back = false;
        check(&failing, expect![""]);
        // It failed for good: it stays to be looked at, and the older one serves.
        failing.wanted.spec.as_mut().expect("wanted").restart = Restart::No;
        for it in &mut failing.objects {
            it.restart = Restart::No;
        }
        ends(&mut failing, 2, Phase::Failed, ExitReason::Code(127));
        check(&failing, expect![""]);
        // What returns 0 and is not to run again has done what it should, in the place of the older.
        ends(&mut failing, 2, Phase::Ended, ExitReason::Code(0));
        check(&failing, expect!["retire 0: its app runs something else"]);
        failing.objects.remove(0);
        check(&failing, expect!["place 1"]);
    }

    // It ran for long enough, so the older one went, and nobody served.
    #[test]
    fn the_older_one_stays_until_the_newer_one_is_healthy() {
        let mut slots = two(Phase::Running, Phase::Running);
        slots.push(('c', 0, Phase::Running, 2));
        let mut record = revised(record(Restart::Always, 2, &slots), &[2]);
        let mut check_health = |state: HealthState, expect: Expect| {
            for it in record.objects.iter_mut() {
                it.health = Some(HealthState::Healthy);
                if it.object.0[0] == 2 {
                    it.health = Some(state.clone());
                }
            }
            check(&record, expect);
        };
        check_health(HealthState::Starting, expect![""]);
        check_health(
            HealthState::Healthy,
            expect!["retire 0: its app runs something else"],
        );
        let why = "refused".to_string();
        check_health(
            HealthState::Unhealthy { why },
            expect!["roll back: web/0 is unhealthy: refused"],
        );
    }

    #[test]
    fn what_is_healthy_serves_until_its_successor_is() {
        let slots = [('a', 0, Phase::Running, 2), ('D', 0, Phase::Running, 1)];
        let mut record = record(Restart::Always, 1, &slots);
        record.objects[0].health = Some(HealthState::Starting);
        record.objects[1].health = Some(HealthState::Healthy);
        check(&record, expect![""]);
        record.objects[0].health = Some(HealthState::Healthy);
        check(&record, expect!["retire 1: its node drains"]);
    }

    /// An older one came back with its node once all others had been replaced: the newer one of its
    /// slot had ended with its machine meanwhile, and neither of them went.
    #[test]
    fn an_older_one_that_comes_back_goes_also_when_the_newer_one_has_ended() {
        let mut slots = two(Phase::Running, Phase::Running);
        slots.push(('c', 0, Phase::Ended, 2));
        let mut record = revised(record(Restart::No, 2, &slots), &[1, 2]);
        ends(&mut record, 2, Phase::Ended, ExitReason::Lost);
        record.settled = record.wanted.revised;
        check(&record, expect!["retire 0: its app runs something else"]);
    }

    /// One side of a cut undid a change while the other had asked the newer object to end, which by
    /// then was what is wished again: it held the slot, and the one that ran was never replaced.
    #[test]
    fn a_newer_one_that_was_asked_to_end_goes_while_an_older_one_runs() {
        let mut slots = two(Phase::Running, Phase::Running);
        slots.push(('c', 0, Phase::Ended, 2));
        let mut record = revised(record(Restart::Always, 2, &slots), &[2]);
        ends(&mut record, 2, Phase::Ended, ExitReason::Code(0));
        record.objects[2].halted = true;
        for rested in [vec![], vec![0]] {
            record.wanted.rested = rested.into_iter().collect();
            check(&record, expect!["retire 2: surplus"]);
        }
        record.objects.pop();
        check(&record, expect!["place 0"]);
    }

    #[test]
    fn a_newer_one_without_a_place_undoes_the_change() {
        let slots = two(Phase::Running, Phase::Running);
        let unplaced = Known {
            busy: [0].into(),
            trouble: Some("not 9 cores free on 3 of 3".to_string()),
            ..Known::default()
        };
        check_known(
            &revised(record(Restart::Always, 2, &slots), &[]),
            &unplaced,
            expect!["roll back: no node fits web: not 9 cores free on 3 of 3"],
        );
        // Without a change, it waits until there is room.
        check_known(&record(Restart::Always, 2, &slots), &unplaced, expect![""]);
    }

    #[test]
    fn an_undone_change_leaves_alone_what_was_not_reached() {
        let mut slots = two(Phase::Running, Phase::Running);
        slots.push(('c', 0, Phase::Waiting, 2));
        let mut record = revised(record(Restart::Always, 2, &slots), &[2]);
        let failing = record.wanted.spec.clone().expect("wanted");
        roll_back(&mut record.wanted, "it ended");
        check(&record, expect!["retire 2: its app runs something else"]);
        assert_eq!(record.wanted.undone.as_deref(), Some("it ended"));
        assert!(!record.wanted.rolls_back);
        let previous = record.wanted.previous.as_ref().expect("what failed");
        assert_eq!((previous.revised, &previous.spec), (version(7), &failing));
    }

    #[test]
    fn only_what_objects_run_makes_them_be_replaced() {
        let mut wanted = record(Restart::Always, 2, &[]).wanted;
        let first = wanted.spec.clone().expect("wanted");
        let mut spec = first.clone();
        spec.replicas = 5;
        spec.restart = Restart::No;
        spec.placement.spread = true;
        revise(&mut wanted, spec.clone(), version(1), (true, true));
        assert_eq!((wanted.revised, &wanted.previous), (version(0), &None));
        spec.resources.cpu_millis = 500;
        revise(&mut wanted, spec.clone(), version(2), (true, true));
        assert_eq!(wanted.revised, version(2));
        // What never came up is nothing to go back to.
        spec.resources.cpu_millis = 600;
        revise(&mut wanted, spec.clone(), version(3), (false, true));
        let previous = wanted.previous.as_ref().expect("the first");
        assert_eq!((wanted.revised, previous.revised), (version(3), version(0)));
        // Objects that run the first already stay as they are; the number is that of now.
        spec.resources.cpu_millis = first.resources.cpu_millis;
        revise(&mut wanted, spec, version(4), (false, true));
        let previous = wanted.previous.as_ref().expect("what did not come up");
        assert_eq!((wanted.revised, previous.revised), (version(0), version(3)));
    }

    #[test]
    fn hosts_are_told_of_another_restart_policy() {
        let mut record = record(Restart::No, 1, &[('a', 0, Phase::Running, 1)]);
        record.wanted.spec.as_mut().expect("wanted").restart = Restart::Always;
        check(&record, expect!["set restart of 0"]);
        // What had ended runs again.
        record.objects[0].phase = Phase::Ended;
        check(&record, expect!["start 0; set restart of 0"]);
    }

    #[test]
    fn a_stopped_app_starts_with_what_is_wished_by_then() {
        let mut record = revised(
            record(Restart::Always, 1, &[('a', 0, Phase::Ended, 1)]),
            &[],
        );
        record.objects[0].halted = true;
        check(&record, expect!["retire 0: its app runs something else"]);
        record.wanted.stopped = true;
        check(&record, expect![""]);
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
