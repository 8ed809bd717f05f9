//! Answers and events as lines of a transcript: names, never ids, so that they can be read.

use std::collections::BTreeMap;

use wire::call::{Problem, Response};
use wire::fact::ObjectFacts;
use wire::id::{NodeId, UnixMillis};
use wire::job::{Attempt, Run};

use crate::journal::Entry;
use crate::world::World;

/// Why a call was refused.
pub(super) fn problem(problem: Option<&Problem>) -> String {
    problem.map_or_else(|| "no answer".to_string(), |it| format!("refused: {it}"))
}

/// What somebody said. `objects` knows which object an id means.
pub(super) fn event(entry: &Entry, objects: &BTreeMap<String, String>) -> String {
    let kind = &entry.kind;
    let subject = objects.get(&entry.subject).unwrap_or(&entry.subject);
    // The message of an object begins with its id.
    let id = entry.message.split(' ').next().unwrap_or_default();
    let why = match entry.message.strip_prefix(id) {
        Some(why) if kind.starts_with("object.") && kind != "object.retired" => why.trim(),
        _ if kind.starts_with("node.") => "",
        _ => &entry.message,
    };
    if why.is_empty() {
        format!("{kind} {subject}")
    } else {
        format!("{kind} {subject}, {why}")
    }
}

/// What a call was answered.
pub(super) fn response(world: &World, response: &Response) -> Vec<String> {
    match response {
        Response::Run(it) | Response::StartApp(it) | Response::Scale(it) => {
            let mut lines = vec![done(&places(world, &it.objects))];
            lines.extend(it.waiting.clone());
            lines.extend(it.next.map(|next| until(world, next)));
            lines
        }
        Response::Apply(it) => vec![format!("done: {:?}", it.change).to_lowercase()],
        Response::AppList(it) => app_list(world, it),
        Response::NodeList(it) => it
            .nodes
            .iter()
            .map(|it| {
                format!(
                    "{} is {}",
                    it.name,
                    format!("{:?}", it.state).to_lowercase()
                )
            })
            .collect(),
        Response::Inspect(it) => inspection(world, it),
        Response::Locate(it) => vec![places(world, &it.objects)],
        Response::StopApp(it) | Response::Kill(it) | Response::Remove(it) => {
            vec![format!("done: {} objects", it.objects.len())]
        }
        Response::Wait(it) => it
            .exits
            .iter()
            .map(|it| format!("{} ended: {:?}", it.index, it.exit.reason))
            .collect(),
        Response::Explain(it) => explanation(it),
        Response::Resolve(it) => {
            let line = |it: &wire::call::Endpoint| {
                let ports: Vec<String> = it
                    .ports
                    .iter()
                    .map(|(name, port)| format!("{name} {port}"))
                    .collect();
                let line = format!("{} at {} {}", it.index, it.address, ports.join(" "));
                line.trim_end().to_string()
            };
            it.endpoints.iter().map(line).collect()
        }
        Response::CloudInfo(it) => vec![format!("{} of {} nodes are up", it.nodes_up, it.nodes)],
        Response::NodeDrain(it)
        | Response::NodeResume(it)
        | Response::NodeLabel(it)
        | Response::NodeRemove(it)
        | Response::NodeDown(it) => {
            vec![format!("done: {} is {:?}", it.name, it.state).to_lowercase()]
        }
        Response::Doctor(it) => it
            .findings
            .iter()
            .map(|it| {
                let severity = format!("{:?}", it.severity).to_lowercase();
                format!("{severity}: {}", it.summary)
            })
            .collect(),
        Response::Invite(_) | Response::NodeInspect(_) | Response::Stats(_) => {
            vec!["done".to_string()]
        }
    }
}

fn done(what: &str) -> String {
    if what.is_empty() {
        "done".to_string()
    } else {
        format!("done: {what}")
    }
}

fn name(world: &World, node: NodeId) -> String {
    let machine = world.machine_of(node);
    machine.map_or_else(|| node.short(), |it| world.name(it).to_string())
}

fn places(world: &World, objects: &[ObjectFacts]) -> String {
    let place = |it: &ObjectFacts| {
        let (app, index, on) = (&it.app_name, it.index, name(world, it.node));
        format!("{app}/{index} on {on}")
    };
    let places: Vec<String> = objects.iter().map(place).collect();
    places.join(", ")
}

fn app_list(world: &World, list: &wire::call::Apps) -> Vec<String> {
    let mut lines = Vec::new();
    for app in &list.apps {
        let trouble = app.waiting.as_ref().or(app.trouble.as_ref());
        let trouble = trouble.map_or(String::new(), |why| format!(", {why}"));
        let (running, wanted) = (app.running, app.wanted);
        let next = app.next.map(|next| format!(", {}", until(world, next)));
        let next = next.unwrap_or_default();
        lines.push(format!(
            "{} runs {running} of {wanted}{trouble}{next}",
            app.name
        ));
    }
    for it in &list.objects {
        let (app, index, phase) = (&it.app_name, it.index, it.phase.word());
        let restarts = match it.restarts {
            0 => String::new(),
            1 => ", restarted once".to_string(),
            times => format!(", restarted {times} times"),
        };
        let on = name(world, it.node);
        let health = it.health.as_ref();
        let health = health.map_or(String::new(), |it| format!(", {}", it.word()));
        lines.push(format!(
            "{app}/{index} is {phase} on {on}{health}{restarts}"
        ));
    }
    if !list.unanswered.is_empty() {
        lines.push(format!("no answer from {}", list.unanswered.join(" ")));
    }
    if lines.is_empty() {
        lines.push("nothing".to_string());
    }
    lines
}

fn inspection(world: &World, it: &wire::call::Inspection) -> Vec<String> {
    let stopped = if it.stopped { ", stopped" } else { "" };
    let mut lines = vec![
        format!("{} x{}{stopped}", it.spec.name, it.spec.replicas),
        format!("kept by {}", it.guardians.join(" ")),
    ];
    if !it.objects.is_empty() {
        lines.push(places(world, &it.objects));
    }
    if let Some(update) = &it.update {
        lines.push(format!("updated {}", update.updated));
    }
    lines.extend(it.trouble.clone());
    lines.extend(it.waiting.clone());
    lines.extend(it.undone.iter().map(|why| format!("undone: {why}")));
    lines.extend(it.next.map(|next| until(world, next)));
    lines.extend(it.runs.iter().map(|run| told(world, run)));
    lines
}

/// When the next run of an app is, by the right time.
fn until(world: &World, next: UnixMillis) -> String {
    let left_s = next.0.saturating_sub(world.wall().0).div_ceil(1000);
    format!("next in {left_s} s")
}

/// What became of a run.
fn told(world: &World, run: &Run) -> String {
    let (number, skipped) = (run.number, run.skipped);
    let what = match &run.attempt {
        None => "has no place yet".to_string(),
        Some(Attempt {
            node, exit: None, ..
        }) => format!("on {} has not ended", name(world, *node)),
        Some(Attempt {
            node,
            exit: Some(exit),
            ..
        }) => format!("on {} {}", name(world, *node), exit.reason),
    };
    match skipped {
        0 => format!("run {number} {what}"),
        _ => format!("run {number} {what}, {skipped} skipped"),
    }
}

fn explanation(it: &wire::call::Explanation) -> Vec<String> {
    let mut lines = vec![format!("supervised by {}", it.supervisor)];
    for decision in &it.decisions {
        let node = decision.node.as_deref().unwrap_or("nowhere");
        lines.push(format!("{}/{} on {node}", it.name, decision.index));
        lines.extend(decision.reasons.iter().map(|reason| format!("  {reason}")));
    }
    lines.extend(it.trouble.clone());
    lines.extend(it.waiting.clone());
    lines
}
