//! What can be known to be wrong with a specification before anybody is asked.

use alloc::string::{String, ToString};

use wire::call::{Problem, ProblemCode};
use wire::health::Health;
use wire::spec::{
    AFTER_MAX, AppSpec, DEADLINE_MS_RANGE, ONCE_REPLICAS_MAX, OnPartition, REPLICAS_MAX, Restart,
    TAKEOVER_MS_RANGE, check_name,
};

use crate::schedule;

/// What can be known to be wrong with a specification before anybody is asked.
pub(crate) fn check_spec(spec: &AppSpec) -> Result<(), Problem> {
    let invalid = |detail: String| Err(Problem::new(ProblemCode::Invalid, detail));
    if let Err(error) = check_name(&spec.name) {
        return invalid(alloc::format!("`{}` cannot be a name: {error}", spec.name));
    }
    if spec.program.arguments.first().is_none_or(String::is_empty) {
        return Err(
            Problem::new(ProblemCode::Invalid, "there is no program to run")
                .remedy("write it after --: welkin run -- sh -c 'echo hello'"),
        );
    }
    if spec.replicas > REPLICAS_MAX {
        return invalid(alloc::format!("an app has at most {REPLICAS_MAX} objects"));
    }
    if let OnPartition::Once { takeover_ms } = spec.on_partition {
        if spec.replicas > ONCE_REPLICAS_MAX {
            return invalid(alloc::format!(
                "an app that never runs twice has at most {ONCE_REPLICAS_MAX} objects"
            ));
        }
        if !TAKEOVER_MS_RANGE.contains(&takeover_ms) {
            return invalid(alloc::format!(
                "another object takes over within {} s to {} min, not within {takeover_ms} ms",
                TAKEOVER_MS_RANGE.start() / 1000,
                TAKEOVER_MS_RANGE.end() / 60_000,
            ));
        }
    }
    if let Some((name, _)) = spec
        .ports
        .iter()
        .find(|(name, port)| check_name(name).is_err() || **port == 0)
    {
        return invalid(alloc::format!(
            "`{name}` is not a named port: write for example http=8000"
        ));
    }
    let has_nul = |text: &String| text.contains('\0');
    let environment = spec.program.environment.iter();
    if spec.program.arguments.iter().any(has_nul)
        || environment
            .clone()
            .any(|(key, value)| has_nul(key) || has_nul(value))
    {
        return invalid("arguments and environment cannot hold NUL bytes".to_string());
    }
    if let Some((key, _)) = environment
        .clone()
        .find(|(key, _)| key.is_empty() || key.contains('='))
    {
        return invalid(alloc::format!(
            "`{key}` cannot be the name of an environment variable"
        ));
    }
    if let Some(fault) = spec.health.as_deref().and_then(Health::fault) {
        return invalid(fault);
    }
    check_after(spec)?;
    check_schedule(spec)?;
    check_deadline(spec)?;
    if spec.resources.processes == 0 {
        return invalid("an object needs at least one process".to_string());
    }
    Ok(())
}

fn check_after(spec: &AppSpec) -> Result<(), Problem> {
    let invalid = |detail: String| Err(Problem::new(ProblemCode::Invalid, detail));
    let name = &spec.name;
    if spec.after.contains(name) {
        return invalid(alloc::format!("{name} cannot come after itself"));
    }
    if spec.after.len() > AFTER_MAX {
        return invalid(alloc::format!(
            "an app comes after at most {AFTER_MAX} others"
        ));
    }
    match spec.after.iter().find(|it| check_name(it).is_err()) {
        Some(other) => invalid(alloc::format!("no app can be called `{other}`")),
        None => Ok(()),
    }
}

fn check_deadline(spec: &AppSpec) -> Result<(), Problem> {
    let within = |deadline_ms: &u64| DEADLINE_MS_RANGE.contains(deadline_ms);
    match spec.deadline_ms.filter(|it| !within(it)) {
        None => Ok(()),
        Some(deadline_ms) => Err(Problem::new(
            ProblemCode::Invalid,
            alloc::format!(
                "a deadline is 1 s to {} days after the start, not {deadline_ms} ms: write for \
                 example 30s or 1h",
                DEADLINE_MS_RANGE.end() / 86_400_000,
            ),
        )),
    }
}

/// An app with a schedule runs, ends, and runs again: one object at a time.
fn check_schedule(spec: &AppSpec) -> Result<(), Problem> {
    let Some(schedule) = &spec.schedule else {
        return Ok(());
    };
    let refused =
        |detail: &str, remedy: &str| Err(Problem::new(ProblemCode::Invalid, detail).remedy(remedy));
    if let Some(fault) = schedule::fault(schedule) {
        return Err(Problem::new(ProblemCode::Invalid, fault));
    }
    if spec.replicas != 1 {
        return refused(
            "an app with a schedule has one object, a new one for each run",
            "leave --replicas out; for more at the same time make more apps",
        );
    }
    if spec.restart == Restart::Always {
        return refused(
            "each run of an app with a schedule is to end, but --restart always never lets it",
            "write --restart on-failure, or leave it out",
        );
    }
    if spec.remove_when_done && schedule.recurs() {
        return refused(
            "an app that runs again and again is never done",
            "leave --rm out, or run it --at one time",
        );
    }
    Ok(())
}
