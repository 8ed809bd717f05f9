use alloc::format;
use alloc::string::String;
use alloc::vec;

use expect_test::{Expect, expect};
use wire::fact::{Exit, ExitReason};
use wire::id::{AppId, ObjectId};

use super::super::tests::{lines, node_id, reach, record};
use super::*;

const NOW: UnixMillis = UnixMillis(1_000_000);

/// An app that runs every minute. `objects` are `(NODE, RUN, PHASE)`, which are as old as they are
/// far to the left, and have ended with 0 when they have ended.
fn job(restart: Restart, runs: u64, objects: &[(char, u64, Phase)]) -> AppRecord {
    let slots: Vec<_> = (0_u64..)
        .zip(objects)
        .map(|(age, (node, _, phase))| (*node, 0, *phase, age))
        .collect();
    let mut record = record(restart, 1, &slots);
    if let Some(spec) = &mut record.wanted.spec {
        spec.schedule = Some(Schedule::Every {
            interval_ms: 60_000,
        });
    }
    for _ in 0..runs {
        begin(&mut record, NOW, NOW);
    }
    for (facts, (_, run, phase)) in record.objects.iter_mut().zip(objects) {
        facts.run = *run;
        facts.last_exit = (!phase.is_alive()).then_some(exit(ExitReason::Code(0), false));
    }
    let objects = record.objects.clone();
    for facts in objects {
        note(&mut record, &facts);
    }
    record
}

fn exit(reason: ExitReason, asked: bool) -> Exit {
    Exit {
        reason,
        at: NOW,
        asked,
    }
}

/// What is to be done, and whether the next run may begin.
fn check(record: &AppRecord, expect: Expect) {
    let steps = super::super::plan(record, reach, &Known::default());
    let over = if is_over(record, reach) {
        "over"
    } else {
        "goes on"
    };
    let mut words = lines(&steps);
    words.push(over.into());
    expect.assert_eq(&words.join("; "));
}

#[test]
fn nothing_runs_before_its_time_and_one_object_then() {
    check(&job(Restart::No, 0, &[]), expect!["over"]);
    check(&job(Restart::No, 1, &[]), expect!["place 0; goes on"]);
    check(
        &job(Restart::No, 1, &[('a', 1, Phase::Starting)]),
        expect!["goes on"],
    );
    check(
        &job(Restart::No, 1, &[('a', 1, Phase::Ended)]),
        expect!["over"],
    );
    check(
        &job(Restart::No, 1, &[('a', 1, Phase::Failed)]),
        expect!["over"],
    );
}

#[test]
fn what_a_former_run_left_goes_once_there_is_something_newer() {
    let former = ('a', 1, Phase::Ended);
    check(&job(Restart::No, 2, &[former]), expect!["place 0; goes on"]);
    check(
        &job(Restart::No, 2, &[former, ('b', 2, Phase::Starting)]),
        expect!["retire 0: a newer run has begun; goes on"],
    );
}

/// A run that was lost with its node, and came back with it, ran beside the next one.
#[test]
fn a_former_run_that_comes_back_ends_before_the_next_is_placed() {
    check(
        &job(Restart::No, 2, &[('a', 1, Phase::Running)]),
        expect!["retire 0: a newer run has begun; goes on"],
    );
    check(
        &job(Restart::No, 2, &[('a', 1, Phase::Stopping)]),
        expect!["goes on"],
    );
    check(
        &job(
            Restart::No,
            2,
            &[('a', 1, Phase::Running), ('b', 2, Phase::Running)],
        ),
        expect!["retire 0: a newer run has begun; goes on"],
    );
}

#[test]
fn a_run_that_is_lost_with_its_node_is_over_or_tried_again() {
    let retried = Restart::OnFailure { retries_max: None };
    for lost in ['L', 'R'] {
        check(
            &job(Restart::No, 1, &[(lost, 1, Phase::Running)]),
            expect!["over"],
        );
        check(
            &job(retried, 1, &[(lost, 1, Phase::Running)]),
            expect!["place 0; goes on"],
        );
        check(
            &job(retried, 1, &[(lost, 1, Phase::Ended)]),
            expect!["over"],
        );
    }
    // The older one of two comes back.
    check(
        &job(
            retried,
            1,
            &[('a', 1, Phase::Running), ('b', 1, Phase::Running)],
        ),
        expect!["retire 1: surplus; goes on"],
    );
    // Nobody knows its object any more.
    for (restart, expected) in [(Restart::No, "over"), (retried, "goes on")] {
        let mut gone = job(restart, 1, &[('a', 1, Phase::Running)]);
        gone.objects.clear();
        let over = if is_over(&gone, reach) {
            "over"
        } else {
            "goes on"
        };
        assert_eq!(over, expected);
    }
}

#[test]
fn a_run_leaves_a_draining_node_only_if_it_is_tried_again() {
    let retried = Restart::OnFailure {
        retries_max: Some(1),
    };
    check(
        &job(Restart::No, 1, &[('D', 1, Phase::Running)]),
        expect!["goes on"],
    );
    let mut leaving = job(retried, 1, &[('D', 1, Phase::Running)]);
    check(&leaving, expect!["retire 0: its node drains; goes on"]);
    // It was asked to end, and is gone.
    let mut facts = leaving.objects.pop().expect("it was there");
    facts.phase = Phase::Ended;
    facts.last_exit = Some(exit(ExitReason::Signal(15), true));
    assert_eq!(note(&mut leaving, &facts), Some(News::Ended));
    check(&leaving, expect!["place 0; goes on"]);
}

#[test]
fn an_app_that_is_stopped_or_removed_ends_its_run() {
    let mut stopped = job(Restart::No, 1, &[('a', 1, Phase::Running)]);
    stopped.wanted.stopped = true;
    check(&stopped, expect!["stop 0; goes on"]);
    let mut removed = job(Restart::No, 1, &[('a', 1, Phase::Running)]);
    removed.wanted.spec = None;
    let steps = super::super::plan(&removed, reach, &Known::default());
    assert_eq!(lines(&steps), ["retire 0: the app was removed"]);
}

#[test]
fn an_app_that_removes_itself_waits_for_its_last_run() {
    let mut once = job(Restart::No, 1, &[('a', 1, Phase::Ended)]);
    if let Some(spec) = &mut once.wanted.spec {
        spec.remove_when_done = true;
        spec.schedule = Some(Schedule::At { at: NOW });
    }
    check(&once, expect!["forget; over"]);
    // Somebody ran it before its time.
    let later = UnixMillis(NOW.0 + 1);
    if let Some(spec) = &mut once.wanted.spec {
        spec.schedule = Some(Schedule::At { at: later });
    }
    check(&once, expect!["over"]);
}

#[test]
fn what_changes_counts_from_the_next_run_on() {
    let mut changed = job(Restart::No, 1, &[('a', 1, Phase::Running)]);
    changed.wanted.revised.millis += 1;
    check(&changed, expect!["settle; goes on"]);
    assert!(!super::super::is_updating(&changed, reach));
}

#[test]
fn a_run_remembers_how_it_ended_and_what_was_skipped() {
    let mut record = job(Restart::No, 0, &[]);
    assert_eq!(skip(&mut record, NOW), None, "there is none");
    let story: Vec<String> = (1..=10)
        .map(|number| {
            begin(&mut record, NOW, UnixMillis(NOW.0 + number));
            assert_eq!(
                skip(&mut record, UnixMillis(NOW.0 + 100 * number)),
                Some(number)
            );
            format!("{} of {}", current(&record), runs(&record).len())
        })
        .collect();
    assert_eq!(story[0], "1 of 1");
    assert_eq!(story[9], "10 of 8", "the record does not grow");
    let last = runs(&record).last().expect("ten have begun");
    assert_eq!((last.skipped, last.heeded), (1, UnixMillis(NOW.0 + 1000)));
}

/// The record of all guardians was lost; an object tells its host's reports.
#[test]
fn a_run_that_the_record_has_lost_is_known_by_its_object() {
    let mut record = job(Restart::No, 0, &[('a', 7, Phase::Running)]);
    assert_eq!(current(&record), 7);
    check(&record, expect!["goes on"]);
    begin(&mut record, NOW, NOW);
    assert_eq!(current(&record), 8);
}

#[test]
fn the_runs_of_another_app_of_the_name_are_not_its_own() {
    let mut record = job(Restart::No, 3, &[]);
    record.wanted.born.millis += 1;
    assert_eq!(runs(&record), []);
    begin(&mut record, NOW, NOW);
    assert_eq!(current(&record), 1);
    // The wish of the older app won; what is known of the younger is not lost.
    record.wanted.born.millis -= 1;
    begin(&mut record, NOW, NOW);
    assert_eq!(runs(&record), []);
    assert_eq!(record.job.runs.len(), 1);
}

/// What came to its own end tells more than what was ended because there were two.
#[test]
fn of_two_objects_of_a_run_the_better_story_is_kept() {
    let retried = Restart::OnFailure { retries_max: None };
    let mut record = job(
        retried,
        1,
        &[('L', 1, Phase::Running), ('b', 1, Phase::Ended)],
    );
    let mut late = record.objects[0].clone();
    late.phase = Phase::Ended;
    late.last_exit = Some(Exit {
        at: UnixMillis(NOW.0 + 1),
        ..exit(ExitReason::Signal(15), true)
    });
    assert_eq!(note(&mut record, &late), None);
    let attempt = runs(&record)[0].attempt.clone().expect("it was noted");
    assert_eq!(
        (attempt.node, attempt.object),
        (node_id('b'), ObjectId([1; 16]))
    );
    assert_eq!(record.app, AppId::of_name("web"));
    assert_eq!(vec![attempt.exit], [Some(exit(ExitReason::Code(0), false))]);
}
