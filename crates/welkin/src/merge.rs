//! Many streams of things with times, read as one in the order of time.
//!
//! Each stream is in order by itself. While all of them have an end, the merge is exact: the
//! earliest head goes first. While they are followed, what comes within a moment is put in order
//! and shown; a stream that lags longer is shown late rather than making all others wait.

use std::collections::BTreeMap;
use std::time::Duration;

use client::Client;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use wire::stream::{Frame, Kind, LOG_PREFIX_BYTES, Open};

use crate::failure::Failure;
use crate::session;

/// Entries of one stream that wait to be shown.
const QUEUE_ENTRIES: usize = 64;
/// Entries of all streams together that wait, while following.
const FOLLOWED_ENTRIES: usize = 4096;
/// How long nothing may come before what came is shown.
const QUIET: Duration = Duration::from_millis(40);
/// How long what came may wait for something earlier.
const LATENESS: Duration = Duration::from_millis(200);

/// One thing that a stream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Microseconds since 1970.
    pub(crate) at_us: u64,
    /// Which stream.
    pub(crate) source: usize,
    /// What.
    pub(crate) what: Said,
}

/// What a stream said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// A piece of a log: 1 for standard output, 2 for standard error, and the bytes.
    Log(u8, Vec<u8>),
    /// The JSON of an event.
    Event(Vec<u8>),
    /// It cannot go on.
    Failed(Failure),
    /// It has ended.
    Ended,
}

/// The streams, and the tasks that read them; dropping it ends them.
#[derive(Debug)]
pub(crate) struct Merge {
    client: Client,
    pumps: JoinSet<()>,
    sources: usize,
    queues: BTreeMap<usize, (Option<Entry>, Receiver<Entry>)>,
    followed: Option<Followed>,
    living: usize,
}

impl Merge {
    /// Nothing yet.
    pub(crate) fn new(client: &Client, follow: bool) -> Self {
        Self {
            client: client.clone(),
            pumps: JoinSet::new(),
            sources: 0,
            queues: BTreeMap::new(),
            followed: follow.then(Followed::new),
            living: 0,
        }
    }

    /// Opens one more stream; the number of it.
    pub(crate) fn add(&mut self, open: Open) -> usize {
        let source = self.sources;
        self.sources += 1;
        self.living += 1;
        let sender = if let Some(followed) = &self.followed {
            followed.sender.clone()
        } else {
            let (sender, receiver) = channel(QUEUE_ENTRIES);
            self.queues.insert(source, (None, receiver));
            sender
        };
        let client = self.client.clone();
        self.pumps
            .spawn(async move { pump(client, open, source, sender).await });
        source
    }

    /// How many streams have not ended.
    pub(crate) fn living(&self) -> usize {
        self.living
    }

    /// What comes next, in order of time; empty once all streams have ended. Cancel safe.
    pub(crate) async fn next(&mut self) -> Vec<Entry> {
        if self.living == 0 {
            return Vec::new();
        }
        let entries = match &mut self.followed {
            Some(followed) => followed.together().await,
            None => self.earliest().await,
        };
        let over = |entry: &&Entry| matches!(entry.what, Said::Ended | Said::Failed(_));
        self.living -= entries.iter().filter(over).count().min(self.living);
        entries
    }

    async fn earliest(&mut self) -> Vec<Entry> {
        for (head, receiver) in self.queues.values_mut() {
            if head.is_none() {
                *head = receiver.recv().await;
            }
        }
        self.queues.retain(|_, (head, _)| head.is_some());
        let at = |head: &Option<Entry>| head.as_ref().map_or(u64::MAX, |entry| entry.at_us);
        let first = self.queues.values_mut().min_by_key(|(head, _)| at(head));
        first
            .and_then(|(head, _)| head.take())
            .into_iter()
            .collect()
    }
}

/// Streams that go on.
#[derive(Debug)]
struct Followed {
    sender: Sender<Entry>,
    receiver: Receiver<Entry>,
    /// What came within this moment.
    waiting: Vec<Entry>,
}

impl Followed {
    fn new() -> Self {
        let (sender, receiver) = channel(FOLLOWED_ENTRIES);
        Self {
            sender,
            receiver,
            waiting: Vec::new(),
        }
    }

    /// What comes within a moment, in order.
    async fn together(&mut self) -> Vec<Entry> {
        if self.waiting.is_empty() {
            self.waiting.extend(self.receiver.recv().await);
        }
        let latest = Instant::now() + LATENESS;
        while self.waiting.len() < FOLLOWED_ENTRIES {
            let until = latest.min(Instant::now() + QUIET);
            match timeout_at(until, self.receiver.recv()).await {
                Ok(Some(entry)) => self.waiting.push(entry),
                Ok(None) | Err(_) => break,
            }
        }
        let mut entries = std::mem::take(&mut self.waiting);
        entries.sort_by_key(|entry| entry.at_us);
        entries
    }
}

async fn pump(client: Client, open: Open, source: usize, sender: Sender<Entry>) {
    let mut last_us = 0;
    let ended = async {
        let mut stream = client.open(open).await?;
        loop {
            let frame = stream.next().await.map_err(|error| broken(&error))?;
            let Some(frame) = frame else {
                return Err(Failure::new("a stream broke off before its end"));
            };
            let Some((at_us, what)) = read(&frame) else {
                return if frame.kind == Kind::Failure {
                    Err(session::failure(&frame))
                } else {
                    Ok(())
                };
            };
            // A clock that was set back does not reorder what one program wrote.
            last_us = at_us.max(last_us);
            let at_us = last_us;
            if sender
                .send(Entry {
                    at_us,
                    source,
                    what,
                })
                .await
                .is_err()
            {
                return Ok(());
            }
        }
    };
    let what = match ended.await {
        Ok(()) => Said::Ended,
        Err(failure) => Said::Failed(failure),
    };
    let at_us = if matches!(what, Said::Ended) {
        u64::MAX
    } else {
        last_us
    };
    // Whoever listened has left: nobody needs to know.
    drop(
        sender
            .send(Entry {
                at_us,
                source,
                what,
            })
            .await,
    );
}

fn broken(error: &std::io::Error) -> Failure {
    Failure::new(format!("a stream broke off: {error}"))
}

/// The time and content of a frame; `None` at the end of the stream.
fn read(frame: &Frame) -> Option<(u64, Said)> {
    match frame.kind {
        Kind::Log => {
            let (prefix, bytes) = frame.payload.split_first_chunk::<LOG_PREFIX_BYTES>()?;
            let (stream, time) = prefix.split_first()?;
            let at_us = u64::from_be_bytes(time.try_into().ok()?);
            Some((at_us, Said::Log(*stream, bytes.to_vec())))
        }
        Kind::Event => {
            let event: wire::call::Event = serde_json::from_slice(&frame.payload).ok()?;
            let at_us = event.at.0.saturating_mul(1000);
            Some((at_us, Said::Event(frame.payload.clone())))
        }
        // While following, the output comes as it is written and has no time of its own.
        Kind::Stdout => Some((now_us(), Said::Log(1, frame.payload.clone()))),
        Kind::Stderr => Some((now_us(), Said::Log(2, frame.payload.clone()))),
        Kind::Open
        | Kind::Stdin
        | Kind::StdinEnd
        | Kind::Resize
        | Kind::Signal
        | Kind::Exit
        | Kind::Failure
        | Kind::Data
        | Kind::DataEnd
        | Kind::ShimRequest
        | Kind::ShimReport => None,
    }
}

fn now_us() -> u64 {
    crate::clock::now().0.saturating_mul(1000)
}
