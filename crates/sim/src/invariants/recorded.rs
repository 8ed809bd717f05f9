//! The guardians keep the same record, all of it, and it says what is the case.
//!
//! The record of an app is on the three members that rank highest, in both of its versions
//! (`docs/protocols/placing.md`, records), and nowhere else once they have it. An object in it that
//! its host does not have is a ghost: supervision would count on it.

use std::collections::BTreeSet;

use wire::id::{AppId, NodeId, ObjectId};
use wire::peer::AppRecord;

use super::survey::Survey;
use crate::world::MachineId;

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    agree(survey)?;
    are_kept_by_guardians(survey)?;
    have_no_ghosts(survey)
}

fn agree(survey: &Survey) -> Result<(), String> {
    for name in survey.expected.apps.keys() {
        let app = AppId::of_name(name);
        // Until a guardian that is away comes back, others keep what it may not have.
        let is_whole = survey.expected.up == survey.expected.members;
        let is_keeper = |machine: MachineId| {
            let who = survey.name(machine);
            let mut described = survey.described(name);
            is_whole || described.any(|(_, it)| it.guardians.iter().any(|it| it == who))
        };
        let mut of_it = survey
            .records
            .iter()
            .filter(|(machine, it)| it.app == app && is_keeper(*machine));
        let Some((first, one)) = of_it.next() else {
            continue;
        };
        for (machine, other) in of_it {
            let (by, who) = (survey.name(*first), survey.name(*machine));
            if one.wanted.version != other.wanted.version {
                return Err(format!("{by} and {who} keep different wishes of {name}"));
            }
            if survey.is_in_flux(name) {
                continue;
            }
            if one.version != other.version {
                return Err(format!(
                    "{by} and {who} keep {name} as it was at different times"
                ));
            }
            // That an object runs is not written again: hosts know, and say so.
            let ids = |it: &AppRecord| -> BTreeSet<ObjectId> {
                it.objects.iter().map(|object| object.object).collect()
            };
            if ids(one) != ids(other) {
                return Err(format!("{by} and {who} keep different objects of {name}"));
            }
        }
    }
    Ok(())
}

fn are_kept_by_guardians(survey: &Survey) -> Result<(), String> {
    if survey.expected.up != survey.expected.members {
        return Ok(());
    }
    for name in survey.expected.apps.keys() {
        let Some((_, inspection)) = survey.described(name).next() else {
            continue;
        };
        let app = AppId::of_name(name);
        let of_it = survey.records.iter().filter(|(_, it)| it.app == app);
        let keepers: BTreeSet<&str> = of_it.map(|(machine, _)| survey.name(*machine)).collect();
        let guardians: BTreeSet<&str> = inspection.guardians.iter().map(String::as_str).collect();
        if keepers != guardians {
            return Err(format!(
                "{keepers:?} keep {name}, and its guardians are {guardians:?}"
            ));
        }
    }
    Ok(())
}

/// Whether objects of it come and go every few seconds.
fn is_scheduled(record: &AppRecord) -> bool {
    let spec = record.wanted.spec.as_ref();
    spec.is_some_and(|spec| spec.schedule.is_some())
}

fn have_no_ghosts(survey: &Survey) -> Result<(), String> {
    let known: BTreeSet<(NodeId, ObjectId)> =
        survey.objects().map(|it| (it.node, it.object)).collect();
    for (machine, record) in &survey.records {
        // What is old is kept for a guardian that is away, and counts no more.
        let is_newer = |it: &AppRecord| {
            it.version > record.version || it.wanted.version > record.wanted.version
        };
        let mut others = survey.records.iter().map(|(_, it)| it);
        if others.any(|it| it.app == record.app && is_newer(it)) || is_scheduled(record) {
            continue;
        }
        for it in &record.objects {
            let who = survey.name(*machine);
            let what = format!("{}/{} ({})", it.app_name, it.index, it.object.short());
            let host = it.node.short();
            if !survey.expected.members.contains(&it.node) && it.phase.is_alive() {
                return Err(format!(
                    "{who} keeps {what} living on {host}, which was removed"
                ));
            }
            if survey.expected.up.contains(&it.node) && !known.contains(&(it.node, it.object)) {
                return Err(format!(
                    "{who} keeps {what} on {host}, which does not have it"
                ));
            }
        }
    }
    Ok(())
}
