//! What happens in the world when its time has come.

use std::time::Duration;

use kernel::world::Input;
use rand::RngExt;
use wire::fact::Load;
use wire::id::NodeId;
use wire::peer::{JoinAnswer, JoinRequest};

use super::{Join, MachineId, Moment, World};
use crate::driver::Plan;
use crate::invariants::Seen;

/// How long a message is tried to be delivered.
const DELIVERY: Duration = Duration::from_secs(4);
/// Time between two tries; what a transport waits for an acknowledgement.
const RETRANSMISSION: Duration = Duration::from_millis(300);
/// Time between two looks at the wall clock and the load.
const TICK: Duration = Duration::from_secs(5);
/// Datagrams that a frozen machine's socket keeps.
const SOCKET_DATAGRAMS: usize = 256;
/// Timeouts that follow each other at once: more is a kernel that spins.
const SPINS_MAX: u32 = 1000;

/// A message on its way.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) from: MachineId,
    pub(super) from_life: u64,
    pub(super) to: NodeId,
    pub(super) bytes: Vec<u8>,
    pub(super) sent: kernel::instant::Instant,
}

/// Something to come.
#[derive(Debug)]
pub(super) enum What {
    /// The kernel asked to be told the time.
    Wake { machine: MachineId, life: u64 },
    /// The host looks at the clock and at the load.
    Tick { machine: MachineId, life: u64 },
    /// A datagram arrives.
    Datagram {
        from: MachineId,
        to: MachineId,
        bytes: Vec<u8>,
    },
    /// A message arrives, or is tried again.
    Message(Parcel),
    /// The kernel learns something that the world made for it.
    Input {
        machine: MachineId,
        life: u64,
        input: Box<Input>,
    },
    /// The first batch on its way is durable, or refused.
    Settled { machine: MachineId, life: u64 },
    /// A program starts or ends by itself.
    Program { machine: MachineId, plan: Plan },
    /// A request to join arrives at a door.
    JoinArrives {
        join: Join,
        attempt: u32,
        door: MachineId,
        request: Box<JoinRequest>,
    },
    /// The answer arrives at the joiner.
    JoinAnswered {
        join: Join,
        attempt: u32,
        answer: Box<JoinAnswer>,
    },
    /// The joiner has waited long enough.
    JoinSilence { join: Join, attempt: u32 },
}

impl World {
    pub(super) fn happen(&mut self, what: What) {
        match what {
            What::Wake { machine, life } => {
                if self.at(machine).life == life
                    && self.at(machine).wake_at.is_some_and(|at| at <= self.now)
                {
                    self.at_mut(machine).wake_at = None;
                    self.wake(machine);
                }
            }
            What::Tick { machine, life } => self.tick(machine, life),
            What::Datagram { from, to, bytes } => self.datagram_arrives(from, to, bytes),
            What::Message(parcel) => self.message_arrives(parcel),
            What::Input {
                machine,
                life,
                input,
            } => {
                if self.at(machine).life == life {
                    self.feed_now(machine, *input);
                }
            }
            What::Settled { machine, life } => self.settled(machine, life),
            What::Program { machine, plan } => self.program_turns(machine, &plan),
            What::JoinArrives {
                join,
                attempt,
                door,
                request,
            } => self.join_arrives(join, attempt, door, request),
            What::JoinAnswered {
                join,
                attempt,
                answer,
            } => self.join_answered(join, attempt, *answer),
            What::JoinSilence { join, attempt } => self.join_silence(join, attempt),
        }
    }

    /// The kernel of a machine learns something, when the machine gets to it.
    pub(super) fn feed(&mut self, machine: MachineId, input: Input) {
        let now = self.now;
        let it = self.at_mut(machine);
        // Never before what came earlier, also when the machine has become faster.
        let at = (now + it.lag).max(it.fed_until);
        it.fed_until = at;
        if at <= now {
            self.feed_now(machine, input);
        } else {
            let (life, input) = (it.life, Box::new(input));
            let what = What::Input {
                machine,
                life,
                input,
            };
            self.queue.put(at, what);
        }
    }

    /// The same, when it has got to it.
    pub(super) fn feed_now(&mut self, machine: MachineId, input: Input) {
        let now = self.now;
        let it = self.at_mut(machine);
        let Some(kernel) = &mut it.kernel else {
            return;
        };
        if it.frozen {
            let is_datagram = matches!(input, Input::Datagram { .. });
            if !is_datagram || it.held.len() < SOCKET_DATAGRAMS {
                it.held.push(input);
            }
            return;
        }
        kernel.handle(now, input);
        self.drain(machine);
    }

    pub(super) fn wake(&mut self, machine: MachineId) {
        let now = self.now;
        let it = self.at_mut(machine);
        if it.frozen {
            return;
        }
        let Some(kernel) = &mut it.kernel else {
            return;
        };
        if kernel.poll_timeout().is_some_and(|at| at <= now) {
            kernel.handle_timeout(now);
            let again = kernel.poll_timeout().is_some_and(|at| at <= now);
            it.spins = if again { it.spins + 1 } else { 0 };
            if it.spins == SPINS_MAX {
                self.see(machine, &Seen::Spins);
            }
        }
        self.drain(machine);
    }

    /// Carries out what the kernel wants and sets its alarm clock.
    pub(super) fn drain(&mut self, machine: MachineId) {
        loop {
            let Some(kernel) = &mut self.at_mut(machine).kernel else {
                return;
            };
            let Some(output) = kernel.poll_output() else {
                break;
            };
            self.carry_out(machine, output);
        }
        let now = self.now;
        let it = self.at_mut(machine);
        let timeout = it.kernel.as_ref().and_then(kernel::Kernel::poll_timeout);
        if let Some(at) = timeout {
            // A kernel that wants to be told the time at once gets it a little later: time goes on.
            let at = at.max(now + Duration::from_micros(1)) + it.lag;
            if it
                .wake_at
                .is_none_or(|earlier| at < earlier || earlier < now)
            {
                it.wake_at = Some(at);
                let life = it.life;
                self.queue.put(at, What::Wake { machine, life });
            }
        }
    }

    fn tick(&mut self, machine: MachineId, life: u64) {
        if self.at(machine).life != life || !self.is_up(machine) {
            return;
        }
        let wall = self.at(machine).wall(self.wall());
        self.feed(machine, Input::Wall(wall));
        let programs = self.programs(machine).count();
        let programs = u32::try_from(programs).unwrap_or(u32::MAX);
        let load = Load {
            cpu_used_millis: 50 + 20 * programs,
            memory_used_bytes: (256 << 20) + (u64::from(programs) * (16 << 20)),
        };
        self.feed(machine, Input::Load(load));
        self.queue
            .put(self.now + TICK, What::Tick { machine, life });
    }

    fn datagram_arrives(&mut self, from: MachineId, to: MachineId, bytes: Vec<u8>) {
        if self.reaches(from, to) && self.are_linked(from, to) {
            // What is on its way arrives, even when its sender is no more.
            let from = self.at(from).node;
            self.feed(to, Input::Datagram { from, bytes });
        }
    }

    /// Both may link each other, one knows where the other is, and there is somebody to hear it.
    fn are_linked(&self, from: MachineId, to: MachineId) -> bool {
        let knows = |a: MachineId, b: MachineId| {
            let other = self.at(b).node;
            self.at(a).peers.get(&other).map(|peer| peer.has_address)
        };
        match (knows(from, to), knows(to, from)) {
            (Some(there), Some(back)) => self.is_up(to) && (there || back),
            _ => false,
        }
    }

    fn message_arrives(&mut self, parcel: Parcel) {
        if self.network.breaks(&mut self.random) {
            return self.link_breaks(parcel);
        }
        let from = parcel.from;
        let to = self.machine_of(parcel.to);
        let sender_lives = self.at(from).life == parcel.from_life && self.is_up(from);
        let way = to.filter(|to| self.are_linked(from, *to));
        let overdue = self.now.since(parcel.sent) >= DELIVERY;
        let arrives =
            way.is_some_and(|to| self.reaches(from, to)) && !self.network.loses(&mut self.random);
        if let Some(to) = to.filter(|_| arrives) {
            let acknowledged = self.reaches(to, from);
            let bytes = parcel.bytes.clone();
            let node = self.at(from).node;
            self.feed(to, Input::Message { from: node, bytes });
            if !acknowledged {
                self.give_up(parcel, DELIVERY);
            }
        } else if sender_lives && !overdue {
            self.queue
                .put(self.now + RETRANSMISSION, What::Message(parcel));
        } else if sender_lives {
            self.give_up(parcel, Duration::ZERO);
        }
    }

    /// The link breaks with a message on it. Nobody may be told: the other daemon had taken it from
    /// the link, and no further.
    fn link_breaks(&mut self, parcel: Parcel) {
        self.blind_at = self.now;
        let (arrives, is_told) = match self.random.random_range(0..4) {
            0 => (true, true),
            1 => (false, false),
            _ => (false, true),
        };
        let to = self.machine_of(parcel.to);
        let reaches =
            |to: &MachineId| self.are_linked(parcel.from, *to) && self.reaches(parcel.from, *to);
        if arrives && let Some(to) = to.filter(reaches) {
            let from = self.at(parcel.from).node;
            let bytes = parcel.bytes.clone();
            self.feed(to, Input::Message { from, bytes });
        }
        if is_told {
            self.give_up(parcel, Duration::from_millis(50));
        }
    }

    fn give_up(&mut self, parcel: Parcel, after: Duration) {
        self.blind_at = self.now;
        let input = Box::new(Input::Undelivered {
            to: parcel.to,
            bytes: parcel.bytes,
        });
        let (machine, life) = (parcel.from, parcel.from_life);
        let what = What::Input {
            machine,
            life,
            input,
        };
        self.queue.put(self.now + after, what);
    }

    fn settled(&mut self, machine: MachineId, life: u64) {
        if self.at(machine).life != life || !self.is_up(machine) {
            return;
        }
        let Some((batch, durable)) = self.at_mut(machine).disk.settle() else {
            return;
        };
        if durable && self.is_doomed(machine, Moment::AfterDurable) {
            return;
        }
        let input = if durable {
            Input::Persisted { batch }
        } else {
            let reason = "no space left on device".to_string();
            Input::PersistFailed { batch, reason }
        };
        self.feed(machine, input);
    }

    /// Something happens that the machine may be doomed to crash at; says whether it did.
    pub(super) fn is_doomed(&mut self, machine: MachineId, moment: Moment) -> bool {
        let doom = &mut self.at_mut(machine).doom;
        let Some((_, count)) = doom.as_mut().filter(|(at, _)| *at == moment) else {
            return false;
        };
        *count -= 1;
        if *count > 0 {
            return false;
        }
        *doom = None;
        self.doomed.push(machine);
        if self.random.random() {
            self.crash(machine);
        } else {
            self.kill_daemon(machine);
        }
        true
    }

    fn program_turns(&mut self, machine: MachineId, plan: &Plan) {
        let wall = self.at(machine).wall(self.wall());
        let now = self.now;
        let Some(report) = self.at_mut(machine).driver.turn(now, wall, plan) else {
            return;
        };
        let object = plan.object;
        self.feed(machine, Input::Driver { object, report });
    }
}
