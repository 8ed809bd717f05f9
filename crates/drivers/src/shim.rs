//! The process that holds one object: makes it, keeps its log, serves its callers, says how it
//! ended. The words are in [`wire::driver`] and [`wire::stream`].
//!
//! # Its life
//!
//! ```text
//! Preparing ── the program was executed ──► Running ── Stop ──► Stopping
//!     │                                        │                    │
//!     └───────── it could not be ──────────────┴──── it ended ──────┤
//!                                                                   ▼
//!             (Ending: only of an app that never runs twice: what is left is killed first)
//!                                                                   │
//!                               Exited: DIR/exit is written, what is left is killed
//!                                                                   │
//!                               Ended: nothing of the object runs; callers are served to the
//!                                      last byte, at most five seconds; control groups removed
//! ```
//!
//! One thread, one `poll` loop, no dependence on the daemon: it ignores SIGHUP and SIGPIPE, and
//! SIGTERM (a machine that shuts down) is a request to stop the object. Callers who want output
//! are positions in the log ([`crate::log`]), so none of them can delay the program or another
//! caller. When it is killed, its init and everything in the object die with it. An object of an
//! app that never runs twice is frozen and killed at moments that the shim keeps by itself
//! ([`tenure`]).
//!
//! What it is not: it never restarts anything and never talks to a network.

mod callers;
mod connection;
mod session;
mod tenure;

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{ForkResult, Pid, dup2_stdin, dup2_stdout, setsid};
use wire::driver::{Launch, ShimReport};
use wire::fact::{Exit, ExitReason};
use wire::id::UnixMillis;

use self::connection::Connection;
use self::session::{Ends, Session};
use self::tenure::Keeper;
use crate::cgroup::{self, Group};
use crate::clock;
use crate::directory::{CGROUPS, Directory};
use crate::limits::{CHUNK_BYTES, CLEANUP, FLUSH, SENTENCES_MAX};
use crate::log::{self, Record, Stream};
use crate::sandbox::init::{Init, kill_children};
use crate::sandbox::{self, Failure, Isolation, Message, Setup};
use crate::sys::{self, Ended};

/// Files that a program may have open unless it raises that itself: what a descriptor set of
/// select(2) holds.
const OPEN_FILES: u64 = 1024;
/// How often the removal of control groups is tried while the kernel still tears them down.
const CLEANUP_INTERVAL: Duration = Duration::from_millis(2);

/// Runs a shim to its end. Standard input is the socket on which it listens, as
/// [`crate::exec::launch`] has made it; standard error is where a panic would be read.
#[must_use]
pub fn main(directory: &Path) -> ExitCode {
    let directory = Directory::new(directory);
    match hold(&directory) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            complain(&failure.text);
            let Failure { code, text } = failure;
            let reason = ExitReason::NotStarted {
                code,
                message: text,
            };
            let exit = Exit {
                reason,
                at: clock::unix_millis(),
                asked: false,
            };
            match directory.write_exit(&exit) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::FAILURE,
            }
        }
    }
}

/// For whoever looks into the object's directory after something went wrong.
fn complain(text: &str) {
    // Nowhere else to say it.
    let _lost = writeln!(io::stderr(), "welkin shim: {text}");
}

fn hold(directory: &Directory) -> Result<(), Failure> {
    let (listener, signals) =
        become_shim().map_err(|error| Failure::setup("the shim cannot take its place", error))?;
    let launch = directory
        .read_launch()
        .map_err(|error| Failure::setup("the launch file cannot be read", error))?;
    directory
        .write_pids(&[nix::unistd::getpid().as_raw()])
        .map_err(|error| Failure::setup("the object's directory cannot be written", error))?;
    let log = log::Writer::open(directory.path(), launch.log_bytes_max)
        .map_err(|error| Failure::setup("the log cannot be opened", error))?;
    let keeper = launch.tenure.map(Keeper::new).transpose();
    let keeper = keeper.map_err(|error| Failure::setup("its tenure cannot be kept", error))?;
    let mut shim = Shim::new(directory.clone(), launch, listener, signals, log);
    shim.keeper = keeper;
    shim.start()?;
    shim.run().inspect_err(|_broken| {
        // Before it is written that it has ended.
        shim.kill_everything();
    })
}

/// Leaves the daemon: an own session, no inherited descriptors, its own signals.
fn become_shim() -> io::Result<(UnixListener, SignalFd)> {
    sys::close_range(3, libc::c_uint::MAX);
    // A session leader already when a service manager started it by hand: just as good.
    let _is_leader = setsid();
    umask(Mode::from_bits_truncate(0o077));
    // The daemon has raised its own; programs that use select(2) break above this. They may raise
    // it themselves.
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, soft.min(OPEN_FILES), hard)?;
    let listener = io::stdin().as_fd().try_clone_to_owned()?;
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    prctl::set_name(c"welkin-shim")?;
    prctl::set_child_subreaper(true)?;
    for signal in [Signal::SIGHUP, Signal::SIGPIPE, Signal::SIGTTOU] {
        sys::ignore_signal(signal);
    }
    let mut mask = SigSet::empty();
    [Signal::SIGCHLD, Signal::SIGTERM, Signal::SIGINT]
        .into_iter()
        .for_each(|s| mask.add(s));
    mask.thread_block()?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    Ok((
        callers::listener_of(listener)?,
        SignalFd::with_flags(&mask, flags)?,
    ))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Preparing,
    Running,
    Stopping,
    /// Of an app that never runs twice: how it ended is known and will be said once nothing of it
    /// is left, because whoever hears it may start the next one.
    Ending,
    /// How it ended is written; what is left is being killed.
    Exited,
    /// Nothing of the object runs any more.
    Ended,
}

/// The program, once it is about to run.
#[derive(Debug)]
struct Main {
    pid: Pid,
    process: Option<OwnedFd>,
    started: UnixMillis,
}

#[derive(Debug)]
struct Shim {
    directory: Directory,
    launch: Launch,
    phase: Phase,
    isolation: Isolation,
    protections_off: Vec<String>,
    group: Group,
    /// How many processes had been killed for want of memory when this run began: groups that
    /// could not be removed count on.
    memory_kills_before: u64,
    /// The shim itself has killed the program, so a lack of memory has not.
    has_killed: bool,
    init: Option<Pid>,
    init_process: Option<OwnedFd>,
    main: Option<Main>,
    setup: Option<Setup>,
    control: Option<UnixStream>,
    ends: Ends,
    log: log::Writer,
    /// Bytes of output so far.
    log_bytes: u64,
    log_has_failed: bool,
    exit: Option<Exit>,
    /// How it ended, while that is not said yet.
    ending: Option<Exit>,
    /// Of an app that never runs twice.
    keeper: Option<Keeper>,
    /// When what does not stop is killed.
    kill_at: Option<Instant>,
    /// When cleaning up, and serving callers, is given up.
    give_up_at: Option<Instant>,
    /// Until the door is closed.
    listener: Option<UnixListener>,
    signals: SignalFd,
    connections: BTreeMap<u64, Connection>,
    connections_made: u64,
    sessions: BTreeMap<u64, Session>,
    chunk: Vec<u8>,
}

/// Something that `poll` watches.
#[derive(Debug, Clone, Copy)]
enum Token {
    Tenure,
    Signals,
    Listener,
    Setup,
    Control,
    Output(usize),
    Input,
    Connection(u64),
    SessionSetup(u64),
    /// A session's streams; they are pumped after every turn.
    Session,
}

impl Shim {
    fn new(
        directory: Directory,
        launch: Launch,
        listener: UnixListener,
        signals: SignalFd,
        log: log::Writer,
    ) -> Self {
        Self {
            directory,
            launch,
            phase: Phase::Preparing,
            isolation: Isolation::None,
            protections_off: Vec::new(),
            group: Group::default(),
            memory_kills_before: 0,
            has_killed: false,
            init: None,
            init_process: None,
            main: None,
            setup: None,
            control: None,
            ends: Ends::default(),
            log,
            log_bytes: 0,
            log_has_failed: false,
            exit: None,
            ending: None,
            keeper: None,
            kill_at: None,
            give_up_at: None,
            listener: Some(listener),
            signals,
            connections: BTreeMap::new(),
            connections_made: 0,
            sessions: BTreeMap::new(),
            chunk: vec![0; CHUNK_BYTES],
        }
    }

    /// Starts init, then makes the control groups while init makes the root.
    fn start(&mut self) -> Result<(), Failure> {
        let scratch = self.directory.file(crate::directory::SCRATCH);
        fs::create_dir_all(&scratch)
            .map_err(|error| Failure::setup("its scratch directory cannot be made", error))?;
        let mut off = Vec::new();
        self.isolation = sandbox::detach(&mut off);
        let failed = |error: io::Error| Failure::setup("its first process cannot be made", error);
        let (setup, reporter) = Setup::pair().map_err(|error| failed(error.into()))?;
        let (control, inner) = UnixStream::pair().map_err(failed)?;
        let (streams, ends) = session::streams_of(&self.launch.program).map_err(failed)?;
        let init = match sys::fork().map_err(|error| failed(error.into()))? {
            ForkResult::Parent { child } => child,
            ForkResult::Child => {
                let (directory, launch) = (&self.directory, &self.launch);
                let isolation = self.isolation;
                Init {
                    directory,
                    launch,
                    isolation,
                    reporter,
                    control: inner,
                    streams,
                }
                .run()
            }
        };
        drop((reporter, inner, streams));
        self.ends = ends;
        self.setup = Some(setup);
        self.init = Some(init);
        self.init_process = sys::pidfd_open(init).ok();
        let entrances = self.make_groups(init, &mut off);
        self.protections_off.extend(off);
        // The program is not there yet, and will not be if it may not.
        self.keep_tenure();
        // Init may have failed and gone; its setup socket says why.
        let _gone = sandbox::send_files(&control, &entrances);
        self.control = Some(control);
        Ok(())
    }

    fn make_groups(&mut self, init: Pid, off: &mut Vec<String>) -> Vec<File> {
        self.group = Group::plan(&self.launch, off);
        if let Err(error) = fs::write(self.directory.file(CGROUPS), self.group.record()) {
            complain(&format!("the control groups cannot be recorded: {error}"));
        }
        self.group.create(&self.launch.resources, off);
        self.memory_kills_before = self.group.out_of_memory_kills();
        let attached = self.group.attach(init, off);
        if let Some(keeper) = &mut self.keeper {
            let freezer = match self.isolation {
                // A frozen init could not kill what a dead shim has left.
                Isolation::None => Err(io::Error::other("it has no namespaces of its own")),
                Isolation::Full | Isolation::Unprivileged => {
                    attached.and_then(|()| self.group.freezer())
                }
            };
            match freezer {
                Ok(freezer) => keeper.freezer = Some(freezer),
                Err(error) => off.push(format!("{}: {error}", cgroup::NOT_FROZEN)),
            }
        }
        self.group.entrances(off)
    }

    fn run(&mut self) -> Result<(), Failure> {
        loop {
            for (token, events) in self.wait()? {
                self.handle_event(token, events);
            }
            self.handle_time();
            let ids: Vec<u64> = self.connections.keys().copied().collect();
            ids.into_iter().for_each(|id| self.pump(id));
            self.tend_sessions();
            if self.phase == Phase::Ended && self.is_done() {
                self.close_door();
                if self.is_done() {
                    return Ok(());
                }
            }
        }
    }

    /// Everything that can happen next, and waits for the first of it.
    fn wait(&self) -> Result<Vec<(Token, PollFlags)>, Failure> {
        let (read, write) = (PollFlags::POLLIN, PollFlags::POLLOUT);
        let mut watched = Vec::new();
        let mut watch = |token, descriptor, events| {
            watched.push((token, PollFd::new(descriptor, events)));
        };
        // First, because it must not wait for what the others make this turn do.
        self.keeper
            .iter()
            .for_each(|k| watch(Token::Tenure, k.timer.as_fd(), read));
        watch(Token::Signals, self.signals.as_fd(), read);
        self.listener
            .iter()
            .for_each(|l| watch(Token::Listener, l.as_fd(), read));
        self.setup
            .iter()
            .for_each(|s| watch(Token::Setup, s.0.as_fd(), read));
        self.control
            .iter()
            .for_each(|c| watch(Token::Control, c.as_fd(), read));
        let waits_until = self.waits_until();
        for (which, output) in self.ends.outputs.iter().enumerate() {
            if waits_until.is_some() {
                break;
            }
            output
                .iter()
                .for_each(|o| watch(Token::Output(which), o.as_fd(), read));
        }
        self.ends
            .input
            .descriptor()
            .into_iter()
            .for_each(|i| watch(Token::Input, i.as_fd(), write));
        for (id, connection) in &self.connections {
            let mut events = PollFlags::empty();
            events.set(read, connection.wants_to_read());
            events.set(write, connection.wants_to_write());
            watch(Token::Connection(*id), connection.socket.as_fd(), events);
        }
        for (id, session) in &self.sessions {
            session
                .setup
                .iter()
                .for_each(|s| watch(Token::SessionSetup(*id), s.0.as_fd(), read));
            let has_room = self.connections.get(id).is_some_and(Connection::has_room);
            for output in session.ends.outputs.iter().flatten().filter(|_| has_room) {
                watch(Token::Session, output.as_fd(), read);
            }
            session
                .ends
                .input
                .descriptor()
                .into_iter()
                .for_each(|i| watch(Token::Session, i.as_fd(), write));
        }
        let (tokens, mut descriptors): (Vec<Token>, Vec<PollFd<'_>>) = watched.into_iter().unzip();
        match poll(&mut descriptors, self.timeout(waits_until)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Failure::setup("the shim cannot wait", error)),
        }
        let happened = tokens
            .into_iter()
            .zip(&descriptors)
            .filter_map(|(token, descriptor)| {
                let events = descriptor.revents()?;
                (!events.is_empty()).then_some((token, events))
            });
        Ok(happened.collect())
    }

    fn timeout(&self, waits_until: Option<Instant>) -> PollTimeout {
        let sessions = self.sessions.values().filter_map(|session| session.kill_at);
        let deadlines = sessions
            .chain(self.kill_at)
            .chain(self.give_up_at)
            .chain(waits_until);
        let left = deadlines
            .min()
            .map(|first| first.saturating_duration_since(clock::now()));
        // What is left in the groups is being buried, and nothing tells when that is done.
        let is_burying = match self.phase {
            Phase::Preparing | Phase::Running | Phase::Stopping => false,
            Phase::Ending | Phase::Exited => self.isolation == Isolation::None,
            Phase::Ended => true,
        };
        let interval = is_burying.then_some(CLEANUP_INTERVAL);
        let Some(left) = left.into_iter().chain(interval).min() else {
            return PollTimeout::NONE;
        };
        // Rounded up, so that it does not wake up just before its time.
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
    }

    fn handle_event(&mut self, token: Token, events: PollFlags) {
        match token {
            Token::Tenure => self.keep_tenure(),
            Token::Signals => self.handle_signals(),
            Token::Listener => self.accept(),
            Token::Setup => self.hear_setup(),
            Token::Control => self.hear_init(),
            Token::Output(which) => drop(self.take_output(which)),
            Token::Input => self.ends.input.pump(),
            Token::SessionSetup(id) => self.hear_session(id),
            Token::Session => {}
            Token::Connection(id) => {
                if events.contains(PollFlags::POLLIN) {
                    self.read_caller(id);
                }
                let is_gone = events.intersects(PollFlags::POLLHUP | PollFlags::POLLERR);
                if let Some(connection) = self.connections.get_mut(&id)
                    && is_gone
                    && (!events.contains(PollFlags::POLLIN) || connection.has_ended)
                {
                    connection.is_gone = true;
                }
            }
        }
    }

    fn handle_signals(&mut self) {
        while let Ok(Some(signal)) = self.signals.read_signal() {
            let number = i32::try_from(signal.ssi_signo).unwrap_or(0);
            if number == Signal::SIGTERM as i32 || number == Signal::SIGINT as i32 {
                self.stop(self.launch.stop.grace_ms);
            }
        }
        self.reap();
    }

    fn reap(&mut self) {
        while let Some(pid) = sys::ended_child() {
            let session = self.sessions.iter().find(|(_, s)| s.pid == pid);
            let session = session.map(|(id, _)| *id);
            let of_session = session.and_then(|id| self.sessions.get_mut(&id));
            of_session.into_iter().for_each(Session::bury);
            let Some((_, ended)) = sys::reap(Some(pid), false) else {
                return;
            };
            let reason = match ended {
                Ended::Code(code) => ExitReason::Code(code),
                Ended::Signal(signal) => ExitReason::Signal(signal),
            };
            if self.init == Some(pid) {
                self.hear_setup();
                self.hear_init();
                // Nothing was heard from it: it was killed, and all the others with it.
                self.init = None;
                self.end(ExitReason::Signal(9));
            }
            if let Some(id) = session {
                self.hear_session(id);
                self.sessions
                    .entry(id)
                    .and_modify(|session| session.conclude(reason));
            }
        }
    }

    /// What is said while the object is set up.
    fn hear_setup(&mut self) {
        while let Some(setup) = &self.setup {
            match setup.receive() {
                Ok(Some((Message::Off(sentence), _))) => {
                    if self.protections_off.len() < SENTENCES_MAX {
                        self.protections_off.push(sentence);
                    }
                }
                Ok(Some((Message::Failed { code, text }, _))) => {
                    self.main = None;
                    self.end(ExitReason::NotStarted {
                        code,
                        message: text,
                    });
                }
                Ok(Some((Message::Terminal(terminal), _))) => {
                    if let Err(error) = self.ends.set_terminal(terminal) {
                        complain(&format!("the terminal cannot be used: {error}"));
                    }
                }
                Ok(Some((Message::Starting, pid))) => {
                    let process = sys::pidfd_open(pid).ok();
                    self.main = Some(Main {
                        pid,
                        process,
                        started: clock::unix_millis(),
                    });
                }
                Err(Errno::EAGAIN | Errno::EINTR) => return,
                Ok(None) | Err(_) => {
                    self.setup = None;
                    self.running();
                }
            }
        }
    }

    fn running(&mut self) {
        let (Phase::Preparing | Phase::Stopping, Some(main)) = (self.phase, &self.main) else {
            return;
        };
        let pids = [nix::unistd::getpid().as_raw(), main.pid.as_raw()];
        if let Err(error) = self.directory.write_pids(&pids) {
            complain(&format!("the process ids cannot be recorded: {error}"));
        }
        let is_stopping = self.phase == Phase::Stopping;
        self.phase = Phase::Running;
        self.running_report()
            .iter()
            .for_each(|report| self.tell_watchers(report));
        if is_stopping {
            self.phase = Phase::Stopping;
            self.signal(i32::from(self.launch.stop.signal));
        }
    }

    /// Init says how the program ended, or is gone.
    fn hear_init(&mut self) {
        let Some(control) = &mut self.control else {
            return;
        };
        let mut status = [0; 2];
        if let Err(error) = control.set_nonblocking(true) {
            complain(&format!("init cannot be heard: {error}"));
        }
        match control.read_exact(&mut status) {
            Ok(()) => {}
            Err(error) if connection::is_not_now(&error) => return,
            Err(_) => {
                // The reaping of init concludes it.
                self.control = None;
                return;
            }
        }
        self.control = None;
        self.hear_setup();
        self.end(match status {
            [code, 0] => ExitReason::Code(code),
            [_, signal] => ExitReason::Signal(signal),
        });
    }

    /// The program has ended, or has to. How it did is said at once, but of an app that never runs
    /// twice when nothing of it is left.
    fn end(&mut self, reason: ExitReason) {
        if self.exit.is_some() || self.ending.is_some() {
            return;
        }
        let exit = Exit {
            reason,
            at: clock::unix_millis(),
            asked: self.phase == Phase::Stopping,
        };
        if self.keeper.is_none() {
            return self.conclude(exit);
        }
        self.phase = Phase::Ending;
        self.kill_at = None;
        self.ending = Some(exit);
        self.bury();
    }

    /// Kills what is left of an object whose end is not said yet, and says it when that is nothing.
    fn bury(&mut self) {
        let is_left = self.kill_everything();
        // A pid namespace ends last of all that was in it, and init is reaped after that.
        if !is_left && self.init.is_none() {
            let exit = self.ending.take();
            exit.into_iter().for_each(|exit| self.conclude(exit));
        }
    }

    /// Writes how the program ended, tells it, and kills what it left behind.
    fn conclude(&mut self, mut exit: Exit) {
        self.drain();
        let was_killed = exit.reason == ExitReason::Signal(9);
        // Without a limit of its own, the node may have been out of memory.
        let lacked_memory = || self.group.out_of_memory_kills() > self.memory_kills_before;
        if was_killed && !self.has_killed && lacked_memory() {
            exit.reason = ExitReason::OutOfMemory;
        }
        if let Err(error) = self.directory.write_exit(&exit) {
            complain(&format!("the exit cannot be recorded: {error}"));
        }
        self.tell_watchers(&ShimReport::Exited(exit.clone()));
        self.exit = Some(exit);
        self.phase = Phase::Exited;
        self.kill_at = None;
        self.give_up_at = Some(clock::now() + CLEANUP);
        self.kill_everything();
    }

    /// Kills the object. Returns whether it has to be called again.
    fn kill_everything(&self) -> bool {
        if self.isolation == Isolation::None {
            // What was orphaned has become a child of the shim, unless it is caught by its group.
            self.group.kill();
            return kill_children();
        }
        if let Some(init) = self.init {
            // Not reaped yet, so the number is still its own.
            let _gone = kill(init, Signal::SIGKILL);
        }
        false
    }

    fn drain(&mut self) {
        for which in [0, 1] {
            while self.take_output(which) {}
        }
    }

    /// Puts what the program wrote into the log. False when there is nothing (now).
    fn take_output(&mut self, which: usize) -> bool {
        let mut chunk = std::mem::take(&mut self.chunk);
        let bytes = self.ends.read(which, &mut chunk);
        let has_output = bytes.is_some();
        if let Some(bytes) = bytes {
            let stream = if which == 0 {
                Stream::Stdout
            } else {
                Stream::Stderr
            };
            self.record(stream, bytes);
        }
        self.chunk = chunk;
        has_output
    }

    fn record(&mut self, stream: Stream, bytes: &[u8]) {
        let time_us = clock::unix_micros();
        match self.log.append(stream, time_us, bytes) {
            Ok(()) => {
                self.log_bytes += u64::try_from(bytes.len()).unwrap_or(0);
                self.log_has_failed = false;
            }
            Err(error) => {
                if !std::mem::replace(&mut self.log_has_failed, true) {
                    complain(&format!("output cannot be logged: {error}"));
                }
                self.show_unlogged(&Record {
                    stream,
                    time_us,
                    payload: bytes.to_vec(),
                });
            }
        }
    }

    fn handle_time(&mut self) {
        let now = clock::now();
        if self.kill_at.is_some_and(|at| at <= now) {
            self.kill_at = None;
            self.has_killed = true;
            self.kill_everything();
        }
        if self.phase == Phase::Ending {
            self.bury();
        }
        if self.phase == Phase::Exited {
            let is_left = self.isolation == Isolation::None && self.kill_everything();
            let has_given_up = self.give_up_at.is_some_and(|at| at <= now);
            let has_sessions = self.sessions.values().any(|s| s.status.is_none());
            let is_running = is_left || self.init.is_some() || has_sessions;
            if !is_running || has_given_up {
                self.drain();
                self.phase = Phase::Ended;
                self.give_up_at = Some(now + FLUSH);
            }
        }
    }

    /// Whether the program has ended and no more output can come.
    fn is_complete(&self) -> bool {
        let has_no_writer = self.ends.outputs.iter().all(Option::is_none);
        self.phase == Phase::Ended || (self.phase == Phase::Exited && has_no_writer)
    }

    /// Whether callers have been served and nothing is left of the object.
    fn is_done(&mut self) -> bool {
        if self.isolation == Isolation::None {
            self.group.kill();
        }
        let is_clean = self.group.remove();
        let is_served = self
            .connections
            .values()
            .all(|connection| match connection.role {
                connection::Role::Control { .. } => !connection.wants_to_write(),
                // One that has come through the door is heard.
                connection::Role::New => false,
                connection::Role::Follow(_) | connection::Role::Session => false,
                connection::Role::Closing => !connection.wants_to_write(),
            });
        (is_clean && is_served) || self.give_up_at.is_some_and(|at| at <= clock::now())
    }

    /// Sends the program a signal.
    fn signal(&mut self, signal: i32) {
        let Some(main) = &self.main else { return };
        let kills = signal == Signal::SIGKILL as i32;
        self.has_killed |= kills;
        if kills && self.is_frozen() {
            // Init stands still too and would not notice. Other signals wait until it goes on.
            self.kill_everything();
            return;
        }
        let sent = match &main.process {
            Some(process) => sys::pidfd_send_signal(process.as_fd(), signal),
            None => sys::kill(main.pid, signal).map_err(io::Error::from),
        };
        // It has just ended, or there is no such signal.
        let _ignored = sent;
    }

    /// Asks the program to end. Asking again can only shorten the time it has.
    fn stop(&mut self, grace_ms: u32) {
        // It would not hear a signal, and must not be let go to hear one.
        let grace_ms = if self.is_frozen() { 0 } else { grace_ms };
        let kill_at = clock::now() + Duration::from_millis(u64::from(grace_ms));
        match self.phase {
            Phase::Ending | Phase::Exited | Phase::Ended => return,
            Phase::Preparing | Phase::Running => {
                self.phase = Phase::Stopping;
                // Without any time it would make no difference but to how the end looks.
                if grace_ms > 0 {
                    self.signal(i32::from(self.launch.stop.signal));
                }
            }
            Phase::Stopping => {}
        }
        self.kill_at = Some(self.kill_at.map_or(kill_at, |at| at.min(kill_at)));
    }

    fn running_report(&self) -> Option<ShimReport> {
        let main = self.main.as_ref().filter(|_| self.setup.is_none())?;
        Some(ShimReport::Running {
            pid: main.pid.as_raw().unsigned_abs(),
            started: main.started,
            protections_off: self.protections_off.clone(),
        })
    }

    /// What a new watcher must know.
    fn state_reports(&self) -> Vec<ShimReport> {
        let exited = self.exit.clone().map(ShimReport::Exited);
        self.running_report().into_iter().chain(exited).collect()
    }
}
