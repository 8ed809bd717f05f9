//! System calls that no safe library wraps, each as one small safe function.
//!
//! This is the only module of the crate that contains `unsafe`. Nothing here decides anything.
#![expect(
    unsafe_code,
    reason = "system calls that neither std nor nix wraps safely"
)]

use std::convert::Infallible;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

/// `MOUNT_ATTR_RDONLY`, `MOUNT_ATTR_NOSUID`, `MOUNT_ATTR_NODEV` of `linux/mount.h`.
pub(crate) const MOUNT_READ_ONLY: u64 = 0x1;
pub(crate) const MOUNT_NO_SET_UID: u64 = 0x2;
pub(crate) const MOUNT_NO_DEVICES: u64 = 0x4;

/// Splits this process in two.
///
/// May only be called in a process that has one thread: the shim and what it forked.
pub(crate) fn fork() -> nix::Result<ForkResult> {
    // SAFETY: the shim never starts a thread, so no lock can be held by a thread that does not
    // exist in the child, and the child may allocate.
    unsafe { nix::unistd::fork() }
}

/// Ends this process at once: no destructor, no buffered output.
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no preconditions.
    unsafe { libc::_exit(code) }
}

/// Takes ownership of a descriptor that the kernel has just made for this process.
pub(crate) fn adopt(descriptor: RawFd) -> OwnedFd {
    // SAFETY: callers pass a number that a system call has just returned and that nothing else
    // owns (received messages, and standard input at the start of `main`).
    unsafe { OwnedFd::from_raw_fd(descriptor) }
}

fn check(result: libc::c_long) -> io::Result<libc::c_long> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// A descriptor for a process (Linux 5.3).
pub(crate) fn pidfd_open(pid: Pid) -> io::Result<OwnedFd> {
    // SAFETY: takes two integers and returns a new descriptor.
    let descriptor = check(unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) })?;
    Ok(adopt(
        RawFd::try_from(descriptor).map_err(io::Error::other)?,
    ))
}

/// Sends a signal to a process that cannot have been replaced by another one.
pub(crate) fn pidfd_send_signal(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    // SAFETY: the descriptor is open while borrowed; a null `siginfo` is allowed.
    check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            process.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })?;
    Ok(())
}

/// How a child ended: the code it returned, or the signal that ended it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    Code(u8),
    Signal(u8),
}

/// Reaps a child that has ended, after waiting for it if so told; any child without a number.
/// `None` when there is none (yet).
///
/// The library's own call fails for the real-time signals, for which it has no names, after the
/// kernel has already forgotten the child.
pub(crate) fn reap(child: Option<Pid>, waits: bool) -> Option<(Pid, Ended)> {
    let child = child.map_or(-1, Pid::as_raw);
    let flags = if waits { 0 } else { libc::WNOHANG };
    loop {
        let mut status: libc::c_int = 0;
        // SAFETY: writes one integer.
        let pid = unsafe { libc::waitpid(child, &raw mut status, flags) };
        if pid > 0 {
            return Some((Pid::from_raw(pid), ended(status)));
        }
        if pid == 0 || Errno::last() != Errno::EINTR {
            return None;
        }
    }
}

/// A child that has ended and is not reaped yet, so that its number is still its own.
pub(crate) fn ended_child() -> Option<Pid> {
    // SAFETY: a `siginfo` is plain numbers, for which zeros are valid.
    let mut found: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: writes one `siginfo`.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut found, flags) };
    // SAFETY: the kernel has filled in the part about children, or left the zeros.
    let pid = unsafe { found.si_pid() };
    (result == 0 && pid > 0).then(|| Pid::from_raw(pid))
}

/// What a wait status means, of a child that is neither stopped nor traced.
fn ended(status: libc::c_int) -> Ended {
    let part = |number: libc::c_int| u8::try_from(number).unwrap_or(u8::MAX);
    if libc::WIFSIGNALED(status) {
        Ended::Signal(part(libc::WTERMSIG(status)))
    } else {
        Ended::Code(part(libc::WEXITSTATUS(status)))
    }
}

/// Sends a signal by its number: the real-time ones have no names.
pub(crate) fn kill(pid: Pid, signal: i32) -> nix::Result<()> {
    // SAFETY: takes integers only.
    Errno::result(unsafe { libc::kill(pid.as_raw(), signal) }).map(drop)
}

/// Closes every descriptor except the standard streams and these. The standard streams stay
/// open so that nothing else can take their numbers.
pub(crate) fn close_all_except(keep: &mut [RawFd]) {
    keep.sort_unstable();
    let mut first: libc::c_uint = 3;
    for descriptor in keep.iter() {
        let Ok(descriptor) = libc::c_uint::try_from(*descriptor) else {
            continue;
        };
        if descriptor > first {
            close_range(first, descriptor - 1);
        }
        first = first.max(descriptor + 1);
    }
    close_range(first, libc::c_uint::MAX);
}

/// Closes a range of descriptors (Linux 5.9). On older kernels they stay open; every descriptor
/// of ours is close-on-exec anyway.
pub(crate) fn close_range(first: libc::c_uint, last: libc::c_uint) {
    // SAFETY: the descriptors that are closed here are never used again by this process: callers
    // are a fresh shim, or a forked child that never returns to the code that owns them.
    let _closed = unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
}

#[repr(C)]
struct MountAttributes {
    set: u64,
    clear: u64,
    propagation: u64,
    user_namespace: u64,
}

/// Sets attributes on a mount and all below it (Linux 5.12).
pub(crate) fn mount_set(path: &str, set: u64) -> io::Result<()> {
    let path = CString::new(path)?;
    let attributes = MountAttributes {
        set,
        clear: 0,
        propagation: 0,
        user_namespace: 0,
    };
    // SAFETY: the path is a C string and the structure has the size that is passed with it.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            libc::AT_RECURSIVE,
            &raw const attributes,
            size_of::<MountAttributes>(),
        )
    })?;
    Ok(())
}

#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Gives up every capability that is not in `keep`, in the permitted and effective sets, and all
/// of the inheritable set. Keeps only what is already there.
pub(crate) fn limit_capabilities(keep: u64) -> io::Result<()> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let mut data = [CapabilityData {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: version 3 reads and writes exactly two data structures.
    check(unsafe { libc::syscall(libc::SYS_capget, &raw const header, data.as_mut_ptr()) })?;
    for (half, shift) in data.iter_mut().zip([0, 32]) {
        let keep = u32::try_from((keep >> shift) & u64::from(u32::MAX)).unwrap_or(0);
        half.permitted &= keep;
        half.effective = half.permitted;
        half.inheritable = 0;
    }
    // SAFETY: as above.
    check(unsafe { libc::syscall(libc::SYS_capset, &raw const header, data.as_ptr()) })?;
    Ok(())
}

/// Removes one capability from the bounding set. `Ok(false)` when there is no such capability.
pub(crate) fn drop_bounding(capability: u32) -> io::Result<bool> {
    // SAFETY: takes integers only.
    match check(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) }.into()) {
        Ok(_) => Ok(true),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Empties the ambient set.
pub(crate) fn clear_ambient() {
    // SAFETY: takes integers only. Kernels before 4.3 have no such set.
    let _cleared = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
}

/// Makes a terminal the controlling one of this session.
pub(crate) fn take_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: TIOCSCTTY takes an integer.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSCTTY, 0) }.into())?;
    Ok(())
}

/// The program's side of a terminal whose other side is `terminal` (Linux 4.13).
pub(crate) fn terminal_peer(terminal: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: TIOCGPTPEER takes open flags and returns a new descriptor.
    let peer =
        check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGPTPEER, flags) }.into())?;
    Ok(adopt(RawFd::try_from(peer).map_err(io::Error::other)?))
}

/// Unlocks the program's side of a terminal.
pub(crate) fn unlock_terminal(terminal: BorrowedFd<'_>) -> io::Result<()> {
    let unlock: libc::c_int = 0;
    // SAFETY: TIOCSPTLCK reads one integer.
    let done = unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSPTLCK, &raw const unlock) };
    check(done.into()).map(|_| ())
}

/// Tells a terminal, and through it the program, its size.
pub(crate) fn resize(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: TIOCSWINSZ reads one `winsize`.
    check(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }.into())?;
    Ok(())
}

/// Gives a signal its default meaning again.
pub(crate) fn default_signal(signal: nix::sys::signal::Signal) {
    use nix::sys::signal::{SigHandler, signal as set};
    // SAFETY: SIG_DFL runs no code of ours.
    let _previous = unsafe { set(signal, SigHandler::SigDfl) };
}

/// Ignores a signal.
pub(crate) fn ignore_signal(signal: nix::sys::signal::Signal) {
    use nix::sys::signal::{SigHandler, signal as set};
    // SAFETY: SIG_IGN runs no code of ours.
    let _previous = unsafe { set(signal, SigHandler::SigIgn) };
}

/// Replaces this process by a program. Returns only when that failed.
pub(crate) fn execute(path: &CString, arguments: &[CString], environment: &[CString]) -> Errno {
    let result: nix::Result<Infallible> = nix::unistd::execve(path, arguments, environment);
    match result {
        Ok(never) => match never {},
        Err(error) => error,
    }
}
