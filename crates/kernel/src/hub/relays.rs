//! By whom this node is reached: [`crate::relaying`] meets the members, the facts and the world.

use alloc::vec::Vec;

use wire::id::NodeId;

use super::Kernel;
use crate::alarm::Alarm;
use crate::relaying::{Candidate, Plan};
use crate::world::{LineState, Output};

impl Kernel {
    pub(super) fn handle_line(&mut self, relay: NodeId, state: &LineState) {
        match state {
            LineState::Open { seen, carries } => {
                self.relaying.handle_open(self.now, relay, seen, *carries);
            }
            LineState::Closed => self.relaying.handle_closed(self.now, relay),
        }
    }

    /// Asks for the lines that this node needs, and tells the relays that it has.
    pub(super) fn heed_relays(&mut self) {
        while let Some(plan) = self.relay_plan() {
            if let Some(relays) = plan.new_lines {
                self.outbox.act(Output::Lines { relays });
            }
            let told = self.measurement.get(self.me).map(|facts| &facts.relays);
            if told.is_some_and(|told| *told != plan.relays) {
                self.tell_facts(|facts| facts.relays = plan.relays);
            }
            if plan.is_helpless {
                let detail = "others see this node at an address that it does not have";
                self.alarm(Alarm::NodeHidden, detail.into());
            }
        }
    }

    fn relay_plan(&mut self) -> Option<Plan> {
        let (auth, membership, measurement) = (&self.auth, &self.membership, &self.measurement);
        let others = auth.members().filter(|node| *node != self.me);
        let candidates = || {
            let up = others.filter(|node| membership.state(node.short_id()).is_up());
            let candidate = |node| Candidate {
                node,
                is_hidden: measurement.is_hidden(node),
                round_trip_us: measurement.rtt_us(node),
            };
            up.map(candidate).collect::<Vec<_>>()
        };
        self.relaying.poll_plan(self.now, candidates)
    }
}
