//! Between the kernel and its world: what happens, and what is to be done.
//!
//! `host` is the real world and `sim` a made-up one. Both only carry things out: every decision is
//! an [`Output`]. A world may lose datagrams and messages, may answer late, and may stop at any
//! point; it must keep these promises:
//!
//! 1. [`Input`]s carry the link-authenticated sender, never one that the bytes claim.
//! 2. The batches of [`Output::Persist`] become durable in order, each whole or not at all, and
//!    [`Input::Persisted`] is given only once a power cut cannot undo them.
//! 3. Outputs for one object reach its driver in order.
//! 4. [`Input::Driver`] tells the end of an object's program once, also after the daemon was away.
//! 5. Each [`Output::Probe`] is answered by one [`Input::Probed`], soon after its timeout at the latest.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use wire::call::{Event, Problem, Request, Response};
use wire::disk::{Table, Write};
use wire::driver::{DriverReport, Launch, Tenure};
use wire::fact::{Load, NodeFacts, Platform, Usage};
use wire::health::Check;
use wire::id::{CloudId, NodeId, ObjectId, UnixMillis};
use wire::peer::{JoinAnswer, JoinRequest, Signature, Statement};

use crate::alarm::Alarm;
/// Names a call that a caller waits for; chosen by the world, unique while the kernel lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// Names something that the world must give back: a signature, a measurement, a join.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Token(pub u64);

/// What a kernel is told at birth.
#[derive(Debug, Clone)]
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The cloud it belongs to.
    pub cloud: CloudId,
    /// The name it would like, used when the disk knows none.
    pub name: String,
    /// Labels it begins with, used when the disk knows none.
    pub labels: BTreeMap<String, String>,
    /// Version of the program.
    pub program_version: String,
    /// What kind of machine it is.
    pub platform: Platform,
    /// Where it can be reached, `ip:port`.
    pub addresses: Vec<String>,
    /// Thousandths of a core that exist.
    pub cpu_millis: u32,
    /// Bytes of memory that exist.
    pub memory_bytes: u64,
    /// Directories that no object may see.
    pub hidden_directories: Vec<String>,
    /// Wall-clock time at birth.
    pub wall: UnixMillis,
    /// From which all chance is made.
    pub seed: [u8; 32],
    /// What a founder or a joiner was given; empty ever after.
    pub statements: Vec<Statement>,
    /// What a joiner was told of the members; empty ever after.
    pub facts: Vec<NodeFacts>,
    /// What the disk holds.
    pub stored: Vec<(Table, Vec<u8>, Vec<u8>)>,
    /// Objects that the driver still has, with what their shims last said; `None` when their
    /// programs are still being started.
    pub survivors: Vec<(ObjectId, Option<DriverReport>)>,
}

/// Who waits for an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Origin {
    /// A caller of this node.
    Caller(CallId),
    /// Another node, or this one.
    Peer { node: NodeId, question: u64 },
}

/// Why a daemon ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// To begin again at once, as at an upgrade. Its objects go on meanwhile.
    Restart,
    /// Its machine stops, and all that runs there with it.
    Shutdown,
}

/// What happened.
#[derive(Debug, Clone, PartialEq)]
pub enum Input {
    /// The wall clock says this. Every few seconds; it may jump.
    Wall(UnixMillis),
    /// The daemon ends without being asked to by the cloud: say what has to be said at once.
    Ending(Ending),
    /// A datagram came from a member.
    Datagram {
        /// The authenticated sender.
        from: NodeId,
        /// As sent.
        bytes: Vec<u8>,
    },
    /// A message came from a member.
    Message {
        /// The authenticated sender.
        from: NodeId,
        /// As sent.
        bytes: Vec<u8>,
    },
    /// A message could not be delivered; it may have arrived all the same.
    Undelivered {
        /// To whom.
        to: NodeId,
        /// As sent.
        bytes: Vec<u8>,
    },
    /// The smoothed round-trip time of the link to a member.
    RoundTrip {
        /// The member.
        node: NodeId,
        /// In microseconds.
        rtt_us: u64,
    },
    /// A machine that is no member asks to become one.
    Join {
        /// For the answer.
        token: Token,
        /// Its key, from the link.
        node: NodeId,
        /// What it says.
        request: Box<JoinRequest>,
    },
    /// The batch is durable, and all before it.
    Persisted {
        /// Which.
        batch: u64,
    },
    /// The batch could not be made durable; this is said of each. It may be tried again by the
    /// kernel; until then nothing that depends on it is said.
    PersistFailed {
        /// Which.
        batch: u64,
        /// Why, as a sentence.
        reason: String,
    },
    /// A caller asks.
    Call {
        /// For the answer.
        call: CallId,
        /// What.
        request: Box<Request>,
    },
    /// A caller went away before it was answered.
    Abandoned {
        /// Which call.
        call: CallId,
    },
    /// A driver says what happened to an object.
    Driver {
        /// Which object.
        object: ObjectId,
        /// What happened.
        report: DriverReport,
    },
    /// The answer to [`Output::Measure`].
    Measured {
        /// From the output.
        token: Token,
        /// What each object uses.
        usages: Vec<(ObjectId, Usage)>,
    },
    /// The answer to [`Output::Probe`].
    Probed {
        /// From the output.
        object: ObjectId,
        /// From the output.
        probe: u64,
        /// Why the check failed, if it did, as a sentence.
        outcome: Result<(), String>,
    },
    /// The answer to [`Output::Sign`].
    Signed {
        /// From the output.
        token: Token,
        /// Made with this node's key.
        signature: Signature,
    },
    /// What the machine does.
    Load(Load),
    /// The addresses of this node changed.
    Addresses(Vec<String>),
    /// What became of a line that [`Output::Lines`] wants.
    Line {
        /// The member to which it goes.
        relay: NodeId,
        /// What.
        state: LineState,
    },
    /// There is a link to a member, or it goes another way than before.
    Linked {
        /// The member.
        node: NodeId,
        /// The member that carries it, when it is not direct.
        via: Option<NodeId>,
    },
    /// No address of a member answered, and no relay led to it.
    Undialled {
        /// The member.
        node: NodeId,
    },
    /// Two living processes have the key of this node, or of a member; the second was refused.
    Twice {
        /// Whose key. When it is this node's, this process is the one that was refused.
        node: NodeId,
        /// Where the first one is.
        first: String,
        /// Where the second one is.
        second: String,
    },
}

/// What became of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LineState {
    /// It is open.
    Open {
        /// Where the relay sees this node, `ip:port`.
        seen: String,
        /// Whether the relay carries packets.
        carries: bool,
    },
    /// It could not be made, or is gone.
    Closed,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// Send a datagram; it may get lost. At most [`crate::limits::DATAGRAM_BYTES_MAX`].
    Datagram {
        /// To whom.
        to: NodeId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Send a message; it arrives, or the link is broken ([`Input::Undelivered`]).
    Message {
        /// To whom.
        to: NodeId,
        /// What.
        bytes: Vec<u8>,
    },
    /// Make this durable: all or nothing, in order of `batch`.
    Persist {
        /// Counts up by one. What was refused comes again under the first number that was, all in
        /// one batch, with what was written since.
        batch: u64,
        /// What to write.
        writes: Vec<Write>,
    },
    /// Answer a caller.
    Reply {
        /// Which call.
        call: CallId,
        /// With what.
        result: Box<Result<Response, Problem>>,
    },
    /// Answer a machine that wants to join.
    AnswerJoin {
        /// From the input.
        token: Token,
        /// With what.
        answer: Box<JoinAnswer>,
    },
    /// Start an object.
    Launch(Box<Launch>),
    /// Ask an object's program to end, and kill it when it takes longer.
    Stop {
        /// Which object.
        object: ObjectId,
        /// How long it may take.
        grace_ms: u32,
    },
    /// The object may run so long. One that has ended needs no answer.
    Tenure {
        /// Which object.
        object: ObjectId,
        /// How long: readings of the clock of [`crate::instant::Instant`].
        tenure: Tenure,
    },
    /// Send a signal to an object's program.
    Signal {
        /// Which object.
        object: ObjectId,
        /// Its number.
        signal: u8,
    },
    /// Forget an object that has ended: its logs, its scratch files.
    Discard {
        /// Which object.
        object: ObjectId,
    },
    /// Measure what these objects use.
    Measure {
        /// For the answer.
        token: Token,
        /// Which objects.
        objects: Vec<ObjectId>,
    },
    /// Try once whether an object does its work.
    Probe {
        /// Which object.
        object: ObjectId,
        /// For the answer.
        probe: u64,
        /// What to try.
        check: Check,
        /// When it has failed, and is to be given up.
        timeout_ms: u32,
    },
    /// Sign this with the node's key.
    Sign {
        /// For the answer.
        token: Token,
        /// What.
        bytes: Vec<u8>,
    },
    /// This member may be linked, and is found there.
    Peer {
        /// The member.
        node: NodeId,
        /// `ip:port`, best first.
        addresses: Vec<String>,
        /// Members that carry packets to it, when no address answers.
        relays: Vec<NodeId>,
    },
    /// Hold lines to these members, and to no others; answered by [`Input::Line`] for each that is
    /// new.
    Lines {
        /// The members.
        relays: Vec<NodeId>,
    },
    /// This node is no member any more: close its links and accept none.
    Expel {
        /// The node.
        node: NodeId,
    },
    /// Something happened that people may want to know.
    Event(Event),
    /// Something that should be impossible, and involves a peer or a disk.
    Alarm {
        /// Which.
        alarm: Alarm,
        /// What was seen.
        detail: String,
    },
    /// The node was asked to stop and everything that it must say was said.
    Halt,
}
