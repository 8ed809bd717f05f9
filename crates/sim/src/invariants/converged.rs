//! After a heal everybody knows the same members, all of them, by the same names.
//!
//! Membership within a region is complete ("every node knows every node", `DESIGN.md` section 3),
//! so a node that a partition or a crash took away is back everywhere in bounded time; one that was
//! removed is nowhere.

use std::collections::BTreeMap;

use wire::call::NodeState;
use wire::id::NodeId;

use super::survey::Survey;

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    let mut names: BTreeMap<NodeId, (String, String)> = BTreeMap::new();
    for (machine, nodes) in &survey.nodes {
        let who = survey.name(*machine);
        let Some(nodes) = nodes else {
            return Err(format!("{who} does not say which nodes there are"));
        };
        for summary in &nodes.nodes {
            let node = summary.node;
            if !survey.expected.members.contains(&node) {
                return Err(format!("{who} lists {}, which was removed", summary.name));
            }
            let up = survey.expected.up.contains(&node);
            let looks_up = matches!(summary.state, NodeState::Up | NodeState::Draining);
            if up != looks_up {
                let (name, state) = (&summary.name, summary.state);
                return Err(format!("{who} says that {name} is {state:?}"));
            }
            let (first, by) = names
                .entry(node)
                .or_insert_with(|| (summary.name.clone(), who.to_string()));
            if *first != summary.name {
                let name = &summary.name;
                return Err(format!("{by} calls {first} what {who} calls {name}"));
            }
        }
        let listed = |node: &NodeId| nodes.nodes.iter().any(|it| it.node == *node);
        if let Some(missing) = survey.expected.members.iter().find(|node| !listed(node)) {
            return Err(format!("{who} does not list {}", missing.short()));
        }
    }
    Ok(())
}
