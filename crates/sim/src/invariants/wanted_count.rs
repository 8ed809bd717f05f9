//! The wanted count is reached after a heal, and the surplus is retired.
//!
//! "Keeps the wanted count alive by itself; after it heals the surplus is retired" (`DESIGN.md`
//! section 3, `--on-partition available`): every slot of an app that is to run has one living
//! object, which may be waiting to be started again, and a stopped app has none. What runs once has
//! an object that runs or has run. A slot may be empty when nobody can take its object, or when it
//! never runs twice and most of those who vote on it are away, or when its app waits for another one
//! that has not come up (`docs/protocols/placing.md`, start order).

use std::collections::{BTreeMap, BTreeSet};

use wire::call::{Inspection, NodeState, NodeSummary};
use wire::id::ObjectId;
use wire::spec::{AppSpec, Constraint, Operator, Restart};

use super::acknowledged::agreed;
use super::survey::{Kind, Survey, Wish};

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    for name in survey.expected.apps.keys() {
        let slots = living(survey, name);
        let Some(Wish::Present {
            stopped,
            replicas,
            kind,
            ..
        }) = agreed(survey, name)
        else {
            continue;
        };
        if stopped && !slots.is_empty() {
            return Err(format!("{name} is stopped and runs: {slots:?}"));
        }
        if let Some((index, objects)) = slots.iter().find(|(_, objects)| objects.len() > 1) {
            return Err(format!("{name}/{index} has {} objects", objects.len()));
        }
        if let Some(index) = missing(survey, name)
            && !survey.lacks_votes(name)
            && let Some((_, inspection)) = survey.described(name).next()
            && !waits_rightly(survey, inspection)
            && let Some(node) = taker(survey, &inspection.spec)
        {
            return Err(format!(
                "{name}/{index} of {replicas} has no object ({kind:?}), and {node} could take it"
            ));
        }
    }
    Ok(())
}

/// Whether an app waits for one that has not come up; that one may be waiting itself.
fn waits_rightly(survey: &Survey, inspection: &Inspection) -> bool {
    let has_come_up = |other: &String| {
        let Some((_, it)) = survey.described(other).next() else {
            return false;
        };
        let lasts = it.spec.restart == Restart::Always && it.spec.health.is_none();
        let slots = survey.objects().filter(|it| it.app_name == *other);
        let serving: BTreeSet<u32> = slots.filter(|it| it.serves()).map(|it| it.index).collect();
        let all_serve = (0..it.spec.replicas).all(|index| serving.contains(&index));
        // Others come and go; what they did when they were last asked about, nobody knows.
        lasts && !it.stopped && all_serve && starts(&it.spec)
    };
    inspection.waiting.is_some() && !inspection.spec.after.iter().all(has_come_up)
}

/// Whether the program of an app runs until it is asked to end.
fn starts(spec: &AppSpec) -> bool {
    let word = spec.program.arguments.first();
    word.is_some_and(|word| word == "serve" || word == "deaf")
}

/// Living objects by slot, those that truly run and those that hosts know.
fn living(survey: &Survey, name: &str) -> BTreeMap<u32, BTreeSet<ObjectId>> {
    let mut slots: BTreeMap<u32, BTreeSet<ObjectId>> = BTreeMap::new();
    for it in survey.running.iter().filter(|it| it.app == name) {
        slots.entry(it.index).or_default().insert(it.object);
    }
    for facts in survey.apps.values().flatten().flat_map(|it| &it.objects) {
        if facts.app_name == name && facts.phase.is_alive() {
            slots.entry(facts.index).or_default().insert(facts.object);
        }
    }
    slots
}

/// A slot without an object that there should be. What runs by a schedule mostly has none.
pub(super) fn missing(survey: &Survey, name: &str) -> Option<u32> {
    let Some(Wish::Present {
        replicas,
        stopped: false,
        kind,
    }) = agreed(survey, name).filter(|it| it.kind() != Some(Kind::Timed))
    else {
        return None;
    };
    let living = living(survey, name);
    let has_run = |index: u32| {
        let records = survey.records.iter().flat_map(|(_, it)| &it.objects);
        let mut own = survey
            .objects()
            .chain(records)
            .filter(|it| it.app_name == name);
        own.any(|it| it.index == index)
    };
    let is_served = |index: u32| {
        living.contains_key(&index)
            || (!kind.lasts() && (has_run(index) || survey.expected.has_removed))
    };
    (0..replicas).find(|index| !is_served(*index))
}

/// A node that could take another object.
fn taker<'a>(survey: &'a Survey, spec: &AppSpec) -> Option<&'a str> {
    let nodes = survey.nodes.values().flatten().next()?;
    let fits = |it: &&NodeSummary| {
        let pinned = spec.placement.host.as_ref();
        let has = &it.capacity;
        let others = survey
            .objects()
            .filter(|other| other.node == it.node && other.phase.is_alive());
        let mut cpu_millis = spec.resources.cpu_millis;
        let mut memory_bytes = spec.resources.memory_bytes;
        let mut port_is_free = true;
        for other in others {
            let Some((_, of)) = survey.described(&other.app_name).next() else {
                return false;
            };
            cpu_millis += of.spec.resources.cpu_millis;
            memory_bytes += of.spec.resources.memory_bytes;
            port_is_free &= !of
                .spec
                .ports
                .values()
                .any(|port| spec.ports.values().any(|it| it == port));
        }
        it.state == NodeState::Up
            && pinned.is_none_or(|name| *name == it.name)
            && spec
                .placement
                .constraints
                .iter()
                .all(|constraint| holds(constraint, it))
            && cpu_millis <= has.cpu_millis
            && memory_bytes <= has.memory_bytes
            && port_is_free
    };
    nodes.nodes.iter().find(fits).map(|it| it.name.as_str())
}

/// Whether a constraint on a label holds.
fn holds(constraint: &Constraint, node: &NodeSummary) -> bool {
    let key = constraint.attribute.trim_start_matches("label.");
    let is_equal = node.labels.get(key) == Some(&constraint.value);
    is_equal == (constraint.operator == Operator::Equal)
}
