//! The made-up world: machines, the network between them, and time.
//!
//! Nothing here runs by itself. [`World::pass`] and its like let time go on; everything that
//! happens in it follows from the seed and from what the caller does.

mod carry;
mod happen;
mod join;
mod machine;
mod relay;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kernel::Kernel;
use kernel::instant::Instant;
use kernel::limits::CALL_DEADLINE;
use kernel::world::{CallId, Ending, Input, Token};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use wire::call::{Problem, Request, Response};
use wire::driver::Launch;
use wire::id::{NodeId, ObjectId, UnixMillis};

use crate::invariants::{Seen, Watch};
use crate::journal::Journal;
use crate::latency::Matrix;
use crate::network::{Network, Weather};
use crate::queue::Queue;
use happen::What;
use join::Joining;
use machine::Machine;

pub use machine::{Hardware, Moment, Off};

/// What wall clocks show when a world begins: 2026-01-01 UTC.
pub(crate) const EPOCH_MS: u64 = 1_767_225_600_000;
/// Where time begins: not at zero, so that nothing rests on that.
const BEGIN: Instant = Instant::from_micros(1_000_000);

/// A machine of a world.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct MachineId(pub usize);

/// A call that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Call(u64);

/// An attempt to join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Join(u64);

/// What became of a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Nothing yet.
    Open,
    /// It was answered.
    Answered(Box<Result<Response, Problem>>),
    /// The node stopped or crashed before it answered.
    Broken,
}

/// What became of an attempt to join.
#[derive(Debug, Clone, PartialEq)]
pub enum JoinOutcome {
    /// Nothing yet.
    Open,
    /// The machine is a member, and this is its name.
    Admitted(String),
    /// It was refused.
    Refused(Problem),
    /// Nobody that the ticket names has answered.
    Unreachable,
    /// The text is no ticket.
    NoTicket(String),
}

/// How much happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Things taken from the queue.
    pub steps: u64,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Bytes of them.
    pub datagram_bytes: u64,
    /// Messages sent.
    pub messages: u64,
    /// Bytes of them.
    pub message_bytes: u64,
    /// Batches given to disks.
    pub batches: u64,
    /// Programs started.
    pub launches: u64,
    /// Crashes of machines and of daemons.
    pub crashes: u64,
    /// Times that a kernel said that another does not answer.
    pub losses: u64,
}

#[derive(Debug)]
struct CallState {
    at: MachineId,
    id: CallId,
    /// In words, when it is to change something.
    what: Option<String>,
    since: Instant,
    /// By when it must be answered, when it must.
    limit: Option<Duration>,
    outcome: Outcome,
}

/// The world.
#[derive(Debug)]
pub struct World {
    now: Instant,
    queue: Queue<What>,
    random: ChaCha8Rng,
    network: Network,
    machines: Vec<Machine>,
    by_node: BTreeMap<NodeId, MachineId>,
    calls: BTreeMap<Call, CallState>,
    joins: BTreeMap<Join, Joining>,
    last_number: u64,
    journal: Journal,
    counts: Counts,
    watches: Vec<Box<dyn Watch>>,
    violations: Vec<String>,
    /// Machines that a [`Moment`] has crashed and that nobody has looked at yet.
    doomed: Vec<MachineId>,
    blind_at: Instant,
}

impl World {
    /// An empty world.
    #[must_use]
    pub fn new(seed: u64, matrix: Matrix) -> Self {
        Self {
            now: BEGIN,
            queue: Queue::new(),
            random: ChaCha8Rng::seed_from_u64(seed),
            network: Network::new(matrix),
            machines: Vec::new(),
            by_node: BTreeMap::new(),
            calls: BTreeMap::new(),
            joins: BTreeMap::new(),
            last_number: 0,
            journal: Journal::default(),
            counts: Counts::default(),
            watches: crate::invariants::watches(),
            violations: Vec::new(),
            doomed: Vec::new(),
            blind_at: BEGIN,
        }
    }

    /// Another machine, which belongs to no cloud yet.
    pub fn add(&mut self, hardware: Hardware) -> MachineId {
        let id = MachineId(self.machines.len());
        self.network.settle(hardware.place);
        let machine = Machine::new(self.now, hardware, self.random.random());
        self.by_node.insert(machine.node, id);
        self.machines.push(machine);
        id
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// How long the world has gone on.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.now.since(BEGIN)
    }

    /// What a right wall clock shows.
    #[must_use]
    pub fn wall(&self) -> UnixMillis {
        let age_ms = u64::try_from(self.age().as_millis()).unwrap_or(u64::MAX);
        UnixMillis(EPOCH_MS.saturating_add(age_ms))
    }

    /// All machines.
    pub fn machines(&self) -> impl Iterator<Item = MachineId> + use<> {
        (0..self.machines.len()).map(MachineId)
    }

    /// How far places are from each other.
    #[must_use]
    pub fn matrix(&self) -> &Matrix {
        self.network.matrix()
    }

    /// The machine with this key.
    #[must_use]
    pub fn machine_of(&self, node: NodeId) -> Option<MachineId> {
        self.by_node.get(&node).copied()
    }

    /// The key of a machine.
    #[must_use]
    pub fn node(&self, machine: MachineId) -> NodeId {
        self.at(machine).node
    }

    /// The name that a machine goes by, or asks for.
    #[must_use]
    pub fn name(&self, machine: MachineId) -> &str {
        let machine = self.at(machine);
        let given = machine.admission.as_ref().map(|it| it.name.as_str());
        given.unwrap_or(&machine.hardware.name)
    }

    /// What a machine is made of.
    #[must_use]
    pub fn hardware(&self, machine: MachineId) -> &Hardware {
        &self.at(machine).hardware
    }

    /// Whether a kernel lives on the machine.
    #[must_use]
    pub fn is_up(&self, machine: MachineId) -> bool {
        self.at(machine).kernel.is_some()
    }

    /// Why it has none, or had none last.
    #[must_use]
    pub fn off(&self, machine: MachineId) -> Off {
        self.at(machine).off
    }

    /// Since when the machine is as it is: up, or off.
    #[must_use]
    pub fn since(&self, machine: MachineId) -> Instant {
        self.at(machine).since
    }

    /// Whether its kernel is frozen, or notices things too late.
    #[must_use]
    pub fn is_slow(&self, machine: MachineId) -> bool {
        let it = self.at(machine);
        it.frozen || !it.lag.is_zero()
    }

    /// Whether its disk takes no writes.
    #[must_use]
    pub fn disk_refuses(&self, machine: MachineId) -> bool {
        self.at(machine).disk.refuses
    }

    /// Whether the machine is admitted somewhere.
    #[must_use]
    pub fn is_admitted(&self, machine: MachineId) -> bool {
        self.at(machine).admission.is_some()
    }

    /// Whether this life of the machine's kernel has closed its links to a node for good.
    #[must_use]
    pub fn has_expelled(&self, machine: MachineId, node: NodeId) -> bool {
        self.at(machine).expelled.contains(&node)
    }

    /// Whether the kernel of a machine knows that another is a member.
    #[must_use]
    pub fn knows(&self, machine: MachineId, other: MachineId) -> bool {
        machine == other || self.at(machine).peers.contains_key(&self.node(other))
    }

    /// Whether the kernel of a machine says that another answers.
    #[must_use]
    pub fn sees(&self, machine: MachineId, other: MachineId) -> bool {
        let (kernel, node) = (self.at(machine).kernel.as_ref(), self.node(other));
        kernel.is_some_and(|kernel| kernel.is_reachable(node))
    }

    /// How often kernels that live now have suspected another.
    #[must_use]
    pub fn suspicions(&self) -> u64 {
        let kernels = self.machines.iter().filter_map(|it| it.kernel.as_ref());
        kernels.map(Kernel::suspicion_count).sum()
    }

    /// Programs that truly run on a machine, or are being started, whatever anybody believes.
    pub fn programs(&self, machine: MachineId) -> impl Iterator<Item = (ObjectId, &Launch)> {
        let objects = self.at(machine).driver.objects();
        objects
            .filter(|(_, program)| program.lives())
            .map(|(object, program)| (*object, &program.launch))
    }

    /// Those of them that can do something now: none that is frozen.
    pub fn acting(&self, machine: MachineId) -> impl Iterator<Item = (ObjectId, &Launch)> {
        let objects = self.at(machine).driver.objects();
        objects
            .filter(|(_, program)| program.acts(self.now))
            .map(|(object, program)| (*object, &program.launch))
    }

    /// Rows that are durable on a machine.
    #[must_use]
    pub fn rows(&self, machine: MachineId) -> Vec<(wire::disk::Table, Vec<u8>, Vec<u8>)> {
        self.at(machine).disk.rows()
    }

    /// What was said.
    #[must_use]
    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// How much happened.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// What should never have happened, in sentences.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// Machines that crashed at their [`Moment`] since this was last asked.
    pub fn take_doomed(&mut self) -> Vec<MachineId> {
        std::mem::take(&mut self.doomed)
    }

    /// Chance for callers that make up what happens.
    pub fn random(&mut self) -> &mut ChaCha8Rng {
        &mut self.random
    }

    /// Makes a call on a machine. It is broken at once when no kernel lives there.
    pub fn call(&mut self, at: MachineId, request: impl Into<Request>) -> Call {
        let number = self.next_number();
        let (call, id) = (Call(number), CallId(number));
        let outcome = if self.is_up(at) {
            Outcome::Open
        } else {
            Outcome::Broken
        };
        let request = Box::new(request.into());
        let what = deed(&request);
        if let Some(what) = &what {
            self.note(at, "call.asked", what, "");
        }
        let state = CallState {
            at,
            id,
            what,
            since: self.now,
            limit: limit(&request),
            outcome,
        };
        self.calls.insert(call, state);
        self.feed(at, Input::Call { call: id, request });
        call
    }

    /// The caller goes away.
    pub fn abandon(&mut self, call: Call) {
        if let Some(state) = self.calls.remove(&call)
            && state.outcome == Outcome::Open
        {
            if let Some(what) = &state.what {
                self.note(state.at, "call.abandoned", what, "");
            }
            self.feed(state.at, Input::Abandoned { call: state.id });
        }
    }

    /// Calls that were not answered in their time, in sentences. The time in which the node was
    /// frozen or slow, or could not write, does not count.
    #[must_use]
    pub fn overdue(&self) -> Vec<String> {
        let open = self.calls.values().filter(|it| it.outcome == Outcome::Open);
        let overdue = open.filter_map(|it| {
            let machine = self.at(it.at);
            let waited = self.now.since(it.since.max(machine.ill_until));
            let limit = it
                .limit
                .filter(|limit| waited > *limit && !machine.is_ill())?;
            let (what, name) = (it.what.as_deref().unwrap_or("a question"), self.name(it.at));
            let asked = it.since.since(BEGIN).as_secs_f64();
            Some(format!(
                "answered: {name} has not answered `{what}` of {asked:.3} s for {limit:?}"
            ))
        });
        overdue.collect()
    }

    /// When a message was last lost, or a machine could not hear or speak.
    #[must_use]
    pub fn blind_at(&self) -> Instant {
        let is_blind = !self.is_whole() || self.machines().any(|it| self.is_slow(it));
        if is_blind { self.now } else { self.blind_at }
    }

    /// Since when the disk of a machine and its kernel do what they should.
    #[must_use]
    pub fn is_well_since(&self, machine: MachineId) -> Option<Instant> {
        let it = self.at(machine);
        let is_well = it.kernel.is_some() && !it.is_ill();
        is_well.then(|| it.since.max(it.ill_until))
    }

    /// What the kernel of a machine has begun and not finished, in words.
    #[must_use]
    pub fn unfinished(&self, machine: MachineId) -> Vec<&'static str> {
        let kernel = self.at(machine).kernel.as_ref();
        kernel.map_or_else(Vec::new, Kernel::unfinished)
    }

    /// What became of a call.
    #[must_use]
    pub fn outcome(&self, call: Call) -> &Outcome {
        self.calls
            .get(&call)
            .map_or(&Outcome::Broken, |state| &state.outcome)
    }

    /// Makes a call and lets time pass until it is answered, at most so long.
    ///
    /// # Errors
    /// The [`Problem`] that it was answered with; `None` when it was not answered at all.
    pub fn ask(
        &mut self,
        at: MachineId,
        request: impl Into<Request>,
        within: Duration,
    ) -> Result<Response, Option<Problem>> {
        let call = self.call(at, request);
        self.pass_until(within, |world| *world.outcome(call) != Outcome::Open);
        let state = self.calls.remove(&call);
        match state.map(|it| it.outcome) {
            Some(Outcome::Answered(result)) => (*result).map_err(Some),
            Some(Outcome::Open | Outcome::Broken) | None => Err(None),
        }
    }

    /// Lets time pass.
    pub fn pass(&mut self, duration: Duration) {
        self.pass_until(duration, |_| false);
    }

    /// Lets time pass until something is the case, at most so long; says whether it is.
    pub fn pass_until(&mut self, most: Duration, mut is_so: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now + most;
        loop {
            if is_so(self) {
                return true;
            }
            if self.queue.next_at().is_none_or(|at| at > end) {
                self.now = end;
                return is_so(self);
            }
            self.step();
        }
    }

    fn step(&mut self) {
        if let Some((at, what)) = self.queue.take() {
            self.now = self.now.max(at);
            self.counts.steps += 1;
            self.happen(what);
        }
    }

    /// The power of a machine goes: its programs end, and what is not durable is lost.
    pub fn crash(&mut self, machine: MachineId) {
        self.end_life(machine, Off::Crashed);
        self.at_mut(machine).driver.crash();
        self.see(machine, &Seen::Crashed);
    }

    /// The daemon of a machine is killed; its programs go on.
    pub fn kill_daemon(&mut self, machine: MachineId) {
        self.end_life(machine, Off::DaemonKilled);
    }

    /// The daemon of a machine is asked to end, to be started again; its programs go on.
    pub fn end_daemon(&mut self, machine: MachineId) {
        if self.is_up(machine) && !self.at(machine).frozen {
            self.feed_now(machine, Input::Ending(Ending::Restart));
        }
        self.kill_daemon(machine);
    }

    /// The machine is turned off in good order: its daemon says so, and its programs end.
    pub fn shut_down(&mut self, machine: MachineId) {
        if self.is_up(machine) && !self.at(machine).frozen {
            self.feed_now(machine, Input::Ending(Ending::Shutdown));
        }
        self.crash(machine);
    }

    fn end_life(&mut self, machine: MachineId, off: Off) {
        let now = self.now;
        let it = &mut self.machines[machine.0];
        it.disk.crash(&mut self.random);
        if it.kernel.take().is_none() {
            if off == Off::Crashed && it.off != Off::New {
                it.off = off;
            }
            return;
        }
        it.off = off;
        it.since = now;
        it.held.clear();
        it.frozen = false;
        it.doom = None;
        self.counts.crashes += u64::from(off != Off::Stopped);
        let kind = match off {
            Off::New | Off::Stopped => "machine.stopped",
            Off::DaemonKilled => "daemon.killed",
            Off::Crashed => "machine.crashed",
        };
        self.note(machine, kind, "", "");
        self.lines_break(machine);
        for state in self.calls.values_mut() {
            if state.at == machine && state.outcome == Outcome::Open {
                state.outcome = Outcome::Broken;
            }
        }
    }

    /// The machine starts again, with what its disk holds. Nothing happens when it is up, or
    /// belongs to no cloud.
    pub fn start(&mut self, machine: MachineId) {
        let (now, wall) = (self.now, self.wall());
        let seed = self.random.random();
        let it = self.at_mut(machine);
        if it.kernel.is_some() {
            return;
        }
        let Some(config) = it.config(wall, seed, machine::address(machine)) else {
            return;
        };
        it.life += 1;
        it.since = now;
        it.wake_at = None;
        it.peers.clear();
        it.lines.clear();
        it.called.clear();
        it.expelled.clear();
        it.kernel = Some(Kernel::new(now, config));
        let life = it.life;
        self.note(machine, "machine.started", "", "");
        let first = Duration::from_millis(self.random.random_range(0..1000));
        self.queue.put(now + first, What::Tick { machine, life });
        self.drain(machine);
    }

    /// Crashes the machine when something happens for the `count`-th time from now.
    pub fn doom(&mut self, machine: MachineId, moment: Moment, count: u32) {
        self.at_mut(machine).doom = Some((moment, count.max(1)));
    }

    /// Nothing is cut, nobody is slow, frozen or doomed, and disks take writes.
    pub fn heal(&mut self) {
        self.network.heal();
        self.blind_at = self.now;
        for machine in self.machines() {
            self.thaw(machine);
            self.note_illness(machine);
            let it = self.at_mut(machine);
            it.lag = Duration::ZERO;
            it.disk.refuses = false;
            it.doom = None;
        }
    }

    /// The network alone: nothing is cut.
    pub fn mend(&mut self) {
        self.blind_at = self.now;
        self.network.heal();
    }

    /// The same, piece by piece: half of what is cut, by chance.
    pub fn mend_some(&mut self) {
        self.blind_at = self.now;
        self.network.heal_some(&mut self.random);
    }

    /// Whether nothing is cut.
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.network.is_whole()
    }

    /// Nothing arrives from one machine at another; the other way is open.
    pub fn cut(&mut self, from: MachineId, to: MachineId) {
        self.network.cut(from, to);
    }

    /// Cuts all ways between those in `side` and all others.
    pub fn partition(&mut self, side: &BTreeSet<MachineId>) {
        for inside in self.machines().filter(|it| side.contains(it)) {
            for outside in self.machines().filter(|it| !side.contains(it)) {
                self.cut(inside, outside);
                self.cut(outside, inside);
            }
        }
    }

    /// What goes wrong on every path from now on.
    pub fn weather(&mut self, weather: Weather) {
        self.network.weather = weather;
    }

    /// The kernel of the machine does nothing until it thaws. Its programs go on.
    pub fn freeze(&mut self, machine: MachineId) {
        if self.is_up(machine) {
            self.at_mut(machine).frozen = true;
            self.note(machine, "daemon.frozen", "", "");
        }
    }

    /// It goes on where it was.
    pub fn thaw(&mut self, machine: MachineId) {
        self.note_illness(machine);
        let it = self.at_mut(machine);
        if !std::mem::replace(&mut it.frozen, false) {
            return;
        }
        let held = std::mem::take(&mut it.held);
        self.note(machine, "daemon.thawed", "", "");
        // Whether the loop looks at its clock or at its sockets first is chance.
        if self.random.random() {
            self.wake(machine);
        }
        // What has waited comes before what is still to be noticed.
        for input in held {
            self.feed_now(machine, input);
        }
        self.wake(machine);
    }

    /// The machine notices everything so much too late.
    pub fn slow(&mut self, machine: MachineId, lag: Duration) {
        self.note_illness(machine);
        self.at_mut(machine).lag = lag;
    }

    /// Whether the disk of the machine takes no writes from now on.
    pub fn refuse_writes(&mut self, machine: MachineId, refuses: bool) {
        self.note_illness(machine);
        self.at_mut(machine).disk.refuses = refuses;
    }

    /// Sets the wall clock of a machine.
    pub fn set_wall(&mut self, machine: MachineId, ahead_ms: i64) {
        self.at_mut(machine).hardware.wall_ahead_ms = ahead_ms;
        self.note(
            machine,
            "clock.stepped",
            "",
            &format!("{ahead_ms} ms ahead"),
        );
        let wall = self.at(machine).wall(self.wall());
        self.feed(machine, Input::Wall(wall));
    }

    /// Remembers how long the machine was ill, before that may change.
    fn note_illness(&mut self, machine: MachineId) {
        let now = self.now;
        let it = self.at_mut(machine);
        if it.is_ill() {
            it.ill_until = now;
            self.blind_at = now;
        }
    }

    fn at(&self, machine: MachineId) -> &Machine {
        &self.machines[machine.0]
    }

    fn at_mut(&mut self, machine: MachineId) -> &mut Machine {
        &mut self.machines[machine.0]
    }

    fn next_number(&mut self) -> u64 {
        self.last_number += 1;
        self.last_number
    }

    fn next_token(&mut self) -> Token {
        Token(self.next_number())
    }

    fn note(&mut self, machine: MachineId, kind: &str, subject: &str, message: &str) {
        let name = self.name(machine).to_string();
        self.journal.note(self.now, &name, (kind, subject, message));
    }

    /// Shows something to the invariants.
    fn see(&mut self, machine: MachineId, seen: &Seen<'_>) {
        let mut watches = std::mem::take(&mut self.watches);
        for watch in &mut watches {
            if let Some(what) = watch.see(self, machine, seen) {
                let at = self.age().as_secs_f64();
                let sentence = format!("{}: {what} (at {at:.3} s)", watch.name());
                self.note(machine, "violation", watch.name(), &what);
                self.violations.push(sentence);
            }
        }
        self.watches = watches;
    }
}

/// By when a call must be answered: what the kernel allows, and some time for its way.
fn limit(request: &Request) -> Option<Duration> {
    const MORE: Duration = Duration::from_secs(10);
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all others have the usual deadline"
    )]
    match request {
        Request::Wait(_) => None,
        // The grace of every object on the node may have to pass.
        Request::NodeDown(_) => Some(CALL_DEADLINE + MORE * 2),
        _ => Some(CALL_DEADLINE + MORE),
    }
}

/// A call that changes something, in words.
fn deed(request: &Request) -> Option<String> {
    Some(match request {
        Request::Run(it) => format!("run {} x{}", it.spec.name, it.spec.replicas),
        Request::Apply(it) => format!("apply {} x{}", it.spec.name, it.spec.replicas),
        Request::StopApp(it) => format!("stop {}", it.target),
        Request::StartApp(it) => format!("start {}", it.target),
        Request::Remove(it) => format!("remove {}", it.target),
        Request::Scale(it) => format!("scale {} x{}", it.target, it.replicas),
        Request::Kill(it) => format!("kill {} {}", it.target, it.signal),
        Request::NodeDrain(it) => format!("drain {}", it.node),
        Request::NodeResume(it) => format!("resume {}", it.node),
        Request::NodeRemove(it) => format!("remove {}", it.node),
        Request::NodeLabel(it) => format!("label {}", it.node),
        Request::NodeDown(_) => "down".to_string(),
        Request::Wait(it) => format!("wait {}", it.target),
        Request::CloudInfo(_)
        | Request::Invite(_)
        | Request::NodeList(_)
        | Request::NodeInspect(_)
        | Request::Doctor(_)
        | Request::AppList(_)
        | Request::Inspect(_)
        | Request::Locate(_)
        | Request::Stats(_)
        | Request::Explain(_)
        | Request::Resolve(_) => return None,
    })
}
