//! How long a call that only reads waits for each node.
//!
//! A call that is put to all nodes is as slow as the slowest. A node that has died answers nothing
//! until membership finds that out, seconds later, and whoever reads meanwhile would wait each
//! time for as long as a read may take. So a node that is late by its own measure is not waited for
//! any longer: the call is answered without it, and names it.
//!
//! ```text
//!            a question goes out                  late by its own measure
//! answering ────────────────────► owing ──────────────────────────────────► overdue
//!     ▲      an answer comes        │                                          │
//!     └─────────────────────────────┴──────────────────────────────────────────┘
//!                                        (or: `FORGIVEN_AFTER`, to try it again)
//! ```
//!
//! The measure is how long its answers have taken lately, many times over: a busy node, or one on
//! the other side of the world, is given what it needs. A node that has answered nothing yet is
//! waited for as long as a read may take at all.

use alloc::collections::BTreeMap;
use core::time::Duration;

use wire::id::NodeId;

use crate::instant::Instant;

/// Answers may take so many times as long as the slowest of late.
const TIMES: u32 = 8;
/// And so long at the least, since a machine may stall for a moment without being lost.
const PATIENCE_MIN: Duration = Duration::from_millis(250);
/// An answer counts for so long as the slowest of late.
const LATELY: Duration = Duration::from_secs(10);
/// A node that owes an answer for so long is waited for once more: membership would have found out
/// by now if it had died.
const FORGIVEN_AFTER: Duration = Duration::from_secs(5);
/// Time between two questions to a node that is overdue; one answer is enough to see that it is
/// not any more.
const ASK_AGAIN: Duration = Duration::from_millis(50);

/// What nodes owe.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    nodes: BTreeMap<NodeId, Answering>,
}

#[derive(Debug, Default)]
struct Answering {
    /// The first question that was put to it since it answered last, and the last one.
    owing: Option<(Instant, Instant)>,
    /// How long the slowest of its late answers took, and when that came.
    slowest: Option<(Duration, Instant)>,
}

/// How a node is to be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Wait until then.
    Until(Instant),
    /// Ask, to see whether it answers again, and do not wait.
    Aside,
    /// It was asked a moment ago.
    Not,
}

impl Patience {
    /// A read is to be put to a node; none waits for longer than `longest`.
    pub(crate) fn ask(&mut self, now: Instant, node: NodeId, longest: Duration) -> Manner {
        let answering = self.nodes.entry(node).or_default();
        let owing = answering.owing;
        let owing = owing.filter(|(first, _)| now.since(*first) < FORGIVEN_AFTER);
        let (first, last) = owing.unwrap_or((now, now));
        let patience = answering
            .patience(now)
            .map_or(longest, |it| it.min(longest));
        let until = first + patience;
        if until > now {
            answering.owing = Some((first, now));
            return Manner::Until(until);
        }
        if now.since(last) < ASK_AGAIN {
            return Manner::Not;
        }
        answering.owing = Some((first, now));
        Manner::Aside
    }

    /// A node has answered a read, in time or not.
    pub(crate) fn answered(&mut self, now: Instant, node: NodeId) {
        let Some(answering) = self.nodes.get_mut(&node) else {
            return;
        };
        let Some((first, _)) = answering.owing.take() else {
            return;
        };
        let took = now.since(first);
        let is_slower = answering.slowest_lately(now).is_none_or(|it| took >= it);
        if is_slower {
            answering.slowest = Some((took, now));
        }
    }

    /// A node is lost or removed: what it owed counts no more.
    pub(crate) fn forget(&mut self, node: NodeId) {
        self.nodes.remove(&node);
    }
}

impl Answering {
    fn slowest_lately(&self, now: Instant) -> Option<Duration> {
        let (took, at) = self.slowest?;
        (now.since(at) < LATELY).then_some(took)
    }

    /// Nothing is known of a node that has never answered.
    fn patience(&self, now: Instant) -> Option<Duration> {
        let (took, _) = self.slowest?;
        let took = self.slowest_lately(now).unwrap_or(took);
        Some(took.saturating_mul(TIMES).max(PATIENCE_MIN))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_secs(2);
    const NODE: NodeId = NodeId([3; 32]);

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1_000)
    }

    /// A node that has answered within `took_ms`, at 1,000 ms.
    fn answering(took_ms: u64) -> Patience {
        let mut patience = Patience::default();
        patience.ask(at(1_000 - took_ms), NODE, LONGEST);
        patience.answered(at(1_000), NODE);
        patience
    }

    #[test]
    fn a_node_that_has_never_answered_is_waited_for_as_long_as_may_be() {
        let mut patience = Patience::default();
        let manner = patience.ask(at(1_000), NODE, LONGEST);
        assert_eq!(manner, Manner::Until(at(3_000)));
    }

    #[test]
    fn only_the_first_calls_wait_for_a_node_that_has_died() {
        let mut patience = answering(1);
        let ask = |patience: &mut Patience, millis| patience.ask(at(millis), NODE, LONGEST);
        assert_eq!(ask(&mut patience, 2_000), Manner::Until(at(2_250)));
        // Whoever comes later does not begin to wait anew.
        assert_eq!(ask(&mut patience, 2_100), Manner::Until(at(2_250)));
        assert_eq!(ask(&mut patience, 2_260), Manner::Aside);
        assert_eq!(ask(&mut patience, 2_270), Manner::Not);
        assert_eq!(ask(&mut patience, 2_310), Manner::Aside);
        // It may hang without being lost: after a while it gets another chance.
        assert_eq!(ask(&mut patience, 7_001), Manner::Until(at(7_251)));
    }

    #[test]
    fn a_late_answer_clears_it_and_teaches_patience() {
        let mut patience = answering(1);
        patience.ask(at(2_000), NODE, LONGEST);
        patience.answered(at(2_100), NODE);
        let manner = patience.ask(at(3_000), NODE, LONGEST);
        assert_eq!(manner, Manner::Until(at(3_800)), "eight times 100 ms");
        // A faster one does not make it forget that so soon.
        patience.answered(at(3_001), NODE);
        let manner = patience.ask(at(4_000), NODE, LONGEST);
        assert_eq!(manner, Manner::Until(at(4_800)));
    }

    #[test]
    fn nobody_waits_longer_than_a_read_may_take() {
        let mut patience = answering(900);
        let manner = patience.ask(at(2_000), NODE, LONGEST);
        assert_eq!(manner, Manner::Until(at(4_000)));
    }
}
