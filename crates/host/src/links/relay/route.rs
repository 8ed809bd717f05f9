//! By which relays a packet for one peer goes.
//!
//! What it is not: it knows no connection. It is told what was sent and heard, and when.
//!
//! While answers come, packets go by the relay that the last one came by. When none has come for
//! [`PATIENCE`], or never one came, they go by all relays that are known: the first answer decides.
//! So the fastest is found at the beginning, and a relay that died is replaced, without a question.

use std::time::Duration;

use kernel::instant::Instant;
use wire::id::NodeId;
use wire::relay::RELAYS_MAX;

/// A relay that brings nothing for so long after something was sent by it may be dead: longer than
/// a round trip by way of it.
const PATIENCE: Duration = Duration::from_secs(1);

/// The way to one peer.
#[derive(Debug, Default)]
pub(super) struct Route {
    /// Relays that the peer tells.
    pub(super) told: Vec<NodeId>,
    /// By which it was last heard.
    via: Option<NodeId>,
    /// When the first packet was sent that nothing was heard after.
    unanswered: Option<Instant>,
}

impl Route {
    /// By which relay the peer was last heard.
    pub(super) fn via(&self) -> Option<NodeId> {
        self.via
    }

    /// Something came from the peer.
    pub(super) fn heard(&mut self, via: NodeId) {
        self.via = Some(via);
        self.unanswered = None;
    }

    /// By which relays to send now. `held` are those to which this node keeps lines, and `not` are
    /// the two ends.
    pub(super) fn relays(
        &mut self,
        now: Instant,
        held: &[NodeId],
        not: [NodeId; 2],
    ) -> Vec<NodeId> {
        let since = *self.unanswered.get_or_insert(now);
        if let Some(via) = self.via
            && now.since(since) < PATIENCE
        {
            return Vec::from([via]);
        }
        let mut relays = Vec::new();
        for relay in self.via.iter().chain(&self.told).chain(held) {
            if relays.len() < RELAYS_MAX && !relays.contains(relay) && !not.contains(relay) {
                relays.push(*relay);
            }
        }
        relays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ENDS: [NodeId; 2] = [NodeId([1; 32]), NodeId([2; 32])];

    fn node(letter: u8) -> NodeId {
        NodeId([letter; 32])
    }

    fn at(milliseconds: u64) -> Instant {
        Instant::from_micros(milliseconds * 1000)
    }

    fn route() -> Route {
        Route {
            told: vec![node(3), node(4)],
            ..Route::default()
        }
    }

    #[test]
    fn the_first_answer_decides_by_which_relay_packets_go() {
        let mut route = route();
        let first = route.relays(at(0), &[node(5)], ENDS);
        assert_eq!(first, [node(3), node(4), node(5)]);
        route.heard(node(4));
        assert_eq!(route.relays(at(10), &[node(5)], ENDS), [node(4)]);
    }

    #[test]
    fn a_relay_that_brings_nothing_is_replaced_after_a_second() {
        let mut route = route();
        route.heard(node(3));
        assert_eq!(route.relays(at(0), &[], ENDS), [node(3)]);
        assert_eq!(route.relays(at(999), &[], ENDS), [node(3)]);
        assert_eq!(route.relays(at(1000), &[], ENDS), [node(3), node(4)]);
        route.heard(node(4));
        assert_eq!(route.relays(at(1001), &[], ENDS), [node(4)]);
    }

    #[test]
    fn no_end_is_its_own_relay_and_none_is_asked_twice() {
        let mut route = Route {
            told: vec![ENDS[0], node(3), node(3)],
            ..Route::default()
        };
        let held = [node(3), ENDS[1], node(4), node(5), node(6), node(7)];
        let relays = route.relays(at(0), &held, ENDS);
        assert_eq!(relays, [node(3), node(4), node(5), node(6)]);
    }
}
