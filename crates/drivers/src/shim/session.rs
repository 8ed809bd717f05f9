//! One more process inside an object, for one caller: a further program, or a copy of files.
//!
//! It is a child of the shim, so the shim knows how it ends. A caller that goes away hangs up:
//! a program's process group gets SIGHUP and, a little later, SIGKILL; a copy is killed at once.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Instant;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
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
use crate::sandbox::{self, Failure, Isolation, Reporter, Setup, files, filter};
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
}

impl Session {
    pub(super) fn start(work: Work, inside: Inside<'_>) -> io::Result<Self> {
        let (setup, reporter) = Setup::pair()?;
        let (streams, ends) = match &work {
            Work::Program(program) => streams_of(program)?,
            Work::Read(_) => pipes(false, [true, false])?,
            Work::Write(_) => pipes(true, [false, false])?,
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
            }),
            ForkResult::Child => run(&work, inside, streams, &reporter),
        }
    }

    pub(super) fn signal(&self, signal: i32) {
        if self.status.is_none() {
            // Not reaped yet, so the number is still its own.
            let _gone = sys::kill(self.pid, signal);
        }
    }

    pub(super) fn hang_up(&mut self) {
        self.ends = Ends::default();
        let (signal, kill_at) = match self.work {
            Work::Program(_) => (Signal::SIGHUP, clock::now() + HANGUP_GRACE),
            Work::Read(_) | Work::Write(_) => (Signal::SIGKILL, clock::now()),
        };
        self.kill_at = Some(kill_at);
        self.signal_group(signal);
    }

    pub(super) fn signal_group(&self, signal: Signal) {
        if self.status.is_none() {
            // The group exists once the process has its own session; before, the process alone.
            let group = kill(Pid::from_raw(-self.pid.as_raw()), signal);
            let _gone = group.or_else(|_no_group| kill(self.pid, signal));
        }
    }

    pub(super) fn is_drained(&self) -> bool {
        self.ends.outputs.iter().all(Option::is_none)
    }
}

fn run(work: &Work, inside: Inside<'_>, streams: Streams, reporter: &Reporter) -> ! {
    let mut keep = streams.descriptors();
    keep.extend([reporter.descriptor(), inside.init.as_raw_fd()]);
    sys::close_all_except(&mut keep);
    let entered = inside
        .group
        .enter()
        .map_err(|error| Failure::setup("cannot enter the object's control groups", error))
        .and_then(|()| {
            sandbox::enter(inside.isolation, inside.init)
                .map_err(|error| Failure::setup("cannot enter the object", error.desc()))
        });
    if let Err(failure) = entered {
        reporter.fail(&failure);
    }
    match work {
        Work::Program(program) => match filter::build(inside.isolation) {
            Ok(filter) => program::run(inside.launch, program, streams, reporter, &filter),
            Err(error) => reporter.fail(&Failure::setup(
                "the system-call filter cannot be built",
                error,
            )),
        },
        Work::Read(path) => copied(path, reporter, streams.stdout, files::read),
        Work::Write(path) => copied(path, reporter, streams.stdin, files::write),
    }
}

fn copied(
    path: &str,
    reporter: &Reporter,
    stream: Option<OwnedFd>,
    copy: fn(&Path, File) -> io::Result<()>,
) -> ! {
    let path = Path::new(path);
    let outcome = program::confine_copy().and_then(|()| {
        let stream = stream.ok_or(io::ErrorKind::BrokenPipe)?;
        if !path.is_absolute() {
            return Err(io::Error::other("the path must begin with /"));
        }
        copy(path, File::from(stream))
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
