//! Nothing is said before it is durable.
//!
//! What the kernel says to peers and callers in one step waits until everything that it has
//! written up to the end of that step is durable. What it only does (starts a program, probes a
//! member, asks a question that tells nothing) does not wait.
//!
//! When the disk refuses a batch, the node goes on, and says nothing that depends on it:
//!
//! ```text
//! working ── a batch is refused ──► waiting ── 1 s, and all batches answered ──► trying
//!    ▲                                 ▲                                            │
//!    │                                 └────────────── refused ─────────────────────┤
//!    └──────────────────────────────────────────────── durable ─────────────────────┘
//! ```
//!
//! What is written meanwhile is kept by its key, so that it grows no further than the tables do. It
//! is offered with what was refused, as one batch under the number of the first of them. What was
//! said for long in vain is not said any more.
//!
//! What only tells what the node knows promises nothing: it waits for the disk as long as that takes
//! writes, so that callers see what they were promised and no more, and is said at once when the
//! disk refuses.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use wire::disk::{Table, Write};

use crate::instant::Instant;
use crate::world::{CallId, Origin, Output};

/// Time between two tries to write what the disk refused.
const RETRY_PERIOD: Duration = Duration::from_secs(1);
/// Things that wait for the disk to be said, as many as calls can be answered at one time. Beyond,
/// messages are lost, which their receivers must bear anyway.
const SAID_MAX: usize = crate::limits::CALLS_MAX;

/// Writes by what they are about: the last one counts.
type Latest = BTreeMap<(Table, Vec<u8>), Option<Vec<u8>>>;

/// What is to be done, in the order in which it may be.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Written in this step.
    writes: Vec<Write>,
    /// Said in this step.
    said: Vec<Said>,
    /// Steps that wrote something.
    steps: u64,
    /// All of them up to this one are durable.
    durable: u64,
    /// Given to the disk, not known to be durable.
    batches: VecDeque<Batch>,
    /// The number of the last batch.
    last_batch: u64,
    /// Batches that the disk has not answered, in the order in which it got them.
    offered: VecDeque<u64>,
    /// Written since the disk refused a batch.
    held: Latest,
    has_persisted: bool,
    /// Waiting for that step to be durable.
    waiting: VecDeque<(u64, Said)>,
    ready: VecDeque<Output>,
    /// Done when this step is over.
    last: Option<Output>,
    retry_at: Option<Instant>,
    /// The disk refused a batch and has taken none since.
    refusal: Option<Refusal>,
}

#[derive(Debug)]
struct Refusal {
    since: Instant,
    /// What the disk last said.
    reason: String,
}

#[derive(Debug)]
struct Batch {
    number: u64,
    /// The last step whose writes are in it.
    step: u64,
    writes: Vec<Write>,
}

#[derive(Debug)]
struct Said {
    output: Output,
    /// Nobody wants to hear it any more then.
    stale_at: Option<Instant>,
    basis: Basis,
}

/// What something that is said rests on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Basis {
    /// It must hold after a power cut.
    Durable,
    /// The same, and this call, which may not wait for ever, asked for what it says.
    Change(Origin),
    /// What the node knows now.
    Hearsay,
}

impl Outbox {
    /// Makes a change durable; what is said in this step waits for it.
    pub(crate) fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Tells somebody something that may depend on what was written.
    pub(crate) fn say(&mut self, output: Output) {
        self.say_on(Basis::Durable, None, output);
    }

    /// The same, unless it is that late by then.
    pub(crate) fn say_until(&mut self, stale_at: Instant, output: Output) {
        self.say_on(Basis::Durable, Some(stale_at), output);
    }

    /// Tells somebody something, unless it is late by then; how it waits is told by what it rests on.
    pub(crate) fn say_on(&mut self, basis: Basis, stale_at: Option<Instant>, output: Output) {
        self.said.push(Said {
            output,
            stale_at,
            basis,
        });
    }

    /// Does something that nobody can take for a promise.
    pub(crate) fn act(&mut self, output: Output) {
        self.ready.push_back(output);
    }

    /// The same, after all else of this step.
    pub(crate) fn act_last(&mut self, output: Output) {
        self.last = Some(output);
    }

    /// The caller is not there any more: what waits to be said to it is not said.
    pub(crate) fn forget_caller(&mut self, gone: CallId) {
        let is_to_it =
            |said: &Said| matches!(said.output, Output::Reply { call, .. } if call == gone);
        self.waiting.retain(|(_, said)| !is_to_it(said));
    }

    /// The number of this step, if it writes something; see [`Outbox::persisted`].
    pub(crate) fn next_step(&self) -> u64 {
        self.steps + 1
    }

    /// Ends a step.
    pub(crate) fn flush(&mut self) {
        if !self.writes.is_empty() {
            self.steps += 1;
            let writes = core::mem::take(&mut self.writes);
            if self.is_stuck() {
                self.held.extend(writes.into_iter().map(by_key));
            } else {
                self.offer(self.last_batch + 1, writes);
            }
        }
        let is_stuck = self.is_stuck();
        for said in self.said.drain(..) {
            let is_message = matches!(said.output, Output::Message { .. });
            if self.durable == self.steps || is_stuck && said.basis == Basis::Hearsay {
                self.ready.push_back(said.output);
            } else if self.waiting.len() < SAID_MAX || !is_message {
                self.waiting.push_back((self.steps, said));
            }
        }
        self.ready.extend(self.last.take());
    }

    fn offer(&mut self, number: u64, writes: Vec<Write>) {
        self.last_batch = number;
        self.offered.push_back(number);
        self.batches.push_back(Batch {
            number,
            step: self.steps,
            writes: writes.clone(),
        });
        let batch = number;
        self.ready.push_back(Output::Persist { batch, writes });
    }

    /// The batch and all before it are durable. The number of the last step of which the same is
    /// true.
    pub(crate) fn persisted(&mut self, now: Instant, batch: u64) -> u64 {
        self.has_persisted = true;
        self.refusal = None;
        self.retry_at = None;
        while let Some(answered) = self.offered.pop_front() {
            if answered == batch {
                break;
            }
        }
        while self.batches.front().is_some_and(|it| it.number <= batch) {
            self.durable = self.batches.pop_front().map_or(0, |it| it.step);
        }
        if !self.held.is_empty() {
            let writes = core::mem::take(&mut self.held);
            self.offer(self.last_batch + 1, writes.into_iter().map(write).collect());
        }
        while let Some((_, said)) = self.waiting.pop_front_if(|(step, _)| *step <= self.durable) {
            if said.stale_at.is_none_or(|at| at > now) {
                self.ready.push_back(said.output);
            }
        }
        self.durable
    }

    /// The disk refused a batch.
    pub(crate) fn persist_failed(&mut self, now: Instant, batch: u64, reason: String) {
        let since = self.refusal.take().map_or(now, |it| it.since);
        self.refusal = Some(Refusal { since, reason });
        for (step, said) in core::mem::take(&mut self.waiting) {
            match said.basis {
                Basis::Hearsay => self.ready.push_back(said.output),
                Basis::Durable | Basis::Change(_) => self.waiting.push_back((step, said)),
            }
        }
        self.retry_at = Some(now + RETRY_PERIOD);
        if self.offered.front() == Some(&batch) {
            self.offered.pop_front();
        }
    }

    /// Whether the disk has taken anything in this life.
    pub(crate) fn has_persisted(&self) -> bool {
        self.has_persisted
    }

    /// Whether the disk refuses writes: calls that would make more of them should be refused.
    pub(crate) fn is_stuck(&self) -> bool {
        self.refusal.is_some()
    }

    /// Why the disk refuses writes, if it has for that long.
    pub(crate) fn refuses_for(&self, now: Instant, term: Duration) -> Option<&str> {
        let refusal = self.refusal.as_ref();
        let is_over = |it: &&Refusal| it.since + term <= now;
        refusal.filter(is_over).map(|it| it.reason.as_str())
    }

    /// The calls whose changes are made, but for the disk. They are not answered any more.
    pub(crate) fn give_up_changes(&mut self) -> Vec<Origin> {
        let mut given_up = Vec::new();
        self.waiting.retain(|(_, said)| match said.basis {
            Basis::Change(origin) => {
                given_up.push(origin);
                false
            }
            Basis::Durable | Basis::Hearsay => true,
        });
        given_up
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        let is_due = |said: &Said| said.stale_at.is_none_or(|at| at > now);
        self.waiting.retain(|(_, said)| is_due(said));
        if self.retry_at.is_none_or(|at| at > now) {
            return;
        }
        // An answer that is still to come could not be told from one to the same number again.
        self.retry_at = None;
        if self.offered.is_empty() {
            self.offer_again();
        }
    }

    fn offer_again(&mut self) {
        let number = self
            .batches
            .front()
            .map_or(self.last_batch + 1, |it| it.number);
        let refused = self.batches.drain(..).flat_map(|batch| batch.writes);
        let mut latest: Latest = refused.map(by_key).collect();
        latest.append(&mut self.held);
        self.offer(number, latest.into_iter().map(write).collect());
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.ready.pop_front()
    }
}

fn by_key(write: Write) -> ((Table, Vec<u8>), Option<Vec<u8>>) {
    ((write.table, write.key), write.value)
}

fn write(((table, key), value): ((Table, Vec<u8>), Option<Vec<u8>>)) -> Write {
    Write { table, key, value }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use wire::id::NodeId;

    use super::*;

    fn at(seconds: u64) -> Instant {
        Instant::from_micros(seconds * 1_000_000)
    }

    fn row(key: u8, value: u8) -> Write {
        Write {
            table: Table::Records,
            key: vec![key],
            value: Some(vec![value]),
        }
    }

    fn message(letter: u8) -> Output {
        Output::Message {
            to: NodeId([1; 32]),
            bytes: vec![letter],
        }
    }

    fn outputs(outbox: &mut Outbox) -> Vec<Output> {
        core::iter::from_fn(|| outbox.poll_output()).collect()
    }

    fn step(outbox: &mut Outbox, write: Write, said: Output) -> Vec<Output> {
        outbox.write(write);
        outbox.say_until(at(5), said);
        outbox.flush();
        outputs(outbox)
    }

    fn persist(batch: u64, writes: &[Write]) -> Output {
        let writes = writes.to_vec();
        Output::Persist { batch, writes }
    }

    #[test]
    fn what_is_said_waits_for_what_was_written() {
        let mut outbox = Outbox::default();
        assert_eq!(
            step(&mut outbox, row(1, 1), message(1)),
            [persist(1, &[row(1, 1)])]
        );
        assert_eq!(outbox.persisted(at(1), 1), 1);
        assert_eq!(outputs(&mut outbox), [message(1)]);
        outbox.say(message(2));
        outbox.flush();
        assert_eq!(outputs(&mut outbox), [message(2)]);
    }

    /// Every change of the same few records was kept as a batch of its own for as long as the disk
    /// was full, and each of them was given to the disk again every second.
    #[test]
    fn what_is_written_while_the_disk_refuses_is_one_batch() {
        let mut outbox = Outbox::default();
        step(&mut outbox, row(1, 1), message(1));
        step(&mut outbox, row(2, 1), message(2));
        outbox.persist_failed(at(1), 1, "full".into());
        assert!(outbox.is_stuck());
        for value in 2..100 {
            assert_eq!(step(&mut outbox, row(1, value), message(3)), []);
        }
        outbox.handle_timeout(at(2));
        assert_eq!(outputs(&mut outbox), [], "batch 2 is not answered yet");
        outbox.persist_failed(at(2), 2, "full".into());
        outbox.handle_timeout(at(3));
        let all = [row(1, 99), row(2, 1)];
        assert_eq!(outputs(&mut outbox), [persist(1, &all)]);
        assert_eq!(step(&mut outbox, row(3, 1), message(4)), []);
        assert_eq!(outbox.persisted(at(4), 1), 100);
        let out = outputs(&mut outbox);
        assert_eq!(out.first(), Some(&persist(2, &[row(3, 1)])));
        assert_eq!(out.get(1..3), Some(&[message(1), message(2)][..]));
        assert_eq!(
            out.len(),
            101,
            "what was said last waits for the last batch"
        );
        assert_eq!(outbox.persisted(at(4), 2), 101);
        assert_eq!(outputs(&mut outbox), [message(4)]);
    }

    /// Orders of many minutes ago were carried out by whoever got them, once there was room.
    #[test]
    fn what_is_late_is_not_said() {
        let mut outbox = Outbox::default();
        step(&mut outbox, row(1, 1), message(1));
        let (call, result) = (CallId(7), wire::call::Problem::not_found("app", "web"));
        let reply = |call| Output::Reply {
            call,
            result: alloc::boxed::Box::new(Err(result.clone())),
        };
        outbox.say(reply(call));
        outbox.say(reply(CallId(8)));
        outbox.flush();
        outbox.forget_caller(CallId(8));
        outbox.persist_failed(at(1), 1, "full".into());
        outbox.handle_timeout(at(5));
        assert_eq!(outputs(&mut outbox), [persist(1, &[row(1, 1)])]);
        outbox.persisted(at(6), 1);
        assert_eq!(outputs(&mut outbox), [reply(call)]);
    }

    /// `ps` hung until there was room, behind a change that waited for it.
    #[test]
    fn what_the_node_knows_is_said_while_the_disk_refuses() {
        let mut outbox = Outbox::default();
        step(&mut outbox, row(1, 1), message(1));
        outbox.say_on(Basis::Hearsay, None, message(2));
        outbox.flush();
        assert_eq!(outputs(&mut outbox), [], "the disk may take it yet");
        outbox.persist_failed(at(1), 1, "full".into());
        assert_eq!(outputs(&mut outbox), [message(2)]);
        outbox.say_on(Basis::Hearsay, None, message(3));
        outbox.flush();
        assert_eq!(outputs(&mut outbox), [message(3)]);
    }

    #[test]
    fn a_change_is_given_up_once_however_often_the_disk_refuses() {
        let mut outbox = Outbox::default();
        let origin = Origin::Caller(CallId(7));
        outbox.write(row(1, 1));
        outbox.say_on(Basis::Change(origin), None, message(1));
        outbox.flush();
        for seconds in 1..3 {
            assert_eq!(
                outbox.refuses_for(at(seconds), Duration::from_secs(2)),
                None
            );
            outbox.persist_failed(at(seconds), 1, alloc::format!("full {seconds}"));
        }
        let reason = outbox.refuses_for(at(3), Duration::from_secs(2));
        assert_eq!(reason, Some("full 2"));
        assert_eq!(outbox.give_up_changes(), [origin]);
        assert_eq!(outbox.give_up_changes(), []);
        outputs(&mut outbox);
        outbox.persisted(at(4), 1);
        assert_eq!(outputs(&mut outbox), []);
        assert_eq!(outbox.refuses_for(at(9), Duration::from_secs(2)), None);
    }

    #[test]
    fn only_so_many_messages_wait() {
        let mut outbox = Outbox::default();
        step(&mut outbox, row(1, 1), message(1));
        for _ in 0..SAID_MAX {
            outbox.say(message(2));
        }
        outbox.say(Output::Halt);
        outbox.flush();
        outbox.persisted(at(1), 1);
        let out = outputs(&mut outbox);
        assert_eq!(out.len(), SAID_MAX + 1);
        assert_eq!(out.last(), Some(&Output::Halt));
    }
}
