//! From "it did not answer" to "it is lost": suspicions of this node, and checks that it makes
//! for others.

use alloc::collections::BTreeSet;
use alloc::vec;
use core::time::Duration;

use foca::{Member, Message, State, Timer};

use crate::instant::Instant;

use super::datagram::{Body, Id, RESTING};
use super::detector::{
    APPEALS, Check, Suspicion, WITNESS_ANSWERS, WITNESS_PAUSE, WITNESS_PINGS, WITNESSES,
};
use super::{Due, Membership, REST_LENIENCE};

/// Members that are checked for others at one time.
const CHECKS_MAX: usize = 64;
/// Nodes that wait for one check.
const ASKERS_MAX: usize = 8;
/// Probe number of pings that are not foca's. That foca may use it too does no harm: whoever
/// answers is alive.
const OWN_PROBE: u8 = 0;

impl Membership {
    /// This node saw the member not answer, or heard in confidence that it is lost.
    pub(super) fn suspect(&mut self, now: Instant, id: Id, incarnation: u16, lenience: u32) {
        if let Some(known) = self.suspicions.get(&id.node)
            && known.id == id
            && known.incarnation >= incarnation
        {
            return;
        }
        if !self.is_suspect(id, incarnation) {
            return;
        }
        let lenience = if incarnation == RESTING {
            REST_LENIENCE
        } else {
            lenience
        };
        let suspicion = Suspicion {
            id,
            incarnation,
            since: now,
            witnesses: BTreeSet::new(),
            asked: 0,
            called: now,
            next: Instant::from_micros(u64::MAX),
            appeals_left: APPEALS,
            lenience,
        };
        self.suspicions.insert(id.node, suspicion);
        self.suspicion_count += 1;
        if lenience == 1 {
            self.call_witnesses(now, id, incarnation);
            self.tell(id, incarnation);
        }
        self.judge_soon(now, id.node);
    }

    fn call_witnesses(&mut self, now: Instant, id: Id, incarnation: u16) {
        let mut others = core::mem::take(&mut self.suspicions);
        let fit = |node| !others.contains_key(&node);
        let witnesses = self.some_active(WITNESSES, fit);
        for &witness in &witnesses {
            self.send(witness, Body::Doubt(id, incarnation));
        }
        if let Some(suspicion) = others.get_mut(&id.node) {
            suspicion.asked = witnesses.len();
            suspicion.called = now;
            suspicion.witnesses = witnesses.into_iter().map(|witness| witness.node).collect();
        }
        self.suspicions = others;
    }

    /// A call may get lost; while the check lasts, a second one changes nothing.
    fn call_again(&mut self, now: Instant, node: u64) {
        let Some(suspicion) = self.suspicions.get(&node) else {
            return;
        };
        if now.since(suspicion.called) < WITNESS_PAUSE * u32::from(WITNESS_PINGS - 1) {
            let (id, incarnation) = (suspicion.id, suspicion.incarnation);
            for witness in suspicion.witnesses.clone() {
                if let Some(witness) = self.held(witness).map(|member| *member.id()) {
                    self.send(witness, Body::Doubt(id, incarnation));
                }
            }
        }
    }

    /// The suspicion is looked at when it is certain, and often before.
    fn judge_soon(&mut self, now: Instant, node: u64) {
        if let Some(suspicion) = self.suspicions.get_mut(&node) {
            let due = suspicion.due(&self.health).max(now);
            let at = due.min(now + WITNESS_PAUSE);
            if at < suspicion.next {
                suspicion.next = at;
                self.timers.add(at, Due::Suspicion(node));
            }
        }
    }

    /// Tells the suspect again, or decides when the time is over.
    pub(super) fn judge(&mut self, now: Instant, node: u64) {
        let heard = self.roster.get(&node).and_then(|entry| entry.heard);
        let Some(suspicion) = self.suspicions.get_mut(&node) else {
            return;
        };
        if now < suspicion.next {
            return;
        }
        suspicion.next = Instant::from_micros(u64::MAX);
        let (id, incarnation) = (suspicion.id, suspicion.incarnation);
        if heard.is_some_and(|heard| heard > suspicion.since) {
            // It lives, and has not protested yet: begin anew.
            suspicion.since = now;
        }
        let nobody_confirmed = suspicion.asked > 0 && suspicion.witnesses.len() == suspicion.asked;
        let due = suspicion.due(&self.health);
        if !self.is_suspect(id, incarnation) {
            self.suspicions.remove(&node);
        } else if now < due {
            self.tell(id, incarnation);
            self.call_again(now, node);
            self.judge_soon(now, node);
        } else if nobody_confirmed && self.appeal(now, node) {
            self.call_witnesses(now, id, incarnation);
            self.judge_soon(now, node);
        } else {
            self.suspicions.remove(&node);
            let timer = Timer::ChangeSuspectToDown {
                member_id: id,
                incarnation,
                token: self.token,
            };
            self.run(now, |foca, effects| foca.handle_timer(timer, effects));
        }
    }

    fn appeal(&mut self, now: Instant, node: u64) -> bool {
        match self.suspicions.get_mut(&node) {
            Some(suspicion) if suspicion.appeals_left > 0 => {
                suspicion.appeals_left -= 1;
                suspicion.since = now;
                true
            }
            Some(_) | None => false,
        }
    }

    /// Another node suspects a member and asks whether this one can reach it.
    pub(super) fn handle_doubt(&mut self, now: Instant, from: u64, id: Id, incarnation: u16) {
        if id == *self.foca.identity() {
            let doubt = Member::new(id, incarnation, State::Suspect);
            self.learn(now, [doubt].into_iter(), true);
            return;
        }
        let Some(held) = self.held(id.node) else {
            return;
        };
        let newer = (held.id().boot, held.incarnation()) > (id.boot, incarnation);
        if newer || held.state() == State::Down {
            // It protested already, or is lost already.
            let news = Body::Swim(Message::Gossip, vec![held.clone()]);
            if let Some(asker) = self.held(from) {
                self.send(*asker.id(), news);
            }
            return;
        }
        let full = self.checks.len() >= CHECKS_MAX;
        match self.checks.get_mut(&id.node) {
            Some(check) if check.id == id && check.incarnation == incarnation => {
                if check.askers.len() < ASKERS_MAX {
                    check.askers.insert(from);
                }
            }
            None if full => {}
            Some(_) | None => {
                let check = Check {
                    id,
                    incarnation,
                    next: now,
                    askers: BTreeSet::from([from]),
                    pings_left: WITNESS_PINGS,
                    answers_left: WITNESS_ANSWERS,
                };
                self.checks.insert(id.node, check);
                self.check(now, id.node);
            }
        }
    }

    /// The next step of a check: ping again, or confirm.
    pub(super) fn check(&mut self, now: Instant, node: u64) {
        let Some(check) = self.checks.get_mut(&node) else {
            return;
        };
        if now < check.next {
            return;
        }
        check.next = now + WITNESS_PAUSE;
        let (id, incarnation) = (check.id, check.incarnation);
        if check.pings_left > 0 {
            check.pings_left -= 1;
            self.timers.add(check.next, Due::Check(node));
            self.tell(id, incarnation);
            return;
        }
        let askers = check.askers.clone();
        if check.answers_left > 1 {
            check.answers_left -= 1;
            self.timers.add(check.next, Due::Check(node));
        } else {
            self.checks.remove(&node);
        }
        // A node that may be ill itself is no witness.
        if self.health.is_good() {
            for asker in askers {
                if let Some(asker) = self.held(asker).map(|member| *member.id()) {
                    self.send(asker, Body::Confirm(id, incarnation));
                }
            }
        }
    }

    /// A witness could not reach the member either.
    pub(super) fn handle_confirm(&mut self, now: Instant, from: u64, id: Id, incarnation: u16) {
        let Some(suspicion) = self.suspicions.get_mut(&id.node) else {
            return;
        };
        let same = suspicion.id == id && suspicion.incarnation == incarnation;
        if same && suspicion.witnesses.remove(&from) {
            self.judge_soon(now, id.node);
        }
    }

    /// Something came from a member: whoever doubted it may want to know.
    pub(super) fn handle_sign_of_life(&mut self, from: u64) {
        if !self.checks.contains_key(&from) && !self.suspicions.contains_key(&from) {
            return;
        }
        let held = self.held(from).cloned();
        if let Some(check) = self.checks.remove(&from)
            && let Some(held) = &held
        {
            for asker in check.askers {
                if let Some(asker) = self.held(asker).map(|member| *member.id()) {
                    self.send(asker, Body::Swim(Message::Gossip, vec![held.clone()]));
                }
            }
        }
        if let Some(suspicion) = self.suspicions.get(&from)
            && !self.is_suspect(suspicion.id, suspicion.incarnation)
        {
            self.suspicions.remove(&from);
        }
    }

    /// This node slept: what it did not hear meanwhile proves nothing.
    pub(super) fn postpone_suspicions(&mut self, by: Duration) {
        for suspicion in self.suspicions.values_mut() {
            suspicion.since = suspicion.since + by;
        }
    }

    /// Pings the member and tells it that it is suspected, so that it can protest (Lifeguard
    /// section IV-C: the buddy system).
    fn tell(&mut self, id: Id, incarnation: u16) {
        let suspect = Member::new(id, incarnation, State::Suspect);
        self.send(id, Body::Swim(Message::Ping(OWN_PROBE), vec![suspect]));
    }

    fn is_suspect(&self, id: Id, incarnation: u16) -> bool {
        self.held(id.node).is_some_and(|held| {
            *held.id() == id && held.incarnation() == incarnation && held.state() == State::Suspect
        })
    }
}
