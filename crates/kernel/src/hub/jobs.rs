//! Apps with a schedule: their supervisor begins what is due, by the wall clock.
//!
//! A run is written down before it is placed, on as many guardians as a promise needs: whoever takes
//! over does not begin it again.

use alloc::vec::Vec;

use wire::call::{Problem, ProblemCode};
use wire::fact::ObjectFacts;
use wire::id::{AppId, UnixMillis};
use wire::job::{Run, Schedule};
use wire::peer::AppRecord;
use wire::spec::AppSpec;

use super::versions::SET_AFTER;
use super::{Kernel, Origin, StartedBy, WaitFor, Waiter};
use crate::instant::Instant;
use crate::limits::RUN_DEADLINE;
use crate::schedule;
use crate::supervisor::{Step, job};

/// A moment may have passed by so much when an app is made that is to run then, in thousandths of a
/// second: clocks differ, and calls take their time.
const LATE_MAX_MS: u64 = 60_000;

impl Kernel {
    /// When the next run of an app is due; nothing when it has no schedule, is stopped or done.
    pub(crate) fn next_run(&self, record: &AppRecord) -> Option<UnixMillis> {
        let wanted = &record.wanted;
        let schedule = wanted.spec.as_ref()?.schedule.as_ref()?;
        let wall = self.wall();
        // A clock that was never set knows of nothing whether it is due.
        let is_known = wall >= SET_AFTER && record.job.born <= wanted.born;
        if wanted.stopped || !is_known {
            return None;
        }
        let heeded = job::runs(record).last().map(|run| run.heeded);
        schedule::next(schedule, wanted.scheduled, heeded, wall)
    }

    /// Begins the run of an app that is due, or skips it, and remembers when the next one is.
    pub(super) fn heed_schedule(&mut self, app: AppId) {
        let planned = self.supervision.timetable.remove(&app);
        let next = |kernel: &Self| kernel.next_run(kernel.directory.get(app)?);
        let Some(due) = next(self) else {
            return;
        };
        // While the record is from a future that nobody believes, the next run is always yet to come.
        let due = planned.map_or(due, |planned| planned.min(due));
        if due <= self.wall() {
            self.begin_or_skip(app, due);
        }
        if let Some(due) = next(self) {
            self.supervision.timetable.insert(app, due);
        }
    }

    fn begin_or_skip(&mut self, app: AppId, due: UnixMillis) {
        let wall = self.wall();
        let Some(record) = self.directory.get(app) else {
            return;
        };
        if job::is_over(record, |node| self.reach(node)) {
            return self.begin_run(app, due);
        }
        let record = self.directory.get_mut(app);
        let skipped = record.and_then(|record| job::skip(record, wall));
        if let Some(number) = skipped {
            let message = alloc::format!("run {number} still goes on");
            self.event("run.skipped", self.app_name(app), message);
            self.save_record(app);
        }
    }

    /// A run of an app begins.
    pub(crate) fn begin_run(&mut self, app: AppId, due: UnixMillis) {
        let wall = self.wall();
        if let Some(record) = self.directory.get_mut(app) {
            job::begin(record, due, wall);
            self.save_record(app);
        }
    }

    /// Notes what has become of runs whose objects the record has.
    pub(super) fn note_runs(&mut self, app: AppId) {
        let record = self.directory.get(app);
        let objects = record.map_or(&[][..], |record| &record.objects);
        let of_runs = objects.iter().filter(|it| it.run != 0);
        for facts in of_runs.cloned().collect::<Vec<ObjectFacts>>() {
            if self.note_run(app, &facts) {
                self.save_record(app);
            }
        }
    }

    /// Notes what has become of a run; says whether that is new.
    pub(super) fn note_run(&mut self, app: AppId, facts: &ObjectFacts) -> bool {
        let Some(record) = self.directory.get_mut(app) else {
            return false;
        };
        let before = record.job.clone();
        let news = job::note(record, facts);
        let is_new = record.job != before;
        let (number, node) = (facts.run, self.measurement.name(facts.node));
        match (news, &facts.last_exit) {
            _ if self.supervisor_of(app) != self.me => {}
            (Some(job::News::Begun), _) => {
                let message = alloc::format!("run {number} on {node}");
                self.event("run.begun", self.app_name(app), message);
            }
            (Some(job::News::Ended), Some(exit)) => {
                let message = alloc::format!("run {number} {}", exit.reason);
                self.event("run.ended", self.app_name(app), message);
            }
            (Some(job::News::Ended) | None, _) => {}
        }
        is_new
    }

    /// What is to be done for an app of all that is planned: a run is placed once it is safe that
    /// nobody begins it again.
    pub(super) fn heed_safety(&self, app: AppId, mut steps: Vec<Step>) -> Vec<Step> {
        if self.is_scheduled(app) && !self.is_safe(app) {
            steps.retain(|step| !matches!(step, Step::Place { .. }));
        }
        steps
    }

    pub(super) fn is_scheduled(&self, app: AppId) -> bool {
        let record = self.directory.get(app);
        let spec = record.and_then(|record| record.wanted.spec.as_ref());
        spec.is_some_and(|spec| spec.schedule.is_some())
    }

    /// When the next run of any app is due.
    pub(super) fn timetable_timeout(&self) -> Option<Instant> {
        let due = self.supervision.timetable.values().min()?;
        let (at, wall) = self.wall;
        Some(at + core::time::Duration::from_millis(due.0.saturating_sub(wall.0)))
    }

    /// `app/start`: an app that was stopped goes by its schedule again; one that was not runs now.
    pub(crate) fn start_job(&mut self, origin: Origin, record: &AppRecord) {
        let (app, wall) = (record.app, self.wall());
        self.waiters.push(Waiter {
            origin,
            app,
            until: WaitFor::Started(StartedBy::Start),
            deadline: self.now + RUN_DEADLINE,
        });
        if record.wanted.stopped {
            self.wish(app, |wanted, _| {
                wanted.stopped = false;
                wanted.rested.clear();
                wanted.scheduled = wall;
            });
        } else if job::is_over(record, |node| self.reach(node)) {
            self.begin_run(app, wall);
        } else {
            self.supervision.start_afresh(app);
            self.supervision.touch(app);
        }
    }

    /// The runs that the record remembers, the last one first.
    pub(crate) fn runs_of(record: &AppRecord) -> Vec<Run> {
        job::runs(record).iter().rev().cloned().collect()
    }

    /// Refuses an app that is to run at a moment that has passed.
    pub(crate) fn check_not_past(&self, spec: &AppSpec) -> Result<(), Problem> {
        let at = match &spec.schedule {
            Some(Schedule::At { at }) => *at,
            Some(Schedule::Every { .. } | Schedule::Cron { .. }) | None => return Ok(()),
        };
        let late_ms = self.wall().0.saturating_sub(at.0);
        if late_ms <= LATE_MAX_MS {
            return Ok(());
        }
        let (name, late_s) = (self.measurement.name(self.me), late_ms / 1000);
        let detail = alloc::format!(
            "{} is to run at a moment that was {late_s} s ago by the clock of node {name}",
            spec.name
        );
        let problem = Problem::new(ProblemCode::Invalid, detail);
        Err(problem.remedy("give a later one, or none to run it now"))
    }
}
