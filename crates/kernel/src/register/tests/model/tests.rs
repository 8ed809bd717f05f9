//! What the model was made for: bounds, and every state within them.
//!
//! # What was explored
//!
//! Every state within these bounds; the numbers are those of different states, measured.
//!
//! | test | states |
//! | --- | --- |
//! | `of_two_attempts_the_later_builds_on_the_earlier` | 50,514 |
//! | `a_guardian_that_restarts_keeps_its_word` | 61,366 |
//! | `whoever_finds_that_the_seats_have_changed_goes_on_from_there` | 79,648 |
//! | `an_object_is_gone_before_a_seat_lets_the_next_one_have_its_slot` | 207,934 |
//! | `most_seats_never_let_two_objects_have_a_slot` | 284,018 |
//! | `restarts_bring_no_second_object` | 44,332 |
//! | `programs_that_end_and_begin_are_alone_all_the_same` | 279,170 |
//! | `what_the_former_seats_granted_is_over_before_the_next_grant_anything` | 302,298 |
//! | `an_object_moves_to_the_next_seats_and_loses_its_slot_there` | 304,053 |
//! | `what_one_seat_has_accepted_keeps_nobody_from_going_on` | 145,037 |
//!
//! `runs_at_random_find_nothing` has all of it at once, with three generations, three objects and a
//! moment for each tenth of the term, and is not exhaustive.
//!
//! # What it would find
//!
//! Each of these was made wrong in the code, alone, and the property that failed first noted:
//! *run* is `what runs was chosen last`, of which `one object runs` follows; *chain* is `what is
//! chosen is a chain`; *one* is `the register is one`. Most rows were tried on the code before it
//! paused and left things out, and not again since; the last ten of them on the present rules.
//!
//! | what was wrong | fails |
//! | --- | --- |
//! | a seat accepts although another object holds a tenure | run |
//! | a seat that starts assumes no tenures | run |
//! | a seat that hears of its generation assumes no tenures | run |
//! | a seat renews under a generation that is over | run |
//! | a seat renews what it has not accepted | run |
//! | a seat forgets at its start what it promised, or accepted | chain |
//! | a seat keeps no promise that it gives | chain |
//! | a seat accepts what is older than its promise | chain |
//! | a seat that learns forgets what is newer | run |
//! | a seat that learns promises nothing | a seat has promised what it accepted |
//! | a release ends other claims of the object | run |
//! | a release ends what is assumed | run |
//! | a proposer does not take over what was accepted last | chain |
//! | a proposer takes one acceptance for most | one |
//! | a proposer goes to the next seats before it is certain | chain |
//! | a proposer goes on with seats whose generation is over | chain |
//! | an epoch is used twice | chain |
//! | a host counts from when it was answered | run |
//! | a host takes what was granted to a former claim for the present one | run |
//! | a host takes one grant for most | run |
//! | a host believes one seat about the next seats (only at random) | chain |
//! | a host kills after the whole term | run |
//! | a proposer takes one promise for most | chain |
//! | a proposer leaves out what one seat has not accepted | chain |
//! | a host pauses, and keeps its claim | run |
//! | a host pauses before the term is over | run |
//! | a proposer leaves out nothing | a unit test |
//! | a proposer does not wait for who may rule something out | a unit test |
//! | a seat that has promised grants others a tenure | a unit test |
//! | a host never pauses | a unit test |
//! | a seat accepts though it was never asked to promise | nothing |
//! | a proposer does not mind the tenures that it hears of | nothing |
//!
//! Where only a unit test fails, in `register/tests.rs` or `tenure.rs`, nothing runs twice: it takes
//! longer, or for ever, until something else runs.
//!
//! The last two are safe: most seats have promised, and one of them is among those that accept;
//! and the seats mind the tenures themselves.

use alloc::vec;

use stateright::{Checker, HasDiscoveries, UniformChooser};

use super::*;

/// Goes through every state within the bounds.
fn explore(bounds: Bounds) {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let checker = bounds.checker().threads(threads);
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let checker = checker.spawn_bfs().join();
    checker.assert_properties();
}

#[test]
fn of_two_attempts_the_later_builds_on_the_earlier() {
    explore(Bounds {
        seats: 3,
        attempts: vec![vec![Attempt::Place(1, 0)], vec![Attempt::Place(2, 1)]],
        losses: 1,
        has_history: true,
        ..Bounds::default()
    });
}

#[test]
fn a_guardian_that_restarts_keeps_its_word() {
    explore(Bounds {
        seats: 3,
        attempts: vec![vec![Attempt::Place(1, 0)], vec![Attempt::Place(2, 1)]],
        guardian_restarts: 1,
        has_history: true,
        ..Bounds::default()
    });
}

#[test]
fn whoever_finds_that_the_seats_have_changed_goes_on_from_there() {
    explore(Bounds {
        seats: 3,
        attempts: vec![vec![Attempt::Seat(1)], vec![Attempt::Place(2, 1)]],
        has_history: true,
        ..Bounds::default()
    });
}

#[test]
fn an_object_is_gone_before_a_seat_lets_the_next_one_have_its_slot() {
    explore(Bounds {
        seats: 1,
        begun: 1,
        attempts: vec![vec![Attempt::Place(1, 0)], vec![Attempt::Place(2, 1)]],
        moments: vec![0, 2, 7, 9, 10, 11],
        is_slow: true,
        renewals: [2, 1],
        has_late_answers: true,
        reaches: vec![Reach::First, Reach::Second],
        ..Bounds::default()
    });
}

#[test]
fn most_seats_never_let_two_objects_have_a_slot() {
    explore(Bounds {
        seats: 3,
        begun: 1,
        is_one_behind: true,
        attempts: vec![vec![Attempt::Place(1, 0)], vec![Attempt::Place(2, 1)]],
        moments: vec![0, 10],
        renewals: [2, 0],
        reaches: vec![Reach::First],
        ..Bounds::default()
    });
}

#[test]
fn restarts_bring_no_second_object() {
    explore(Bounds {
        seats: 3,
        begun: 1,
        is_one_behind: true,
        attempts: vec![vec![Attempt::Place(1, 0)], vec![Attempt::Place(2, 1)]],
        renewals: [1, 0],
        guardian_restarts: 1,
        host_restarts: 1,
        ..Bounds::default()
    });
}

#[test]
fn programs_that_end_and_begin_are_alone_all_the_same() {
    explore(Bounds {
        seats: 1,
        begun: 1,
        attempts: vec![vec![Attempt::Place(1, 0)], vec![Attempt::Place(2, 1)]],
        moments: vec![0, 10],
        renewals: [3, 0],
        has_late_answers: true,
        guardian_restarts: 1,
        ends: 2,
        ..Bounds::default()
    });
}

#[test]
fn what_the_former_seats_granted_is_over_before_the_next_grant_anything() {
    explore(Bounds {
        seats: 1,
        begun: 1,
        attempts: vec![
            vec![Attempt::Place(1, 0), Attempt::Seat(1)],
            vec![Attempt::Place(2, 1), Attempt::Place(3, 1)],
        ],
        moments: vec![0, 10, 20],
        renewals: [2, 1],
        has_late_answers: true,
        reaches: vec![Reach::First, Reach::Second, Reach::SecondAfterReseat],
        ..Bounds::default()
    });
}

#[test]
fn an_object_moves_to_the_next_seats_and_loses_its_slot_there() {
    explore(Bounds {
        seats: 3,
        begun: 2,
        attempts: vec![
            vec![Attempt::Place(1, 0), Attempt::Seat(1)],
            vec![Attempt::Place(2, 1)],
        ],
        moments: vec![0, 10],
        renewals: [2, 1],
        reaches: vec![Reach::First, Reach::Second, Reach::SecondAfterReseat],
        ..Bounds::default()
    });
}

/// One seat accepts a takeover, the others go on to renew the former object, and then other seats
/// are to vote: the takeover must be left out, or nothing is ever chosen again.
#[test]
fn what_one_seat_has_accepted_keeps_nobody_from_going_on() {
    explore(Bounds {
        seats: 3,
        begun: 1,
        attempts: vec![
            vec![Attempt::Place(1, 0)],
            vec![Attempt::Place(2, 1), Attempt::Seat(1)],
        ],
        renewals: [1, 0],
        guardian_restarts: 1,
        forgets: true,
        reaches: vec![Reach::First, Reach::FirstOutlivesSecond],
        ..Bounds::default()
    });
}

/// Everything at once, and far more of it than can be gone through: as many steps as
/// `WELKIN_MODEL_STEPS` says, from the seed `WELKIN_MODEL_SEED`.
#[test]
fn runs_at_random_find_nothing() {
    let number = |name| std::env::var(name).ok().and_then(|it| it.parse().ok());
    let attempts = vec![
        vec![
            Attempt::Place(1, 0),
            Attempt::Seat(1),
            Attempt::Place(3, 0),
            Attempt::Seat(2),
        ],
        vec![
            Attempt::Place(2, 1),
            Attempt::Place(4, 1),
            Attempt::Place(5, 1),
            Attempt::Place(6, 1),
        ],
    ];
    let bounds = Bounds {
        seats: 3,
        attempts,
        moments: (0..4 * TERM_TICKS).collect(),
        is_slow: true,
        renewals: [9, 9],
        has_late_answers: true,
        guardian_restarts: 2,
        host_restarts: 2,
        ends: 2,
        duplicates: 2,
        losses: 5,
        ..Bounds::default()
    };
    let checker = bounds.checker();
    let checker = checker.target_state_count(number("WELKIN_MODEL_STEPS").unwrap_or(100_000));
    let checker = checker.finish_when(HasDiscoveries::AnyFailures);
    let seed = number("WELKIN_MODEL_SEED").unwrap_or(1);
    let checker = checker.spawn_simulation(seed as u64, UniformChooser);
    checker.join().assert_properties();
}
