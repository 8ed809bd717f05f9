//! Starting programs inside a host from outside. It is not a remote shell: the program inherits
//! descriptors, terminal, environment and working directory as any child does.
//!
//! Only a *child* of a process that has entered a pid namespace is in it, so each program comes
//! with two processes between:
//!
//! ```text
//! caller    spawns through std::process::Command
//! relay     is the child that the caller sees; ends as the guard ends
//! guard     enters the namespaces; ends as the program ends; reaps it even if the relay is killed
//! program   joins the cgroups of the host and is exec'ed by std; killed if its relay is
//! ```
//!
//! (Without the guard, a program whose relay was killed would be left to whoever is process 1
//! outside; if that does not reap it, the kernel could never finish killing the host.)
//!
//! Signals sent to the relay go down the line (those of a terminal reach all of them anyway); a
//! stopped program stops the relay; an exit code or a deadly signal comes up the line. So
//! `Child::kill`, `wait` and exit codes mean what they always do. What relay and guard do between
//! fork and end are system calls only, because the caller may have threads.

use std::ffi::{OsStr, c_int, c_ulong};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

use crate::init::{NAMESPACES, raw_clone};

/// The way into a host that is up.
#[derive(Debug)]
pub(crate) struct Door {
    /// The pidfd of the init.
    pub(crate) init: OwnedFd,
    /// The `cgroup.procs` files of the host.
    pub(crate) cgroups: Vec<File>,
}

/// A command that runs in the host; without a door (the host is down) it fails to start, with
/// `EHOSTDOWN`.
#[expect(unsafe_code, reason = "there is no other way to run code in the child")]
pub(crate) fn command(program: &OsStr, door: Option<Arc<Door>>) -> Command {
    let mut command = Command::new(program);
    let enter = move || match &door {
        Some(door) => door.enter(),
        None => Err(io::Error::from_raw_os_error(libc::EHOSTDOWN)),
    };
    // SAFETY: the closure makes system calls on memory of its own and on descriptors that the child
    // has inherited; it does not allocate or lock. (Errors made from an errno do not allocate.)
    unsafe { command.pre_exec(enter) };
    command
}

impl Door {
    /// In a single-threaded child: returns in the program-to-be, in the host. The calling process
    /// stays behind as its relay and never returns from here.
    fn enter(&self) -> io::Result<()> {
        let mut directory = [0_u8; libc::PATH_MAX as usize];
        let has_directory = working_directory(&mut directory);
        let before = block_signals();
        let relay = own_pid();
        match fork()? {
            0 => {}
            guard => stand_for(guard, None),
        }
        watch(relay)?;
        self.enter_namespaces()?;
        if has_directory {
            change_directory(&directory);
        }
        match fork().map_err(gone)? {
            0 => {}
            program => stand_for(program, Some(relay)),
        }
        die_with_parent();
        self.join_cgroups()?;
        restore_signals(&before);
        Ok(())
    }

    #[expect(unsafe_code, reason = "bare system calls between fork and exec")]
    fn enter_namespaces(&self) -> io::Result<()> {
        // SAFETY: passes an open descriptor and a number.
        match unsafe { libc::setns(self.init.as_raw_fd(), NAMESPACES) } {
            0 => Ok(()),
            _ => Err(gone(io::Error::last_os_error())),
        }
    }

    #[expect(unsafe_code, reason = "bare system calls between fork and exec")]
    fn join_cgroups(&self) -> io::Result<()> {
        for procs in &self.cgroups {
            let procs: RawFd = procs.as_raw_fd();
            // SAFETY: writes one byte of a literal to an open descriptor.
            if unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) } != 1 {
                return Err(gone(io::Error::last_os_error()));
            }
        }
        Ok(())
    }
}

/// The errors by which the kernel says that the namespaces or cgroups have just died.
fn gone(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ESRCH | libc::ENOMEM | libc::ENODEV) => {
            io::Error::from_raw_os_error(libc::EHOSTDOWN)
        }
        _ => error,
    }
}

/// Forks; zero is the child. Both sides may only make system calls.
#[expect(unsafe_code, reason = "fork has no safe form")]
fn fork() -> io::Result<c_int> {
    // SAFETY: all zeroes is a valid `clone_args`; with nothing but a signal set it is a fork, and
    // the only caller, `Door::enter`, makes system calls only.
    let pid = unsafe {
        let mut arguments: libc::clone_args = std::mem::zeroed();
        arguments.exit_signal = u64::from(libc::SIGCHLD.cast_unsigned());
        raw_clone(&arguments)
    };
    match c_int::try_from(pid) {
        Ok(pid @ 0..) => Ok(pid),
        Ok(_) | Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Stands for `child` until it ends, and ends like it. `above` is the relay, for a guard. All
/// signals are blocked.
#[expect(unsafe_code, reason = "bare system calls after fork")]
fn stand_for(child: c_int, above: Option<c_int>) -> ! {
    // SAFETY: bare system calls on numbers and local variables. The descriptors are copies, among
    // them the pipe on which std waits for the exec and the program's standard streams: they must
    // be closed for their readers to see the end.
    unsafe {
        libc::syscall(libc::SYS_close_range, 0_u32, u32::MAX, 0_u32);
        let name = if above.is_some() {
            c"lab-guard"
        } else {
            c"lab-relay"
        };
        libc::prctl(libc::PR_SET_NAME, name.as_ptr());
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
        loop {
            let mut status = 0;
            match libc::waitpid(child, &raw mut status, libc::WNOHANG | libc::WUNTRACED) {
                0 => pass_signal(child, above),
                // Nobody reaps it but us, so this cannot be; and if it is, the program is gone.
                -1 => libc::_exit(125),
                _ if libc::WIFSTOPPED(status) => stop(above),
                _ if libc::WIFSIGNALED(status) => end_by(libc::WTERMSIG(status)),
                _ => libc::_exit(libc::WEXITSTATUS(status)),
            }
        }
    }
}

/// Waits for a signal; hands it on if it was meant for the program.
#[expect(unsafe_code, reason = "bare system calls after fork")]
fn pass_signal(child: c_int, above: Option<c_int>) {
    // SAFETY: waits with local variables; `child` has not been reaped, so its pid is still its own.
    unsafe {
        let all = all_signals();
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let signal = libc::sigwaitinfo(&raw const all, &raw mut info);
        if above.is_some_and(|relay| libc::getppid() != relay) {
            libc::kill(child, libc::SIGKILL);
        } else if signal > 0 && signal != libc::SIGCHLD && info.si_code <= 0 {
            // A positive code is the kernel's: our child's end, or a terminal, which tells all.
            libc::kill(child, signal);
        }
    }
}

/// The program has stopped: the relay stops as well, so that a shell takes its terminal back. The
/// guard goes on, for the host may be killed meanwhile. A later SIGCONT goes down the line.
#[expect(unsafe_code, reason = "bare system calls after fork")]
fn stop(above: Option<c_int>) {
    if let Some(relay) = above {
        // SAFETY: passes numbers. The relay is our parent, or it has just died and we soon know.
        unsafe { libc::kill(relay, libc::SIGSTOP) };
    }
}

/// Ends by the signal that has ended the program, without a core of its own.
#[expect(unsafe_code, reason = "bare system calls after fork")]
fn end_by(signal: c_int) -> ! {
    // SAFETY: bare system calls on numbers and on a set that lives during the call.
    unsafe {
        libc::prctl(libc::PR_SET_DUMPABLE, 0 as c_ulong);
        libc::signal(signal, libc::SIG_DFL);
        libc::kill(libc::getpid(), signal);
        let all = all_signals();
        libc::sigprocmask(libc::SIG_UNBLOCK, &raw const all, std::ptr::null_mut());
        libc::_exit(128 + signal)
    }
}

/// Makes the kernel signal this process when its parent, the relay, ends. Which signal is all the
/// same: a guard looks for its parent after each.
#[expect(unsafe_code, reason = "bare system calls after fork")]
fn watch(relay: c_int) -> io::Result<()> {
    // SAFETY: passes numbers only.
    unsafe {
        libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGHUP as c_ulong);
        if libc::getppid() == relay {
            return Ok(());
        }
    }
    Err(io::Error::from_raw_os_error(libc::ESRCH))
}

#[expect(unsafe_code, reason = "bare system calls after fork")]
fn die_with_parent() {
    // SAFETY: passes numbers only.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL as c_ulong) };
}

#[expect(unsafe_code, reason = "bare system calls after fork")]
fn own_pid() -> c_int {
    // SAFETY: takes nothing.
    unsafe { libc::getpid() }
}

#[expect(unsafe_code, reason = "std would allocate")]
fn working_directory(buffer: &mut [u8]) -> bool {
    // SAFETY: the buffer is as long as we say.
    unsafe { libc::syscall(libc::SYS_getcwd, buffer.as_mut_ptr(), buffer.len()) > 0 }
}

/// The same directory in the host, if it has one; otherwise this stays in `/`.
#[expect(unsafe_code, reason = "std would allocate")]
fn change_directory(path: &[u8]) {
    // SAFETY: `working_directory` has put a string that ends with a zero byte there.
    unsafe { libc::chdir(path.as_ptr().cast()) };
}

#[expect(unsafe_code, reason = "bare system calls after fork")]
fn all_signals() -> libc::sigset_t {
    // SAFETY: all zeroes is a set, which is then filled.
    unsafe {
        let mut all: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&raw mut all);
        all
    }
}

/// Blocks all signals; returns those that were blocked before.
#[expect(unsafe_code, reason = "bare system calls after fork")]
fn block_signals() -> libc::sigset_t {
    let all = all_signals();
    // SAFETY: both sets are local.
    unsafe {
        let mut before: libc::sigset_t = std::mem::zeroed();
        libc::sigprocmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        before
    }
}

#[expect(unsafe_code, reason = "bare system calls after fork")]
fn restore_signals(before: &libc::sigset_t) {
    // SAFETY: the set lives during the call.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const *before, std::ptr::null_mut()) };
}
