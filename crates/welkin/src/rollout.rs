//! Making an app as it is specified, from the difference that is shown to the word that it is done.

use std::time::Duration;

use client::CallError;
use wire::call::{Applied, Apply, Change, Expected, Inspect, Inspection, ProblemCode};
use wire::fact::{ObjectFacts, Phase};
use wire::health::HealthState;
use wire::spec::{AppSpec, Restart};

use crate::appfile::{self, Field};
use crate::context::Context;
use crate::failure::Failure;
use crate::output::human;
use crate::{output, progress};

/// How often it is asked how far a change is.
const LOOK: Duration = Duration::from_millis(250);
/// How many answers may be missing one after the other while another node takes over.
const SILENCES_MAX: u32 = 80;

/// Flags of verbs that change apps.
#[derive(Debug, Clone, Copy, Default, clap::Args)]
pub(crate) struct Manner {
    /// Show what would be changed, and change nothing; exit with 1 when something would be.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Return once it is written; objects follow.
    #[arg(short, long, conflicts_with = "dry_run")]
    detach: bool,
    /// Keep what does not come up, to look at it, instead of going back to what ran before.
    #[arg(long)]
    no_rollback: bool,
}

/// An app as it is, if there is one.
pub(crate) async fn find(context: &Context, name: &str) -> Result<Option<Inspection>, Failure> {
    let target = name.to_owned();
    match context.client.call(Inspect { target }).await {
        Ok(found) => Ok(Some(found)),
        Err(CallError::Problem(problem)) if problem.code == ProblemCode::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Makes an app so, or shows what that would change; says whether anything is or would be changed.
pub(crate) async fn make(
    context: &Context,
    found: Option<&Inspection>,
    spec: &AppSpec,
    manner: Manner,
) -> Result<bool, Failure> {
    let differs = found.is_none_or(|found| found.spec != *spec);
    if manner.dry_run {
        if differs {
            output::write(plan(found, spec).as_bytes())?;
        }
        return Ok(differs);
    }
    let apply = Apply {
        spec: spec.clone().into(),
        expected: found.map_or(Expected::Absent, |it| Expected::Version(it.version)),
        roll_back: !manner.no_rollback,
    };
    let asking = context.client.call(apply);
    let applied = progress::shown(context.screen, "writing", asking).await?;
    if applied.change != Change::Unchanged && !manner.detach {
        follow(context, &applied, !manner.no_rollback).await?;
    }
    let change = match applied.change {
        Change::Created => "created",
        Change::Changed => "changed",
        Change::Unchanged => "unchanged",
    };
    output::line(&format!("{} {change}", spec.name))?;
    Ok(differs)
}

/// What would be changed, a line each, and what becomes of objects.
fn plan(found: Option<&Inspection>, spec: &AppSpec) -> String {
    let old = found.map(|found| appfile::fields(&found.spec));
    let new = appfile::fields(spec);
    let title = if old.is_some() { "changes" } else { "is new" };
    let mut text = format!("{} {title}\n", spec.name);
    let old = old.unwrap_or_default();
    let of = |fields: &[Field], key: &str| fields.iter().find(|it| it.key == key).cloned();
    let gone = old.iter().filter(|field| of(&new, &field.key).is_none());
    for field in new.iter().chain(gone) {
        let before = of(&old, &field.key);
        let after = of(&new, &field.key);
        let is_shown =
            before != after && field.key != "name" && (!old.is_empty() || !field.is_default);
        if is_shown {
            let word = |field: Option<Field>| field.map_or_else(nothing, |it| shown(&it));
            text.push_str(&match &old[..] {
                [] => format!("  {}: {}\n", field.key, word(after)),
                _ => format!("  {}: {} → {}\n", field.key, word(before), word(after)),
            });
        }
    }
    text.push_str(&format!("  objects: {}\n", consequences(found, spec)));
    text
}

fn nothing() -> String {
    "nothing".to_owned()
}

fn shown(field: &Field) -> String {
    match field.text() {
        text if text.is_empty() && field.is_default => nothing(),
        text => text,
    }
}

/// What becomes of the objects of an app.
fn consequences(found: Option<&Inspection>, spec: &AppSpec) -> String {
    if spec.schedule.is_some() {
        return "a new one for each run, from the next one on".to_owned();
    }
    let Some(found) = found else {
        return format!("{} started", spec.replicas);
    };
    if found.stopped {
        return format!("none runs until welkin start {}", spec.name);
    }
    let (had, has) = (found.spec.replicas, spec.replicas);
    let fate = if found.spec.runs_like(spec) {
        "kept"
    } else {
        "replaced one after the other"
    };
    let parts = [
        (had.min(has), fate),
        (has.saturating_sub(had), "added"),
        (had.saturating_sub(has), "retired"),
    ];
    let parts = parts.iter().filter(|(count, _)| *count > 0);
    let parts: Vec<String> = parts
        .map(|(count, fate)| format!("{count} {fate}"))
        .collect();
    if parts.is_empty() {
        "none".to_owned()
    } else {
        parts.join(", ")
    }
}

/// Waits until all objects are as they should be, and tells how far they are.
async fn follow(context: &Context, applied: &Applied, rolls_back: bool) -> Result<(), Failure> {
    let name = &applied.name;
    let mut told = String::new();
    let mut silences = 0;
    loop {
        match find(context, name).await {
            Ok(None) => {
                let detail = format!("somebody else has removed {name} meanwhile");
                return Err(Failure::new(detail).remedy("welkin ps -a"));
            }
            Ok(Some(found)) => {
                silences = 0;
                match stage(applied, &found, rolls_back) {
                    Stage::Done => return Ok(()),
                    Stage::Waits(why) => {
                        output::say(&format!("{name} is {why}; welkin explain {name}"));
                        return Ok(());
                    }
                    Stage::Failed(failure) => return Err(failure),
                    Stage::Under(way) => {
                        if way != told {
                            output::say(&way);
                            told = way;
                        }
                    }
                }
            }
            Err(failure) if silences >= SILENCES_MAX => return Err(failure),
            Err(_another_takes_over) => silences += 1,
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How far a change is.
#[derive(Debug, PartialEq, Eq)]
enum Stage {
    /// Everything is as it should be.
    Done,
    /// It will be, once other apps have come up.
    Waits(String),
    /// It will not be.
    Failed(Failure),
    /// In words.
    Under(String),
}

fn stage(applied: &Applied, found: &Inspection, rolls_back: bool) -> Stage {
    let name = &applied.name;
    if found.version != applied.version {
        return Stage::Failed(overtaken(name, found));
    }
    // What runs by a schedule comes up when it is due.
    if found.stopped || found.spec.schedule.is_some() {
        return Stage::Done;
    }
    if let Some(why) = &found.waiting {
        return Stage::Waits(why.clone());
    }
    let wanted = human::count(found.spec.replicas, "object");
    if let Some(update) = &found.update {
        // What is undone is seen by its version.
        if let Some(why) = update.failed.as_ref().filter(|_| !rolls_back) {
            let detail = format!("the update of {name} goes no further: {why}");
            let remedy = format!("welkin logs {name}; welkin update --rollback {name}");
            return Stage::Failed(Failure::new(detail).remedy(remedy));
        }
        return Stage::Under(format!("{name}: {} of {wanted} updated", update.updated));
    }
    if let Some(why) = &found.trouble {
        let detail = format!("{name}: {why}");
        return Stage::Failed(Failure::new(detail).remedy(format!("welkin explain {name}")));
    }
    let of = |index: u32| found.objects.iter().filter(move |it| it.index == index);
    let ready = (0..found.spec.replicas).filter(|index| of(*index).any(has_come_up));
    let ready = ready.count();
    if u32::try_from(ready) == Ok(found.spec.replicas) {
        return Stage::Done;
    }
    let fails = |it: &&ObjectFacts| {
        it.phase == Phase::Failed || (it.phase == Phase::Waiting && it.last_exit.is_some())
    };
    let ill = found.objects.iter().find_map(|it| match &it.health {
        Some(HealthState::Unhealthy { why }) if it.phase == Phase::Running => Some((it, why)),
        Some(_) | None => None,
    });
    if let Some((it, why)) = ill {
        let detail = format!("{name}/{} is unhealthy: {why}", it.index);
        return Stage::Failed(Failure::new(detail).remedy(format!("welkin logs {name}")));
    }
    let failing = found.objects.iter().find(fails);
    if let Some((it, exit)) = failing.and_then(|it| Some((it, it.last_exit.as_ref()?))) {
        let detail = format!(
            "{name}/{} {}; the cloud goes on with it",
            it.index, exit.reason
        );
        return Stage::Failed(Failure::new(detail).remedy(format!("welkin logs {name}")));
    }
    Stage::Under(format!("{name}: {ready} of {wanted} up"))
}

/// It runs, or has done what it should.
fn has_come_up(facts: &ObjectFacts) -> bool {
    facts.serves() || (facts.phase == Phase::Ended && facts.restart != Restart::Always)
}

/// The app is not what was made of it any more.
fn overtaken(name: &str, found: &Inspection) -> Failure {
    match &found.undone {
        Some(why) => {
            let detail = format!("the update of {name} was undone: {why}");
            let remedy = "the same with --no-rollback, to look at what does not come up";
            Failure::new(detail).remedy(remedy)
        }
        None => {
            let detail = format!("somebody else has changed {name} meanwhile");
            Failure::new(detail).remedy(format!("welkin inspect {name}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verb::ps::tests::object;
    use expect_test::{Expect, expect};
    use wire::call::Update;
    use wire::fact::{Exit, ExitReason};
    use wire::id::{AppId, UnixMillis, Version};

    fn spec(text: &str) -> AppSpec {
        let text = format!("name = \"web\"\nrun = [\"serve\"]\n{text}");
        appfile::read(&text).unwrap().remove(0)
    }

    fn found(spec: AppSpec) -> Inspection {
        Inspection {
            app: AppId::of_name("web"),
            objects: vec![object("web", 0, Phase::Running)],
            spec,
            stopped: false,
            guardians: Vec::new(),
            trouble: None,
            version: Version::default(),
            previous: None,
            update: None,
            undone: None,
            waiting: None,
            next: None,
            runs: Vec::new(),
        }
    }

    #[test]
    fn a_plan_says_what_changes_and_what_becomes_of_objects() {
        let old = "replicas = 3\nmemory = \"64M\"\nenv.MODE = \"a\"\n";
        let check = |new: &str, expect: Expect| {
            expect.assert_eq(&plan(Some(&found(spec(old))), &spec(new)));
        };
        check(
            "replicas = 2\nmemory = \"128M\"\nenv.LEVEL = 3\nhost = \"atlas\"\n",
            expect![[r#"
                web changes
                  replicas: 3 → 2
                  memory: 64M → 128M
                  host: nothing → atlas
                  env.LEVEL: nothing → 3
                  env.MODE: a → nothing
                  objects: 2 replaced one after the other, 1 retired
            "#]],
        );
        check(
            "replicas = 5\nmemory = \"64M\"\nenv.MODE = \"a\"\nrestart = \"always\"\n",
            expect![[r#"
                web changes
                  replicas: 3 → 5
                  restart: no → always
                  objects: 3 kept, 2 added
            "#]],
        );
        expect![[r#"
            web is new
              run: ["serve"]
              replicas: 3
              memory: 64M
              env.MODE: a
              objects: 3 started
        "#]]
        .assert_eq(&plan(None, &spec(old)));
        let mut stopped = found(spec(old));
        stopped.stopped = true;
        let objects = consequences(Some(&stopped), &spec("replicas = 9"));
        assert_eq!(objects, "none runs until welkin start web");
    }

    fn check(change: impl FnOnce(&mut Inspection), rolls_back: bool, expect: Expect) {
        let mut found = found(spec(""));
        change(&mut found);
        let applied = Applied {
            app: found.app,
            name: "web".to_owned(),
            change: Change::Changed,
            version: Version::default(),
        };
        let text = match stage(&applied, &found, rolls_back) {
            Stage::Done => "done".to_owned(),
            Stage::Waits(why) => format!("is {why}"),
            Stage::Failed(failure) => format!("{}; try {}", failure.detail, failure.remedy),
            Stage::Under(way) => way,
        };
        expect.assert_eq(&text);
    }

    #[test]
    fn a_change_is_followed_to_its_end() {
        let update = |failed: Option<&str>| {
            Some(Update {
                updated: 0,
                failed: failed.map(str::to_owned),
            })
        };
        check(|_| (), true, expect!["done"]);
        check(
            |it| it.update = update(None),
            true,
            expect!["web: 0 of 1 object updated"],
        );
        check(
            |it| it.update = update(Some("it ended")),
            true,
            expect!["web: 0 of 1 object updated"],
        );
        check(
            |it| it.update = update(Some("it ended")),
            false,
            expect![
                "the update of web goes no further: it ended; try welkin logs web; welkin update --rollback web"
            ],
        );
        let newer = |it: &mut Inspection| it.version.counter = 1;
        check(
            newer,
            true,
            expect!["somebody else has changed web meanwhile; try welkin inspect web"],
        );
        let undone = |it: &mut Inspection| {
            it.version.counter = 1;
            it.undone = Some("web/0 ended with code 3".to_owned());
        };
        check(
            undone,
            true,
            expect![
                "the update of web was undone: web/0 ended with code 3; try the same with --no-rollback, to look at what does not come up"
            ],
        );
        check(
            |it| it.spec.replicas = 2,
            true,
            expect!["web: 1 of 2 objects up"],
        );
        check(
            |it| it.trouble = Some("no node fits: x".to_owned()),
            true,
            expect!["web: no node fits: x; try welkin explain web"],
        );
        let crashes = |it: &mut Inspection| {
            it.objects[0].phase = Phase::Waiting;
            it.objects[0].last_exit = Some(Exit {
                asked: false,
                reason: ExitReason::Code(3),
                at: UnixMillis(0),
            });
        };
        check(
            crashes,
            true,
            expect!["web/0 ended with code 3; the cloud goes on with it; try welkin logs web"],
        );
        check(|it| it.stopped = true, true, expect!["done"]);
        let waits = |it: &mut Inspection| it.waiting = Some("waiting for db".to_owned());
        check(waits, true, expect!["is waiting for db"]);
    }
}
