//! When the objects of this node are probed, and what follows from what their probes say.
//!
//! What it is not: it probes nothing itself, and does not decide what an unhealthy object comes to.
//! It knows objects by their ids alone.
//!
//! # States
//!
//! ```text
//!            a success                  `retries` failures in a row
//! starting ─────────────► healthy ─────────────────────────────────► unhealthy
//!     │                      ▲                  a success                │ ▲
//!     │                      └───────────────────────────────────────────┘ │
//!     └───────── `retries` failures in a row, after the start period ──────┘
//! ```
//!
//! The next probe of an object begins only after the last one was answered, so the world must answer
//! each. See `docs/protocols/health.md`.

use alloc::collections::{BTreeMap, BTreeSet, VecDeque};
use alloc::string::String;
use core::time::Duration;

use wire::health::{Check, Health, HealthState, WHY_BYTES_MAX};
use wire::id::ObjectId;

use crate::instant::Instant;

/// Longest pause between two probes of an object within its start period: what is up is to be
/// relied on soon.
const START_INTERVAL: Duration = Duration::from_secs(1);

/// The objects of this node that are probed: those whose program runs and whose app has a check.
#[derive(Debug, Default)]
pub(crate) struct Probing {
    table: BTreeMap<ObjectId, Watched>,
    /// When the next probe of each object that waits for one begins.
    due: BTreeSet<(Instant, ObjectId)>,
    actions: VecDeque<Action>,
    last_probe: u64,
}

#[derive(Debug)]
struct Watched {
    health: Health,
    state: HealthState,
    /// Until when failures do not count while it is starting.
    start_until: Instant,
    /// Failures in a row.
    failures: u32,
    /// The probe that has not been answered.
    probe: Option<u64>,
}

/// What the hub has to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Probe an object once.
    Probe {
        object: ObjectId,
        probe: u64,
        check: Check,
        timeout_ms: u32,
    },
    /// An object has become healthy or unhealthy.
    Became(ObjectId, HealthState),
}

impl Probing {
    pub(crate) fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop_front()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.first().map(|(at, _)| *at)
    }

    /// The program of an object runs, which is in that state as far as is known. Nothing changes
    /// for one that is probed already.
    pub(crate) fn begin(
        &mut self,
        now: Instant,
        object: ObjectId,
        health: &Health,
        state: &HealthState,
    ) {
        if self.table.contains_key(&object) {
            return;
        }
        let watched = Watched {
            health: health.clone(),
            state: state.clone(),
            start_until: now + millis(health.start_period_ms),
            failures: 0,
            probe: None,
        };
        // Ids are random: so are the parts of a pause that they tell.
        let part = u32::from(object.0[0]) << 8 | u32::from(object.0[1]);
        let first = watched.pause(now) * part / (1 << 16);
        self.due.insert((now + first, object));
        self.table.insert(object, watched);
    }

    /// The program of an object does not run any more, or is about to end.
    pub(crate) fn end(&mut self, object: ObjectId) {
        if self.table.remove(&object).is_some() {
            self.due.retain(|(_, other)| *other != object);
        }
    }

    /// What a probe said: why it failed, if it did.
    pub(crate) fn handle_probed(
        &mut self,
        now: Instant,
        object: ObjectId,
        probe: u64,
        outcome: Result<(), String>,
    ) {
        let watched = self.table.get_mut(&object);
        let Some(watched) = watched.filter(|it| it.probe == Some(probe)) else {
            return;
        };
        watched.probe = None;
        if let Some(state) = watched.heed(now, outcome) {
            self.actions.push_back(Action::Became(object, state));
        }
        self.due.insert((now + watched.pause(now), object));
    }

    /// Probes whose time has come.
    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        while let Some((at, object)) = self.due.first().copied()
            && at <= now
        {
            self.due.pop_first();
            let Some(watched) = self.table.get_mut(&object) else {
                continue;
            };
            self.last_probe += 1;
            watched.probe = Some(self.last_probe);
            self.actions.push_back(Action::Probe {
                object,
                probe: self.last_probe,
                check: watched.health.check.clone(),
                timeout_ms: watched.health.timeout_ms,
            });
        }
    }
}

impl Watched {
    /// How long after a probe the next one begins.
    fn pause(&self, now: Instant) -> Duration {
        let interval = millis(self.health.interval_ms);
        if self.is_excused(now) {
            interval.min(START_INTERVAL)
        } else {
            interval
        }
    }

    /// Whether failures do not count yet.
    fn is_excused(&self, now: Instant) -> bool {
        self.state == HealthState::Starting && now < self.start_until
    }

    /// Counts what a probe said; the state that it has become, if it is another.
    fn heed(&mut self, now: Instant, outcome: Result<(), String>) -> Option<HealthState> {
        let next = match outcome {
            Ok(()) => {
                self.failures = 0;
                HealthState::Healthy
            }
            Err(_) if self.is_excused(now) => return None,
            Err(mut why) => {
                self.failures = self.failures.saturating_add(1);
                if self.failures < self.health.retries {
                    return None;
                }
                why.truncate(why.floor_char_boundary(WHY_BYTES_MAX));
                HealthState::Unhealthy { why }
            }
        };
        let has_changed = self.state.word() != next.word();
        self.state = next.clone();
        has_changed.then_some(next)
    }
}

fn millis(millis: u32) -> Duration {
    Duration::from_millis(millis.into())
}

#[cfg(test)]
mod tests {
    use alloc::string::ToString;
    use alloc::vec::Vec;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn object(number: u8) -> ObjectId {
        ObjectId([number; 16])
    }

    fn health() -> Health {
        Health::new(Check::Tcp { port: 80 })
    }

    /// One object that is probed for `seconds`; `works` says what is found when. Gives the states
    /// that it became, and when, and how many probes that took.
    fn check(
        state: &HealthState,
        seconds: u64,
        works: impl Fn(u64) -> bool,
    ) -> (Vec<(u64, &'static str)>, u32) {
        let mut probing = Probing::default();
        let begin = Instant::default();
        probing.begin(begin, object(0), &health(), state);
        let (mut became, mut probes) = (Vec::new(), 0);
        while let Some(now) = probing
            .poll_timeout()
            .filter(|at| *at < begin + SECOND * u32::try_from(seconds).unwrap())
        {
            probing.handle_timeout(now);
            let second = now.since(begin).as_secs();
            while let Some(action) = probing.poll_action() {
                match action {
                    Action::Probe { object, probe, .. } => {
                        probes += 1;
                        let said = works(second).then_some(()).ok_or("refused".to_string());
                        probing.handle_probed(now, object, probe, said);
                    }
                    Action::Became(_, state) => became.push((second, state.word())),
                }
            }
        }
        (became, probes)
    }

    #[test]
    fn a_program_that_comes_up_is_healthy_a_moment_later() {
        let (became, probes) = check(&HealthState::Starting, 20, |second| second >= 5);
        assert_eq!(became, [(5, "healthy")]);
        assert_eq!(probes, 7, "each second at first, then each interval");
    }

    #[test]
    fn failures_count_only_after_the_start_period() {
        let (became, _) = check(&HealthState::Starting, 60, |_| false);
        assert_eq!(became, [(50, "unhealthy")], "the third failure after 30 s");
    }

    #[test]
    fn a_healthy_program_is_believed_until_it_fails_often_enough_in_a_row() {
        let (became, _) = check(&HealthState::Healthy, 200, |second| {
            // Two failures, a success, then failures, then successes.
            !matches!(second, 10..30 | 40..100)
        });
        assert_eq!(became, [(60, "unhealthy"), (100, "healthy")]);
    }

    #[test]
    fn the_next_probe_waits_for_the_answer() {
        let mut probing = Probing::default();
        let now = Instant::default();
        probing.begin(now, object(0), &health(), &HealthState::Starting);
        probing.handle_timeout(now);
        let Some(Action::Probe { probe, .. }) = probing.poll_action() else {
            panic!("no probe");
        };
        assert_eq!(probing.poll_timeout(), None);
        probing.handle_probed(now, object(0), probe + 1, Ok(()));
        assert_eq!(probing.poll_timeout(), None, "an answer to another probe");
        probing.handle_probed(now, object(0), probe, Err("é".repeat(WHY_BYTES_MAX)));
        assert!(probing.poll_timeout().is_some());
    }

    #[test]
    fn an_answer_to_a_former_run_says_nothing() {
        let mut probing = Probing::default();
        let now = Instant::default();
        probing.begin(now, object(0), &health(), &HealthState::Starting);
        probing.handle_timeout(now);
        let Some(Action::Probe { probe, .. }) = probing.poll_action() else {
            panic!("no probe");
        };
        probing.end(object(0));
        assert_eq!(probing.poll_timeout(), None);
        probing.begin(now, object(0), &health(), &HealthState::Starting);
        probing.handle_probed(now, object(0), probe, Ok(()));
        assert_eq!(probing.poll_action(), None);
    }

    #[test]
    fn thousands_are_not_probed_at_the_same_instant() {
        let mut probing = Probing::default();
        let now = Instant::default();
        for number in 0..4096_u32 {
            let mut id = [0; 16];
            // As good as random, and the same each time.
            id[..4].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_be_bytes());
            probing.begin(now, ObjectId(id), &health(), &HealthState::Healthy);
        }
        let mut most = 0;
        for second in 1..=10 {
            probing.handle_timeout(now + SECOND * second);
            most = most.max(core::iter::from_fn(|| probing.poll_action()).count());
        }
        assert!(most < 450, "{most} in one second of ten");
    }
}
