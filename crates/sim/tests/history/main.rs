//! What callers hear of an app, whatever node they ask, is as if there were one copy of its wish:
//! `docs/protocols/placing.md`, *What callers see*. `WELKIN_SEED` tells one story more.

mod callers;
mod checker;
mod register;

use std::collections::BTreeMap;

use callers::{Fault, Story, tell};
use checker::{Call, by_stateright, is_linearizable};
use register::{Answer, Op, Wish};
use wire::call::Expected;
use wire::id::Version;

fn story(seed: u64, fault: Fault) -> Story {
    Story {
        seed,
        machines: 4,
        callers: 3,
        calls: 30,
        fault,
    }
}

/// A history in lines, for whoever has to find out why.
fn print(calls: &[Call]) -> String {
    let lines = calls.iter().map(|call| {
        let (asked, op) = (call.asked, call.op);
        match &call.answer {
            Some((answer, at)) => format!("{asked}..{at}: {op:?} -> {answer:?}\n"),
            None => format!("{asked}..: {op:?}\n"),
        }
    });
    lines.collect()
}

fn check(seed: u64, fault: Fault) {
    let calls = tell(story(seed, fault));
    let seen = print(&calls);
    assert!(
        is_linearizable(&calls),
        "{seen}no order of these calls explains what was heard ({fault:?}, seed {seed})"
    );
}

/// What is promised also while nodes disagree about who is up, when two of them may carry out
/// changes of one app: every version is of one wish, and the newest wins. A sentence when not.
fn newest_wins(calls: &[Call]) -> Result<(), String> {
    let mut wishes = BTreeMap::new();
    let mut applied = BTreeMap::new();
    for call in calls {
        match (call.op, call.answer) {
            (Op::Apply { tag, .. }, Some((Answer::Written(Some(version)), _))) => {
                if let Some(other) = applied.insert(version, tag) {
                    return Err(format!("{tag} and {other} have one version"));
                }
            }
            (_, Some((Answer::Found(wish, version), _)))
                if *wishes.entry(version).or_insert(wish) != wish =>
            {
                return Err(format!("{version:?} is of two wishes"));
            }
            _ => {}
        }
    }
    let is_other =
        |(version, tag): &(&Version, &u32)| wishes.get(*version).is_some_and(|it| it.tag != **tag);
    if let Some((_, tag)) = applied.iter().find(is_other) {
        return Err(format!("the version of {tag} is of another wish"));
    }
    let newest = applied.keys().chain(wishes.keys()).max().copied();
    for last in calls.iter().rev().take(callers::LAST_WORDS) {
        match last.answer {
            Some((Answer::Found(_, version), _)) if Some(version) < newest => {
                return Err("what was newer is lost".to_string());
            }
            Some((Answer::Absent, _))
                if newest.is_some() && !calls.iter().any(|call| call.op == Op::Remove) =>
            {
                return Err("nobody has removed the app, and it is gone".to_string());
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_newest(seed: u64, fault: Fault) {
    let calls = tell(story(seed, fault));
    if let Err(why) = newest_wins(&calls) {
        panic!("{}{why} ({fault:?}, seed {seed})", print(&calls));
    }
}

#[test]
fn while_members_are_up_calls_are_as_of_one_copy() {
    (1..=60).for_each(|seed| check(seed, Fault::None));
}

#[test]
fn the_newest_wish_wins_when_daemons_are_killed() {
    (1..=60).for_each(|seed| check_newest(seed, Fault::Daemon));
}

#[test]
fn the_newest_wish_wins_when_machines_lose_their_power() {
    (1..=60).for_each(|seed| check_newest(seed, Fault::Power));
}

#[test]
fn the_seed_from_outside_holds() {
    let seed = std::env::var("WELKIN_SEED").ok();
    if let Some(seed) = seed.and_then(|text| text.parse().ok()) {
        check(seed, Fault::None);
        check_newest(seed, Fault::Daemon);
        check_newest(seed, Fault::Power);
    }
}

/// Two searches that have nothing in common but the register agree about the beginnings of stories,
/// as they were heard and with an answer that is wrong.
#[test]
fn stateright_says_the_same() {
    let mut wrong = 0;
    for seed in 1..=10 {
        let mut calls = tell(Story {
            calls: 10,
            ..story(seed, Fault::None)
        });
        assert_eq!(
            by_stateright(&calls),
            is_linearizable(&calls),
            "seed {seed}"
        );
        let answers = calls.iter_mut().filter_map(|call| call.answer.as_mut());
        for (answer, _) in answers.take(4) {
            *answer = Answer::Absent;
        }
        let is_linearizable = is_linearizable(&calls);
        assert_eq!(by_stateright(&calls), is_linearizable, "seed {seed}");
        wrong += u32::from(!is_linearizable);
    }
    assert!(
        wrong > 0,
        "no answer that was changed was missed by anybody"
    );
}

const FIRST: Version = Version {
    millis: 1,
    counter: 0,
    node: 1,
};
const SECOND: Version = Version {
    millis: 2,
    counter: 0,
    node: 1,
};

fn apply(tag: u32, expected: Expected) -> Op {
    Op::Apply {
        tag,
        replicas: 1,
        expected,
    }
}

fn found(tag: u32, version: Version) -> Answer {
    let wish = Wish {
        tag,
        replicas: 1,
        stopped: false,
    };
    Answer::Found(wish, version)
}

/// What was asked and when, what was answered and when.
type Line = (Op, usize, Option<(Answer, usize)>);

fn holds(calls: &[Line]) -> bool {
    let call = |(op, asked, answer): &Line| Call {
        op: *op,
        asked: *asked,
        answer: *answer,
    };
    let calls: Vec<Call> = calls.iter().map(call).collect();
    let is_linearizable = is_linearizable(&calls);
    assert_eq!(by_stateright(&calls), is_linearizable);
    is_linearizable
}

#[test]
fn an_old_wish_that_is_read_after_a_newer_one_is_found_out() {
    let written = |version| Answer::Written(Some(version));
    let mut calls = vec![
        (apply(1, Expected::Anything), 1, Some((written(FIRST), 2))),
        (apply(2, Expected::Anything), 3, Some((written(SECOND), 6))),
        (Op::Inspect, 4, Some((found(1, FIRST), 5))),
        (Op::Inspect, 7, Some((found(2, SECOND), 8))),
    ];
    assert!(holds(&calls));
    calls[3].2 = Some((found(1, FIRST), 8));
    assert!(!holds(&calls));
    // Nobody was told that it was changed: it may be so, late, or never.
    calls[1].2 = None;
    assert!(holds(&calls));
    calls[2].2 = Some((found(2, SECOND), 5));
    assert!(!holds(&calls));
}

/// Both callers of two changes at once were told the version of the later one: the first could then
/// undo the second, and believed that it was its own.
#[test]
fn two_changes_that_are_told_the_same_version_are_found_out() {
    let written = |version| Some((Answer::Written(Some(version)), 4));
    let mut calls = vec![
        (apply(1, Expected::Anything), 1, written(FIRST)),
        (apply(2, Expected::Anything), 2, written(SECOND)),
    ];
    assert!(holds(&calls));
    calls[0].2 = written(SECOND);
    assert!(!holds(&calls));
}

#[test]
fn two_changes_of_one_version_are_found_out() {
    let written = |version, at| Some((Answer::Written(Some(version)), at));
    let third = Version {
        millis: 3,
        ..SECOND
    };
    let mut calls = vec![
        (apply(1, Expected::Absent), 1, written(FIRST, 2)),
        (apply(2, Expected::Version(FIRST)), 3, written(SECOND, 5)),
        (
            apply(3, Expected::Version(FIRST)),
            4,
            Some((Answer::Refused, 6)),
        ),
    ];
    assert!(holds(&calls));
    calls[2].2 = written(third, 6);
    assert!(!holds(&calls));
}

#[test]
fn a_wish_that_comes_back_for_a_newer_one_is_found_out() {
    let call = |op, asked, answer| Call {
        op,
        asked,
        answer: Some((answer, asked + 1)),
    };
    let mut calls = vec![
        call(
            apply(1, Expected::Anything),
            1,
            Answer::Written(Some(FIRST)),
        ),
        call(
            apply(2, Expected::Anything),
            3,
            Answer::Written(Some(SECOND)),
        ),
        call(Op::Inspect, 5, found(2, SECOND)),
        call(Op::Inspect, 7, found(2, SECOND)),
    ];
    assert_eq!(newest_wins(&calls), Ok(()));
    for wrong in [found(1, FIRST), found(1, SECOND), Answer::Absent] {
        calls[3].answer = Some((wrong, 8));
        assert_ne!(newest_wins(&calls), Ok(()), "{wrong:?}");
    }
}
