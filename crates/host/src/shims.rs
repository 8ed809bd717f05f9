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
//!                            Running ◄─             *running*; Stop, Signal, Usage, Tenure are passed on
//!                             Exited ◄─             *ended*: the task ends
//!   the connection breaks: it is made again for as long as somebody listens there; when nobody
//!   does the `exit` file says how the object ended; when there is none the shim died without a
//!   word: what is left is killed, and the object is `Lost`
//! ```
//!
//! A tenure is never queued: the newest one is sent, and sent again first thing after connecting.
//!
//! That a connection cannot be made now (the shim is busy, this process has no descriptor left) or
//! that a report makes no sense says nothing about the object: it is never killed for it.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use drivers::exec::{self, Found, FoundState};
use kernel::world::{Input, Token};
use tokio::net::UnixStream;
use tokio::net::unix::OwnedReadHalf;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinSet, spawn_blocking};
use tokio::time::timeout;
use tokio_util::task::TaskTracker;
use wire::driver::{DriverReport, Launch, ShimReport, ShimRequest, Tenure};
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
/// Between two attempts to reach a shim.
const RECONNECT: Duration = Duration::from_millis(500);
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
    /// Of an app that never runs twice: the newest one.
    tenure: watch::Sender<Option<Tenure>>,
    /// Becomes true once the shim can be connected to, or never will.
    started: watch::Receiver<bool>,
}

/// What the task of an object is told.
#[derive(Debug)]
struct Wishes {
    commands: mpsc::Receiver<Command>,
    tenure: watch::Receiver<Option<Tenure>>,
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
        // All at once: one that does not answer must not add its second to the start.
        let mut looking = JoinSet::new();
        for found in scanned.map_err(io::Error::other)?? {
            looking.spawn(self.clone().recover_one(found));
        }
        let mut survivors = looking.join_all().await;
        survivors.sort_by_key(|(object, _)| *object);
        Ok(survivors)
    }

    async fn recover_one(self, found: Found) -> (ObjectId, Option<DriverReport>) {
        let (object, directory) = (found.launch.object, found.directory);
        let report = match found.state {
            FoundState::Exited(exit) => Some(DriverReport::Exited(exit)),
            FoundState::Lost => Some(DriverReport::Exited(lost())),
            FoundState::Alive => match timeout(RECOVERY, Control::open(&directory)).await {
                Ok(Some(mut control)) => {
                    let first = timeout(RECOVERY, control.next_report()).await;
                    let report = first.ok().flatten();
                    if !matches!(report, Some(DriverReport::Exited(_))) {
                        self.hold_survivor(object, directory, Some(control));
                    }
                    report
                }
                Ok(None) => Some(DriverReport::Exited(how_it_ended(&directory).await)),
                Err(_elapsed) => {
                    self.hold_survivor(object, directory, None);
                    None
                }
            },
        };
        (object, report)
    }

    /// Starts an object.
    pub(crate) fn launch(&self, launch: Launch) {
        let object = launch.object;
        let directory = self.directory(object);
        let (holder, wishes, told) = self.add(object);
        let shims = self.clone();
        self.shared.tasks.spawn(async move {
            let failure = match shims.start(&directory, launch).await {
                Ok(()) => {
                    // The socket is there already, whether or not this process can use it now.
                    told.send_replace(true);
                    shims.hold(object, &directory, None, wishes).await;
                    None
                }
                Err(why) => Some(not_started(why)),
            };
            shims.forget(object, holder);
            told.send_replace(true);
            if let Some(report) = failure {
                shims.report(object, report).await;
            }
        });
    }

    /// Starts a shim, or says why not.
    async fn start(&self, directory: &Path, launch: Launch) -> Result<(), String> {
        if launch.tenure.is_some() && !clock::counts_sleep() {
            return Err(clock::NO_TENURES.to_owned());
        }
        let (program, path) = (self.shared.program.clone(), directory.to_owned());
        let launched = spawn_blocking(move || exec::launch(&program, &path, &launch)).await;
        let launched = launched.map_err(|error| error.to_string())?;
        launched.map(drop).map_err(|error| error.to_string())
    }

    /// Says how long an object of an app that never runs twice may run. The newest one counts.
    pub(crate) fn tenure(&self, object: ObjectId, tenure: Tenure) {
        // One that is not there has ended: its end was told or is being told.
        if let Some(holder) = self.holders().get(&object) {
            holder.tenure.send_replace(Some(tenure));
        }
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

    fn add(&self, object: ObjectId) -> (u64, Wishes, watch::Sender<bool>) {
        let generation = self.shared.generation.fetch_add(1, Ordering::Relaxed);
        let (commands, receiver) = mpsc::channel(COMMANDS_MAX);
        let (tenure, newest) = watch::channel(None);
        let (told, started) = watch::channel(false);
        let holder = Holder {
            generation,
            commands,
            tenure,
            started,
        };
        let wishes = Wishes {
            commands: receiver,
            tenure: newest,
        };
        let mut holders = self.holders();
        holders.insert(object, holder);
        self.shared.metrics.objects(holders.len());
        (generation, wishes, told)
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

    fn hold_survivor(&self, object: ObjectId, directory: PathBuf, control: Option<Control>) {
        let (generation, wishes, told) = self.add(object);
        told.send_replace(true);
        let shims = self.clone();
        self.shared.tasks.spawn(async move {
            shims.hold(object, &directory, control, wishes).await;
            shims.forget(object, generation);
        });
    }

    /// Passes commands and reports on until the object has ended.
    async fn hold(
        &self,
        object: ObjectId,
        directory: &Path,
        mut control: Option<Control>,
        mut wishes: Wishes,
    ) {
        let mut told = Told::default();
        let exit = loop {
            let opened = match control.take() {
                Some(control) => Some(control),
                None => Control::open(directory).await,
            };
            let Some(opened) = opened else {
                break how_it_ended(directory).await;
            };
            let began = tokio::time::Instant::now();
            if let Some(exit) = self.converse(object, opened, &mut wishes, &mut told).await {
                break exit;
            }
            tracing::debug!(%object, "the connection to its shim broke");
            // At once, unless it was broken at once.
            tokio::time::sleep_until(began + RECONNECT).await;
        };
        self.report(object, DriverReport::Exited(exit)).await;
    }

    /// Uses one connection until the object has ended, which it returns, or the connection breaks.
    async fn converse(
        &self,
        object: ObjectId,
        mut control: Control,
        wishes: &mut Wishes,
        told: &mut Told,
    ) -> Option<Exit> {
        let mut measurements: Vec<oneshot::Sender<Usage>> = Vec::new();
        send_tenure(&mut control.sender, &mut wishes.tenure)
            .await
            .ok()?;
        if let Some(unsent) = &told.unsent {
            send(&mut control.sender, unsent).await.ok()?;
            told.unsent = None;
        }
        loop {
            tokio::select! {
                report = control.next() => match report? {
                    ShimReport::Running { pid, started, protections_off } => {
                        // A new connection begins with what the old one had said.
                        if told.running != Some(pid) {
                            told.running = Some(pid);
                            let report = DriverReport::Running { pid, started, protections_off };
                            self.report(object, report).await;
                        }
                    }
                    ShimReport::Exited(exit) => return Some(exit),
                    ShimReport::Usage(usage) => {
                        for waiting in measurements.drain(..) {
                            if waiting.send(usage).is_err() {
                                tracing::debug!(%object, "a measurement came too late");
                            }
                        }
                    }
                },
                Ok(()) = wishes.tenure.changed() => {
                    send_tenure(&mut control.sender, &mut wishes.tenure).await.ok()?;
                }
                Some(command) = wishes.commands.recv() => {
                    let request = match command {
                        Command::Stop { grace_ms } => ShimRequest::Stop { grace_ms },
                        Command::Signal { signal } => ShimRequest::Signal { signal },
                        Command::Usage(told) => {
                            measurements.push(told);
                            ShimRequest::Usage
                        }
                    };
                    if let Err(error) = send(&mut control.sender, &request).await {
                        tracing::debug!(%object, %error, "its shim takes no commands");
                        told.unsent = Some(request);
                        return None;
                    }
                }
            }
        }
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

/// What outlives one connection to a shim.
#[derive(Default)]
struct Told {
    /// The process that the kernel was told of.
    running: Option<u32>,
    /// What the last connection did not take.
    unsent: Option<ShimRequest>,
}

type Sender = tokio::net::unix::OwnedWriteHalf;

/// A control connection.
struct Control {
    reader: FrameReader<OwnedReadHalf>,
    sender: Sender,
}

impl Control {
    /// Connects to the shim and asks to be told, for as long as somebody listens there. `None` when
    /// nobody does.
    async fn open(directory: &Path) -> Option<Self> {
        loop {
            match watch_shim(directory).await {
                Ok(control) => return Some(control),
                Err(error) if exec::is_gone(&error) => return None,
                Err(error) => {
                    let path = directory.display();
                    tracing::warn!(%path, %error, "a shim cannot be reached now");
                }
            }
            tokio::time::sleep(RECONNECT).await;
        }
    }

    /// The next report; `None` when the connection broke. What cannot be understood is skipped: a
    /// shim of another version may say more.
    async fn next(&mut self) -> Option<ShimReport> {
        loop {
            let frame = self.reader.next().await.ok()??;
            match wire::decode(&frame.payload, PAYLOAD_BYTES_MAX) {
                Ok(report) if frame.kind == Kind::ShimReport => return Some(report),
                Ok(_) | Err(_) => tracing::warn!(kind = ?frame.kind, "a shim said something odd"),
            }
        }
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

async fn watch_shim(directory: &Path) -> io::Result<Control> {
    let (reader, mut sender) = connect(directory)?.into_split();
    send(&mut sender, &ShimRequest::Watch).await?;
    let reader = FrameReader::new(reader);
    Ok(Control { reader, sender })
}

async fn send(sender: &mut Sender, request: &ShimRequest) -> io::Result<()> {
    let bytes = wire::encode(request).map_err(io::Error::other)?;
    write_frame(sender, &Frame::new(Kind::ShimRequest, &bytes)).await
}

/// Sends the newest tenure, if there is one.
async fn send_tenure(
    sender: &mut Sender,
    newest: &mut watch::Receiver<Option<Tenure>>,
) -> io::Result<()> {
    let newest = *newest.borrow_and_update();
    match newest {
        Some(tenure) => send(sender, &ShimRequest::Tenure(tenure)).await,
        None => Ok(()),
    }
}

fn lost() -> Exit {
    Exit {
        reason: ExitReason::Lost,
        at: clock::wall(),
        asked: false,
    }
}

/// What the shim wrote before it went. When it wrote nothing, what is left of the object is killed.
async fn how_it_ended(directory: &Path) -> Exit {
    let directory = directory.to_path_buf();
    let looked = spawn_blocking(move || match exec::read_exit(&directory) {
        Ok(Some(exit)) => exit,
        Ok(None) | Err(_) => {
            let path = directory.display();
            tracing::warn!(%path, "a shim ended without a word");
            if !exec::kill_everything(&directory) {
                tracing::error!(%path, "what a lost object left cannot be killed");
            }
            lost()
        }
    });
    looked.await.unwrap_or_else(|_panic| lost())
}

fn not_started(message: String) -> DriverReport {
    DriverReport::not_started(125, message, clock::wall())
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use tokio::net::UnixListener as AsyncListener;
    use wire::id::UnixMillis;

    use super::*;

    /// An object whose shim is played by the test.
    struct Bed {
        _home: tempfile::TempDir,
        directory: PathBuf,
        object: ObjectId,
        shims: Shims,
        inputs: mpsc::Receiver<Input>,
        listener: AsyncListener,
    }

    impl Bed {
        fn new() -> Self {
            let home = tempfile::tempdir().unwrap();
            let object = ObjectId([4; 16]);
            let (to_inputs, inputs) = mpsc::channel(16);
            let objects = home.path().to_path_buf();
            let shims = Shims::new(
                "/nonexistent".into(),
                objects,
                to_inputs,
                Metrics::default(),
            );
            let directory = shims.directory(object);
            std::fs::create_dir(&directory).unwrap();
            let listener = UnixListener::bind(directory.join("shim.sock")).unwrap();
            listener.set_nonblocking(true).unwrap();
            let listener = AsyncListener::from_std(listener).unwrap();
            shims.hold_survivor(object, directory.clone(), None);
            Self {
                _home: home,
                directory,
                object,
                shims,
                inputs,
                listener,
            }
        }

        /// The next connection, which has asked to be told.
        async fn accept(&self) -> FrameReader<UnixStream> {
            let accepted = timeout(Duration::from_secs(5), self.listener.accept()).await;
            let mut reader = FrameReader::new(accepted.unwrap().unwrap().0);
            assert_eq!(request(&mut reader).await, ShimRequest::Watch);
            reader
        }

        async fn hears(&mut self) -> DriverReport {
            let heard = timeout(Duration::from_secs(5), self.inputs.recv()).await;
            let Some(Input::Driver { report, .. }) = heard.unwrap() else {
                panic!("a report was expected");
            };
            report
        }
    }

    async fn request(reader: &mut FrameReader<UnixStream>) -> ShimRequest {
        let frame = reader.next().await.unwrap().unwrap();
        wire::decode(&frame.payload, PAYLOAD_BYTES_MAX).unwrap()
    }

    async fn says(stream: &mut UnixStream, report: &ShimReport) {
        let bytes = wire::encode(report).unwrap();
        let frame = Frame::new(Kind::ShimReport, &bytes);
        write_frame(stream, &frame).await.unwrap();
    }

    fn running() -> ShimReport {
        ShimReport::Running {
            pid: 7,
            started: UnixMillis(1),
            protections_off: Vec::new(),
        }
    }

    fn exited() -> Exit {
        Exit {
            reason: ExitReason::Code(3),
            at: UnixMillis(2),
            asked: false,
        }
    }

    /// A broken connection and a report of a later version were each taken for the end of the
    /// shim, and the object was killed.
    #[tokio::test]
    async fn a_shim_that_is_not_understood_or_hangs_up_keeps_its_object() {
        let mut bed = Bed::new();
        let (mut shim, _) = bed.accept().await.into_parts();
        for kind in [Kind::ShimReport, Kind::Stdout] {
            let odd = Frame::new(kind, &[250, 1, 2]);
            write_frame(&mut shim, &odd).await.unwrap();
        }
        says(&mut shim, &running()).await;
        assert!(matches!(
            bed.hears().await,
            DriverReport::Running { pid: 7, .. }
        ));
        drop(shim);
        let mut reader = bed.accept().await;
        bed.shims.stop(bed.object, 5);
        let stop = ShimRequest::Stop { grace_ms: 5 };
        assert_eq!(request(&mut reader).await, stop);
        let (mut shim, _) = reader.into_parts();
        // Said before: the kernel is not told twice.
        says(&mut shim, &running()).await;
        says(&mut shim, &ShimReport::Exited(exited())).await;
        assert_eq!(bed.hears().await, DriverReport::Exited(exited()));
    }

    /// One that waited in a queue would let an object run on that has lost its right, or freeze
    /// one that has it.
    #[tokio::test]
    async fn only_the_newest_tenure_is_sent_and_again_to_every_connection() {
        let mut bed = Bed::new();
        let tenure = |freeze_at_us| Tenure {
            freeze_at_us,
            kill_at_us: freeze_at_us + 2,
        };
        bed.shims.tenure(bed.object, tenure(1));
        bed.shims.tenure(bed.object, tenure(2));
        let mut reader = bed.accept().await;
        assert_eq!(request(&mut reader).await, ShimRequest::Tenure(tenure(2)));
        bed.shims.tenure(bed.object, tenure(3));
        assert_eq!(request(&mut reader).await, ShimRequest::Tenure(tenure(3)));
        drop(reader);
        let mut reader = bed.accept().await;
        assert_eq!(request(&mut reader).await, ShimRequest::Tenure(tenure(3)));
        bed.shims.stop(bed.object, 5);
        let stop = ShimRequest::Stop { grace_ms: 5 };
        assert_eq!(request(&mut reader).await, stop);
        let (mut shim, _) = reader.into_parts();
        says(&mut shim, &ShimReport::Exited(exited())).await;
        assert_eq!(bed.hears().await, DriverReport::Exited(exited()));
    }

    #[tokio::test]
    async fn an_object_has_ended_once_nobody_listens_for_it() {
        let mut bed = Bed::new();
        let shim = bed.accept().await;
        let exit = wire::encode(&exited()).unwrap();
        std::fs::write(bed.directory.join("exit"), exit).unwrap();
        let (_, replaced) = (
            shim,
            AsyncListener::bind(bed.directory.join("other")).unwrap(),
        );
        drop(std::mem::replace(&mut bed.listener, replaced));
        assert_eq!(bed.hears().await, DriverReport::Exited(exited()));
    }

    /// Connecting waited in the kernel, on a thread that all tasks share, until the shim took one
    /// of those who waited before.
    #[tokio::test]
    async fn a_shim_that_accepts_nobody_is_busy_at_once() {
        let home = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(home.path().join("shim.sock")).unwrap();
        nix::sys::socket::listen(&listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let mut waiting = Vec::new();
        let error = loop {
            match connect(home.path()) {
                Ok(stream) => waiting.push(stream),
                Err(error) => break error,
            }
            assert!(waiting.len() < 8);
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        assert!(!exec::is_gone(&error));
    }
}
