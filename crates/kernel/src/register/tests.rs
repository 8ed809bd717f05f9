//! The rules of a seat and of a proposer, one at a time. What they are together is for the model.

mod model;

use alloc::vec;

use wire::id::{NodeId, ObjectId};
use wire::tenancy::{Home, Seat};

use super::*;

const TERM_MS: u64 = 10;
const NUMBER: u64 = 7;

fn at(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

fn ballot(round: u64) -> Ballot {
    Ballot { round, node: 1 }
}

fn object(letter: char) -> ObjectId {
    ObjectId([u8::try_from(letter).expect("a letter"); 16])
}

fn seats(numbers: [u64; 3]) -> Vec<Seat> {
    let seat = |number| Seat {
        node: NodeId([1; 32]),
        number,
    };
    numbers.into_iter().map(seat).collect()
}

/// Where each slot has the object that is called by that letter.
fn tenancy(generation: u64, objects: &str) -> Tenancy {
    let home = |letter| Home {
        object: object(letter),
        node: NodeId([2; 32]),
        epoch: 1,
    };
    Tenancy {
        seats: seats([1, 2, 3].map(|number| generation * 10 + number)),
        generation,
        term_ms: u32::try_from(TERM_MS).expect("a short term"),
        homes: (0..).zip(objects.chars().map(home)).collect(),
        epoch: u64::from(!objects.is_empty()),
    }
}

fn title(round: u64, generation: u64, objects: &str) -> Title {
    let tenancy = tenancy(generation, objects);
    let ballot = if round == 0 {
        Ballot::default()
    } else {
        ballot(round)
    };
    Title { ballot, tenancy }
}

fn prepare(round: u64, first: &str) -> SeatAsk {
    SeatAsk::Prepare {
        ballot: ballot(round),
        first: tenancy(0, first),
    }
}

fn accept(round: u64, objects: &str) -> SeatAsk {
    SeatAsk::Accept(title(round, 0, objects))
}

fn claim(letter: char, number: u64) -> Claim {
    let object = object(letter);
    Claim { object, number }
}

fn renew(letter: char, round: u64) -> SeatAsk {
    SeatAsk::Renew {
        claim: claim(letter, 1),
        ballot: ballot(round),
        generation: 0,
    }
}

fn promised(round: u64, objects: &str, held: &[(char, u32)]) -> SeatAnswer {
    SeatAnswer::Promised {
        accepted: title(round, 0, objects),
        held: held.iter().map(|(it, ms)| (object(*it), *ms)).collect(),
    }
}

fn outvoted(round: u64) -> SeatAnswer {
    SeatAnswer::Outvoted(ballot(round))
}

fn held(by_ms: u32) -> SeatAnswer {
    SeatAnswer::Held { by_ms }
}

fn a_seat() -> Seats {
    let mut seats = Seats::default();
    assert!(seats.take(NUMBER, AppId([0; 16]), Version::default()));
    seats
}

/// What a seat answers, one ask after another.
fn check(seats: &mut Seats, steps: &[(u64, SeatAsk, SeatAnswer)]) {
    for (millis, ask, expected) in steps {
        let before = seats.get(NUMBER).cloned();
        let (answer, is_changed) = seats.handle(at(*millis), NUMBER, ask.clone());
        assert_eq!(&answer, expected, "at {millis}, to {ask:?}");
        let after = seats.get(NUMBER).cloned();
        assert!(
            is_changed || before == after,
            "at {millis}, {ask:?} is not kept"
        );
    }
}

#[test]
fn a_seat_promises_a_ballot_once_and_accepts_nothing_older() {
    check(
        &mut a_seat(),
        &[
            (0, prepare(2, ""), promised(0, "", &[])),
            (0, prepare(2, ""), outvoted(2)),
            (0, prepare(1, ""), outvoted(2)),
            (0, accept(1, "a"), outvoted(2)),
            (0, accept(2, "a"), SeatAnswer::Accepted),
            (0, prepare(3, ""), promised(2, "a", &[])),
            (0, accept(2, "a"), outvoted(3)),
            (0, accept(4, "b"), SeatAnswer::Accepted),
            (0, prepare(4, ""), outvoted(4)),
        ],
    );
}

#[test]
fn a_seat_that_was_never_asked_knows_not_enough() {
    check(
        &mut a_seat(),
        &[
            (0, accept(1, "a"), SeatAnswer::Behind),
            (0, renew('a', 1), SeatAnswer::Behind),
        ],
    );
    let (answer, _) = a_seat().handle(at(0), NUMBER + 1, accept(1, "a"));
    assert_eq!(answer, SeatAnswer::Unknown);
}

#[test]
fn a_slot_is_not_taken_from_what_holds_a_tenure() {
    check(
        &mut a_seat(),
        &[
            (0, prepare(1, ""), promised(0, "", &[])),
            (0, accept(1, "a"), SeatAnswer::Accepted),
            (0, renew('a', 1), SeatAnswer::Renewed),
            (4, prepare(2, ""), promised(1, "a", &[('a', 6)])),
            (4, accept(2, "b"), held(6)),
            (5, renew('a', 1), SeatAnswer::Renewed),
            (14, accept(2, "b"), held(1)),
            (14, accept(2, "ab"), SeatAnswer::Accepted),
            (15, accept(2, "b"), SeatAnswer::Accepted),
        ],
    );
}

#[test]
fn what_lost_its_slot_is_not_renewed() {
    let superseded = SeatAnswer::Superseded(title(2, 0, "b"));
    check(
        &mut a_seat(),
        &[
            (0, prepare(1, "a"), promised(0, "a", &[('a', 10)])),
            (10, accept(2, "b"), SeatAnswer::Accepted),
            (10, renew('a', 1), superseded.clone()),
            (10, renew('a', 2), superseded),
            (10, renew('b', 2), SeatAnswer::Renewed),
            (10, renew('c', 3), SeatAnswer::Behind),
        ],
    );
}

/// A release of one claim was late, and ended the next claim of the same object.
#[test]
fn a_release_ends_only_the_claim_that_it_names() {
    let release = |letter, number| SeatAsk::Release(claim(letter, number));
    check(
        &mut a_seat(),
        &[
            (0, prepare(1, ""), promised(0, "", &[])),
            (0, accept(1, "a"), SeatAnswer::Accepted),
            (0, renew('a', 1), SeatAnswer::Renewed),
            (1, release('a', 2), SeatAnswer::Renewed),
            (1, accept(2, "b"), held(9)),
            (1, release('a', 1), SeatAnswer::Renewed),
            (1, accept(2, "b"), SeatAnswer::Accepted),
        ],
    );
}

#[test]
fn what_is_assumed_after_a_start_is_not_released() {
    let mut seats = a_seat();
    check(
        &mut seats,
        &[
            (0, prepare(1, ""), promised(0, "", &[])),
            (0, accept(1, "a"), SeatAnswer::Accepted),
        ],
    );
    let stored = seats.get(NUMBER).cloned().expect("it was taken");
    let mut seats = Seats::default();
    seats.restore(at(20), NUMBER, stored);
    check(
        &mut seats,
        &[
            (21, SeatAsk::Release(claim('a', 1)), SeatAnswer::Renewed),
            (21, accept(2, "b"), held(9)),
            (30, accept(2, "b"), SeatAnswer::Accepted),
        ],
    );
}

#[test]
fn what_was_chosen_is_learned_whatever_was_promised() {
    let learn = |round, objects| SeatAsk::Learn(title(round, 0, objects));
    check(
        &mut a_seat(),
        &[
            (0, prepare(9, ""), promised(0, "", &[])),
            (0, learn(5, "a"), SeatAnswer::Accepted),
            (0, learn(4, "b"), SeatAnswer::Accepted),
            (0, renew('a', 5), outvoted(9)),
            (10, renew('a', 5), SeatAnswer::Renewed),
            (10, prepare(10, ""), promised(5, "a", &[('a', 10)])),
        ],
    );
    check(
        &mut a_seat(),
        &[
            (0, learn(5, "a"), SeatAnswer::Accepted),
            (0, prepare(5, ""), outvoted(5)),
        ],
    );
}

/// A host came back between a proposer's two questions. Its object was renewed by the seats that had
/// not accepted the other one yet, and those that had were asked first ever after.
#[test]
fn who_holds_no_tenure_when_a_ballot_is_promised_gets_none_before_it_is_accepted() {
    check(
        &mut a_seat(),
        &[
            (0, prepare(1, ""), promised(0, "", &[])),
            (0, accept(1, "a"), SeatAnswer::Accepted),
            (0, prepare(2, ""), promised(1, "a", &[])),
            (0, renew('a', 1), outvoted(2)),
            (0, accept(2, "b"), SeatAnswer::Accepted),
            (0, renew('b', 2), SeatAnswer::Renewed),
            (0, prepare(3, ""), promised(2, "b", &[('b', 10)])),
            (1, renew('b', 2), SeatAnswer::Renewed),
        ],
    );
}

#[test]
fn a_generation_that_is_over_renews_nothing() {
    let over = title(2, 1, "a");
    check(
        &mut a_seat(),
        &[
            (0, prepare(1, "a"), promised(0, "a", &[('a', 10)])),
            (0, SeatAsk::Accept(over.clone()), SeatAnswer::Accepted),
            (0, renew('a', 1), SeatAnswer::Superseded(over)),
        ],
    );
}

fn place(letter: char) -> Change {
    Change::Place {
        index: 0,
        object: object(letter),
        node: NodeId([2; 32]),
    }
}

/// An attempt, and whom of the generation it asks what, in which round.
fn asks(proposer: &mut Proposer) -> (u32, Vec<u64>, Option<SeatAsk>) {
    let mut asked = (0, Vec::new(), None);
    while let Some((round, seat, ask)) = proposer.poll_ask() {
        assert!(
            asked.2.is_none_or(|other| other == ask),
            "all are asked the same"
        );
        asked.0 = round;
        asked.1.push(seat.number);
        asked.2 = Some(ask);
    }
    asked.1.sort_unstable();
    asked
}

/// What comes of it when its seats answer so, in this order; `None` is silence.
fn answered(
    proposer: &mut Proposer,
    round: u32,
    answers: &[(u64, Option<SeatAnswer>)],
) -> Option<Outcome> {
    let mut outcome = None;
    for (number, answer) in answers {
        assert_eq!(outcome, None, "it was over before {number} answered");
        let [seat, ..] = seats([*number; 3])[..] else {
            continue;
        };
        outcome = proposer.handle(round, seat, answer.clone());
    }
    outcome
}

/// How an attempt to place `b` ends, where all is as it began but what the seats answer.
fn outcome(answers: &[(u64, Option<SeatAnswer>)]) -> Option<Outcome> {
    let mut proposer = Proposer::new(ballot(3), tenancy(0, "a"), place('b'));
    answered(&mut proposer, 1, answers)
}

#[test]
fn a_tenancy_is_chosen_by_most_seats_twice() {
    let mut proposer = Proposer::new(ballot(3), tenancy(0, ""), place('b'));
    let (round, asked, ask) = asks(&mut proposer);
    assert_eq!((round, asked), (1, vec![1, 2, 3]));
    assert_eq!(ask, Some(prepare(3, "")));
    let promise = Some(promised(0, "", &[]));
    let answers = [(1, promise.clone()), (2, promise.clone())];
    assert_eq!(answered(&mut proposer, 1, &answers), None);
    let (round, asked, ask) = asks(&mut proposer);
    assert_eq!(
        (round, asked),
        (2, vec![1, 2, 3]),
        "also who did not answer"
    );
    assert_eq!(ask, Some(accept(3, "b")));
    let accepted = Some(SeatAnswer::Accepted);
    assert_eq!(answered(&mut proposer, 1, &[(3, promise)]), None, "late");
    let answers = [(1, None), (2, accepted.clone()), (3, accepted)];
    let chosen = Outcome::Chosen(title(3, 0, "b"));
    assert_eq!(answered(&mut proposer, 2, &answers), Some(chosen));
}

#[test]
fn an_attempt_builds_on_what_was_accepted_last() {
    let mut proposer = Proposer::new(ballot(3), tenancy(0, ""), place('b'));
    asks(&mut proposer);
    let answers = [
        (1, Some(promised(2, "cd", &[]))),
        (2, Some(promised(1, "a", &[]))),
    ];
    assert_eq!(answered(&mut proposer, 1, &answers), None);
    let (_, _, ask) = asks(&mut proposer);
    let mut expected = title(3, 0, "bd");
    expected.tenancy.epoch = 2;
    let home = expected.tenancy.homes.get_mut(&0).expect("it has the slot");
    home.epoch = 2;
    assert_eq!(ask, Some(SeatAsk::Accept(expected)));
}

#[test]
fn an_attempt_ends_as_soon_as_it_is_certain_how() {
    let promise = Some(promised(0, "a", &[]));
    let holds = |ms| Some(promised(0, "a", &[('a', ms)]));
    let unknown = Some(SeatAnswer::Unknown);
    let outvoted = Some(outvoted(9));
    let too_few = |present| Some(Outcome::TooFew { present, seats: 3 });
    let cases = [
        (vec![(1, promise.clone()), (2, None)], None),
        (vec![(1, None), (2, unknown.clone())], too_few(1)),
        (
            vec![(1, promise.clone()), (2, None), (3, unknown)],
            too_few(1),
        ),
        (
            vec![(1, outvoted.clone()), (2, None)],
            Some(Outcome::Outvoted(ballot(9))),
        ),
        (
            vec![(1, outvoted), (2, promise.clone()), (3, promise.clone())],
            None,
        ),
        (
            vec![(1, holds(3)), (2, holds(5))],
            Some(Outcome::Held { by_ms: 5 }),
        ),
        (
            vec![(1, promise.clone()), (2, holds(5))],
            Some(Outcome::Held { by_ms: 5 }),
        ),
    ];
    for (answers, expected) in cases {
        assert_eq!(outcome(&answers), expected, "{answers:?}");
    }
}

#[test]
fn whoever_finds_other_seats_makes_them_certain_before_it_asks_them() {
    let mut proposer = Proposer::new(ballot(3), tenancy(0, "a"), place('b'));
    asks(&mut proposer);
    let moved = SeatAnswer::Promised {
        accepted: title(2, 1, "a"),
        held: Vec::new(),
    };
    let answers = [(1, Some(moved)), (2, Some(promised(0, "a", &[])))];
    assert_eq!(answered(&mut proposer, 1, &answers), None);
    let (round, asked, ask) = asks(&mut proposer);
    assert_eq!((round, asked), (2, vec![1, 2, 3]));
    assert_eq!(ask, Some(SeatAsk::Accept(title(3, 1, "a"))));
    let accepted = Some(SeatAnswer::Accepted);
    let answers = [(1, accepted.clone()), (2, accepted)];
    assert_eq!(answered(&mut proposer, 2, &answers), None);
    let (round, asked, ask) = asks(&mut proposer);
    assert_eq!((round, asked), (3, vec![11, 12, 13]));
    let expected = SeatAsk::Prepare {
        ballot: ballot(4),
        first: tenancy(1, "a"),
    };
    assert_eq!(ask, Some(expected));
    assert_eq!(proposer.first(), &tenancy(1, "a"));
    assert_eq!(proposer.ballot(), ballot(4));
}

/// What the seats are asked to accept by who wants other seats to vote, when these answer so.
fn reseated(answers: &[(u64, Option<SeatAnswer>)]) -> Option<SeatAsk> {
    let next = tenancy(1, "").seats;
    let mut proposer = Proposer::new(ballot(3), tenancy(0, ""), Change::Seat(next));
    asks(&mut proposer);
    assert_eq!(answered(&mut proposer, 1, answers), None);
    asks(&mut proposer).2
}

/// One seat accepted that `b` takes the slot of `a`, and the others went on to renew `a`. Every later
/// attempt took `b` for what was accepted last, and was refused by whoever had renewed `a`: no other
/// slot could change, and no other seats could be made to vote, for as long as `a` ran.
#[test]
fn a_takeover_that_most_seats_rule_out_is_left_out() {
    let took = Some(promised(2, "b", &[]));
    let holds = Some(promised(1, "a", &[('a', 5)]));
    let free = Some(promised(1, "a", &[]));
    let unknown = Some(SeatAnswer::Unknown);
    let [with_a, with_b] = ["a", "b"].map(|objects| SeatAsk::Accept(title(3, 1, objects)));
    let cases = [
        // `a` would lose its slot: who has not answered may say that it does not.
        ([&took, &holds].to_vec(), None),
        ([&took, &holds, &holds].to_vec(), Some(&with_a)),
        ([&took, &holds, &free].to_vec(), Some(&with_a)),
        ([&holds, &free, &took].to_vec(), Some(&with_a)),
        // Most seats may have accepted it, or have: one that renewed `a` is a memory of few.
        ([&took, &holds, &took].to_vec(), Some(&with_b)),
        ([&took, &holds, &None].to_vec(), Some(&with_b)),
        ([&took, &holds, &unknown].to_vec(), Some(&with_b)),
        // Nothing speaks against it, and nobody is waited for.
        ([&took, &free].to_vec(), Some(&with_b)),
    ];
    for (answers, expected) in cases {
        let answers: Vec<_> = (1..).zip(answers.into_iter().cloned()).collect();
        assert_eq!(reseated(&answers).as_ref(), expected, "{answers:?}");
    }
    let answers = [(1, took), (2, holds), (3, free)];
    let mut proposer = Proposer::new(ballot(3), tenancy(0, ""), place('c'));
    asks(&mut proposer);
    let held = Some(Outcome::Held { by_ms: 5 });
    assert_eq!(answered(&mut proposer, 1, &answers), held);
}
