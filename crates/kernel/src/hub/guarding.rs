//! The apps that this node answers for: what hosts report of them, and the steps that supervision
//! plans.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use wire::call::{Problem, ProblemCode, Request};
use wire::fact::{Exit, ExitReason, ObjectFacts, Phase};
use wire::id::{AppId, NodeId, ObjectId, Version};
use wire::peer::{Answer, AppBrief, AppRecord, Ask, ObjectFilter, ObjectReport, Wanted};
use wire::spec::Restart;
use wire::tenancy::SeatAnswer;

use super::waiting::WAIT_PAUSE;
use super::{Kernel, Task};
use crate::alarm::Alarm;
use crate::directory::{self, Joined};
use crate::instant::Instant;
use crate::limits::{
    ENDED_TERM, LINGER_TERM, PLACINGS_MAX, PLACINGS_PER_NODE, RUN_DEADLINE, SURPLUS_MAX,
};
use crate::order::Inquiry;
use crate::supervisor::{self, Step};

/// A host that has not spoken of an object for so long, though it can be reached, is asked.
const SILENCE: Duration = Duration::from_secs(15);
/// What a host is asked to do with an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wish {
    /// End it.
    Stop,
    /// End it and forget it.
    Remove,
    /// Run it again.
    Start,
    /// Follow the app's restart policy.
    SetRestart,
}

impl Kernel {
    pub(crate) fn local_apps(&self) -> Vec<AppBrief> {
        let mine = self.directory.iter().filter(|record| {
            record.wanted.spec.is_some() && self.supervisor_of(record.app) == self.me
        });
        mine.map(|record| AppBrief {
            app: record.app,
            wanted: record.wanted.clone(),
            trouble: self.trouble(record),
            waiting: self.waiting(record, Inquiry::summary),
            next: self.next_run(record),
        })
        .collect()
    }

    /// What keeps an app from being as it should, as a sentence.
    pub(crate) fn trouble(&self, record: &AppRecord) -> Option<String> {
        let unplaced = self.supervision.trouble(record.app);
        let unplaced = unplaced.map(ToString::to_string);
        let stalled = self.update_of(record).and_then(|(_, failed)| failed);
        let stalled = stalled.map(|why| alloc::format!("the update goes no further: {why}"));
        unplaced.or(stalled)
    }

    /// How far the replacing of an app's objects is, and why it goes no further.
    pub(crate) fn update_of(&self, record: &AppRecord) -> Option<(u32, Option<String>)> {
        let known = self.supervision.known(record.app);
        supervisor::progress(record, |node| self.reach(node), &known)
    }

    /// What hosts say of their objects.
    pub(super) fn handle_reports(&mut self, from: NodeId, reports: Vec<ObjectReport>) {
        let mut changed = BTreeSet::new();
        for report in reports {
            if report.facts.node != from {
                self.alarm(Alarm::ReportForged, alloc::format!("by {}", from.short()));
                continue;
            }
            let app = report.facts.app;
            if self.directory.get(app).is_none() {
                if !report.removed {
                    self.fetch_from_host(app, from);
                }
                continue;
            }
            if self.take_report(report) {
                changed.insert(app);
            }
        }
        for app in changed {
            self.save_heard(app);
        }
    }

    /// Takes one report into a record; says whether other guardians should know at once.
    fn take_report(&mut self, report: ObjectReport) -> bool {
        let facts = report.facts;
        let (app, object, node) = (facts.app, facts.object, facts.node);
        self.heard.insert(object, self.now);
        let is_of_it = |record: &AppRecord| record.wanted.born == report.born;
        if report.removed && self.directory.get(app).is_some_and(is_of_it) {
            // How a run ended is not known for long.
            self.note_run(app, &facts);
        }
        // While nodes come, a call may wait at a guardian that is no supervisor any more, and sees
        // only what is written.
        let is_in_flux = self
            .came_up
            .values()
            .any(|at| *at + RUN_DEADLINE > self.now);
        let Some(record) = self.directory.get_mut(app) else {
            return false;
        };
        if report.born != record.wanted.born {
            if report.removed {
                let before = record.objects.len();
                record.objects.retain(|it| it.object != object);
                return record.objects.len() != before;
            }
            // Another app of this name. The newest wish decides which of them there is.
            let has_lost = report.born < record.wanted.version;
            if has_lost {
                let stop = Ask::StopObject {
                    object,
                    grace_ms: None,
                    remove: true,
                };
                self.ask(node, stop, Task::Forget);
            } else {
                self.fetch_from_host(app, node);
            }
            return false;
        }
        let known = record.objects.iter().position(|it| it.object == object);
        let weighs = match (known, report.removed) {
            (Some(at), true) => {
                record.objects.remove(at);
                true
            }
            (Some(at), false) => {
                let Some(old) = record.objects.get_mut(at) else {
                    return false;
                };
                if (facts.epoch, facts.revision) <= (old.epoch, old.revision) {
                    return false;
                }
                let ended = old.phase.is_alive() != facts.phase.is_alive();
                let began = (old.phase == Phase::Starting && facts.phase == Phase::Running)
                    || (!old.serves() && facts.serves());
                *old = facts;
                ended || (began && is_in_flux)
            }
            (None, true) => return false,
            // Reported again, once others of the app are gone.
            (None, false) if record.objects.len() >= objects_max(record) => return false,
            (None, false) => {
                record.objects.push(facts);
                record
                    .objects
                    .sort_by_key(|it| (it.index, it.created, it.object));
                true
            }
        };
        self.supervision.touch(app);
        weighs
    }

    /// A host has objects of an app, or of a newer app of that name, whose record is not here.
    pub(super) fn fetch_from_host(&mut self, app: AppId, host: NodeId) {
        if self.fetching.insert(app) {
            self.ask(host, Ask::FetchRecord(app), Task::Fetch(app));
        }
    }

    pub(super) fn fetched(&mut self, app: AppId, record: Option<AppRecord>) {
        self.fetching.remove(&app);
        let Some(record) = record.filter(|record| record.app == app) else {
            return;
        };
        if self.take_record(record) == Joined::Changed {
            self.copy_record(app);
        }
    }

    /// Carries out what supervision plans for an app, when this node supervises it.
    pub(super) fn supervise(&mut self, app: AppId) {
        if let Some(record) = self.directory.get(app)
            && self.supervision.has_trouble(app)
        {
            let lacking = supervisor::lacking(record, |node| self.reach(node));
            self.supervision.only_lacking(app, &lacking);
        }
        self.check_waiters(app);
        if self.supervisor_of(app) != self.me || self.outbox.is_stuck() {
            self.supervision.forget(app);
            self.order.forget(app);
            return;
        }
        self.drop_objects_of_others(app);
        self.give_up_removed_hosts(app);
        self.note_runs(app);
        self.try_out(app);
        // Whoever does not know all of an app yet does nothing about it.
        if self.unsettled.contains_key(&app) {
            self.supervision.timetable.remove(&app);
        } else {
            self.heed_schedule(app);
            let steps = self.heed_safety(app, self.plan(app));
            let placings_max = self.placings_max(app);
            for step in self.heed_order(app, steps) {
                let is_placing = matches!(step, Step::Place { .. });
                if !is_placing || self.supervision.placing_count(app) < placings_max {
                    self.carry_out(app, step);
                }
            }
        }
    }

    /// How many slots of an app may be placed at a time. Those that are to be spread are placed one
    /// after the other: each must know where the others went.
    fn placings_max(&self, app: AppId) -> usize {
        let record = self.directory.get(app);
        let spec = record.and_then(|it| it.wanted.spec.as_ref());
        if spec.is_some_and(|spec| spec.placement.spread) {
            return 1;
        }
        let by_nodes = self.reachable().len().saturating_mul(PLACINGS_PER_NODE);
        by_nodes.clamp(PLACINGS_PER_NODE, PLACINGS_MAX)
    }

    fn plan(&self, app: AppId) -> Vec<Step> {
        let known = self.supervision.known(app);
        let plan = |record| supervisor::plan(record, |node| self.reach(node), &known);
        self.directory.get(app).map(plan).unwrap_or_default()
    }

    /// Newer objects of an app whose objects are replaced have to show that they run.
    fn try_out(&mut self, app: AppId) {
        let updating = self
            .directory
            .get(app)
            .filter(|record| supervisor::is_updating(record, |node| self.reach(node)));
        let on_trial = updating.map(|record| {
            let objects = record.objects.iter();
            let is_newest = |it: &&ObjectFacts| it.revised == record.wanted.revised;
            objects
                .filter(|it| it.phase == Phase::Running)
                .filter(is_newest)
                .map(|it| it.object)
                .collect()
        });
        let now = self.now;
        self.supervision
            .try_out(now, app, &on_trial.unwrap_or_default());
    }

    fn carry_out(&mut self, app: AppId, step: Step) {
        match step {
            Step::Place { index } => self.place(app, index),
            Step::Retire { object, node, why } => {
                let is_news = !self.is_stopping(app, object);
                if self.ask_host(app, (object, node), Wish::Remove, None) && is_news {
                    self.event("object.retired", object.short(), why.to_string());
                }
            }
            Step::Stop { object, node } => {
                self.ask_host(app, (object, node), Wish::Stop, None);
            }
            Step::Start { object, node } => {
                self.ask_host(app, (object, node), Wish::Start, None);
            }
            Step::SetRestart { object, node } => {
                self.ask_host(app, (object, node), Wish::SetRestart, None);
            }
            Step::Settle => {
                if let Some(record) = self.directory.get_mut(app) {
                    record.settled = record.wanted.revised;
                    self.save_record(app);
                }
            }
            Step::RollBack { why } => {
                self.event("app.undone", self.app_name(app), why.clone());
                self.undo(app, &why);
            }
            Step::Forget => {
                let over = self.now + LINGER_TERM;
                self.lingering.entry(app).or_insert(over);
            }
        }
    }

    /// Goes back to what an app was before its last change. That is as old as the change: whatever
    /// a person wishes meanwhile, on whichever side of a cut, is newer.
    fn undo(&mut self, app: AppId, why: &str) {
        if let Some(record) = self.directory.get(app) {
            let version = self.just_above(record.wanted.version);
            self.observe(version);
            self.wish_as_of(app, version, |wanted, _| {
                supervisor::roll_back(wanted, why);
            });
        }
    }

    /// The name of an app, or the beginning of its id.
    pub(super) fn app_name(&self, app: AppId) -> String {
        let spec = self
            .directory
            .get(app)
            .and_then(|it| it.wanted.spec.as_ref());
        spec.map_or_else(|| app.short(), |spec| spec.name.clone())
    }

    /// Drops objects of an older app of the name that a join brought.
    fn drop_objects_of_others(&mut self, app: AppId) {
        let Some(record) = self.directory.get_mut(app) else {
            return;
        };
        if record.objects_born != record.wanted.born {
            record.objects_born = record.wanted.born;
            record.objects.clear();
            self.save_record(app);
        }
    }

    /// What ran on a node that was removed from the cloud is lost for good: what its policy starts
    /// again is as if it had never been, anything else has ended.
    fn give_up_removed_hosts(&mut self, app: AppId) {
        let is_removed = |it: &ObjectFacts| it.phase.is_alive() && self.auth.is_removed(it.node);
        let Some(record) = self.directory.get(app) else {
            return;
        };
        let lost: BTreeSet<ObjectId> = record
            .objects
            .iter()
            .filter(|it| is_removed(it))
            .map(|it| it.object)
            .collect();
        if lost.is_empty() {
            return;
        }
        let at = self.wall();
        let Some(record) = self.directory.get_mut(app) else {
            return;
        };
        let restarts = record
            .wanted
            .spec
            .as_ref()
            .is_none_or(|spec| spec.restart != Restart::No);
        if restarts {
            record.objects.retain(|it| !lost.contains(&it.object));
        }
        for it in record
            .objects
            .iter_mut()
            .filter(|it| lost.contains(&it.object))
        {
            it.phase = Phase::Ended;
            it.pid = None;
            it.last_exit = Some(Exit {
                reason: ExitReason::Lost,
                at,
                asked: false,
            });
        }
        self.save_record(app);
        self.check_waiters(app);
    }

    fn is_stopping(&self, app: AppId, object: ObjectId) -> bool {
        let objects = self
            .directory
            .get(app)
            .map_or(&[][..], |record| &record.objects);
        objects
            .iter()
            .any(|it| it.object == object && it.phase == Phase::Stopping)
    }

    /// Asks the host of an object for something, once at a time; says whether it was asked now.
    pub(crate) fn ask_host(
        &mut self,
        app: AppId,
        (object, node): (ObjectId, NodeId),
        wish: Wish,
        grace_ms: Option<u32>,
    ) -> bool {
        let is_new = self.asked.insert((object, wish));
        if is_new {
            let ask = match wish {
                Wish::Stop => Ask::StopObject {
                    object,
                    grace_ms,
                    remove: false,
                },
                Wish::Remove => Ask::StopObject {
                    object,
                    grace_ms,
                    remove: true,
                },
                Wish::Start => Ask::StartObject { object },
                Wish::SetRestart => Ask::SetRestart {
                    object,
                    restart: self.restart_of(app),
                },
            };
            self.ask(node, ask, Task::Asked { app, object, wish });
        }
        is_new
    }

    pub(crate) fn restart_of(&self, app: AppId) -> Restart {
        let wanted = self.directory.get(app).map(|record| &record.wanted);
        let spec = wanted.and_then(|wanted| wanted.spec.as_ref());
        spec.map_or(Restart::No, |spec| spec.restart)
    }

    fn index_of(&self, app: AppId, object: ObjectId) -> Option<u32> {
        let objects = &self.directory.get(app)?.objects;
        objects
            .iter()
            .find(|it| it.object == object)
            .map(|it| it.index)
    }

    /// The host has answered, or is lost: the plan may ask again.
    fn host_answered(
        &mut self,
        node: NodeId,
        app: AppId,
        (object, wish): (ObjectId, Wish),
        answer: Result<Answer, Problem>,
    ) {
        self.asked.remove(&(object, wish));
        match answer {
            Ok(Answer::Object(facts)) => {
                if wish == Wish::Start {
                    self.supervision.placed(app, facts.index);
                }
                if let Some(born) = self.directory.get(app).map(|record| record.wanted.born) {
                    let report = ObjectReport {
                        facts: *facts,
                        born,
                        removed: false,
                    };
                    if self.take_report(report) {
                        self.save_heard(app);
                    }
                }
            }
            Err(problem) if problem.code == ProblemCode::NotFound => {
                if let Some(record) = self.directory.get_mut(app) {
                    record.objects.retain(|it| it.object != object);
                    self.save_record(app);
                }
            }
            // Its old place is taken. What is started again by its policy runs elsewhere, without
            // its files, as when its node is lost.
            Err(problem)
                if wish == Wish::Start
                    && problem.code == ProblemCode::NoFit
                    && self.restart_of(app) != Restart::No =>
            {
                self.ask_host(app, (object, node), Wish::Remove, None);
            }
            Err(problem) if wish == Wish::Start => {
                if let Some(index) = self.index_of(app, object) {
                    let now = self.now;
                    self.supervision.unplaced(now, app, index, problem.detail);
                }
            }
            Ok(_) | Err(_) => {}
        }
        self.check_waiters(app);
    }

    /// Apps that remove themselves and whose readers have had their time.
    pub(super) fn expire_lingering(&mut self) {
        let now = self.now;
        let over: Vec<AppId> = self
            .lingering
            .iter()
            .filter(|(_, at)| **at <= now)
            .map(|(app, _)| *app)
            .collect();
        for app in over {
            self.lingering.remove(&app);
            let is_waited_for = self.waiters.iter().any(|waiter| waiter.app == app);
            if !is_waited_for && self.supervisor_of(app) == self.me && self.is_done(app) {
                self.forget_app(app);
            }
        }
    }

    /// Whether nothing is left to do of an app that removes itself.
    fn is_done(&self, app: AppId) -> bool {
        self.plan(app).contains(&Step::Forget)
    }

    /// Nothing of the app is wanted any more.
    pub(crate) fn forget_app(&mut self, app: AppId) {
        let version = self.tick();
        let Some(record) = self.directory.get_mut(app) else {
            return;
        };
        record.wanted.version = version;
        record.wanted.spec = None;
        record.decisions.clear();
        self.supervision.forget(app);
        self.save_record(app);
    }

    /// Changes what an app should be.
    pub(crate) fn wish(&mut self, app: AppId, edit: impl FnOnce(&mut Wanted, Version)) {
        let version = self.tick();
        self.wish_as_of(app, version, edit);
    }

    fn wish_as_of(
        &mut self,
        app: AppId,
        version: Version,
        edit: impl FnOnce(&mut Wanted, Version),
    ) {
        let Some(record) = self.directory.get_mut(app) else {
            return;
        };
        edit(&mut record.wanted, version);
        record.wanted.version = version;
        self.supervision.start_afresh(app);
        self.lingering.remove(&app);
        self.save_record(app);
    }

    /// Hosts speak of all of their objects again and again. An object that its host does not speak
    /// of any more is perhaps a memory that a join of records brought back: the host is asked.
    fn confirm_objects(&mut self) {
        let mut heard = BTreeMap::new();
        let mut doubted = BTreeSet::new();
        for record in self.directory.iter() {
            if self.supervisor_of(record.app) != self.me {
                continue;
            }
            for it in record
                .objects
                .iter()
                .filter(|it| self.is_reachable(it.node))
            {
                let at = self.heard.get(&it.object).copied().unwrap_or(self.now);
                heard.insert(it.object, at);
                if at + SILENCE <= self.now {
                    doubted.insert((record.app, it.node));
                }
            }
        }
        self.heard = heard;
        for (app, node) in doubted {
            self.confirm(app, node);
        }
    }

    /// What hosts last said of the apps that the lost node supervised, they may have said to it
    /// alone: that an object is gone, for one, which is never said again. So those that this node
    /// supervises now are asked for at once.
    pub(super) fn confirm_taken_over(&mut self, lost: NodeId) {
        let mut asked = BTreeSet::new();
        let mut objects = Vec::new();
        for record in self.directory.iter() {
            let first = directory::rank(record.app, [lost, self.me].into_iter());
            if first.first() != Some(&lost) || self.supervisor_of(record.app) != self.me {
                continue;
            }
            for it in &record.objects {
                if self.is_reachable(it.node) {
                    objects.push(it.object);
                    asked.insert((record.app, it.node));
                }
            }
        }
        let before = self.now - Duration::from_millis(1);
        for object in objects {
            self.heard.entry(object).or_insert(before);
        }
        for (app, node) in asked {
            self.confirm(app, node);
        }
    }

    /// Asks a host which objects of an app it has.
    pub(super) fn confirm(&mut self, app: AppId, host: NodeId) {
        let asked_at = self.now;
        let filter = ObjectFilter::App(app);
        let ask = Ask::Objects { all: true, filter };
        self.ask(host, ask, Task::Confirm { app, asked_at });
    }

    /// What a host has of an app, which it was asked for at that time.
    fn confirmed(&mut self, from: NodeId, app: AppId, asked_at: Instant, has: &[ObjectFacts]) {
        let Some(record) = self.directory.get_mut(app) else {
            return;
        };
        let before = record.objects.len();
        record.objects.retain(|it| {
            it.node != from
                || has.iter().any(|other| other.object == it.object)
                || self.heard.get(&it.object).is_none_or(|at| *at >= asked_at)
        });
        if record.objects.len() != before {
            self.save_record(app);
        }
    }

    /// What events alone do not keep right.
    pub(super) fn maintain(&mut self) {
        self.report_all();
        self.confirm_objects();
        let apps: Vec<AppId> = self.directory.iter().map(|record| record.app).collect();
        for app in apps {
            // A host that was asked for something may not have heard it.
            self.supervision.touch(app);
        }
        self.spread_records();
        self.renew_seats();
        self.drop_spare_records();
        self.forget_ended_apps();
    }

    /// Forgets apps that ended long ago and are not started again.
    fn forget_ended_apps(&mut self) {
        let ended = self.directory.iter().filter(|it| self.has_ended(it));
        let since = |record: &AppRecord| {
            let known = self.over_since.get(&record.app).copied();
            (record.app, known.unwrap_or(self.now))
        };
        self.over_since = ended.map(since).collect();
        let is_due = |(_, since): &(&AppId, &Instant)| **since + ENDED_TERM <= self.now;
        let due = self.over_since.iter().filter(is_due);
        for app in due.map(|(app, _)| *app).collect::<Vec<_>>() {
            self.forget_app(app);
        }
    }

    /// Whether nothing of an app that this node supervises runs, or will without being asked to.
    fn has_ended(&self, record: &AppRecord) -> bool {
        let wanted = &record.wanted;
        let spec = wanted.spec.as_ref();
        spec.is_some_and(|spec| spec.restart == Restart::No)
            && self.next_run(record).is_none()
            && !wanted.stopped
            && !record.objects.is_empty()
            && record.objects.iter().all(|it| !it.phase.is_alive())
            && self.supervisor_of(record.app) == self.me
    }

    pub(super) fn handle_answer(
        &mut self,
        from: NodeId,
        task: Task,
        answer: Result<Answer, Problem>,
    ) {
        match task {
            Task::Forward(origin) => {
                let result = answer.and_then(call_response);
                self.reply_now(origin, result);
            }
            Task::Scatter(scatter) => self.scatter_answered(scatter, from, answer.ok()),
            Task::Effect(effect) => self.effect_answered(effect, answer),
            Task::Reserve(placing) => self.offered(placing, from, answer),
            Task::Launch(placing) => self.launched(placing, from, answer),
            Task::Store { app, versions } => {
                // It knew something newer, which whoever stored did not know.
                if let Ok(Answer::Record(Some(record))) = &answer {
                    let newer = (record.version, record.wanted.version);
                    // Whoever need not have it would never be rid of one that changes all the time:
                    // no two guardians would have what it has by then.
                    if self.needs_record(app) {
                        self.take_record((**record).clone());
                    }
                    self.directory.note_copy(app, from, newer);
                }
                if answer.is_ok() {
                    self.directory.note_copy(app, from, versions);
                    self.check_waiters(app);
                    if self.is_scheduled(app) {
                        self.supervision.touch(app);
                    }
                }
            }
            Task::Asked { app, object, wish } => {
                self.host_answered(from, app, (object, wish), answer);
            }
            Task::ForwardOrPrefix { origin, request } => {
                self.forward_answered(origin, *request, answer);
            }
            Task::Fetch(app) => match answer {
                Ok(Answer::Record(record)) => self.fetched(app, record.map(|it| *it)),
                Ok(_) | Err(_) => self.fetched(app, None),
            },
            Task::Confirm { app, asked_at } => {
                if let Ok(Answer::Objects(has)) = answer {
                    self.confirmed(from, app, asked_at, &has);
                }
            }
            Task::SeatTaken(number) => self.seat_taken(number, from, answer),
            Task::Reseated(object) => {
                if let Ok(Answer::Record(Some(record))) = answer {
                    self.reseated(object, &record.wanted);
                }
            }
            Task::Seat {
                proposal,
                round,
                seat,
            } => self.seat_answered(proposal, round, seat, seat_answer(answer)),
            Task::Renew {
                claim,
                seat,
                asked_at,
            } => {
                if let Some(answer) = seat_answer(answer) {
                    self.once
                        .tenures
                        .handle(self.now, claim, seat, asked_at, answer);
                }
            }
            Task::Standing { number, name } => self.standing_told(number, &name, answer.ok()),
            Task::Forget => {}
        }
    }

    /// A question was not answered: the node is lost, or its time is over.
    pub(super) fn handle_silence(&mut self, node: NodeId, task: Task) {
        let problem = self.unreachable_node(node);
        match task {
            Task::Forward(origin) => self.reply_now(origin, Err(problem)),
            Task::Scatter(scatter) => self.scatter_answered(scatter, node, None),
            Task::Effect(effect) => self.effect_answered(effect, Err(problem)),
            Task::Reserve(placing) => self.offered(placing, node, Err(problem)),
            Task::Launch(placing) => self.launched(placing, node, Err(problem)),
            Task::Asked { app, object, wish } => {
                self.host_answered(node, app, (object, wish), Err(problem));
            }
            Task::ForwardOrPrefix { origin, request } if matches!(*request, Request::Wait(_)) => {
                self.wait_again(origin, *request, self.now + WAIT_PAUSE);
            }
            Task::ForwardOrPrefix { origin, .. } => self.reply_now(origin, Err(problem)),
            Task::Fetch(app) => self.fetched(app, None),
            Task::SeatTaken(number) => self.seat_taken(number, node, Err(problem)),
            Task::Standing { number, name } => self.standing_told(number, &name, None),
            Task::Seat {
                proposal,
                round,
                seat,
            } => self.seat_answered(proposal, round, seat, None),
            Task::Store { .. }
            | Task::Confirm { .. }
            | Task::Renew { .. }
            | Task::Reseated(_)
            | Task::Forget => {}
        }
    }
}

/// What a forwarded call was answered with.
pub(crate) fn call_response(answer: Answer) -> Result<wire::call::Response, Problem> {
    match answer {
        Answer::Call(response) => Ok(*response),
        Answer::Objects(_)
        | Answer::Apps(_)
        | Answer::Usage(_)
        | Answer::Reserved { .. }
        | Answer::Object(_)
        | Answer::Done
        | Answer::Record(_)
        | Answer::SeatTaken(_)
        | Answer::Seat(_)
        | Answer::Standing(_)
        | Answer::Later { .. } => Err(Problem::new(
            ProblemCode::Internal,
            "the answer is of another kind",
        )),
    }
}

/// What a seat answered, if it did.
fn seat_answer(answer: Result<Answer, Problem>) -> Option<SeatAnswer> {
    match answer {
        Ok(Answer::Seat(answer)) => Some(*answer),
        Ok(_) | Err(_) => None,
    }
}

/// How many objects a record may hold: two a slot, as while one is replaced, and some more.
fn objects_max(record: &AppRecord) -> usize {
    let replicas = record.wanted.spec.as_ref().map_or(0, |spec| spec.replicas);
    let slots = usize::try_from(replicas).unwrap_or(usize::MAX);
    slots.saturating_mul(2).saturating_add(SURPLUS_MAX)
}

/// How many living objects of a record each node has.
pub(super) fn company(record: &AppRecord) -> BTreeMap<NodeId, u32> {
    let mut company = BTreeMap::new();
    for facts in record.objects.iter().filter(|it| it.phase.is_alive()) {
        *company.entry(facts.node).or_insert(0) += 1;
    }
    company
}
