//! Calls about the cloud and its nodes.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use wire::call::{
    CloudSummary, Finding, Findings, NodeDetail, NodeDrain, NodeInspect, NodeLabel, NodeRemove,
    NodeResume, NodeState, NodeSummary, Nodes, Problem, ProblemCode, Response, Severity,
};
use wire::fact::{Availability, LABELS_MAX, Platform};
use wire::id::NodeId;
use wire::peer::{Ask, HostedObject, ObjectFilter};
use wire::spec::Restart;

use super::scatter::Purpose;
use crate::hub::{Kernel, Origin, Task};
use crate::limits::CALL_DEADLINE;
use crate::membership::Liveness;

/// What a node is asked to change about itself.
#[derive(Debug)]
pub(super) enum Change {
    /// Let objects leave and take none.
    Drain { force: bool },
    /// Take objects again.
    Resume,
    /// Other labels.
    Label {
        set: BTreeMap<String, String>,
        remove: Vec<String>,
    },
}

impl Kernel {
    pub(super) fn cloud_info(&mut self, origin: Origin) {
        let count = |nodes: usize| u32::try_from(nodes).unwrap_or(u32::MAX);
        let summary = CloudSummary {
            cloud: self.config.cloud,
            node: self.me,
            name: self.measurement.name(self.me),
            program_version: self.config.program_version.clone(),
            nodes_up: count(self.reachable().len()),
            nodes: count(self.auth.member_count()),
        };
        self.reply_now(origin, Ok(Response::CloudInfo(summary)));
    }

    pub(super) fn node_list(&mut self, origin: Origin) {
        let members: Vec<NodeId> = self.auth.members().collect();
        let mut nodes: Vec<NodeSummary> = members
            .into_iter()
            .filter_map(|node| self.node_summary(node))
            .collect();
        nodes.sort_by(|a, b| a.name.cmp(&b.name).then(a.node.cmp(&b.node)));
        self.reply_now(origin, Ok(Response::NodeList(Nodes { nodes })));
    }

    pub(crate) fn node_summary(&self, node: NodeId) -> Option<NodeSummary> {
        let facts = self.measurement.get(node)?;
        Some(NodeSummary {
            node,
            name: facts.name.clone(),
            state: self.node_state(node),
            platform: facts.platform.clone(),
            program_version: facts.program_version.clone(),
            capacity: self.measurement.capacity(node),
            labels: facts.labels.clone(),
            rtt_us: self.measurement.rtt_us(node),
            via: self.via(node),
        })
    }

    /// Of a member that has said nothing yet.
    fn silent_summary(&self, node: NodeId) -> NodeSummary {
        let unknown = String::new;
        NodeSummary {
            node,
            name: self.measurement.name(node),
            state: self.node_state(node),
            platform: Platform {
                os: unknown(),
                arch: unknown(),
                kernel: unknown(),
            },
            program_version: unknown(),
            capacity: self.measurement.capacity(node),
            labels: BTreeMap::new(),
            rtt_us: self.measurement.rtt_us(node),
            via: self.via(node),
        }
    }

    /// By whom this node reaches another, when not by itself.
    fn via(&self, node: NodeId) -> Option<String> {
        let relay = self
            .relaying
            .way(node)
            .filter(|_| self.is_reachable(node))?;
        Some(self.measurement.name(relay))
    }

    fn relay_names(&self, node: NodeId) -> Vec<String> {
        let relays = self.measurement.get(node).map(|facts| &facts.relays[..]);
        let names = relays.unwrap_or_default().iter();
        names.map(|relay| self.measurement.name(*relay)).collect()
    }

    fn node_state(&self, node: NodeId) -> NodeState {
        let availability = self.measurement.availability(node);
        if self.is_reachable(node) {
            return availability.into();
        }
        match (availability, self.membership.state(node.short_id())) {
            (Availability::Leaving, _) => NodeState::Down,
            (_, Liveness::Gone { .. }) => NodeState::Gone,
            _ => NodeState::Unreachable,
        }
    }

    /// What the kernel knows to be wrong; the world adds what it sees of its machine, and the alarms.
    pub(super) fn doctor(&mut self, origin: Origin) {
        let node = self.measurement.name(self.me);
        let finding = |severity, summary: String, remedy: &str| Finding {
            severity,
            node: node.clone(),
            summary,
            remedy: remedy.into(),
        };
        let members: Vec<NodeId> = self.auth.members().collect();
        let lost = members.iter().filter(|node| !self.is_reachable(**node));
        let lost: Vec<String> = lost.map(|node| self.measurement.name(*node)).collect();
        let mut findings = Vec::new();
        findings.push(if lost.is_empty() {
            let summary = alloc::format!("all {} nodes of the cloud answer", members.len());
            finding(Severity::Fine, summary, "")
        } else {
            let summary = alloc::format!("these nodes do not answer: {}", lost.join(", "));
            let remedy = "welkin up on each; welkin node rm for one that will not return";
            finding(Severity::Missing, summary, remedy)
        });
        for name in self.measurement.twins() {
            let summary = alloc::format!("more than one node is called {name}");
            let remedy = "name nodes by their ids, or bring one up again with another --name";
            findings.push(finding(Severity::Advice, summary, remedy));
        }
        if let Some(problem) = self.twice.problem(self.now) {
            let remedy = crate::twice::REMEDY;
            findings.push(finding(Severity::Missing, problem.detail, remedy));
        }
        if self.outbox.is_stuck() {
            let summary = "the disk takes no writes; calls that change something are refused";
            let remedy = "make room on it, or mend it; nothing that was acknowledged is lost";
            findings.push(finding(Severity::Missing, summary.into(), remedy));
        }
        self.reply_now(origin, Ok(Response::Doctor(Findings { findings })));
    }

    pub(super) fn node_inspect(&mut self, origin: Origin, inspect: &NodeInspect) {
        let node = match self.find_node(&inspect.node) {
            Ok(node) => node,
            Err(problem) => return self.reply(origin, Err(problem)),
        };
        let Some(summary) = self.node_summary(node) else {
            let problem = Problem::new(ProblemCode::Unreachable, "the node has said nothing yet");
            return self.reply(origin, Err(problem));
        };
        let detail = NodeDetail {
            summary,
            addresses: self
                .measurement
                .get(node)
                .map(|it| it.addresses.clone())
                .unwrap_or_default(),
            objects: Vec::new(),
            admitted_by: self.auth.admitted_by(node),
            relays: self.relay_names(node),
        };
        let asks = [Ask::Objects {
            all: true,
            filter: ObjectFilter::Every,
        }];
        let nodes = if self.is_reachable(node) {
            [node].into()
        } else {
            Vec::new()
        };
        self.scatter(origin, Purpose::NodeDetail(Box::new(detail)), &nodes, &asks);
    }

    /// Drain, resume, label: the node itself does it, for it owns its facts.
    pub(super) fn node_change(&mut self, origin: Origin, name: &str, change: Change) {
        let node = match self.find_node(name) {
            Ok(node) => node,
            Err(problem) => return self.reply(origin, Err(problem)),
        };
        if node == self.me {
            let result = self.change_here(change);
            return self.reply(origin, result);
        }
        if !self.is_reachable(node) {
            let problem = self.unreachable_node(node);
            return self.reply(origin, Err(problem));
        }
        // By its id, so that both nodes mean the same one.
        let node_id = node.to_string();
        let request = match change {
            Change::Drain { force } => NodeDrain {
                node: node_id,
                force,
            }
            .into(),
            Change::Resume => NodeResume { node: node_id }.into(),
            Change::Label { set, remove } => NodeLabel {
                node: node_id,
                set,
                remove,
            }
            .into(),
        };
        let deadline = self.now + CALL_DEADLINE;
        self.ask_until(node, Ask::Call(request), Task::Forward(origin), deadline);
    }

    fn change_here(&mut self, change: Change) -> Result<Response, Problem> {
        let respond: fn(NodeSummary) -> Response = match change {
            Change::Drain { force } => {
                self.tell_facts(|facts| facts.availability = Availability::Draining);
                if force {
                    self.stop_what_stays()?;
                }
                Response::NodeDrain
            }
            Change::Resume => {
                self.tell_facts(|facts| facts.availability = Availability::Open);
                Response::NodeResume
            }
            Change::Label { set, remove } => {
                self.check_labels(&set)?;
                self.tell_facts(|facts| {
                    facts.labels.extend(set);
                    facts.labels.retain(|key, _| !remove.contains(key));
                });
                Response::NodeLabel
            }
        };
        self.supervision.retry_now();
        let apps: Vec<_> = self.directory.iter().map(|record| record.app).collect();
        for app in apps {
            self.supervision.touch(app);
        }
        let internal = || Problem::new(ProblemCode::Internal, "the node does not know itself");
        self.node_summary(self.me).ok_or_else(internal).map(respond)
    }

    /// Ends objects that no supervisor would start elsewhere.
    fn stop_what_stays(&mut self) -> Result<(), Problem> {
        let stays = |hosted: &&HostedObject| {
            hosted
                .wanted
                .spec
                .as_ref()
                .is_some_and(|spec| spec.restart == Restart::No)
        };
        let staying: Vec<_> = self
            .objects
            .living()
            .filter(stays)
            .map(|it| it.facts.object)
            .collect();
        staying
            .into_iter()
            .try_for_each(|object| self.objects.end(object, None, false))
    }

    fn check_labels(&self, set: &BTreeMap<String, String>) -> Result<(), Problem> {
        for key in set.keys() {
            wire::spec::check_name(key).map_err(|error| {
                Problem::new(
                    ProblemCode::Invalid,
                    alloc::format!("label `{key}`: {error}"),
                )
            })?;
        }
        let have = self.measurement.get(self.me).map(|facts| &facts.labels);
        let is_new = |key: &&String| have.is_none_or(|labels| !labels.contains_key(*key));
        if have.map_or(0, BTreeMap::len) + set.keys().filter(is_new).count() > LABELS_MAX {
            let detail = alloc::format!("a node has at most {LABELS_MAX} labels");
            return Err(Problem::new(ProblemCode::Invalid, detail));
        }
        Ok(())
    }

    pub(super) fn node_remove(&mut self, origin: Origin, remove: &NodeRemove) {
        let node = match self.find_node(&remove.node) {
            Ok(node) => node,
            Err(problem) => return self.reply(origin, Err(problem)),
        };
        if node == self.me {
            let problem = Problem::new(ProblemCode::Conflict, "a node does not remove itself")
                .remedy("run it on another node, or stop this one: welkin down");
            return self.reply(origin, Err(problem));
        }
        if self.is_reachable(node) && !remove.force {
            let name = self.measurement.name(node);
            let detail = alloc::format!("{name} is up; its objects would be ended at once");
            let problem = Problem::new(ProblemCode::Conflict, detail).remedy(alloc::format!(
                "welkin node drain {name}, then welkin down on it; or --force"
            ));
            return self.reply(origin, Err(problem));
        }
        let summary = self.node_summary(node);
        self.remove_node(origin, summary.unwrap_or_else(|| self.silent_summary(node)));
    }
}
