//! Between one node's kernel and another's.
//!
//! Links are mutually authenticated: the receiver of a [`Message`] knows which member sent it.
//! Membership probes travel as datagrams in the form that the membership core gives them; all else
//! is a [`Message`], one per QUIC stream, encoded, at most [`MESSAGE_BYTES_MAX`].
//!
//! # The conversations
//!
//! ```text
//! gossip          Rumors                 ─►  kept if newer, told on if new
//! anti-entropy    SyncHello {hashes}     ─►  same: nothing more. Different:
//!                 SyncBuckets            ◄─
//!                 SyncItems              ─►  merged
//!                 SyncItems              ◄─  merged
//! question        Ask { question, .. }   ─►
//!                 Answer { question, ..} ◄─  at most once; never, if the node dies: the asker has
//!                                            a deadline for each question
//! placing         Ask Reserve            ─►  held for a moment, or refused with the reason
//!                 Answer Reserved        ◄─
//!                 Ask Launch             ─►  the lease becomes an object
//!                 Answer Launched        ◄─  once that is durable
//! ```
//!
//! A node that joins speaks [`JoinRequest`] and hears [`JoinAnswer`] on a stream of its own,
//! before it is a member.

use alloc::boxed::Box;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::call::{Decision, ObjectStats, Problem, Request, Response};
use crate::fact::{NodeFacts, ObjectFacts};
use crate::id::{AppId, CloudId, NodeId, ObjectId, TicketId, UnixMillis, Version};
use crate::job::Job;
use crate::spec::{AppSpec, Resources, Restart};
use crate::tenancy::{SeatAnswer, SeatAsk, Tenancy, Title};

/// Longest [`Message`].
pub const MESSAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Longest [`JoinAnswer`].
pub const JOIN_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Longest [`JoinRequest`]: strangers send it. A ticket and a name are less.
pub const JOIN_REQUEST_BYTES_MAX: usize = 8 * 1024;
/// Longest ticket as text.
pub const TICKET_CHARACTERS_MAX: usize = 4096;
/// Number of buckets that anti-entropy compares.
pub const BUCKETS: usize = 64;

/// How the text of a ticket begins, with the version of the format.
pub const TICKET_PREFIX: &str = "welkin1-";

/// A signature by an ed25519 key (RFC 8032).
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature(pub [u8; 64]);

impl core::fmt::Debug for Signature {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("Signature(…)")
    }
}

impl Serialize for Signature {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_slice().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Signature {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = <&[u8]>::deserialize(deserializer)?;
        let wrong = |_length| serde::de::Error::invalid_length(bytes.len(), &"64 bytes");
        Ok(Self(bytes.try_into().map_err(wrong)?))
    }
}

/// Something that a key says about who belongs to the cloud. Statements only ever get more; what
/// follows from them does not depend on the order in which they arrive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// What is said.
    pub body: StatementBody,
    /// The public key that says it: a member's, or the cloud's for the first admission.
    pub signer: [u8; 32],
    /// Over [`StatementBody::signed_bytes`].
    pub signature: Signature,
}

/// What a statement says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementBody {
    /// The node belongs to the cloud.
    Admission {
        /// Which cloud.
        cloud: CloudId,
        /// Which node.
        node: NodeId,
        /// The ticket that it came with.
        ticket: Option<TicketId>,
        /// When it was said.
        at: UnixMillis,
    },
    /// The node does not belong to the cloud any more, for good.
    Removal {
        /// Which cloud.
        cloud: CloudId,
        /// Which node.
        node: NodeId,
        /// Nodes that it had admitted and that stay: whatever else it signed counts no more.
        keeps: Vec<NodeId>,
        /// When it was said.
        at: UnixMillis,
    },
}

impl StatementBody {
    /// What the signature covers: a domain, so that it means nothing anywhere else, and the body.
    ///
    /// # Errors
    /// As [`crate::encode`].
    pub fn signed_bytes(&self) -> Result<Vec<u8>, DecodeError> {
        with_domain(b"welkin/1/statement\0", self)
    }

    /// The node that it is about.
    #[must_use]
    pub fn subject(&self) -> NodeId {
        match self {
            Self::Admission { node, .. } | Self::Removal { node, .. } => *node,
        }
    }
}

fn with_domain<T: Serialize>(domain: &[u8], value: &T) -> Result<Vec<u8>, DecodeError> {
    let mut bytes = domain.to_vec();
    bytes.extend_from_slice(&crate::encode(value)?);
    Ok(bytes)
}

/// The right to join, for whoever holds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// What it grants.
    pub body: TicketBody,
    /// By the issuer, over [`TicketBody::signed_bytes`].
    pub signature: Signature,
}

/// What a ticket grants.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TicketBody {
    /// The cloud that it opens, so that the joiner knows whom it trusts.
    pub cloud: CloudId,
    /// Random.
    pub id: TicketId,
    /// The member that made it and counts its uses.
    pub issuer: NodeId,
    /// How many nodes may join with it.
    pub uses: u32,
    /// It is void after this.
    pub not_after: UnixMillis,
    /// Labels that the joining node gets.
    pub labels: BTreeMap<String, String>,
    /// Members to ask, the issuer first, with their addresses.
    pub doors: Vec<Door>,
}

/// A node and where it can be reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Door {
    /// The node.
    pub node: NodeId,
    /// Its addresses, `ip:port`.
    pub addresses: Vec<String>,
}

impl TicketBody {
    /// What the signature covers.
    ///
    /// # Errors
    /// As [`crate::encode`].
    pub fn signed_bytes(&self) -> Result<Vec<u8>, DecodeError> {
        with_domain(b"welkin/1/ticket\0", self)
    }
}

impl Ticket {
    /// The one line that people hand around.
    ///
    /// # Errors
    /// As [`crate::encode`].
    pub fn to_text(&self) -> Result<String, DecodeError> {
        let mut text = String::from(TICKET_PREFIX);
        text.push_str(
            &data_encoding::BASE32_NOPAD
                .encode(&crate::encode(self)?)
                .to_lowercase(),
        );
        Ok(text)
    }

    /// Reads the line again. White space around it does not matter.
    ///
    /// # Errors
    /// [`DecodeError`] when it was cut off, mistyped or is something else.
    pub fn from_text(text: &str) -> Result<Self, DecodeError> {
        let text = text.trim();
        if text.len() > TICKET_CHARACTERS_MAX {
            return Err(DecodeError::TooLong {
                length_bytes: text.len(),
                limit_bytes: TICKET_CHARACTERS_MAX,
            });
        }
        let Some(body) = text.strip_prefix(TICKET_PREFIX) else {
            return Err(DecodeError::Malformed("a ticket begins with welkin1-"));
        };
        let bytes = data_encoding::BASE32_NOPAD
            .decode(body.to_uppercase().as_bytes())
            .map_err(|_not_base32| DecodeError::Malformed("it was cut off or mistyped"))?;
        crate::decode(&bytes, TICKET_CHARACTERS_MAX)
    }
}

/// A machine asks to be admitted. Its key is known from the link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// What it was given.
    pub ticket: Ticket,
    /// The name that it would like.
    pub name: String,
}

/// What it hears.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JoinAnswer {
    /// It belongs to the cloud now.
    Admitted {
        /// The name that it goes by from now on: the one that it asked for, if that is free.
        name: String,
        /// Labels that the ticket gives it.
        labels: BTreeMap<String, String>,
        /// All statements, its own admission among them.
        statements: Vec<Statement>,
        /// What is known of the members, and so where they are.
        facts: Vec<NodeFacts>,
    },
    /// It does not, and why.
    Refused(Problem),
}

/// A message between members.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// News, for whoever does not know them.
    Rumors(News),
    /// The start of anti-entropy: hashes over everything, one a set.
    SyncHello {
        /// Over (node, incarnation, state) of all members.
        members: u64,
        /// Over all statements.
        statements: u64,
        /// Over (node, version) of all facts.
        facts: u64,
        /// The sender held the receiver as lost until now.
        estranged: bool,
    },
    /// The hashes were different: one hash a bucket, for each set.
    SyncBuckets {
        /// [`BUCKETS`] hashes for members.
        members: Vec<u64>,
        /// [`BUCKETS`] hashes for statements and facts together.
        news: Vec<u64>,
    },
    /// What is in the buckets that differ.
    SyncItems {
        /// Members in those buckets.
        members: Vec<MemberItem>,
        /// Statements and facts in those buckets.
        news: News,
        /// Send yours of these buckets back: bit i is bucket i.
        wanted: u64,
        /// As in [`Message::SyncHello`].
        estranged: bool,
    },
    /// A question.
    Ask {
        /// Chosen by the asker; unique among its open questions.
        question: u64,
        /// What is asked.
        ask: Box<Ask>,
    },
    /// Its answer.
    Answer {
        /// The same number.
        question: u64,
        /// What is answered.
        answer: Box<Result<Answer, Problem>>,
    },
    /// The asker does not want the answer any more: undo what only it wanted.
    Abandon {
        /// Which question.
        question: u64,
    },
    /// The state of objects that the sender hosts, for the receiver that supervises their apps.
    Reports(Vec<ObjectReport>),
}

/// Statements and facts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct News {
    /// Who belongs to the cloud.
    pub statements: Vec<Statement>,
    /// What nodes say of themselves.
    pub facts: Vec<NodeFacts>,
}

/// A member as the failure detector sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberItem {
    /// Short id of the node.
    pub node: u64,
    /// Its boot counter.
    pub boot: u32,
    /// Its incarnation (SWIM section 4.2).
    pub incarnation: u16,
    /// What it is thought to be.
    pub state: MemberState,
}

/// What the failure detector thinks of a member.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum MemberState {
    /// It answers.
    Alive,
    /// It did not answer; it may still say that it lives.
    Suspect,
    /// It is lost.
    Down,
}

/// What one kernel asks of another.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[expect(
    clippy::large_enum_variant,
    reason = "a message holds it in a box, so its size is paid once"
)]
pub enum Ask {
    /// Answer this system call in my place.
    Call(Request),
    /// Objects that you host.
    Objects {
        /// Also those that have ended.
        all: bool,
        /// Only these.
        filter: ObjectFilter,
    },
    /// Apps that you supervise.
    Apps,
    /// What objects that you host use.
    Usage {
        /// Only these.
        filter: ObjectFilter,
    },
    /// Hold these resources for a moment.
    Reserve {
        /// Chosen by the asker, random.
        lease: u64,
        /// The app that it is for.
        app: AppId,
        /// What is needed.
        resources: Resources,
        /// TCP ports that must be free.
        ports: Vec<u16>,
    },
    /// Give a lease back.
    Release {
        /// Which.
        lease: u64,
    },
    /// Make the lease an object.
    Launch {
        /// Which lease.
        lease: u64,
        /// What to start.
        object: Box<Placement>,
    },
    /// End an object.
    StopObject {
        /// Which.
        object: ObjectId,
        /// How long it may take; the app's own grace period when absent.
        grace_ms: Option<u32>,
        /// Forget it afterwards.
        remove: bool,
    },
    /// Run an object again that has ended because somebody asked for it.
    StartObject {
        /// Which.
        object: ObjectId,
    },
    /// Send a signal to an object.
    SignalObject {
        /// Which.
        object: ObjectId,
        /// Its number.
        signal: u8,
    },
    /// Keep this record.
    StoreRecord(Box<AppRecord>),
    /// Give me your record of this app.
    FetchRecord(AppId),
    /// Follow another restart policy with an object that you host.
    SetRestart {
        /// Which.
        object: ObjectId,
        /// The policy.
        restart: Restart,
    },
    /// Draw a seat for an app: vote on its tenancy from now on.
    TakeSeat {
        /// Which app.
        app: AppId,
        /// [`Wanted::born`] of it.
        born: Version,
    },
    /// Something about the tenancy of an app, to one seat.
    Seat {
        /// The number of the seat.
        seat: u64,
        /// What.
        ask: Box<SeatAsk>,
    },
    /// How far is this app, which you supervise, and another one waits for?
    Standing(AppId),
}

/// Which objects are meant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ObjectFilter {
    /// Every one.
    Every,
    /// Those of an app.
    App(AppId),
    /// Those whose id begins like this.
    Prefix(String),
}

/// An object to be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// Its id, chosen by the supervisor.
    pub object: ObjectId,
    /// Which of the app's objects.
    pub index: u32,
    /// Who owns it from now on.
    pub epoch: u64,
    /// What the app should be; the host keeps it, so that it is not lost with the guardians.
    pub wanted: Wanted,
    /// Of an app that never runs twice: what allows the object to run, while the seats renew it.
    pub title: Option<Title>,
    /// As in [`ObjectFacts::run`].
    #[serde(default)]
    pub run: u64,
}

/// What is answered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Ask::Call`].
    Call(Box<Response>),
    /// To [`Ask::Objects`].
    Objects(Vec<ObjectFacts>),
    /// To [`Ask::Apps`].
    Apps(Vec<AppBrief>),
    /// To [`Ask::Usage`].
    Usage(Vec<ObjectStats>),
    /// To [`Ask::Reserve`]: held.
    Reserved {
        /// How busy the node is, in thousandths: what probes compare.
        load_per_mille: u32,
        /// Objects of the same app that are there already.
        same_app: u32,
    },
    /// To [`Ask::Launch`], [`Ask::StopObject`], [`Ask::StartObject`], [`Ask::SetRestart`]: the object
    /// as it is now.
    Object(Box<ObjectFacts>),
    /// To [`Ask::StoreRecord`]: durable. To [`Ask::Release`], [`Ask::SignalObject`]: done.
    Done,
    /// To [`Ask::FetchRecord`].
    Record(Option<Box<AppRecord>>),
    /// To [`Ask::Call`], before the answer itself: it may take so much longer than usual.
    Later {
        /// Thousandths of a second.
        by_ms: u32,
    },
    /// To [`Ask::TakeSeat`]: its number; durable.
    SeatTaken(u64),
    /// To [`Ask::Seat`].
    Seat(Box<SeatAnswer>),
    /// To [`Ask::Standing`]; nothing when there is no such app.
    Standing(Option<Box<Standing>>),
}

/// How far an app is that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    /// What its objects have to do.
    pub goal: Goal,
    /// How many have done that.
    pub reached: u32,
    /// How many have to.
    pub wanted: u32,
    /// It was stopped by a person: it does not count, whatever its objects did.
    pub stopped: bool,
    /// It waits itself.
    pub waits: bool,
    /// As in [`AppSpec::after`].
    pub after: BTreeSet<String>,
}

/// When an object counts for an app that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Goal {
    /// Its program runs, or has ended with 0 and is not to run again.
    Run,
    /// Its health check succeeds.
    Healthy,
    /// Its program has ended with 0.
    End,
}

/// An app as its supervisor knows it, without its objects' details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppBrief {
    /// Which.
    pub app: AppId,
    /// What it should be.
    pub wanted: Wanted,
    /// What keeps it from being so.
    pub trouble: Option<String>,
    /// Which apps it waits for, as half a sentence.
    #[serde(default)]
    pub waiting: Option<String>,
    /// When its next run is due, if it has a schedule.
    #[serde(default)]
    pub next: Option<UnixMillis>,
}

/// What an app should be: the newest wish wins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// When it was wished.
    pub version: Version,
    /// The specification; `None` once the app was removed.
    pub spec: Option<AppSpec>,
    /// Stopped by a person: its objects end and stay ended.
    pub stopped: bool,
    /// Slots of which a person stopped the object alone: it stays ended. Empty where the restart
    /// policy is `always`.
    pub rested: BTreeSet<u32>,
    /// When the app came into being.
    pub created: UnixMillis,
    /// The version of the wish that made it: tells it from an app of the same name that was
    /// removed before.
    pub born: Version,
    /// Of an app that never runs twice: its first tenancy. It says who voted then.
    pub tenancy: Option<Tenancy>,
    /// The wish that last changed what its objects run. An object that was started for another is
    /// replaced.
    pub revised: Version,
    /// What they ran before, to go back to.
    pub previous: Option<Box<Revision>>,
    /// An object that fails while the others are replaced undoes the change.
    pub rolls_back: bool,
    /// Why the last change was undone; nothing once there is another.
    pub undone: Option<String>,
    /// Of an app with a schedule: since when it goes by it. What was due before was for another
    /// schedule, or while the app was stopped.
    #[serde(default)]
    pub scheduled: UnixMillis,
}

/// A specification and the wish from which on objects ran it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revision {
    /// [`Wanted::revised`] of that time.
    pub revised: Version,
    /// The specification.
    pub spec: AppSpec,
}

impl Wanted {
    /// The wish for a new app.
    #[must_use]
    pub fn new(spec: AppSpec, version: Version, created: UnixMillis) -> Self {
        let is_scheduled = spec.schedule.is_some();
        Self {
            version,
            spec: Some(spec),
            stopped: false,
            rested: BTreeSet::new(),
            created,
            born: version,
            tenancy: None,
            revised: version,
            previous: None,
            rolls_back: false,
            undone: None,
            scheduled: if is_scheduled {
                created
            } else {
                UnixMillis::default()
            },
        }
    }
}

/// What the guardians of an app keep.
///
/// Joins: `wanted` by its version; `begun` by the larger; `job` by itself; all else goes with the larger `version`. An
/// object that is lost in a join is not lost in the world: its host reports it again.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AppRecord {
    /// Which app.
    pub app: AppId,
    /// When the supervisor last wrote it.
    pub version: Version,
    /// What it should be.
    pub wanted: Wanted,
    /// What is known of its objects: hints, owned by their hosts.
    pub objects: Vec<ObjectFacts>,
    /// [`Wanted::born`] of the app that the objects belong to. A join can bring the objects of an
    /// older app of the name together with the wish of a newer one; its supervisor drops them.
    pub objects_born: Version,
    /// Why they are where they are, newest first.
    pub decisions: Vec<Decision>,
    /// [`Wanted::revised`] that all objects have come up with: another one is still on its way.
    pub settled: Version,
    /// [`Wanted::born`] of the app that has waited for others long enough ([`AppSpec::after`]): it
    /// does not wait again.
    #[serde(default)]
    pub begun: Version,
    /// The runs of an app with a schedule.
    #[serde(default)]
    pub job: Job,
}

/// An object that its host reports, and which wish it follows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ObjectReport {
    /// The object as it is.
    pub facts: ObjectFacts,
    /// [`Wanted::born`] of the app that it belongs to.
    pub born: Version,
    /// It was removed: its logs and scratch files are no more.
    pub removed: bool,
}

/// An object in the table of its host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostedObject {
    /// What is known of it.
    pub facts: ObjectFacts,
    /// What it was started for.
    pub wanted: Wanted,
    /// Failures in a row, for back-off and for the limit of `on-failure:N`.
    pub failures: u32,
    /// Forget it once it has ended.
    pub remove_when_ended: bool,
    /// It was asked to end by its supervisor, which may want it to run again; not with its node.
    pub halts: bool,
    /// It ends with its node, and is to run again with it.
    pub suspended: bool,
    /// As in [`Placement::title`].
    pub title: Option<Title>,
}
