//! Calls about apps, answered by their supervisor.

use alloc::boxed::Box;
use alloc::collections::BTreeSet;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use rand::RngExt;
use wire::call::{
    Affected, Applied, Apply, Change, Endpoint, Expected, Explanation, Inspection, Located,
    Problem, ProblemCode, Request, Resolved, Response, Run, StopApp, Update,
};
use wire::fact::ObjectFacts;
use wire::id::{AppId, NodeId, ObjectId, Version};
use wire::job::Job;
use wire::peer::{Answer, AppRecord, Ask, Message, Wanted};
use wire::spec::{AppSpec, REPLICAS_MAX, Restart};
use wire::tenancy::Tenancy;

use super::checks::check_spec;
use super::scatter::conflict;
use super::{Part, Target, no_such_app};
use crate::directory::{self, Joined};
use crate::hub::{Kernel, Origin, StartedBy, Task, WaitFor, Waiter, Wish, term_ms};
use crate::limits::{CALL_DEADLINE, GRACE_MAX, GUARDIANS, RUN_DEADLINE, WAIT_TERM};
use crate::order::Inquiry;
use crate::supervisor::{self, Reach};

/// A call that does something to several objects at once.
#[derive(Debug)]
pub(crate) struct Effect {
    origin: Origin,
    waiting: usize,
    objects: Vec<ObjectId>,
    problem: Option<Problem>,
}

/// A call that makes an app.
#[derive(Debug)]
pub(crate) enum Making {
    Run(Box<Run>),
    Apply(Apply),
}

impl Making {
    /// What it is to be.
    pub(crate) fn spec(&self) -> &AppSpec {
        match self {
            Self::Run(run) => &run.spec,
            Self::Apply(apply) => &apply.spec,
        }
    }
}

impl Effect {
    /// Who waits for it.
    pub(crate) fn origin(&self) -> Origin {
        self.origin
    }
}

impl Kernel {
    /// `app/run`: to the supervisor; there, a record, and then an answer when its objects run.
    pub(super) fn run(&mut self, origin: Origin, mut run: Run) {
        if run.spec.name.is_empty() {
            run.spec.name = self.made_up_name(&run.spec);
        }
        if self.goes_on_here(origin, &run.spec, || Request::Run(run.clone())) {
            self.run_here(origin, run);
        }
    }

    /// The same, once all that is known of an app of that name is here.
    pub(super) fn run_here(&mut self, origin: Origin, run: Run) {
        if run.spec.after.is_empty() {
            return self.run_ordered(origin, run);
        }
        let spec = run.spec.clone();
        self.check_order(origin, &spec, run.into());
    }

    /// The same for either call, once it is known that the app does not come after itself.
    pub(crate) fn make_ordered(&mut self, origin: Origin, request: Request) {
        if let Request::Run(run) = request {
            self.run_ordered(origin, run);
        } else if let Request::Apply(apply) = request {
            self.apply_ordered(origin, apply);
        }
    }

    fn run_ordered(&mut self, origin: Origin, run: Run) {
        let app = AppId::of_name(&run.spec.name);
        let checked = self.check_name_is_free(app, &run.spec.name);
        if let Err(problem) = checked.and_then(|()| self.check_not_past(&run.spec)) {
            return self.reply(origin, Err(problem));
        }
        if term_ms(&run.spec).is_some() {
            return self.seat_new_app(origin, Making::Run(Box::new(run)));
        }
        let born = self.tick();
        self.run_seated(origin, run, born, None);
    }

    /// Makes an app of which it is known who votes on it, if it never runs twice.
    pub(crate) fn make_seated(
        &mut self,
        origin: Origin,
        making: Making,
        born: Version,
        tenancy: Tenancy,
    ) {
        match making {
            Making::Run(run) => self.run_seated(origin, *run, born, Some(tenancy)),
            Making::Apply(apply) => self.apply_seated(origin, apply, born, Some(tenancy)),
        }
    }

    fn run_seated(&mut self, origin: Origin, run: Run, version: Version, tenancy: Option<Tenancy>) {
        let app = AppId::of_name(&run.spec.name);
        if let Err(problem) = self.create(app, run.spec, version, tenancy) {
            return self.reply(origin, Err(problem));
        }
        let until = WaitFor::Started(StartedBy::Run {
            attach: run.attach,
            born: version,
        });
        let deadline = self.now + RUN_DEADLINE;
        self.waiters.push(Waiter {
            origin,
            app,
            until,
            deadline,
        });
        self.save_record(app);
    }

    /// Makes the record of a new app, which is yet to be saved.
    fn create(
        &mut self,
        app: AppId,
        spec: AppSpec,
        version: Version,
        tenancy: Option<Tenancy>,
    ) -> Result<(), Problem> {
        self.check_name_is_free(app, &spec.name)?;
        let record = AppRecord {
            app,
            version,
            wanted: Wanted {
                tenancy,
                ..Wanted::new(spec, version, self.wall())
            },
            objects: Vec::new(),
            objects_born: version,
            decisions: Vec::new(),
            settled: version,
            begun: Version::default(),
            job: Job::default(),
        };
        // What is left of an older app of this name is of no interest any more.
        self.directory.remove(app);
        self.supervision.forget(app);
        self.lingering.remove(&app);
        match self.directory.join(record) {
            Joined::Full => Err(Problem::new(
                ProblemCode::Busy,
                "the node keeps no more records",
            )),
            Joined::Changed | Joined::Same | Joined::Refused => Ok(()),
        }
    }

    /// Whether a call that makes or changes an app can be carried out here and now. Else it is on its
    /// way: to the supervisor, to others who may know an app of that name, or back with what is wrong.
    fn goes_on_here(
        &mut self,
        origin: Origin,
        spec: &AppSpec,
        request: impl FnOnce() -> Request,
    ) -> bool {
        let app = AppId::of_name(&spec.name);
        let supervisor = self.supervisor_of(app);
        let checked = check_spec(spec).and_then(|()| self.check_all_know(spec));
        if let Err(problem) = checked {
            self.reply(origin, Err(problem));
        } else if matches!(origin, Origin::Caller(_)) && supervisor != self.me {
            let deadline = self.now + CALL_DEADLINE;
            let ask = Ask::Call(request());
            self.ask_until(supervisor, ask, Task::Forward(origin), deadline);
        } else if self.directory.get(app).is_none() || self.is_contested(app) {
            self.fetch_then(origin, request(), app);
        } else {
            return true;
        }
        false
    }

    /// `app/apply`: to the supervisor; there, a new wish, and an answer when it is safe.
    pub(super) fn apply(&mut self, origin: Origin, apply: Apply) {
        if self.goes_on_here(origin, &apply.spec, || Request::Apply(apply.clone())) {
            self.apply_here(origin, apply);
        }
    }

    /// The same, once all that is known of an app of that name is here.
    pub(super) fn apply_here(&mut self, origin: Origin, apply: Apply) {
        if apply.spec.after.is_empty() {
            return self.apply_ordered(origin, apply);
        }
        let spec = apply.spec.clone();
        self.check_order(origin, &spec, apply.into());
    }

    fn apply_ordered(&mut self, origin: Origin, apply: Apply) {
        let app = AppId::of_name(&apply.spec.name);
        let record = self.directory.get(app);
        let is_settled = record.is_some_and(|it| it.settled == it.wanted.revised);
        let wanted = record.map(|record| &record.wanted);
        let wanted = wanted.filter(|wanted| wanted.spec.is_some());
        if let Err(problem) = check_expected(&apply, wanted) {
            return self.reply(origin, Err(problem));
        }
        let change = match wanted.and_then(|wanted| wanted.spec.as_ref()) {
            None => Change::Created,
            Some(spec) if *spec == *apply.spec => Change::Unchanged,
            Some(_) => Change::Changed,
        };
        let before = wanted.and_then(|wanted| wanted.spec.as_ref());
        let is_rescheduled = before.is_none_or(|spec| spec.schedule != apply.spec.schedule);
        let checked = before.map_or(Ok(()), |spec| check_alike(spec, &apply.spec));
        let checked = checked.and_then(|()| match is_rescheduled {
            true => self.check_not_past(&apply.spec),
            false => Ok(()),
        });
        if let Err(problem) = checked {
            return self.reply(origin, Err(problem));
        }
        let name = apply.spec.name.clone();
        match change {
            Change::Created if term_ms(&apply.spec).is_some() => {
                return self.seat_new_app(origin, Making::Apply(apply));
            }
            Change::Created => {
                let born = self.tick();
                return self.apply_seated(origin, apply, born, None);
            }
            Change::Unchanged => {}
            Change::Changed => {
                let how = (is_settled, apply.roll_back);
                let wall = self.wall();
                self.wish(app, |wanted, version| {
                    supervisor::revise(wanted, *apply.spec, version, how);
                    if is_rescheduled {
                        wanted.scheduled = wall;
                    }
                });
            }
        }
        self.await_applied(origin, app, name, change);
    }

    fn apply_seated(
        &mut self,
        origin: Origin,
        apply: Apply,
        born: Version,
        tenancy: Option<Tenancy>,
    ) {
        let name = apply.spec.name.clone();
        let app = AppId::of_name(&name);
        if let Err(problem) = self.create(app, *apply.spec, born, tenancy) {
            return self.reply(origin, Err(problem));
        }
        self.save_record(app);
        self.await_applied(origin, app, name, Change::Created);
    }

    fn await_applied(&mut self, origin: Origin, app: AppId, name: String, change: Change) {
        let version = self.directory.get(app).map(|it| it.wanted.version);
        let applied = Applied {
            app,
            name,
            change,
            version: version.unwrap_or_default(),
        };
        self.waiters.push(Waiter {
            origin,
            app,
            until: WaitFor::Applied(Box::new(applied)),
            deadline: self.now + CALL_DEADLINE,
        });
        self.check_waiters(app);
    }

    fn check_name_is_free(&self, app: AppId, name: &str) -> Result<(), Problem> {
        let Some(record) = self.directory.get(app) else {
            return Ok(());
        };
        if record.wanted.spec.is_some() {
            return Err(name_taken(name));
        }
        if record.objects.iter().any(|it| self.is_reachable(it.node)) {
            return Err(conflict(alloc::format!(
                "the former app {name} is still being removed"
            ))
            .remedy("try again in a moment"));
        }
        Ok(())
    }

    /// The program's name and a little chance, so that it can be told from its like.
    fn made_up_name(&mut self, spec: &AppSpec) -> String {
        let program = spec.program.arguments.first().map_or("app", String::as_str);
        let file = program.rsplit('/').next().unwrap_or(program);
        let letters = |c: char| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '-'
            }
        };
        let base: String = file.chars().map(letters).take(24).collect();
        let base = base.trim_matches('-');
        let base = if base.is_empty() { "app" } else { base };
        alloc::format!("{base}-{:08x}", self.rng.random::<u32>())
    }

    /// A call about an app whose record is here.
    pub(super) fn with_record(&mut self, origin: Origin, request: Request, target: &Target) {
        let Some(record) = self.directory.get(target.app).cloned() else {
            return self.reply(origin, Err(no_such_app(&target.name)));
        };
        let objects = match select(&record, target) {
            Ok(objects) => objects,
            Err(problem) => return self.reply(origin, Err(problem)),
        };
        let whole = target.part == Part::Whole;
        let all = whole || objects.len() == record.objects.len();
        #[expect(
            clippy::wildcard_enum_match_arm,
            reason = "only calls about apps come here"
        )]
        match request {
            Request::Inspect(_) => {
                let result = self.inspection(&record, objects);
                self.reply(origin, result);
            }
            Request::Locate(_) => {
                let objects = self.best_first(objects);
                let located = Located {
                    app: record.app,
                    name: target.name.clone(),
                    objects,
                };
                self.reply(origin, Ok(Response::Locate(located)));
            }
            Request::Explain(_) => {
                let explanation = self.explanation(&record, &target.name);
                self.reply(origin, Ok(Response::Explain(explanation)));
            }
            Request::Resolve(_) => {
                let resolved = self.resolution(&record, &objects);
                self.reply(origin, Ok(Response::Resolve(resolved)));
            }
            Request::Kill(kill) => self.kill(origin, &objects, kill.signal),
            Request::StopApp(stop) => self.stop_app(origin, target.app, &objects, whole, &stop),
            Request::StartApp(_) | Request::Scale(_) if target.part != Part::Whole => {
                let verb = match request {
                    Request::Scale(_) => "scaled",
                    _ => "started",
                };
                self.reply(origin, Err(only_whole(verb, &record)));
            }
            Request::StartApp(_) => self.start_app(origin, &record),
            Request::Remove(remove) => {
                self.remove_app(origin, &record, objects, all, remove.force);
            }
            Request::Scale(scale) => self.scale(origin, &record, scale.replicas),
            Request::Wait(_) => {
                let ids = match target.part {
                    Part::Whole => Vec::new(),
                    Part::Slot(_) | Part::Object(_) => ids(&objects),
                };
                let until = WaitFor::Ended {
                    objects: ids,
                    target: target.text(),
                };
                self.waiters.push(Waiter {
                    origin,
                    app: target.app,
                    until,
                    deadline: self.now + WAIT_TERM,
                });
                self.check_waiters(target.app);
            }
            _ => {}
        }
    }

    /// What can be reached and runs comes first. What is lost with its node is told only where
    /// nothing has taken its place.
    fn best_first(&self, mut objects: Vec<ObjectFacts>) -> Vec<ObjectFacts> {
        let serves = |it: &ObjectFacts| it.phase.is_alive() && self.is_reachable(it.node);
        let served: BTreeSet<u32> = objects
            .iter()
            .filter(|it| serves(it))
            .map(|it| it.index)
            .collect();
        objects.retain(|it| self.is_reachable(it.node) || !served.contains(&it.index));
        objects.sort_by_key(|it| (!serves(it), !it.phase.is_alive(), it.index, it.created));
        objects
    }

    fn inspection(
        &self,
        record: &AppRecord,
        objects: Vec<ObjectFacts>,
    ) -> Result<Response, Problem> {
        let Some(spec) = record.wanted.spec.clone() else {
            return Err(Problem::new(ProblemCode::NotFound, "the app was removed"));
        };
        let mut guardians = directory::guardians(record.app, self.lasting());
        guardians.sort_by_key(|node| *node != self.me);
        let update = self.update_of(record);
        let previous = record.wanted.previous.as_ref();
        Ok(Response::Inspect(Inspection {
            app: record.app,
            spec,
            version: record.wanted.version,
            previous: previous.map(|previous| Box::new(previous.spec.clone())),
            update: update.map(|(updated, failed)| Update { updated, failed }),
            undone: record.wanted.undone.clone(),
            stopped: record.wanted.stopped,
            objects,
            guardians: guardians
                .into_iter()
                .map(|node| self.measurement.name(node))
                .collect(),
            trouble: self.trouble(record),
            waiting: self.waiting(record, Inquiry::summary),
            next: self.next_run(record),
            runs: Self::runs_of(record),
        }))
    }

    fn explanation(&self, record: &AppRecord, name: &str) -> Explanation {
        let rank = directory::rank(record.app, self.lasting());
        let heirs = rank.iter().filter(|node| **node != self.me);
        let heirs: Vec<String> = heirs
            .take(GUARDIANS - 1)
            .map(|node| self.measurement.name(*node))
            .collect();
        let mut supervisor = self.measurement.name(self.me);
        if !heirs.is_empty() {
            supervisor.push_str(&alloc::format!(" (next in line: {})", heirs.join(", ")));
        }
        Explanation {
            name: name.to_string(),
            supervisor,
            decisions: record.decisions.clone(),
            trouble: self.trouble(record),
            waiting: self.waiting(record, Inquiry::details),
            next: self.next_run(record),
            runs: Self::runs_of(record),
        }
    }

    fn resolution(&self, record: &AppRecord, objects: &[ObjectFacts]) -> Resolved {
        let ports = record
            .wanted
            .spec
            .as_ref()
            .map(|spec| spec.ports.clone())
            .unwrap_or_default();
        let endpoint = |it: &ObjectFacts| {
            let facts = self.measurement.get(it.node)?;
            let first = facts.addresses.first()?;
            let address = first
                .rsplit_once(':')
                .map_or(first.as_str(), |(host, _)| host);
            Some(Endpoint {
                object: it.object,
                index: it.index,
                node: facts.name.clone(),
                address: address.trim_matches(['[', ']']).to_string(),
                ports: ports.clone(),
            })
        };
        let serving = |it: &&ObjectFacts| it.serves() && self.is_reachable(it.node);
        Resolved {
            endpoints: objects
                .iter()
                .filter(serving)
                .filter_map(endpoint)
                .collect(),
        }
    }

    fn kill(&mut self, origin: Origin, objects: &[ObjectFacts], signal: u8) {
        let alive = objects.iter().filter(|it| it.phase.is_alive());
        let (living, lost): (Vec<_>, Vec<_>) = alive
            .map(|it| (it.object, it.node))
            .partition(|(_, node)| self.is_reachable(*node));
        if living.is_empty() {
            let problem = match lost.first() {
                Some((_, node)) => self.unreachable_node(*node),
                None => conflict("nothing of it is running".to_string()).remedy("welkin ps -a"),
            };
            return self.reply(origin, Err(problem));
        }
        let number = self.next_task();
        let objects = living.iter().map(|(object, _)| *object).collect();
        let effect = Effect {
            origin,
            waiting: living.len(),
            objects,
            problem: None,
        };
        self.effects.insert(number, effect);
        for (object, node) in living {
            self.ask(
                node,
                Ask::SignalObject { object, signal },
                Task::Effect(number),
            );
        }
    }

    pub(crate) fn effect_answered(&mut self, number: u64, answer: Result<Answer, Problem>) {
        let Some(effect) = self.effects.get_mut(&number) else {
            return;
        };
        effect.waiting = effect.waiting.saturating_sub(1);
        if let Err(problem) = answer {
            effect.problem.get_or_insert(problem);
        }
        if effect.waiting == 0
            && let Some(effect) = self.effects.remove(&number)
        {
            let done = Ok(Response::Kill(Affected {
                objects: effect.objects,
            }));
            self.reply(effect.origin, effect.problem.map_or(done, Err));
        }
    }

    fn stop_app(
        &mut self,
        origin: Origin,
        app: AppId,
        objects: &[ObjectFacts],
        whole: bool,
        stop: &StopApp,
    ) {
        let living: Vec<(ObjectId, NodeId)> = objects
            .iter()
            .filter(|it| it.phase.is_alive())
            .map(|it| (it.object, it.node))
            .collect();
        for (object, node) in &living {
            if self.is_reachable(*node) {
                self.ask_host(app, (*object, *node), Wish::Stop, stop.grace_ms);
            }
        }
        let until = WaitFor::Stopped(living.iter().map(|(object, _)| *object).collect());
        let deadline = self.now + CALL_DEADLINE + self.grace_of(origin, app, stop.grace_ms);
        self.waiters.push(Waiter {
            origin,
            app,
            until,
            deadline,
        });
        if whole {
            self.wish(app, |wanted, _| wanted.stopped = true);
        } else if self.restart_of(app) != Restart::Always {
            let slots: Vec<u32> = objects.iter().map(|it| it.index).collect();
            self.wish(app, |wanted, _| wanted.rested.extend(slots));
        }
        self.check_waiters(app);
    }

    /// How long objects of an app have to end by themselves; whoever handed the call on is told.
    fn grace_of(&mut self, origin: Origin, app: AppId, asked_ms: Option<u32>) -> Duration {
        let wanted = self.directory.get(app).map(|record| &record.wanted);
        let spec = wanted.and_then(|wanted| wanted.spec.as_ref());
        let own_ms = spec.map_or(0, |spec| spec.stop.grace_ms);
        let by_ms = asked_ms.unwrap_or(own_ms);
        if let Origin::Peer { node, question } = origin
            && by_ms > 0
        {
            let answer = Box::new(Ok(Answer::Later { by_ms }));
            self.send_now(node, Message::Answer { question, answer });
        }
        Duration::from_millis(by_ms.into()).min(GRACE_MAX)
    }

    fn start_app(&mut self, origin: Origin, record: &AppRecord) {
        let app = record.app;
        let spec = record.wanted.spec.as_ref();
        if spec.is_some_and(|spec| spec.schedule.is_some()) {
            return self.start_job(origin, record);
        }
        // What cannot be started where it is runs elsewhere; if it comes back, it is surplus.
        let mut left_behind = BTreeSet::new();
        for it in &record.objects {
            match (self.reach(it.node), it.phase.is_alive()) {
                // What it ran is older: another one takes its place.
                (Reach::Open, false) if it.revised != record.wanted.revised => {}
                (Reach::Open, false) => {
                    self.ask_host(app, (it.object, it.node), Wish::Start, None);
                }
                (Reach::Open | Reach::Draining, true) => {}
                (Reach::Draining, false) | (Reach::Lost | Reach::Removed, _) => {
                    left_behind.insert(it.object);
                }
            }
        }
        if let Some(record) = self.directory.get_mut(app) {
            record
                .objects
                .retain(|it| !left_behind.contains(&it.object));
        }
        let until = WaitFor::Started(StartedBy::Start);
        let deadline = self.now + RUN_DEADLINE;
        self.waiters.push(Waiter {
            origin,
            app,
            until,
            deadline,
        });
        self.wish(app, |wanted, _| {
            wanted.stopped = false;
            wanted.rested.clear();
        });
    }

    fn remove_app(
        &mut self,
        origin: Origin,
        record: &AppRecord,
        objects: Vec<ObjectFacts>,
        whole: bool,
        force: bool,
    ) {
        let name = record
            .wanted
            .spec
            .as_ref()
            .map_or_else(String::new, |spec| spec.name.clone());
        if !whole {
            let problem = Problem::new(
                ProblemCode::Invalid,
                "only a whole app can be removed; it would start this object again",
            )
            .remedy(alloc::format!("welkin rm {name}, or welkin scale {name}=N"));
            return self.reply(origin, Err(problem));
        }
        let runs = objects
            .iter()
            .any(|it| it.phase.is_alive() && self.is_reachable(it.node));
        if runs && !force {
            let problem = conflict(alloc::format!("{name} is running")).remedy(alloc::format!(
                "welkin stop {name} first, or welkin rm -f {name}"
            ));
            return self.reply(origin, Err(problem));
        }
        let until = WaitFor::Removed(ids(&objects));
        let deadline = self.now + CALL_DEADLINE + self.grace_of(origin, record.app, None);
        self.waiters.push(Waiter {
            origin,
            app: record.app,
            until,
            deadline,
        });
        self.forget_app(record.app);
    }

    fn scale(&mut self, origin: Origin, record: &AppRecord, replicas: u32) {
        if replicas > REPLICAS_MAX {
            let detail = alloc::format!("an app has at most {REPLICAS_MAX} objects");
            return self.reply(origin, Err(Problem::new(ProblemCode::Invalid, detail)));
        }
        let app = record.app;
        let spec = record.wanted.spec.as_ref();
        if let Some(spec) = spec.filter(|spec| spec.schedule.is_some()) {
            let mut spec = spec.clone();
            spec.replicas = replicas;
            if let Err(problem) = check_spec(&spec) {
                return self.reply(origin, Err(problem));
            }
        }
        let until = WaitFor::Started(StartedBy::Scale);
        let deadline = self.now + RUN_DEADLINE;
        self.waiters.push(Waiter {
            origin,
            app,
            until,
            deadline,
        });
        self.wish(app, |wanted, version| {
            if let Some(mut spec) = wanted.spec.clone() {
                spec.replicas = replicas;
                supervisor::revise(wanted, spec, version, (false, wanted.rolls_back));
            }
        });
    }
}

/// The refusal of a `run` whose name another app has.
pub(crate) fn name_taken(name: &str) -> Problem {
    conflict(alloc::format!("an app called {name} exists already")).remedy(alloc::format!(
        "welkin rm -f {name}, or choose another --name"
    ))
}

/// Refuses a change of what is settled when an app is made.
fn check_alike(before: &AppSpec, after: &AppSpec) -> Result<(), Problem> {
    let detail = if before.on_partition != after.on_partition {
        "what an app does in a partition is settled when it is made"
    } else if before.schedule.is_some() != after.schedule.is_some() {
        "whether an app has a schedule is settled when it is made"
    } else {
        return Ok(());
    };
    let name = &after.name;
    let remedy = alloc::format!("welkin rm -f {name}, then the same again");
    Err(conflict(detail.to_string()).remedy(remedy))
}

/// Refuses a change that was made for another app than there is.
fn check_expected(apply: &Apply, wanted: Option<&Wanted>) -> Result<(), Problem> {
    let name = &apply.spec.name;
    let found = wanted.map(|wanted| wanted.version);
    let detail = match (apply.expected, found) {
        (Expected::Anything, _) | (Expected::Absent, None) => return Ok(()),
        (Expected::Version(version), Some(found)) if version == found => return Ok(()),
        (Expected::Absent, Some(_)) => alloc::format!("somebody else has made {name} meanwhile"),
        (Expected::Version(_), Some(_)) => {
            alloc::format!("somebody else has changed {name} meanwhile")
        }
        (Expected::Version(_), None) => {
            alloc::format!("somebody else has removed {name} meanwhile")
        }
    };
    Err(conflict(detail).remedy(alloc::format!(
        "welkin inspect {name}; then the same again, if it still holds"
    )))
}

/// The refusal of a call about a part of an app that can only be about all of it.
fn only_whole(verb: &str, record: &AppRecord) -> Problem {
    let spec = record.wanted.spec.as_ref();
    let name = spec.map_or("it", |spec| &spec.name);
    let problem = Problem::new(
        ProblemCode::Invalid,
        alloc::format!("only a whole app can be {verb}"),
    );
    problem.remedy(match verb {
        "scaled" => alloc::format!("welkin scale {name}=N"),
        _ => alloc::format!("welkin start {name}"),
    })
}

fn ids(objects: &[ObjectFacts]) -> Vec<ObjectId> {
    objects.iter().map(|it| it.object).collect()
}

/// The objects that a target means.
fn select(record: &AppRecord, target: &Target) -> Result<Vec<ObjectFacts>, Problem> {
    let fits = |it: &&ObjectFacts| match target.part {
        Part::Whole => true,
        Part::Slot(index) => it.index == index,
        Part::Object(object) => it.object == object,
    };
    let objects: Vec<ObjectFacts> = record.objects.iter().filter(fits).cloned().collect();
    if objects.is_empty() && target.part != Part::Whole {
        let name = &target.name;
        let problem = match target.part {
            Part::Slot(index) => Problem::not_found("object", &alloc::format!("{name}/{index}")),
            Part::Whole | Part::Object(_) => Problem::not_found("object of that id, now", name),
        };
        return Err(problem.remedy(alloc::format!("welkin ps {name}")));
    }
    Ok(objects)
}
