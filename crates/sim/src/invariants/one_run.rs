//! What runs once runs once.
//!
//! An object whose restart policy is `no` is not started again, and not replaced when its node is
//! lost (`docs/protocols/placing.md`, the plan). Only a host whose answer was lost can have begun
//! what is begun elsewhere, or one of which a supervisor that died had told nobody yet; so two
//! starts of one slot are wrong unless somebody could not hear or speak in between.

use std::collections::BTreeMap;
use std::time::Duration;

use kernel::instant::Instant;
use wire::id::ObjectId;

use super::{Seen, Watch};
use crate::world::{MachineId, World};

/// The variable that tells one app from all others of its name, and says that it runs once: a
/// launch does not name the policy.
pub const JOB: &str = "JOB";

/// How long before the first start a host may have been asked for it.
const ASKED: Duration = Duration::from_secs(12);

/// The first start of each slot.
#[derive(Debug, Default)]
pub(super) struct OneRun {
    starts: BTreeMap<(String, u32), (MachineId, ObjectId, Instant)>,
}

impl Watch for OneRun {
    fn name(&self) -> &'static str {
        "one run"
    }

    fn see(&mut self, world: &World, machine: MachineId, seen: &Seen<'_>) -> Option<String> {
        let Seen::Launch(launch) = seen else {
            return None;
        };
        let job = launch.program.environment.get(JOB)?.clone();
        let slot = (job, launch.index);
        let Some((host, object, at)) = self.starts.get(&slot).copied() else {
            let start = (machine, launch.object, world.now());
            self.starts.insert(slot, start);
            return None;
        };
        let has_heard = |since: Instant| since + ASKED < at;
        let mut machines = world.machines();
        let is_well = has_heard(world.blind_at())
            && machines.all(|it| world.is_well_since(it).is_some_and(has_heard));
        // The same object is run again by whoever starts its app by hand.
        (is_well && object != launch.object).then(|| {
            let (app, index, id) = (&launch.app_name, launch.index, object.short());
            let (first, second) = (world.name(host), world.name(machine));
            format!("{app}/{index} is to run once; {id} ran on {first}, and {second} runs it again")
        })
    }
}
