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
//! the other side.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use drivers::exec;
use drivers::log::{Reader as LogReader, Record, Start, Stream as LogStream};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use wire::call::{Problem, ProblemCode};
use wire::fact::{Exit, ExitReason};
use wire::id::{NodeId, ObjectId};
use wire::stream::{Frame, Kind, LOG_PREFIX_BYTES, Open, What};

use crate::events::Events;
use crate::frames::{FrameReader, failure, write_frame};
use crate::links::{Links, OpenError};
use crate::metrics::Metrics;
use crate::shims::{self, Shims};

/// Streams that may be open on a node at one time.
pub(crate) const STREAMS_MAX: usize = 1024;
/// How long a caller may take to say what it wants.
const OPENING: Duration = Duration::from_secs(10);
/// What is copied at a time.
const BUFFER_BYTES: usize = 16 * 1024;
/// Log records that wait for a slow caller.
const RECORDS_WAITING_MAX: usize = 8;

/// A stream of bytes in both directions.
pub(crate) trait Bytes: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Bytes for T {}

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
    pub(crate) async fn serve<S: Bytes>(&self, stream: S, caller: Caller) {
        self.metrics.stream();
        let mut reader = FrameReader::new(stream);
        let Ok(first) = timeout(OPENING, reader.next()).await else {
            return;
        };
        let open = match first {
            Ok(Some(frame)) if frame.kind == Kind::Open => decode_open(&frame),
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
        open: &Open,
        caller: Caller,
    ) -> Result<(), Problem> {
        let is_here = open.node == self.here || open.node == NodeId([0; 32]);
        match (&open.what, is_here, caller) {
            (What::Events { follow, since_ms }, true, _) => {
                self.events(near, *follow, *since_ms).await;
                Ok(())
            }
            (_, true, _) => self.local(near, open).await,
            (_, false, Caller::Local) => self.remote(near, open).await,
            (_, false, Caller::Member) => Err(Problem::new(
                ProblemCode::NotFound,
                "the stream was sent to a node that does not host the object",
            )),
        }
    }

    async fn remote<S: Bytes>(&self, near: &mut Near<S>, open: &Open) -> Result<(), Problem> {
        let mut far = self.links.open(open.node).await.map_err(|error| {
            let node = open.node.short();
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
        let sent = write_frame(&mut far, &open_frame(open)).await;
        sent.map_err(|error| broken(&error))?;
        copy(near, far).await;
        Ok(())
    }

    async fn local<S: Bytes>(&self, near: &mut Near<S>, open: &Open) -> Result<(), Problem> {
        let _reader = self.shims.reader(open.object);
        self.shims.started(open.object).await;
        let directory = self.shims.directory(open.object);
        match shims::connect(&directory) {
            Ok(mut shim) => {
                let sent = write_frame(&mut shim, &open_frame(open)).await;
                sent.map_err(|error| broken(&error))?;
                copy(near, shim).await;
                Ok(())
            }
            Err(_ended) if directory.is_dir() => ended(near, directory, open).await,
            Err(_never_was) => Err(Problem::not_found("object here", &open.object.short())),
        }
    }

    async fn events<S: Bytes>(&self, near: &mut Near<S>, follow: bool, since_ms: Option<u64>) {
        let mut from = 0;
        loop {
            let (events, next) = self.events.since(from);
            from = next;
            for event in events {
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
/// near side does not take it any more.
async fn copy<N: Bytes, F: Bytes>(near: &mut Near<N>, far: F) {
    let (mut near_reader, mut near_writer) = tokio::io::split(&mut near.stream);
    let (mut far_reader, mut far_writer) = tokio::io::split(far);
    let early = std::mem::take(&mut near.early);
    let up = async {
        far_writer.write_all(&early).await?;
        copy_one_way(&mut near_reader, &mut far_writer).await?;
        far_writer.shutdown().await
    };
    let down = async {
        copy_one_way(&mut far_reader, &mut near_writer).await?;
        near_writer.shutdown().await
    };
    tokio::pin!(up, down);
    let mut up_ended = false;
    loop {
        tokio::select! {
            result = &mut down => {
                if let Err(error) = result {
                    tracing::debug!(%error, "a stream broke");
                }
                return;
            }
            result = &mut up, if !up_ended => {
                up_ended = true;
                if let Err(error) = result {
                    // The far side takes no more; it may still have something to say.
                    tracing::debug!(%error, "what a caller sends is not taken any more");
                }
            }
        }
    }
}

async fn copy_one_way<R, W>(from: &mut R, to: &mut W) -> std::io::Result<()>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let read = from.read(&mut buffer).await?;
        let Some(bytes) = buffer.get(..read).filter(|bytes| !bytes.is_empty()) else {
            return Ok(());
        };
        to.write_all(bytes).await?;
        to.flush().await?;
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
        What::Exec { .. } | What::Read { .. } | What::Write { .. } | What::Events { .. } => {
            return Err(has_ended(open.object));
        }
    };
    let path = directory.clone();
    let exit = blocking(move || exec::read_exit(&path)).await?;
    if let Some(start) = start {
        let (sender, mut records) = mpsc::channel::<std::io::Result<Record>>(RECORDS_WAITING_MAX);
        let since_us = since_ms.unwrap_or(0).saturating_mul(1000);
        let reading = spawn_blocking(move || read_log(&directory, start, since_us, &sender));
        while let Some(record) = records.recv().await {
            let record = record.map_err(|error| unreadable(&error))?;
            let frame = record_frame(&record, is_attached);
            if write_frame(&mut near.stream, &frame).await.is_err() {
                return Ok(());
            }
        }
        reading
            .await
            .map_err(|error| unreadable(&std::io::Error::other(error)))?;
    }
    let reason = exit.map_or(ExitReason::Lost, |Exit { reason, .. }| reason);
    near.end_with(&exit_frame(&reason)).await;
    Ok(())
}

fn read_log(
    directory: &std::path::Path,
    start: Start,
    since_us: u64,
    sender: &mpsc::Sender<std::io::Result<Record>>,
) {
    let mut reader = match LogReader::open(directory, start) {
        Ok(reader) => reader.since(since_us),
        Err(error) => return drop(sender.blocking_send(Err(error))),
    };
    while let Some(record) = reader.next_record().transpose() {
        let is_error = record.is_err();
        if sender.blocking_send(record).is_err() || is_error {
            return;
        }
    }
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

fn decode_open(frame: &Frame) -> Result<Open, Problem> {
    serde_json::from_slice(&frame.payload)
        .map_err(|error| invalid(format!("the Open frame cannot be read: {error}")))
}

fn open_frame(open: &Open) -> Frame {
    Frame::new(Kind::Open, &serde_json::to_vec(open).unwrap_or_default())
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

fn unreadable(error: &std::io::Error) -> Problem {
    let text = format!("what the object left cannot be read: {error}");
    Problem::new(ProblemCode::Internal, text).remedy("welkin doctor")
}
