//! No alarms where everybody is honest, and no kernel that spins.
//!
//! An alarm means something that should be impossible but involves a peer or a disk (`DESIGN.md`
//! section 2 rule 4). Crashes, losses and cuts are possible; a refusing disk raises the one alarm
//! that is made for it, and a node that was removed learns so by one.

use kernel::alarm::Alarm;
use kernel::world::Output;

use super::{Seen, Watch};
use crate::world::{MachineId, World};

/// Alarms that an honest world knows.
const EXPECTED: [Alarm; 2] = [Alarm::DiskRefused, Alarm::NodeRemoved];

/// See the module.
#[derive(Debug)]
pub(super) struct Honest;

impl Watch for Honest {
    fn name(&self) -> &'static str {
        "honest"
    }

    fn see(&mut self, world: &World, machine: MachineId, seen: &Seen<'_>) -> Option<String> {
        let who = world.name(machine);
        match seen {
            Seen::Output(Output::Alarm { alarm, detail }) if !EXPECTED.contains(alarm) => {
                Some(format!("{who} raises {}: {detail}", alarm.name()))
            }
            Seen::Spins => Some(format!("{who} spins: its next timeout is always over")),
            Seen::Output(_) | Seen::Launch(_) | Seen::Crashed => None,
        }
    }
}
