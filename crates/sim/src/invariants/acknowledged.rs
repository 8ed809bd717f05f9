//! Nothing acknowledged is lost, and everybody agrees on it.
//!
//! Nothing is said before it is durable (`DESIGN.md` section 2 rule 2), and a promise about an app
//! is durable on two guardians as far as two are up (`kernel::limits::GUARDIAN_WRITES`). So what
//! `run`, `scale`, `stop`, `start` and `rm` were answered is the case after any crash and heal, and
//! any node says the same of it.

use super::survey::{Survey, Wish};

pub(super) fn check(survey: &Survey) -> Result<(), String> {
    for (name, wishes) in &survey.expected.apps {
        let mut first: Option<(Wish, &str)> = None;
        for ((machine, _), inspection) in survey
            .inspections
            .iter()
            .filter(|((_, app), _)| app == name)
        {
            let who = survey.name(*machine);
            let inspection = match inspection {
                Ok(inspection) => inspection,
                Err(why) => return Err(format!("{who} cannot say what {name} is: {why}")),
            };
            let found = Wish::of(inspection.as_ref());
            if !wishes.contains(&found) {
                return Err(format!(
                    "{who} says that {name} is {found:?}; it can only be one of {wishes:?}"
                ));
            }
            match &first {
                None => first = Some((found, who)),
                Some((other, by)) if *other != found => {
                    return Err(format!("{name} is {other:?} for {by}, {found:?} for {who}"));
                }
                Some(_) => {}
            }
        }
    }
    Ok(())
}

/// What everybody agrees that an app is.
pub(super) fn agreed(survey: &Survey, name: &str) -> Option<Wish> {
    let inspections = survey.inspections.iter();
    let mut of_it = inspections.filter(|((_, app), _)| app == name);
    let (_, inspection) = of_it.next()?;
    Some(Wish::of(inspection.as_ref().ok()?.as_ref()))
}
