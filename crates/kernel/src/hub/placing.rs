//! Where objects go: one [`Placing`] a slot, from the first question to the answer of the host.
//!
//! ```text
//! asking ──── two nodes hold the resources ────► choosing ──► launching ──► placed
//!    │ nobody does                                              │ refused, lost
//!    ▼                                                          ▼
//! asking others ──── nobody is left ────► unplaced (looked for again later)
//! ```

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rand::RngExt;
use wire::call::{Decision, Problem, ProblemCode};
use wire::fact::Phase;
use wire::id::{AppId, NodeId, ObjectId, Version};
use wire::peer::{Answer, Ask, ObjectReport, Placement};
use wire::spec::AppSpec;

use super::term_ms;
use super::{Kernel, Task, guarding};
use crate::limits::DECISIONS_MAX;
use crate::placement::{self, Candidate, Fit, Offer};
use crate::supervisor::{Trouble, job};

/// How many nodes that are full by hearsay are asked before the answer is that no node fits.
const SECOND_CHANCES_MAX: usize = 8;

/// A slot on its way to a place.
#[derive(Debug)]
pub(crate) struct Placing {
    app: AppId,
    index: u32,
    object: ObjectId,
    /// Leases that were asked for, by node; an answer is awaited from those in `asked`.
    leases: BTreeMap<NodeId, u64>,
    asked: BTreeSet<NodeId>,
    offers: Vec<Offer>,
    /// Why nodes that were asked did not take it.
    refused: BTreeMap<NodeId, String>,
    reasons: Vec<String>,
    /// A node that would do holds the room for somebody else, for a moment.
    is_contended: bool,
    /// Nodes that were asked although hearsay says that they are full.
    second_chances: usize,
    /// Which app of that name it was started for.
    born: Version,
    /// And which change of its specification: what was reserved is for that one.
    revised: Version,
    /// And which of its runs, if it has a schedule.
    run: u64,
}

impl Kernel {
    /// Begins to look for a place.
    pub(super) fn place(&mut self, app: AppId, index: u32) {
        let number = self.next_task();
        self.supervision.begin(app, index, number);
        let record = self.directory.get(app);
        let placing = Placing {
            app,
            index,
            object: ObjectId(self.rng.random()),
            leases: BTreeMap::new(),
            asked: BTreeSet::new(),
            offers: Vec::new(),
            refused: BTreeMap::new(),
            reasons: Vec::new(),
            is_contended: false,
            second_chances: 0,
            born: record.map(|it| it.wanted.born).unwrap_or_default(),
            revised: record.map(|it| it.wanted.revised).unwrap_or_default(),
            run: record.map_or(0, job::current),
        };
        self.probe(number, placing);
    }

    fn candidates(&self, app: AppId, refused: &BTreeMap<NodeId, String>) -> Vec<Candidate> {
        let company = self
            .directory
            .get(app)
            .map(guarding::company)
            .unwrap_or_default();
        let candidate = |node: NodeId| {
            let same_app = company.get(&node).copied().unwrap_or(0);
            let mut refused = refused.get(&node).cloned();
            if refused.is_none() && self.measurement.is_impaired(node) {
                refused = Some("it takes nothing new now".into());
            }
            self.candidate(node, same_app, refused)
        };
        self.reachable().into_iter().filter_map(candidate).collect()
    }

    fn candidate(&self, node: NodeId, same_app: u32, refused: Option<String>) -> Option<Candidate> {
        let facts = self.measurement.get(node)?;
        let has = self.measurement.capacity(node);
        Some(Candidate {
            node,
            name: facts.name.clone(),
            arch: facts.platform.arch.clone(),
            os: facts.platform.os.clone(),
            labels: facts.labels.clone(),
            availability: facts.availability,
            cpu_millis: has.cpu_millis,
            cpu_free_millis: has.cpu_millis.saturating_sub(has.cpu_held_millis),
            memory_bytes: has.memory_bytes,
            memory_free_bytes: has.memory_bytes.saturating_sub(has.memory_held_bytes),
            same_app,
            refused,
        })
    }

    /// A node holds less than before: slots that wait for a place, and by hearsay have one there, are
    /// tried now.
    pub(super) fn retry_on(&mut self, node: NodeId) {
        let waiting = self.supervision.waiting_apps();
        if waiting.is_empty() || !self.is_reachable(node) {
            return;
        }
        let Some(candidate) = self.candidate(node, 0, None) else {
            return;
        };
        let candidate = [candidate];
        for app in waiting {
            let fits = |spec: AppSpec| !placement::filter(&spec, &candidate).fitting.is_empty();
            if self.spec_of(app).is_some_and(fits) {
                self.supervision.retry_app_now(app);
            }
        }
    }

    /// Asks two nodes that could take it.
    fn probe(&mut self, number: u64, mut placing: Placing) {
        let Some(spec) = self.spec_of(placing.app) else {
            return self.give_up(&placing);
        };
        let candidates = self.candidates(placing.app, &placing.refused);
        let fit = placement::filter(&spec, &candidates);
        let chosen = placement::probes(&spec, &fit, &candidates, &mut self.rng);
        if fit.fitting.is_empty() {
            placing.second_chances += chosen.len();
        }
        if chosen.is_empty()
            || placing.second_chances > SECOND_CHANCES_MAX
            || !self.questions.has_room()
        {
            return self.unplaced(placing, &fit);
        }
        placing.reasons.push(alloc::format!(
            "{} of {} nodes fit{}{}; asked {}",
            fit.fitting.len(),
            candidates.len(),
            if fit.refusals.is_empty() {
                ""
            } else {
                "; not: "
            },
            if fit.refusals.is_empty() {
                String::new()
            } else {
                fit.explain()
            },
            chosen
                .iter()
                .map(|node| self.measurement.name(*node))
                .collect::<Vec<_>>()
                .join(" and "),
        ));
        let app = placing.app;
        let asks: Vec<(NodeId, u64)> = chosen
            .into_iter()
            .map(|node| (node, self.rng.random()))
            .collect();
        placing.leases = asks.iter().copied().collect();
        placing.asked = asks.iter().map(|(node, _)| *node).collect();
        placing.offers.clear();
        self.placings.insert(number, placing);
        for (node, lease) in asks {
            let ports = spec.ports.values().copied().collect();
            let ask = Ask::Reserve {
                lease,
                app,
                resources: spec.resources,
                ports,
            };
            self.ask(node, ask, Task::Reserve(number));
        }
    }

    fn spec_of(&self, app: AppId) -> Option<AppSpec> {
        self.directory.get(app)?.wanted.spec.clone()
    }

    pub(super) fn offered(&mut self, number: u64, from: NodeId, answer: Result<Answer, Problem>) {
        let rtt_us = self.measurement.rtt_us(from).unwrap_or(0);
        let Some(placing) = self.placings.get_mut(&number) else {
            return;
        };
        placing.asked.remove(&from);
        match answer {
            Ok(Answer::Reserved {
                load_per_mille,
                same_app,
            }) => {
                placing.offers.push(Offer {
                    node: from,
                    load_per_mille,
                    same_app,
                    rtt_us,
                });
            }
            Ok(_) => {}
            Err(problem) => {
                placing.is_contended |= problem.code == ProblemCode::Busy;
                placing.refused.insert(from, problem.detail);
            }
        }
        if placing.asked.is_empty()
            && let Some(placing) = self.placings.remove(&number)
        {
            self.choose(number, placing);
        }
    }

    /// All that were asked have answered, or will not.
    fn choose(&mut self, number: u64, mut placing: Placing) {
        if !self.is_current(number, &placing) {
            return self.release(&placing);
        }
        let record = self.directory.get(placing.app);
        let wanted = record.map(|record| record.wanted.clone());
        let run = record.map_or(0, job::current);
        let spec = wanted.as_ref().and_then(|wanted| wanted.spec.as_ref());
        let (Some(wanted), Some(spec)) = (&wanted, spec) else {
            return self.give_up(&placing);
        };
        let is_other =
            (wanted.born, wanted.revised, run) != (placing.born, placing.revised, placing.run);
        if wanted.stopped || placing.index >= spec.replicas || is_other {
            return self.give_up(&placing);
        }
        let Some(best) = placement::best(spec, &placing.offers) else {
            return self.probe(number, placing);
        };
        for offer in &placing.offers {
            let name = self.measurement.name(offer.node);
            let load = f64::from(offer.load_per_mille) / 10.0;
            let company = offer.same_app;
            placing.reasons.push(alloc::format!(
                "{name}: {load:.1} % busy, {company} of the app"
            ));
        }
        let lost: Vec<NodeId> = placing
            .offers
            .iter()
            .map(|it| it.node)
            .filter(|node| *node != best.node)
            .collect();
        for node in lost {
            if let Some(lease) = placing.leases.get(&node).copied() {
                self.ask(node, Ask::Release { lease }, Task::Forget);
            }
        }
        let Some(lease) = placing.leases.get(&best.node).copied() else {
            return;
        };
        if term_ms(spec).is_some() {
            let (slot, object) = ((placing.app, placing.index), placing.object);
            self.placings.insert(number, placing);
            return self.propose_home(number, slot, object, best.node);
        }
        let object = Placement {
            object: placing.object,
            index: placing.index,
            epoch: 1,
            wanted: wanted.clone(),
            title: None,
            run: placing.run,
        };
        self.placings.insert(number, placing);
        let ask = Ask::Launch {
            lease,
            object: Box::new(object),
        };
        self.ask(best.node, ask, Task::Launch(number));
    }

    /// The guardians have agreed that a slot gets its place: what is to be launched there, and under
    /// which lease; nothing if that is not wanted any more.
    pub(super) fn chosen_place(&mut self, number: u64, node: NodeId) -> Option<(u64, Placement)> {
        let placing = self.placings.get(&number)?;
        let record = self.directory.get(placing.app);
        let is_same_run = record.map(job::current) == Some(placing.run);
        let wanted = record.map(|it| it.wanted.clone()).filter(|it| {
            let replicas = it.spec.as_ref().map_or(0, |spec| spec.replicas);
            let is_same = it.born == placing.born && is_same_run;
            is_same && !it.stopped && placing.index < replicas
        });
        let lease = placing.leases.get(&node).copied();
        match (wanted, lease) {
            (Some(wanted), Some(lease)) if self.is_current(number, placing) => {
                let object = Placement {
                    object: placing.object,
                    index: placing.index,
                    epoch: 0,
                    wanted,
                    title: None,
                    run: placing.run,
                };
                Some((lease, object))
            }
            _ => {
                let placing = self.placings.remove(&number)?;
                if self.is_current(number, &placing) {
                    self.give_up(&placing);
                } else {
                    self.release(&placing);
                }
                None
            }
        }
    }

    /// Why a slot got its place, for whoever asks.
    pub(super) fn note_reason(&mut self, number: u64, reason: String) {
        if let Some(placing) = self.placings.get_mut(&number) {
            placing.reasons.push(reason);
        }
    }

    /// The guardians have not agreed that a slot gets its place: it is looked for again, later.
    pub(super) fn not_chosen(&mut self, number: u64, wait: Duration, why: Option<Trouble>) {
        let Some(placing) = self.placings.remove(&number) else {
            return;
        };
        self.release(&placing);
        if !self.is_current(number, &placing) {
            return;
        }
        let (now, app) = (self.now, placing.app);
        self.supervision
            .put_off(now + wait, app, placing.index, why);
        self.check_waiters(app);
        self.supervision.touch(app);
    }

    /// Whether the slot still waits for this attempt. It does not when its app was removed, or is
    /// supervised elsewhere; then nothing may be launched for it: another attempt may be under way.
    fn is_current(&self, number: u64, placing: &Placing) -> bool {
        self.supervision
            .is_current(placing.app, placing.index, number)
    }

    fn release(&mut self, placing: &Placing) {
        for (node, lease) in placing.leases.clone() {
            self.ask(node, Ask::Release { lease }, Task::Forget);
        }
    }

    /// Nobody wants the place any more.
    fn give_up(&mut self, placing: &Placing) {
        self.release(placing);
        self.supervision.placed(placing.app, placing.index);
        self.supervision.touch(placing.app);
    }

    pub(super) fn launched(&mut self, number: u64, from: NodeId, answer: Result<Answer, Problem>) {
        let Some(mut placing) = self.placings.remove(&number) else {
            return;
        };
        let is_current = self.is_current(number, &placing);
        let record = self.directory.get(placing.app);
        let is_of_another_app = record.is_some_and(|it| it.wanted.born != placing.born);
        match answer {
            // Nobody waits for it. It is known like any that its host reports.
            Ok(answer) if !is_current || is_of_another_app => {
                if let Answer::Object(facts) = answer {
                    let report = ObjectReport {
                        facts: *facts,
                        born: placing.born,
                        removed: false,
                    };
                    self.handle_reports(from, [report].into());
                }
                if is_current {
                    self.give_up(&placing);
                }
            }
            Err(_) if !is_current => {}
            Ok(Answer::Object(facts)) if facts.object == placing.object => {
                let (app, index) = (placing.app, placing.index);
                let chosen = Some(self.measurement.name(from));
                self.decide(&placing, chosen);
                self.note_run(app, &facts);
                if let Some(record) = self.directory.get_mut(app)
                    && !record.objects.iter().any(|it| it.object == facts.object)
                {
                    record.objects.push(*facts);
                    record
                        .objects
                        .sort_by_key(|it| (it.index, it.created, it.object));
                }
                self.supervision.placed(app, index);
                self.save_heard(app);
            }
            Ok(_) | Err(_) => {
                let why = answer
                    .err()
                    .map_or_else(String::new, |problem| problem.detail);
                placing.refused.insert(from, why);
                // It may have been started all the same; then its host reports it, and the
                // surplus is retired. A new id keeps the two apart.
                placing.object = ObjectId(self.rng.random());
                self.probe(number, placing);
            }
        }
    }

    fn unplaced(&mut self, mut placing: Placing, fit: &Fit) {
        if placing.is_contended {
            return self.contended(&placing);
        }
        // Who refused, refused what is not wanted any more.
        let wanted = self.directory.get(placing.app).map(|it| &it.wanted);
        if wanted.is_some_and(|wanted| wanted.revised != placing.revised) {
            return self.give_up(&placing);
        }
        match self.in_its_room(&placing) {
            // It goes anyway: asking for that again and again would end no step.
            Some(Phase::Stopping) => return self.contended(&placing),
            Some(_) => return self.supervision.cramp(placing.app, placing.index),
            None => {}
        }
        let why = fit.explain();
        placing.reasons.push(alloc::format!("no node fits: {why}"));
        self.decide(&placing, None);
        let (now, app) = (self.now, placing.app);
        self.supervision.unplaced(now, app, placing.index, why);
        self.check_waiters(app);
        self.supervision.touch(app);
    }

    /// The room will be left in a moment, by whoever holds it for somebody else or has to end there.
    fn contended(&mut self, placing: &Placing) {
        self.supervision
            .contended(self.now, placing.app, placing.index);
        self.supervision.touch(placing.app);
    }

    /// What the older object of its slot does, if the object would fit where that is without it. Only
    /// the host knows who holds the ports.
    fn in_its_room(&self, placing: &Placing) -> Option<Phase> {
        let record = self.directory.get(placing.app)?;
        let wanted = &record.wanted;
        let spec = wanted.spec.as_ref()?;
        // What older ones hold is forgotten: then it is hoped for the best, or they were in the way
        // for good.
        let of = |revised: Version| {
            let previous = wanted.previous.as_ref();
            let is_it = previous.filter(|previous| previous.revised == revised);
            is_it.map_or((u32::MAX, u64::MAX), |it| {
                (it.spec.resources.cpu_millis, it.spec.resources.memory_bytes)
            })
        };
        let older = record.objects.iter().filter(|it| {
            it.index == placing.index && it.revised != wanted.revised && it.phase.is_alive()
        });
        let candidates = self.candidates(placing.app, &BTreeMap::new());
        let mut in_its_room = older.filter(|it| {
            let there = candidates.iter().filter(|other| other.node == it.node);
            let (cpu_millis, memory_bytes) = of(it.revised);
            let emptied: Vec<Candidate> = there
                .map(|node| {
                    let cpu_free_millis = node.cpu_free_millis.saturating_add(cpu_millis);
                    let memory_free_bytes = node.memory_free_bytes.saturating_add(memory_bytes);
                    Candidate {
                        cpu_free_millis: cpu_free_millis.min(node.cpu_millis),
                        memory_free_bytes: memory_free_bytes.min(node.memory_bytes),
                        ..node.clone()
                    }
                })
                .collect();
            !placement::filter(spec, &emptied).fitting.is_empty()
        });
        in_its_room.next().map(|it| it.phase)
    }

    fn decide(&mut self, placing: &Placing, node: Option<String>) {
        let decision = Decision {
            index: placing.index,
            at: self.wall(),
            node,
            reasons: placing.reasons.clone(),
        };
        let Some(record) = self.directory.get_mut(placing.app) else {
            return;
        };
        let same = |it: &Decision| {
            it.index == decision.index && it.node.is_none() && decision.node.is_none()
        };
        record.decisions.retain(|it| !same(it));
        record.decisions.insert(0, decision);
        record.decisions.truncate(DECISIONS_MAX);
    }
}
