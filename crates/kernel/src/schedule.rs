//! When an app with a schedule runs next: arithmetic with wall-clock times.
//!
//! What it is not: it knows no app and begins nothing. The hub tells it up to when all is settled,
//! and begins what is due.
//!
//! The wall clock may be wrong, and may be set. What was heeded of a schedule is a moment of some
//! node's wall clock; when that lies ahead of this node's, one of the two is wrong, and nobody knows
//! which. By a little ([`trust`]), the schedule waits until the moment has passed, so that nothing
//! runs twice. By more, the clock was far off when it was written, and the schedule goes on from now.

mod cron;

use alloc::string::String;
use core::time::Duration;

use wire::id::UnixMillis;
use wire::job::{CRON_BYTES_MAX, EVERY_MS_RANGE, Schedule};

use cron::Cron;

/// What a clock may have been ahead so that nothing runs twice: as with cron, where the clock that
/// is set back by more is a correction, and summer time is not.
const AHEAD_MAX: Duration = Duration::from_secs(3 * 3600);

/// When a schedule is due for the first time after all that is settled, up to `heeded`; nothing when
/// it never is. It is in force `since` then, and the wall clock says `now`.
pub(crate) fn next(
    schedule: &Schedule,
    since: UnixMillis,
    heeded: Option<UnixMillis>,
    now: UnixMillis,
) -> Option<UnixMillis> {
    let settled = heeded.unwrap_or_default().max(since).0;
    let settled = if settled > now.0.saturating_add(trust(schedule)) {
        now.0
    } else {
        settled
    };
    match schedule {
        // Whatever the clock said when it ran, it ran.
        Schedule::At { at } => heeded.is_none_or(|heeded| heeded < *at).then_some(*at),
        Schedule::Every { interval_ms } => {
            let step = (*interval_ms).max(1);
            // The phase stays, whatever becomes of the clock.
            let beyond = (settled % step + step - since.0 % step) % step;
            Some(UnixMillis(settled.checked_add(step - beyond)?))
        }
        Schedule::Cron { expression } => Cron::parse(expression).ok()?.next(UnixMillis(settled)),
    }
}

/// How far ahead a moment may lie that was heeded, in thousandths of a second. Nobody waits longer
/// for what is due again and again than the time between two.
fn trust(schedule: &Schedule) -> u64 {
    let ahead_ms = u64::try_from(AHEAD_MAX.as_millis()).unwrap_or(u64::MAX);
    match schedule {
        Schedule::Every { interval_ms } => ahead_ms.min(*interval_ms),
        Schedule::At { .. } | Schedule::Cron { .. } => ahead_ms,
    }
}

/// What is wrong with a schedule, and what to write instead; nothing when it is right.
pub(crate) fn fault(schedule: &Schedule) -> Option<String> {
    match schedule {
        Schedule::At { .. } => None,
        Schedule::Every { interval_ms } if !EVERY_MS_RANGE.contains(interval_ms) => {
            Some(alloc::format!(
                "an app runs every second at most and every {} days at least, not every \
                 {interval_ms} ms: write for example every 10m; what is to run all the time needs \
                 no schedule but --restart always",
                EVERY_MS_RANGE.end() / 86_400_000,
            ))
        }
        Schedule::Every { .. } => None,
        Schedule::Cron { expression } if expression.len() > CRON_BYTES_MAX => Some(alloc::format!(
            "a cron expression has at most {CRON_BYTES_MAX} bytes"
        )),
        Schedule::Cron { expression } => Cron::parse(expression).err(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR_MS: u64 = 3_600_000;
    /// 2026-01-01, a Thursday.
    const NEW_YEAR: u64 = 1_767_225_600_000;

    fn at(ms: u64) -> Schedule {
        Schedule::At { at: UnixMillis(ms) }
    }

    fn every(interval_ms: u64) -> Schedule {
        Schedule::Every { interval_ms }
    }

    fn hourly() -> Schedule {
        Schedule::Cron {
            expression: "@hourly".into(),
        }
    }

    /// Times in thousandths of a second after the new year.
    fn check(schedule: &Schedule, since: u64, heeded: Option<u64>, now: u64, due: Option<u64>) {
        let time = |ms: u64| UnixMillis(NEW_YEAR + ms);
        let found = next(schedule, time(since), heeded.map(time), time(now));
        assert_eq!(found.map(|it| it.0 - NEW_YEAR), due, "{schedule:?}");
    }

    #[test]
    fn a_moment_is_due_once_however_late_and_whatever_the_clock_said() {
        let soon = at(NEW_YEAR + 5_000);
        check(&soon, 0, None, 1_000, Some(5_000));
        check(&soon, 6_000, None, HOUR_MS, Some(5_000));
        check(&soon, 0, Some(5_100), 6_000, None);
        // It ran while the clock was a year ahead.
        check(&soon, 0, Some(365 * 24 * HOUR_MS), 1_000, None);
    }

    #[test]
    fn an_interval_keeps_its_phase() {
        check(&every(1_000), 300, None, 400, Some(1_300));
        check(&every(1_000), 300, Some(1_300), 1_350, Some(2_300));
        check(&every(1_000), 300, Some(7_777), 7_777, Some(8_300));
        // A schedule that was changed, or an app that was stopped: not at once.
        check(&every(1_000), 9_100, Some(1_300), 9_200, Some(10_100));
    }

    #[test]
    fn a_clock_that_was_set_back_repeats_nothing_and_stops_nothing() {
        // By an hour: what ran does not run again, and goes on an hour later.
        check(
            &hourly(),
            0,
            Some(5 * HOUR_MS),
            4 * HOUR_MS,
            Some(6 * HOUR_MS),
        );
        // By a day: it goes on now.
        check(
            &hourly(),
            0,
            Some(29 * HOUR_MS),
            4 * HOUR_MS,
            Some(5 * HOUR_MS),
        );
        check(
            &hourly(),
            29 * HOUR_MS,
            None,
            4 * HOUR_MS,
            Some(5 * HOUR_MS),
        );
        // What is due every second does not wait for an hour.
        check(&every(1_000), 0, Some(HOUR_MS), 1_100, Some(2_000));
        check(&every(1_000), HOUR_MS + 300, None, 1_100, Some(1_300));
    }

    #[test]
    fn a_schedule_that_nobody_can_mean_is_refused_with_what_to_write() {
        assert_eq!(fault(&every(1_000)), None);
        let refused = fault(&every(999)).expect("it is too short");
        assert!(refused.contains("write for example every 10m"), "{refused}");
        assert!(fault(&every(u64::MAX)).is_some());
        let long = "1,".repeat(CRON_BYTES_MAX);
        assert!(fault(&Schedule::Cron { expression: long }).is_some());
        assert_eq!(fault(&hourly()), None);
    }

    proptest! {
        /// What is due next is always after all that is settled, as far as that is believed, and
        /// for an interval never later than two of them from now.
        #[test]
        fn what_is_due_next_is_new_and_near(
            interval_ms in 1_000_u64..100_000_000, since: u32, heeded: u32, now: u32,
        ) {
            let time = |ms: u32| UnixMillis(NEW_YEAR + u64::from(ms));
            let (since, heeded, now) = (time(since), time(heeded), time(now));
            let schedule = every(interval_ms);
            let due = next(&schedule, since, Some(heeded), now).expect("it is always due again");
            let settled = since.max(heeded);
            let is_believed = settled.0 <= now.0 + trust(&schedule);
            let bound = if is_believed { settled } else { now };
            prop_assert!(due > bound);
            prop_assert!(due.0 <= settled.max(now).0 + 2 * interval_ms);
            prop_assert_eq!(due.0.abs_diff(since.0) % interval_ms, 0);
        }
    }
}
