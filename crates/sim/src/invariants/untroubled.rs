//! Nobody complains without a reason.
//!
//! What `inspect` and `ps` call the trouble of an app is what keeps it from being as it should be.
//! When every slot of it has an object, or there is to be none, there is no trouble. Of what runs
//! only once it cannot be said from outside which slots still wait for a place. As long as an object
//! runs something else than is wished, what is in the way of that is a trouble: also of a change that
//! was undone, and nowhere can what ran before it run again.

use super::acknowledged::agreed;
use super::survey::{Kind, Survey, Wish};
use super::wanted_count::missing;

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    for name in survey.expected.apps.keys() {
        let Some(Wish::Present { kind, replicas, .. }) = agreed(survey, name) else {
            continue;
        };
        // Whether a run of what has a schedule lacks a place changes from moment to moment.
        if !kind.lasts() || kind == Kind::Timed || missing(survey, name).is_some() {
            continue;
        }
        for (machine, inspection) in survey.described(name) {
            let update = inspection.update.as_ref();
            if let Some(trouble) = &inspection.trouble
                && update.is_none_or(|update| update.failed.is_none() && update.updated == replicas)
            {
                let who = survey.name(machine);
                return Err(format!("{who} sees no lack of {name}, and says: {trouble}"));
            }
        }
    }
    Ok(())
}
