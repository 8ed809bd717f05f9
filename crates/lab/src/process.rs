//! Naming and killing processes so that a reused pid is never hit. It is not a process table.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

/// When a process started, in clock ticks since boot; `None` if there is no such process.
pub(crate) fn start_ticks(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in parentheses, may hold anything; field 22 is the 20th after it.
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

/// A handle (pidfd) on a process.
#[expect(unsafe_code, reason = "nix has no pidfd_open")]
pub(crate) fn open_handle(pid: i32) -> io::Result<OwnedFd> {
    // SAFETY: passes numbers only.
    let handle = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0_u32) };
    let handle = i32::try_from(handle).expect("descriptors are 32-bit");
    if handle < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(handle) })
}

/// A handle on the process that had this pid and start time, if it still exists.
pub(crate) fn open_same(pid: i32, started: u64) -> Option<OwnedFd> {
    let handle = open_handle(pid).ok()?;
    (start_ticks(pid) == Some(started)).then_some(handle)
}

/// Sends SIGKILL to the process behind a handle.
#[expect(unsafe_code, reason = "nix has no pidfd_send_signal")]
pub(crate) fn kill_by_handle(handle: &impl AsFd) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is open, and a null siginfo asks for an ordinary signal.
    let result = unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            handle.as_fd().as_raw_fd(),
            libc::SIGKILL,
            none,
            0_u32,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
