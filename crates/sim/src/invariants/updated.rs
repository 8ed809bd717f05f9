//! Objects run what was wished last.
//!
//! What runs something older is replaced (`docs/protocols/placing.md`, *Changing what objects
//! run*). Some time after a heal all of them are, unless something is said to be in the way: a newer
//! object without a place. Only programs that stay up are looked at: a change to another goes no
//! further.

use wire::id::Version;

use super::acknowledged::agreed;
use super::survey::{Kind, Survey, Wish};

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    for name in survey.expected.apps.keys() {
        let Some(Wish::Present {
            stopped: false,
            kind,
            ..
        }) = agreed(survey, name)
        else {
            continue;
        };
        // A run that goes on is not disturbed.
        if kind == Kind::Timed {
            continue;
        }
        let Some((_, inspection)) = survey.described(name).next() else {
            continue;
        };
        let program = inspection.spec.program.arguments.first();
        let stays_up = program.is_some_and(|word| word == "serve" || word == "deaf");
        if !stays_up || inspection.trouble.is_some() {
            continue;
        }
        let newest = newest(survey, name);
        let older = survey
            .objects()
            .find(|it| it.app_name == *name && it.phase.is_alive() && Some(it.revised) != newest);
        if let Some(older) = older {
            let (index, id) = (older.index, older.object.short());
            return Err(format!("{name}/{index} {id} runs something older"));
        }
    }
    Ok(())
}

/// Since which wish objects run what is wished now.
fn newest(survey: &Survey, name: &str) -> Option<Version> {
    let wishes = survey.records.iter().map(|(_, record)| &record.wanted);
    let own = wishes.filter(|it| it.spec.as_ref().is_some_and(|spec| spec.name == name));
    own.max_by_key(|it| it.version).map(|it| it.revised)
}
