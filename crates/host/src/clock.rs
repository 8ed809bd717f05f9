//! The clocks of the machine. The only place that reads them.
//!
//! What it is not: a timer. Whoever waits asks the runtime; this says what time it is.

use std::sync::OnceLock;

use kernel::instant::Instant;
use nix::time::{ClockId, clock_gettime};
use wire::id::UnixMillis;

/// What a clock that stands still in a sleep means.
pub(crate) const NO_TENURES: &str = "an app that never runs twice cannot run here: it needs a clock \
     that goes on while the machine sleeps, which the kernel has not (CLOCK_BOOTTIME)";

/// The time that the kernel counts with: `CLOCK_BOOTTIME`, which goes on while the machine sleeps
/// and never jumps.
#[must_use]
pub(crate) fn now() -> Instant {
    // Also where it stands still in a sleep, it is the same clock all the time.
    let time = clock_gettime(steady()).map(std::time::Duration::from);
    let time = time.unwrap_or_default();
    Instant::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

/// Whether [`now`] goes on while the machine sleeps. Where it does not, a moment of it means
/// nothing to a shim.
#[must_use]
pub(crate) fn counts_sleep() -> bool {
    steady() == ClockId::CLOCK_BOOTTIME
}

fn steady() -> ClockId {
    static STEADY: OnceLock<ClockId> = OnceLock::new();
    *STEADY.get_or_init(|| {
        let boot = ClockId::CLOCK_BOOTTIME;
        clock_gettime(boot).map_or(ClockId::CLOCK_MONOTONIC, |_time| boot)
    })
}

/// The time that people read. It may jump; no timer depends on it.
#[must_use]
#[expect(
    clippy::disallowed_methods,
    reason = "this module is where clocks are read"
)]
pub(crate) fn wall() -> UnixMillis {
    let since_1970 = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    UnixMillis(u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_the_kernel_never_goes_back() {
        let first = now();
        let second = now();
        assert!(second >= first && first.as_micros() > 0);
        assert!(counts_sleep(), "as every kernel since 2.6.39 does");
    }

    #[test]
    fn the_wall_clock_is_past_2020() {
        assert!(wall().0 > 1_577_836_800_000);
    }
}
