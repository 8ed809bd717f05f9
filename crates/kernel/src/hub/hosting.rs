//! What runs here: what others ask of this node as a host, and what it tells the supervisors of
//! its objects.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use core::time::Duration;

use wire::call::{ObjectStats, Problem, ProblemCode};
use wire::disk::Table;
use wire::driver::DriverReport;
use wire::fact::{Availability, ObjectFacts, Phase, Usage};
use wire::health::HealthState;
use wire::id::{AppId, NodeId, ObjectId, Version};
use wire::job::Job;
use wire::peer::{
    Answer, AppRecord, Ask, HostedObject, Message, ObjectFilter, ObjectReport, Placement,
};
use wire::spec::Restart;

use super::pending::basis_of_answer;
use super::{Kernel, Origin};
use crate::calls::changes_something;
use crate::calls::check_spec;
use crate::directory;
use crate::health;
use crate::instant::Instant;
use crate::limits::REPORTS_MAX;
use crate::objects::Action;
use crate::outbox::Basis;
use crate::world::{Output, Token};

/// How long a node that is being stopped waits until its objects run elsewhere.
const LEAVE_TERM: Duration = Duration::from_secs(20);
/// How long it then waits for those that nobody took over to end.
const END_TERM: Duration = Duration::from_secs(12);

/// Measurements at one time; each goes through all control groups of the node.
const MEASURING_MAX: usize = 256;

impl Kernel {
    /// Objects that the disk knew, and what the driver says of them.
    pub(super) fn awake_objects(&mut self, stored: Vec<HostedObject>) {
        let survivors: BTreeMap<ObjectId, _> = core::mem::take(&mut self.config.survivors)
            .into_iter()
            .collect();
        for hosted in stored {
            let object = hosted.facts.object;
            let revision_min = u64::from(self.boot_reserved) << 32;
            self.objects.restore(hosted, revision_min);
            self.objects
                .resume(self.now, self.wall(), object, survivors.get(&object));
            if let Some(hosted) = self.objects.get(object).cloned()
                && hosted.facts.phase.is_alive()
            {
                self.hold(&hosted);
                if let Some(title) = hosted.title {
                    self.seek_tenure(object, title);
                }
            }
        }
        // Nobody was ever told of an object that the table does not know.
        for (object, report) in survivors {
            if self.objects.get(object).is_none() {
                self.ledger.bear(object);
                self.outbox.act(Output::Stop {
                    object,
                    grace_ms: 0,
                });
                if let Some(report) = report {
                    self.handle_driver(object, report);
                }
            }
        }
    }

    pub(super) fn handle_driver(&mut self, object: ObjectId, report: DriverReport) {
        if self.objects.get(object).is_some() {
            self.objects.report(self.now, object, report);
        } else if matches!(report, DriverReport::Exited(_)) {
            self.ledger.free(object);
            self.outbox.act(Output::Discard { object });
        }
    }

    fn hold(&mut self, hosted: &HostedObject) {
        if let Some(spec) = &hosted.wanted.spec {
            let ports = spec.ports.values().copied().collect();
            self.ledger
                .hold(hosted.facts.object, hosted.facts.app, spec.resources, ports);
        }
    }

    pub(super) fn handle_action(&mut self, action: Action) {
        match action {
            Action::Launch(object) => self.start_program(object),
            Action::Stop(object, _) if self.is_awaiting(object) => self.end_awaiting(object),
            Action::Stop(object, grace_ms) => {
                // Once it is durable why: or the next life of this node takes it for an end of its
                // own. A disk that refuses is no reason to let a program run.
                let stop = Output::Stop { object, grace_ms };
                if self.outbox.is_stuck() {
                    self.outbox.act(stop);
                } else {
                    self.outbox.say(stop);
                }
            }
            Action::Changed { object, durable } => {
                let Some(hosted) = self.objects.get(object).cloned() else {
                    return;
                };
                if durable {
                    self.write_sealed(Table::Objects, &object.0, &hosted);
                }
                self.probe_or_not(&hosted);
                self.announce(&hosted.facts);
                self.report(&hosted, false);
            }
            Action::HealthChanged(object) => {
                if let Some(hosted) = self.objects.get(object).cloned() {
                    self.write_sealed(Table::Objects, &object.0, &hosted);
                    self.announce_health(&hosted.facts);
                    self.report(&hosted, false);
                }
            }
            Action::Overdue(object) => {
                if let Some(hosted) = self.objects.get(object).cloned() {
                    self.announce_overdue(&hosted);
                }
            }
            Action::Marked(object) => {
                if let Some(hosted) = self.objects.get(object).cloned() {
                    self.write_sealed(Table::Objects, &object.0, &hosted);
                }
            }
            Action::Freed(object) => {
                self.ledger.free(object);
                self.release_tenure(object);
                self.note_held();
                self.retry_on(self.me);
            }
            Action::Removed(hosted) => {
                let object = hosted.facts.object;
                self.probing.end(object);
                self.ledger.free(object);
                self.release_tenure(object);
                self.write(Table::Objects, &object.0, None);
                self.outbox.act(Output::Discard { object });
                self.report(&hosted, true);
            }
        }
    }

    /// An object is probed while its program runs and is not asked to end.
    fn probe_or_not(&mut self, hosted: &HostedObject) {
        let facts = &hosted.facts;
        let spec = hosted.wanted.spec.as_ref();
        let health = spec.and_then(|spec| spec.health.as_deref());
        match (facts.phase, health, &facts.health) {
            (Phase::Running, Some(health), Some(state)) => {
                self.probing.begin(self.now, facts.object, health, state);
            }
            (_, _, _) => self.probing.end(facts.object),
        }
    }

    pub(super) fn handle_probing(&mut self, action: health::Action) {
        match action {
            health::Action::Probe {
                object,
                probe,
                check,
                timeout_ms,
            } => self.outbox.act(Output::Probe {
                object,
                probe,
                check,
                timeout_ms,
            }),
            health::Action::Became(object, state) => {
                self.objects.set_health(self.now, object, state);
            }
        }
    }

    fn announce_health(&mut self, facts: &ObjectFacts) {
        let Some(state) = &facts.health else {
            return;
        };
        let subject = alloc::format!("{}/{}", facts.app_name, facts.index);
        let kind = alloc::format!("object.{}", state.word());
        let id = facts.object.short();
        let message = match state {
            HealthState::Unhealthy { why } => alloc::format!("{id} {why}"),
            HealthState::Starting | HealthState::Healthy => id,
        };
        self.event(&kind, subject, message);
    }

    fn announce_overdue(&mut self, hosted: &HostedObject) {
        let facts = &hosted.facts;
        let subject = alloc::format!("{}/{}", facts.app_name, facts.index);
        let spec = hosted.wanted.spec.as_ref();
        let deadline_ms = spec.and_then(|spec| spec.deadline_ms).unwrap_or(0);
        let (id, deadline_s) = (facts.object.short(), deadline_ms / 1000);
        let message = alloc::format!("{id} runs longer than {deadline_s} s");
        self.event("object.overdue", subject, message);
    }

    fn announce(&mut self, facts: &ObjectFacts) {
        let subject = alloc::format!("{}/{}", facts.app_name, facts.index);
        let kind = alloc::format!("object.{}", facts.phase.word());
        let id = facts.object.short();
        let message = match (&facts.last_exit, facts.phase) {
            (Some(exit), Phase::Ended | Phase::Failed | Phase::Waiting) => {
                alloc::format!("{id} {}", exit.reason)
            }
            _ => id,
        };
        self.event(&kind, subject, message);
    }

    /// Tells the supervisor of an object's app how it is.
    fn report(&mut self, hosted: &HostedObject, removed: bool) {
        let app = hosted.facts.app;
        let supervisor = self.supervisor_of(app);
        self.reported_to.insert(app, supervisor);
        let born = hosted.wanted.born;
        let report = ObjectReport {
            facts: hosted.facts.clone(),
            born,
            removed,
        };
        self.send(supervisor, Message::Reports([report].into()));
    }

    /// Reports objects whose supervisor is another than it was, or is `returned`.
    pub(super) fn report_to_new_supervisors(&mut self, returned: NodeId) {
        let apps: BTreeSet<AppId> = self.objects.iter().map(|it| it.facts.app).collect();
        let mut reports: BTreeMap<NodeId, Vec<ObjectReport>> = BTreeMap::new();
        for app in apps {
            let supervisor = self.supervisor_of(app);
            let before = self.reported_to.insert(app, supervisor);
            if before != Some(supervisor) || supervisor == returned {
                let all = self.reports_of(app);
                reports.entry(supervisor).or_default().extend(all);
            }
        }
        self.send_reports(reports);
    }

    /// Reports everything, in case a message was lost, or the object in a join of records; so also
    /// to this node itself.
    pub(super) fn report_all(&mut self) {
        let apps: BTreeSet<AppId> = self.objects.iter().map(|it| it.facts.app).collect();
        self.reported_to.retain(|app, _| apps.contains(app));
        let mut reports: BTreeMap<NodeId, Vec<ObjectReport>> = BTreeMap::new();
        for app in apps {
            let supervisor = self.supervisor_of(app);
            reports
                .entry(supervisor)
                .or_default()
                .extend(self.reports_of(app));
        }
        self.send_reports(reports);
    }

    fn send_reports(&mut self, reports: BTreeMap<NodeId, Vec<ObjectReport>>) {
        for (supervisor, reports) in reports {
            for part in reports.chunks(REPORTS_MAX) {
                self.send(supervisor, Message::Reports(part.to_vec()));
            }
        }
    }

    fn reports_of(&self, app: AppId) -> Vec<ObjectReport> {
        let report = |it: &HostedObject| ObjectReport {
            facts: it.facts.clone(),
            born: it.wanted.born,
            removed: false,
        };
        self.objects
            .iter()
            .filter(|it| it.facts.app == app)
            .map(report)
            .collect()
    }

    pub(super) fn handle_ask(&mut self, from: NodeId, question: u64, ask: Ask) {
        let origin = Origin::Peer {
            node: from,
            question,
        };
        let must_be_kept = matches!(
            ask,
            Ask::Launch { .. }
                | Ask::StartObject { .. }
                | Ask::StoreRecord(_)
                | Ask::SetRestart { .. }
        );
        if must_be_kept && self.outbox.is_stuck() {
            // At once: whoever asks can go elsewhere.
            let problem = Problem::new(ProblemCode::Busy, "disk takes no writes");
            let answer = Box::new(Err(problem));
            return self.send_now(from, Message::Answer { question, answer });
        }
        let basis = basis_of_answer(&ask);
        let answer = match ask {
            Ask::Call(_) if self.overtaken.contains(&(from, question)) => return,
            Ask::Call(request) if self.has_just_woken() && changes_something(&request) => {
                let problem = Problem::new(ProblemCode::Busy, "the node was asleep until now");
                Err(problem.remedy("try again in a moment"))
            }
            Ask::Call(request) => return self.answer_call(origin, request),
            Ask::Objects { all, filter } => Ok(Answer::Objects(self.local_objects(all, &filter))),
            Ask::Apps => Ok(Answer::Apps(self.local_apps())),
            Ask::Usage { filter } => return self.measure(origin, &filter),
            Ask::Reserve {
                lease,
                app,
                resources,
                ports,
            } => match self.reserve(lease, app, resources, &ports) {
                Err(problem) => {
                    let answer = Box::new(Err(problem));
                    return self.send_now(from, Message::Answer { question, answer });
                }
                offer => offer,
            },
            Ask::Release { lease } => {
                self.ledger.release(lease);
                Ok(Answer::Done)
            }
            Ask::Launch { lease, object } => self.launch(lease, *object),
            Ask::StopObject {
                object,
                grace_ms,
                remove,
            } => self
                .objects
                .stop(object, grace_ms, remove)
                .map(|()| self.object_or_done(object)),
            Ask::StartObject { object } => self.start_object(object),
            Ask::SetRestart { object, restart } => self
                .objects
                .set_restart(object, restart)
                .map(|()| self.object_or_done(object)),
            Ask::SignalObject { object, signal } => self.signal_object(object, signal),
            Ask::StoreRecord(record) => self.store_record(from, *record),
            Ask::TakeSeat { app, born } => self.take_seat(app, born),
            Ask::Seat { seat, ask } => Ok(self.answer_seat(seat, *ask)),
            Ask::Standing(app) => self.answer_standing(app),
            Ask::FetchRecord(app) => Ok(Answer::Record(self.any_record(app).map(Box::new))),
        };
        self.answer(basis, from, question, answer);
    }

    fn object_or_done(&self, object: ObjectId) -> Answer {
        let facts = self
            .objects
            .get(object)
            .map(|hosted| Box::new(hosted.facts.clone()));
        facts.map_or(Answer::Done, Answer::Object)
    }

    pub(crate) fn local_objects(&self, all: bool, filter: &ObjectFilter) -> Vec<ObjectFacts> {
        let fits = |facts: &&ObjectFacts| {
            (all || facts.phase.is_alive())
                && match filter {
                    ObjectFilter::Every => true,
                    ObjectFilter::App(app) => facts.app == *app,
                    ObjectFilter::Prefix(prefix) => facts.object.has_prefix(prefix),
                }
        };
        self.objects
            .iter()
            .map(|hosted| &hosted.facts)
            .filter(fits)
            .cloned()
            .collect()
    }

    fn reserve(
        &mut self,
        lease: u64,
        app: AppId,
        resources: wire::spec::Resources,
        ports: &[u16],
    ) -> Result<Answer, Problem> {
        match self.measurement.availability(self.me) {
            Availability::Open => {}
            Availability::Draining | Availability::Leaving => {
                return Err(Problem::new(ProblemCode::NoFit, "draining"));
            }
        }
        if self.outbox.is_stuck() {
            return Err(Problem::new(ProblemCode::NoFit, "disk takes no writes"));
        }
        let same_app = self.ledger.same_app(app);
        self.ledger
            .reserve(self.now, lease, app, resources, ports)?;
        Ok(Answer::Reserved {
            load_per_mille: self.measurement.load_per_mille(),
            same_app,
        })
    }

    fn launch(&mut self, lease: u64, placement: Placement) -> Result<Answer, Problem> {
        let object = placement.object;
        if let Some(hosted) = self.objects.get(object) {
            return Ok(Answer::Object(Box::new(hosted.facts.clone())));
        }
        if let Some(spec) = &placement.wanted.spec {
            check_spec(spec)?;
        }
        if self.is_future(placement.wanted.version) {
            let detail = "the wish is from the future: a clock is wrong";
            return Err(Problem::new(ProblemCode::Invalid, detail));
        }
        if !self.ledger.convert(lease, object) {
            return Err(Problem::new(ProblemCode::Conflict, "the lease has lapsed"));
        }
        self.observe(placement.wanted.version);
        if let Err(problem) = self.objects.launch(self.me, self.wall(), placement) {
            self.ledger.free(object);
            return Err(problem);
        }
        Ok(self.object_or_done(object))
    }

    fn start_object(&mut self, object: ObjectId) -> Result<Answer, Problem> {
        let Some(hosted) = self.objects.get(object).cloned() else {
            return Err(Problem::not_found("object on this node", &object.short()));
        };
        if hosted.facts.phase.is_alive() {
            return Err(Problem::new(
                ProblemCode::Conflict,
                "the object has not ended",
            ));
        }
        if self.measurement.availability(self.me) != Availability::Open {
            return Err(Problem::new(ProblemCode::NoFit, "draining"));
        }
        if let Some(spec) = &hosted.wanted.spec {
            let ports: Vec<u16> = spec.ports.values().copied().collect();
            let lease = u64::MAX;
            let app = hosted.facts.app;
            self.ledger
                .reserve(self.now, lease, app, spec.resources, &ports)?;
            self.ledger.convert(lease, object);
        }
        self.objects.start(object)?;
        Ok(self.object_or_done(object))
    }

    fn signal_object(&mut self, object: ObjectId, signal: u8) -> Result<Answer, Problem> {
        let Some(hosted) = self.objects.get(object) else {
            return Err(Problem::not_found("object on this node", &object.short()));
        };
        if !matches!(
            hosted.facts.phase,
            Phase::Running | Phase::Stopping | Phase::Starting
        ) {
            let detail = alloc::format!("{} is not running", object.short());
            return Err(Problem::new(ProblemCode::Conflict, detail));
        }
        self.outbox.act(Output::Signal { object, signal });
        Ok(Answer::Done)
    }

    /// The record of an app: as a guardian, and from what an object here was started for.
    fn any_record(&self, app: AppId) -> Option<AppRecord> {
        let kept = self.directory.get(app).cloned();
        // Others refuse what is from the future: then what is kept is better.
        let hosted = self
            .objects
            .iter()
            .filter(|it| it.facts.app == app && !self.is_future(it.wanted.version));
        let Some(newest) = hosted.max_by_key(|it| it.wanted.version) else {
            return kept;
        };
        let mut record = kept.unwrap_or_else(|| AppRecord {
            app,
            version: newest.wanted.version,
            wanted: newest.wanted.clone(),
            objects: self.objects_of(app, newest.wanted.born),
            objects_born: newest.wanted.born,
            decisions: Vec::new(),
            settled: newest.wanted.revised,
            begun: newest.wanted.born,
            job: Job::default(),
        });
        if newest.wanted.version > record.wanted.version {
            record.wanted = newest.wanted.clone();
        }
        Some(record)
    }

    /// Objects here that were started for the app of that birth.
    fn objects_of(&self, app: AppId, born: Version) -> Vec<ObjectFacts> {
        let all = self.objects.iter();
        all.filter(|it| it.facts.app == app && it.wanted.born == born)
            .map(|it| it.facts.clone())
            .collect()
    }

    fn measure(&mut self, origin: Origin, filter: &ObjectFilter) {
        let running = self.local_objects(false, filter);
        let objects: Vec<ObjectId> = running.iter().map(|facts| facts.object).collect();
        if self.measuring.len() >= MEASURING_MAX {
            let problem = Problem::new(ProblemCode::Busy, "too many measurements at one time");
            return self.reply_now(origin, Err(problem));
        }
        if objects.is_empty() {
            if let Origin::Peer { node, question } = origin {
                let answer = Ok(Answer::Usage(Vec::new()));
                self.answer(Basis::Hearsay, node, question, answer);
            }
            return;
        }
        let token = self.next_token();
        self.measuring.insert(token, origin);
        self.outbox.act(Output::Measure { token, objects });
    }

    pub(super) fn handle_measured(&mut self, token: Token, usages: &[(ObjectId, Usage)]) {
        let Some(Origin::Peer { node, question }) = self.measuring.remove(&token) else {
            return;
        };
        let stats = |(object, usage): &(ObjectId, Usage)| {
            let hosted = self.objects.get(*object)?;
            let limits = hosted.wanted.spec.as_ref().map(|spec| spec.resources);
            let limits = limits.unwrap_or_default();
            Some(ObjectStats {
                object: *object,
                app_name: hosted.facts.app_name.clone(),
                index: hosted.facts.index,
                node: self.me,
                usage: *usage,
                cpu_limit_millis: limits.cpu_millis,
                memory_limit_bytes: limits.memory_bytes,
            })
        };
        let stats = usages.iter().filter_map(stats).collect();
        let answer = Ok(Answer::Usage(stats));
        self.answer(Basis::Hearsay, node, question, answer);
    }

    /// `node/down`: tell everybody, wait until others have taken over, end the rest, stop.
    pub(crate) fn leave(&mut self, origin: Origin) {
        if self.leaving.is_some() {
            let problem = Problem::new(ProblemCode::Conflict, "the node is being stopped already");
            return self.reply(origin, Err(problem));
        }
        self.leaving = Some((origin, self.now));
        self.before_leaving = self.measurement.availability(self.me);
        self.tell_facts(|facts| facts.availability = Availability::Leaving);
        self.membership_changed_here();
    }

    /// While the node is being stopped: ends what nobody will take over, and halts when nothing is
    /// left or the time is over. Says whether it did anything.
    pub(super) fn expire_leaving(&mut self) -> bool {
        let Some((origin, since)) = self.leaving.filter(|_| !self.halted) else {
            return false;
        };
        let others = self.reachable().len() > 1;
        let overdue = since + LEAVE_TERM <= self.now;
        let living: Vec<(ObjectId, bool, bool)> = self
            .objects
            .living()
            .filter(|it| !self.objects.is_suspended(it.facts.object))
            .map(|it| {
                let moves = it.facts.restart != Restart::No && !it.wanted.stopped;
                (it.facts.object, moves, it.facts.phase == Phase::Stopping)
            })
            .collect();
        if living.is_empty() || since + LEAVE_TERM + END_TERM <= self.now {
            self.halted = true;
            self.membership.leave();
            self.halt(origin);
            return true;
        }
        let mut acted = false;
        for (object, moves, is_stopping) in living {
            // What nobody has taken over by now runs again here when the node is back.
            if !is_stopping && (!moves || !others || overdue) {
                acted |= if moves {
                    self.objects.suspend(object)
                } else {
                    self.objects.end(object, None, false).is_ok()
                };
            }
        }
        acted
    }

    fn halt(&mut self, origin: Origin) {
        let summary = self.node_summary(self.me);
        let result = summary
            .map(wire::call::Response::NodeDown)
            .ok_or_else(|| Problem::new(ProblemCode::Internal, "no facts"));
        if self.outbox.is_stuck() {
            // What was not written by now will not be. Its end promises nothing.
            self.reply_now(origin, result);
            self.outbox.act_last(Output::Halt);
        } else {
            self.reply(origin, result);
            self.outbox.say(Output::Halt);
        }
    }

    /// The disk refused what the end of this node waits for.
    pub(super) fn halt_without_disk(&mut self) {
        if let Some((origin, _)) = self.leaving.filter(|_| self.halted) {
            self.halt(origin);
        }
    }

    pub(super) fn leaving_timeout(&self) -> Option<Instant> {
        let (_, since) = self.leaving.filter(|_| !self.halted)?;
        let handed_over = since + LEAVE_TERM;
        Some(if self.now < handed_over {
            handed_over
        } else {
            handed_over + END_TERM
        })
    }

    fn membership_changed_here(&mut self) {
        let apps: Vec<_> = self.directory.iter().map(|record| record.app).collect();
        for app in apps {
            self.supervision.touch(app);
        }
    }

    /// The first reachable node in the app's rank whose disk takes writes: it supervises the app.
    /// Without any such node, it is the first that is reachable, which then does nothing.
    pub(crate) fn supervisor_of(&self, app: AppId) -> NodeId {
        let reachable = self.auth.members().filter(|node| self.is_reachable(*node));
        let rank = directory::rank(app, reachable);
        let able = rank
            .iter()
            .find(|node| !self.measurement.is_impaired(**node));
        able.or(rank.first()).copied().unwrap_or(self.me)
    }
}
