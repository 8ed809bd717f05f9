//! What happened on this node lately: events for people, alarms for `welkin doctor`.
//!
//! What it is not: durable. Both are rings; the oldest entry makes room. Everything is also a
//! structured log line: events with the target `welkin::event`, alarms as errors.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use kernel::alarm::Alarm;
use tokio::sync::watch;
use wire::call::Event;
use wire::id::UnixMillis;

use crate::clock;
use crate::metrics::Metrics;

/// Events kept.
const EVENTS_MAX: usize = 4096;
/// An alarm and how often it was raised.
#[derive(Debug, Clone)]
pub(crate) struct Raised {
    pub(crate) alarm: Alarm,
    /// What was seen last.
    pub(crate) detail: String,
    pub(crate) count: u64,
    pub(crate) last: UnixMillis,
}

#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// The number of the first event that is kept.
    first: u64,
    /// Each at most once.
    alarms: Vec<Raised>,
}

/// The rings. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Events {
    kept: Arc<Mutex<Kept>>,
    /// The number that the next event gets.
    next: Arc<watch::Sender<u64>>,
    metrics: Metrics,
}

impl Events {
    pub(crate) fn new(metrics: Metrics) -> Self {
        Self {
            kept: Arc::default(),
            next: Arc::new(watch::Sender::new(0)),
            metrics,
        }
    }

    /// Something happened that people may want to know.
    pub(crate) fn push(&self, event: Event) {
        tracing::info!(
            target: "welkin::event",
            node = event.node,
            kind = event.kind,
            subject = event.subject,
            "{}",
            event.message
        );
        let next = {
            let mut kept = self.kept();
            if kept.events.len() == EVENTS_MAX {
                kept.events.pop_front();
                kept.first += 1;
            }
            kept.events.push_back(event);
            kept.first + u64::try_from(kept.events.len()).unwrap_or(u64::MAX)
        };
        self.next.send_replace(next);
    }

    /// Something happened that should be impossible.
    pub(crate) fn alarm(&self, alarm: Alarm, detail: String) {
        self.metrics.alarm(alarm);
        tracing::error!(alarm = alarm.name(), "{detail}");
        let last = clock::wall();
        let mut kept = self.kept();
        let known = kept.alarms.iter_mut().find(|it| it.alarm == alarm);
        if let Some(raised) = known {
            raised.count += 1;
            (raised.detail, raised.last) = (detail, last);
        } else {
            let count = 1;
            kept.alarms.push(Raised {
                alarm,
                detail,
                count,
                last,
            });
        }
    }

    /// All alarms since the node started.
    pub(crate) fn alarms(&self) -> Vec<Raised> {
        self.kept().alarms.clone()
    }

    /// How many events from number `from` on are not kept any more, those that are, and the number
    /// to go on with.
    pub(crate) fn since(&self, from: u64) -> (u64, Vec<Event>, u64) {
        let kept = self.kept();
        let lost = kept.first.saturating_sub(from);
        let skip = usize::try_from(from.saturating_sub(kept.first)).unwrap_or(usize::MAX);
        let events: Vec<Event> = kept.events.iter().skip(skip).cloned().collect();
        let next = kept.first + u64::try_from(kept.events.len()).unwrap_or(u64::MAX);
        (lost, events, next)
    }

    /// What a reader is told who was too slow for so many events. It is kept nowhere.
    pub(crate) fn lost(&self, count: u64) -> Event {
        let newest = self.kept().events.back().map(|event| event.node.clone());
        Event {
            at: clock::wall(),
            node: newest.unwrap_or_default(),
            kind: "events.lost".to_owned(),
            subject: count.to_string(),
            message: format!("{count} events were dropped before you had read them"),
        }
    }

    /// Tells when there is an event with a number that is not smaller than `next`.
    pub(crate) async fn wait_for(&self, next: u64) {
        let mut newest = self.next.subscribe();
        // The sender lives as long as `self`.
        if newest.wait_for(|newest| *newest > next).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(subject: &str) -> Event {
        Event {
            at: UnixMillis(0),
            node: "a".to_owned(),
            kind: "test".to_owned(),
            subject: subject.to_owned(),
            message: String::new(),
        }
    }

    #[test]
    fn the_oldest_events_make_room_and_a_reader_goes_on_where_it_was() {
        let events = Events::new(Metrics::default());
        for number in 0..EVENTS_MAX + 10 {
            events.push(event(&number.to_string()));
        }
        let (lost, all, next) = events.since(0);
        assert_eq!((lost, all.len()), (10, EVENTS_MAX));
        assert_eq!(all[0].subject, "10");
        assert_eq!(events.since(next), (0, vec![], next));
        events.push(event("new"));
        assert_eq!(events.since(next).1[0].subject, "new");
    }

    #[test]
    fn an_alarm_that_comes_again_is_counted_not_repeated() {
        let events = Events::new(Metrics::default());
        events.alarm(Alarm::DiskLost, "first".to_owned());
        events.alarm(Alarm::DiskLost, "second".to_owned());
        let alarms = events.alarms();
        assert_eq!((alarms.len(), alarms[0].count), (1, 2));
        assert_eq!(alarms[0].detail, "second");
    }
}
