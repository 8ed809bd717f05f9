//! What never runs twice does not.
//!
//! `--on-partition once` promises at most one running object a slot in the whole cloud, whatever the
//! network, the machines and their daemons do (`docs/protocols/once.md`). So when the program of one
//! is started, or may go on, no other machine has one of the same slot that could do anything now: it
//! has ended or is frozen.

use kernel::world::Output;
use wire::driver::Launch;

use super::{Seen, Watch};
use crate::world::{MachineId, World};

/// See the module.
#[derive(Debug)]
pub(super) struct OneHome;

impl Watch for OneHome {
    fn name(&self) -> &'static str {
        "one home"
    }

    fn see(&mut self, world: &World, machine: MachineId, seen: &Seen<'_>) -> Option<String> {
        let (object, launch, what) = match seen {
            Seen::Launch(launch) => (launch.object, *launch, "is started"),
            Seen::Output(Output::Tenure { object, tenure }) => {
                let goes_on = world.now().as_micros() < tenure.freeze_at_us;
                let its = |(other, _): &(_, &Launch)| other == object;
                let (_, launch) = world.programs(machine).find(its).filter(|_| goes_on)?;
                (*object, launch, "goes on")
            }
            Seen::Output(_) | Seen::Crashed | Seen::Spins => return None,
        };
        launch.tenure?;
        let slot = |it: &Launch| (it.app_name.clone(), it.index, it.tenure.is_some());
        let is_other = |(other, it): &(_, &Launch)| *other != object && slot(it) == slot(launch);
        let runs = |at: &MachineId| world.acting(*at).any(|one| is_other(&one));
        let other = world.machines().find(runs)?;
        Some(format!(
            "{}/{} ({}) {what} on {} while another of its slot runs on {}",
            launch.app_name,
            launch.index,
            object.short(),
            world.name(machine),
            world.name(other)
        ))
    }
}
