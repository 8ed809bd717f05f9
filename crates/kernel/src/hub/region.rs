//! Who is here: what membership says, what gossip brings, and what this node tells of itself.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use rand::RngExt;
use wire::disk::Table;
use wire::fact::{Availability, Capacity, NodeFacts};
use wire::id::{AppId, NodeId};
use wire::peer::{Answer, BUCKETS, MESSAGE_BYTES_MAX, Message, News, Statement};

use super::{Kernel, statement_key};
use crate::alarm::Alarm;
use crate::auth::Learned;
use crate::directory;
use crate::limits::{
    ASK_DEADLINE, CALL_DEADLINE, FAREWELL_TERM, GRACE_MAX, HANDOVER, RUN_DEADLINE,
};
use crate::membership::{Event, Liveness};
use crate::supervisor::Reach;
use crate::world::{Ending, Output};

/// How long a supervisor waits after a node came back, before it places objects: the newest
/// records come with the node.
pub(super) const SETTLE: Duration = Duration::from_millis(1500);
/// How long nodes may disagree on who supervises an app, after one of its guardians came or went:
/// as long as the slowest of them may take to notice.
const DISAGREEMENT: Duration = Duration::from_secs(10);
/// How long it may take at most until others know that a daemon began anew.
const NEW_LIFE_KNOWN: Duration = Duration::from_secs(2);
/// How many members hear of a rumor from each that hears it the first time (Demers et al. 1987,
/// section 1.4); anti-entropy reaches those whom chance leaves out.
const RUMOR_FANOUT: usize = 4;

impl Kernel {
    pub(super) fn handle_datagram(&mut self, from: NodeId, bytes: &[u8]) {
        if self.auth.is_member(from) {
            self.membership
                .handle_datagram(self.now, from.short_id(), bytes);
        }
    }

    pub(super) fn handle_membership(&mut self, event: Event) {
        match event {
            // Before the first batch is durable, this life's boot number may be used again by the
            // next; membership bears the loss of a datagram.
            Event::Send { to, bytes } => {
                if let Some(to) = self.by_short.get(&to)
                    && self.outbox.has_persisted()
                {
                    self.outbox.act(Output::Datagram { to: *to, bytes });
                }
            }
            Event::Up(short) => self.with_member(short, Self::node_up),
            // Its disk may not be the one that it had: it is asked to store its records again.
            Event::Anew(short) => self.with_member(short, |kernel, node| {
                kernel.directory.forget_copies_of(node);
            }),
            Event::Unreachable(short) => self.with_member(short, Self::node_unreachable),
            Event::Gone(short) => self.with_member(short, Self::node_gone),
            Event::SyncWith(short) => self.with_member(short, Self::start_sync),
            Event::Left(short) => self.with_member(short, Self::node_left),
            Event::Reserve { until } => {
                self.boot_reserved = self.boot_reserved.max(until);
                self.write_node();
                self.reserving = Some((self.outbox.next_step(), until));
            }
            Event::Alarm { alarm, detail } => self.alarm(alarm, detail),
        }
    }

    fn with_member(&mut self, short: u64, what: impl FnOnce(&mut Self, NodeId)) {
        if let Some(node) = self.by_short.get(&short).copied() {
            what(self, node);
        }
    }

    fn node_up(&mut self, node: NodeId) {
        let name = self.measurement.name(node);
        self.event("node.up", name.clone(), alloc::format!("{name} answers"));
        self.came_up.retain(|_, at| *at + RUN_DEADLINE > self.now);
        self.came_up.insert(node, self.now);
        self.unsettle_apps_of(node);
        if let Some(mine) = self.measurement.get(self.me).cloned() {
            let news = News {
                statements: Vec::new(),
                facts: [mine].into(),
            };
            self.send_now(node, Message::Rumors(news));
        }
        // What was told while the node was not up has missed it.
        let is_mine = self.auth.admitted_by(node) == Some(self.me);
        if is_mine || self.rng.random_range(0..self.auth.member_count().max(1)) < RUMOR_FANOUT {
            self.start_sync(node);
        }
        self.supervision.retry_now();
        self.membership_changed(node);
    }

    fn node_unreachable(&mut self, node: NodeId) {
        let name = self.measurement.name(node);
        self.event(
            "node.unreachable",
            name.clone(),
            alloc::format!("{name} does not answer"),
        );
        self.node_lost(node);
    }

    fn node_left(&mut self, node: NodeId) {
        let name = self.measurement.name(node);
        self.event(
            "node.down",
            name.clone(),
            alloc::format!("{name} was stopped"),
        );
        self.node_lost(node);
    }

    fn node_lost(&mut self, node: NodeId) {
        self.patience.forget(node);
        self.directory.forget_copies_of(node);
        for task in self.questions.close_all_to(node) {
            self.handle_silence(node, task);
        }
        self.membership_changed(node);
        self.confirm_taken_over(node);
    }

    fn node_gone(&mut self, node: NodeId) {
        let name = self.measurement.name(node);
        let message = alloc::format!("{name} has been away for minutes; its records are copied");
        self.event("node.gone", name, message);
        self.membership_changed(node);
    }

    /// Supervisors and guardians may be others now.
    fn membership_changed(&mut self, node: NodeId) {
        self.relaying.handle_member(node);
        self.shifted.retain(|_, at| *at + DISAGREEMENT > self.now);
        self.shifted.insert(node, self.now);
        self.report_to_new_supervisors(node);
        self.spread_records();
        let apps: Vec<_> = self.directory.iter().map(|record| record.app).collect();
        for app in apps {
            self.supervision.touch(app);
        }
    }

    /// A node has come up: it may keep records that are newer than those here, and it no longer
    /// hosts all that records say.
    fn unsettle_apps_of(&mut self, node: NodeId) {
        let mut hosted = Vec::new();
        for record in self.directory.iter() {
            let hosts = record.objects.iter().any(|it| it.node == node);
            if hosts {
                hosted.push(record.app);
            }
            if hosts || directory::guardians(record.app, self.lasting()).contains(&node) {
                self.unsettled.insert(record.app, self.now + SETTLE);
            }
        }
        for app in hosted {
            if self.supervisor_of(app) == self.me {
                self.confirm(app, node);
            }
        }
    }

    pub(super) fn expire_unsettled(&mut self) {
        let now = self.now;
        let over: Vec<AppId> = self
            .unsettled
            .extract_if(.., |_, at| *at <= now)
            .map(|(app, _)| app)
            .collect();
        for app in over {
            self.supervision.touch(app);
        }
    }

    /// Whether this node's record of an app, or its lack of one, may be old: a guardian has just
    /// come up, perhaps this node itself, or has not been heard of yet.
    pub(crate) fn is_unsettled(&self, app: AppId) -> bool {
        let is_new = |node: &NodeId| {
            let came_up = self.came_up.get(node);
            came_up.is_some_and(|at| *at + SETTLE > self.now) || self.is_unheard(*node)
        };
        directory::guardians(app, self.lasting()).iter().any(is_new)
    }

    /// Whether this node's record of an app may be old: see [`Kernel::is_unsettled`], or nodes may not
    /// agree yet on who supervises the app, so that another one changed it a moment ago.
    pub(crate) fn is_contested(&self, app: AppId) -> bool {
        let is_new = |node: NodeId| {
            let shifted = self.shifted.get(&node);
            shifted.is_some_and(|at| *at + DISAGREEMENT > self.now)
        };
        let guardians = directory::guardians(app, self.lasting());
        guardians.into_iter().any(is_new) || self.is_unsettled(app)
    }

    /// Whether nothing is known of a member yet, neither good nor bad.
    pub(crate) fn is_unheard(&self, node: NodeId) -> bool {
        node != self.me && self.membership.state(node.short_id()) == Liveness::Unheard
    }

    /// How a node looks from here.
    pub(crate) fn reach(&self, node: NodeId) -> Reach {
        if !self.auth.is_member(node) {
            return Reach::Removed;
        }
        if !self.is_reachable(node) {
            return Reach::Lost;
        }
        match self.measurement.availability(node) {
            Availability::Open => Reach::Open,
            Availability::Draining | Availability::Leaving => Reach::Draining,
        }
    }

    /// Whether a member answers, as far as is known here; this node itself does.
    #[must_use]
    pub fn is_reachable(&self, node: NodeId) -> bool {
        node == self.me || self.membership.state(node.short_id()).is_up()
    }

    /// How often this node has suspected that a member is lost, since it began; most protest.
    #[must_use]
    pub fn suspicion_count(&self) -> u64 {
        self.membership.suspicion_count()
    }

    /// Members that answer, this node among them.
    pub(crate) fn reachable(&self) -> Vec<NodeId> {
        self.auth
            .members()
            .filter(|node| self.is_reachable(*node))
            .collect()
    }

    /// Members that are not known to be away for good.
    pub(crate) fn lasting(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.auth.members().filter(|node| {
            *node == self.me
                || !matches!(
                    self.membership.state(node.short_id()),
                    Liveness::Gone { .. }
                )
        })
    }

    pub(super) fn handle_message(&mut self, from: NodeId, bytes: &[u8]) {
        if !self.auth.is_member(from) {
            return;
        }
        match wire::decode(bytes, MESSAGE_BYTES_MAX) {
            Ok(message) => self.handle_decoded(from, message),
            Err(error) => {
                let name = self.measurement.name(from);
                self.alarm(Alarm::PeerMessage, alloc::format!("from {name}: {error}"));
            }
        }
    }

    pub(super) fn handle_decoded(&mut self, from: NodeId, message: Message) {
        match message {
            Message::Rumors(news) => self.learn(from, news),
            Message::SyncHello {
                members,
                statements,
                facts,
                estranged: _,
            } => {
                let same = members == self.membership.members_hash()
                    && (statements, facts) == self.news_hashes();
                if !same {
                    let members = self.membership.bucket_hashes();
                    let news = self.news_buckets();
                    self.send_now(from, Message::SyncBuckets { members, news });
                }
            }
            Message::SyncBuckets { members, news } => {
                let differ = differing(&members, &self.membership.bucket_hashes())
                    | differing(&news, &self.news_buckets());
                self.send_items(from, differ, differ);
            }
            Message::SyncItems {
                members,
                news,
                wanted,
                estranged,
            } => {
                // Our own view of the sender must be read before the merge changes it.
                let mine = self.membership.is_estranged(from.short_id());
                if wanted != 0 {
                    self.send_items(from, wanted, 0);
                }
                self.learn(from, news);
                self.membership
                    .merge(self.now, from.short_id(), &members, estranged || mine);
            }
            Message::Ask { question, ask } => self.handle_ask(from, question, *ask),
            Message::Answer { question, answer } => {
                if let Ok(Answer::Later { by_ms }) = *answer {
                    let by = Duration::from_millis(by_ms.into()).min(GRACE_MAX);
                    let deadline = self.now + CALL_DEADLINE + HANDOVER + by;
                    return self.questions.extend(question, from, deadline);
                }
                if matches!(
                    *answer,
                    Ok(Answer::Objects(_) | Answer::Apps(_) | Answer::Usage(_))
                ) {
                    self.patience.answered(self.now, from);
                }
                if let Some(task) = self.questions.close(question, from) {
                    self.handle_answer(from, task, *answer);
                }
            }
            Message::Abandon { question } => self.abandon_question(from, question),
            Message::Reports(reports) => self.handle_reports(from, reports),
        }
    }

    pub(super) fn handle_undelivered(&mut self, to: NodeId, bytes: &[u8]) {
        match wire::decode::<Message>(bytes, MESSAGE_BYTES_MAX) {
            Ok(Message::Ask { question, .. }) => {
                if let Some(task) = self.questions.close(question, to) {
                    self.handle_silence(to, task);
                }
            }
            // That the answer takes a while is no news a while later.
            Ok(Message::Answer { question, answer })
                if !matches!(*answer, Ok(Answer::Later { .. })) =>
            {
                self.returned.push(self.now, to, question, *answer);
            }
            Ok(
                Message::Answer { .. }
                | Message::Rumors(_)
                | Message::SyncHello { .. }
                | Message::SyncBuckets { .. }
                | Message::SyncItems { .. }
                | Message::Abandon { .. }
                | Message::Reports(_),
            )
            | Err(_) => {}
        }
        self.membership.doubt(self.now, to.short_id());
    }

    /// Sends answers again that came back.
    pub(super) fn send_returned(&mut self) {
        for (to, question, answer) in self.returned.due(self.now) {
            let answer = Box::new(answer);
            self.send_now(to, Message::Answer { question, answer });
        }
    }

    fn start_sync(&mut self, node: NodeId) {
        let (statements, facts) = self.news_hashes();
        let hello = Message::SyncHello {
            members: self.membership.members_hash(),
            statements,
            facts,
            estranged: self.membership.is_estranged(node.short_id()),
        };
        self.send_now(node, hello);
    }

    fn send_items(&mut self, to: NodeId, buckets: u64, wanted: u64) {
        let estranged = self.membership.is_estranged(to.short_id());
        let members = self.membership.items(buckets);
        let is_in = |node: NodeId| buckets & (1 << bucket(node)) != 0;
        let statements = self
            .auth
            .statements()
            .filter(|it| is_in(it.body.subject()))
            .cloned()
            .collect();
        let facts = self
            .measurement
            .iter()
            .filter(|it| is_in(it.node))
            .cloned()
            .collect();
        let news = News { statements, facts };
        self.send(
            to,
            Message::SyncItems {
                members,
                news,
                wanted,
                estranged,
            },
        );
    }

    fn news_hashes(&self) -> (u64, u64) {
        let statements = self
            .auth
            .statements()
            .fold(0, |sum, it| sum ^ statement_hash(it));
        let facts = self
            .measurement
            .iter()
            .fold(0, |sum, it| sum ^ facts_hash(it));
        (statements, facts)
    }

    fn news_buckets(&self) -> Vec<u64> {
        let mut buckets = alloc::vec![0; BUCKETS];
        let statements = self
            .auth
            .statements()
            .map(|it| (bucket(it.body.subject()), statement_hash(it)));
        let facts = self
            .measurement
            .iter()
            .map(|it| (bucket(it.node), facts_hash(it)));
        for (bucket, hash) in statements.chain(facts) {
            if let Some(sum) = buckets.get_mut(bucket) {
                *sum ^= hash;
            }
        }
        buckets
    }

    /// Takes in news, and tells on what is new.
    fn learn(&mut self, from: NodeId, news: News) {
        let mut fresh = News::default();
        for statement in news.statements {
            if self.learn_statement(&statement) {
                fresh.statements.push(statement);
            }
        }
        for facts in news.facts {
            if facts.node == self.me {
                self.outdo(facts.version);
            } else if self.learn_facts(&facts) {
                fresh.facts.push(facts);
            }
        }
        if fresh != News::default() {
            self.spread(&fresh, Some(from));
        }
    }

    /// Says something newer than what others think this node has said.
    fn outdo(&mut self, version: u64) {
        if self.measurement.note_claim(version) {
            self.tell_facts(|_| {});
        }
    }

    /// Takes in a statement; `true` when it is new.
    pub(super) fn learn_statement(&mut self, statement: &Statement) -> bool {
        let before: Vec<NodeId> = self.auth.members().collect();
        let evicted = match self.auth.learn(statement) {
            Learned::Known => return false,
            Learned::Refused(why) => {
                let subject = statement.body.subject().short();
                self.alarm(
                    Alarm::StatementRefused,
                    alloc::format!("about {subject}: {why}"),
                );
                return false;
            }
            Learned::New(evicted) => evicted,
        };
        for other in evicted {
            self.write(Table::Statements, &statement_key(&other), None);
        }
        self.write_statement(statement);
        for node in before {
            if !self.auth.is_member(node) {
                self.node_removed(node);
            }
        }
        let members: Vec<NodeId> = self.auth.members().collect();
        for node in members {
            if self.by_short.insert(node.short_id(), node).is_none() && node != self.me {
                self.membership.admit(self.now, node.short_id());
                self.event("node.admitted", node.short(), "belongs to the cloud".into());
                self.tell_peer(node);
            }
        }
        true
    }

    fn node_removed(&mut self, node: NodeId) {
        let name = self.measurement.name(node);
        self.event(
            "node.removed",
            name,
            "does not belong to the cloud any more".into(),
        );
        if node == self.me {
            self.removed_here();
            return;
        }
        self.membership.expel(self.now, node.short_id());
        self.by_short.remove(&node.short_id());
        self.measurement.forget(node);
        self.relaying.forget(node);
        self.patience.forget(node);
        self.write(Table::Facts, &node.0, None);
        self.directory.forget_copies_of(node);
        // It is told before its links are closed: a node that does not know that it was removed
        // would take all others for lost.
        self.farewells.push((self.now + FAREWELL_TERM, node));
        let statements = self.auth.statements();
        let about = statements
            .filter(|it| it.body.subject() == node)
            .cloned()
            .collect();
        let news = News {
            statements: about,
            facts: Vec::new(),
        };
        self.send(node, Message::Rumors(news));
        for task in self.questions.close_all_to(node) {
            self.handle_silence(node, task);
        }
        self.membership_changed(node);
    }

    /// Closes the links of nodes that have had time to learn of their removal.
    pub(super) fn expire_farewells(&mut self) {
        while let Some((_, node)) = self.farewells.first().filter(|(at, _)| *at <= self.now) {
            // Not before what it is told of its removal.
            self.outbox.say(Output::Expel { node: *node });
            self.farewells.remove(0);
        }
    }

    /// Takes in facts of another node; `true` when they are new.
    pub(super) fn learn_facts(&mut self, facts: &NodeFacts) -> bool {
        if self.auth.is_removed(facts.node) {
            return false;
        }
        if self.measurement.get(facts.node).is_none()
            && self.auth.is_member(facts.node)
            && let Some(stranger) = self.measurement.make_room(|node| self.auth.is_member(node))
        {
            self.write(Table::Facts, &stranger.0, None);
        }
        let before = self.measurement.get(facts.node).cloned();
        let was_impaired = self.measurement.is_impaired(facts.node);
        if !self.measurement.learn(facts) {
            return false;
        }
        let old = before.as_ref();
        if old.is_some_and(|old| facts.version >> 32 > old.version >> 32) {
            // Its daemon began anew, and does not know what its former life was asked.
            // What was asked a moment ago was perhaps asked of the new one.
            self.questions
                .hurry(facts.node, self.now, self.now + CALL_DEADLINE);
            let before = self.now - NEW_LIFE_KNOWN;
            self.questions
                .hurry(facts.node, before, self.now + ASK_DEADLINE);
        }
        if old.is_some_and(|old| holds_less(facts.capacity, old.capacity)) {
            self.retry_on(facts.node);
        }
        if old.is_none_or(|old| old.relays.is_empty() != facts.relays.is_empty()) {
            self.relaying.handle_told();
        }
        if old.is_none_or(|old| (&old.addresses, &old.relays) != (&facts.addresses, &facts.relays))
        {
            self.write_sealed(Table::Facts, &facts.node.0, facts);
            self.tell_peer(facts.node);
        }
        if was_impaired != self.measurement.is_impaired(facts.node)
            || old.is_some_and(|old| old.availability != facts.availability)
        {
            self.supervision.retry_now();
            self.membership_changed(facts.node);
        }
        true
    }

    pub(super) fn tell_peer(&mut self, node: NodeId) {
        if !self.auth.is_member(node) || node == self.me {
            return;
        }
        let facts = self.measurement.get(node);
        let found = |facts: &NodeFacts| (facts.addresses.clone(), facts.relays.clone());
        let (addresses, relays) = facts.map_or_else(Default::default, found);
        let peer = Output::Peer {
            node,
            addresses,
            relays,
        };
        self.outbox.act(peer);
    }

    /// A key lives in two processes.
    pub(super) fn handle_twice(&mut self, node: NodeId, first: String, second: &str) {
        let name = self.measurement.name(node);
        let detail = alloc::format!("{name} runs at {first}; the one at {second} is refused");
        self.alarm(Alarm::NodeTwice, detail);
        if node == self.me {
            self.twice.note_refused(self.now, first);
        }
    }

    /// Lets a few members, chosen by chance, know.
    pub(super) fn spread(&mut self, news: &News, except: Option<NodeId>) {
        for node in self.some_reachable(except) {
            self.send(node, Message::Rumors(news.clone()));
        }
    }

    fn some_reachable(&mut self, except: Option<NodeId>) -> Vec<NodeId> {
        let mut others: Vec<NodeId> = self.reachable();
        others.retain(|node| *node != self.me && Some(*node) != except);
        let mut chosen = Vec::new();
        while chosen.len() < RUMOR_FANOUT && !others.is_empty() {
            chosen.push(others.swap_remove(self.rng.random_range(0..others.len())));
        }
        chosen
    }

    /// Changes what this node is and tells everybody.
    pub(crate) fn tell_facts(&mut self, edit: impl FnOnce(&mut NodeFacts)) {
        let facts = self.measurement.change(self.now, edit);
        self.write_node();
        self.tell(facts);
    }

    /// Own facts promise nothing, so they do not wait for a disk that takes no writes, but for the
    /// first batch of this life: with it, it is certain that their version is new.
    fn tell(&mut self, facts: NodeFacts) {
        let news = News {
            statements: Vec::new(),
            facts: [facts].into(),
        };
        let must_wait = !self.outbox.is_stuck() && !self.rests;
        if must_wait || !self.outbox.has_persisted() {
            return self.spread(&news, None);
        }
        for node in self.some_reachable(None) {
            self.send_now(node, Message::Rumors(news.clone()));
        }
    }

    /// While the disk takes no writes, others supervise what this node would: whatever is decided
    /// here could not be kept. The same while the daemon is restarted: nobody would be there to
    /// decide.
    pub(super) fn heed_impairment(&mut self) {
        let is_impaired = self.outbox.is_stuck() || self.rests;
        if is_impaired != self.measurement.is_impaired(self.me) {
            let facts = self.measurement.impair(self.now, is_impaired);
            self.tell(facts);
            self.membership_changed(self.me);
        }
    }

    /// The process ends. Whoever waits for it is told, and what it is to be taken for until it is
    /// back.
    pub(super) fn end(&mut self, ending: Ending) {
        self.refuse_open_calls(ending);
        match ending {
            Ending::Restart => {
                self.rests = true;
                self.membership.rest();
            }
            Ending::Shutdown => self.membership.leave(),
        }
    }

    /// Tells what this node uses, when that is worth it.
    pub(super) fn tell_usage(&mut self) {
        self.note_held();
        if self.measurement.is_changed() && self.measurement.tell_after() <= self.now {
            let facts = self.measurement.change(self.now, |_| {});
            self.tell(facts);
        }
    }

    /// What this node holds for objects is known here at once, and told when that is worth it.
    pub(super) fn note_held(&mut self) {
        let (cpu, memory) = (
            self.ledger.cpu_held_millis(),
            self.ledger.memory_held_bytes(),
        );
        self.measurement
            .note_held(cpu, memory, self.ledger.object_count());
    }
}

/// Whether something was freed.
fn holds_less(now: Capacity, before: Capacity) -> bool {
    now.objects < before.objects
        || now.cpu_held_millis < before.cpu_held_millis
        || now.memory_held_bytes < before.memory_held_bytes
}

fn bucket(node: NodeId) -> usize {
    usize::try_from(node.short_id() % 64).unwrap_or(0)
}

const _: () = assert!(BUCKETS == 64, "a mask of buckets is one u64");

fn differing(theirs: &[u64], mine: &[u64]) -> u64 {
    let pairs = theirs.iter().zip(mine).take(BUCKETS);
    pairs.enumerate().fold(
        0,
        |mask, (i, (a, b))| if a == b { mask } else { mask | 1 << i },
    )
}

fn statement_hash(statement: &Statement) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = statement.signature.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

fn facts_hash(facts: &NodeFacts) -> u64 {
    (facts.node.short_id() ^ facts.version.rotate_left(17)).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}
