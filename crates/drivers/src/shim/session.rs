//! One more process inside an object, for one caller: a further program, or a copy of files.
//!
//! It is a child of the shim, so the shim knows how it ends. A caller that goes away hangs up:
//! a program's process group gets SIGHUP and, as soon as the program has ended or a little later,
//! SIGKILL; a copy is killed at once, and so is a probe with all that came of it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{ForkResult, Pid, pipe2};
use wire::driver::Launch;
use wire::fact::ExitReason;
use wire::spec::Program;

use super::connection::is_not_now;
use crate::cgroup::Group;
use crate::clock;
use crate::limits::{HANGUP_GRACE, INPUT_BYTES_MAX};
use crate::sandbox::program::{self, Streams};
use crate::sandbox::{self, Failure, Isolation, Reporter, Setup, files, filter, init};
use crate::sys;

/// Bytes on their way to a program.
#[derive(Debug, Default)]
pub(super) struct Input {
    pipe: Option<File>,
    queue: Vec<u8>,
    /// There is no terminal yet: what comes has to wait.
    is_pending: bool,
    is_terminal: bool,
    has_ended: bool,
}

impl Input {
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < INPUT_BYTES_MAX
    }

    /// What to wait for while something is queued.
    pub(super) fn descriptor(&self) -> Option<&File> {
        self.pipe.as_ref().filter(|_| !self.queue.is_empty())
    }

    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.queue.extend_from_slice(bytes);
        self.pump();
    }

    pub(super) fn end(&mut self) {
        if self.is_terminal || self.is_pending {
            // What a person types to say that nothing more comes: end of transmission.
            return self.push(&[4]);
        }
        self.has_ended = true;
        self.pump();
    }

    fn open(&mut self, terminal: File) {
        *self = Self {
            pipe: Some(terminal),
            queue: std::mem::take(&mut self.queue),
            is_terminal: true,
            ..Self::default()
        };
        self.pump();
    }

    /// Writes what the program takes.
    pub(super) fn pump(&mut self) {
        while let (Some(pipe), false) = (&mut self.pipe, self.queue.is_empty()) {
            match pipe.write(&self.queue) {
                Ok(sent) => drop(self.queue.drain(..sent)),
                Err(error) if is_not_now(&error) => return,
                Err(_) => self.pipe = None,
            }
        }
        if self.is_pending {
            return;
        }
        self.queue = Vec::new();
        if self.has_ended {
            self.pipe = None;
        }
    }
}

/// The outer ends of a program's streams.
#[derive(Debug, Default)]
pub(super) struct Ends {
    pub(super) input: Input,
    pub(super) outputs: [Option<File>; 2],
    terminal: Option<File>,
    /// Rows and columns that were asked for before there was a terminal.
    size: Option<(u16, u16)>,
}

impl Ends {
    /// The terminal of the program has been opened.
    pub(super) fn set_terminal(&mut self, terminal: OwnedFd) -> io::Result<()> {
        set_nonblocking(&terminal)?;
        let terminal = File::from(terminal);
        self.outputs[0] = Some(terminal.try_clone()?);
        self.terminal = Some(terminal.try_clone()?);
        self.size
            .take()
            .into_iter()
            .for_each(|size| self.resize(size));
        if self.input.is_pending {
            self.input.open(terminal);
        }
        Ok(())
    }

    /// Tells the terminal its size, now or once there is one.
    pub(super) fn resize(&mut self, size: (u16, u16)) {
        match &self.terminal {
            // A terminal that refuses has just lost its program.
            Some(terminal) => drop(sys::resize(terminal.as_fd(), size.0, size.1)),
            None => self.size = Some(size),
        }
    }

    /// Reads from one output; `None` when there is nothing now or any more.
    pub(super) fn read<'a>(&mut self, which: usize, chunk: &'a mut [u8]) -> Option<&'a [u8]> {
        let output = self.outputs.get_mut(which)?;
        match output.as_mut()?.read(chunk) {
            Ok(length) if length > 0 => return Some(&chunk[..length]),
            Err(error) if is_not_now(&error) => return None,
            // A terminal that nobody holds any more gives an error; it means the same.
            Ok(_) | Err(_) => {}
        }
        *output = None;
        None
    }
}

pub(super) fn set_nonblocking(descriptor: &OwnedFd) -> nix::Result<()> {
    fcntl(descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map(|_| ())
}

/// Makes what a program needs: its ends and ours.
pub(super) fn streams_of(program: &Program) -> io::Result<(Streams, Ends)> {
    if !program.terminal {
        return pipes(program.stdin, [true, true]);
    }
    let input = Input {
        is_pending: program.stdin,
        ..Input::default()
    };
    Ok((
        Streams::default(),
        Ends {
            input,
            ..Ends::default()
        },
    ))
}

fn pipes(stdin: bool, outputs: [bool; 2]) -> io::Result<(Streams, Ends)> {
    let (mut streams, mut ends) = (Streams::default(), Ends::default());
    if stdin {
        let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
        set_nonblocking(&write)?;
        streams.stdin = Some(read);
        ends.input = Input {
            pipe: Some(File::from(write)),
            ..Input::default()
        };
    }
    let inner = [&mut streams.stdout, &mut streams.stderr];
    for ((wanted, inner), outer) in outputs.into_iter().zip(inner).zip(&mut ends.outputs) {
        if wanted {
            let (read, write) = pipe2(OFlag::O_CLOEXEC)?;
            set_nonblocking(&read)?;
            *inner = Some(write);
            *outer = Some(File::from(read));
        }
    }
    Ok((streams, ends))
}

/// What a session does.
#[derive(Debug)]
pub(super) enum Work {
    Program(Box<Program>),
    /// A program of which nothing outlives its end or its caller.
    Probe(Box<Program>),
    Read(String),
    Write(String),
}

/// What all sessions of an object have in common.
#[derive(Debug, Clone, Copy)]
pub(super) struct Inside<'a> {
    pub(super) launch: &'a Launch,
    pub(super) isolation: Isolation,
    pub(super) group: &'a Group,
    pub(super) init: &'a OwnedFd,
}

#[derive(Debug)]
pub(super) struct Session {
    pub(super) pid: Pid,
    pub(super) work: Work,
    pub(super) setup: Option<Setup>,
    pub(super) ends: Ends,
    pub(super) failure: Option<(u8, String)>,
    pub(super) status: Option<ExitReason>,
    /// When it is killed, because its caller has gone.
    pub(super) kill_at: Option<Instant>,
    /// Of a probe, and of all where there is no pid namespace, `pid` is a process that keeps the
    /// program: it says here how the program ended, and kills all that came of it then, or when this
    /// is closed.
    keeper: Option<UnixStream>,
}

impl Session {
    pub(super) fn start(work: Work, inside: Inside<'_>) -> io::Result<Self> {
        let (setup, reporter) = Setup::pair()?;
        let (streams, ends) = match &work {
            Work::Program(program) | Work::Probe(program) => streams_of(program)?,
            Work::Read(_) => pipes(false, [true, false])?,
            Work::Write(_) => pipes(true, [false, false])?,
        };
        let is_kept = inside.isolation == Isolation::None || matches!(work, Work::Probe(_));
        let (keeper, inner) = if is_kept {
            UnixStream::pair().map(|(outer, inner)| (Some(outer), Some(inner)))?
        } else {
            (None, None)
        };
        match sys::fork()? {
            ForkResult::Parent { child } => Ok(Self {
                pid: child,
                work,
                setup: Some(setup),
                ends,
                failure: None,
                status: None,
                kill_at: None,
                keeper,
            }),
            ForkResult::Child => run(&work, inside, streams, &reporter, inner),
        }
    }

    pub(super) fn signal(&mut self, signal: i32) {
        if signal == Signal::SIGKILL as i32 && self.keeper.take().is_some() {
            return;
        }
        if self.status.is_none() {
            // Not reaped yet, so the number is still its own.
            let _gone = sys::kill(self.pid, signal);
        }
    }

    pub(super) fn hang_up(&mut self) {
        self.ends = Ends::default();
        self.kill_at = Some(clock::now() + HANGUP_GRACE);
        self.signal_group(match self.work {
            Work::Program(_) => Signal::SIGHUP,
            // A keeper has the grace period to kill what it keeps.
            Work::Probe(_) | Work::Read(_) | Work::Write(_) => Signal::SIGKILL,
        });
    }

    pub(super) fn signal_group(&mut self, signal: Signal) {
        if signal == Signal::SIGKILL && self.keeper.take().is_some() {
            return;
        }
        if self.status.is_none() {
            // The group exists once the process has its own session; before, the process alone.
            let group = kill(Pid::from_raw(-self.pid.as_raw()), signal);
            let _gone = group.or_else(|_no_group| kill(self.pid, signal));
        }
    }

    /// Its process is about to be reaped: the last moment at which its group can be killed
    /// safely, because the number may be used again afterwards.
    pub(super) fn bury(&mut self) {
        if self.kill_at.is_some() {
            self.signal_group(Signal::SIGKILL);
        }
    }

    /// Its process has been reaped.
    pub(super) fn conclude(&mut self, ended: ExitReason) {
        let mut said = [0; 2];
        let keeper = self.keeper.take();
        let has_said = keeper.is_some_and(|mut keeper| keeper.read_exact(&mut said).is_ok());
        self.status = Some(match (has_said, said) {
            (false, _) => ended,
            (true, [code, 0]) => ExitReason::Code(code),
            (true, [_, signal]) => ExitReason::Signal(signal),
        });
    }

    pub(super) fn is_drained(&self) -> bool {
        self.ends.outputs.iter().all(Option::is_none)
    }
}

fn run(
    work: &Work,
    inside: Inside<'_>,
    streams: Streams,
    reporter: &Reporter,
    keeper: Option<UnixStream>,
) -> ! {
    let mut keep = streams.descriptors();
    keep.push(reporter.descriptor());
    let mut kept = keep.clone();
    kept.push(inside.init.as_raw_fd());
    kept.extend(keeper.iter().map(AsRawFd::as_raw_fd));
    sys::close_all_except(&mut kept);
    if let Err(failure) = enter(inside, keeper) {
        reporter.fail(&failure);
    }
    // Among them the way into init, which belongs to the shim.
    sys::close_all_except(&mut keep);
    match work {
        Work::Program(program) | Work::Probe(program) => match filter::build(inside.isolation) {
            Ok(filter) => program::run(inside.launch, program, streams, reporter, &filter),
            Err(error) => reporter.fail(&Failure::setup(
                "the system-call filter cannot be built",
                error,
            )),
        },
        Work::Read(path) => copied(path, inside, None, reporter, |path| {
            files::read(path, File::from(taken(streams.stdout)?))
        }),
        Work::Write(path) => {
            // What it makes belongs to whom the program is.
            let user = inside.launch.program.user.as_deref();
            copied(path, inside, user, reporter, |path| {
                files::write(path, File::from(taken(streams.stdin)?))
            })
        }
    }
}

/// Goes into the object.
fn enter(inside: Inside<'_>, keeper: Option<UnixStream>) -> Result<(), Failure> {
    let failed = |error| Failure::setup("cannot become a process of the object", error);
    // A keeper sees its children by the object's own /proc, if that has one.
    let (outside, within) = match inside.isolation {
        Isolation::None => (keeper, None),
        Isolation::Full | Isolation::Unprivileged => (None, keeper),
    };
    outside.map_or(Ok(()), init::keep).map_err(failed)?;
    // From the moment it is inside until it executes a program, which sets this anew: the object
    // must not look into a process that still has the shim's memory, descriptors and powers.
    prctl::set_dumpable(false).map_err(failed)?;
    let groups = inside.group.enter();
    groups.map_err(|error| Failure::setup("cannot enter the object's control groups", error))?;
    sandbox::enter(inside.isolation, inside.init)
        .map_err(|error| Failure::setup("cannot enter the object", error.desc()))?;
    within.map_or(Ok(()), init::keep).map_err(failed)
}

fn taken(stream: Option<OwnedFd>) -> io::Result<OwnedFd> {
    stream.ok_or_else(|| io::ErrorKind::BrokenPipe.into())
}

fn copied(
    path: &str,
    inside: Inside<'_>,
    user: Option<&str>,
    reporter: &Reporter,
    copy: impl FnOnce(&Path) -> io::Result<()>,
) -> ! {
    let path = Path::new(path);
    // What the shim left at 0 to 2 belongs to the node's root.
    let outcome = program::connect(Streams::default())
        .and_then(|()| program::confine_copy(user, inside.isolation))
        .and_then(|()| {
            if !path.is_absolute() {
                return Err(io::Error::other("the path must begin with /"));
            }
            copy(path)
        });
    match outcome {
        Ok(()) => sys::exit_now(0),
        Err(error) => {
            let code = if error.kind() == io::ErrorKind::NotFound {
                127
            } else {
                125
            };
            reporter.fail(&Failure {
                code,
                text: format!("{}: {error}", path.display()),
            })
        }
    }
}
