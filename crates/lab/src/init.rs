//! The first process of a host: it holds the host's namespaces and reaps orphans, and when it dies
//! the kernel kills every process of the host. It is not a service manager; it starts nothing.
//!
//! The conversation between the lab and an init, over a socket pair called the *leash*:
//!
//! ```text
//! lab    clones the init into new pid, mount, network, host-name and IPC namespaces    (starting)
//! init   makes its mounts private, mounts /proc, sends one byte: 0 or an errno         (ready)
//! lab    never answers; the init sleeps in read(2) until the other end is closed       (up)
//! lab    SIGKILL, or closes the leash, or dies (PR_SET_PDEATHSIG)                      (gone)
//! ```
//!
//! The init is a copy of the calling process, which may have threads. So between clone and its
//! end it makes system calls only: no allocation, no lock, no panic.

use std::ffi::{CStr, CString, c_int, c_long, c_ulong};
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use crate::cgroups::HostCgroups;
use crate::process;

/// The namespaces every host has of its own.
pub(crate) const NAMESPACES: c_int = libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC;

/// How long the kernel may take to end all processes of a killed host.
const GONE_LIMIT: Duration = Duration::from_secs(20);

/// The init of a host that is up. Dropping it closes the leash, which ends the host as well.
#[derive(Debug)]
pub(crate) struct Init {
    pid: Pid,
    handle: OwnedFd,
    started: u64,
    _leash: UnixStream,
}

impl Init {
    /// Starts an init. The kernel ends it when the calling *thread* ends, so that must be one that
    /// lives as long as the lab.
    pub(crate) fn start(name: &str) -> io::Result<Self> {
        let (mut leash, far_end) = UnixStream::pair()?;
        let name = CString::new(name).expect("names of hosts have no zero byte");
        let (pid, handle) = clone_into_namespaces(&far_end, &name)?;
        drop(far_end);
        let mut answer = [0];
        let said = leash.read_exact(&mut answer);
        // From here on, dropping `init` ends the process.
        let init = Self {
            pid,
            handle,
            started: process::start_ticks(pid.as_raw()).unwrap_or(0),
            _leash: leash,
        };
        said.and(match answer {
            [0] => Ok(()),
            [errno] => Err(io::Error::from_raw_os_error(i32::from(errno))),
        })
        .map(|()| init)
        .map_err(|error| {
            waitpid(pid, None).ok();
            io::Error::new(
                error.kind(),
                format!("cannot mount /proc in a new host: {error}"),
            )
        })
    }

    /// In the namespace of the lab.
    pub(crate) fn pid(&self) -> Pid {
        self.pid
    }

    /// The start time of the process in clock ticks, which together with the pid names it for ever.
    pub(crate) fn started(&self) -> u64 {
        self.started
    }

    /// The pidfd.
    pub(crate) fn handle(&self) -> &OwnedFd {
        &self.handle
    }

    /// Sends SIGKILL, which ends every process of the host; does not wait.
    pub(crate) fn kill(&self) {
        process::kill_by_handle(&self.handle).ok();
    }

    /// Waits until the init and every process of the host are gone.
    ///
    /// Frozen processes are thawed first: the first thing they then see is the SIGKILL.
    pub(crate) fn wait_gone(&self, cgroups: &HostCgroups) -> io::Result<()> {
        cgroups.thaw();
        let limit = u16::try_from(GONE_LIMIT.as_millis()).unwrap_or(u16::MAX);
        let mut watched = [PollFd::new(self.handle.as_fd(), PollFlags::POLLIN)];
        loop {
            match poll(&mut watched, PollTimeout::from(limit)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => break,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        // Somebody else in this process may have reaped it; then there is nothing left to do.
        waitpid(self.pid, Some(WaitPidFlag::WNOHANG)).ok();
        Ok(())
    }
}

/// Clones this process into new namespaces; the copy becomes the init.
#[expect(unsafe_code, reason = "clone3 into namespaces has no safe form")]
fn clone_into_namespaces(leash: &UnixStream, name: &CStr) -> io::Result<(Pid, OwnedFd)> {
    let mut handle: RawFd = -1;
    let leash = leash.as_raw_fd();
    // SAFETY: all zeroes is a valid `clone_args`: no flags, no pointers.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from((NAMESPACES | libc::CLONE_PIDFD).cast_unsigned());
    arguments.pidfd = std::ptr::from_mut(&mut handle) as u64;
    arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
    // SAFETY: without CLONE_VM and with no stack this is a fork: the copy has its own memory and
    // goes on here. It calls only `init_main`, which keeps to system calls.
    let pid = unsafe { raw_clone(&arguments) };
    match pid {
        0 => init_main(leash, name),
        1.. => {
            let pid = Pid::from_raw(i32::try_from(pid).expect("pids are 32-bit"));
            // SAFETY: the kernel has just made this descriptor for us.
            Ok((pid, unsafe { OwnedFd::from_raw_fd(handle) }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// `clone3(2)`.
///
/// # Safety
///
/// As for `fork(2)` in a process with threads: the copy may only make system calls.
#[expect(unsafe_code, reason = "clone3 has no wrapper in libc")]
pub(crate) unsafe fn raw_clone(arguments: &libc::clone_args) -> c_long {
    // SAFETY: the structure is as long as we say and lives during the call; the rest is the
    // caller's promise.
    unsafe {
        libc::syscall(
            libc::SYS_clone3,
            std::ptr::from_ref(arguments),
            size_of::<libc::clone_args>(),
        )
    }
}

#[expect(unsafe_code, reason = "only bare system calls are allowed after clone")]
fn init_main(leash: RawFd, name: &CStr) -> ! {
    // SAFETY: bare system calls on descriptors of this process, on literals, and on two local
    // variables that live during the calls.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong);
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::setsid();
        libc::chdir(c"/".as_ptr());
        take_default_signals();
        let errno = make_mounts();
        hold_only(leash);
        libc::write(0, std::ptr::from_ref(&errno).cast(), 1);
        if errno != 0 {
            libc::_exit(1);
        }
        let mut byte = 0_u8;
        loop {
            let count = libc::read(0, std::ptr::from_mut(&mut byte).cast(), 1);
            if count == 0 || (count < 0 && *libc::__errno_location() != libc::EINTR) {
                // The kernel kills the rest of the host.
                libc::_exit(0);
            }
        }
    }
}

/// No handler of the program that we are a copy of may run; children that die are reaped unasked.
#[expect(unsafe_code, reason = "only bare system calls are allowed after clone")]
fn take_default_signals() {
    for signal in 1..=64 {
        // SAFETY: sets dispositions of this process only; those that cannot be set are refused.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: as above; the set is local and initialised by sigemptyset.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_IGN);
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

/// Nothing mounted here is seen outside, and /proc shows this host's processes. Returns an errno.
#[expect(unsafe_code, reason = "only bare system calls are allowed after clone")]
fn make_mounts() -> u8 {
    let private = libc::MS_REC | libc::MS_PRIVATE;
    let restricted = libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC;
    let none = std::ptr::null();
    let proc = c"proc".as_ptr();
    // SAFETY: all pointers are literals or null where mount(2) allows it.
    unsafe {
        let done = libc::mount(none, c"/".as_ptr(), none, private, none.cast()) == 0
            && libc::mount(proc, c"/proc".as_ptr(), proc, restricted, none.cast()) == 0;
        if done {
            return 0;
        }
        // No error of mount(2) is above 133.
        u8::try_from(*libc::__errno_location()).unwrap_or(u8::MAX)
    }
}

/// Closes everything but the leash, which becomes descriptor 0: an init must not hold a pipe, a
/// lock or a leash of somebody else.
#[expect(unsafe_code, reason = "only bare system calls are allowed after clone")]
fn hold_only(leash: RawFd) {
    // SAFETY: numbers and literals only; these descriptors are this process's own copies.
    unsafe {
        libc::dup2(leash, 0);
        libc::syscall(libc::SYS_close_range, 1_u32, u32::MAX, 0_u32);
        // 1 and 2 are taken, so that nothing is ever opened as standard output.
        libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
        libc::open(c"/dev/null".as_ptr(), libc::O_RDWR);
    }
}
