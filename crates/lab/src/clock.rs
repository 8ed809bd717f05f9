//! The only place of the lab that reads the clock or waits for time to pass. It is not a timer: the
//! switch has its own, made by the kernel.

use std::time::{Duration, Instant};

/// The monotonic clock.
#[expect(
    clippy::disallowed_methods,
    reason = "the lab is the world that others are tested in: somebody has to read the clock"
)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// Asks `done` again and again until it says yes or `limit` has passed; true if it said yes.
///
/// For facts that the kernel announces to nobody, such as an empty cgroup.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel has no event for these conditions; each wait is a millisecond and bounded"
)]
pub(crate) fn poll_until(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let start = now();
    loop {
        if done() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
