//! The kernel itself: the one place where the kernel processes meet.
//!
//! Each file here adds one part of [`Kernel`]: who is here ([`region`]), who may come
//! ([`admission`]), by whom it is reached ([`relays`]), what runs here ([`hosting`]), which apps
//! this node answers for ([`guarding`]), where their objects go ([`placing`]), which run at certain
//! times ([`jobs`]), which wait for others ([`ordering`]),
//! what never runs twice ([`once`]), who waits for that
//! ([`waiting`]), and which write is newer ([`versions`]). The processes themselves never name each other.

mod admission;
mod guarding;
mod hosting;
mod jobs;
mod levels;
mod once;
mod ordering;
mod pending;
mod placing;
mod records;
mod region;
mod relays;
mod versions;
mod waiting;

#[cfg(test)]
mod tests;

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::time::Duration;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::DecodeError;
use wire::call::{Event, Problem, ProblemCode, Request, Response};
use wire::disk::{NodeState, Table, Write};
use wire::fact::{Availability, Capacity, NodeFacts};
use wire::id::{AppId, NodeId, ObjectId, UnixMillis, Version};
use wire::peer::{Answer, AppRecord, Ask, HostedObject, MESSAGE_BYTES_MAX, Message, Statement};
use wire::tenancy::{Claim, Seat, StoredSeat};

use crate::alarm::Alarm;
use crate::auth::Auth;
use crate::directory::Directory;
use crate::health::Probing;
use crate::instant::Instant;
use crate::lease::Ledger;
use crate::limits::{ASK_DEADLINE, CALL_DEADLINE, CALLS_MAX};
use crate::measurement::Measurement;
use crate::membership::{BOOTS_RESERVED, Membership};
use crate::objects::Objects;
use crate::order::{Inquiry, Order};
use crate::outbox::{Basis, Outbox};
use crate::pacing::Pacing;
use crate::patience::Patience;
use crate::questions::{Questions, Returned};
use crate::relaying::Relaying;
use crate::supervisor::Supervision;
use crate::twice::Twice;
use crate::world::{Config, Input, Output, Token};

pub(crate) use crate::world::Origin;
pub(crate) use admission::SignPurpose;
pub(crate) use guarding::{Wish, call_response};
use once::Once;
pub(crate) use once::term_ms;
use ordering::Purpose;
use pending::Pending;
use placing::Placing;
pub(crate) use waiting::{StartedBy, WaitFor, Waiter};

/// How often everything is looked over that events alone do not keep right.
const MAINTENANCE_PERIOD: Duration = Duration::from_secs(10);
/// A node that hears nothing and notices no time for so long was asleep: even one that is alone
/// has something to do more often.
const ASLEEP: Duration = Duration::from_secs(15);
/// For so long after that, what arrives may be old: whoever asked has been told that this node does
/// not answer.
const DROWSY: Duration = Duration::from_secs(1);
/// Turns of one step; one that takes more goes in a circle, which is a bug, but must not take the
/// node with it.
const TURNS_MAX: u32 = 1 << 18;

/// The state machine of one node.
#[derive(Debug)]
pub struct Kernel {
    pub(crate) me: NodeId,
    pub(crate) config: Config,
    pub(crate) now: Instant,
    /// What the wall clock said, and when.
    wall: (Instant, UnixMillis),
    /// The last version that was given out or seen.
    clock: Version,
    pub(crate) rng: ChaCha8Rng,
    pub(crate) outbox: Outbox,
    pub(crate) membership: Membership,
    pub(crate) auth: Auth,
    pub(crate) measurement: Measurement,
    pub(crate) relaying: Relaying,
    pub(crate) directory: Directory,
    pub(crate) ledger: Ledger,
    pub(crate) once: Once,
    pub(crate) twice: Twice,
    pub(crate) objects: Objects,
    probing: Probing,
    pub(crate) supervision: Supervision,
    pub(crate) order: Order,
    /// When records are written.
    pacing: Pacing,
    /// What nodes owe to those who read.
    pub(crate) patience: Patience,
    /// Rounds of questions about apps that others wait for.
    inquiries: BTreeMap<u64, (Inquiry, Purpose)>,
    pub(crate) questions: Questions<Task>,
    returned: Returned<Result<Answer, Problem>>,
    /// Messages of this node to itself.
    loopback: VecDeque<Message>,
    /// Members by short id.
    by_short: BTreeMap<u64, NodeId>,
    boot_reserved: u32,
    /// The step with which boot numbers up to here become usable, see [`Outbox::persisted`].
    reserving: Option<(u64, u32)>,
    signing: BTreeMap<Token, SignPurpose>,
    measuring: BTreeMap<Token, Origin>,
    last_token: u64,
    placings: BTreeMap<u64, Placing>,
    pub(crate) scatters: BTreeMap<u64, crate::calls::Scatter>,
    pub(crate) effects: BTreeMap<u64, crate::calls::Effect>,
    last_task: u64,
    pub(crate) waiters: Vec<Waiter>,
    pub(crate) pending: Pending,
    /// Questions that were abandoned before they came, or after they were answered.
    overtaken: VecDeque<(NodeId, u64)>,
    /// Calls of `app/wait` between two rounds, and when the next one begins.
    waits: Vec<(Instant, Origin, Box<Request>)>,
    /// Apps whose record this node need not keep, and since when.
    spare_since: BTreeMap<AppId, Instant>,
    /// Apps that have ended and are not restarted, and since when that is known here.
    over_since: BTreeMap<AppId, Instant>,
    /// Apps whose newest record may be at a node that has just come back: no objects are placed
    /// for them until the time has come.
    unsettled: BTreeMap<AppId, Instant>,
    /// When nodes came up, this one among them: until [`region::SETTLE`] is over, they may have
    /// records that are not the newest; kept while calls may wait that began before.
    came_up: BTreeMap<NodeId, Instant>,
    /// When nodes came up, were lost, or stopped or began to supervise: others may see that later.
    shifted: BTreeMap<NodeId, Instant>,
    /// When this node noticed that it had been asleep.
    woke_at: Option<Instant>,
    /// Objects of the apps that are supervised here, and when their hosts last spoke of them.
    heard: BTreeMap<ObjectId, Instant>,
    /// Where hosted objects were last reported to.
    reported_to: BTreeMap<AppId, NodeId>,
    /// What hosts were asked to do with objects and have not answered.
    asked: BTreeSet<(ObjectId, Wish)>,
    /// Apps whose record is being fetched from a host.
    fetching: BTreeSet<AppId>,
    maintain_at: Instant,
    /// Removed nodes whose links are closed when the time has come.
    farewells: Vec<(Instant, NodeId)>,
    /// Apps that remove themselves, and when.
    pub(crate) lingering: BTreeMap<AppId, Instant>,
    /// Set while this node is being stopped: who asked, and when.
    pub(crate) leaving: Option<(Origin, Instant)>,
    /// What this node was before, and is again when it comes back.
    before_leaving: Availability,
    halted: bool,
    /// The process ends, and the next one goes on.
    rests: bool,
}

/// What the answer to a question is for.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Task {
    /// To be handed on as it is.
    Forward(Origin),
    /// To be handed on; the name may be the prefix of an id if nobody has it.
    ForwardOrPrefix {
        origin: Origin,
        request: Box<Request>,
    },
    /// A part of a scattered question.
    Scatter(u64),
    /// Something done to an object on behalf of a call.
    Effect(u64),
    /// An offer for a placing.
    Reserve(u64),
    /// The start of an object.
    Launch(u64),
    /// A copy of a record, of these versions.
    Store {
        app: AppId,
        versions: (Version, Version),
    },
    /// Something that supervision wants done with an object.
    Asked {
        app: AppId,
        object: ObjectId,
        wish: Wish,
    },
    /// A record that only a host has.
    Fetch(AppId),
    /// Objects that the host has not spoken of for long when it was asked, at that time.
    Confirm { app: AppId, asked_at: Instant },
    /// A seat for an app that never runs twice.
    SeatTaken(u64),
    /// Part of a proposal.
    Seat {
        proposal: u64,
        round: u32,
        seat: Seat,
    },
    /// The tenure of an object here, at that time.
    Renew {
        claim: Claim,
        seat: Seat,
        asked_at: Instant,
    },
    /// Who votes on the tenancy of an object here, which its seats do not tell any more.
    Reseated(ObjectId),
    /// How far an app is, for a round of questions.
    Standing { number: u64, name: String },
    /// Nobody needs the answer.
    Forget,
}

impl Kernel {
    /// A kernel that goes on where its disk says it was.
    #[must_use]
    pub fn new(now: Instant, mut config: Config) -> Self {
        let mut rng = ChaCha8Rng::from_seed(config.seed);
        let (restored, damaged) = Restored::read(core::mem::take(&mut config.stored));
        let first_boot = restored.node.as_ref().map_or(0, |node| node.boot_reserved);
        let own = own_facts(&config, restored.node.as_ref(), first_boot);
        let auth = own_auth(&config, &restored);
        let membership = own_membership(now, &config, first_boot, &auth, rng.random());
        let mut kernel = Self {
            me: config.node,
            now,
            wall: (now, config.wall),
            clock: before_all(config.node),
            outbox: Outbox::default(),
            membership,
            auth,
            measurement: Measurement::new(own),
            relaying: Relaying::new(&config.addresses),
            directory: Directory::default(),
            ledger: Ledger::new(config.cpu_millis, config.memory_bytes),
            once: Once::default(),
            twice: Twice::default(),
            objects: Objects::default(),
            probing: Probing::default(),
            supervision: Supervision::default(),
            order: Order::default(),
            pacing: Pacing::default(),
            patience: Patience::default(),
            inquiries: BTreeMap::new(),
            questions: Questions::new(rng.random()),
            returned: Returned::default(),
            loopback: VecDeque::new(),
            by_short: BTreeMap::new(),
            boot_reserved: first_boot.saturating_add(BOOTS_RESERVED),
            reserving: None,
            signing: BTreeMap::new(),
            measuring: BTreeMap::new(),
            last_token: 0,
            placings: BTreeMap::new(),
            scatters: BTreeMap::new(),
            effects: BTreeMap::new(),
            last_task: 0,
            waiters: Vec::new(),
            pending: Pending::default(),
            overtaken: VecDeque::new(),
            waits: Vec::new(),
            spare_since: BTreeMap::new(),
            over_since: BTreeMap::new(),
            unsettled: BTreeMap::new(),
            came_up: BTreeMap::from([(config.node, now)]),
            shifted: BTreeMap::from([(config.node, now)]),
            woke_at: None,
            heard: BTreeMap::new(),
            reported_to: BTreeMap::new(),
            asked: BTreeSet::new(),
            fetching: BTreeSet::new(),
            maintain_at: now + MAINTENANCE_PERIOD,
            farewells: Vec::new(),
            lingering: BTreeMap::new(),
            leaving: None,
            before_leaving: Availability::Open,
            halted: false,
            rests: false,
            rng,
            config,
        };
        kernel.awake(restored, damaged);
        kernel
    }

    /// Takes up what the disk and the driver still had.
    fn awake(&mut self, restored: Restored, damaged: Vec<String>) {
        for detail in damaged {
            self.alarm(Alarm::DiskDamaged, detail);
        }
        self.write_node();
        for statement in core::mem::take(&mut self.config.statements) {
            self.write_statement(&statement);
        }
        let members: Vec<NodeId> = self.auth.members().collect();
        for node in &members {
            self.by_short.insert(node.short_id(), *node);
        }
        let told = core::mem::take(&mut self.config.facts);
        for facts in restored.facts.into_iter().chain(told) {
            self.learn_facts(&facts);
        }
        for node in members {
            // Also one that has said nothing yet is a member, and may dial.
            if self.measurement.get(node).is_none() {
                self.tell_peer(node);
            }
        }
        for record in restored.records {
            self.restore_record(record);
        }
        self.heed_wall();
        for (number, stored) in restored.seats {
            self.once.seats.restore(self.now, number, stored);
        }
        self.awake_objects(restored.objects);
        self.end_step();
    }

    /// Tells it what happened.
    pub fn handle(&mut self, now: Instant, input: Input) {
        self.advance(now);
        match input {
            Input::Wall(wall) => {
                self.wall = (self.now, wall);
                self.heed_wall();
            }
            Input::Ending(ending) => self.end(ending),
            Input::Datagram { from, bytes } => self.handle_datagram(from, &bytes),
            Input::Message { from, bytes } => self.handle_message(from, &bytes),
            Input::Undelivered { to, bytes } => self.handle_undelivered(to, &bytes),
            Input::RoundTrip { node, rtt_us } => self.measurement.note_round_trip(node, rtt_us),
            Input::Join {
                token,
                node,
                request,
            } => self.handle_join(token, node, *request),
            Input::Persisted { batch } => {
                let durable = self.outbox.persisted(self.now, batch);
                if let Some((_, until)) = self.reserving.filter(|(needed, _)| *needed <= durable) {
                    self.reserving = None;
                    self.membership.reserved(self.now, until);
                }
            }
            Input::PersistFailed { batch, reason } => {
                self.alarm(Alarm::DiskRefused, reason.clone());
                self.outbox.persist_failed(self.now, batch, reason);
                self.halt_without_disk();
            }
            Input::Call { call, request } => self.handle_call(call, *request),
            Input::Abandoned { call } => {
                self.outbox.forget_caller(call);
                self.pending.close(Origin::Caller(call));
                self.abandon(Origin::Caller(call));
            }
            Input::Driver { object, report } => self.handle_driver(object, report),
            Input::Measured { token, usages } => self.handle_measured(token, &usages),
            Input::Probed {
                object,
                probe,
                outcome,
            } => self.probing.handle_probed(self.now, object, probe, outcome),
            Input::Signed { token, signature } => self.handle_signed(token, signature),
            Input::Load(load) => self.measurement.note_load(load),
            Input::Addresses(addresses) => {
                self.relaying.handle_addresses(&addresses);
                self.tell_facts(|facts| facts.addresses = addresses);
            }
            Input::Line { relay, state } => self.handle_line(relay, &state),
            Input::Linked { node, via } => self.relaying.handle_linked(node, via),
            Input::Undialled { node } => self.relaying.handle_undialled(self.now, node),
            Input::Twice {
                node,
                first,
                second,
            } => self.handle_twice(node, first, &second),
        }
        self.end_step();
    }

    /// Tells it that the time it asked for has come.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.advance(now);
        self.membership.handle_timeout(self.now);
        self.outbox.handle_timeout(self.now);
        self.ledger.handle_timeout(self.now);
        self.objects.handle_timeout(self.now);
        self.probing.handle_timeout(self.now);
        self.once.tenures.handle_timeout(self.now);
        self.supervision.handle_timeout(self.now);
        for app in self.order.handle_timeout(self.now) {
            self.supervision.touch(app);
        }
        self.save_due();
        for (node, task) in self.questions.expire(self.now) {
            self.handle_silence(node, task);
        }
        self.send_returned();
        self.supervision.handle_wall(self.wall());
        self.expire_unsettled();
        self.expire_waiters();
        self.renew_waits();
        self.expire_farewells();
        self.expire_lingering();
        if self.maintain_at <= self.now {
            self.maintain_at = self.now + MAINTENANCE_PERIOD;
            self.maintain();
        }
        self.end_step();
    }

    fn advance(&mut self, now: Instant) {
        let was_asleep = now.since(self.now) > ASLEEP;
        self.now = self.now.max(now);
        if was_asleep {
            // Others may have changed what this node keeps, and it is about to hear old calls.
            self.came_up.insert(self.me, self.now);
            self.woke_at = Some(self.now);
        }
    }

    /// Whether what arrives may have been sent while this node slept.
    fn has_just_woken(&self) -> bool {
        self.woke_at.is_some_and(|at| at + DROWSY > self.now)
    }

    /// What is to be done next.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.poll_output()
    }

    /// When it wants to be told the time.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let settled = self.unsettled.values().min().copied();
        let telling = self
            .measurement
            .is_changed()
            .then(|| self.measurement.tell_after());
        [
            self.membership.poll_timeout(),
            self.outbox.poll_timeout(),
            self.ledger.poll_timeout(),
            self.objects.poll_timeout(),
            self.probing.poll_timeout(),
            self.once.tenures.poll_timeout(),
            self.relaying.poll_timeout(),
            self.supervision.poll_timeout(),
            self.order.poll_timeout(),
            self.pacing.poll_timeout(),
            self.questions.poll_timeout(),
            self.returned.poll_timeout(),
            self.waiters.iter().map(|waiter| waiter.deadline).min(),
            self.waits.iter().map(|(at, _, _)| *at).min(),
            self.leaving_timeout(),
            self.timetable_timeout(),
            self.farewells.first().map(|(at, _)| *at),
            self.lingering.values().min().copied(),
            settled,
            telling,
            Some(self.maintain_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// What it has begun and not finished, in words, for whoever looks for what never ends: each of
    /// them is over on a node that was left alone for long enough.
    #[must_use]
    pub fn unfinished(&self) -> Vec<&'static str> {
        let all = [
            (!self.waiters.is_empty(), "calls that wait"),
            (!self.pacing.is_empty(), "records to be written"),
            (!self.pending.is_empty(), "calls that change something"),
            (!self.placings.is_empty(), "placings"),
            (!self.scatters.is_empty(), "scattered questions"),
            (!self.effects.is_empty(), "calls that act"),
            (!self.asked.is_empty(), "wishes put to hosts"),
            (!self.fetching.is_empty(), "records being fetched"),
            (
                self.questions
                    .any(|task| !matches!(task, Task::Renew { .. } | Task::Standing { .. })),
                "questions",
            ),
            (self.is_seating(), "tenancies that change"),
            (self.ledger.has_leases(), "leases"),
            (self.supervision.is_placing(), "slots being placed"),
            (!self.measuring.is_empty(), "measurements"),
            (!self.signing.is_empty(), "signatures"),
        ];
        let goes_on = all.into_iter().filter(|(goes_on, _)| *goes_on);
        goes_on.map(|(_, what)| what).collect()
    }

    /// Runs what this step has set off until nothing is left, then lets it out.
    fn end_step(&mut self) {
        self.heed_impairment();
        self.give_up_changes();
        let mut turns_left = TURNS_MAX;
        loop {
            turns_left -= 1;
            if turns_left == 0 {
                self.alarm(
                    Alarm::KernelEndless,
                    "a step did not come to its end".to_string(),
                );
                break;
            }
            while let Some(event) = self.membership.poll_event() {
                self.handle_membership(event);
            }
            while let Some(action) = self.probing.poll_action() {
                self.handle_probing(action);
            }
            while let Some(action) = self.objects.poll_action() {
                self.handle_action(action);
            }
            if let Some(message) = self.loopback.pop_front() {
                self.handle_decoded(self.me, message);
            } else if let Some(app) = self.supervision.next_dirty() {
                self.supervise(app);
            } else if self.heed_tenures() {
            } else if !self.expire_leaving() {
                break;
            }
        }
        self.heed_relays();
        self.tell_usage();
        self.outbox.flush();
    }

    pub(crate) fn next_task(&mut self) -> u64 {
        self.last_task += 1;
        self.last_task
    }

    fn next_token(&mut self) -> Token {
        self.last_token += 1;
        Token(self.last_token)
    }

    /// Asks a node something; the task comes back to [`Kernel::handle_answer`] or
    /// [`Kernel::handle_silence`], exactly once.
    pub(crate) fn ask(&mut self, to: NodeId, ask: Ask, task: Task) {
        self.ask_until(to, ask, task, self.now + ASK_DEADLINE);
    }

    pub(crate) fn ask_until(&mut self, to: NodeId, ask: Ask, task: Task, deadline: Instant) {
        let tells_nothing = pending::tells_nothing(&ask);
        match self.questions.open(self.now, to, deadline, task) {
            Ok(question) => {
                let message = Message::Ask {
                    question,
                    ask: Box::new(ask),
                };
                if tells_nothing {
                    self.send_now(to, message);
                } else if let Some(output) = self.addressed(to, message) {
                    self.outbox.say_until(deadline, output);
                }
            }
            Err(task) => self.handle_silence(to, task),
        }
    }

    /// Sends what may depend on what was written; not at all when that takes so long that it is
    /// said anew by then, or that nobody waits for it.
    pub(crate) fn send(&mut self, to: NodeId, message: Message) {
        self.send_on(Basis::Durable, to, message);
    }

    fn send_on(&mut self, basis: Basis, to: NodeId, message: Message) {
        let term = match &message {
            Message::Answer { answer, .. } => match answer.as_ref() {
                // The one call without a deadline.
                Ok(Answer::Call(response)) if matches!(**response, Response::Wait(_)) => None,
                Ok(_) | Err(_) => Some(CALL_DEADLINE),
            },
            Message::Reports(_)
            | Message::Rumors(_)
            | Message::SyncHello { .. }
            | Message::SyncBuckets { .. }
            | Message::SyncItems { .. } => Some(MAINTENANCE_PERIOD),
            Message::Ask { .. } | Message::Abandon { .. } => Some(ASK_DEADLINE),
        };
        if let Some(output) = self.addressed(to, message) {
            let stale_at = term.map(|term| self.now + term);
            self.outbox.say_on(basis, stale_at, output);
        }
    }

    /// Sends what depends on nothing that was written.
    pub(crate) fn send_now(&mut self, to: NodeId, message: Message) {
        if let Some(output) = self.addressed(to, message) {
            self.outbox.act(output);
        }
    }

    fn addressed(&mut self, to: NodeId, message: Message) -> Option<Output> {
        if to == self.me {
            self.loopback.push_back(message);
            return None;
        }
        let is_told_why = self.farewells.iter().any(|(_, node)| *node == to);
        if !self.auth.is_member(to) && !is_told_why {
            return None;
        }
        match wire::encode(&message) {
            Ok(bytes) if bytes.len() <= MESSAGE_BYTES_MAX => Some(Output::Message { to, bytes }),
            Ok(bytes) => {
                self.alarm(
                    Alarm::MessageTooLong,
                    alloc::format!("{} bytes", bytes.len()),
                );
                None
            }
            Err(error) => {
                self.alarm(Alarm::MessageEncode, error.to_string());
                None
            }
        }
    }

    pub(crate) fn reply(&mut self, origin: Origin, result: Result<Response, Problem>) {
        if self.pending.close(origin) {
            return;
        }
        let basis = pending::basis_of_reply(origin, &result);
        match origin {
            Origin::Caller(call) => {
                let result = Box::new(result);
                let output = Output::Reply { call, result };
                self.outbox.say_on(basis, None, output);
            }
            Origin::Peer { node, question } => {
                let answer = result.map(|it| Answer::Call(Box::new(it)));
                self.answer(basis, node, question, answer);
            }
        }
    }

    /// Replies with what depends on nothing that was written here: a refusal, what is hearsay anyway,
    /// or what another node answered. So it is said also while the disk takes no writes.
    pub(crate) fn reply_now(&mut self, origin: Origin, result: Result<Response, Problem>) {
        if self.pending.close(origin) {
            return;
        }
        match origin {
            Origin::Caller(call) => {
                let result = Box::new(result);
                self.outbox.act(Output::Reply { call, result });
            }
            Origin::Peer { node, question } => {
                let answer = Box::new(result.map(|it| Answer::Call(Box::new(it))));
                self.send_now(node, Message::Answer { question, answer });
            }
        }
    }

    pub(crate) fn answer(
        &mut self,
        basis: Basis,
        to: NodeId,
        question: u64,
        answer: Result<Answer, Problem>,
    ) {
        let answer = Box::new(answer);
        self.send_on(basis, to, Message::Answer { question, answer });
    }

    pub(crate) fn event(&mut self, kind: &str, subject: String, message: String) {
        let node = self.measurement.name(self.me);
        let event = Event {
            at: self.wall(),
            node,
            kind: kind.to_string(),
            subject,
            message,
        };
        self.outbox.act(Output::Event(event));
    }

    /// Something that should be impossible, and involves a peer or a disk.
    pub(crate) fn alarm(&mut self, alarm: Alarm, detail: String) {
        self.outbox.act(Output::Alarm { alarm, detail });
    }

    pub(crate) fn write(&mut self, table: Table, key: &[u8], value: Option<Vec<u8>>) {
        self.outbox.write(Write {
            table,
            key: key.to_vec(),
            value,
        });
    }

    fn write_sealed<T: wire::Serialize>(&mut self, table: Table, key: &[u8], value: &T) {
        match wire::disk::seal(value) {
            Ok(sealed) => self.write(table, key, Some(sealed)),
            Err(error) => self.alarm(Alarm::DiskEncode, error.to_string()),
        }
    }

    fn write_node(&mut self) {
        let Some(facts) = self.measurement.get(self.me) else {
            return;
        };
        let state = NodeState {
            cloud: self.config.cloud,
            node: self.me,
            boot_reserved: self.boot_reserved,
            name: facts.name.clone(),
            labels: self.measurement.own_labels(),
            availability: match facts.availability {
                Availability::Leaving => self.before_leaving,
                other @ (Availability::Open | Availability::Draining) => other,
            },
        };
        self.write_sealed(Table::Node, b"node", &state);
    }

    fn write_statement(&mut self, statement: &Statement) {
        self.write_sealed(Table::Statements, &statement_key(statement), statement);
    }

    /// Whether another call can be taken.
    pub(crate) fn is_busy(&self) -> bool {
        self.waiters.len()
            + self.waits.len()
            + self.scatters.len()
            + self.effects.len()
            + self.inquiries.len()
            >= CALLS_MAX
    }

    pub(crate) fn unreachable_node(&self, node: NodeId) -> Problem {
        let name = self.measurement.name(node);
        Problem::new(
            ProblemCode::Unreachable,
            alloc::format!("node {name} does not answer"),
        )
        .remedy("welkin nodes")
    }
}

fn statement_key(statement: &Statement) -> Vec<u8> {
    let mut key = match statement.body {
        wire::peer::StatementBody::Admission { .. } => b"a".to_vec(),
        wire::peer::StatementBody::Removal { .. } => b"r".to_vec(),
    };
    key.extend_from_slice(&statement.body.subject().0);
    key.extend_from_slice(&statement.signer);
    key
}

/// What the disk held.
#[derive(Debug, Default)]
struct Restored {
    node: Option<NodeState>,
    statements: Vec<Statement>,
    records: Vec<AppRecord>,
    objects: Vec<HostedObject>,
    facts: Vec<NodeFacts>,
    seats: Vec<(u64, StoredSeat)>,
}

impl Restored {
    /// And which rows could not be read.
    fn read(stored: Vec<(Table, Vec<u8>, Vec<u8>)>) -> (Self, Vec<String>) {
        let (mut it, mut damaged) = (Self::default(), Vec::new());
        for (table, key, value) in stored {
            let read = match table {
                Table::Node => wire::disk::unseal(&value).map(|node| it.node = Some(node)),
                Table::Statements => wire::disk::unseal(&value).map(|one| it.statements.push(one)),
                Table::Records => wire::disk::unseal(&value).map(|one| it.records.push(one)),
                Table::Objects => wire::disk::unseal(&value).map(|one| it.objects.push(one)),
                Table::Facts => wire::disk::unseal(&value).map(|one| it.facts.push(one)),
                Table::Seats => match key.first_chunk::<8>() {
                    Some(number) => wire::disk::unseal(&value)
                        .map(|one| it.seats.push((u64::from_be_bytes(*number), one))),
                    None => Err(DecodeError::Malformed("its key is too short")),
                },
            };
            if let Err(error) = read {
                let key = key
                    .first_chunk::<4>()
                    .map_or(0, |bytes| u32::from_be_bytes(*bytes));
                damaged.push(alloc::format!("{} {key:08x}…: {error}", table.name()));
            }
        }
        (it, damaged)
    }
}

/// Membership of all that the node knows to belong to the cloud.
fn own_membership(
    now: Instant,
    config: &Config,
    boot: u32,
    auth: &Auth,
    seed: [u8; 32],
) -> Membership {
    let roster = auth.members().map(|node| node.short_id());
    Membership::new(now, config.node.short_id(), boot, roster, seed)
}

/// What the node knows of who belongs to the cloud when it begins.
fn own_auth(config: &Config, restored: &Restored) -> Auth {
    let mut auth = Auth::new(config.cloud);
    for statement in restored.statements.iter().chain(&config.statements) {
        auth.learn(statement);
    }
    auth
}

/// The version of a node that comes before all that it gives out.
fn before_all(node: NodeId) -> Version {
    let node = node.short_id();
    Version {
        node,
        ..Version::default()
    }
}

fn own_facts(config: &Config, stored: Option<&NodeState>, boot: u32) -> NodeFacts {
    NodeFacts {
        node: config.node,
        version: (u64::from(boot) + 1) << 32,
        name: stored.map_or_else(|| config.name.clone(), |node| node.name.clone()),
        program_version: config.program_version.clone(),
        platform: config.platform.clone(),
        addresses: config.addresses.clone(),
        labels: stored.map_or_else(|| config.labels.clone(), |node| node.labels.clone()),
        availability: stored.map_or(Availability::Open, |node| node.availability),
        capacity: Capacity {
            cpu_millis: config.cpu_millis,
            memory_bytes: config.memory_bytes,
            ..Capacity::default()
        },
        level: wire::LEVEL,
        relays: Vec::new(),
    }
}
