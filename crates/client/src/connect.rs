//! Reaching a Unix socket, however long its path is.

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;
use tokio::time::{Instant, sleep};
use wire::call::{Problem, ProblemCode};

use crate::CallError;

/// Longest path that fits into a `sockaddr_un` with its closing zero (unix(7)).
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// How long the queue of a socket may be full (`EAGAIN`, connect(2)): a node that takes no callers
/// for so long hangs.
const QUEUE_PATIENCE: Duration = Duration::from_secs(2);
/// Between two attempts at a full queue.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);

/// Connects to the node that listens at `socket`.
pub(crate) async fn connect(socket: &Path) -> Result<UnixStream, CallError> {
    let begun = Instant::now();
    loop {
        match attempt(socket).await {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                let waited = begun.elapsed();
                if waited >= QUEUE_PATIENCE {
                    return Err(CallError::Silent {
                        path: socket.to_path_buf(),
                        pid: None,
                        waited,
                    });
                }
                sleep(QUEUE_PAUSE).await;
            }
            connected => return connected.map_err(|error| explain(&error, socket)),
        }
    }
}

async fn attempt(socket: &Path) -> Result<UnixStream, Error> {
    let (name, directory) = short_name(socket)?;
    let connected = UnixStream::connect(&name).await;
    drop(directory);
    connected
}

/// A name of the socket that fits into an address. Where the path does not, the name goes through
/// the open directory, which must stay open until the connection is made.
fn short_name(socket: &Path) -> Result<(PathBuf, Option<File>), Error> {
    if socket.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
        return Ok((socket.to_path_buf(), None));
    }
    let (Some(parent), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(Error::from(ErrorKind::NotFound));
    };
    let directory = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_DIRECTORY)
        .open(parent)?;
    let through = PathBuf::from(format!("/proc/self/fd/{}", directory.as_raw_fd())).join(name);
    Ok((through, Some(directory)))
}

fn explain(error: &Error, socket: &Path) -> CallError {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "all other kinds are one case"
    )]
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused | ErrorKind::NotADirectory => {
            CallError::NotUp {
                path: socket.to_path_buf(),
            }
        }
        ErrorKind::PermissionDenied => CallError::Problem(
            Problem::new(
                ProblemCode::Forbidden,
                format!("you may not use the node at {}", socket.display()),
            )
            .remedy("sudo welkin …, or name a node of your own with --state-dir"),
        ),
        _ => CallError::Protocol(format!("cannot reach {}: {error}", socket.display())),
    }
}
