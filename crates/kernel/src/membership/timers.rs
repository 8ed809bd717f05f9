//! What is to be done when: a queue of moments.

use alloc::collections::BTreeMap;
use core::time::Duration;

use crate::instant::Instant;

/// Things to be done, each at its time; those of one moment in the order they came in.
#[derive(Debug)]
pub(super) struct Timers<T> {
    queue: BTreeMap<(Instant, u64), T>,
    next: u64,
}

impl<T> Timers<T> {
    /// None.
    pub(super) fn new() -> Self {
        Self {
            queue: BTreeMap::new(),
            next: 0,
        }
    }

    /// Adds one.
    pub(super) fn add(&mut self, at: Instant, what: T) {
        self.queue.insert((at, self.next), what);
        self.next += 1;
    }

    /// When the first is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.queue.keys().next().map(|(at, _)| *at)
    }

    /// Takes the first if it is due.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<T> {
        if self.first()? > now {
            return None;
        }
        self.queue.pop_first().map(|(_, what)| what)
    }

    /// All are due so much later.
    pub(super) fn postpone(&mut self, by: Duration) {
        let queue = core::mem::take(&mut self.queue);
        let later = |((at, order), what)| ((at + by, order), what);
        self.queue = queue.into_iter().map(later).collect();
    }

    /// Forgets all others.
    pub(super) fn keep(&mut self, fit: impl Fn(&T) -> bool) {
        self.queue.retain(|_, what| fit(what));
    }
}
