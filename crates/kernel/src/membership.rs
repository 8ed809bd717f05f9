//! Who is there: failure detection and the roster of one node.
//!
//! It finds out which members of the cloud can be reached, and tells the others when one cannot.
//! It does not decide who belongs to the cloud: that is told to it ([`Membership::admit`],
//! [`Membership::expel`]), and only those are ever spoken or listened to. It does not decide what
//! follows when a node is lost either.
//!
//! # The conversation
//!
//! SWIM (Das, Gupta, Motivala, DSN 2002) by foca, and around it what foca lacks.
//!
//! ```text
//! prober                      member               others
//!   ping ─────────────────────► ack                              every second, one member
//!   ping request ────────────────────────────────► heard         no ack within 500 ms
//!                               ack ◄───────────── indirect ping
//!   suspect: gossip to all; a ping that says so to the member     no ack within 1 s
//!   doubt ───────────────────────────────────────► check         to five witnesses
//!                               ? ◄─────────────── ping × 3      for 1.5 s
//!   down ◄──────────────────────────────────────── confirm       three confirm: at once;
//!                                                                fewer: after 1.8 to 3 s
//!   alive ◄──────────────────── higher incarnation               the member protests
//! ```
//!
//! When nobody at all confirms, other witnesses are asked once more: perhaps the fault is here. A
//! witness pings at most three times and tells only those who asked, so that a suspicion costs the
//! same in a cloud of five and of thousands. A node that doubts its own health waits longer
//! ([`detector::Health`]); one that was asleep begins its suspicions anew; one that hears nothing
//! from anybody for thirty seconds is cut off, and all others are unreachable to it.
//!
//! # The states of a member, as seen from here
//!
//! ```text
//! unheard ──► up ◄──► suspect ──► unreachable ──► gone
//!    │        ▲                    │   ▲            │
//!    │        └────────────────────┴───│────────────┘   it came back, with a higher boot
//!    └─────────────────────────────────┘                nobody heard it for SETTLE_AFTER
//! ```
//!
//! # Coming back
//!
//! - *Down* is final for a boot. A node that learns that it is held as down takes its next boot
//!   number. Those come from a block that is reserved on disk ahead ([`Event::Reserve`]), so that
//!   none is ever used twice. It forgets whom it held as down itself, and tells nobody of them: it
//!   was cut off, and what it found out meanwhile says nothing.
//! - The roster forgets no one. Every five seconds a few of those that are not up are announced
//!   to, fewer the larger the part that is up; also when nobody at all is: that heals total
//!   isolation, which bare foca does not. Those of whom others say that they live are announced to
//!   within a second.
//! - Every thirty seconds two nodes compare what they know ([`Event::SyncWith`]): with one that is
//!   up, and with one that is not. What the other holds as down and this node as up becomes a
//!   suspicion, never a loss, so that the member can protest.
//!
//! # Limits
//!
//! Members are trusted to speak the truth about each other, but no bytes of theirs make this node
//! panic or grow without bound. Two machines with one key fight for it; there is an alarm. Foca
//! goes through the whole table for each datagram, so that a region has a few thousand nodes.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use foca::{Foca, Member, NoCustomBroadcast, State, Timer};
use rand::RngExt;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use wire::peer::{MemberItem, MemberState};

use crate::alarm::Alarm;
use crate::instant::Instant;
use crate::limits;

mod datagram;
mod detector;
mod engine;
mod suspicions;
mod sync;
mod timers;

#[cfg(test)]
mod simulator;
#[cfg(test)]
mod tests;

use datagram::{Body, Codec, Datagram, Id, LEFT, RESTING};
use detector::{Check, Health, Suspicion};
use engine::Effects;
use timers::Timers;

/// How many boot numbers are reserved on disk ahead: a node that starts may use the one that it
/// finds on disk and so many after it, once a number so much higher is durable.
pub(crate) const BOOTS_RESERVED: u32 = 16;

/// A boot number that others tell is believed when it is at most so many ahead of the one that is
/// known: more than the starts of many years, and so few that nobody lifts a node to the end of the
/// numbers.
const BOOTS_AHEAD_MAX: u32 = 1 << 20;

/// A member that nobody heard of for so long after this node began, or after the member was
/// admitted, counts as unreachable.
pub(crate) const SETTLE_AFTER: Duration = Duration::from_secs(10);

/// Time between two rounds of announcing to members that are not up.
const REJOIN_PERIOD: Duration = Duration::from_secs(5);
/// The same while nobody is up, for the first [`REJOIN_EAGER`] rounds.
const REJOIN_PERIOD_ALONE: Duration = Duration::from_millis(500);
/// How many rounds are eager.
const REJOIN_EAGER: u32 = 20;
/// How many members are announced to in a round.
const REJOIN_MEMBERS: usize = 3;
/// Longest wait before members are announced to of which others say that they live.
const REACH_PERIOD: Duration = Duration::from_secs(1);
/// To how many members a leaving node says so.
const FAREWELLS: usize = 8;
/// How many members that are not admitted yet are remembered.
const STRANGERS_MAX: usize = 64;
/// A node that takes this much too long to notice the time was asleep, and what it did not hear
/// proves nothing.
const LATE: Duration = Duration::from_millis(500);
/// A node that hears nothing from anybody for so long is cut off, and says so of all others; more
/// than [`detector::Health`] at its worst lets pass.
const SILENCE: Duration = Duration::from_secs(30);
/// Shortest time between two boots of one process.
const RENEWAL_PAUSE: Duration = Duration::from_millis(500);
/// Shortest time between two comparisons that start for a special reason.
const SYNC_PAUSE: Duration = Duration::from_secs(2);
/// How long a member may protest when another node holds it as down, in units of the usual time.
/// Long, because after a healed cut there are many at once.
const SYNC_LENIENCE: u32 = 3;
/// How long a member may stay away that has said that it comes back at once, in units of the usual
/// time: half a minute, in which a slow machine starts a program from a slow disk.
const REST_LENIENCE: u32 = 10;

/// What a member is, as seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Liveness {
    /// Nothing is known yet. It becomes something else within [`SETTLE_AFTER`].
    Unheard,
    /// It answers, this node or others.
    Up,
    /// It did not answer this node; it still counts as up.
    Suspect,
    /// It is lost, or left.
    Unreachable {
        /// Since then.
        since: Instant,
    },
    /// It is lost for longer than [`limits::GONE_AFTER`].
    Gone {
        /// When it was lost.
        since: Instant,
    },
}

impl Liveness {
    /// It can be asked things.
    pub(crate) fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Suspect)
    }

    fn is_lost(self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Gone { .. })
    }
}

/// What the hub is to do or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// Send a datagram; at most [`limits::DATAGRAM_BYTES_MAX`].
    Send {
        /// To this member.
        to: u64,
        /// This.
        bytes: Vec<u8>,
    },
    /// The member came up: for the first time, or again.
    Up(u64),
    /// The member has taken another boot number: it was started anew, or renewed itself.
    Anew(u64),
    /// The member was lost a moment ago; or it is known from others that it was.
    Unreachable(u64),
    /// The member left on purpose. In all else as [`Event::Unreachable`].
    Left(u64),
    /// The member is lost for [`limits::GONE_AFTER`].
    Gone(u64),
    /// Boot numbers run out: make it durable that the next start begins with `until`, then call
    /// [`Membership::reserved`]. Until then this node may be unable to come back to those that
    /// lost it.
    Reserve {
        /// The first number that is not reserved.
        until: u32,
    },
    /// Start anti-entropy with this member, up or not.
    SyncWith(u64),
    /// Something that should be impossible, and involves a peer or a disk.
    Alarm {
        /// Which.
        alarm: Alarm,
        /// What was seen.
        detail: String,
    },
}

/// What is known of a member beyond what foca knows.
#[derive(Debug)]
struct Entry {
    liveness: Liveness,
    /// When it was heard directly.
    heard: Option<Instant>,
}

/// Things that are done when their time has come.
#[derive(Debug)]
enum Due {
    Foca(Timer<Id>),
    Gossip,
    Rejoin,
    Reach,
    Sync,
    Renew,
    /// Somebody is suspected for long enough, perhaps.
    Suspicion(u64),
    /// The next ping for a [`Check`].
    Check(u64),
    /// An unheard member is unreachable, or an unreachable one gone, unless that changed.
    Lapse(u64),
}

/// Failure detection and roster of one node. Four kinds of methods: getters, `handle_*`, commands,
/// `poll_*`. After any of the middle two, take all events.
pub(crate) struct Membership {
    foca: Foca<Id, Codec, ChaCha8Rng, NoCustomBroadcast>,
    effects: Effects,
    random: ChaCha8Rng,
    roster: BTreeMap<u64, Entry>,
    expelled: BTreeSet<u64>,
    /// Members that others know to be alive and that are not admitted here yet.
    strangers: BTreeMap<u64, Member<Id>>,
    /// This node's incarnation: foca does not tell, but writes it into every datagram.
    incarnation: u16,
    /// First boot number that is not reserved on disk.
    reserved: u32,
    /// A reservation up to here was asked for.
    asked_until: u32,
    /// This boot number is to be taken as soon as that is allowed.
    renewal: Option<u32>,
    renewed: Option<Instant>,
    health: Health,
    suspicions: BTreeMap<u64, Suspicion>,
    /// How many there ever were.
    suspicion_count: u64,
    checks: BTreeMap<u64, Check>,
    timers: Timers<Due>,
    /// Foca's gossip timer: it rests while there is nothing to say.
    gossip: Option<Timer<Id>>,
    gossip_due: bool,
    gossiped: Instant,
    token: foca::TimerToken,
    eager_rounds_left: u32,
    rejoin_at: Instant,
    /// Members that are down here, and of which others say that they live.
    reach: BTreeSet<u64>,
    synced: Option<Instant>,
    /// When anything was heard from any member, or when this node began.
    last_contact: Instant,
    configured_for: usize,
    left: bool,
    events: VecDeque<Event>,
}

impl fmt::Debug for Membership {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Membership")
            .field("me", self.foca.identity())
            .field("roster", &self.roster)
            .field("health", &self.health)
            .field("suspicions", &self.suspicions)
            .finish_non_exhaustive()
    }
}

impl Membership {
    /// The membership of a node that begins.
    ///
    /// `boot` is the number that the disk holds (0 on a new disk), and it must be durable that the
    /// next start finds `boot +` [`BOOTS_RESERVED`] before anything is sent. `roster` is everyone
    /// who is admitted; this node in it does not matter.
    pub(crate) fn new(
        now: Instant,
        me: u64,
        boot: u32,
        roster: impl Iterator<Item = u64>,
        seed: [u8; 32],
    ) -> Self {
        let mut random = ChaCha8Rng::from_seed(seed);
        let mut random_of_foca = random.clone();
        random_of_foca.set_stream(1);
        let new_entry = |node| {
            let liveness = Liveness::Unheard;
            let heard = None;
            (node, Entry { liveness, heard })
        };
        let roster: BTreeMap<u64, Entry> =
            roster.filter(|&node| node != me).map(new_entry).collect();
        let nodes = roster.len() + 1;
        let mut timers = Timers::new();
        timers.add(now, Due::Rejoin);
        let sync_first = random.random_range(Duration::ZERO..limits::SYNC_PERIOD);
        timers.add(now + sync_first, Due::Sync);
        for &node in roster.keys() {
            timers.add(now + SETTLE_AFTER, Due::Lapse(node));
        }
        let id = Id { node: me, boot };
        let configuration = detector::configuration(nodes);
        Self {
            foca: Foca::new(id, configuration, random_of_foca, Codec),
            effects: Effects::default(),
            random,
            roster,
            expelled: BTreeSet::new(),
            strangers: BTreeMap::new(),
            incarnation: 0,
            reserved: boot.saturating_add(BOOTS_RESERVED),
            asked_until: boot.saturating_add(BOOTS_RESERVED),
            renewal: None,
            renewed: None,
            health: Health::default(),
            suspicions: BTreeMap::new(),
            suspicion_count: 0,
            checks: BTreeMap::new(),
            timers,
            gossip: None,
            gossip_due: false,
            gossiped: now,
            token: foca::TimerToken::default(),
            eager_rounds_left: REJOIN_EAGER,
            rejoin_at: now,
            reach: BTreeSet::new(),
            synced: None,
            last_contact: now,
            configured_for: nodes,
            left: false,
            events: VecDeque::new(),
        }
    }

    /// What the member is, as seen from here. [`Liveness::Unheard`] for one that is not admitted.
    pub(crate) fn state(&self, node: u64) -> Liveness {
        match self.roster.get(&node) {
            None => Liveness::Unheard,
            Some(entry) if entry.liveness == Liveness::Up => {
                if self.suspicions.contains_key(&node) {
                    Liveness::Suspect
                } else {
                    Liveness::Up
                }
            }
            Some(entry) => entry.liveness,
        }
    }

    /// Every other member, by short id.
    #[cfg(test)]
    pub(crate) fn members(&self) -> impl Iterator<Item = (u64, Liveness)> {
        self.roster.keys().map(|&node| (node, self.state(node)))
    }

    /// How often this node has suspected a member, since it began.
    pub(crate) fn suspicion_count(&self) -> u64 {
        self.suspicion_count
    }

    /// The boot number in use.
    pub(crate) fn boot(&self) -> u32 {
        self.foca.identity().boot
    }

    /// This node holds the member as lost: each may know of losses that the other must not believe
    /// outright.
    pub(crate) fn is_estranged(&self, node: u64) -> bool {
        !self.state(node).is_up()
    }

    /// A hash over all that is known of the members.
    pub(crate) fn members_hash(&self) -> u64 {
        sync::hash(self.known())
    }

    /// The same, one hash a bucket.
    pub(crate) fn bucket_hashes(&self) -> Vec<u64> {
        sync::bucket_hashes(self.known())
    }

    /// What is in these buckets: bit i is bucket i.
    pub(crate) fn items(&self, buckets: u64) -> Vec<MemberItem> {
        self.known()
            .filter(|member| buckets >> sync::bucket(member.id().node) & 1 == 1)
            .map(|member| sync::item(&member))
            .collect()
    }

    /// A datagram came. Whoever sent it is known from the link.
    pub(crate) fn handle_datagram(&mut self, now: Instant, from: u64, bytes: &[u8]) {
        let me = self.foca.identity().node;
        if self.left || from == me {
            return;
        }
        let Some(entry) = self.roster.get_mut(&from) else {
            return;
        };
        let datagram = match Datagram::parse(from, me, bytes) {
            Ok(datagram) => datagram,
            Err(malformed) => {
                self.alarm(Alarm::MembershipMalformed, malformed.to_string());
                return;
            }
        };
        entry.heard = Some(now);
        self.last_contact = now;
        self.health.heard(from);
        self.learn_own_boot(now, datagram.to.boot);
        match datagram.body {
            Body::Swim(..) => self.handle_swim(now, datagram),
            Body::Heard => {}
            Body::Doubt(id, incarnation) => self.handle_doubt(now, from, id, incarnation),
            Body::Confirm(id, incarnation) => self.handle_confirm(now, from, id, incarnation),
        }
        self.handle_sign_of_life(from);
    }

    /// The time has come that [`Membership::poll_timeout`] told.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if let Some(due) = self.timers.first() {
            let late = now.since(due);
            if late >= LATE {
                self.timers.postpone(late);
                self.postpone_suspicions(late);
                self.last_contact = self.last_contact + late;
                self.health.was_late();
            }
        }
        while let Some(due) = self.timers.take_due(now) {
            self.fire(now, due);
        }
    }

    /// When to call [`Membership::handle_timeout`].
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.timers.first()
    }

    /// What is to be done or known next.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The node belongs to the cloud. One that was expelled does not come back.
    pub(crate) fn admit(&mut self, now: Instant, node: u64) {
        let known = node == self.foca.identity().node
            || self.roster.contains_key(&node)
            || self.expelled.contains(&node);
        if known || self.left {
            return;
        }
        let liveness = Liveness::Unheard;
        self.roster.insert(
            node,
            Entry {
                liveness,
                heard: None,
            },
        );
        self.timers.add(now + SETTLE_AFTER, Due::Lapse(node));
        if let Some(member) = self.strangers.remove(&node) {
            self.learn(now, [member].into_iter(), true);
        }
        if !self.state(node).is_up() {
            self.announce(now, node);
        }
        self.reconfigure();
    }

    /// The node does not belong to the cloud any more, for good.
    pub(crate) fn expel(&mut self, now: Instant, node: u64) {
        if node == self.foca.identity().node || !self.expelled.insert(node) {
            return;
        }
        self.roster.remove(&node);
        self.strangers.remove(&node);
        self.suspicions.remove(&node);
        self.checks.remove(&node);
        if let Some(member) = self.held(node) {
            let down = Member::new(*member.id(), member.incarnation(), State::Down);
            let id = *member.id();
            self.run(now, |foca, effects| {
                foca.apply_many([down].into_iter(), false, &mut *effects)?;
                foca.handle_timer(Timer::RemoveDown(id), effects)
            });
        }
        self.reconfigure();
    }

    /// This node stops on purpose: it says so, and then nothing more.
    pub(crate) fn leave(&mut self) {
        self.say_last(LEFT, State::Down);
    }

    /// The process of this node ends and is expected back at once: it says so, and then nothing
    /// more. Who heard it is in no hurry to hold it as lost.
    pub(crate) fn rest(&mut self) {
        self.say_last(RESTING, State::Alive);
    }

    fn say_last(&mut self, incarnation: u16, state: State) {
        if self.left {
            return;
        }
        let me = *self.foca.identity();
        let farewell = Member::new(me, incarnation, state);
        for to in self.some_active(FAREWELLS, |_| true) {
            let updates = [farewell.clone()].into_iter().collect();
            self.send(to, Body::Swim(foca::Message::Gossip, updates));
        }
        self.left = true;
        self.timers.keep(|_| false);
    }

    /// The disk holds `until` now, see [`Event::Reserve`].
    pub(crate) fn reserved(&mut self, now: Instant, until: u32) {
        self.reserved = self.reserved.max(until);
        self.try_renewal(now);
    }

    /// The link to the member broke. That proves nothing, but is a reason to look.
    pub(crate) fn doubt(&mut self, now: Instant, node: u64) {
        if self.left {
            return;
        }
        let Some(member) = self.held(node) else {
            return;
        };
        if member.state() == State::Alive {
            let (id, incarnation) = (*member.id(), member.incarnation());
            let suspect = Member::new(id, incarnation, State::Suspect);
            self.learn(now, [suspect].into_iter(), true);
            self.suspect(now, id, incarnation, 1);
        }
    }

    /// What another node knows, from anti-entropy.
    ///
    /// A member that it holds as down and this node as up becomes a suspect here, so that it can
    /// protest; that the two were estranged changes nothing about it. This node itself, if held as down, renews
    /// itself: down is final.
    pub(crate) fn merge(&mut self, now: Instant, from: u64, items: &[MemberItem], estranged: bool) {
        let _ = estranged;
        if self.left || !self.roster.contains_key(&from) {
            return;
        }
        if let Some(entry) = self.roster.get_mut(&from) {
            entry.heard = Some(now);
            self.last_contact = now;
        }
        let held: BTreeMap<u64, Member<Id>> = self
            .known()
            .map(|member| (member.id().node, member))
            .collect();
        let me = *self.foca.identity();
        let (mut news, mut losses, mut doubted) = (Vec::new(), Vec::new(), Vec::new());
        for item in items {
            let known = held.get(&item.node);
            let active = known.filter(|held| held.state() != State::Down);
            let is_loss = item.state == MemberState::Down && item.incarnation != LEFT;
            match active {
                Some(active) if is_loss && item.node != me.node => {
                    let held_at = (active.id().boot, active.incarnation());
                    if held_at <= (item.boot, item.incarnation) && held_at.0 == item.boot {
                        doubted.push((*active.id(), item.incarnation));
                        news.push(sync::member(item, State::Suspect));
                    }
                }
                None if is_loss => losses.push(sync::member(item, State::Down)),
                Some(_) | None => news.push(sync::member(item, sync::state(item.state))),
            }
        }
        let news = self.filter(now, from, news);
        self.learn(now, news.into_iter(), true);
        // Whoever could be told of these losses was told when they occurred.
        let losses = self.filter(now, from, losses);
        self.learn(now, losses.into_iter(), false);
        for (id, incarnation) in doubted {
            self.suspect(now, id, incarnation, SYNC_LENIENCE);
        }
    }
}
