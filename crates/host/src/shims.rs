//! Carries out what the kernel wants of objects on this node, and tells what becomes of them.
//!
//! What it is not: it never decides to start or to end anything. One task per living object holds
//! its control connection; nothing of it matters to the object: when the daemon dies the shim goes
//! on, and the next daemon finds it ([`Shims::recover`]).
//!
//! # A task's conversation
//!
//! ```text
//! Launch ─► shim started, connected ─► Watch        *starting*
//!                            Running ◄─             *running*; Stop, Signal, Usage are passed on
//!                             Exited ◄─             *ended*: the task ends
//!   the connection breaks: the `exit` file says how the object ended; when there is none the
//!   shim died without a word: what is left is killed, and the object is `Lost`
//! ```

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drivers::exec::{self, FoundState};
use kernel::world::{Input, Token};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use wire::driver::{DriverReport, Launch, ShimReport, ShimRequest};
use wire::fact::{Exit, ExitReason, Usage};
use wire::id::ObjectId;
use wire::stream::{Frame, Kind, PAYLOAD_BYTES_MAX};

use crate::clock;
use crate::frames::{FrameReader, write_frame};
use crate::metrics::Metrics;

/// Commands that wait for one object's shim.
const COMMANDS_MAX: usize = 64;
/// How long a measurement waits for the slowest shim.
const MEASUREMENT: Duration = Duration::from_millis(1_000);
/// How long a shim that was found again may take to say how it is.
const RECOVERY: Duration = Duration::from_millis(1_000);
/// How long an object that is discarded waits for callers that still read its last words. The
/// shim serves them no longer than this either.
const LAST_WORDS: Duration = Duration::from_secs(6);

#[derive(Debug)]
enum Command {
    Stop { grace_ms: u32 },
    Signal { signal: u8 },
    Usage(oneshot::Sender<Usage>),
}

/// What is known of a living object.
#[derive(Debug)]
struct Holder {
    generation: u64,
    commands: mpsc::Sender<Command>,
    /// Becomes true once the shim can be connected to, or never will.
    started: watch::Receiver<bool>,
}

/// All objects of this node. Clones share them.
#[derive(Debug, Clone)]
pub(crate) struct Shims {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// The program whose `shim DIR` holds an object.
    program: PathBuf,
    objects: PathBuf,
    holders: Mutex<HashMap<ObjectId, Holder>>,
    generation: AtomicU64,
    /// Streams that are open to objects here.
    readers: watch::Sender<HashMap<ObjectId, usize>>,
    inputs: mpsc::Sender<Input>,
    tasks: TaskTracker,
    metrics: Metrics,
}

impl Shims {
    pub(crate) fn new(
        program: PathBuf,
        objects: PathBuf,
        inputs: mpsc::Sender<Input>,
        metrics: Metrics,
    ) -> Self {
        let shared = Shared {
            program,
            objects,
            holders: Mutex::default(),
            generation: AtomicU64::new(0),
            readers: watch::Sender::default(),
            inputs,
            tasks: TaskTracker::new(),
            metrics,
        };
        Self {
            shared: Arc::new(shared),
        }
    }

    /// Finds the objects that an earlier daemon left, and takes hold of those that live.
    pub(crate) async fn recover(&self) -> io::Result<Vec<(ObjectId, Option<DriverReport>)>> {
        let objects = self.shared.objects.clone();
        let scanned = spawn_blocking(move || exec::scan(&objects)).await;
        let mut survivors = Vec::new();
        for found in scanned.map_err(io::Error::other)?? {
            let object = found.launch.object;
            let report = match found.state {
                FoundState::Exited(exit) => Some(DriverReport::Exited(exit)),
                FoundState::Lost => Some(DriverReport::Exited(lost())),
                FoundState::Alive => match watch_shim(&found.directory).await {
                    Ok((mut shim, sender)) => {
                        let first = timeout(RECOVERY, shim.next_report()).await;
                        let report = first.ok().flatten();
                        if !matches!(report, Some(DriverReport::Exited(_))) {
                            self.hold_survivor(object, found.directory, shim, sender);
                        }
                        report
                    }
                    Err(_ended) => Some(DriverReport::Exited(how_it_ended(&found.directory))),
                },
            };
            survivors.push((object, report));
        }
        Ok(survivors)
    }

    /// Starts an object.
    pub(crate) fn launch(&self, launch: Launch) {
        let object = launch.object;
        let directory = self.directory(object);
        let (holder, commands, told) = self.add(object);
        let shims = self.clone();
        self.shared.tasks.spawn(async move {
            let (program, path) = (shims.shared.program.clone(), directory.clone());
            let launched = spawn_blocking(move || exec::launch(&program, &path, &launch)).await;
            let failure = match launched {
                Ok(Ok(_pid)) => match watch_shim(&directory).await {
                    Ok((shim, sender)) => {
                        told.send_replace(true);
                        shims.hold(object, &directory, shim, sender, commands).await;
                        None
                    }
                    Err(_ended_at_once) => {
                        let exit = how_it_ended(&directory);
                        Some(DriverReport::Exited(exit))
                    }
                },
                Ok(Err(error)) => Some(not_started(error.to_string())),
                Err(error) => Some(not_started(error.to_string())),
            };
            shims.forget(object, holder);
            told.send_replace(true);
            if let Some(report) = failure {
                shims.report(object, report).await;
            }
        });
    }

    /// Asks a program to end.
    pub(crate) fn stop(&self, object: ObjectId, grace_ms: u32) {
        self.command(object, Command::Stop { grace_ms });
    }

    /// Sends a signal to a program.
    pub(crate) fn signal(&self, object: ObjectId, signal: u8) {
        self.command(object, Command::Signal { signal });
    }

    /// Forgets an object that has ended, once nobody reads its last words any more.
    pub(crate) fn discard(&self, object: ObjectId) {
        let directory = self.directory(object);
        let mut readers = self.shared.readers.subscribe();
        self.shared.tasks.spawn(async move {
            let unread = readers.wait_for(|readers| !readers.contains_key(&object));
            if timeout(LAST_WORDS, unread).await.is_err() {
                tracing::debug!(%object, "a reader of a discarded object was too slow");
            }
            let removed = spawn_blocking(move || exec::remove(&directory)).await;
            if let Err(error) = removed.map_err(io::Error::other).flatten() {
                tracing::warn!(%object, %error, "what an object left could not be removed");
            }
        });
    }

    /// Measures what objects use and tells the kernel.
    pub(crate) fn measure(&self, token: Token, objects: Vec<ObjectId>) {
        let mut asked = Vec::new();
        for object in objects {
            let (told, usage) = oneshot::channel();
            self.command(object, Command::Usage(told));
            asked.push((object, usage));
        }
        let inputs = self.shared.inputs.clone();
        self.shared.tasks.spawn(async move {
            let until = tokio::time::Instant::now() + MEASUREMENT;
            let mut usages = Vec::new();
            for (object, usage) in asked {
                if let Ok(Ok(usage)) = tokio::time::timeout_at(until, usage).await {
                    usages.push((object, usage));
                }
            }
            if inputs
                .send(Input::Measured { token, usages })
                .await
                .is_err()
            {
                tracing::debug!("a measurement came after the end of the kernel");
            }
        });
    }

    /// Where the files of an object are.
    pub(crate) fn directory(&self, object: ObjectId) -> PathBuf {
        self.shared.objects.join(object.to_string())
    }

    /// Waits until an object that is being started can be connected to.
    pub(crate) async fn started(&self, object: ObjectId) {
        let started = self
            .holders()
            .get(&object)
            .map(|holder| holder.started.clone());
        if let Some(mut started) = started
            && started.wait_for(|started| *started).await.is_err()
        {
            tracing::debug!(%object, "its shim was not started");
        }
    }

    /// Counts a stream to an object while the value lives.
    pub(crate) fn reader(&self, object: ObjectId) -> Reader {
        self.shared
            .readers
            .send_modify(|readers| *readers.entry(object).or_default() += 1);
        Reader {
            shims: self.clone(),
            object,
        }
    }

    fn holders(&self) -> MutexGuard<'_, HashMap<ObjectId, Holder>> {
        self.shared
            .holders
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, object: ObjectId) -> (u64, mpsc::Receiver<Command>, watch::Sender<bool>) {
        let generation = self.shared.generation.fetch_add(1, Ordering::Relaxed);
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (told, started) = watch::channel(false);
        let holder = Holder {
            generation,
            commands,
            started,
        };
        let mut holders = self.holders();
        holders.insert(object, holder);
        self.shared.metrics.objects(holders.len());
        (generation, receiver, told)
    }

    /// Forgets a holder, unless the object was started again meanwhile.
    fn forget(&self, object: ObjectId, generation: u64) {
        let mut holders = self.holders();
        if holders
            .get(&object)
            .is_some_and(|holder| holder.generation == generation)
        {
            holders.remove(&object);
        }
        self.shared.metrics.objects(holders.len());
    }

    fn command(&self, object: ObjectId, command: Command) {
        let Some(commands) = self
            .holders()
            .get(&object)
            .map(|holder| holder.commands.clone())
        else {
            // It has ended: its end was told or is being told.
            return;
        };
        match commands.try_send(command) {
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full(Command::Stop { grace_ms })) => {
                // A request to end must not be lost because of a flood of signals.
                let stop = Command::Stop { grace_ms };
                self.shared.tasks.spawn(async move {
                    if commands.send(stop).await.is_err() {
                        tracing::debug!(%object, "it ended before it was asked to");
                    }
                });
            }
            Err(mpsc::error::TrySendError::Full(Command::Signal { .. } | Command::Usage(_))) => {
                tracing::debug!(%object, "a command was dropped: its shim is busy");
            }
        }
    }

    fn hold_survivor(&self, object: ObjectId, directory: PathBuf, shim: Shim, sender: Sender) {
        let (generation, commands, told) = self.add(object);
        told.send_replace(true);
        let shims = self.clone();
        self.shared.tasks.spawn(async move {
            shims.hold(object, &directory, shim, sender, commands).await;
            shims.forget(object, generation);
        });
    }

    /// Passes commands and reports on until the object has ended.
    async fn hold(
        &self,
        object: ObjectId,
        directory: &Path,
        mut shim: Shim,
        mut sender: Sender,
        mut commands: mpsc::Receiver<Command>,
    ) {
        let mut measurements: Vec<oneshot::Sender<Usage>> = Vec::new();
        let exit = loop {
            tokio::select! {
                report = shim.next() => match report {
                    Some(ShimReport::Running { pid, started, protections_off }) => {
                        let report = DriverReport::Running { pid, started, protections_off };
                        self.report(object, report).await;
                    }
                    Some(ShimReport::Exited(exit)) => break exit,
                    Some(ShimReport::Usage(usage)) => {
                        for waiting in measurements.drain(..) {
                            if waiting.send(usage).is_err() {
                                tracing::debug!(%object, "a measurement came too late");
                            }
                        }
                    }
                    None => break how_it_ended(directory),
                },
                Some(command) = commands.recv() => {
                    let request = match command {
                        Command::Stop { grace_ms } => ShimRequest::Stop { grace_ms },
                        Command::Signal { signal } => ShimRequest::Signal { signal },
                        Command::Usage(told) => {
                            measurements.push(told);
                            ShimRequest::Usage
                        }
                    };
                    // A broken connection shows on the other half.
                    if let Err(error) = send(&mut sender, &request).await {
                        tracing::debug!(%object, %error, "its shim takes no commands");
                    }
                }
            }
        };
        if exit.reason == ExitReason::Lost {
            tracing::warn!(%object, "its shim ended without a word");
            let directory = directory.to_path_buf();
            let killed = spawn_blocking(move || exec::kill_everything(&directory)).await;
            if !killed.unwrap_or(false) {
                tracing::error!(%object, "what a lost object left cannot be killed");
            }
        }
        self.report(object, DriverReport::Exited(exit)).await;
    }

    async fn report(&self, object: ObjectId, report: DriverReport) {
        if self
            .shared
            .inputs
            .send(Input::Driver { object, report })
            .await
            .is_err()
        {
            tracing::debug!(%object, "it reported after the end of the kernel");
        }
    }
}

/// A stream to an object, while it lives.
#[derive(Debug)]
pub(crate) struct Reader {
    shims: Shims,
    object: ObjectId,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.shims.shared.readers.send_modify(|readers| {
            let count = readers.get(&self.object).copied().unwrap_or(0);
            if count <= 1 {
                readers.remove(&self.object);
            } else {
                readers.insert(self.object, count - 1);
            }
        });
    }
}

type Sender = tokio::net::unix::OwnedWriteHalf;

/// The receiving half of a control connection.
struct Shim(FrameReader<OwnedReadHalf>);

impl Shim {
    /// The next report; `None` when the shim is gone or says what it must not.
    async fn next(&mut self) -> Option<ShimReport> {
        let frame = self.0.next().await.ok()??;
        if frame.kind != Kind::ShimReport {
            return None;
        }
        wire::decode(&frame.payload, PAYLOAD_BYTES_MAX).ok()
    }

    /// The next report about the object's state.
    async fn next_report(&mut self) -> Option<DriverReport> {
        loop {
            return match self.next().await? {
                ShimReport::Running {
                    pid,
                    started,
                    protections_off,
                } => Some(DriverReport::Running {
                    pid,
                    started,
                    protections_off,
                }),
                ShimReport::Exited(exit) => Some(DriverReport::Exited(exit)),
                ShimReport::Usage(_) => continue,
            };
        }
    }
}

/// Connects to the shim in `directory` as a stream of frames.
pub(crate) fn connect(directory: &Path) -> io::Result<UnixStream> {
    let stream = exec::connect(directory)?;
    stream.set_nonblocking(true)?;
    UnixStream::from_std(stream)
}

async fn watch_shim(directory: &Path) -> io::Result<(Shim, Sender)> {
    let (reader, mut sender) = connect(directory)?.into_split();
    send(&mut sender, &ShimRequest::Watch).await?;
    Ok((Shim(FrameReader::new(reader)), sender))
}

async fn send(sender: &mut Sender, request: &ShimRequest) -> io::Result<()> {
    let bytes = wire::encode(request).map_err(io::Error::other)?;
    write_frame(sender, &Frame::new(Kind::ShimRequest, &bytes)).await
}

fn lost() -> Exit {
    Exit {
        reason: ExitReason::Lost,
        at: clock::wall(),
    }
}

/// What the shim wrote before it went.
fn how_it_ended(directory: &Path) -> Exit {
    exec::read_exit(directory)
        .ok()
        .flatten()
        .unwrap_or_else(lost)
}

fn not_started(message: String) -> DriverReport {
    DriverReport::not_started(125, message, clock::wall())
}
