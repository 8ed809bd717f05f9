//! The system calls: what programs and people ask of the Cloud OS.
//!
//! One table, [`calls!`](self), makes the request and response enums, the paths, the OpenAPI
//! document and the typed client. A call is `POST /v1/PATH` with the JSON of its request; the
//! answer is the JSON of its response, or [`Problem`] (RFC 9457) with the status it names. Any
//! node answers any call. Calls that move bytes are streams: see [`crate::stream`].

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::fact::{Availability, Capacity, Exit, ExitReason, ObjectFacts, Phase, Platform, Usage};
use crate::id::{AppId, CloudId, NodeId, ObjectId, UnixMillis, Version};
use crate::spec::{AppSpec, Restart};

/// Longest body of a call.
pub const CALL_BYTES_MAX: usize = 512 * 1024;

/// A system call: its path, and what answers it.
pub trait Call: Serialize + for<'de> Deserialize<'de> + Into<Request> {
    /// What a successful answer is.
    type Response: Serialize + for<'de> Deserialize<'de>;
    /// Below `/v1/`.
    const PATH: &'static str;
    /// One line for the OpenAPI document.
    const SUMMARY: &'static str;
    /// Takes the typed answer out; `None` when it is the answer to another call.
    fn response(response: Response) -> Option<Self::Response>;
}

macro_rules! calls {
    ($( $(#[doc = $summary:literal])* $path:literal => $request:ident -> $response:ty; )*) => {
        /// Any request.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "each variant holds the type of that name, documented there")]
        #[expect(clippy::large_enum_variant, reason = "a world and a message hold it in a box")]
        pub enum Request { $( $request($request), )* }

        /// Any successful answer; the variant has the name of its request.
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[expect(missing_docs, reason = "each variant is named after its request")]
        pub enum Response { $( $request($response), )* }

        $(
            impl From<$request> for Request {
                fn from(request: $request) -> Self { Self::$request(request) }
            }
            impl Call for $request {
                type Response = $response;
                const PATH: &'static str = $path;
                const SUMMARY: &'static str = concat!($($summary),*);
                fn response(response: Response) -> Option<$response> {
                    match response { Response::$request(it) => Some(it), _ => None }
                }
            }
        )*

        impl Request {
            /// Below `/v1/`.
            #[must_use]
            pub fn path(&self) -> &'static str {
                match self { $( Self::$request(_) => $request::PATH, )* }
            }
        }

        /// Calls `$action!(RequestType)` for every call: what a server and its document are made of.
        #[macro_export]
        macro_rules! for_each_call {
            ($action:ident) => { $( $action!($request); )* };
        }
    };
}

calls! {
    /// About this cloud and the node that answers.
    "cloud/info" => CloudInfo -> CloudSummary;
    /// A ticket with which another machine may join.
    "cloud/invite" => Invite -> Invitation;
    /// Every node of the cloud, as this node knows it.
    "node/list" => NodeList -> Nodes;
    /// All that is known of one node.
    "node/inspect" => NodeInspect -> NodeDetail;
    /// Move everything away from a node and send nothing new there.
    "node/drain" => NodeDrain -> NodeSummary;
    /// Let a drained node take objects again.
    "node/resume" => NodeResume -> NodeSummary;
    /// Set or remove labels of a node.
    "node/label" => NodeLabel -> NodeSummary;
    /// Remove a node from the cloud, for good.
    "node/remove" => NodeRemove -> NodeSummary;
    /// Stop the node that answers; its apps move by their restart policy.
    "node/down" => NodeDown -> NodeSummary;
    /// Alarms and missing parts of the node that answers, each with what to do.
    "node/doctor" => Doctor -> Findings;
    /// Start an app.
    "app/run" => Run -> Started;
    /// Apps and objects, wherever they are.
    "app/list" => AppList -> Apps;
    /// All that is known of an app or an object.
    "app/inspect" => Inspect -> Inspection;
    /// Where the objects that a name means are.
    "app/locate" => Locate -> Located;
    /// Ask programs to end, and keep them ended.
    "app/stop" => StopApp -> Affected;
    /// Start a stopped app again.
    "app/start" => StartApp -> Started;
    /// Send a signal to programs.
    "app/kill" => Kill -> Affected;
    /// Forget an app: its record, its logs, its scratch files.
    "app/remove" => Remove -> Affected;
    /// Answer once the programs have ended.
    "app/wait" => Wait -> Waited;
    /// Change how many objects an app has.
    "app/scale" => Scale -> Started;
    /// What objects use now.
    "app/stats" => Stats -> StatsTable;
    /// Why an app is where it is.
    "app/explain" => Explain -> Explanation;
    /// Addresses and ports of an app's objects.
    "name/resolve" => Resolve -> Resolved;
    /// Make an app as it is specified: a new one, or the one that there is.
    "app/apply" => Apply -> Applied;
}

macro_rules! data {
    ($($(#[$doc:meta])* $name:ident { $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })*) => { $(
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
        #[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
        pub struct $name { $($(#[$field_doc])* pub $field: $type,)* }
    )* };
}

// Requests. Every field that may be left out has a default, so that old callers go on working.
data! {
    /// Asks for [`CloudSummary`].
    CloudInfo {}
    /// Asks for an [`Invitation`].
    Invite {
        /// How many machines may join with it.
        #[serde(default = "one")]
        uses: u32,
        /// How long it is good for, in seconds.
        #[serde(default = "one_day_s")]
        ttl_s: u64,
        /// Labels that nodes which join with it get.
        #[serde(default)]
        labels: BTreeMap<String, String>,
    }
    /// Asks for [`Nodes`].
    NodeList {}
    /// Asks for a [`NodeDetail`].
    NodeInspect {
        /// Name or prefix of the id; the node that answers when empty.
        #[serde(default)]
        node: String,
    }
    /// Asks a node to empty itself.
    NodeDrain {
        /// Name or prefix of the id.
        node: String,
        /// Also end objects that will not be started again elsewhere.
        #[serde(default)]
        force: bool,
    }
    /// Asks a node to take objects again.
    NodeResume {
        /// Name or prefix of the id.
        node: String,
    }
    /// Changes labels.
    NodeLabel {
        /// Name or prefix of the id.
        node: String,
        /// Labels to set.
        #[serde(default)]
        set: BTreeMap<String, String>,
        /// Labels to remove.
        #[serde(default)]
        remove: Vec<String>,
    }
    /// Removes a node for good.
    NodeRemove {
        /// Name or prefix of the id.
        node: String,
        /// Also when it is up and has objects.
        #[serde(default)]
        force: bool,
    }
    /// Stops the node that answers.
    NodeDown {}
    /// Asks for [`Findings`].
    Doctor {}
    /// Starts an app.
    Run {
        /// What is wanted. An empty name gets a made-up one.
        spec: AppSpec,
        /// Answer as soon as the objects have a place, for a caller that attaches to them at once;
        /// otherwise once their programs run, or could not be started.
        #[serde(default)]
        attach: bool,
    }
    /// Asks for [`Apps`].
    AppList {
        /// Also what has ended.
        #[serde(default)]
        all: bool,
        /// Only the app, or the objects, that this names.
        #[serde(default)]
        target: Option<String>,
    }
    /// Asks for an [`Inspection`].
    Inspect {
        /// An app, `app/index`, or a prefix of an object's id.
        target: String,
    }
    /// Asks for [`Located`].
    Locate {
        /// An app, `app/index`, or a prefix of an object's id.
        target: String,
    }
    /// Ends programs. A whole app stays ended until it is started; so does a single object, unless
    /// the restart policy of its app is `always`: then it is started again.
    StopApp {
        /// An app, `app/index`, or a prefix of an object's id.
        target: String,
        /// Kill after this long; the app's own grace period when absent.
        #[serde(default)]
        grace_ms: Option<u32>,
    }
    /// Starts a stopped app.
    StartApp {
        /// Its name.
        target: String,
    }
    /// Sends a signal.
    Kill {
        /// An app, `app/index`, or a prefix of an object's id.
        target: String,
        /// Its number.
        signal: u8,
    }
    /// Forgets an app.
    Remove {
        /// Its name.
        target: String,
        /// Also when it runs.
        #[serde(default)]
        force: bool,
    }
    /// Waits for programs to end.
    Wait {
        /// An app, `app/index`, or a prefix of an object's id.
        target: String,
    }
    /// Changes the number of objects.
    Scale {
        /// Name of the app.
        target: String,
        /// How many.
        replicas: u32,
    }
    /// Asks for [`StatsTable`].
    Stats {
        /// An app, `app/index`, or a prefix of an object's id; everything when absent.
        #[serde(default)]
        target: Option<String>,
    }
    /// Asks for an [`Explanation`].
    Explain {
        /// Name of the app.
        target: String,
    }
    /// Asks for addresses.
    Resolve {
        /// An app or `app/index`.
        target: String,
    }
    /// Says what an app is to be. When its objects then run something else, they are replaced one
    /// after the other; `app/inspect` tells how far that is.
    Apply {
        /// All that is wanted.
        spec: Box<AppSpec>,
        /// What the caller believes the app to be; refused when it is not that.
        #[serde(default)]
        expected: Expected,
        /// Go back to what its objects ran before when one that runs the new does not come up.
        #[serde(default)]
        roll_back: bool,
    }
}

/// What somebody who changes an app believes that it is, so that two who change it at once do not
/// undo each other without knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Expected {
    /// Whatever it is.
    #[default]
    Anything,
    /// There is none of that name.
    Absent,
    /// As it was at this version, which `app/inspect` says.
    Version(Version),
}

/// What became of an app that was to be so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Change {
    /// It is new.
    Created,
    /// It was otherwise.
    Changed,
    /// It was so already.
    Unchanged,
}

fn one() -> u32 {
    1
}

fn one_day_s() -> u64 {
    86_400
}

// Answers.
data! {
    /// The cloud, seen from one node.
    CloudSummary {
        /// Its id.
        cloud: CloudId,
        /// The node that answers.
        node: NodeId,
        /// Its name.
        name: String,
        /// Version of its program.
        program_version: String,
        /// Nodes that are up.
        nodes_up: u32,
        /// Nodes that belong to it.
        nodes: u32,
    }
    /// What another machine joins with.
    Invitation {
        /// One line, to be given to `welkin join`. Whoever has it can join.
        ticket: String,
        /// How many machines may join with it.
        uses: u32,
        /// When it stops working.
        expires: UnixMillis,
    }
    /// Every node.
    Nodes {
        /// In order of their names.
        nodes: Vec<NodeSummary>,
    }
    /// A node, as the node that answers knows it.
    NodeSummary {
        /// Its id.
        node: NodeId,
        /// Its name.
        name: String,
        /// Whether it can be reached.
        state: NodeState,
        /// What kind of machine it is.
        platform: Platform,
        /// Version of its program.
        program_version: String,
        /// What it has, holds and uses.
        capacity: Capacity,
        /// Its labels.
        labels: BTreeMap<String, String>,
        /// Round-trip time in microseconds from the node that answers; 0 to itself.
        rtt_us: Option<u64>,
        /// The node that relays between the node that answers and this one, by its name; nothing
        /// when they reach each other.
        #[serde(default)]
        via: Option<String>,
    }
    /// A node and what is on it.
    NodeDetail {
        /// The node.
        summary: NodeSummary,
        /// Where it can be reached.
        addresses: Vec<String>,
        /// Its objects, when it could be asked.
        objects: Vec<ObjectFacts>,
        /// Who admitted it.
        admitted_by: Option<NodeId>,
        /// Nodes that relay for it, by their names, when nobody can dial it.
        #[serde(default)]
        relays: Vec<String>,
    }
    /// What is wrong, and what to do.
    Findings {
        /// Worst first.
        findings: Vec<Finding>,
    }
    /// One thing that is wrong or missing.
    Finding {
        /// How bad.
        severity: Severity,
        /// Which node says so.
        node: String,
        /// What is the case.
        summary: String,
        /// What to do about it; empty when nothing needs to be done.
        remedy: String,
    }
    /// An app that was started or changed.
    Started {
        /// Its id.
        app: AppId,
        /// Its name.
        name: String,
        /// Its objects.
        objects: Vec<ObjectFacts>,
        /// Which apps it waits for, as half a sentence.
        #[serde(default)]
        waiting: Option<String>,
        /// When its next run is due, if it has a schedule.
        #[serde(default)]
        next: Option<UnixMillis>,
    }
    /// Apps and objects.
    Apps {
        /// In order of their names.
        apps: Vec<AppSummary>,
        /// In order of app and index.
        objects: Vec<ObjectFacts>,
        /// Names of nodes that belong here, are thought to be up and did not answer in time: what
        /// they host may be missing.
        unanswered: Vec<String>,
    }
    /// An app in one line.
    AppSummary {
        /// Its id.
        app: AppId,
        /// Its name.
        name: String,
        /// How many objects are wanted; 0 once it was stopped.
        wanted: u32,
        /// Whether it was stopped.
        #[serde(default)]
        stopped: bool,
        /// How many run.
        running: u32,
        /// The program and its arguments.
        command: Vec<String>,
        /// Its restart policy.
        restart: Restart,
        /// Named ports.
        ports: BTreeMap<String, u16>,
        /// When it came into being.
        created: UnixMillis,
        /// What keeps it from being as it should, as a sentence.
        trouble: Option<String>,
        /// Which apps it waits for, as half a sentence.
        #[serde(default)]
        waiting: Option<String>,
        /// When its next run is due, if it has a schedule.
        #[serde(default)]
        next: Option<UnixMillis>,
    }
    /// All of an app.
    Inspection {
        /// Its id.
        app: AppId,
        /// What was asked for.
        spec: AppSpec,
        /// Whether it was stopped.
        stopped: bool,
        /// Its objects; only the one that was asked for when an object was named.
        objects: Vec<ObjectFacts>,
        /// Names of the nodes that keep its record, the supervisor first.
        guardians: Vec<String>,
        /// What keeps it from being as it should, as a sentence.
        trouble: Option<String>,
        /// Raised at each change of what it should be.
        #[serde(default)]
        version: Version,
        /// What it was before the last change of what its objects run.
        previous: Option<Box<AppSpec>>,
        /// How far the change is; nothing when none is under way.
        update: Option<Update>,
        /// Why the last change was undone.
        undone: Option<String>,
        /// Which apps it waits for, as half a sentence.
        #[serde(default)]
        waiting: Option<String>,
        /// When its next run is due, if it has a schedule.
        #[serde(default)]
        next: Option<UnixMillis>,
        /// The runs that are remembered of an app with a schedule, the last one first.
        #[serde(default)]
        runs: Vec<crate::job::Run>,
    }
    /// How far the objects of an app are replaced.
    Update {
        /// Objects that run what is wanted, long enough to be relied on.
        updated: u32,
        /// Why it goes no further, as a sentence.
        failed: Option<String>,
    }
    /// What became of an app that was to be so. It is written; its objects follow.
    Applied {
        /// Its id.
        app: AppId,
        /// Its name.
        name: String,
        /// What was done.
        change: Change,
        /// Its version now.
        version: Version,
    }
    /// Where objects are.
    Located {
        /// The app.
        app: AppId,
        /// Its name.
        name: String,
        /// Its objects, the living ones first.
        objects: Vec<ObjectFacts>,
    }
    /// What a call did.
    Affected {
        /// Objects that it reached.
        objects: Vec<ObjectId>,
    }
    /// How programs ended.
    Waited {
        /// One for each object that was waited for.
        exits: Vec<ObjectExit>,
    }
    /// How one program ended.
    ObjectExit {
        /// The object.
        object: ObjectId,
        /// Its index in the app.
        index: u32,
        /// How it ended.
        exit: Exit,
    }
    /// What objects use.
    StatsTable {
        /// In order of app and index.
        objects: Vec<ObjectStats>,
        /// Nodes that did not answer in time.
        unanswered: Vec<String>,
    }
    /// What one object uses.
    ObjectStats {
        /// The object.
        object: ObjectId,
        /// Its app.
        app_name: String,
        /// Its index in the app.
        index: u32,
        /// Its node.
        node: NodeId,
        /// What it uses.
        usage: Usage,
        /// Its limit; 0 is none.
        cpu_limit_millis: u32,
        /// Its limit; 0 is none.
        memory_limit_bytes: u64,
    }
    /// Why an app is where it is.
    Explanation {
        /// Its name.
        name: String,
        /// The node that supervises it, and who would without it.
        supervisor: String,
        /// One decision per object, the newest first.
        decisions: Vec<Decision>,
        /// What keeps it from being as it should, as a sentence.
        trouble: Option<String>,
        /// Which apps it waits for, as half a sentence.
        #[serde(default)]
        waiting: Option<String>,
        /// When its next run is due, if it has a schedule.
        #[serde(default)]
        next: Option<UnixMillis>,
        /// The runs that are remembered of an app with a schedule, the last one first.
        #[serde(default)]
        runs: Vec<crate::job::Run>,
    }
    /// Why an object was put where it is.
    Decision {
        /// Which of the app's objects.
        index: u32,
        /// When.
        at: UnixMillis,
        /// The node that was chosen; nothing when none fits.
        node: Option<String>,
        /// What was weighed, a line each.
        reasons: Vec<String>,
    }
    /// Addresses of an app.
    Resolved {
        /// Those that run.
        endpoints: Vec<Endpoint>,
    }
    /// Where one object answers.
    Endpoint {
        /// The object.
        object: ObjectId,
        /// Its index in the app.
        index: u32,
        /// The node's name.
        node: String,
        /// IP address.
        address: String,
        /// Named ports.
        ports: BTreeMap<String, u16>,
    }
    /// Something that happened.
    Event {
        /// When, by the clock of the node that says so.
        at: UnixMillis,
        /// The node that says so.
        node: String,
        /// What kind of thing: `node.up`, `object.started`; stable.
        kind: String,
        /// What it happened to: a node, an app, an object.
        subject: String,
        /// In words.
        message: String,
    }
}

/// Whether a node can be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// It answers.
    Up,
    /// It answers and is being emptied.
    Draining,
    /// It does not answer, for now.
    Unreachable,
    /// It has not answered for minutes; its records were copied elsewhere.
    Gone,
    /// It was stopped on purpose.
    Down,
}

impl NodeState {
    /// Whether it answers.
    #[must_use]
    pub fn is_up(self) -> bool {
        matches!(self, Self::Up | Self::Draining)
    }
}

impl From<Availability> for NodeState {
    /// The state of a node that answers.
    fn from(availability: Availability) -> Self {
        match availability {
            Availability::Open => Self::Up,
            Availability::Draining | Availability::Leaving => Self::Draining,
        }
    }
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Something that should be impossible happened.
    Alarm,
    /// Something does not work.
    Missing,
    /// Something could be better.
    Advice,
    /// As it should be.
    Fine,
}

/// Why a call was refused: `application/problem+json` (RFC 9457).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Problem {
    /// What kind: stable, for programs.
    pub code: ProblemCode,
    /// What was wrong, as a sentence a person understands.
    pub detail: String,
    /// What to do next; often a command.
    #[serde(default)]
    pub remedy: String,
}

/// Kinds of problems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ProblemCode {
    /// The request does not say anything that could be done.
    Invalid,
    /// Nothing has that name.
    NotFound,
    /// Several things have that prefix.
    Ambiguous,
    /// The name is taken, or things are not in the state for this.
    Conflict,
    /// No node fits.
    NoFit,
    /// A limit is reached; try again.
    Busy,
    /// Who is needed for it cannot be reached.
    Unreachable,
    /// It took longer than the call may.
    TimedOut,
    /// The caller may not.
    Forbidden,
    /// The ticket is expired, used up, forged, or of another cloud.
    BadTicket,
    /// The program could not be started, with the code a shell would give.
    NotStarted {
        /// 125, 126 or 127.
        exit: u8,
    },
    /// Something on the node failed: a disk, a driver.
    Internal,
}

impl Problem {
    /// A problem without a next step.
    #[must_use]
    pub fn new(code: ProblemCode, detail: impl Into<String>) -> Self {
        Self {
            code,
            detail: detail.into(),
            remedy: String::new(),
        }
    }

    /// Says what to do next.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = remedy.into();
        self
    }

    /// Nothing is called `target`.
    #[must_use]
    pub fn not_found(kind: &str, target: &str) -> Self {
        Self::new(
            ProblemCode::NotFound,
            format!("no {kind} is called `{target}`"),
        )
    }

    /// The program could not be started.
    #[must_use]
    pub fn not_started(reason: &ExitReason) -> Option<Self> {
        #[expect(clippy::wildcard_enum_match_arm, reason = "all others did start")]
        match reason {
            ExitReason::NotStarted { code, message } => Some(Self::new(
                ProblemCode::NotStarted { exit: *code },
                message.to_string(),
            )),
            _ => None,
        }
    }

    /// The HTTP status that goes with it.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.code {
            ProblemCode::Invalid | ProblemCode::BadTicket => 400,
            ProblemCode::Forbidden => 403,
            ProblemCode::NotFound => 404,
            ProblemCode::Ambiguous | ProblemCode::Conflict => 409,
            ProblemCode::NotStarted { .. } | ProblemCode::NoFit => 422,
            ProblemCode::Busy => 429,
            ProblemCode::Internal => 500,
            ProblemCode::Unreachable => 503,
            ProblemCode::TimedOut => 504,
        }
    }
}

impl core::fmt::Display for Problem {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(&self.detail)?;
        if self.remedy.is_empty() {
            Ok(())
        } else {
            write!(f, "; {}", self.remedy)
        }
    }
}

impl core::error::Error for Problem {}

impl Phase {
    /// The word in tables.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Stopping => "stopping",
            Self::Ended => "ended",
            Self::Failed => "failed",
        }
    }
}
