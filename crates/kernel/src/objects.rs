//! The table of the objects on this node, and their life.
//!
//! What it is not: it places nothing and knows no other node. It owns the facts of its objects; all
//! others hold hints.
//!
//! # States
//!
//! ```text
//!            launch                 runs               ends, policy says no more
//! (nothing) ───────► starting ───────────► running ──────────────────────────────► ended
//!                        ▲  could not start    │ ends, policy says again              ▲
//!                        │ ◄───────────────────┤                                     │
//!                        └────── waiting ◄─────┘        stop ──► stopping ────────────┘
//!                          back-off over                         (ended and *halted*)
//! ```
//!
//! `failed` is `ended` for a program that could never be started. A stopped object that is to be
//! removed leaves the table when it has ended; its logs and scratch files go with it.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, VecDeque};
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use wire::call::{Problem, ProblemCode};
use wire::driver::{DriverReport, Launch};
use wire::fact::{Exit, ExitReason, ObjectFacts, Phase};
use wire::health::HealthState;
use wire::id::{NodeId, ObjectId, UnixMillis};
use wire::peer::{HostedObject, Placement};
use wire::spec::{AppSpec, Restart};
use wire::tenancy::Title;

use crate::instant::Instant;
use crate::limits::{BACKOFF_MAX, BACKOFF_MIN, BACKOFF_RESET, LOG_BYTES_MAX, OBJECTS_MAX};

/// The objects of one node.
#[derive(Debug, Default)]
pub(crate) struct Objects {
    table: BTreeMap<ObjectId, Entry>,
    /// Objects whose back-off ends, soonest first.
    waiting: BTreeMap<(Instant, ObjectId), ()>,
    /// Objects whose programs may run so long, soonest first.
    deadlines: BTreeMap<(Instant, ObjectId), ()>,
    actions: VecDeque<Action>,
}

#[derive(Debug)]
struct Entry {
    hosted: HostedObject,
    /// When its program last started, for the reset of the back-off; absent when it has not, or
    /// did so before this node's daemon.
    running_since: Option<Instant>,
    /// It was asked to end.
    stopping: bool,
    /// It ends with its node and runs again with it.
    suspended: bool,
    /// It was asked to end for this reason, whatever its program returns: its health, its deadline.
    fate: Option<ExitReason>,
}

/// What the hub has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Start its program.
    Launch(ObjectId),
    /// Ask its program to end.
    Stop(ObjectId, u32),
    /// Its facts changed; `durable` when they must survive a power cut.
    Changed { object: ObjectId, durable: bool },
    /// It has become healthy or unhealthy.
    HealthChanged(ObjectId),
    /// It has run too long, and is asked to end.
    Overdue(ObjectId),
    /// What nobody is told of by itself changed, and must survive a power cut.
    Marked(ObjectId),
    /// It holds no resources any more.
    Freed(ObjectId),
    /// It left the table.
    Removed(Box<HostedObject>),
}

impl Objects {
    pub(crate) fn get(&self, object: ObjectId) -> Option<&HostedObject> {
        self.table.get(&object).map(|entry| &entry.hosted)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &HostedObject> {
        self.table.values().map(|entry| &entry.hosted)
    }

    pub(crate) fn living(&self) -> impl Iterator<Item = &HostedObject> {
        self.iter().filter(|hosted| hosted.facts.phase.is_alive())
    }

    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        let first = |due: &BTreeMap<(Instant, ObjectId), ()>| due.keys().next().map(|(at, _)| *at);
        let both = [first(&self.waiting), first(&self.deadlines)];
        both.into_iter().flatten().min()
    }

    /// Back from the disk. Call [`Objects::resume`] once it is known what became of it. Not every
    /// change was made durable before it was told, so revisions go on at `revision_min`, above all
    /// that a former life of the node can have told.
    pub(crate) fn restore(&mut self, mut hosted: HostedObject, revision_min: u64) {
        hosted.facts.revision = hosted.facts.revision.max(revision_min);
        let entry = Entry {
            hosted,
            running_since: None,
            stopping: false,
            suspended: false,
            fate: None,
        };
        self.table.insert(entry.hosted.facts.object, entry);
    }

    /// After a start of the node: what the shim says, or nothing when there is no shim.
    pub(crate) fn resume(
        &mut self,
        now: Instant,
        wall: UnixMillis,
        object: ObjectId,
        survivor: Option<&Option<DriverReport>>,
    ) {
        let Some(entry) = self.table.get_mut(&object) else {
            return;
        };
        // A start that was not durable when the node ended: its driver had been told already.
        let was_started = matches!(survivor, Some(None | Some(DriverReport::Running { .. })));
        match entry.hosted.facts.phase {
            Phase::Ended | Phase::Failed | Phase::Waiting if was_started => {
                let facts = &mut entry.hosted.facts;
                facts.phase = Phase::Starting;
                facts.restarts = facts.restarts.saturating_add(1);
                facts.revision += 1;
                facts.halted = false;
                self.actions.push_back(Action::Changed {
                    object,
                    durable: true,
                });
            }
            Phase::Ended | Phase::Failed => return,
            // Its last end is known and counted; only the time of its next start is not.
            Phase::Waiting => {
                entry.hosted.suspended = false;
                let due = now + backoff(entry.hosted.failures.saturating_sub(1));
                self.waiting.insert((due, object), ());
                return;
            }
            Phase::Starting | Phase::Running | Phase::Stopping => {}
        }
        entry.stopping = entry.hosted.facts.phase == Phase::Stopping;
        if entry.stopping && survivor.is_some() {
            // Whether its driver was told before the node ended is not known.
            let spec = entry.hosted.wanted.spec.as_ref();
            let grace_ms = spec.map_or(0, |spec| spec.stop.grace_ms);
            self.actions.push_back(Action::Stop(object, grace_ms));
        }
        match survivor {
            Some(Some(report)) => {
                self.report(now, object, report.clone());
                let Some(entry) = self.table.get_mut(&object) else {
                    return;
                };
                entry.running_since = None;
                // Only the wall clock knows how long it has run.
                let started = entry.hosted.facts.started.unwrap_or(wall);
                let ran = Duration::from_millis(wall.0.saturating_sub(started.0));
                self.set_deadline(now, object, ran);
            }
            Some(None) => {}
            None => {
                // Its node ended, which is no failure of the program.
                if let Some(entry) = self.table.get_mut(&object) {
                    entry.hosted.failures = 0;
                }
                let exit = Exit {
                    reason: ExitReason::Lost,
                    at: wall,
                    asked: false,
                };
                self.report(now, object, DriverReport::Exited(exit));
            }
        }
    }

    /// A new object.
    ///
    /// # Errors
    /// [`Problem`] when it cannot be; nothing has changed.
    pub(crate) fn launch(
        &mut self,
        node: NodeId,
        wall: UnixMillis,
        placement: Placement,
    ) -> Result<(), Problem> {
        let Some(spec) = &placement.wanted.spec else {
            return Err(Problem::new(ProblemCode::Invalid, "the app was removed"));
        };
        if self.table.contains_key(&placement.object) {
            return Err(Problem::new(
                ProblemCode::Conflict,
                "the object exists already",
            ));
        }
        if self.table.len() >= OBJECTS_MAX {
            let detail = format!("the node has {OBJECTS_MAX} objects, which is its limit");
            return Err(Problem::new(ProblemCode::Busy, detail));
        }
        let facts = ObjectFacts {
            object: placement.object,
            app: wire::id::AppId::of_name(&spec.name),
            app_name: spec.name.clone(),
            index: placement.index,
            node,
            epoch: placement.epoch,
            revision: 1,
            phase: Phase::Starting,
            restarts: 0,
            created: wall,
            started: None,
            last_exit: None,
            pid: None,
            protections_off: Vec::new(),
            halted: false,
            revised: placement.wanted.revised,
            restart: spec.restart,
            health: spec.health.as_ref().map(|_| HealthState::Starting),
            run: placement.run,
        };
        let object = placement.object;
        let hosted = HostedObject {
            facts,
            wanted: placement.wanted,
            failures: 0,
            remove_when_ended: false,
            halts: false,
            suspended: false,
            title: placement.title,
        };
        self.table.insert(
            object,
            Entry {
                hosted,
                running_since: None,
                stopping: false,
                suspended: false,
                fate: None,
            },
        );
        self.actions.push_back(Action::Launch(object));
        self.actions.push_back(Action::Changed {
            object,
            durable: true,
        });
        Ok(())
    }

    /// What its driver says.
    pub(crate) fn report(&mut self, now: Instant, object: ObjectId, report: DriverReport) {
        let Some(entry) = self.table.get_mut(&object) else {
            return;
        };
        let facts = &mut entry.hosted.facts;
        facts.revision += 1;
        match report {
            DriverReport::Running {
                pid,
                started,
                protections_off,
            } => {
                facts.phase = if entry.stopping {
                    Phase::Stopping
                } else {
                    Phase::Running
                };
                facts.pid = Some(pid);
                facts.started = Some(started);
                facts.protections_off = protections_off;
                entry.running_since = Some(now);
                self.actions.push_back(Action::Changed {
                    object,
                    durable: false,
                });
                self.set_deadline(now, object, Duration::ZERO);
            }
            DriverReport::Exited(exit) => self.exited(now, object, exit),
        }
    }

    /// The program of an object runs, and has done so for a while.
    fn set_deadline(&mut self, now: Instant, object: ObjectId, ran: Duration) {
        self.deadlines.retain(|(_, it), ()| *it != object);
        let entry = self.table.get(&object);
        let running = entry.filter(|it| it.hosted.facts.phase == Phase::Running);
        let spec = running.and_then(|it| it.hosted.wanted.spec.as_ref());
        if let Some(deadline_ms) = spec.and_then(|spec| spec.deadline_ms) {
            let left = Duration::from_millis(deadline_ms).saturating_sub(ran);
            self.deadlines.insert((now + left, object), ());
        }
    }

    /// Its program has run too long: it ends, and has failed.
    fn overdue(&mut self, now: Instant, object: ObjectId) {
        let Some(entry) = self.table.get_mut(&object) else {
            return;
        };
        if entry.hosted.facts.phase != Phase::Running || entry.suspended {
            return;
        }
        // No run that takes back the back-off, or the retries would have no end.
        entry.running_since = Some(now);
        entry.fate.get_or_insert(ExitReason::Overdue);
        let spec = entry.hosted.wanted.spec.as_ref();
        let grace_ms = spec.map_or(0, |spec| spec.stop.grace_ms);
        self.actions.push_back(Action::Overdue(object));
        self.actions.push_back(Action::Stop(object, grace_ms));
    }

    /// Its probes say so. An object that is unhealthy ends, if it would be started again after a
    /// failure; if not, it is left as it is.
    pub(crate) fn set_health(&mut self, now: Instant, object: ObjectId, state: HealthState) {
        let running = self
            .table
            .get_mut(&object)
            .filter(|entry| entry.hosted.facts.phase == Phase::Running && !entry.suspended);
        let Some(entry) = running else {
            return;
        };
        let facts = &mut entry.hosted.facts;
        let before = facts.health.replace(state.clone());
        facts.revision += 1;
        self.actions.push_back(Action::HealthChanged(object));
        if let HealthState::Unhealthy { why } = state
            && starts_again(facts.restart, entry.hosted.failures, true)
        {
            if before != Some(HealthState::Healthy) {
                // A run in which it never worked is none that takes back the back-off.
                entry.running_since = Some(now);
            }
            entry.fate.get_or_insert(ExitReason::Unhealthy(why));
            let spec = entry.hosted.wanted.spec.as_ref();
            let grace_ms = spec.map_or(0, |spec| spec.stop.grace_ms);
            self.actions.push_back(Action::Stop(object, grace_ms));
        }
    }

    fn exited(&mut self, now: Instant, object: ObjectId, mut exit: Exit) {
        let Some(entry) = self.table.get_mut(&object) else {
            return;
        };
        if let Some(reason) = entry.fate.take()
            && !entry.stopping
            && !entry.suspended
        {
            exit.reason = reason;
            exit.asked = false;
        }
        self.deadlines.retain(|(_, it), ()| *it != object);
        // What its next run will be is not known.
        let health = &mut entry.hosted.facts.health;
        *health = health.take().map(|_| HealthState::Starting);
        let ran_by_wall = |started: UnixMillis| exit.at.0.saturating_sub(started.0);
        let facts = &entry.hosted.facts;
        let ran = match (entry.running_since.take(), facts.phase) {
            (Some(since), _) => now.since(since),
            // It started before this node's daemon did: only the wall clock knows when.
            (None, Phase::Running | Phase::Stopping) => {
                Duration::from_millis(facts.started.map_or(0, ran_by_wall))
            }
            (None, Phase::Starting | Phase::Waiting | Phase::Ended | Phase::Failed) => {
                Duration::ZERO
            }
        };
        // A former life of this node asked it to end, and could not write down why. Whoever wants it
        // ended asks again.
        let was_cut_short = exit.asked && !entry.stopping;
        if ran >= BACKOFF_RESET || was_cut_short {
            entry.hosted.failures = 0;
        }
        let restart = entry.hosted.facts.restart;
        let has_failed = !exit.reason.is_success();
        let again = !entry.stopping
            && ((was_cut_short && restart != Restart::No)
                || starts_again(restart, entry.hosted.failures, has_failed));
        if entry.hosted.suspended {
            let facts = &mut entry.hosted.facts;
            facts.phase = Phase::Waiting;
            facts.pid = None;
            facts.last_exit = Some(exit);
            if !entry.suspended {
                // That was in a former life of the node: this one runs it again.
                entry.hosted.suspended = false;
                self.waiting.insert((now + backoff(0), object), ());
            }
            self.actions.push_back(Action::Changed {
                object,
                durable: true,
            });
            return;
        }
        let facts = &mut entry.hosted.facts;
        let never_started = matches!(exit.reason, ExitReason::NotStarted { .. });
        facts.pid = None;
        facts.last_exit = Some(exit);
        facts.halted = entry.stopping && entry.hosted.halts;
        if again {
            facts.phase = Phase::Waiting;
            let due = now + backoff(entry.hosted.failures);
            entry.hosted.failures = entry.hosted.failures.saturating_add(1);
            self.waiting.insert((due, object), ());
            self.actions.push_back(Action::Changed {
                object,
                durable: true,
            });
        } else {
            facts.phase = if never_started {
                Phase::Failed
            } else {
                Phase::Ended
            };
            self.ended(object);
        }
    }

    fn ended(&mut self, object: ObjectId) {
        self.actions.push_back(Action::Freed(object));
        let remove = self
            .table
            .get(&object)
            .is_some_and(|it| it.hosted.remove_when_ended);
        if !remove {
            self.actions.push_back(Action::Changed {
                object,
                durable: true,
            });
        } else if let Some(entry) = self.table.remove(&object) {
            self.actions
                .push_back(Action::Removed(Box::new(entry.hosted)));
        }
    }

    /// Somebody asks the object to end, and to be removed afterwards. Asking again changes only
    /// what is stricter.
    ///
    /// # Errors
    /// [`Problem`] when it is not here.
    pub(crate) fn stop(
        &mut self,
        object: ObjectId,
        grace_ms: Option<u32>,
        remove: bool,
    ) -> Result<(), Problem> {
        if let Some(entry) = self.table.get_mut(&object) {
            entry.hosted.halts = true;
        }
        self.end(object, grace_ms, remove)
    }

    /// The same without anybody's wish that it may run again: it ends with its node.
    ///
    /// # Errors
    /// [`Problem`] when it is not here.
    pub(crate) fn end(
        &mut self,
        object: ObjectId,
        grace_ms: Option<u32>,
        remove: bool,
    ) -> Result<(), Problem> {
        let Some(entry) = self.table.get_mut(&object) else {
            return Err(Problem::not_found("object on this node", &object.short()));
        };
        let was_to_be_removed = entry.hosted.remove_when_ended;
        entry.hosted.remove_when_ended |= remove;
        // Whatever was to run again with its node is not to run again now.
        entry.suspended = false;
        entry.hosted.suspended = false;
        match entry.hosted.facts.phase {
            Phase::Starting | Phase::Running | Phase::Stopping => {
                let spec = entry.hosted.wanted.spec.as_ref();
                let own_ms = spec.map_or(0, |spec| spec.stop.grace_ms);
                let is_news = !entry.stopping;
                entry.stopping = true;
                if is_news || grace_ms.is_some() {
                    self.actions
                        .push_back(Action::Stop(object, grace_ms.unwrap_or(own_ms)));
                }
                if is_news || (remove && !was_to_be_removed) {
                    entry.hosted.facts.phase = Phase::Stopping;
                    entry.hosted.facts.revision += 1;
                    self.actions.push_back(Action::Changed {
                        object,
                        durable: true,
                    });
                }
            }
            Phase::Waiting => {
                self.waiting.retain(|(_, waiting), ()| *waiting != object);
                entry.hosted.facts.phase = Phase::Ended;
                entry.hosted.facts.halted = entry.hosted.halts;
                entry.hosted.facts.revision += 1;
                self.ended(object);
            }
            Phase::Ended | Phase::Failed => {
                if remove && let Some(entry) = self.table.remove(&object) {
                    self.actions
                        .push_back(Action::Removed(Box::new(entry.hosted)));
                }
            }
        }
        Ok(())
    }

    /// The node is being stopped and nobody else can take the object: it ends, and runs again when
    /// the node is back. Says whether there was anything to do.
    pub(crate) fn suspend(&mut self, object: ObjectId) -> bool {
        let Some(entry) = self.table.get_mut(&object) else {
            return false;
        };
        if entry.suspended || !entry.hosted.facts.phase.is_alive() {
            return false;
        }
        entry.suspended = true;
        entry.hosted.suspended = true;
        self.actions.push_back(Action::Marked(object));
        match entry.hosted.facts.phase {
            Phase::Waiting => self.waiting.retain(|(_, waiting), ()| *waiting != object),
            Phase::Starting | Phase::Running | Phase::Stopping => {
                let spec = entry.hosted.wanted.spec.as_ref();
                let grace_ms = spec.map_or(0, |spec| spec.stop.grace_ms);
                self.actions.push_back(Action::Stop(object, grace_ms));
            }
            Phase::Ended | Phase::Failed => {}
        }
        true
    }

    /// Whether it has ended with its node.
    pub(crate) fn is_suspended(&self, object: ObjectId) -> bool {
        self.table
            .get(&object)
            .is_some_and(|entry| entry.suspended && entry.hosted.facts.phase == Phase::Waiting)
    }

    /// Another restart policy, from the next end of its program on.
    ///
    /// # Errors
    /// [`Problem`] when it is not here.
    pub(crate) fn set_restart(
        &mut self,
        object: ObjectId,
        restart: Restart,
    ) -> Result<(), Problem> {
        let Some(entry) = self.table.get_mut(&object) else {
            return Err(Problem::not_found("object on this node", &object.short()));
        };
        let facts = &mut entry.hosted.facts;
        if facts.restart != restart {
            facts.restart = restart;
            facts.revision += 1;
            self.actions.push_back(Action::Marked(object));
        }
        Ok(())
    }

    /// Runs a halted object again, with its files. Its resources must be held already.
    ///
    /// # Errors
    /// [`Problem`] when it is not here or has not ended.
    pub(crate) fn start(&mut self, object: ObjectId) -> Result<(), Problem> {
        let Some(entry) = self.table.get_mut(&object) else {
            return Err(Problem::not_found("object on this node", &object.short()));
        };
        if entry.hosted.facts.phase.is_alive() {
            return Err(Problem::new(
                ProblemCode::Conflict,
                "the object has not ended",
            ));
        }
        entry.hosted.failures = 0;
        entry.stopping = false;
        entry.hosted.halts = false;
        self.relaunch(object);
        Ok(())
    }

    fn relaunch(&mut self, object: ObjectId) {
        let Some(entry) = self.table.get_mut(&object) else {
            return;
        };
        let facts = &mut entry.hosted.facts;
        facts.phase = Phase::Starting;
        facts.restarts = facts.restarts.saturating_add(1);
        facts.revision += 1;
        facts.halted = false;
        self.actions.push_back(Action::Launch(object));
        self.actions.push_back(Action::Changed {
            object,
            durable: true,
        });
    }

    /// Back-offs that are over, and programs that have run too long.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((&(at, object), ())) = self.deadlines.first_key_value()
            && at <= now
        {
            self.deadlines.pop_first();
            self.overdue(now, object);
        }
        while let Some((&(at, object), ())) = self.waiting.first_key_value() {
            if at > now {
                return;
            }
            self.waiting.pop_first();
            self.relaunch(object);
        }
    }

    /// Other seats vote on the tenancy of its app now.
    pub(crate) fn set_title(&mut self, object: ObjectId, title: Title) {
        if let Some(entry) = self.table.get_mut(&object) {
            entry.hosted.title = Some(title);
            self.actions.push_back(Action::Marked(object));
        }
    }

    /// What its shim needs to know.
    pub(crate) fn launch_order(&self, object: ObjectId, hidden: &[String]) -> Option<Launch> {
        let hosted = self.get(object)?;
        let spec: &AppSpec = hosted.wanted.spec.as_ref()?;
        Some(Launch {
            object,
            node: hosted.facts.node,
            app_name: hosted.facts.app_name.to_string(),
            index: hosted.facts.index,
            restarts: hosted.facts.restarts,
            program: spec.program.clone(),
            resources: spec.resources,
            stop: spec.stop,
            log_bytes_max: LOG_BYTES_MAX,
            hidden_directories: hidden.to_vec(),
            epoch: hosted.title.as_ref().map_or(0, |_| hosted.facts.epoch),
            tenure: None,
        })
    }
}

/// Whether a program whose end was not asked for is started again after so many failures in a row.
fn starts_again(restart: Restart, failures: u32, has_failed: bool) -> bool {
    match restart {
        Restart::No => false,
        Restart::OnFailure { retries_max } => {
            has_failed && failures < retries_max.unwrap_or(u32::MAX)
        }
        Restart::Always => true,
    }
}

/// Doubles from [`BACKOFF_MIN`] to [`BACKOFF_MAX`].
fn backoff(failures: u32) -> Duration {
    BACKOFF_MIN
        .saturating_mul(1 << failures.min(16))
        .min(BACKOFF_MAX)
}
