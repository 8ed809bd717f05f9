//! Whether a history can be told as one call after the other (Herlihy and Wing 1990).
//!
//! [`is_linearizable`] looks for such an order as Wing and Gong (1993) do, and remembers from where
//! there is none (Lowe 2017), so that it gets through long histories. [`by_stateright`] asks
//! somebody else, who has no such memory: it is for short ones.

use std::collections::BTreeSet;

use stateright::semantics::{ConsistencyTester, LinearizabilityTester};

use crate::register::{Answer, Op, Register};

/// One call. Times are places in the order of all that happened.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) op: Op,
    pub(crate) asked: usize,
    /// What its caller heard, and when. Without an answer it may have had its effect, or may yet.
    pub(crate) answer: Option<(Answer, usize)>,
}

/// Most calls of a history.
const CALLS_MAX: usize = 128;

/// Whether there is an order of the calls, each between its question and its answer, in which one
/// copy would answer the same.
pub(crate) fn is_linearizable(calls: &[Call]) -> bool {
    assert!(calls.len() <= CALLS_MAX, "the history is too long");
    let mut dead_ends = BTreeSet::new();
    goes_on(calls, 0, Register::default(), &mut dead_ends)
}

/// Whether the calls that are not in `done`, a bit each, can follow.
fn goes_on(
    calls: &[Call],
    done: u128,
    register: Register,
    dead_ends: &mut BTreeSet<(u128, Register)>,
) -> bool {
    let is_open = |place: usize| done & (1 << place) == 0;
    let open = || (0..).zip(calls).filter(|(place, _)| is_open(*place));
    let Some(first_answer) = open()
        .filter_map(|(_, it)| Some(it.answer.as_ref()?.1))
        .min()
    else {
        return true;
    };
    if dead_ends.contains(&(done, register)) {
        return false;
    }
    let may_be_next = open().filter(|(_, it)| it.asked < first_answer);
    for (place, call) in may_be_next {
        let mut register = register;
        let answer = call.answer.as_ref().map(|(answer, _)| answer);
        if register.step(&call.op, answer)
            && goes_on(calls, done | (1 << place), register, dead_ends)
        {
            return true;
        }
    }
    dead_ends.insert((done, register));
    false
}

/// The same from stateright.
pub(crate) fn by_stateright(calls: &[Call]) -> bool {
    let mut events: Vec<(usize, usize, bool)> = Vec::new();
    for (place, call) in calls.iter().enumerate() {
        events.push((call.asked, place, true));
        events.extend(call.answer.as_ref().map(|(_, at)| (*at, place, false)));
    }
    events.sort_unstable();
    let mut tester = LinearizabilityTester::new(Register::default());
    for (_, place, is_question) in events {
        // Every call has a caller of its own: one that was not answered is no obstacle to others.
        let call = &calls[place];
        let answer = call.answer.as_ref().map(|(answer, _)| *answer);
        let valid = if is_question {
            tester.on_invoke(place, call.op).err()
        } else {
            tester.on_return(place, answer).err()
        };
        assert_eq!(valid, None, "an answer follows its question");
    }
    tester.is_consistent()
}
