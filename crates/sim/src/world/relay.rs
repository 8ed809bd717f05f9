//! Machines behind routers, and what members carry for each other.
//!
//! A machine that is hidden lets in for a while whom it has sent something to. From all others, and
//! from those that are hidden too, packets come by a member to which it holds a line.

use std::time::Duration;

use kernel::world::{Input, LineState};
use wire::id::NodeId;

use super::happen::What;
use super::{MachineId, World, machine};

/// For so long a router lets in whom something was sent to.
const LET_IN: Duration = Duration::from_secs(30);
/// How long a line is dialled.
const DIAL: Duration = Duration::from_secs(4);
/// When a line on which nothing comes is given up.
const SILENT: Duration = Duration::from_secs(12);
/// Where others see a machine that is behind a router.
const OUTSIDE: &str = "203.0.113.1:40000";

impl World {
    /// A machine sends something to another.
    pub(super) fn note_call(&mut self, from: MachineId, to: MachineId) {
        if self.hardware(from).is_hidden && !self.hardware(to).is_hidden {
            let now = self.now;
            self.at_mut(from).called.insert(to, now);
        }
    }

    /// Whether something that one machine sends now comes to another, by itself or by a relay.
    pub(super) fn reaches(&self, from: MachineId, to: MachineId) -> bool {
        let is_let_in = || {
            let called = self.at(to).called.get(&from);
            called.is_some_and(|at| self.now.since(*at) < LET_IN)
        };
        if self.network.is_open(from, to) && (!self.hardware(to).is_hidden || is_let_in()) {
            return true;
        }
        let told = self.at(from).peers.get(&self.node(to));
        let told = told.map_or(&[][..], |peer| &peer.relays[..]);
        let mut relays = told.iter().chain(&self.at(from).lines);
        relays.any(|relay| self.carries(from, *relay, to))
    }

    fn carries(&self, from: MachineId, relay: NodeId, to: MachineId) -> bool {
        let Some(at) = self.machine_of(relay) else {
            return false;
        };
        // Whoever sends makes a line when it has none; whoever is to get it must hold one.
        self.is_up(at)
            && !self.hardware(at).is_hidden
            && self.at(to).lines.contains(&relay)
            && self.network.is_open(from, at)
            && self.network.is_open(at, to)
    }

    /// A kernel wants lines to these members.
    pub(super) fn lines(&mut self, machine: MachineId, relays: &[NodeId]) {
        let held = std::mem::take(&mut self.at_mut(machine).lines);
        for relay in relays {
            if held.contains(relay) {
                self.at_mut(machine).lines.insert(*relay);
                continue;
            }
            let other = self.machine_of(*relay).filter(|other| {
                let is_open = |a, b| self.network.is_open(a, b);
                let is_hidden = self.hardware(*other).is_hidden;
                let both = is_open(machine, *other) && is_open(*other, machine);
                self.is_up(*other) && !is_hidden && both
            });
            match other {
                None => self.tell_line(machine, *relay, LineState::Closed, DIAL),
                Some(other) => {
                    let seen = match self.hardware(machine).is_hidden {
                        true => OUTSIDE.to_string(),
                        false => machine::address(machine),
                    };
                    let carries = true;
                    let after = self.network.round_trip(machine, other) * 2;
                    self.at_mut(machine).lines.insert(*relay);
                    self.tell_line(machine, *relay, LineState::Open { seen, carries }, after);
                }
            }
        }
    }

    /// A machine has no kernel any more: lines to it are dead.
    pub(super) fn lines_break(&mut self, machine: MachineId) {
        let relay = self.node(machine);
        for other in self.machines() {
            if self.at_mut(other).lines.remove(&relay) {
                self.tell_line(other, relay, LineState::Closed, SILENT);
            }
        }
    }

    fn tell_line(&mut self, machine: MachineId, relay: NodeId, state: LineState, after: Duration) {
        let life = self.at(machine).life;
        let input = Box::new(Input::Line { relay, state });
        let what = What::Input {
            machine,
            life,
            input,
        };
        self.queue.put(self.now + after, what);
    }
}
