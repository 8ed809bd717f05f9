//! Which records are written as soon as they change, and which a moment later.
//!
//! A record is written and copied as a whole, so an app of a thousand objects that each start by
//! themselves would be written a thousand times, and what that costs grows with the square of the
//! count. What hosts say of their objects is not lost with this node: they say it again. So the
//! record of a long app may wait for more of it to come, the longer the more objects it has; that
//! of a short one does not wait.
//!
//! ```text
//! written ── changed within its pause ──► due ── the pause is over, or a wish changes ──► written
//! ```
//!
//! What it is not: it writes nothing. Promises rest on what is written, so a record that is due is
//! not safe.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::time::Duration;

use wire::id::AppId;

use crate::instant::Instant;

/// Objects whose record is written as soon as it changes.
const OBJECTS_AT_ONCE: usize = 50;
/// The pause after a record was written, for each so many objects. Writing 1,000 objects on three
/// guardians took 10 ms of processor in all, so that it takes a tenth of one at most.
const PAUSE: Duration = Duration::from_millis(5);

/// When records may be written again.
#[derive(Debug, Default)]
pub(crate) struct Pacing {
    /// Those of long apps that were written a moment ago, and until when they wait.
    paused: BTreeMap<AppId, Instant>,
    /// Those of them that have changed since.
    due: BTreeMap<AppId, Instant>,
}

impl Pacing {
    /// A record of so many objects is written now.
    pub(crate) fn written(&mut self, now: Instant, app: AppId, objects: usize) {
        self.due.remove(&app);
        let pauses = u32::try_from(objects / OBJECTS_AT_ONCE).unwrap_or(u32::MAX);
        if pauses > 0 {
            self.paused.insert(app, now + PAUSE.saturating_mul(pauses));
        } else {
            self.paused.remove(&app);
        }
    }

    /// Whether a record that has changed waits with being written; it is due later then.
    pub(crate) fn waits(&mut self, now: Instant, app: AppId) -> bool {
        let until = self.paused.get(&app).filter(|until| **until > now);
        if let Some(until) = until {
            self.due.insert(app, *until);
        }
        until.is_some()
    }

    /// Whether something of the app is not written yet.
    pub(crate) fn is_due(&self, app: AppId) -> bool {
        self.due.contains_key(&app)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// Apps whose pause is over and that have changed meanwhile.
    pub(crate) fn handle_timeout(&mut self, now: Instant) -> Vec<AppId> {
        self.paused.retain(|_, until| *until > now);
        let over = self.due.extract_if(.., |_, at| *at <= now);
        over.map(|(app, _)| app).collect()
    }

    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.due.values().min().copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_record_is_written_at_once_and_then_once_a_pause() {
        let app = AppId([7; 16]);
        let mut pacing = Pacing::default();
        let mut now = Instant::from_micros(1);
        let mut written = 0;
        // An object starts each millisecond, and changes the record.
        for _ in 0..950 {
            if !pacing.waits(now, app) {
                pacing.written(now, app, 1_000);
                written += 1;
            }
            now = now + Duration::from_millis(1);
            for due in pacing.handle_timeout(now) {
                pacing.written(now, due, 1_000);
                written += 1;
            }
        }
        assert_eq!(written, 10, "one each 100 ms");
        assert!(pacing.is_due(app), "the last change is still to be written");
        let over = pacing.poll_timeout().expect("it is due");
        assert_eq!(pacing.handle_timeout(over), [app]);
        assert!(pacing.is_empty());
    }

    #[test]
    fn a_short_record_never_waits() {
        let app = AppId([7; 16]);
        let mut pacing = Pacing::default();
        let now = Instant::from_micros(1);
        pacing.written(now, app, OBJECTS_AT_ONCE - 1);
        assert!(!pacing.waits(now, app));
    }
}
