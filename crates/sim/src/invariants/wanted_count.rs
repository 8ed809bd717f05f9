//! The wanted count is reached after a heal, and the surplus is retired.
//!
//! "Keeps the wanted count alive by itself; after it heals the surplus is retired" (`DESIGN.md`
//! section 3, `--on-partition available`): every slot of an app that is to run has one living
//! object, which may be waiting to be started again, and a stopped app has none.

use std::collections::{BTreeMap, BTreeSet};

use wire::id::ObjectId;

use super::acknowledged::agreed;
use super::survey::{Survey, Wish};

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    for name in survey.expected.apps.keys() {
        let mut slots: BTreeMap<u32, BTreeSet<ObjectId>> = BTreeMap::new();
        for it in survey.running.iter().filter(|it| it.app == *name) {
            slots.entry(it.index).or_default().insert(it.object);
        }
        for facts in survey.apps.values().flatten().flat_map(|it| &it.objects) {
            if facts.app_name == *name && facts.phase.is_alive() {
                slots.entry(facts.index).or_default().insert(facts.object);
            }
        }
        let Some(Wish::Present {
            replicas,
            stopped,
            lasting,
        }) = agreed(survey, name)
        else {
            continue;
        };
        if stopped && !slots.is_empty() {
            return Err(format!("{name} is stopped and runs: {slots:?}"));
        }
        if stopped {
            continue;
        }
        for index in 0..replicas {
            let objects = slots.get(&index).map_or(0, BTreeSet::len);
            if objects > 1 || (objects == 0 && lasting) {
                return Err(format!("{name}/{index} has {objects} objects"));
            }
        }
    }
    Ok(())
}
