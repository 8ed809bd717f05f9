//! Every app is kept by as many guardians as there are to be.
//!
//! Three guardians survive one loss with two copies left (`kernel::limits::GUARDIANS`); records are
//! copied again when a guardian comes, goes or comes back. So the newest wish of every app is
//! durable on three members that are up, or on all when there are fewer.

use kernel::limits::GUARDIANS;

use super::acknowledged::agreed;
use super::survey::{Survey, Wish};

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    for name in survey.expected.apps.keys() {
        if matches!(agreed(survey, name), None | Some(Wish::Absent)) {
            continue;
        }
        let app = wire::id::AppId::of_name(name);
        let of_it = survey.records.iter().filter(|(_, it)| it.app == app);
        let newest = of_it.clone().map(|(_, it)| it.wanted.version).max();
        let keepers: Vec<&str> = of_it
            .filter(|(_, it)| Some(it.wanted.version) == newest)
            .map(|(machine, _)| survey.name(*machine))
            .collect();
        let away = survey.expected.members.len() - survey.expected.up.len();
        let wanted = GUARDIANS
            .min(survey.expected.members.len())
            .saturating_sub(away);
        if keepers.len() < wanted {
            return Err(format!("only {keepers:?} keep {name}"));
        }
    }
    Ok(())
}
