//! What must always hold, one file each, with the reason and where it is demanded.
//!
//! A [`Watch`] sees everything as it happens and says when something happened that never may:
//! safety. A *check* looks at a [`Survey`] of a cloud that was healed and left alone for a while:
//! liveness and convergence.

mod acknowledged;
pub mod capacity;
mod converged;
mod due;
mod expelled;
mod guarded;
mod honest;
mod no_orphan;
pub mod one_at_a_time;
mod one_home;
mod one_life;
pub mod one_run;
mod recorded;
pub mod survey;
mod untroubled;
mod unwasted;
mod updated;
mod wanted_count;

use std::fmt;

use kernel::world::Output;
use wire::driver::Launch;

use crate::world::{MachineId, World};
use survey::Survey;

/// Something that a machine did.
#[derive(Debug)]
pub enum Seen<'a> {
    /// Its kernel wants something done.
    Output(&'a Output),
    /// A program is about to be started.
    Launch(&'a Launch),
    /// Its power went.
    Crashed,
    /// Its kernel asks for the time again and again and does nothing with it.
    Spins,
}

/// Something that must never happen.
pub trait Watch: fmt::Debug {
    /// Its name in failures.
    fn name(&self) -> &'static str;
    /// Looks at what happened; a sentence when it never may.
    fn see(&mut self, world: &World, machine: MachineId, seen: &Seen<'_>) -> Option<String>;
}

/// All of them.
pub(crate) fn watches() -> Vec<Box<dyn Watch>> {
    vec![
        Box::new(one_life::OneLife),
        Box::new(one_home::OneHome),
        Box::new(one_run::OneRun::default()),
        Box::new(one_at_a_time::OneAtATime),
        Box::new(capacity::Capacity),
        Box::new(expelled::Expelled),
        Box::new(honest::Honest),
    ]
}

/// Looks at a survey; a sentence when something is not as it must be by then.
type Check = fn(&Survey) -> Result<(), String>;

/// What must hold some time after a heal.
const CHECKS: [(&str, Check); 10] = [
    ("converged", converged::check),
    ("acknowledged", acknowledged::check),
    ("wanted count", wanted_count::check),
    ("no orphan", no_orphan::check),
    ("guarded", guarded::check),
    ("recorded", recorded::check),
    ("untroubled", untroubled::check),
    ("unwasted", unwasted::check),
    ("updated", updated::check),
    ("due", due::check),
];

/// What does not hold, in sentences.
#[must_use]
pub fn faults(survey: &Survey) -> Vec<String> {
    let fault = |(name, check): &(&str, Check)| {
        let why = check(survey).err()?;
        Some(format!("{name}: {why}"))
    };
    CHECKS.iter().filter_map(fault).collect()
}
