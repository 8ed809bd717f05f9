//! The clocks of the shim: it is a process of its own, so nobody can pass it the time.
#![expect(
    clippy::disallowed_methods,
    reason = "a shim is its own world and reads its own clock"
)]

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};
use wire::id::UnixMillis;

/// For deadlines.
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// `CLOCK_BOOTTIME` in microseconds, which goes on while the machine sleeps. If it could not be
/// read, every deadline would have passed.
pub(crate) fn boot_micros() -> u64 {
    let read = clock_gettime(ClockId::CLOCK_BOOTTIME).map(Duration::from);
    read.map_or(u64::MAX, |time| {
        u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
    })
}

/// Since 1970-01-01 UTC; zero when the clock is before that.
pub(crate) fn since_epoch() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
}

/// The same in microseconds, for log records.
pub(crate) fn unix_micros() -> u64 {
    u64::try_from(since_epoch().as_micros()).unwrap_or(u64::MAX)
}

/// The same in milliseconds, for reports.
pub(crate) fn unix_millis() -> UnixMillis {
    UnixMillis(u64::try_from(since_epoch().as_millis()).unwrap_or(u64::MAX))
}
