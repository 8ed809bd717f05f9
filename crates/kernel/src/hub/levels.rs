//! Nodes of several programs in one cloud: what is asked only where all of them know it.
//!
//! A node says with its facts what its program knows ([`wire::LEVEL`]). An older one would leave
//! out of a specification what it does not know, and carry out the rest: an app that is to wait
//! would start at once. So what needs a level is refused, with a name, while a member that answers
//! has a lower one. A member that is away may come back with an older program; by then the wish is
//! made, and that program does what it knows of it.

use wire::call::{Problem, ProblemCode};
use wire::spec::AppSpec;

use super::Kernel;

/// The level from which on apps can come after others.
const START_ORDER: u32 = 2;
/// The level from which on apps can have a schedule.
const SCHEDULES: u32 = 2;
/// The level from which on programs can have a deadline.
const DEADLINES: u32 = 2;

impl Kernel {
    /// Whether every member that answers knows all that a specification says.
    pub(crate) fn check_all_know(&self, spec: &AppSpec) -> Result<(), Problem> {
        needs(spec).try_for_each(|(level, what)| self.check_level(level, what))
    }

    fn check_level(&self, level: u32, what: &str) -> Result<(), Problem> {
        let older = self.auth.members().find(|node| {
            let facts = self.measurement.get(*node);
            self.is_reachable(*node) && facts.is_some_and(|it| it.level < level)
        });
        let Some(older) = older else {
            return Ok(());
        };
        let name = self.measurement.name(older);
        let detail = alloc::format!(
            "node {name} runs an older Welkin, which does not know that apps can {what}"
        );
        let problem = Problem::new(ProblemCode::Conflict, detail);
        Err(problem.remedy(alloc::format!(
            "update {name} first: replace its program and restart it"
        )))
    }
}

/// What a specification says that not every program knows, and from which level on they do.
fn needs(spec: &AppSpec) -> impl Iterator<Item = (u32, &'static str)> {
    let all = [
        (!spec.after.is_empty()).then_some((START_ORDER, "come after others")),
        spec.schedule
            .as_ref()
            .map(|_| (SCHEDULES, "have a schedule")),
        spec.deadline_ms.map(|_| (DEADLINES, "have a deadline")),
    ];
    all.into_iter().flatten()
}
