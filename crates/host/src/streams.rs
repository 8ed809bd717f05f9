//! Streams of bytes between callers and objects: terminals, logs, files, events.
//!
//! What it is not: it does not look into the frames that it copies. The first one says where to.
//!
//! # Where a stream goes
//!
//! ```text
//! Open { node: another }             ─►  a stream on the link to that node, which does the rest
//! Open { node: this, what: Events }  ─►  the ring of this node
//! Open { node: this, object lives }  ─►  its shim
//! Open { node: this, object ended }  ─►  its log files, then how it ended
//! ```
//!
//! Copying has back-pressure: one small buffer each way, and nobody reads faster than the other
//! side writes. When the caller says that it will send no more, so is the object told, and what it
//! still says is copied; when the object's side ends, the stream ends. A caller that is gone closes
//! the other side, also while the object is silent: nobody would notice by writing.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use drivers::exec;
use drivers::log::{Reader as LogReader, Record, Start, Stream as LogStream};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use wire::call::{Problem, ProblemCode};
use wire::fact::{Exit, ExitReason};
use wire::id::{NodeId, ObjectId};
use wire::stream::{Frame, Kind, LOG_PREFIX_BYTES, Open, What};

use crate::events::Events;
use crate::frames::{FrameReader, failure, write_frame};
use crate::links::{LinkStream, Links, OpenError};
use crate::metrics::Metrics;
use crate::shims::{self, Shims};

/// Streams that may be open on a node at one time.
pub(crate) const STREAMS_MAX: usize = 1024;
/// How long a caller may take to say what it wants.
const OPENING: Duration = Duration::from_secs(10);
/// What is copied at a time.
const BUFFER_BYTES: usize = 16 * 1024;
/// Log records that are read at a time.
const RECORDS_MAX: usize = 64;
/// Between two looks at whether a local caller is still there.
pub(crate) const LOOK: Duration = Duration::from_secs(1);
/// How long what a caller sent before it left may take to reach the object.
const LINGER: Duration = Duration::from_secs(2);

/// Tells that a caller has left for good.
type Departure = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A stream of bytes in both directions.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {
    /// Ends once nobody is left on the other side who would read; may end for no other reason.
    fn departure(&self) -> Departure;
}

impl Bytes for UnixStream {
    /// The system tells a caller that closed from one that only sends no more, but it wakes
    /// nobody for it. So it is asked now and then.
    fn departure(&self) -> Departure {
        // A descriptor of its own: the stream is being read and written meanwhile.
        let socket = self.as_fd().try_clone_to_owned();
        Box::pin(async move {
            let Ok(socket) = socket else {
                return std::future::pending().await;
            };
            let mut looks = tokio::time::interval(LOOK);
            looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            loop {
                looks.tick().await;
                let mut asked = [PollFd::new(socket.as_fd(), PollFlags::empty())];
                let answered = poll(&mut asked, PollTimeout::ZERO);
                let seen = asked.first().and_then(PollFd::revents);
                if answered.is_ok() && seen.is_some_and(|seen| seen.contains(PollFlags::POLLHUP)) {
                    return;
                }
            }
        })
    }
}

impl Bytes for LinkStream {
    fn departure(&self) -> Departure {
        let stopped = self.stopped();
        Box::pin(stopped)
    }
}

/// What is needed to open streams.
#[derive(Debug, Clone)]
pub(crate) struct Streams {
    pub(crate) here: NodeId,
    pub(crate) links: Links,
    pub(crate) shims: Shims,
    pub(crate) events: Events,
    pub(crate) metrics: Metrics,
    /// As many as may be open at one time.
    pub(crate) places: Arc<Semaphore>,
}

/// Who opened a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A caller of this node's system calls.
    Local,
    /// A member, for one of its callers.
    Member,
}

impl Streams {
    /// Serves one stream to its end.
    pub(crate) async fn serve<S: Bytes>(&self, mut reader: FrameReader<S>, caller: Caller) {
        self.metrics.stream();
        let Ok(first) = timeout(OPENING, reader.next()).await else {
            return;
        };
        let open = match first {
            Ok(Some(frame)) if frame.kind == Kind::Open => Opening::of(frame),
            Ok(Some(_)) => Err(invalid("a stream begins with an Open frame".to_owned())),
            Ok(None) => return,
            Err(error) => Err(invalid(error.to_string())),
        };
        let (stream, early) = reader.into_parts();
        let mut near = Near { stream, early };
        let served = match (open, self.places.try_acquire()) {
            (Ok(open), Ok(_place)) => self.dispatch(&mut near, &open, caller).await,
            (Ok(_), Err(_full)) => {
                let text = format!("{STREAMS_MAX} streams are open on this node already");
                Err(Problem::new(ProblemCode::Busy, text).remedy("close some, or try again"))
            }
            (Err(problem), _) => Err(problem),
        };
        if let Err(problem) = served {
            near.end_with(&failure(&problem)).await;
        }
    }

    async fn dispatch<S: Bytes>(
        &self,
        near: &mut Near<S>,
        opening: &Opening,
        caller: Caller,
    ) -> Result<(), Problem> {
        let open = &opening.open;
        let is_here = open.node == self.here || open.node == NodeId([0; 32]);
        match (&open.what, is_here, caller) {
            (What::Events { follow, since_ms }, true, _) => {
                self.events(near, *follow, *since_ms).await;
                Ok(())
            }
            (_, true, _) => self.local(near, opening).await,
            (_, false, Caller::Local) => self.remote(near, opening).await,
            (_, false, Caller::Member) => Err(Problem::new(
                ProblemCode::NotFound,
                "the stream was sent to a node that does not host the object",
            )),
        }
    }

    async fn remote<S: Bytes>(&self, near: &mut Near<S>, opening: &Opening) -> Result<(), Problem> {
        let mut far = self.links.open(opening.open.node).await.map_err(|error| {
            let node = opening.open.node.short();
            match error {
                OpenError::Unknown => Problem::not_found("node", &node),
                OpenError::Unreachable => {
                    let text = format!("node {node}, which hosts the object, cannot be reached");
                    Problem::new(ProblemCode::Unreachable, text).remedy("welkin node ls")
                }
                OpenError::Busy => {
                    let text = format!("too many streams to node {node} are open");
                    Problem::new(ProblemCode::Busy, text).remedy("try again in a moment")
                }
            }
        })?;
        let sent = write_frame(&mut far, &opening.frame).await;
        sent.map_err(|error| broken(&error))?;
        copy(near, far).await;
        Ok(())
    }

    async fn local<S: Bytes>(&self, near: &mut Near<S>, opening: &Opening) -> Result<(), Problem> {
        let open = &opening.open;
        let _reader = self.shims.reader(open.object);
        self.shims.started(open.object).await;
        let directory = self.shims.directory(open.object);
        match shims::connect(&directory) {
            Ok(mut shim) => {
                let sent = write_frame(&mut shim, &opening.frame).await;
                sent.map_err(|error| broken(&error))?;
                copy(near, shim).await;
                Ok(())
            }
            Err(error) if !exec::is_gone(&error) => Err(unavailable(&error)),
            Err(_ended) if directory.is_dir() => ended(near, directory, open).await,
            Err(_never_was) => Err(Problem::not_found("object here", &open.object.short())),
        }
    }

    async fn events<S: Bytes>(&self, near: &mut Near<S>, follow: bool, since_ms: Option<u64>) {
        let (mut from, mut is_behind) = (0, false);
        loop {
            let (lost, events, next) = self.events.since(from);
            from = next;
            // What was there before this caller came is not lost, only old.
            let lost = (is_behind && lost > 0).then(|| self.events.lost(lost));
            is_behind = true;
            for event in lost.into_iter().chain(events) {
                if since_ms.is_some_and(|since_ms| event.at.0 < since_ms) {
                    continue;
                }
                let json = serde_json::to_vec(&event).unwrap_or_default();
                if write_frame(&mut near.stream, &Frame::new(Kind::Event, &json))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            if !follow {
                near.end_with(&exit_frame(&ExitReason::Code(0))).await;
                return;
            }
            tokio::select! {
                () = self.events.wait_for(from) => {}
                () = near.gone() => return,
            }
        }
    }
}

/// What a caller wants, and the frame that said so: it is passed on as it came.
struct Opening {
    open: Open,
    frame: Frame,
}

impl Opening {
    fn of(frame: Frame) -> Result<Self, Problem> {
        let open = serde_json::from_slice(&frame.payload)
            .map_err(|error| invalid(format!("the Open frame cannot be read: {error}")))?;
        Ok(Self { open, frame })
    }
}

/// The caller's side, with what was read of it beyond the first frame.
struct Near<S> {
    stream: S,
    early: Vec<u8>,
}

impl<S: Bytes> Near<S> {
    /// Says the last frame and closes; waits a little until the caller has closed too, so that
    /// what it is still sending does not destroy what it has not read yet.
    async fn end_with(&mut self, frame: &Frame) {
        let ending = async {
            write_frame(&mut self.stream, frame).await?;
            self.stream.shutdown().await
        };
        if ending.await.is_ok() && timeout(Duration::from_secs(2), self.gone()).await.is_err() {
            tracing::debug!("a caller did not close its stream");
        }
    }

    /// Returns when the caller sends no more; what it sends until then is dropped.
    async fn gone(&mut self) {
        let mut dropped = [0; 512];
        while matches!(self.stream.read(&mut dropped).await, Ok(read) if read > 0) {}
    }
}

/// Copies both ways until the far side has ended and everything it said was passed on, or the
/// near side is gone: dropping the far side then tells it.
async fn copy<N: Bytes, F: Bytes>(near: &mut Near<N>, far: F) {
    let mut departure = near.stream.departure();
    let (mut near_reader, mut near_writer) = tokio::io::split(&mut near.stream);
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    let early = std::mem::take(&mut near.early);
    let up = async {
        far_writer.write_all(&early).await.map_err(Broken::Sink)?;
        copy_one_way(&mut near_reader, &mut far_writer).await?;
        far_writer.shutdown().await.map_err(Broken::Sink)
    };
    let down = async {
        copy_one_way(&mut far_reader, &mut near_writer).await?;
        near_writer.shutdown().await.map_err(Broken::Sink)
    };
    tokio::pin!(up, down);
    let mut up_ended = false;
    loop {
        tokio::select! {
            result = &mut down => {
                if let Err(Broken::Source(error) | Broken::Sink(error)) = result {
                    tracing::debug!(%error, "a stream broke");
                }
                return;
            }
            result = &mut up, if !up_ended => match result {
                Ok(()) => up_ended = true,
                Err(Broken::Sink(error)) => {
                    // The far side takes no more; it may still have something to say.
                    tracing::debug!(%error, "what a caller sends is not taken any more");
                    up_ended = true;
                }
                Err(Broken::Source(error)) => {
                    tracing::debug!(%error, "a caller is gone");
                    return;
                }
            },
            () = &mut departure => {
                if !up_ended && timeout(LINGER, &mut up).await.is_err() {
                    tracing::debug!("what a caller sent before it left was not taken");
                }
                return;
            }
        }
    }
}

/// Which side of a copy failed.
enum Broken {
    Source(std::io::Error),
    Sink(std::io::Error),
}

async fn copy_one_way<R, W>(from: &mut R, to: &mut W) -> Result<(), Broken>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await.map_err(Broken::Source)?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        to.write_all(bytes).await.map_err(Broken::Sink)?;
        to.flush().await.map_err(Broken::Sink)?;
    }
}

/// Serves what an ended object left: its log and how it ended.
async fn ended<S: Bytes>(
    near: &mut Near<S>,
    directory: PathBuf,
    open: &Open,
) -> Result<(), Problem> {
    let (start, since_ms, is_attached) = match &open.what {
        What::Attach { replay: true, .. } => (Some(Start::Oldest), None, true),
        What::Attach { replay: false, .. } => (None, None, true),
        What::Logs {
            tail_lines,
            since_ms,
            ..
        } => {
            let start = tail_lines.map_or(Start::Oldest, Start::TailLines);
            (Some(start), *since_ms, false)
        }
        What::Exec { .. }
        | What::Probe { .. }
        | What::Read { .. }
        | What::Write { .. }
        | What::Events { .. } => {
            return Err(has_ended(open.object));
        }
    };
    let path = directory.clone();
    let exit = blocking(move || exec::read_exit(&path)).await?;
    if let Some(start) = start {
        let since_us = since_ms.unwrap_or(0).saturating_mul(1000);
        let open = move || LogReader::open(&directory, start);
        let mut reader = blocking(open).await?.since(since_us);
        loop {
            let (records, rest) = blocking(move || read_some(reader)).await?;
            for record in &records {
                let frame = record_frame(record, is_attached);
                if write_frame(&mut near.stream, &frame).await.is_err() {
                    return Ok(());
                }
            }
            if records.len() < RECORDS_MAX {
                break;
            }
            reader = rest;
        }
    }
    let reason = exit.map_or(ExitReason::Lost, |Exit { reason, .. }| reason);
    near.end_with(&exit_frame(&reason)).await;
    Ok(())
}

/// The next records; fewer than [`RECORDS_MAX`] are the last ones. The thread that reads is given
/// back before a caller takes them: a slow one must not hold it.
fn read_some(mut reader: LogReader) -> std::io::Result<(Vec<Record>, LogReader)> {
    let mut records = Vec::new();
    while records.len() < RECORDS_MAX
        && let Some(record) = reader.next_record()?
    {
        records.push(record);
    }
    Ok((records, reader))
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Problem> {
    let done = spawn_blocking(work)
        .await
        .map_err(std::io::Error::other)
        .flatten();
    done.map_err(|error| unreadable(&error))
}

fn exit_frame(reason: &ExitReason) -> Frame {
    Frame::new(Kind::Exit, &serde_json::to_vec(reason).unwrap_or_default())
}

fn record_frame(record: &Record, is_attached: bool) -> Frame {
    let kind = match (is_attached, record.stream) {
        (true, LogStream::Stdout) => Kind::Stdout,
        (true, LogStream::Stderr) => Kind::Stderr,
        (false, LogStream::Stdout | LogStream::Stderr) => Kind::Log,
    };
    if kind != Kind::Log {
        return Frame::new(kind, &record.payload);
    }
    let mut payload = Vec::with_capacity(LOG_PREFIX_BYTES + record.payload.len());
    payload.push(record.stream as u8);
    payload.extend_from_slice(&record.time_us.to_be_bytes());
    payload.extend_from_slice(&record.payload);
    Frame::new(kind, &payload)
}

fn invalid(detail: String) -> Problem {
    Problem::new(ProblemCode::Invalid, detail)
}

fn has_ended(object: ObjectId) -> Problem {
    let text = format!("object {} has ended", object.short());
    Problem::new(ProblemCode::Conflict, text).remedy("start its app again: welkin start APP")
}

fn broken(error: &std::io::Error) -> Problem {
    let text = format!("the connection to the object broke: {error}");
    Problem::new(ProblemCode::Unreachable, text).remedy("try again")
}

fn unavailable(error: &std::io::Error) -> Problem {
    let text = format!("the object cannot be reached now: {error}");
    Problem::new(ProblemCode::Busy, text).remedy("try again in a moment")
}

fn unreadable(error: &std::io::Error) -> Problem {
    let text = format!("what the object left cannot be read: {error}");
    Problem::new(ProblemCode::Internal, text).remedy("welkin doctor")
}
