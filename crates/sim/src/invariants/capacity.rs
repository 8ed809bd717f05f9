//! A machine never promises what it does not have.
//!
//! The node alone decides over its resources, so that two askers never win the same core
//! (`DESIGN.md` section 3, leases): what its living programs were promised is at most what exists,
//! and no TCP port is held twice.

use super::{Seen, Watch};
use crate::world::{MachineId, World};

/// The variable in which made-up programs are told their port: a launch does not name it.
pub const PORT: &str = "PORT";

/// See the module.
#[derive(Debug)]
pub(super) struct Capacity;

impl Watch for Capacity {
    fn name(&self) -> &'static str {
        "capacity"
    }

    fn see(&mut self, world: &World, machine: MachineId, seen: &Seen<'_>) -> Option<String> {
        let Seen::Launch(launch) = seen else {
            return None;
        };
        let mut cpu_millis = u64::from(launch.resources.cpu_millis);
        let mut memory_bytes = launch.resources.memory_bytes;
        let others = world.programs(machine);
        for (_, other) in others.filter(|(object, _)| *object != launch.object) {
            cpu_millis += u64::from(other.resources.cpu_millis);
            memory_bytes = memory_bytes.saturating_add(other.resources.memory_bytes);
        }
        let has = world.hardware(machine);
        let name = world.name(machine);
        if cpu_millis > u64::from(has.cpu_millis) {
            let exist = has.cpu_millis;
            return Some(format!(
                "{name} promises {cpu_millis} of {exist} millicores"
            ));
        }
        if memory_bytes > has.memory_bytes {
            let exist = has.memory_bytes;
            return Some(format!("{name} promises {memory_bytes} of {exist} bytes"));
        }
        let ports = |tag: &wire::driver::Launch| -> Option<u16> {
            tag.program.environment.get(PORT)?.parse().ok()
        };
        let port = ports(launch)?;
        let (_, owner) = world
            .programs(machine)
            .find(|(object, other)| *object != launch.object && ports(other) == Some(port))?;
        let (app, index) = (&owner.app_name, owner.index);
        Some(format!(
            "{name} gives port {port} away, which {app}/{index} holds"
        ))
    }
}
