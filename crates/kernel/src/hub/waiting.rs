//! Calls that are answered once something is the case: an app has started, has ended, is gone. And
//! callers that go away before that.
//!
//! ```text
//! waiting ──── it is the case ────► answered
//!    │ the time is over
//!    ├──────────────────────────► TimedOut, with what is missing
//!    └── `app/wait`: waiting again, at whoever supervises the app then
//! ```

use alloc::boxed::Box;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use wire::call::{
    Affected, Applied, ObjectExit, Problem, ProblemCode, Request, Response, Started, Wait, Waited,
};
use wire::fact::{ObjectFacts, Phase};
use wire::id::{AppId, NodeId, ObjectId, Version};
use wire::peer::{Answer, AppRecord, Message};

use super::{Kernel, Origin, Task, Wish};
use crate::calls::{Effect, Scatter, name_taken};
use crate::instant::Instant;
use crate::limits::RUN_DEADLINE;
use crate::order::{self, Inquiry};
use crate::supervisor::{BySlot, Trouble, job};
use crate::world::Ending;

/// How many questions are remembered that were abandoned before they came.
const OVERTAKEN_MAX: usize = 256;
/// Pause before `app/wait` is put again to a supervisor that did not answer.
pub(super) const WAIT_PAUSE: Duration = Duration::from_secs(1);

/// A call that is answered once something is the case.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) origin: Origin,
    pub(crate) app: AppId,
    pub(crate) until: WaitFor,
    /// Answered with what is the case then.
    pub(crate) deadline: Instant,
}

/// Which call made an app start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StartedBy {
    /// `app/run`; `attach` is answered before its programs run. The name may be another app's by
    /// then: `born` tells them apart.
    Run { attach: bool, born: Version },
    /// `app/start`.
    Start,
    /// `app/scale`.
    Scale,
}

impl StartedBy {
    fn response(self, started: Started) -> Response {
        match self {
            Self::Run { .. } => Response::Run(started),
            Self::Start => Response::StartApp(started),
            Self::Scale => Response::Scale(started),
        }
    }
}

/// What a call waits for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum WaitFor {
    /// Every slot has an object, that runs, and the record is safe.
    Started(StartedBy),
    /// These objects have ended; all of the app when empty.
    Ended {
        objects: Vec<ObjectId>,
        /// As the caller named them, to ask again with.
        target: String,
    },
    /// These objects have ended, or are gone.
    Stopped(Vec<ObjectId>),
    /// No object is left where it can be reached.
    Removed(Vec<ObjectId>),
    /// The wish is safe. What is answered then is of that wish, whatever was wished since: who
    /// takes another's version for its own would undo the other's change without knowing.
    Applied(Box<Applied>),
}

impl Kernel {
    /// Answers calls that waited for what is now the case.
    pub(crate) fn check_waiters(&mut self, app: AppId) {
        let mut i = 0;
        while i < self.waiters.len() {
            let Some(waiter) = self.waiters.get(i).filter(|waiter| waiter.app == app) else {
                i += 1;
                continue;
            };
            match self.outcome(waiter) {
                None => i += 1,
                Some(result) => {
                    let waiter = self.waiters.swap_remove(i);
                    self.undo_failed_start(&waiter, &result);
                    self.reply(waiter.origin, result);
                }
            }
        }
    }

    fn outcome(&self, waiter: &Waiter) -> Option<Result<Response, Problem>> {
        let record = self.directory.get(waiter.app);
        match &waiter.until {
            WaitFor::Started(by) => self.start_outcome(record?, *by),
            WaitFor::Stopped(objects) => {
                let runs = |it: &ObjectFacts| {
                    objects.contains(&it.object)
                        && it.phase.is_alive()
                        && self.is_reachable(it.node)
                };
                let runs = record?.objects.iter().any(runs);
                let affected = Affected {
                    objects: objects.clone(),
                };
                (!runs && self.is_safe(waiter.app)).then_some(Ok(Response::StopApp(affected)))
            }
            WaitFor::Ended { objects, .. } => {
                // Without a record nothing is known. With no object there is one to come, unless
                // none is wanted.
                let record = record?;
                let objects_of = &record.objects;
                let none_wanted = record
                    .wanted
                    .spec
                    .as_ref()
                    .is_none_or(|spec| spec.replicas == 0 || record.wanted.stopped);
                if objects_of.is_empty() && !none_wanted {
                    return None;
                }
                let wanted = |it: &&ObjectFacts| objects.is_empty() || objects.contains(&it.object);
                let found: Vec<&ObjectFacts> = objects_of.iter().filter(wanted).collect();
                let exit = |it: &&ObjectFacts| {
                    let exit = it.last_exit.clone().filter(|_| !it.phase.is_alive())?;
                    Some(ObjectExit {
                        object: it.object,
                        index: it.index,
                        exit,
                    })
                };
                let exits: Vec<ObjectExit> = found.iter().filter_map(exit).collect();
                let placing = !self.supervision.busy(waiter.app).is_empty();
                (exits.len() == found.len() && !placing)
                    .then_some(Ok(Response::Wait(Waited { exits })))
            }
            WaitFor::Removed(objects) => {
                let left = record?.objects.iter().any(|it| self.is_reachable(it.node));
                (!left && self.is_safe(waiter.app)).then(|| {
                    Ok(Response::Remove(Affected {
                        objects: objects.clone(),
                    }))
                })
            }
            WaitFor::Applied(applied) => {
                let applied = || Ok(Response::Apply((**applied).clone()));
                (record.is_some() && self.is_safe(waiter.app)).then(applied)
            }
        }
    }

    fn start_outcome(
        &self,
        record: &AppRecord,
        by: StartedBy,
    ) -> Option<Result<Response, Problem>> {
        let spec = record.wanted.spec.as_ref()?;
        if let StartedBy::Run { born, .. } = by
            && born != record.wanted.born
        {
            return Some(Err(name_taken(&spec.name)));
        }
        match self.supervision.trouble(record.app) {
            Some(Trouble::NoFit(why)) => {
                let detail = alloc::format!("no node fits {}: {why}", spec.name);
                let problem = Problem::new(ProblemCode::NoFit, detail);
                return Some(Err(problem.remedy(
                    "welkin nodes -o wide shows the room, welkin ps the ports in use",
                )));
            }
            Some(Trouble::TooFew(why)) => {
                let detail = alloc::format!("{} may not start now: {why}", spec.name);
                let problem = Problem::new(ProblemCode::Unreachable, detail);
                return Some(Err(problem.remedy("welkin nodes")));
            }
            Some(Trouble::Held(_)) | None => {}
        }
        if spec.schedule.is_some() && self.is_without_run(record, by) {
            let started = self.started(record, &spec.name, Vec::new());
            return self.is_safe(record.app).then(|| Ok(by.response(started)));
        }
        let attach = matches!(by, StartedBy::Run { attach: true, .. });
        let is_stopped = record.wanted.stopped && by == StartedBy::Scale;
        // Whoever attaches waits; others are told that it does, once the others were asked.
        let waits = order::waits(record) && !attach;
        if is_stopped || waits {
            let is_known = is_stopped || self.order.last(record.app).is_some();
            let mut started = self.started(record, &spec.name, record.objects.clone());
            started.waiting = self.waiting(record, Inquiry::summary);
            return (is_known && self.is_safe(record.app)).then(|| Ok(by.response(started)));
        }
        let mut objects = Vec::new();
        let (by_slot, run) = (BySlot::of(&record.objects), job::current(record));
        for index in 0..spec.replicas {
            let mut slot = by_slot.get(index).iter().filter(|it| it.run == run);
            let has_begun = |phase| !matches!(phase, Phase::Starting | Phase::Stopping);
            let placed = slot.find(|it| {
                let is_asked = self.asked.contains(&(it.object, Wish::Start));
                self.is_reachable(it.node)
                    && (attach || (has_begun(it.phase) && !it.halted && !is_asked))
            })?;
            if matches!(placed.phase, Phase::Failed | Phase::Waiting)
                && let Some(exit) = &placed.last_exit
                && let Some(problem) = Problem::not_started(&exit.reason)
            {
                return Some(Err(problem));
            }
            objects.push((*placed).clone());
        }
        let started = self.started(record, &spec.name, objects);
        self.is_safe(record.app).then(|| Ok(by.response(started)))
    }

    fn started(&self, record: &AppRecord, name: &str, objects: Vec<ObjectFacts>) -> Started {
        Started {
            app: record.app,
            name: name.to_string(),
            objects,
            waiting: None,
            next: self.next_run(record),
        }
    }

    /// Whether whoever made or started an app with a schedule does not wait for a run of it: a new
    /// one waits for its time, and one that was stopped goes on doing so.
    fn is_without_run(&self, record: &AppRecord, by: StartedBy) -> bool {
        let has_none = job::is_over(record, |node| self.reach(node));
        has_none || matches!(by, StartedBy::Run { .. })
    }

    /// A new app that could not be started is not kept.
    fn undo_failed_start(&mut self, waiter: &Waiter, result: &Result<Response, Problem>) {
        if result.is_err() {
            self.undo_run(waiter);
        }
    }

    /// Nobody wants the app that this call made; another of its name stays.
    fn undo_run(&mut self, waiter: &Waiter) {
        let record = self.directory.get(waiter.app);
        if let WaitFor::Started(StartedBy::Run { born, .. }) = waiter.until
            && record.is_some_and(|record| record.wanted.born == born)
        {
            self.forget_app(waiter.app);
        }
    }

    /// Answers calls that have waited too long with what is the case.
    pub(super) fn expire_waiters(&mut self) {
        let mut i = 0;
        while i < self.waiters.len() {
            if self.waiters.get(i).is_none_or(|it| it.deadline > self.now) {
                i += 1;
                continue;
            }
            if self.waits_on(i) {
                i += 1;
                continue;
            }
            let waiter = self.waiters.swap_remove(i);
            if let (WaitFor::Ended { target, .. }, Origin::Caller(_)) =
                (&waiter.until, waiter.origin)
            {
                let target = target.clone();
                self.wait_again(waiter.origin, Request::Wait(Wait { target }), self.now);
                continue;
            }
            let name = self
                .directory
                .get(waiter.app)
                .and_then(|it| it.wanted.spec.as_ref());
            let name = name.map_or_else(|| waiter.app.short(), |spec| spec.name.clone());
            let what = match waiter.until {
                WaitFor::Started(_) => "not all objects have started",
                WaitFor::Ended { .. } | WaitFor::Stopped(_) => "not all objects have ended",
                WaitFor::Removed(_) => "not all objects are gone",
                WaitFor::Applied(_) => "not enough guardians have written it",
            };
            let detail = alloc::format!("{name}: {what} in time; the cloud goes on with it");
            let problem = Problem::new(ProblemCode::TimedOut, detail)
                .remedy(alloc::format!("welkin explain {name}"));
            self.reply(waiter.origin, Err(problem));
        }
    }

    /// Whoever attaches to an app that waits for others waits with it; who handed that on is told.
    fn waits_on(&mut self, waiter: usize) -> bool {
        let Some(waiter) = self.waiters.get_mut(waiter) else {
            return false;
        };
        let attaches = matches!(
            waiter.until,
            WaitFor::Started(StartedBy::Run { attach: true, .. })
        );
        let record = self.directory.get(waiter.app);
        if !attaches || !record.is_some_and(order::waits) {
            return false;
        }
        waiter.deadline = self.now + RUN_DEADLINE;
        if let Origin::Peer { node, question } = waiter.origin {
            let answer = Box::new(Ok(Answer::Later { by_ms: 0 }));
            self.send_now(node, Message::Answer { question, answer });
        }
        true
    }

    /// `app/wait` has no end, but each round of it has one: whoever supervises the app by then is
    /// asked next. So it survives its supervisor.
    pub(crate) fn wait_again(&mut self, origin: Origin, request: Request, at: Instant) {
        self.waits.push((at, origin, Box::new(request)));
    }

    /// Begins the next round of calls that wait.
    pub(super) fn renew_waits(&mut self) {
        let now = self.now;
        let due = self.waits.extract_if(.., |(at, _, _)| *at <= now);
        for (_, origin, request) in due.collect::<Vec<_>>() {
            self.answer_call(origin, *request);
        }
    }

    /// A caller does not wait any more: undo what only it wanted. Says whether it waited for
    /// anything.
    pub(super) fn abandon(&mut self, origin: Origin) -> bool {
        let open = |kernel: &Self| {
            let asked = kernel.scatters.len() + kernel.inquiries.len();
            kernel.waits.len() + asked + kernel.effects.len()
        };
        let before = open(self);
        let is_its = |task: &Task| forwarded_for(task) == Some(origin);
        for (question, node) in self.questions.find(is_its) {
            self.questions.close(question, node);
            self.send(node, Message::Abandon { question });
        }
        self.waits.retain(|(_, other, _)| *other != origin);
        self.scatters
            .retain(|_, scatter| scatter.origin() != origin);
        self.effects.retain(|_, effect| effect.origin() != origin);
        self.inquiries
            .retain(|_, (_, purpose)| !purpose.is_of(origin));
        let never_made = self.abandon_seating(origin);
        let after = open(self);
        let Some(at) = self
            .waiters
            .iter()
            .position(|waiter| waiter.origin == origin)
        else {
            return before != after || never_made;
        };
        let waiter = self.waiters.swap_remove(at);
        self.undo_run(&waiter);
        true
    }

    /// The same for another node. Its word can overtake its question.
    pub(super) fn abandon_question(&mut self, node: NodeId, question: u64) {
        let origin = Origin::Peer { node, question };
        self.pending.close(origin);
        if !self.abandon(origin) {
            if self.overtaken.len() >= OVERTAKEN_MAX {
                self.overtaken.pop_front();
            }
            self.overtaken.push_back((node, question));
        }
    }

    /// This daemon ends, and its next life will not know what it was asked: whoever handed a call
    /// on hears so at once, instead of waiting for the deadline.
    pub(super) fn refuse_open_calls(&mut self, ending: Ending) {
        let mut origins = self
            .questions
            .tasks()
            .filter_map(forwarded_for)
            .collect::<Vec<_>>();
        origins.extend(self.waiters.drain(..).map(|it| it.origin));
        origins.extend(self.waits.drain(..).map(|(_, origin, _)| origin));
        origins.extend(self.scatters.values().map(Scatter::origin));
        origins.extend(self.effects.values().map(Effect::origin));
        origins.extend(self.inquiries.values().filter_map(|(_, it)| it.origin()));
        let name = self.measurement.name(self.me);
        for origin in origins {
            let problem = Problem::new(
                ProblemCode::Unreachable,
                match ending {
                    Ending::Restart => alloc::format!(
                        "node {name} is being restarted; what was asked may still be done"
                    ),
                    Ending::Shutdown => alloc::format!(
                        "the machine of node {name} stops; what was asked may still be done"
                    ),
                },
            );
            self.reply_now(
                origin,
                Err(problem.remedy("look with `welkin ps`, and ask again")),
            );
        }
    }
}

/// Whose call a question is, if it was handed on as it is.
pub(super) fn forwarded_for(task: &Task) -> Option<Origin> {
    match task {
        Task::Forward(origin) | Task::ForwardOrPrefix { origin, .. } => Some(*origin),
        Task::Scatter(_)
        | Task::Effect(_)
        | Task::Reserve(_)
        | Task::Launch(_)
        | Task::Store { .. }
        | Task::Asked { .. }
        | Task::Fetch(_)
        | Task::Confirm { .. }
        | Task::SeatTaken(_)
        | Task::Seat { .. }
        | Task::Renew { .. }
        | Task::Reseated(_)
        | Task::Standing { .. }
        | Task::Forget => None,
    }
}
