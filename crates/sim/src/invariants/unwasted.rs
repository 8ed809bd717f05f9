//! What a node holds is held for something.
//!
//! A lease that nobody uses lapses, and an object that has ended holds nothing
//! (`kernel::lease`). So what a node says that it holds is what its living objects were promised;
//! but where objects come and go by a schedule, what is said of them is not of one moment.

use std::collections::BTreeMap;

use super::survey::Survey;

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    if survey
        .expected
        .apps
        .keys()
        .any(|app| survey.is_in_flux(app))
    {
        return Ok(());
    }
    let mut promised = BTreeMap::new();
    for name in survey.expected.apps.keys() {
        if let Some((_, it)) = survey.described(name).next() {
            promised.insert(name.as_str(), it.spec.resources);
        }
    }
    for (machine, nodes) in &survey.nodes {
        let who = survey.name(*machine);
        let mut own = nodes.iter().flat_map(|it| &it.nodes);
        let Some(own) = own.find(|it| it.name == who) else {
            continue;
        };
        let living = survey
            .objects()
            .filter(|it| it.node == own.node && it.phase.is_alive());
        let (mut cpu_millis, mut memory_bytes) = (0, 0);
        for resources in living.filter_map(|it| promised.get(it.app_name.as_str())) {
            cpu_millis += resources.cpu_millis;
            memory_bytes += resources.memory_bytes;
        }
        let (cpu_held, memory_held) =
            (own.capacity.cpu_held_millis, own.capacity.memory_held_bytes);
        if (cpu_held, memory_held) != (cpu_millis, memory_bytes) {
            return Err(format!(
                "{who} holds {cpu_held} millicores and {memory_held} bytes; its objects have \
                 {cpu_millis} and {memory_bytes}"
            ));
        }
    }
    Ok(())
}
