//! The right of objects here to run, where an app never runs twice: renewed with the seats of the
//! app, again and again. The whole protocol is in `docs/protocols/once.md`.
//!
//! What it is not: it starts and stops nothing, and freezes nothing. It says until when an object
//! may run; the shim keeps to that.
//!
//! ```text
//!        hold                 most seats renewed                   not renewed for 0.7 term
//! (none) ────► sought ────────────────────────────► held ──────────────────────────────────► sought
//!                 │ ◄── other seats: sought there ───┤
//!                 │ most seats say that the slot has another object
//!                 ▼                                  ▼
//!               lost                                lost
//! ```
//!
//! All times are counted from when a renewal was *sent*: the seats count theirs from later.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::time::Duration;

use wire::id::ObjectId;
use wire::tenancy::{Ballot, Claim, Seat, SeatAnswer, SeatAsk, Tenancy, Title, majority};

use crate::instant::Instant;

/// Parts of the term, in tenths: a renewal is due after so much of it.
const RENEW_TENTHS: u32 = 2;
/// The object is frozen after so much.
const FREEZE_TENTHS: u32 = 7;
/// And killed after so much. The seats wait for the whole term.
const KILL_TENTHS: u32 = 9;

/// The tenures of the objects on this node.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub(crate) struct Tenures {
    tenures: BTreeMap<ObjectId, Tenure>,
    asks: VecDeque<(Claim, Seat, SeatAsk)>,
    events: VecDeque<Event>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Tenure {
    claim: Claim,
    title: Title,
    /// When the last renewal was sent that each seat has granted.
    granted: BTreeMap<Seat, Instant>,
    /// Seats that have accepted something without it, or of other seats.
    superseded: BTreeMap<Seat, Title>,
    renew_at: Instant,
    /// Since when it is sought under this claim.
    sought_at: Instant,
    /// When the renewal was sent that most seats have granted.
    since: Option<Instant>,
}

/// What the hub has to know.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Event {
    /// It may run so long.
    Extended {
        object: ObjectId,
        freeze_at: Instant,
        kill_at: Instant,
    },
    /// Other seats vote now: to be kept with the object.
    Reseated { object: ObjectId, title: Title },
    /// A seat is no more: perhaps others vote, of which the object's seats do not tell any more.
    Unseated(ObjectId),
    /// The slot has another object.
    Lost(ObjectId),
}

impl Tenures {
    /// Whether the right is sought for the object.
    pub(crate) fn seeks(&self, object: ObjectId) -> bool {
        self.tenures.contains_key(&object)
    }

    /// Seeks the right for an object, from now on. The number of a claim is never used again.
    pub(crate) fn hold(&mut self, now: Instant, claim: Claim, title: Title) {
        self.tenures.entry(claim.object).or_insert(Tenure {
            claim,
            title,
            granted: BTreeMap::new(),
            superseded: BTreeMap::new(),
            renew_at: now,
            sought_at: now,
            since: None,
        });
    }

    /// The object does not run, and will not until the right is sought again.
    pub(crate) fn release(&mut self, object: ObjectId) {
        let Some(tenure) = self.tenures.remove(&object) else {
            return;
        };
        let claim = tenure.claim;
        self.asks.retain(|(other, _, _)| *other != claim);
        for seat in tenure.title.tenancy.seats {
            self.asks.push_back((claim, seat, SeatAsk::Release(claim)));
        }
    }

    /// Until when the object may run, if it may run now.
    pub(crate) fn held(&self, now: Instant, object: ObjectId) -> Option<(Instant, Instant)> {
        let tenure = self.tenures.get(&object)?;
        let (freeze_at, kill_at) = tenure.deadlines()?;
        (freeze_at > now).then_some((freeze_at, kill_at))
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What is to be asked of a seat, now.
    pub(crate) fn poll_ask(&mut self) -> Option<(Claim, Seat, SeatAsk)> {
        self.asks.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.tenures.values().map(|it| it.renew_at).min()
    }

    /// Asks for the renewals that are due.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        for tenure in self.tenures.values_mut() {
            if tenure.renew_at > now {
                continue;
            }
            if tenure.has_failed(now) {
                let claim = tenure.claim;
                self.asks.retain(|(other, _, _)| *other != claim);
                for seat in &tenure.title.tenancy.seats {
                    self.asks.push_back((claim, *seat, SeatAsk::Release(claim)));
                }
                tenure.pause(now);
                continue;
            }
            tenure.renew_at = now + part(&tenure.title.tenancy, RENEW_TENTHS);
            for seat in &tenure.title.tenancy.seats {
                self.asks.push_back((tenure.claim, *seat, tenure.renewal()));
            }
        }
    }

    /// What a seat answered to what it was asked when `asked_at` was now.
    pub(crate) fn handle(
        &mut self,
        now: Instant,
        claim: Claim,
        seat: Seat,
        asked_at: Instant,
        answer: SeatAnswer,
    ) {
        let object = claim.object;
        let Some(tenure) = self.tenures.get_mut(&object) else {
            return;
        };
        if tenure.claim != claim || !tenure.title.tenancy.seats.contains(&seat) {
            return;
        }
        match answer {
            SeatAnswer::Renewed => {
                tenure.superseded.remove(&seat);
                let granted = tenure.granted.entry(seat).or_insert(asked_at);
                *granted = asked_at.max(*granted);
                if tenure.count()
                    && let Some((freeze_at, kill_at)) = tenure.deadlines()
                {
                    self.events.push_back(Event::Extended {
                        object,
                        freeze_at,
                        kill_at,
                    });
                }
            }
            SeatAnswer::Behind => {
                let learn = SeatAsk::Learn(tenure.title.clone());
                self.asks.push_back((claim, seat, learn));
            }
            // It has learned the title.
            SeatAnswer::Accepted => {
                self.asks.push_back((claim, seat, tenure.renewal()));
            }
            SeatAnswer::Superseded(title) => {
                tenure.superseded.insert(seat, title);
                let Some(next) = tenure.superseded_by() else {
                    return;
                };
                if next.tenancy.has(object) {
                    self.move_to(now, object, &next.tenancy);
                } else {
                    self.tenures.remove(&object);
                    self.events.push_back(Event::Lost(object));
                }
            }
            SeatAnswer::Unknown => self.events.push_back(Event::Unseated(object)),
            SeatAnswer::Promised { .. } | SeatAnswer::Outvoted(_) | SeatAnswer::Held { .. } => {}
        }
    }

    /// Another generation of seats votes, which began with this tenancy. What the former ones granted
    /// lasts as long as it would have.
    pub(crate) fn move_to(&mut self, now: Instant, object: ObjectId, first: &Tenancy) {
        let Some(tenure) = self.tenures.get_mut(&object) else {
            return;
        };
        if first.generation <= tenure.title.tenancy.generation {
            return;
        }
        if !first.has(object) {
            self.tenures.remove(&object);
            self.events.push_back(Event::Lost(object));
            return;
        }
        tenure.title = Title {
            ballot: Ballot::default(),
            tenancy: first.clone(),
        };
        tenure.granted.clear();
        tenure.superseded.clear();
        tenure.renew_at = now;
        let title = tenure.title.clone();
        self.events.push_back(Event::Reseated { object, title });
    }
}

impl Tenure {
    /// Most seats have not renewed it for a whole term, in which it has ended.
    fn has_failed(&self, now: Instant) -> bool {
        let since = self.since.max(Some(self.sought_at));
        since.is_some_and(|since| since + part(&self.title.tenancy, 10) <= now)
    }

    /// What only few seats grant helps nobody, and keeps others out: for a term it is not sought.
    fn pause(&mut self, now: Instant) {
        self.claim.number = self.claim.number.wrapping_add(1);
        self.granted.clear();
        self.since = None;
        self.renew_at = now + part(&self.title.tenancy, 10);
        self.sought_at = self.renew_at;
    }

    fn renewal(&self) -> SeatAsk {
        SeatAsk::Renew {
            claim: self.claim,
            ballot: self.title.ballot,
            generation: self.title.tenancy.generation,
        }
    }

    /// Takes what was granted into account; says whether it may run longer than before.
    fn count(&mut self) -> bool {
        let mut granted: Vec<Instant> = self.granted.values().copied().collect();
        granted.sort_unstable_by(|a, b| b.cmp(a));
        let needed = majority(self.title.tenancy.seats.len());
        let since = granted.get(needed - 1).copied();
        let is_longer = since > self.since;
        self.since = self.since.max(since);
        is_longer
    }

    /// When it is frozen, and when it is killed, unless it is renewed.
    fn deadlines(&self) -> Option<(Instant, Instant)> {
        let since = self.since?;
        let after = |tenths| since + part(&self.title.tenancy, tenths);
        Some((after(FREEZE_TENTHS), after(KILL_TENTHS)))
    }

    /// What most seats have accepted instead. The same ballot is the same title; what only some
    /// have accepted may never be chosen.
    fn superseded_by(&self) -> Option<Title> {
        let mut votes: BTreeMap<Ballot, usize> = BTreeMap::new();
        for title in self.superseded.values() {
            *votes.entry(title.ballot).or_insert(0) += 1;
        }
        let needed = majority(self.title.tenancy.seats.len());
        let (chosen, _) = votes.into_iter().find(|(_, count)| *count >= needed)?;
        let mut titles = self.superseded.values();
        titles.find(|title| title.ballot == chosen).cloned()
    }
}

fn part(tenancy: &Tenancy, tenths: u32) -> Duration {
    Duration::from_millis(tenancy.term_ms.into()) * tenths / 10
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use wire::id::NodeId;
    use wire::tenancy::Home;

    use super::*;

    const OBJECT: ObjectId = ObjectId([1; 16]);

    fn at(millis: u64) -> Instant {
        Instant::from_micros(millis * 1000)
    }

    fn claim(number: u64) -> Claim {
        let object = OBJECT;
        Claim { object, number }
    }

    fn seat(number: u64) -> Seat {
        let node = NodeId([1; 32]);
        Seat { node, number }
    }

    /// Seats 1, 2 and 3, or 11, 12 and 13 in the next generation.
    fn title(round: u64, generation: u64, object: ObjectId) -> Title {
        let home = Home {
            object,
            node: NodeId([2; 32]),
            epoch: 1,
        };
        Title {
            ballot: Ballot { round, node: 0 },
            tenancy: Tenancy {
                seats: (1..4).map(|it| seat(generation * 10 + it)).collect(),
                generation,
                term_ms: 100,
                homes: [(0, home)].into(),
                epoch: 0,
            },
        }
    }

    fn seeking() -> Tenures {
        let mut tenures = Tenures::default();
        tenures.hold(at(0), claim(1), title(1, 0, OBJECT));
        tenures
    }

    /// Which seats are asked to renew the claim, under which ballot and generation, and what else.
    fn renewals(tenures: &mut Tenures) -> (Vec<u64>, Vec<SeatAsk>) {
        let mut asked = (Vec::new(), Vec::new());
        while let Some((_, seat, ask)) = tenures.poll_ask() {
            asked.0.push(seat.number);
            if !asked.1.contains(&ask) {
                asked.1.push(ask);
            }
        }
        asked
    }

    fn renewal(claim: Claim, ballot: Ballot, generation: u64) -> SeatAsk {
        SeatAsk::Renew {
            claim,
            ballot,
            generation,
        }
    }

    /// Seats answer at 50 what they were asked at such times; until when the object may run then.
    fn granted(tenures: &mut Tenures, answers: &[(u64, u64)]) -> Option<(Instant, Instant)> {
        for (number, asked_at) in answers {
            let renewed = SeatAnswer::Renewed;
            tenures.handle(at(50), claim(1), seat(*number), at(*asked_at), renewed);
        }
        tenures.held(at(50), OBJECT)
    }

    /// What one of three seats granted a host that the others did not answer let nothing run, and kept
    /// everybody else out for as long.
    #[test]
    fn what_few_seats_grant_is_given_back_and_sought_again_later() {
        let mut tenures = seeking();
        let asks = |tenures: &mut Tenures, now| {
            tenures.handle_timeout(at(now));
            core::iter::from_fn(|| tenures.poll_ask()).collect::<Vec<_>>()
        };
        assert_eq!(asks(&mut tenures, 0).len(), 3);
        for now in (20..100).step_by(20) {
            assert_eq!(asks(&mut tenures, now).len(), 3, "at {now}");
            tenures.handle(at(now), claim(1), seat(1), at(now), SeatAnswer::Renewed);
        }
        let released = asks(&mut tenures, 100);
        let is_release = |(_, _, ask): &(_, _, SeatAsk)| *ask == SeatAsk::Release(claim(1));
        assert!(
            released.len() == 3 && released.iter().all(is_release),
            "{released:?}"
        );
        assert_eq!(asks(&mut tenures, 199), []);
        let sought = asks(&mut tenures, 200);
        assert!(
            sought.len() == 3 && sought.iter().all(|(it, _, _)| *it == claim(2)),
            "{sought:?}"
        );
    }

    #[test]
    fn a_tenure_counts_from_when_what_most_seats_granted_was_sent() {
        type Answers = &'static [(u64, u64)];
        let cases: [(Answers, Option<u64>); 7] = [
            (&[], None),
            (&[(1, 0)], None),
            (&[(1, 0), (1, 20)], None),
            (&[(1, 0), (9, 0)], None),
            (&[(1, 0), (2, 0)], Some(0)),
            (&[(1, 40), (2, 20), (3, 0)], Some(20)),
            (&[(1, 40), (2, 40), (2, 20)], Some(40)),
        ];
        for (answers, since) in cases {
            let expected = since.map(|since| (at(since + 70), at(since + 90)));
            assert_eq!(granted(&mut seeking(), answers), expected, "{answers:?}");
        }
    }

    #[test]
    fn an_object_may_run_until_it_is_to_be_frozen() {
        let mut tenures = seeking();
        let deadlines = granted(&mut tenures, &[(1, 0), (2, 0)]);
        assert_eq!(tenures.held(at(69), OBJECT), deadlines);
        assert_eq!(tenures.held(at(70), OBJECT), None);
        let extended = Event::Extended {
            object: OBJECT,
            freeze_at: at(70),
            kill_at: at(90),
        };
        assert_eq!(tenures.poll_event(), Some(extended));
        assert_eq!(tenures.poll_event(), None);
    }

    #[test]
    fn a_fifth_of_the_term_passes_between_renewals() {
        let mut tenures = seeking();
        let expected = renewal(claim(1), title(1, 0, OBJECT).ballot, 0);
        for due in [0, 20, 40] {
            assert_eq!(tenures.poll_timeout(), Some(at(due)));
            tenures.handle_timeout(at(due));
            let asked = (vec![1, 2, 3], vec![expected.clone()]);
            assert_eq!(renewals(&mut tenures), asked);
            tenures.handle_timeout(at(due + 19));
            assert_eq!(renewals(&mut tenures), (vec![], vec![]));
        }
    }

    /// What a seat had granted to a claim that was given up since counted for the next one.
    #[test]
    fn what_was_granted_to_a_former_claim_is_not_for_the_present_one() {
        let mut tenures = seeking();
        tenures.release(OBJECT);
        let released = (vec![1, 2, 3], vec![SeatAsk::Release(claim(1))]);
        assert_eq!(renewals(&mut tenures), released);
        tenures.hold(at(10), claim(2), title(1, 0, OBJECT));
        assert_eq!(granted(&mut tenures, &[(1, 0), (2, 0)]), None);
    }

    #[test]
    fn what_is_not_asked_yet_when_the_claim_is_given_up_is_never_asked() {
        let mut tenures = seeking();
        tenures.handle_timeout(at(0));
        tenures.release(OBJECT);
        let released = (vec![1, 2, 3], vec![SeatAsk::Release(claim(1))]);
        assert_eq!(renewals(&mut tenures), released);
    }

    #[test]
    fn a_seat_that_is_behind_is_brought_what_was_chosen() {
        let mut tenures = seeking();
        tenures.handle(at(1), claim(1), seat(3), at(0), SeatAnswer::Behind);
        let learn = SeatAsk::Learn(title(1, 0, OBJECT));
        assert_eq!(tenures.poll_ask(), Some((claim(1), seat(3), learn)));
        tenures.handle(at(2), claim(1), seat(3), at(1), SeatAnswer::Accepted);
        let again = renewal(claim(1), title(1, 0, OBJECT).ballot, 0);
        assert_eq!(tenures.poll_ask(), Some((claim(1), seat(3), again)));
    }

    #[test]
    fn only_what_most_seats_have_accepted_ends_a_tenure() {
        let other = ObjectId([2; 16]);
        let superseded = |round| SeatAnswer::Superseded(title(round, 0, other));
        let cases: [(&[(u64, u64)], bool); 4] = [
            (&[(1, 2)], false),
            (&[(1, 2), (1, 2)], false),
            (&[(1, 2), (2, 3)], false),
            (&[(1, 2), (2, 3), (3, 3)], true),
        ];
        for (answers, is_lost) in cases {
            let mut tenures = seeking();
            for (number, round) in answers {
                tenures.handle(at(1), claim(1), seat(*number), at(0), superseded(*round));
            }
            let lost = is_lost.then_some(Event::Lost(OBJECT));
            assert_eq!(tenures.poll_event(), lost, "{answers:?}");
            assert_eq!(tenures.seeks(OBJECT), !is_lost);
        }
    }

    #[test]
    fn other_seats_are_asked_once_most_of_the_former_say_so() {
        let mut tenures = seeking();
        let held = granted(&mut tenures, &[(1, 40), (2, 40)]);
        assert!(tenures.poll_event().is_some(), "it may run");
        for number in [1, 2] {
            let moved = SeatAnswer::Superseded(title(5, 1, OBJECT));
            tenures.handle(at(50), claim(1), seat(number), at(45), moved);
        }
        let title = title(0, 1, OBJECT);
        let reseated = Event::Reseated {
            object: OBJECT,
            title: title.clone(),
        };
        assert_eq!(tenures.poll_event(), Some(reseated));
        assert_eq!(tenures.held(at(50), OBJECT), held, "as long as before");
        tenures.handle_timeout(at(50));
        let asked = vec![renewal(claim(1), title.ballot, 1)];
        assert_eq!(renewals(&mut tenures), (vec![11, 12, 13], asked));
        // One seat of the new ones is not most of them, whatever the former ones grant.
        assert_eq!(granted(&mut tenures, &[(11, 49), (3, 49)]), held);
    }
}
