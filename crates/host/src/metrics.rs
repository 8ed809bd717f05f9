//! Counters of the host, in the OpenMetrics text format.
//!
//! What it is not: a log. Names and labels are few and known; nothing that a caller sends becomes
//! a label.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64};
use std::time::Duration;

use kernel::alarm::Alarm;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::Registry;

/// The content type of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    path: &'static str,
    status: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabel {
    name: &'static str,
}

/// All counters. Clones count together.
#[derive(Clone)]
pub(crate) struct Metrics {
    registry: Arc<Registry>,
    calls: Family<CallLabels, Counter>,
    call_seconds: Histogram,
    commit_seconds: Histogram,
    alarms: Family<NameLabel, Counter>,
    inputs: Counter,
    datagrams_dropped: Counter,
    messages_undelivered: Counter,
    links: Gauge<i64, AtomicI64>,
    objects: Gauge<i64, AtomicI64>,
    streams: Counter<u64, AtomicU64>,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let calls = Family::default();
        let call_seconds = Histogram::new(exponential_buckets(0.000_1, 4.0, 10));
        let commit_seconds = Histogram::new(exponential_buckets(0.000_1, 2.0, 14));
        let alarms = Family::default();
        let inputs = Counter::default();
        let datagrams_dropped = Counter::default();
        let messages_undelivered = Counter::default();
        let links = Gauge::default();
        let objects = Gauge::default();
        let streams = Counter::default();

        let mut all = Registry::with_prefix("welkin");
        all.register("calls", "System calls answered", calls.clone());
        all.register("call_seconds", "Time to answer", call_seconds.clone());
        all.register(
            "disk_commit_seconds",
            "Time of a commit",
            commit_seconds.clone(),
        );
        all.register("alarms", "Things that should be impossible", alarms.clone());
        all.register("inputs", "Things that the kernel was told", inputs.clone());
        let help = "Datagrams that found no link or a full one";
        all.register("datagrams_dropped", help, datagrams_dropped.clone());
        let help = "Messages that could not be delivered";
        all.register("messages_undelivered", help, messages_undelivered.clone());
        all.register("links", "Open links to members", links.clone());
        all.register("objects", "Objects whose shims live", objects.clone());
        all.register("streams", "Streams opened", streams.clone());
        Self {
            registry: Arc::new(all),
            calls,
            call_seconds,
            commit_seconds,
            alarms,
            inputs,
            datagrams_dropped,
            messages_undelivered,
            links,
            objects,
            streams,
        }
    }
}

impl Metrics {
    /// A system call was answered.
    pub(crate) fn called(&self, path: &'static str, status: u16, took: Duration) {
        self.calls.get_or_create(&CallLabels { path, status }).inc();
        self.call_seconds.observe(took.as_secs_f64());
    }

    /// A group of batches became durable.
    pub(crate) fn committed(&self, took: Duration) {
        self.commit_seconds.observe(took.as_secs_f64());
    }

    /// Something impossible happened.
    pub(crate) fn alarm(&self, alarm: Alarm) {
        let name = alarm.name();
        self.alarms.get_or_create(&NameLabel { name }).inc();
    }

    /// The kernel was told something.
    pub(crate) fn input(&self) {
        self.inputs.inc();
    }

    /// A datagram was dropped.
    pub(crate) fn datagram_dropped(&self) {
        self.datagrams_dropped.inc();
    }

    /// A message was not delivered.
    pub(crate) fn message_undelivered(&self) {
        self.messages_undelivered.inc();
    }

    /// So many links are open.
    pub(crate) fn links(&self, count: usize) {
        self.links.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// So many shims live.
    pub(crate) fn objects(&self, count: usize) {
        self.objects.set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// A stream was opened.
    pub(crate) fn stream(&self) {
        self.streams.inc();
    }

    /// All of them, for a scraper.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        if encode(&mut text, &self.registry).is_err() {
            tracing::error!("metrics could not be written as text");
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_counted_is_in_the_text() {
        let metrics = Metrics::default();
        metrics.called("app/run", 200, Duration::from_millis(3));
        metrics.alarm(Alarm::DiskSetAside);
        let text = metrics.text();
        let line = r#"welkin_calls_total{path="app/run",status="200"} 1"#;
        assert!(text.contains(line), "{text}");
        assert!(
            text.contains(r#"welkin_alarms_total{name="disk-damaged"} 1"#),
            "{text}"
        );
        assert!(text.ends_with("# EOF\n"), "{text}");
    }
}
