//! Process 1 of an object: sets it up, starts the program, reaps what the program leaves behind.
//!
//! It is a fork of the shim that executes nothing, so it costs a few pages of memory. It dies
//! with the shim: in a pid namespace the kernel then kills all others in it; without one init
//! sees its control socket end and kills its descendants, who are its children because it is
//! their subreaper. Signals sent to it from inside go to the program, so `kill 1` does what
//! people mean by it.

use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{ForkResult, Pid, sethostname};
use wire::driver::Launch;

use super::program::{self, Streams};
use super::{Failure, Isolation, Reporter, filter, root};
use crate::directory::{Directory, read_text};
use crate::sandbox;
use crate::sys::{self, Ended};

/// Everything init needs; it owns its ends of the sockets and pipes.
#[derive(Debug)]
pub(crate) struct Init<'a> {
    pub(crate) directory: &'a Directory,
    pub(crate) launch: &'a Launch,
    pub(crate) isolation: Isolation,
    pub(crate) reporter: Reporter,
    pub(crate) control: UnixStream,
    pub(crate) streams: Streams,
}

impl Init<'_> {
    /// Runs in the forked child; never returns to the code of the shim.
    pub(crate) fn run(mut self) -> ! {
        let mut keep = self.streams.descriptors();
        keep.extend([self.reporter.descriptor(), self.control.as_raw_fd()]);
        sys::close_all_except(&mut keep);
        match self.set_up() {
            Ok(program) => supervise(self.control, program, self.isolation),
            Err(failure) => self.reporter.fail(&failure),
        }
    }

    fn set_up(&mut self) -> Result<Pid, Failure> {
        if self.isolation != Isolation::None {
            let death = prctl::set_pdeathsig(Signal::SIGKILL);
            death.map_err(|error| Failure::setup("cannot be bound to the shim", error))?;
        }
        if self.shim_is_gone() {
            sys::exit_now(0);
        }
        let named = prctl::set_name(c"welkin-init").and_then(|()| prctl::set_child_subreaper(true));
        named.map_err(|error| Failure::setup("cannot become the reaper", error))?;
        if self.isolation != Isolation::None {
            self.isolate()?;
        }
        let filter = filter::build(self.isolation)
            .map_err(|error| Failure::setup("the system-call filter cannot be built", error))?;
        self.enter_groups();
        match sys::fork() {
            Ok(ForkResult::Parent { child }) => Ok(child),
            Ok(ForkResult::Child) => {
                let streams = std::mem::take(&mut self.streams);
                let program = &self.launch.program;
                program::run(self.launch, program, streams, &self.reporter, &filter)
            }
            Err(error) => Err(Failure::setup("its first process cannot be made", error)),
        }
    }

    /// The shim has made the control groups and hands over their entrances.
    fn enter_groups(&self) {
        let Ok(entrances) = sandbox::receive_files(&self.control) else {
            sys::exit_now(0)
        };
        for entrance in entrances {
            if let Err(error) = File::from(entrance).write_all(b"0") {
                self.reporter
                    .off(&format!("one of its limits does not hold ({error})"));
            }
        }
    }

    fn isolate(&self) -> Result<(), Failure> {
        let kinds = CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS | CloneFlags::CLONE_NEWIPC;
        let made = unshare(kinds);
        let made = made.map_err(|error| Failure::setup("its namespaces cannot be made", error));
        match (made, self.isolation) {
            (Ok(()), _) => {}
            (Err(failure), Isolation::Unprivileged) => {
                self.reporter
                    .off(&format!("it sees the files of the node: {}", failure.text));
                return Ok(());
            }
            (Err(failure), Isolation::Full | Isolation::None) => return Err(failure),
        }
        if let Err(error) = sethostname(program::host_name(self.launch)) {
            self.reporter.off(&format!(
                "it has the host name of the node ({})",
                error.desc()
            ));
        }
        let hidden = &self.launch.hidden_directories;
        root::make(self.directory, hidden, self.isolation, &self.reporter)
    }

    fn shim_is_gone(&self) -> bool {
        let mut watched = [PollFd::new(self.control.as_fd(), PollFlags::empty())];
        let ended = PollFlags::POLLHUP | PollFlags::POLLERR;
        poll(&mut watched, PollTimeout::ZERO).is_ok()
            && watched[0]
                .revents()
                .is_some_and(|events| events.intersects(ended))
    }
}

/// Reaps until the program ends, says how, and ends with all that is left.
fn supervise(mut control: UnixStream, program: Pid, isolation: Isolation) -> ! {
    // What the shim left at 0 to 2 belongs to the node's root.
    let _kept = program::connect(Streams::default());
    sys::close_all_except(&mut [control.as_raw_fd()]);
    let mask = SigSet::all();
    // Cannot fail: the set is valid.
    let _blocked = mask.thread_block();
    let Ok(signals) = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
    else {
        sys::exit_now(1)
    };
    loop {
        if let Some(status) = reap(program) {
            // Without a shim there is nobody to tell.
            let _told = control.write_all(&status);
            end(isolation)
        }
        let mut watched = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::empty()),
        ];
        match poll(&mut watched, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(_) => end(isolation),
        }
        if watched[1]
            .revents()
            .is_some_and(|events| !events.is_empty())
        {
            give_up(isolation);
        }
        while let Ok(Some(signal)) = signals.read_signal() {
            forward(signal.ssi_signo, program);
        }
    }
}

/// Where there is no pid namespace, nobody but this process can kill what it leaves.
fn end(isolation: Isolation) -> ! {
    if isolation == Isolation::None {
        kill_descendants();
    }
    sys::exit_now(0)
}

/// Nobody wants the program any more: it is killed, and so it looks.
fn give_up(isolation: Isolation) -> ! {
    if isolation == Isolation::None {
        kill_descendants();
        // Cannot fail: it is this process.
        let _dead = kill(nix::unistd::getpid(), Signal::SIGKILL);
    }
    sys::exit_now(0)
}

/// Splits the calling process, for a probe or where there is no pid namespace: its child goes on and becomes
/// what the caller wants, and it stays behind as the child's reaper, so that nothing of it
/// outlives the shim or its caller. What [`supervise`] says of it goes to `control`.
pub(crate) fn keep(control: UnixStream) -> nix::Result<()> {
    prctl::set_name(c"welkin-keeper")?;
    prctl::set_child_subreaper(true)?;
    match sys::fork()? {
        ForkResult::Parent { child } => supervise(control, child, Isolation::None),
        ForkResult::Child => Ok(()),
    }
}

fn forward(number: u32, program: Pid) {
    let number = i32::try_from(number).unwrap_or(0);
    if number != Signal::SIGCHLD as i32 {
        // It may have just ended.
        let _gone = sys::kill(program, number);
    }
}

/// Reaps all that have ended; when the program is among them, how it ended: code and signal.
fn reap(program: Pid) -> Option<[u8; 2]> {
    let mut ended = None;
    while let Some((pid, how)) = sys::reap(None, false) {
        if pid == program {
            ended = Some(match how {
                Ended::Code(code) => [code, 0],
                Ended::Signal(signal) => [0, signal],
            });
        }
    }
    ended
}

/// Kills every child, whose own children then become ours, until there are none.
fn kill_descendants() {
    loop {
        kill_children();
        if sys::reap(None, true).is_none() {
            return;
        }
    }
}

/// Kills the children of this process. Their own children become ours if we are a reaper, so it
/// is to be called until it returns false: there were none.
pub(crate) fn kill_children() -> bool {
    let children = format!("/proc/self/task/{}/children", nix::unistd::getpid());
    let listed = read_text(Path::new(&children)).unwrap_or_default();
    let mut found = false;
    for pid in listed.split_whitespace().filter_map(|pid| pid.parse().ok()) {
        found = true;
        // Not reaped yet, so the number is still its own.
        let _dead = kill(Pid::from_raw(pid), Signal::SIGKILL);
    }
    found
}
