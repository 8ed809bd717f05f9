//! What kernels want done, and how the world does it.

use std::time::Duration;

use kernel::world::{CallId, Input, Output};
use rand::RngExt;
use wire::driver::Launch;
use wire::id::NodeId;

use super::happen::{Parcel, What};
use super::machine::Peer;
use super::{Call, MachineId, Moment, Off, Outcome, World};
use crate::driver::Plan;
use crate::invariants::Seen;

impl World {
    pub(super) fn carry_out(&mut self, machine: MachineId, output: Output) {
        self.see(machine, &Seen::Output(&output));
        match output {
            Output::Datagram { to, bytes } => self.send_datagram(machine, to, bytes),
            Output::Message { to, bytes } => self.send_message(machine, to, bytes),
            Output::Persist { batch, writes } => self.persist(machine, batch, writes),
            Output::Reply { call, result } => self.reply(machine, call, *result),
            Output::AnswerJoin { token, answer } => self.answer_join(machine, token, answer),
            Output::Launch(launch) => self.launch(machine, *launch),
            Output::Stop { object, grace_ms } => {
                let driver = &mut self.machines[machine.0].driver;
                let plan = driver.stop(object, grace_ms, &mut self.random);
                self.plan(machine, plan);
            }
            Output::Tenure { object, tenure } => {
                let now = self.now;
                let plan = self.at_mut(machine).driver.tenure(now, object, tenure);
                self.plan(machine, plan);
            }
            Output::Signal { object, signal } => {
                let plan = self.at_mut(machine).driver.signal(object, signal);
                self.plan(machine, plan);
            }
            Output::Discard { object } => self.at_mut(machine).driver.discard(object),
            Output::Measure { token, objects } => {
                let usages = self.at(machine).driver.measure(self.now, &objects);
                self.soon(machine, Input::Measured { token, usages });
            }
            Output::Probe { object, probe, .. } => {
                let outcome = self.at(machine).driver.probe(self.now, object);
                let probed = Input::Probed {
                    object,
                    probe,
                    outcome,
                };
                self.soon(machine, probed);
            }
            Output::Sign { token, bytes } => {
                let signature = self.at(machine).sign(&bytes);
                self.soon(machine, Input::Signed { token, signature });
            }
            Output::Peer {
                node,
                addresses,
                relays,
            } => self.peer(machine, node, !addresses.is_empty(), relays),
            Output::Lines { relays } => self.lines(machine, &relays),
            Output::Expel { node } => {
                let it = self.at_mut(machine);
                it.peers.remove(&node);
                it.expelled.insert(node);
            }
            Output::Event(event) => {
                self.counts.losses += u64::from(event.kind == "node.unreachable");
                // Who was removed is heard by nobody, whatever it has to say.
                if event.kind == "node.removed" {
                    self.blind_at = self.now;
                }
                self.note(machine, &event.kind, &event.subject, &event.message);
            }
            Output::Alarm { alarm, detail } => self.note(machine, "alarm", alarm.name(), &detail),
            Output::Halt => self.end_life(machine, Off::Stopped),
        }
    }

    /// What the world makes for a kernel, a moment later.
    fn soon(&mut self, machine: MachineId, input: Input) {
        let after = Duration::from_micros(self.random.random_range(20..200));
        let (life, input) = (self.at(machine).life, Box::new(input));
        let what = What::Input {
            machine,
            life,
            input,
        };
        self.queue.put(self.now + after, what);
    }

    fn send_datagram(&mut self, from: MachineId, to: NodeId, bytes: Vec<u8>) {
        self.counts.datagrams += 1;
        self.counts.datagram_bytes += bytes.len() as u64;
        let Some(to) = self.machine_of(to) else {
            return;
        };
        self.note_call(from, to);
        let copies = 1 + usize::from(self.network.doubles(&mut self.random));
        for _ in 0..copies {
            if !self.network.loses(&mut self.random) {
                let delay = self.network.delay(from, to, &mut self.random);
                let bytes = bytes.clone();
                self.queue
                    .put(self.now + delay, What::Datagram { from, to, bytes });
            }
        }
    }

    fn send_message(&mut self, from: MachineId, to: NodeId, bytes: Vec<u8>) {
        self.counts.messages += 1;
        self.counts.message_bytes += bytes.len() as u64;
        let delay = match self.machine_of(to) {
            Some(to) => {
                self.note_call(from, to);
                self.network.delay(from, to, &mut self.random)
            }
            None => Duration::ZERO,
        };
        let parcel = Parcel {
            from,
            from_life: self.at(from).life,
            to,
            bytes,
            sent: self.now,
        };
        self.queue.put(self.now + delay, What::Message(parcel));
        self.is_doomed(from, Moment::AfterSaying);
    }

    fn persist(&mut self, machine: MachineId, batch: u64, writes: Vec<wire::disk::Write>) {
        self.counts.batches += 1;
        let it = self.at_mut(machine);
        it.disk.persist(batch, writes);
        let life = it.life;
        if self.is_doomed(machine, Moment::BeforeDurable) {
            return;
        }
        let usual = self.random.random_range(200..3_000);
        let slow = self.random.random_range(0..100) == 0;
        let after = Duration::from_micros(if slow { usual * 20 } else { usual });
        self.queue
            .put(self.now + after, What::Settled { machine, life });
    }

    fn reply(
        &mut self,
        machine: MachineId,
        call: CallId,
        result: Result<wire::call::Response, wire::call::Problem>,
    ) {
        if let Some(state) = self.calls.get_mut(&Call(call.0)) {
            let what = state.what.clone();
            let told = match &result {
                Ok(_) => "done".to_string(),
                Err(problem) => format!("{:?}: {}", problem.code, problem.detail),
            };
            state.outcome = Outcome::Answered(Box::new(result));
            if let Some(what) = what {
                self.note(machine, "call.answered", &what, &told);
            }
        }
        self.is_doomed(machine, Moment::AfterSaying);
    }

    fn launch(&mut self, machine: MachineId, launch: Launch) {
        self.counts.launches += 1;
        self.see(machine, &Seen::Launch(&launch));
        let driver = &mut self.machines[machine.0].driver;
        let plans = driver.launch(self.now, launch, &mut self.random);
        for plan in plans {
            self.plan(machine, Some(plan));
        }
    }

    fn plan(&mut self, machine: MachineId, plan: Option<Plan>) {
        if let Some(plan) = plan {
            let at = self.now + plan.after;
            self.queue.put(at, What::Program { machine, plan });
        }
    }

    fn peer(&mut self, machine: MachineId, node: NodeId, has_address: bool, relays: Vec<NodeId>) {
        let peer = Peer {
            has_address,
            relays,
        };
        self.at_mut(machine).peers.insert(node, peer);
        if let Some(other) = self.machine_of(node) {
            let round_trip = self.network.round_trip(machine, other);
            let rtt_us = u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX);
            self.soon(machine, Input::RoundTrip { node, rtt_us });
        }
    }
}
