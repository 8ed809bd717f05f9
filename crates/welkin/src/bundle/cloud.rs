//! What a node answers: its findings, and the cloud as it sees it.
//!
//! What it is not: it does not know what may be told. Answers are added as they came.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use wire::call::{
    AppList, Call, CloudInfo, Explain, Inspect, NodeInspect, NodeList, NodeSummary, Stats,
};
use wire::id::ObjectId;
use wire::stream::{Open, What};

use super::Bundle;
use crate::context::Context;
use crate::failure::Failure;
use crate::merge::{Merge, Said};
use crate::verb::doctor;

/// How long all questions together may take: somebody waits, and much does not answer.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most nodes that are asked for what is on them and what happened.
const NODES_MAX: usize = 64;
/// Most apps that are asked for.
const APPS_MAX: usize = 256;
/// Most events of all nodes together, the newest.
const EVENTS_MAX: usize = 10_000;

/// Adds what the node answers; the name of the node, or nothing when it does not answer.
pub(crate) async fn gather(
    bundle: &mut Bundle,
    context: &Context,
    since_ms: Option<u64>,
) -> Option<String> {
    let (findings, answers) = match doctor::ask(context).await {
        Ok(findings) => (findings, true),
        Err(error) => {
            let findings = doctor::without_a_node(context, error);
            let why = findings.findings.first().map(|it| it.summary.as_str());
            let why = why.unwrap_or("no node answers");
            bundle.miss(format!("all that the node would have told: {why}"));
            (findings, false)
        }
    };
    let text = doctor::describe(&findings.findings, false);
    bundle.text("doctor.txt", "what is wrong, and what to do", text);
    bundle.json("doctor.json", "the same, for programs", &findings);
    if !answers {
        return None;
    }
    let mut asking = Asking {
        bundle,
        context,
        until: Instant::now() + PATIENCE,
    };
    let cloud = asking
        .ask("cloud.json", "the node and its cloud", CloudInfo {})
        .await;
    let nodes = asking
        .ask("nodes.json", "every node", NodeList {})
        .await
        .map_or_else(Vec::new, |it| it.nodes);
    asking.ask_for_apps().await;
    let stats = Stats { target: None };
    asking
        .ask("stats.json", "what objects use", stats)
        .await
        .map_or_else(Vec::new, |it| it.unanswered)
        .into_iter()
        .for_each(|node| asking.bundle.miss(format!("stats.json: {node} is silent")));
    let up: Vec<_> = nodes.into_iter().filter(|it| it.state.is_up()).collect();
    asking.ask_nodes(&up).await;
    asking.read_events(&up, since_ms).await;
    cloud.map(|it| it.name)
}

/// Questions to one node, until a moment.
struct Asking<'a> {
    bundle: &'a mut Bundle,
    context: &'a Context,
    until: Instant,
}

impl Asking<'_> {
    /// Asks, and adds the answer under this name or notes that there is none.
    async fn ask<C: Call>(
        &mut self,
        name: &str,
        about: &'static str,
        call: C,
    ) -> Option<C::Response> {
        let asked = timeout_at(self.until, self.context.client.call(call)).await;
        match asked {
            Ok(Ok(answer)) => {
                self.bundle.json(name, about, &answer);
                Some(answer)
            }
            Ok(Err(error)) => {
                let why = Failure::from(error).detail;
                self.bundle.miss(format!("{name}: {why}"));
                None
            }
            Err(_elapsed) => {
                self.bundle.miss(format!("{name}: there was no time left"));
                None
            }
        }
    }

    async fn ask_for_apps(&mut self) {
        let list = AppList {
            all: true,
            target: None,
        };
        let apps = self.ask("apps.json", "every app and object", list).await;
        let Some(apps) = apps else {
            return;
        };
        for node in &apps.unanswered {
            self.bundle.miss(format!("apps.json: {node} is silent"));
        }
        if apps.apps.len() > APPS_MAX {
            let left = apps.apps.len() - APPS_MAX;
            self.bundle.miss(format!("apps/: {left} more apps"));
        }
        for app in apps.apps.into_iter().take(APPS_MAX) {
            let file = file_name(&app.name);
            let target = app.name.clone();
            let name = format!("apps/{file}.json");
            self.ask(&name, "an app", Inspect { target }).await;
            let target = app.name;
            let name = format!("explanations/{file}.json");
            self.ask(&name, "why an app is where it is", Explain { target })
                .await;
        }
    }

    async fn ask_nodes(&mut self, up: &[NodeSummary]) {
        if up.len() > NODES_MAX {
            let left = up.len() - NODES_MAX;
            self.bundle.miss(format!("nodes/: {left} more nodes"));
        }
        for node in up.iter().take(NODES_MAX) {
            let name = format!("nodes/{}.json", file_name(&node.name));
            let node = node.node.to_string();
            self.ask(&name, "a node and what is on it", NodeInspect { node })
                .await;
        }
    }

    /// Adds what happened on these nodes, the newest first.
    async fn read_events(&mut self, up: &[NodeSummary], since_ms: Option<u64>) {
        let mut merge = Merge::new(&self.context.client, false);
        let mut names = Vec::new();
        for node in up.iter().take(NODES_MAX) {
            merge.add(Open {
                node: node.node,
                object: ObjectId([0; 16]),
                what: What::Events {
                    follow: false,
                    since_ms,
                },
            });
            names.push(&node.name);
        }
        let mut events: VecDeque<Value> = VecDeque::new();
        loop {
            let Ok(entries) = timeout_at(self.until, merge.next()).await else {
                let text = "events.json: there was no time left".to_owned();
                self.bundle.miss(text);
                break;
            };
            if entries.is_empty() {
                break;
            }
            for entry in entries {
                match entry.what {
                    Said::Event(json) => events.extend(serde_json::from_slice(&json).ok()),
                    Said::Failed(failure) => {
                        let name = names.get(entry.source).map_or("a node", |it| it.as_str());
                        let text = format!("events.json: {name}: {}", failure.detail);
                        self.bundle.miss(text);
                    }
                    Said::Log(..) | Said::Ended => {}
                }
            }
            while events.len() > EVENTS_MAX {
                events.pop_front();
            }
        }
        let newest_first: Vec<Value> = events.into_iter().rev().collect();
        let about = "what happened lately, the newest first";
        self.bundle.json("events.json", about, &newest_first);
    }
}

/// A name as a file can have it; names of nodes and apps are so already.
pub(crate) fn file_name(name: &str) -> String {
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' {
            c
        } else {
            '_'
        }
    };
    let name: String = name.chars().take(64).map(plain).collect();
    if name.is_empty() {
        "_".to_owned()
    } else {
        name
    }
}
