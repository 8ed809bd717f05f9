//! An app with a schedule runs once at a time.
//!
//! The next run begins only once the one before is over, and what is left of that one has ended
//! (`docs/protocols/jobs.md`, *What is promised*). Only a run whose host or supervisor could not
//! hear or speak may go on beside the next; so a program that is started while another one of its
//! app runs is wrong unless somebody was cut off, away or slow a while before.

use std::time::Duration;

use wire::driver::Launch;
use wire::id::ObjectId;

use super::{Seen, Watch};
use crate::world::{MachineId, World};

/// The variable that tells one app with a schedule from all others of its name.
pub const TIMED: &str = "TIMED";

/// How long after trouble there may be a run that nobody knew of.
const KNOWN: Duration = Duration::from_secs(40);

/// See the module.
#[derive(Debug)]
pub(super) struct OneAtATime;

impl Watch for OneAtATime {
    fn name(&self) -> &'static str {
        "one at a time"
    }

    fn see(&mut self, world: &World, machine: MachineId, seen: &Seen<'_>) -> Option<String> {
        let Seen::Launch(launch) = seen else {
            return None;
        };
        let app = |it: &Launch| it.program.environment.get(TIMED).cloned();
        let own = app(launch)?;
        let is_past = |since| since + KNOWN < world.now();
        let is_well = |it: MachineId| world.is_well_since(it).is_some_and(is_past);
        if !is_past(world.blind_at()) || !world.machines().all(is_well) {
            return None;
        }
        let other =
            |it: &(ObjectId, &Launch)| it.0 != launch.object && app(it.1).as_ref() == Some(&own);
        let host = |it: &MachineId| world.acting(*it).any(|one| other(&one));
        let elsewhere = world.machines().find(host)?;
        Some(format!(
            "a run of {} ({}) begins on {} while another one goes on on {}",
            launch.app_name,
            launch.object.short(),
            world.name(machine),
            world.name(elsewhere)
        ))
    }
}
