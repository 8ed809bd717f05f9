//! The system calls, one file for each group. Only here and in the hub do two kernel processes
//! meet.
//!
//! Any node answers any call. A call about an app is handed to the app's supervisor, one about a
//! node to that node, and one about everything is put to everybody; what does not answer in time is
//! named in the answer, never waited for.

mod apps;
mod checks;
mod nodes;
mod scatter;

use alloc::boxed::Box;
use alloc::string::{String, ToString};

use wire::call::{NodeDrain, NodeLabel, NodeResume, Problem, ProblemCode, Request};
use wire::id::{AppId, NodeId, ObjectId, PREFIX_CHARACTERS_MIN};
use wire::peer::{Answer, Ask};

use crate::hub::{Kernel, Origin, Task, call_response};
use crate::limits::{CALL_DEADLINE, HANDOVER};
use crate::world::CallId;

use nodes::Change;

pub(crate) use apps::{Effect, Making, name_taken};
pub(crate) use checks::check_spec;
pub(crate) use scatter::Scatter;

/// What a name on the command line means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The app.
    pub(crate) app: AppId,
    /// Its name, as it was written.
    pub(crate) name: String,
    /// Which of its objects; all when absent.
    pub(crate) part: Part,
}

/// Which objects of an app.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    /// All.
    Whole,
    /// The slot.
    Slot(u32),
    /// This one.
    Object(ObjectId),
}

impl Target {
    /// As [`Target::parse`] reads it.
    pub(crate) fn text(&self) -> String {
        match self.part {
            Part::Whole => self.name.clone(),
            Part::Slot(index) => alloc::format!("{}/{index}", self.name),
            Part::Object(object) => alloc::format!("{}#{object}", self.name),
        }
    }

    /// Reads `web`, `web/0`, or `web#ID`, which is how a node that has looked an id up tells the
    /// supervisor.
    fn parse(text: &str) -> Result<Self, Problem> {
        let invalid = |detail: String| {
            Problem::new(ProblemCode::Invalid, detail)
                .remedy("name an app (web), an object (web/0) or the beginning of an id")
        };
        let (name, part) = if let Some((name, id)) = text.split_once('#') {
            let id = id
                .parse()
                .map_err(|error: wire::id::IdError| invalid(error.to_string()))?;
            (name, Part::Object(id))
        } else if let Some((name, index)) = text.split_once('/') {
            let wrong = |_not_a_number| invalid(alloc::format!("`{index}` is not an index"));
            (name, Part::Slot(index.parse().map_err(wrong)?))
        } else {
            (text, Part::Whole)
        };
        let looks_like_name = wire::spec::check_name(name);
        looks_like_name.map_err(|error| invalid(alloc::format!("`{name}`: {error}")))?;
        Ok(Self {
            app: AppId::of_name(name),
            name: name.to_string(),
            part,
        })
    }
}

/// Whether a text may be the beginning of an id.
fn may_be_prefix(text: &str) -> bool {
    let hex = |c: char| c.is_ascii_digit() || ('a'..='f').contains(&c);
    (PREFIX_CHARACTERS_MIN..=32).contains(&text.len()) && text.chars().all(hex)
}

impl Kernel {
    pub(crate) fn handle_call(&mut self, call: CallId, request: Request) {
        self.answer_call(Origin::Caller(call), request);
    }

    /// Answers a call, or hands it to whoever can.
    pub(crate) fn answer_call(&mut self, origin: Origin, request: Request) {
        if self.is_busy() {
            let problem = Problem::new(ProblemCode::Busy, "the node is answering too many calls");
            return self.reply_now(origin, Err(problem.remedy("try again in a moment")));
        }
        if self.auth.is_removed(self.me) && needs_the_cloud(&request) {
            return self.reply_now(origin, Err(removed_from_the_cloud()));
        }
        if self.outbox.is_stuck() && changes_something(&request) {
            let problem = Problem::new(ProblemCode::Busy, "the node's disk takes no writes")
                .remedy("welkin doctor says why; nothing was changed");
            return self.reply_now(origin, Err(problem));
        }
        if let Some(problem) = self.twice.problem(self.now)
            && changes_something(&request)
        {
            return self.reply_now(origin, Err(problem));
        }
        if changes_something(&request) {
            self.pending.open(origin);
        }
        match request {
            Request::CloudInfo(_) => self.cloud_info(origin),
            Request::Invite(invite) => self.invite(origin, invite),
            Request::NodeList(_) => self.node_list(origin),
            Request::Doctor(_) => self.doctor(origin),
            Request::NodeDown(_) => self.leave(origin),
            Request::NodeInspect(inspect) => self.node_inspect(origin, &inspect),
            Request::NodeRemove(remove) => self.node_remove(origin, &remove),
            Request::NodeDrain(NodeDrain { node, force }) => {
                self.node_change(origin, &node, Change::Drain { force });
            }
            Request::NodeResume(NodeResume { node }) => {
                self.node_change(origin, &node, Change::Resume);
            }
            Request::NodeLabel(NodeLabel { node, set, remove }) => {
                self.node_change(origin, &node, Change::Label { set, remove });
            }
            Request::AppList(list) => self.app_list(origin, list),
            Request::Stats(stats) => self.stats(origin, stats),
            Request::Run(run) => self.run(origin, run),
            Request::Apply(apply) => self.apply(origin, apply),
            Request::Inspect(_)
            | Request::Locate(_)
            | Request::StopApp(_)
            | Request::StartApp(_)
            | Request::Kill(_)
            | Request::Remove(_)
            | Request::Wait(_)
            | Request::Scale(_)
            | Request::Explain(_)
            | Request::Resolve(_) => self.about_app(origin, request),
        }
    }

    /// A call about an app: to its supervisor, unless that is here.
    fn about_app(&mut self, origin: Origin, mut request: Request) {
        let Some(text) = target_of(&mut request).map(|target| target.clone()) else {
            return;
        };
        let is_caller = matches!(origin, Origin::Caller(_));
        let target = match Target::parse(&text) {
            Ok(target) => target,
            Err(problem) => return self.reply(origin, Err(problem)),
        };
        let supervisor = self.supervisor_of(target.app);
        if is_caller && supervisor != self.me {
            let deadline = self.now + CALL_DEADLINE + HANDOVER;
            let task = if may_be_prefix(&text) || matches!(request, Request::Wait(_)) {
                Task::ForwardOrPrefix {
                    origin,
                    request: Box::new(request.clone()),
                }
            } else {
                Task::Forward(origin)
            };
            return self.ask_until(supervisor, Ask::Call(request), task, deadline);
        }
        if self.is_contested(target.app) {
            return self.fetch_then(origin, request, target.app);
        }
        let is_known = self
            .directory
            .get(target.app)
            .is_some_and(|record| record.wanted.spec.is_some());
        if is_known {
            self.with_record(origin, request, &target);
        } else if is_caller && may_be_prefix(&text) {
            self.find_prefix(origin, request, text);
        } else if self.directory.get(target.app).is_none() {
            self.fetch_then(origin, request, target.app);
        } else {
            self.reply(origin, Err(no_such_app(&target.name)));
        }
    }

    pub(crate) fn forward_answered(
        &mut self,
        origin: Origin,
        mut request: Request,
        answer: Result<Answer, Problem>,
    ) {
        let code = answer.as_ref().err().map(|problem| problem.code.clone());
        if code == Some(ProblemCode::TimedOut) && matches!(request, Request::Wait(_)) {
            return self.wait_again(origin, request, self.now);
        }
        if code == Some(ProblemCode::NotFound)
            && let Some(text) = target_of(&mut request).map(|target| target.clone())
            && may_be_prefix(&text)
        {
            return self.find_prefix(origin, request, text);
        }
        let result = answer.and_then(call_response);
        self.reply_now(origin, result);
    }

    /// The id was looked up: hand the call to the supervisor of its app.
    pub(crate) fn retarget(
        &mut self,
        origin: Origin,
        mut request: Request,
        app_name: &str,
        object: ObjectId,
    ) {
        if let Some(target) = target_of(&mut request) {
            *target = alloc::format!("{app_name}#{object}");
        }
        self.about_app(origin, request);
    }

    /// The node that a name or the prefix of an id means.
    pub(crate) fn find_node(&self, text: &str) -> Result<NodeId, Problem> {
        if text.is_empty() {
            return Ok(self.me);
        }
        let named = self
            .measurement
            .iter()
            .filter(|it| it.name == text)
            .map(|it| it.node);
        let prefixed = self.auth.members().filter(|node| node.has_prefix(text));
        let mut found: alloc::vec::Vec<NodeId> =
            named.filter(|node| self.auth.is_member(*node)).collect();
        if found.is_empty() {
            found = prefixed.collect();
        }
        match found[..] {
            [node] => Ok(node),
            [] => Err(Problem::not_found("node", text).remedy("welkin nodes")),
            _ => Err(Problem::new(
                ProblemCode::Ambiguous,
                alloc::format!("{} nodes fit `{text}`", found.len()),
            )
            .remedy("welkin nodes -o wide shows whole ids; write more of one")),
        }
    }
}

/// What a node says that was removed.
pub(crate) fn removed_from_the_cloud() -> Problem {
    let detail = "this node was removed from the cloud, for good, and runs nothing any more";
    Problem::new(ProblemCode::Forbidden, detail)
        .remedy("welkin down; then join as a new node, with an empty state directory")
}

/// Whether a node that belongs to no cloud has nothing to say.
fn needs_the_cloud(request: &Request) -> bool {
    !matches!(
        request,
        Request::CloudInfo(_) | Request::Doctor(_) | Request::NodeDown(_)
    )
}

pub(crate) fn no_such_app(name: &str) -> Problem {
    Problem::not_found("app", name).remedy("welkin ps -a")
}

fn target_of(request: &mut Request) -> Option<&mut String> {
    match request {
        Request::Inspect(it) => Some(&mut it.target),
        Request::Locate(it) => Some(&mut it.target),
        Request::StopApp(it) => Some(&mut it.target),
        Request::StartApp(it) => Some(&mut it.target),
        Request::Kill(it) => Some(&mut it.target),
        Request::Remove(it) => Some(&mut it.target),
        Request::Wait(it) => Some(&mut it.target),
        Request::Scale(it) => Some(&mut it.target),
        Request::Explain(it) => Some(&mut it.target),
        Request::Resolve(it) => Some(&mut it.target),
        Request::CloudInfo(_)
        | Request::Invite(_)
        | Request::NodeList(_)
        | Request::NodeInspect(_)
        | Request::NodeDrain(_)
        | Request::NodeResume(_)
        | Request::NodeLabel(_)
        | Request::NodeRemove(_)
        | Request::NodeDown(_)
        | Request::Doctor(_)
        | Request::Run(_)
        | Request::Apply(_)
        | Request::AppList(_)
        | Request::Stats(_) => None,
    }
}

pub(crate) fn changes_something(request: &Request) -> bool {
    match request {
        Request::Invite(_)
        | Request::NodeDrain(_)
        | Request::NodeResume(_)
        | Request::NodeLabel(_)
        | Request::NodeRemove(_)
        | Request::Run(_)
        | Request::Apply(_)
        | Request::StopApp(_)
        | Request::StartApp(_)
        | Request::Remove(_)
        | Request::Scale(_) => true,
        Request::CloudInfo(_)
        | Request::NodeList(_)
        | Request::NodeInspect(_)
        | Request::NodeDown(_)
        | Request::Doctor(_)
        | Request::AppList(_)
        | Request::Inspect(_)
        | Request::Locate(_)
        | Request::Kill(_)
        | Request::Wait(_)
        | Request::Stats(_)
        | Request::Explain(_)
        | Request::Resolve(_) => false,
    }
}
