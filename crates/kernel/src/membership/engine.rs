//! Foca and its surroundings: what goes into it, what comes out, and the work that is done by the
//! clock.

use alloc::collections::BTreeSet;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use foca::{Foca, Member, Message, NoCustomBroadcast, Notification, Runtime, State, Timer};
use rand::seq::IteratorRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::alarm::Alarm;
use crate::instant::Instant;
use crate::limits;

use super::datagram::{self, Body, Codec, Datagram, Id, LEFT, RESTING};
use super::{
    BOOTS_AHEAD_MAX, BOOTS_RESERVED, Due, Event, Liveness, Membership, REACH_PERIOD, REJOIN_EAGER,
    REJOIN_MEMBERS, REJOIN_PERIOD, REJOIN_PERIOD_ALONE, RENEWAL_PAUSE, SILENCE, STRANGERS_MAX,
    SYNC_PAUSE, detector,
};

/// What foca wants to be done.
#[derive(Debug, Default)]
pub(super) struct Effects {
    sends: Vec<(Id, Vec<u8>)>,
    timers: Vec<(Duration, Timer<Id>)>,
    notices: Vec<Notice>,
}

/// What foca tells and matters here.
#[derive(Debug, Clone, Copy)]
enum Notice {
    Up(Id),
    Down(Id),
    /// It is up under another boot than before, and was not held as down in between.
    Anew(Id),
    Connected,
    Alone,
    /// This node is held as down by others.
    Lost,
}

impl Runtime<Id> for Effects {
    fn notify(&mut self, notification: Notification<'_, Id>) {
        let notice = match notification {
            Notification::MemberUp(id) => Notice::Up(*id),
            Notification::MemberDown(id) => Notice::Down(*id),
            Notification::Active => Notice::Connected,
            Notification::Idle => Notice::Alone,
            Notification::Defunct => Notice::Lost,
            Notification::Rename(_, id) => Notice::Anew(*id),
            Notification::Rejoin(_) => return,
        };
        self.notices.push(notice);
    }

    fn send_to(&mut self, to: Id, data: &[u8]) {
        self.sends.push((to, datagram::strip(data).to_vec()));
    }

    fn submit_after(&mut self, event: Timer<Id>, after: Duration) {
        self.timers.push((after, event));
    }
}

type Core = Foca<Id, Codec, ChaCha8Rng, NoCustomBroadcast>;

impl Membership {
    /// Lets foca do something and carries out what it wants.
    pub(super) fn run(
        &mut self,
        now: Instant,
        step: impl FnOnce(&mut Core, &mut Effects) -> Result<(), foca::Error>,
    ) {
        let result = step(&mut self.foca, &mut self.effects);
        if let Err(error) = result {
            self.alarm(Alarm::MembershipCore, error.to_string());
        }
        // Foca looks at whether anybody is up only when it learns something. It must not rest
        // after a renewal.
        let nothing = core::iter::empty();
        if let Err(error) = self.foca.apply_many(nothing, true, &mut self.effects) {
            self.alarm(Alarm::MembershipCore, error.to_string());
        }
        self.settle(now);
        self.wake_gossip(now);
    }

    fn settle(&mut self, now: Instant) {
        for (to, bytes) in core::mem::take(&mut self.effects.sends) {
            self.incarnation = datagram::incarnation_in(&bytes).unwrap_or(self.incarnation);
            self.dispatch(to.node, bytes);
        }
        for (after, timer) in core::mem::take(&mut self.effects.timers) {
            self.schedule(now, after, timer);
        }
        for notice in core::mem::take(&mut self.effects.notices) {
            match notice {
                Notice::Up(id) => self.came_up(now, id.node),
                Notice::Down(id) => self.went_down(now, id),
                Notice::Anew(id) => self.events.push_back(Event::Anew(id.node)),
                Notice::Connected => self.sync_soon(now),
                Notice::Alone => {
                    self.eager_rounds_left = REJOIN_EAGER;
                    self.rejoin_after(now, REJOIN_PERIOD_ALONE);
                }
                Notice::Lost => {
                    let next = self.boot().checked_add(1);
                    self.renewal = self.renewal.max(next);
                    self.try_renewal(now);
                }
            }
        }
    }

    fn schedule(&mut self, now: Instant, after: Duration, timer: Timer<Id>) {
        match timer {
            Timer::ProbeRandomMember(token) => {
                self.token = token;
                let after = self.health.stretched(after);
                self.timers.add(now + after, Due::Foca(timer));
            }
            Timer::SendIndirectProbe { .. } => {
                let after = self.health.stretched(after);
                self.timers.add(now + after, Due::Foca(timer));
            }
            Timer::ChangeSuspectToDown {
                member_id,
                incarnation,
                token,
            } => {
                self.token = token;
                self.suspect(now, member_id, incarnation, 1);
            }
            Timer::PeriodicGossip(_) => self.gossip = Some(timer),
            Timer::PeriodicAnnounce(_) | Timer::PeriodicAnnounceDown(_) | Timer::RemoveDown(_) => {
                self.timers.add(now + after, Due::Foca(timer));
            }
        }
    }

    fn wake_gossip(&mut self, now: Instant) {
        if self.gossip.is_some() && !self.gossip_due && self.foca.updates_backlog() > 0 {
            self.gossip_due = true;
            let at = (self.gossiped + detector::GOSSIP_PERIOD).max(now);
            self.timers.add(at, Due::Gossip);
        }
    }

    /// Does what is due.
    pub(super) fn fire(&mut self, now: Instant, due: Due) {
        match due {
            Due::Foca(timer) => self.fire_foca(now, timer),
            Due::Gossip => {
                self.gossip_due = false;
                self.gossiped = now;
                if let Some(timer) = self.gossip.take() {
                    self.run(now, |foca, effects| foca.handle_timer(timer, effects));
                }
            }
            Due::Rejoin => self.rejoin(now),
            Due::Reach => self.reach(now),
            Due::Sync => self.sync(now),
            Due::Renew => self.try_renewal(now),
            Due::Suspicion(node) => self.judge(now, node),
            Due::Check(node) => self.check(now, node),
            Due::Lapse(node) => self.lapse(now, node),
        }
    }

    fn fire_foca(&mut self, now: Instant, timer: Timer<Id>) {
        let is_probe = matches!(timer, Timer::ProbeRandomMember(token) if token == self.token);
        let is_cry_for_help = matches!(timer, Timer::SendIndirectProbe { .. });
        if is_probe {
            self.health.probe_over();
            if now.since(self.last_contact) >= SILENCE {
                self.lose_all(now);
                return;
            }
        }
        if is_cry_for_help {
            // What foca sends now are ping requests; those asked should say that they heard.
            let result = self.foca.handle_timer(timer, &mut self.effects);
            if let Err(error) = result {
                self.alarm(Alarm::MembershipCore, error.to_string());
            }
            let helpers: BTreeSet<u64> = self.effects.sends.iter().map(|(to, _)| to.node).collect();
            if !helpers.is_empty() {
                self.health.asked(helpers);
            }
            self.run(now, |_, _| Ok(()));
        } else {
            self.run(now, |foca, effects| foca.handle_timer(timer, effects));
        }
    }

    /// Members that are not up are announced to, so many that each hears from the whole cloud as
    /// often as from one node that is alone with it.
    fn rejoin(&mut self, now: Instant) {
        if now < self.rejoin_at {
            return;
        }
        let absent: Vec<u64> = self
            .roster
            .iter()
            .filter(|(_, entry)| entry.liveness != Liveness::Up)
            .map(|(&node, _)| node)
            .collect();
        let anybody_absent = !absent.is_empty();
        let active = self.foca.num_members();
        let nodes = active + 1;
        let mut count = REJOIN_MEMBERS.min(absent.len());
        if active > 0 && absent.len() < nodes {
            let share = REJOIN_MEMBERS * absent.len();
            count = share / nodes;
            if self.random.random_range(0..nodes) < share % nodes {
                count += 1;
            }
        }
        for node in some_of(absent.into_iter(), count, &mut self.random) {
            self.announce(now, node);
        }
        let mut period = REJOIN_PERIOD;
        if active == 0 && anybody_absent && self.eager_rounds_left > 0 {
            self.eager_rounds_left -= 1;
            period = REJOIN_PERIOD_ALONE;
        }
        self.rejoin_after(now, period);
    }

    fn rejoin_after(&mut self, now: Instant, period: Duration) {
        let jitter = self.random.random_range(90..=110);
        self.rejoin_at = now + period * jitter / 100;
        self.timers.add(self.rejoin_at, Due::Rejoin);
    }

    /// Others say that a member lives which is down here. If it is the same boot, it lived all the
    /// time, beyond a cut, and must hear that it is to renew itself.
    fn reach_for(&mut self, now: Instant, id: Id) {
        let same = |held: &Member<Id>| *held.id() == id && held.incarnation() != LEFT;
        if self.held(id.node).is_some_and(same) {
            if self.reach.is_empty() {
                let wait = self.random.random_range(Duration::ZERO..REACH_PERIOD);
                self.timers.add(now + wait, Due::Reach);
            }
            self.reach.insert(id.node);
        }
    }

    fn reach(&mut self, now: Instant) {
        let wanted = core::mem::take(&mut self.reach);
        let lost = |node: &u64| {
            let entry = self.roster.get(node);
            entry.is_some_and(|entry| entry.liveness.is_lost())
        };
        let wanted: Vec<u64> = wanted.into_iter().filter(lost).collect();
        for node in some_of(wanted.into_iter(), REJOIN_MEMBERS, &mut self.random) {
            self.announce(now, node);
        }
    }

    /// Says to a member that this node is there and wants to know who else is.
    pub(super) fn announce(&mut self, now: Instant, node: u64) {
        let to = Id { node, boot: 0 };
        self.run(now, |foca, effects| foca.announce(to, effects));
    }

    fn sync(&mut self, now: Instant) {
        let jitter = self.random.random_range(80..=120);
        let after = limits::SYNC_PERIOD * jitter / 100;
        self.timers.add(now + after, Due::Sync);
        self.synced = Some(now);
        let active = self.some_active(1, |_| true).pop();
        let absent = self
            .roster
            .iter()
            .filter(|(_, entry)| entry.liveness != Liveness::Up)
            .map(|(&node, _)| node)
            .choose(&mut self.random);
        for node in active.map(|id| id.node).into_iter().chain(absent) {
            self.events.push_back(Event::SyncWith(node));
        }
    }

    fn sync_soon(&mut self, now: Instant) {
        if let Some(partner) = self.some_active(1, |_| true).pop() {
            self.sync_with(now, partner.node);
        }
    }

    fn sync_with(&mut self, now: Instant, node: u64) {
        if self.synced.is_none_or(|at| now.since(at) >= SYNC_PAUSE) {
            self.synced = Some(now);
            self.events.push_back(Event::SyncWith(node));
        }
    }

    /// What a member sent for foca.
    pub(super) fn handle_swim(&mut self, now: Instant, datagram: Datagram) {
        let from = datagram.from;
        let Body::Swim(message, updates) = datagram.body else {
            return;
        };
        if let Message::PingReq { .. } = message {
            self.send(from, Body::Heard);
        }
        let updates = self.filter(now, from.node, updates);
        let lost = losses(&updates);
        let datagram = Datagram {
            body: Body::Swim(message, updates),
            ..datagram
        };
        if let Some(bytes) = datagram.to_foca() {
            self.run(now, |foca, effects| foca.handle_data(&bytes, effects));
        }
        self.note_losses(now, &lost);
    }

    /// Lets foca know something that did not come in a datagram, and tell it on or not.
    pub(super) fn learn(
        &mut self,
        now: Instant,
        updates: impl Iterator<Item = Member<Id>>,
        tell: bool,
    ) {
        let updates: Vec<Member<Id>> = updates.collect();
        let lost = losses(&updates);
        self.run(now, |foca, effects| {
            foca.apply_many(updates.into_iter(), tell, effects)
        });
        self.note_losses(now, &lost);
    }

    /// Believes that these are up, at their first boot, without telling anyone.
    #[cfg(test)]
    pub(super) fn assume_up(&mut self, now: Instant, nodes: &[u64]) {
        use rand::seq::SliceRandom;
        let me = self.foca.identity().node;
        let others = nodes.iter().copied().filter(|&node| node != me);
        let mut alive: Vec<_> = others
            .map(|node| Member::alive(Id { node, boot: 0 }))
            .collect();
        // Otherwise all would probe in nearly the same order.
        alive.shuffle(&mut self.random);
        let alive = alive.into_iter();
        self.run(now, |foca, effects| foca.apply_many(alive, false, effects));
    }

    /// Foca tells only of the loss of members that it knew to be up.
    fn note_losses(&mut self, now: Instant, lost: &[Id]) {
        for &id in lost {
            let unheard = |node| {
                let entry = self.roster.get(&node)?;
                (entry.liveness == Liveness::Unheard).then_some(())
            };
            let is_down = |member: &Member<Id>| member.state() == State::Down;
            if unheard(id.node).is_some() && self.held(id.node).is_some_and(is_down) {
                self.went_down(now, id);
            }
        }
    }

    /// Takes out what is about nodes that are no members, about boots that nobody can have reached,
    /// and about this node under another boot.
    pub(super) fn filter(
        &mut self,
        now: Instant,
        from: u64,
        updates: Vec<Member<Id>>,
    ) -> Vec<Member<Id>> {
        let me = *self.foca.identity();
        let mut stranger = false;
        let mut kept = Vec::with_capacity(updates.len());
        for update in updates {
            let id = *update.id();
            if id.node == me.node {
                self.learn_own_boot(now, id.boot);
                if id == me && update.incarnation() == RESTING && !self.left {
                    // Whoever said so, it is not the case, and that incarnation cannot be outdone.
                    self.renewal = self.renewal.max(me.boot.checked_add(1));
                    self.try_renewal(now);
                } else if id == me {
                    kept.push(update);
                }
            } else if is_absurd(0, id.boot) && is_absurd(self.boot_of(id.node), id.boot) {
                // Hearsay only: a member that says so itself is believed.
            } else if let Some(entry) = self.roster.get(&id.node) {
                if update.state() != State::Down && entry.liveness.is_lost() {
                    self.reach_for(now, id);
                }
                kept.push(update);
            } else if update.state() != State::Down && !self.expelled.contains(&id.node) {
                stranger = true;
                if self.strangers.len() < STRANGERS_MAX {
                    self.strangers.insert(id.node, update);
                }
            }
        }
        if stranger {
            self.sync_with(now, from);
        }
        kept
    }

    fn came_up(&mut self, now: Instant, node: u64) {
        let Some(entry) = self.roster.get_mut(&node) else {
            return;
        };
        let was = entry.liveness;
        entry.liveness = Liveness::Up;
        self.events.push_back(Event::Up(node));
        if was.is_lost() {
            // Perhaps a cut healed.
            self.sync_with(now, node);
        }
    }

    fn went_down(&mut self, now: Instant, id: Id) {
        self.suspicions.remove(&id.node);
        self.checks.remove(&id.node);
        let left = self
            .held(id.node)
            .is_some_and(|member| member.incarnation() == LEFT);
        let Some(entry) = self.roster.get_mut(&id.node) else {
            return;
        };
        entry.liveness = Liveness::Unreachable { since: now };
        self.timers
            .add(now + limits::GONE_AFTER, Due::Lapse(id.node));
        self.events.push_back(if left {
            Event::Left(id.node)
        } else {
            Event::Unreachable(id.node)
        });
    }

    fn lapse(&mut self, now: Instant, node: u64) {
        let Some(entry) = self.roster.get_mut(&node) else {
            return;
        };
        match entry.liveness {
            Liveness::Unheard => {
                let at = now + limits::GONE_AFTER;
                entry.liveness = Liveness::Unreachable { since: now };
                self.timers.add(at, Due::Lapse(node));
                self.events.push_back(Event::Unreachable(node));
            }
            Liveness::Unreachable { since } if now.since(since) >= limits::GONE_AFTER => {
                entry.liveness = Liveness::Gone { since };
                self.events.push_back(Event::Gone(node));
            }
            Liveness::Up
            | Liveness::Suspect
            | Liveness::Unreachable { .. }
            | Liveness::Gone { .. } => {}
        }
    }

    /// Others know this node under a boot number. A higher one than its own means that its disk
    /// went back in time, or that there are two of it.
    pub(super) fn learn_own_boot(&mut self, now: Instant, boot: u32) {
        let mine = self.boot();
        if boot <= mine || self.renewal.is_some_and(|renewal| renewal > boot) {
            return;
        }
        if is_absurd(mine, boot) {
            let detail = format!("somebody claims boot {boot} of this node, which is at {mine}");
            self.alarm(Alarm::BootAbsurd, detail);
            return;
        }
        self.alarm(
            Alarm::BootBehind,
            format!("others know boot {boot} of this node, which is at {mine}"),
        );
        self.renewal = boot.checked_add(1);
        self.try_renewal(now);
    }

    /// Takes the next boot number if one is wanted, reserved, and the last is old enough.
    pub(super) fn try_renewal(&mut self, now: Instant) {
        let Some(boot) = self.renewal else {
            return;
        };
        if boot >= self.reserved {
            self.reserve(boot.saturating_add(BOOTS_RESERVED));
            return;
        }
        if let Some(at) = self.renewed
            && now.since(at) < RENEWAL_PAUSE
        {
            self.timers.add(at + RENEWAL_PAUSE, Due::Renew);
            return;
        }
        self.renewal = None;
        self.renewed = Some(now);
        self.begin_anew(now, boot);
        if boot.saturating_add(BOOTS_RESERVED / 2) >= self.reserved {
            self.reserve(boot.saturating_add(BOOTS_RESERVED));
        }
    }

    /// Goes on under a new boot, with those that are up. Whoever had to renew itself was cut off:
    /// what it found out about losses meanwhile says nothing, and nobody shall hear of it.
    fn begin_anew(&mut self, now: Instant, boot: u32) {
        let node = self.foca.identity().node;
        let is_active = |member: &&Member<Id>| member.state() != State::Down;
        let anew =
            |member: &Member<Id>| Member::new(*member.id(), member.incarnation(), State::Alive);
        let known = self.foca.iter_membership_state();
        let up: Vec<Member<Id>> = known.filter(is_active).map(anew).collect();
        let random = ChaCha8Rng::from_rng(&mut self.random);
        let configuration = detector::configuration(self.configured_for);
        self.foca = Foca::new(Id { node, boot }, configuration, random, Codec);
        self.incarnation = 0;
        self.gossip = None;
        self.suspicions.clear();
        self.checks.clear();
        self.timers.keep(|due| !matches!(due, Due::Foca(_)));
        // Those that are up are no news, neither here nor elsewhere.
        self.effects = Effects::default();
        let learnt = self
            .foca
            .apply_many(up.into_iter(), false, &mut self.effects);
        if let Err(error) = learnt {
            self.alarm(Alarm::MembershipCore, error.to_string());
        }
        self.effects.notices.clear();
        self.run(now, |foca, effects| foca.gossip(effects));
        self.sync_soon(now);
    }

    /// Nothing came from anybody for long.
    fn lose_all(&mut self, now: Instant) {
        let down =
            |member: &Member<Id>| Member::new(*member.id(), member.incarnation(), State::Down);
        let lost: Vec<Member<Id>> = self.foca.iter_members().map(down).collect();
        self.run(now, |foca, effects| {
            foca.apply_many(lost.into_iter(), false, effects)
        });
        let next = self.boot().checked_add(1);
        self.renewal = self.renewal.max(next);
        self.try_renewal(now);
    }

    fn reserve(&mut self, until: u32) {
        if self.asked_until < until {
            self.asked_until = until;
            self.events.push_back(Event::Reserve { until });
        }
    }

    /// Foca's settings follow the size of the cloud.
    pub(super) fn reconfigure(&mut self) {
        let nodes = self.roster.len() + 1;
        if nodes.abs_diff(self.configured_for) * 5 >= self.configured_for {
            self.configured_for = nodes;
            if let Err(error) = self.foca.set_config(detector::configuration(nodes)) {
                self.alarm(Alarm::MembershipCore, error.to_string());
            }
        }
    }

    /// What foca holds of a member.
    pub(super) fn held(&self, node: u64) -> Option<&Member<Id>> {
        self.foca
            .iter_membership_state()
            .find(|member| member.id().node == node)
    }

    fn boot_of(&self, node: u64) -> u32 {
        self.held(node).map_or(0, |held| held.id().boot)
    }

    /// All that is known, this node included.
    pub(super) fn known(&self) -> impl Iterator<Item = Member<Id>> {
        let me = Member::new(*self.foca.identity(), self.incarnation, State::Alive);
        self.foca
            .iter_membership_state()
            .cloned()
            .chain(core::iter::once(me))
    }

    /// A few members that are up, by chance.
    pub(super) fn some_active(&mut self, count: usize, fit: impl Fn(u64) -> bool) -> Vec<Id> {
        let active = self.foca.iter_members().map(|member| *member.id());
        some_of(active.filter(|id| fit(id.node)), count, &mut self.random)
    }

    /// Sends what foca does not send by itself.
    pub(super) fn send(&mut self, to: Id, body: Body) {
        let datagram = Datagram {
            from: *self.foca.identity(),
            incarnation: self.incarnation,
            to,
            body,
        };
        self.dispatch(to.node, datagram.to_bytes());
    }

    fn dispatch(&mut self, to: u64, bytes: Vec<u8>) {
        if self.roster.contains_key(&to) {
            self.events.push_back(Event::Send { to, bytes });
        }
    }

    pub(super) fn alarm(&mut self, alarm: Alarm, detail: String) {
        self.events.push_back(Event::Alarm { alarm, detail });
    }
}

/// Whether a boot number is further ahead than any life of a node can be: whoever took it would use
/// up all numbers there are, and nobody could ever outdo it.
fn is_absurd(known: u32, claimed: u32) -> bool {
    claimed > known.saturating_add(BOOTS_AHEAD_MAX)
}

fn losses(updates: &[Member<Id>]) -> Vec<Id> {
    updates
        .iter()
        .filter(|update| update.state() == State::Down)
        .map(|update| *update.id())
        .collect()
}

/// Some of them by chance, each with the same probability.
fn some_of<T>(from: impl Iterator<Item = T>, count: usize, random: &mut ChaCha8Rng) -> Vec<T> {
    let mut chosen = Vec::with_capacity(count);
    for (seen, item) in from.enumerate() {
        if chosen.len() < count {
            chosen.push(item);
        } else if let Some(slot) = chosen.get_mut(random.random_range(0..=seen)) {
            *slot = item;
        }
    }
    chosen
}
