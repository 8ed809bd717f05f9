//! Nothing is said before it is durable.
//!
//! What the kernel says to peers and callers in one step waits until everything that it has
//! written up to the end of that step is durable. What it only does (starts a program, probes a
//! member, asks a question that tells nothing) does not wait.
//!
//! When the disk refuses a batch, it and all after it are offered again, in order, until the disk
//! takes them; the node goes on, and says nothing that depends on them.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use wire::disk::Write;

use crate::instant::Instant;
use crate::world::Output;

/// Time between two tries to write what the disk refused.
const RETRY_PERIOD: Duration = Duration::from_secs(1);

/// What is to be done, in the order in which it may be.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    /// Written in this step.
    writes: Vec<Write>,
    /// Said in this step.
    said: Vec<Output>,
    /// Given to the disk, not known to be durable.
    batches: VecDeque<(u64, Vec<Write>)>,
    issued: u64,
    has_persisted: bool,
    /// Said, and waiting for the batch of that number.
    waiting: VecDeque<(u64, Output)>,
    ready: VecDeque<Output>,
    retry_at: Option<Instant>,
    /// The disk refused a batch and has taken none since.
    refused: bool,
}

impl Outbox {
    /// Makes a change durable; what is said in this step waits for it.
    pub(crate) fn write(&mut self, write: Write) {
        self.writes.push(write);
    }

    /// Tells somebody something that may depend on what was written.
    pub(crate) fn say(&mut self, output: Output) {
        self.said.push(output);
    }

    /// Does something that nobody can take for a promise.
    pub(crate) fn act(&mut self, output: Output) {
        self.ready.push_back(output);
    }

    /// The number of the batch that this step's writes will be in.
    pub(crate) fn next_batch(&self) -> u64 {
        self.issued + 1
    }

    /// Ends a step.
    pub(crate) fn flush(&mut self) {
        if !self.writes.is_empty() {
            self.issued += 1;
            let writes = core::mem::take(&mut self.writes);
            self.batches.push_back((self.issued, writes.clone()));
            if self.retry_at.is_none() {
                self.ready.push_back(Output::Persist {
                    batch: self.issued,
                    writes,
                });
            }
        }
        for output in self.said.drain(..) {
            if self.batches.is_empty() {
                self.ready.push_back(output);
            } else {
                self.waiting.push_back((self.issued, output));
            }
        }
    }

    /// The batch and all before it are durable.
    pub(crate) fn persisted(&mut self, batch: u64) {
        self.has_persisted = true;
        self.refused = false;
        while self
            .batches
            .front()
            .is_some_and(|(number, _)| *number <= batch)
        {
            self.batches.pop_front();
        }
        while self
            .waiting
            .front()
            .is_some_and(|(number, _)| *number <= batch)
        {
            self.ready
                .extend(self.waiting.pop_front().map(|(_, output)| output));
        }
    }

    /// The disk refused a batch.
    pub(crate) fn persist_failed(&mut self, now: Instant) {
        self.refused = true;
        self.retry_at.get_or_insert(now + RETRY_PERIOD);
    }

    /// Whether the disk has taken anything in this life.
    pub(crate) fn has_persisted(&self) -> bool {
        self.has_persisted
    }

    /// Whether the disk refuses writes: calls that would make more of them should be refused.
    pub(crate) fn is_stuck(&self) -> bool {
        self.refused
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.retry_at.is_some_and(|at| at <= now) {
            self.retry_at = None;
            for (batch, writes) in &self.batches {
                let (batch, writes) = (*batch, writes.clone());
                self.ready.push_back(Output::Persist { batch, writes });
            }
        }
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.retry_at
    }

    pub(crate) fn poll_output(&mut self) -> Option<Output> {
        self.ready.pop_front()
    }
}
