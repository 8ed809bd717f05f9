//! The clocks of the machine. The only place that reads them.
//!
//! What it is not: a timer. Whoever waits asks the runtime; this says what time it is.

use kernel::instant::Instant;
use nix::time::{ClockId, clock_gettime};
use wire::id::UnixMillis;

/// The time that the kernel counts with: `CLOCK_BOOTTIME`, which goes on while the machine sleeps
/// and never jumps.
#[must_use]
pub(crate) fn now() -> Instant {
    let read = clock_gettime(ClockId::CLOCK_BOOTTIME)
        .or_else(|_old_kernel| clock_gettime(ClockId::CLOCK_MONOTONIC));
    let time = read.map(std::time::Duration::from).unwrap_or_default();
    Instant::from_micros(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
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
    }

    #[test]
    fn the_wall_clock_is_past_2020() {
        assert!(wall().0 > 1_577_836_800_000);
    }
}
