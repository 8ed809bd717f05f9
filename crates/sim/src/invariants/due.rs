//! What is due runs.
//!
//! Some time after a heal an app with a schedule that is not stopped has its next run before it,
//! and the last one has an object (`docs/protocols/jobs.md`): unless no node can take it, or it
//! waits for others, or it is said what is in the way. Where clocks were set, nobody can say what
//! is due.

use std::time::Duration;

use super::acknowledged::agreed;
use super::survey::{Kind, Survey, Wish};

/// How long what is due may take to begin, and clocks that nobody has set may differ.
const LATE_MAX: Duration = Duration::from_secs(15);

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    for name in survey.expected.apps.keys() {
        let wish = agreed(survey, name);
        let is_timed = matches!(
            wish,
            Some(Wish::Present {
                stopped: false,
                kind: Kind::Timed,
                ..
            })
        );
        if !is_timed || !survey.expected.is_steady {
            continue;
        }
        let late_ms = u64::try_from(LATE_MAX.as_millis()).unwrap_or(u64::MAX);
        let is_late = |due: wire::id::UnixMillis| due.0 + late_ms < survey.wall.0;
        for (machine, inspection) in survey.described(name) {
            let who = survey.name(machine);
            if inspection.next.is_none_or(is_late) {
                let next = inspection.next;
                return Err(format!("{who} says that {name} is due: {next:?}"));
            }
            let is_excused = inspection.trouble.is_some() || inspection.waiting.is_some();
            let last = inspection.runs.first();
            if let Some(run) = last.filter(|run| run.attempt.is_none() && is_late(run.due))
                && !is_excused
            {
                let number = run.number;
                return Err(format!(
                    "{who} says that run {number} of {name} has no place"
                ));
            }
        }
    }
    Ok(())
}
