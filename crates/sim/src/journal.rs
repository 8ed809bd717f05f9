//! What happened, as kernels say it: named events and alarms, for people who read a transcript or
//! look for the cause of a failure.

use std::collections::VecDeque;
use std::fmt;

use kernel::instant::Instant;

/// Entries kept.
const ENTRIES_MAX: usize = 20_000;

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Counts up by one.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// The machine that says so.
    pub machine: String,
    /// What kind of thing: `node.up`, `object.running`, `machine.crashed`, `alarm`.
    pub kind: String,
    /// What it happened to.
    pub subject: String,
    /// In words.
    pub message: String,
}

impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.at.as_micros() / 1000;
        let (seconds, rest) = (millis / 1000, millis % 1000);
        let Self {
            machine,
            kind,
            subject,
            message,
            ..
        } = self;
        write!(
            f,
            "{seconds:>5}.{rest:03} {machine:<8} {kind:<18} {subject}  {message}"
        )
    }
}

/// The newest entries.
#[derive(Debug, Default)]
pub struct Journal {
    entries: VecDeque<Entry>,
    count: u64,
}

impl Journal {
    pub(crate) fn note(
        &mut self,
        at: Instant,
        machine: &str,
        (kind, subject, message): (&str, &str, &str),
    ) {
        self.count += 1;
        if self.entries.len() >= ENTRIES_MAX {
            self.entries.pop_front();
        }
        self.entries.push_back(Entry {
            number: self.count,
            at,
            machine: machine.to_string(),
            kind: kind.to_string(),
            subject: subject.to_string(),
            message: message.to_string(),
        });
    }

    /// How many entries there ever were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The entries after the first `seen`, as far as they are kept.
    pub fn since(&self, seen: u64) -> impl Iterator<Item = &Entry> {
        self.entries.iter().filter(move |it| it.number > seen)
    }

    /// The last few entries, a line each.
    #[must_use]
    pub fn tail(&self, lines: usize) -> String {
        let skipped = self.entries.len().saturating_sub(lines);
        let mut text = String::new();
        for entry in self.entries.iter().skip(skipped) {
            text.push_str(&format!("{entry}\n"));
        }
        text
    }
}
