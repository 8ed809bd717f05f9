//! Streams of several sources that are read together and, when they are followed, opened again
//! once they broke off.
//!
//! What it is not: it does not know what the sources are, and shows nothing. Its user says what
//! there is to be read ([`Wanted`]) and is given what was said, in order of time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use wire::stream::{Open, What};

use crate::context::Context;
use crate::failure::Failure;
use crate::merge::{Entry, Merge, Said};
use crate::output;

/// How often it is looked for sources that came or came back.
const LOOK_AGAIN: Duration = Duration::from_secs(2);
/// How long it may be unknown which sources there are: a node that is started again, a cloud that
/// finds a new supervisor.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be read.
#[derive(Debug)]
pub(crate) struct Wanted<K> {
    /// The same for the same source, whenever it is named.
    pub(crate) key: K,
    /// How it is opened for the first time.
    pub(crate) open: Open,
    /// The beginning of the sentence that says that it broke off.
    pub(crate) breaks_off: String,
    /// Whether it may have more to say, or be followed by another.
    pub(crate) goes_on: bool,
}

/// One stream of a source; a source that broke off has several, one after the other.
#[derive(Debug)]
struct Stream<K> {
    key: K,
    breaks_off: String,
    /// When what was read last was said, in microseconds since 1970.
    last_us: u64,
    /// Events end only with their node, and go on with it.
    is_endless: bool,
}

/// Sources being read.
pub(crate) struct Following<'a, K> {
    context: &'a Context,
    follow: bool,
    merge: Merge,
    streams: BTreeMap<usize, Stream<K>>,
    /// Sources that broke off, and when: to be opened again.
    broken: BTreeMap<K, u64>,
    /// Those of which the reader was told, and that have said nothing since.
    told: BTreeSet<K>,
    /// When it was looked for sources.
    looked: Instant,
    /// Since when it is not known which there are.
    lost: Option<Instant>,
    /// Whether something that cannot be opened again broke off.
    pub(crate) failed: bool,
}

impl<'a, K: Copy + Ord> Following<'a, K> {
    /// Nothing yet.
    pub(crate) fn new(context: &'a Context, follow: bool) -> Self {
        Self {
            context,
            follow,
            merge: Merge::new(&context.client, follow),
            streams: BTreeMap::new(),
            broken: BTreeMap::new(),
            told: BTreeSet::new(),
            looked: Instant::now(),
            lost: None,
            failed: false,
        }
    }

    /// Opens what is not read yet, and what broke off.
    pub(crate) fn add(&mut self, all: Vec<Wanted<K>>) {
        for wanted in all {
            let broke_off_us = self.broken.remove(&wanted.key);
            let is_known = self.streams.values().any(|it| it.key == wanted.key);
            if is_known && broke_off_us.is_none() {
                continue;
            }
            let last_us = broke_off_us.unwrap_or(0);
            let stream = Stream {
                key: wanted.key,
                breaks_off: wanted.breaks_off,
                last_us,
                is_endless: matches!(wanted.open.what, What::Events { .. }),
            };
            let number = self.merge.add(open_after(wanted.open, last_us));
            self.streams.insert(number, stream);
        }
    }

    /// What comes next, with the key of its source; empty once all has ended. `look` says what
    /// there is to be read now.
    pub(crate) async fn next(
        &mut self,
        mut look: impl AsyncFnMut() -> Result<Vec<Wanted<K>>, Failure>,
    ) -> Result<Vec<(K, Entry)>, Failure> {
        loop {
            let entries = if self.follow {
                self.followed(&mut look).await?
            } else {
                self.merge.next().await
            };
            let is_over = entries.is_empty();
            let said: Vec<_> = entries.into_iter().filter_map(|it| self.note(it)).collect();
            if is_over || !said.is_empty() {
                return Ok(said);
            }
        }
    }

    async fn followed(
        &mut self,
        look: &mut impl AsyncFnMut() -> Result<Vec<Wanted<K>>, Failure>,
    ) -> Result<Vec<Entry>, Failure> {
        let mut is_waiting = !self.broken.is_empty();
        loop {
            let due = self.looked + LOOK_AGAIN;
            if self.merge.living() > 0 {
                if Instant::now() < due
                    && let Ok(entries) = timeout_at(due, self.merge.next()).await
                {
                    return Ok(entries);
                }
            } else if is_waiting {
                sleep_until(due).await;
            }
            self.looked = Instant::now();
            match look().await {
                Ok(all) => {
                    self.lost = None;
                    let goes_on = all.iter().any(|it| it.goes_on);
                    self.add(all);
                    if self.merge.living() == 0 && !goes_on {
                        return Ok(Vec::new());
                    }
                }
                Err(failure) => self.note_lost(failure)?,
            }
            is_waiting = true;
        }
    }

    /// It is not known now what there is; the reader is told once.
    fn note_lost(&mut self, failure: Failure) -> Result<(), Failure> {
        let Some(since) = self.lost else {
            self.lost = Some(Instant::now());
            let text = format!("it is not known what else there is: {}", failure.detail);
            output::warn(self.context.screen, &text);
            return Ok(());
        };
        // What can still be read goes on.
        if self.merge.living() == 0 && since.elapsed() > PATIENCE {
            return Err(failure);
        }
        Ok(())
    }

    /// Keeps in mind how far a source was read; gives back what is to be shown.
    fn note(&mut self, entry: Entry) -> Option<(K, Entry)> {
        let stream = self.streams.get_mut(&entry.source)?;
        let key = stream.key;
        match &entry.what {
            Said::Log(..) | Said::Event(_) => {
                stream.last_us = entry.at_us;
                self.told.remove(&key);
                return Some((key, entry));
            }
            Said::Failed(failure) => {
                // One that is not back yet breaks off again and again.
                if self.told.insert(key) {
                    let text = format!("{}: {}", stream.breaks_off, failure.detail);
                    output::warn(self.context.screen, &text);
                }
                if self.follow {
                    self.broken.insert(key, stream.last_us);
                } else {
                    self.failed = true;
                }
            }
            Said::Ended if self.follow && stream.is_endless => {
                self.broken.insert(key, stream.last_us);
            }
            Said::Ended => {}
        }
        None
    }
}

/// How a source is opened of which everything up to this time was read; nothing when 0.
fn open_after(mut open: Open, last_us: u64) -> Open {
    if last_us == 0 {
        return open;
    }
    let after = Some(last_us / 1000 + 1);
    match &mut open.what {
        What::Logs {
            tail_lines,
            since_ms,
            ..
        } => (*tail_lines, *since_ms) = (None, after),
        What::Events { since_ms, .. } => *since_ms = after,
        What::Attach { .. }
        | What::Exec { .. }
        | What::Probe { .. }
        | What::Read { .. }
        | What::Write { .. } => {}
    }
    open
}

#[cfg(test)]
mod tests {
    use wire::id::{NodeId, ObjectId};

    use super::*;

    /// A log that broke off before it said anything was shown from its beginning, whatever was
    /// asked for.
    #[test]
    fn what_broke_off_goes_on_where_it_was_and_what_said_nothing_begins_again() {
        let open = |tail_lines, since_ms| Open {
            node: NodeId([0; 32]),
            object: ObjectId([0; 16]),
            what: What::Logs {
                follow: true,
                tail_lines,
                since_ms,
            },
        };
        let asked = open(Some(3), Some(2));
        assert_eq!(open_after(asked.clone(), 0), asked);
        assert_eq!(open_after(asked, 5_999), open(None, Some(6)));
    }
}
