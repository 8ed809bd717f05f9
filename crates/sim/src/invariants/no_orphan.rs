//! Every living object belongs to a living app.
//!
//! An object that nobody supervises would hold its resources for ever. So what truly runs on a
//! member is a slot of an app that exists, and is what the cloud lists.

use super::acknowledged::agreed;
use super::survey::{Survey, Wish};

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    for it in &survey.running {
        let (app, index) = (&it.app, it.index);
        let on = survey.name(it.machine);
        match agreed(survey, app) {
            Some(Wish::Absent) => return Err(format!("{app}/{index} runs on {on} for no app")),
            Some(Wish::Present { replicas, .. }) if index >= replicas => {
                return Err(format!("{app}/{index} runs on {on}, of {replicas}"));
            }
            Some(Wish::Present { .. }) => {}
            None => return Err(format!("{app}/{index} runs on {on} for an unknown app")),
        }
    }
    for (machine, apps) in &survey.apps {
        let who = survey.name(*machine);
        let Some(apps) = apps else {
            return Err(format!("{who} does not say which apps there are"));
        };
        if !apps.unanswered.is_empty() {
            return Err(format!("{who} gets no answer from {:?}", apps.unanswered));
        }
        for it in &survey.running {
            let listed = apps.objects.iter().any(|facts| facts.object == it.object);
            if !listed && !survey.is_in_flux(&it.app) {
                let (app, index) = (&it.app, it.index);
                return Err(format!("{who} does not list {app}/{index}"));
            }
        }
    }
    Ok(())
}
