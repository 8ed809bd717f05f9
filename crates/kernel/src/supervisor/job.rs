//! The runs of an app with a schedule: one object for each, one at a time.
//!
//! What it is not: it does not know when a run is due. The hub says that one begins, or is skipped;
//! here it is said what follows from the record of the runs, and from what is known of their objects.
//!
//! ```text
//!       begin               has a place            its object ends
//! due ─────────► pending ───────────────► running ──────────────────► over
//!    │ the one before is not over            │ its node is lost
//!    └──► skipped                            └──► over (restart no); pending again (on-failure)
//! ```

use alloc::vec::Vec;

use wire::fact::{ObjectFacts, Phase};
use wire::id::{NodeId, UnixMillis};
use wire::job::{Attempt, Job, Run, Schedule};
use wire::peer::AppRecord;
use wire::spec::{AppSpec, Restart};

use super::{Known, Reach, Step, is_reachable, retire};

/// Why the object of a former run goes.
const FORMER: &str = "a newer run has begun";

/// What has become of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum News {
    /// It has an object.
    Begun,
    /// Its object has ended.
    Ended,
}

/// The runs of the app that the record is about, not of an older one of its name.
pub(crate) fn runs(record: &AppRecord) -> &[Run] {
    if record.job.born == record.wanted.born {
        &record.job.runs
    } else {
        &[]
    }
}

/// The number of the run that the next object of an app carries out; 0 without a schedule.
pub(crate) fn current(record: &AppRecord) -> u64 {
    let spec = record.wanted.spec.as_ref();
    let is_scheduled = spec.is_some_and(|spec| spec.schedule.is_some());
    let last = runs(record).last().filter(|_| is_scheduled);
    last.map_or(0, |run| run.number)
}

/// The job of the app that the record is about, to be changed. Nothing when the record knows of a
/// younger app of the name, whose runs would be lost.
fn job_mut(record: &mut AppRecord) -> Option<&mut Job> {
    let born = record.wanted.born;
    if record.job.born < born {
        record.job = Job {
            born,
            runs: Vec::new(),
        };
    }
    Some(&mut record.job).filter(|job| job.born == born)
}

/// A run begins now. It is placed once that is safe.
pub(crate) fn begin(record: &mut AppRecord, due: UnixMillis, now: UnixMillis) {
    if let Some(job) = job_mut(record) {
        let number = job
            .runs
            .last()
            .map_or(0, |run| run.number)
            .saturating_add(1);
        job.put(Run::new(number, due, now));
    }
}

/// A run would be due, and the one before is not over. The number of that one.
pub(crate) fn skip(record: &mut AppRecord, now: UnixMillis) -> Option<u64> {
    let run = job_mut(record)?.runs.last_mut()?;
    run.skipped = run.skipped.saturating_add(1);
    run.heeded = now;
    Some(run.number)
}

/// Notes what is known of the object of a run; says what is new. A run that the record has lost is
/// known again by its object.
pub(crate) fn note(record: &mut AppRecord, facts: &ObjectFacts) -> Option<News> {
    if facts.run == 0 {
        return None;
    }
    let job = job_mut(record)?;
    let find = |job: &Job| job.runs.iter().find(|it| it.number == facts.run).cloned();
    let before = find(job);
    let run = before.clone();
    let mut run = run.unwrap_or_else(|| Run::new(facts.run, facts.created, facts.created));
    let exit = facts.last_exit.clone();
    run.attempt = Some(Attempt {
        object: facts.object,
        node: facts.node,
        started: facts.started,
        exit: exit.filter(|_| !facts.phase.is_alive()),
    });
    job.put(run);
    let after = find(job)?;
    let attempt = |run: &Run| run.attempt.clone();
    let before = before.as_ref().and_then(attempt);
    let has_ended = |attempt: &Attempt| attempt.exit.is_some();
    match (before, after.attempt) {
        (Some(before), Some(after)) if has_ended(&after) && !has_ended(&before) => {
            Some(News::Ended)
        }
        (None, Some(_)) => Some(News::Begun),
        (_, _) => None,
    }
}

/// Whether the next run may begin: there was none, or the last one is over.
pub(crate) fn is_over(record: &AppRecord, reach: impl Fn(NodeId) -> Reach) -> bool {
    let lives = |it: &ObjectFacts| it.phase.is_alive() && is_reachable(reach(it.node));
    let Some(last) = runs(record).last() else {
        return true;
    };
    let mut own = record.objects.iter().filter(|it| it.run == last.number);
    !own.any(lives) && !lacks_object(record, last)
}

/// Whether an object is to be found for a run, of which none lives where it can be reached.
fn lacks_object(record: &AppRecord, run: &Run) -> bool {
    let spec = record.wanted.spec.as_ref();
    let is_tried_again = spec.is_some_and(|spec| spec.restart != Restart::No);
    let mut own = record
        .objects
        .iter()
        .filter(|it| it.run == run.number)
        .peekable();
    if own.peek().is_some() {
        // They are lost with their nodes. Whatever ended has ended for good.
        return is_tried_again && own.all(|it| it.phase.is_alive());
    }
    let exit = run.attempt.as_ref().map(|attempt| attempt.exit.as_ref());
    match exit {
        None => true,
        // It was lost with its node, or had to leave it.
        Some(exit) => is_tried_again && exit.is_none_or(|exit| exit.asked),
    }
}

/// What must be done for an app with a schedule that was not stopped.
pub(super) fn plan(
    record: &AppRecord,
    spec: &AppSpec,
    reach: impl Fn(NodeId) -> Reach,
    known: &Known,
) -> Vec<Step> {
    let mut steps = Vec::new();
    if record.settled != record.wanted.revised {
        // The next run is what was wished last.
        steps.push(Step::Settle);
    }
    let Some(last) = runs(record).last() else {
        return steps;
    };
    let here = record
        .objects
        .iter()
        .filter(|it| is_reachable(reach(it.node)));
    let (own, former): (Vec<&ObjectFacts>, Vec<&ObjectFacts>) =
        here.partition(|it| it.run == last.number);
    let goes = |it: &&&ObjectFacts| it.phase != Phase::Stopping;
    // What a former run wrote can be read until there is something newer.
    let is_past = |it: &&&ObjectFacts| it.phase.is_alive() || !own.is_empty();
    let past = former.iter().filter(is_past).filter(goes);
    steps.extend(past.map(|it| retire(it, FORMER)));
    let living = own.iter().filter(|it| it.phase.is_alive());
    let preference = |it: &&&ObjectFacts| (it.phase != Phase::Running, it.created, it.object);
    if let Some(keep) = living.filter(goes).min_by_key(preference) {
        if reach(keep.node) == Reach::Draining && spec.restart != Restart::No {
            steps.push(retire(keep, "its node drains"));
        }
        let others = own.iter().filter(|it| it.object != keep.object);
        steps.extend(others.filter(goes).map(|it| retire(it, "surplus")));
        return steps;
    }
    let is_clear = own.iter().chain(&former).all(|it| !it.phase.is_alive());
    if is_clear && lacks_object(record, last) {
        if !known.busy.contains(&0) {
            steps.push(Step::Place { index: 0 });
        }
    } else if is_clear && is_done(spec, last) {
        steps.push(Step::Forget);
    }
    steps
}

/// Whether an app that removes itself has nothing more to do, now that this run is over.
fn is_done(spec: &AppSpec, last: &Run) -> bool {
    let is_last = match &spec.schedule {
        Some(Schedule::At { at }) => last.heeded >= *at,
        Some(Schedule::Every { .. } | Schedule::Cron { .. }) | None => false,
    };
    spec.remove_when_done && is_last
}

#[cfg(test)]
mod tests;
