//! No object runs twice.
//!
//! An object's id is its identity: its address, its epoch and its bill hang on it (`DESIGN.md`
//! section 2 rule 7). So at most one machine has a living program of an id, and a program is
//! started again only after it has ended.

use super::{Seen, Watch};
use crate::world::{MachineId, World};

/// See the module.
#[derive(Debug)]
pub(super) struct OneLife;

impl Watch for OneLife {
    fn name(&self) -> &'static str {
        "one life"
    }

    fn see(&mut self, world: &World, machine: MachineId, seen: &Seen<'_>) -> Option<String> {
        let Seen::Launch(launch) = seen else {
            return None;
        };
        let runs = |at: &MachineId| {
            world
                .programs(*at)
                .any(|(object, _)| object == launch.object)
        };
        let other = world.machines().find(runs)?;
        Some(format!(
            "{}/{} ({}) is started on {} while it lives on {}",
            launch.app_name,
            launch.index,
            launch.object.short(),
            world.name(machine),
            world.name(other)
        ))
    }
}
