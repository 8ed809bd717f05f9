//! What a node calls: starts shims, finds them again, reaches them, and removes what they held.
//!
//! Every function works on the directory of one object, whose files [`wire::driver`] lists. None
//! keeps anything in memory except the process ids of shims that this daemon started and has to
//! reap.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

use nix::poll::{PollFd, PollFlags, poll};
use nix::sys::signal::Signal;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect as connect_socket, listen,
    socket,
};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use wire::driver::Launch;
use wire::fact::Exit;
use wire::id::NodeId;

use crate::cgroup::{self, Group};
use crate::directory::{
    self, CGROUPS, Directory, ERRORS, EXIT, LAUNCH, PARTIAL, PIDS, SCRATCH, SOCKET,
};
use crate::limits::BACKLOG;
use crate::{log, sys, tree};

pub use crate::probe::{LIMITS_REMEDY, Protection, probe};

/// Attempts to kill what appears while it is being killed.
const KILL_ATTEMPTS: u32 = 1000;

/// How long a start waits for an earlier shim of the object before it is killed, in milliseconds:
/// it is about to end by itself unless a caller is slow.
const EARLIER_RUN_MS: u16 = 2_000;
/// How long a killed shim may take to be gone, in milliseconds.
const KILLED_MS: u16 = 1_000;

/// Why a shim was not started. Nothing runs; the directory may hold a new `launch` file.
#[derive(Debug)]
pub enum LaunchError {
    /// The object's directory cannot be written, or something of an earlier run is left.
    Directory(io::Error),
    /// The socket on which the shim listens cannot be made.
    Socket(io::Error),
    /// The shim's process cannot be made.
    Spawn(io::Error),
}

impl std::fmt::Display for LaunchError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Directory(error) => {
                write!(f, "the object's directory cannot be used: {error}")
            }
            Self::Socket(error) => write!(f, "the shim's socket cannot be made: {error}"),
            Self::Spawn(error) => write!(f, "the shim cannot be started: {error}"),
        }
    }
}

impl std::error::Error for LaunchError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Directory(error) | Self::Socket(error) | Self::Spawn(error) => Some(error),
        }
    }
}

/// Shims that this process has started and not reaped yet.
static CHILDREN: Mutex<Vec<Pid>> = Mutex::new(Vec::new());

fn reap_children() {
    let mut children = CHILDREN.lock().unwrap_or_else(PoisonError::into_inner);
    let flags = Some(WaitPidFlag::WNOHANG);
    children.retain(|pid| matches!(waitpid(*pid, flags), Ok(WaitStatus::StillAlive)));
}

/// Starts a shim for the object that `launch` describes, in `directory`, which is made when it
/// does not exist; what an earlier run of the object left there is kept, except how it ended.
/// `program` is the binary whose `shim DIR` runs [`crate::shim::main`]. Returns the shim's
/// process id.
///
/// [`connect`] works as soon as this returns: the socket exists before the shim does. The shim is
/// a child of this process; ended ones are reaped at the next call of a function of this module.
///
/// # Errors
/// [`LaunchError`]; nothing runs then.
pub fn launch(program: &Path, directory: &Path, launch: &Launch) -> Result<u32, LaunchError> {
    reap_children();
    let files = Directory::new(directory);
    let errors = prepare_directory(&files, launch).map_err(LaunchError::Directory)?;
    let listener = bind_socket(directory).map_err(LaunchError::Socket)?;
    // Nothing that would make the standard library fork instead of the much faster spawn: the
    // shim itself leaves this session and closes what it inherited.
    let child = Command::new(program)
        .arg("shim")
        .arg(directory)
        .env_clear()
        .stdin(Stdio::from(listener))
        .stdout(Stdio::null())
        .stderr(Stdio::from(errors))
        .spawn()
        .map_err(LaunchError::Spawn)?;
    let pid =
        i32::try_from(child.id()).map_err(|error| LaunchError::Spawn(io::Error::other(error)))?;
    CHILDREN
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(Pid::from_raw(pid));
    Ok(child.id())
}

fn prepare_directory(files: &Directory, launch: &Launch) -> io::Result<File> {
    match fs::create_dir(files.path()) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => end_earlier_run(files)?,
        other => other?,
    }
    for name in [EXIT, SOCKET, PIDS] {
        directory::remove_file(&files.file(name))?;
    }
    files.write_launch(launch)?;
    // Before there is anybody who could end without room to say why.
    files.reserve_exit()?;
    let mut options = OpenOptions::new();
    options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(files.file(ERRORS))
}

/// An earlier shim of the object may still serve callers or bury what was left of it. It shares
/// the scratch files and the control groups with the next one, so it has to be gone first.
fn end_earlier_run(files: &Directory) -> io::Result<()> {
    if let Some(shim) = shim_of(files) {
        wait_for_end(&shim, EARLIER_RUN_MS);
    }
    if kill_everything(files.path()) {
        return Ok(());
    }
    Err(io::Error::new(
        io::ErrorKind::ResourceBusy,
        "something of its earlier run does not end",
    ))
}

/// A socket's path must be short, so the directory is named by a descriptor of it.
fn socket_address(directory: &Path) -> io::Result<(UnixAddr, File)> {
    let flags = libc::O_PATH | libc::O_DIRECTORY;
    let holder = OpenOptions::new()
        .read(true)
        .custom_flags(flags)
        .open(directory)?;
    let path = format!("/proc/self/fd/{}/{SOCKET}", holder.as_raw_fd());
    Ok((UnixAddr::new(path.as_str())?, holder))
}

fn new_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::Unix, SockType::Stream);
    Ok(socket(family, kind, SockFlag::SOCK_CLOEXEC | flags, None)?)
}

fn bind_socket(directory: &Path) -> io::Result<OwnedFd> {
    let (address, _holder) = socket_address(directory)?;
    let listener = new_socket(SockFlag::empty())?;
    bind(listener.as_raw_fd(), &address)?;
    listen(&listener, Backlog::new(BACKLOG)?)?;
    Ok(listener)
}

/// Connects to the shim of the object in `directory`. Never waits.
///
/// # Errors
/// One that [`is_gone`] when there is no shim (any more): its `exit` file, if it wrote one, says
/// how the object ended. `WouldBlock` when too many wait for it; others say nothing about it.
pub fn connect(directory: &Path) -> io::Result<UnixStream> {
    let (address, _holder) = socket_address(directory)?;
    let socket = new_socket(SockFlag::SOCK_NONBLOCK)?;
    connect_socket(socket.as_raw_fd(), &address)?;
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

/// Whether an error of [`connect`] means that there is no shim. Any other may pass: too many wait
/// for the shim, or this process has no descriptor left.
#[must_use]
pub fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused | io::ErrorKind::NotFound
    )
}

fn has_shim(directory: &Path) -> bool {
    connect(directory).map_or_else(|error| !is_gone(&error), |_stream| true)
}

/// How the object in `directory` ended; `None` when it has not, or nobody was left to write it.
///
/// # Errors
/// When the file is there and cannot be read.
pub fn read_exit(directory: &Path) -> io::Result<Option<Exit>> {
    Directory::new(directory).read_exit()
}

/// An object that lies in the objects directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its directory.
    pub directory: PathBuf,
    /// What was launched there.
    pub launch: Launch,
    /// What became of it.
    pub state: FoundState,
}

/// What became of an object while nobody looked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FoundState {
    /// Its shim lives: [`connect`] and watch.
    Alive,
    /// It ended, and its shim wrote how.
    Exited(Exit),
    /// Its shim is gone without a word, after a power cut for example. What remained of it in its
    /// control groups has been killed.
    Lost,
}

/// What lies in the objects directory after the daemon was away. A directory without a readable
/// `launch` file is no object and is left out; one that has none, or an empty one, was being made or
/// removed when the daemon died, and is removed.
///
/// # Errors
/// When the objects directory cannot be read.
pub fn scan(objects_directory: &Path) -> io::Result<Vec<Found>> {
    reap_children();
    let mut found = Vec::new();
    for entry in fs::read_dir(objects_directory)? {
        let directory = entry?.path();
        let files = Directory::new(&directory);
        let Ok(launch) = files.read_launch() else {
            let is_begun = fs::metadata(files.file(LAUNCH)).is_ok_and(|it| it.len() > 0);
            if !is_begun {
                // What cannot be removed now is found at the next start.
                let _removed = remove(&directory);
            }
            continue;
        };
        // First the exit, then the shim: an object that ends in between is found as alive, and
        // its watcher is told; the other way round it would be found as lost.
        let state = match (files.read_exit(), has_shim(&directory)) {
            (Ok(Some(exit)), _) => FoundState::Exited(exit),
            (_, true) => FoundState::Alive,
            (_, false) => match files.read_exit() {
                Ok(Some(exit)) => FoundState::Exited(exit),
                Ok(None) | Err(_) => {
                    kill_group(&files, &launch);
                    FoundState::Lost
                }
            },
        };
        found.push(Found {
            directory,
            launch,
            state,
        });
    }
    found.sort_by_key(|found| found.launch.object);
    Ok(found)
}

fn group_of(files: &Directory, launch: &Launch) -> Group {
    let recorded = directory::read_text(&files.file(CGROUPS)).unwrap_or_default();
    Group::recorded(&recorded, launch.object)
}

/// Kills what is in the object's control groups and removes them. False when something is left.
fn kill_group(files: &Directory, launch: &Launch) -> bool {
    let mut group = group_of(files, launch);
    for _attempt in 0..KILL_ATTEMPTS {
        group.kill();
        if group.remove() {
            return true;
        }
        pause();
    }
    false
}

/// A millisecond, during which the kernel buries the dead.
fn pause() {
    let nothing: &mut [PollFd<'_>] = &mut [];
    let _timed_out = poll(nothing, 1_u8);
}

/// Forgets an object that has ended: its scratch files, its log, its control groups, its
/// directory.
///
/// # Errors
/// `ResourceBusy` when its shim still lives; otherwise what could not be removed.
pub fn remove(directory: &Path) -> io::Result<()> {
    reap_children();
    let files = Directory::new(directory);
    if shim_of(&files).is_some() && has_shim(directory) && files.read_exit()?.is_none() {
        return Err(io::Error::new(
            io::ErrorKind::ResourceBusy,
            "the object has not ended",
        ));
    }
    kill_everything(directory);
    tree::remove(&files.file(SCRATCH))?;
    match log::remove(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // The launch file goes last but one: without it the directory is no object any more.
    for name in [CGROUPS, PIDS, SOCKET, ERRORS, EXIT, PARTIAL, LAUNCH] {
        directory::remove_file(&files.file(name))?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// The shim of a directory, if that process really is one: a number may have been used again.
fn shim_of(files: &Directory) -> Option<OwnedFd> {
    let pid = Pid::from_raw(*files.read_pids().first()?);
    let process = sys::pidfd_open(pid).ok()?;
    // Looked at after the descriptor was taken, so it is the same process.
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let is_shim = words.next() == Some(b"shim".as_slice())
        && words.next() == Some(files.path().as_os_str().as_encoded_bytes());
    is_shim.then_some(process)
}

/// Waits until a process has ended. False when it has not in time.
fn wait_for_end(process: &OwnedFd, limit_ms: u16) -> bool {
    let mut watched = [PollFd::new(process.as_fd(), PollFlags::POLLIN)];
    // Interrupted means not in time; callers then do what they do about a slow one.
    poll(&mut watched, limit_ms).is_ok_and(|ended| ended > 0)
}

/// The last resort when a shim does not answer: kills it, and with it everything in the object.
/// Returns whether nothing is left.
pub fn kill_everything(directory: &Path) -> bool {
    let files = Directory::new(directory);
    let shim_is_gone = shim_of(&files).is_none_or(|shim| {
        // It may have just ended.
        let _gone = sys::pidfd_send_signal(shim.as_fd(), Signal::SIGKILL as i32);
        wait_for_end(&shim, KILLED_MS)
    });
    let rest_is_gone = match files.read_launch() {
        Ok(launch) => kill_group(&files, &launch),
        Err(_) => true,
    };
    reap_children();
    shim_is_gone && rest_is_gone
}

/// Prepares the daemon's own control group for having objects below it, where they have no other
/// place. To be called once when the daemon starts, before the first launch, and before it has
/// threads in other groups. Returns sentences about limits that may not hold.
pub fn prepare_control_groups() -> Vec<String> {
    cgroup::prepare()
}

/// Removes the control groups of a node, unless it has objects in them.
pub fn remove_control_groups(node: NodeId) {
    cgroup::remove_node(node);
}
