//! The state directory of a node: its keys, its disk, its lock, its socket.
//!
//! What it is not: it knows no kernel and holds no secret longer than its owner lives. Everything
//! that must survive a power cut is written to a temporary file, synced, and renamed.
//!
//! | file | is |
//! | --- | --- |
//! | `lock` | held (`flock`) while a process works in the directory; its text is that process's id |
//! | `node.key` | 32 bytes, the secret key of this node (RFC 8032), mode 0600 |
//! | `cloud.key` | 32 bytes, the secret key of the cloud; only on the node that founded it |
//! | `admission` | encoded [`wire::peer::JoinAnswer`]: how this node came into its cloud |
//! | `port` | the port that links had last, so that a restarted node is found where it was |
//! | `listen` | where the node was last told to listen, one address a line |
//! | `disk.redb` | what the kernel stores; see [`crate::disk`] |
//! | `disk.opening` | how many starts died while they opened it |
//! | `objects/` | one directory per object; see [`wire::driver`] |
//! | `welkin.sock` | system calls, except for the default directory; see [`socket_path`] |

use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use ed25519_dalek::{Signature, SigningKey, VerifyingKey};
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::{Uid, geteuid};
use wire::id::{CloudId, NodeId};
use wire::peer::{JOIN_BYTES_MAX, JoinAnswer, Statement, StatementBody};

/// Where root keeps a node's state.
pub const ROOT_STATE_DIR: &str = "/var/lib/welkin";
/// Where the socket of that node is.
pub const ROOT_SOCKET: &str = "/run/welkin/welkin.sock";
/// The port of links of that node.
pub const ROOT_PORT: u16 = 7117;

const KEY_BYTES: usize = 32;

/// Where a node's state is when nobody says: `/var/lib/welkin` for root, else
/// `$XDG_STATE_HOME/welkin`, which is `~/.local/state/welkin` by default. A user without a home has
/// `/var/tmp/welkin-UID`: what somebody else has put there first is refused by [`Home::open`].
#[must_use]
pub fn default_state_dir() -> PathBuf {
    let user = geteuid();
    let absolute = |name: &str| {
        let value = std::env::var_os(name).map(PathBuf::from);
        value.filter(|path| path.is_absolute())
    };
    let state = absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")));
    state_dir_of(user, state)
}

fn state_dir_of(user: Uid, state: Option<PathBuf>) -> PathBuf {
    if user.is_root() {
        return PathBuf::from(ROOT_STATE_DIR);
    }
    match state {
        Some(state) => state.join("welkin"),
        None => PathBuf::from(format!("/var/tmp/welkin-{user}")),
    }
}

/// Where the node with this state directory answers system calls: `welkin.sock` in it, but
/// [`ROOT_SOCKET`] for [`ROOT_STATE_DIR`], which only root may enter.
#[must_use]
pub fn socket_path(state_dir: &Path) -> PathBuf {
    if state_dir == Path::new(ROOT_STATE_DIR) {
        PathBuf::from(ROOT_SOCKET)
    } else {
        state_dir.join("welkin.sock")
    }
}

/// Whether there is a node in this directory: it belongs to a cloud.
#[must_use]
pub fn exists(state_dir: &Path) -> bool {
    state_dir.join("admission").exists()
}

/// Why the state directory cannot be used. Nothing was changed that a second attempt would mind.
#[derive(Debug)]
pub enum HomeError {
    /// Another process works in it.
    Locked {
        /// The directory.
        directory: PathBuf,
        /// That process, when it said so.
        pid: Option<u32>,
    },
    /// The file system did not do what was asked.
    Io {
        /// What was tried: `create`, `read`, `write`, `lock`.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The directory belongs to another user, who could replace all that is in it.
    Foreign {
        /// The directory.
        directory: PathBuf,
        /// The number of that user.
        owner: u32,
    },
    /// Others may enter the directory, and it holds things that are not a node's: it is not closed
    /// to them.
    Shared {
        /// The directory.
        directory: PathBuf,
    },
    /// A file is not what it should be. It was left as it is, and no other was put in its place.
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it, as the rest of a sentence that begins with its name.
        what: String,
        /// What to do.
        remedy: &'static str,
    },
    /// There is no node here yet.
    Absent {
        /// Where none was found.
        directory: PathBuf,
    },
}

/// For files without which this is not the node that it was.
const RESTORE: &str = "restore it from a backup, or move the whole directory away and join the \
                       cloud again as a new node";

impl HomeError {
    fn damaged(path: &Path, what: impl Into<String>) -> Self {
        Self::Damaged {
            path: path.to_path_buf(),
            what: what.into(),
            remedy: RESTORE,
        }
    }

    fn io<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + use<'a> {
        move |error| Self::Io {
            action,
            path: path.to_path_buf(),
            error,
        }
    }
}

/// What a person can do about it.
fn remedy(error: &io::Error) -> &'static str {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ENOSPC | Errno::EDQUOT) => "; the disk is full: make room and try again",
        Some(Errno::EROFS) => {
            "; the file system is read-only: name a directory on another one with --state-dir"
        }
        Some(Errno::EACCES | Errno::EPERM) => {
            "; run it as the user who owns the directory, or name another one with --state-dir"
        }
        _ => "",
    }
}

impl fmt::Display for HomeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Locked { directory, pid } => {
                let directory = directory.display();
                match pid {
                    Some(pid) => write!(f, "process {pid} already runs a node in {directory}")?,
                    None => write!(f, "another process already runs a node in {directory}")?,
                }
                f.write_str("; stop it with `welkin down`, or name another --state-dir")
            }
            Self::Io {
                action,
                path,
                error,
            } => {
                let path = path.display();
                write!(f, "cannot {action} {path}: {error}{}", remedy(error))
            }
            Self::Foreign { directory, owner } => write!(
                f,
                "{} belongs to user {owner}, who could take the node over; run it as that user, \
                 or name another directory with --state-dir",
                directory.display()
            ),
            Self::Shared { directory } => write!(
                f,
                "others may enter {}, and it holds more than a node's files; name a directory of \
                 its own with --state-dir",
                directory.display()
            ),
            Self::Damaged { path, what, remedy } => {
                write!(f, "{} {what}; {remedy}", path.display())
            }
            Self::Absent { directory } => write!(
                f,
                "this machine belongs to no cloud yet ({} holds no node); found one with \
                 `welkin up` or join one with `welkin join TICKET`",
                directory.display()
            ),
        }
    }
}

impl std::error::Error for HomeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { error, .. } => Some(error),
            Self::Locked { .. }
            | Self::Foreign { .. }
            | Self::Shared { .. }
            | Self::Damaged { .. }
            | Self::Absent { .. } => None,
        }
    }
}

/// How the node came into its cloud.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    /// Which cloud.
    pub(crate) cloud: CloudId,
    /// What it was told when it came.
    pub(crate) answer: JoinAnswer,
}

/// A state directory that this process alone works in, while the value lives.
#[derive(Debug)]
pub struct Home {
    directory: PathBuf,
    key: SigningKey,
    /// Released when dropped, and by the system when the process dies.
    _lock: Flock<File>,
}

impl Home {
    /// Takes the directory, and makes it and the node's key when there are none.
    ///
    /// # Errors
    /// [`HomeError`]: it is in use, damaged, or the file system refuses.
    pub fn open(state_dir: &Path) -> Result<Self, HomeError> {
        make_directory(state_dir, 0o700)?;
        // Links in the path are resolved here, so that it stays right for shims and sockets.
        let directory = state_dir
            .canonicalize()
            .map_err(HomeError::io("read", state_dir))?;
        refuse_foreigners(state_dir, &directory, geteuid().as_raw())?;
        let lock = lock(&directory)?;
        make_directory(&directory.join("objects"), 0o700)?;
        let key = match whole_key(&directory)? {
            Some(key) => key,
            None => make_key(&directory.join("node.key"))?,
        };
        Ok(Self {
            directory,
            key,
            _lock: lock,
        })
    }

    /// The directory, without symbolic links.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// This node.
    #[must_use]
    pub fn node(&self) -> NodeId {
        NodeId(self.key.verifying_key().to_bytes())
    }

    /// Whether it belongs to a cloud.
    #[must_use]
    pub fn is_member(&self) -> bool {
        exists(&self.directory)
    }

    /// Where the objects are.
    #[must_use]
    pub fn objects(&self) -> PathBuf {
        self.directory.join("objects")
    }

    pub(crate) fn key(&self) -> &SigningKey {
        &self.key
    }

    pub(crate) fn disk_path(&self) -> PathBuf {
        self.directory.join("disk.redb")
    }

    /// Makes the key of a cloud; one that an interrupted founding left is used.
    pub(crate) fn cloud_key(&self) -> Result<SigningKey, HomeError> {
        let path = self.directory.join("cloud.key");
        match read_key(&path)? {
            Some(key) => Ok(key),
            None => make_key(&path),
        }
    }

    pub(crate) fn keep_admission(&self, answer: &JoinAnswer) -> Result<(), HomeError> {
        let path = self.directory.join("admission");
        let bytes = wire::encode(answer)
            .map_err(|error| HomeError::damaged(&path, format!("cannot be written: {error}")))?;
        write_whole(&path, &bytes)
    }

    pub(crate) fn admission(&self) -> Result<Admission, HomeError> {
        admission(&self.directory, self.node())
    }

    /// The port that links had last.
    pub(crate) fn last_port(&self) -> Option<u16> {
        let text = std::fs::read_to_string(self.directory.join("port")).ok()?;
        text.trim().parse().ok()
    }

    pub(crate) fn keep_port(&self, port: u16) -> Result<(), HomeError> {
        if self.last_port() == Some(port) {
            return Ok(());
        }
        write_whole(&self.directory.join("port"), port.to_string().as_bytes())
    }

    /// Whether a node ran here long enough to have something on its disk.
    pub(crate) fn has_run(&self) -> bool {
        self.directory.join("port").exists()
    }

    /// Where the node was last told to listen; empty when it never was. What cannot be read is no
    /// reason to listen where nobody wanted it to.
    pub(crate) fn last_listen(&self) -> Result<Vec<SocketAddr>, HomeError> {
        let path = self.directory.join("listen");
        let text = match std::fs::read(&path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(HomeError::io("read", &path)(error)),
        };
        let addresses = text.lines().map(|line| {
            line.parse().map_err(|_no_address| HomeError::Damaged {
                path: path.clone(),
                what: format!("is damaged: {line:?} is no address"),
                remedy: "say where to listen with --listen ADDRESS:PORT",
            })
        });
        addresses.collect()
    }

    pub(crate) fn keep_listen(&self, listen: &[SocketAddr]) -> Result<(), HomeError> {
        if self.last_listen().is_ok_and(|last| last == listen) {
            return Ok(());
        }
        let lines: String = listen
            .iter()
            .map(|address| format!("{address}\n"))
            .collect();
        write_whole(&self.directory.join("listen"), lines.as_bytes())
    }
}

/// What makes this directory a node, as far as it can be told from outside, while a node runs in it
/// or not.
pub(crate) fn examine(state_dir: &Path) -> Result<(), HomeError> {
    match whole_key(state_dir)? {
        Some(key) if exists(state_dir) => {
            admission(state_dir, NodeId(key.verifying_key().to_bytes())).map(drop)
        }
        Some(_) | None => Ok(()),
    }
}

/// The key of the node, when there is one. A directory that lost its key or its admission is the
/// rest of a node: to begin a new one in it would end that one for good.
fn whole_key(directory: &Path) -> Result<Option<SigningKey>, HomeError> {
    let path = directory.join("node.key");
    let key = read_key(&path)?;
    let is_there = |name: &str| directory.join(name).exists();
    if key.is_none()
        && let Some(left) = ["admission", "cloud.key", "disk.redb"]
            .into_iter()
            .find(|name| is_there(name))
    {
        let what = format!("is missing, and {left} is there: without the key this is another node");
        return Err(HomeError::damaged(&path, what));
    }
    // The disk is made once the node is admitted.
    if !exists(directory) && is_there("disk.redb") {
        let what = "is missing, and disk.redb is there: which cloud the node belongs to is lost";
        return Err(HomeError::damaged(&directory.join("admission"), what));
    }
    Ok(key)
}

fn admission(directory: &Path, node: NodeId) -> Result<Admission, HomeError> {
    let path = directory.join("admission");
    let damaged = |reason: &str| HomeError::damaged(&path, format!("is damaged: {reason}"));
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Err(HomeError::Absent {
                directory: directory.to_path_buf(),
            });
        }
        Err(error) => return Err(HomeError::io("read", &path)(error)),
    };
    let answer: JoinAnswer =
        wire::decode(&bytes, JOIN_BYTES_MAX).map_err(|error| damaged(&error.to_string()))?;
    let JoinAnswer::Admitted { statements, .. } = &answer else {
        return Err(damaged("it is a refusal"));
    };
    let Some(cloud) = cloud_of(statements, node) else {
        let reason = "it does not admit the node of node.key to one cloud: one of the two files \
                      was changed";
        return Err(damaged(reason));
    };
    let is_about_here = |it: &&Statement| it.body.subject() == node;
    if !statements.iter().filter(is_about_here).all(is_signed) {
        return Err(damaged(
            "the signature of this node's admission does not fit",
        ));
    }
    Ok(Admission { cloud, answer })
}

/// Whether the bytes are those that were signed. Who may sign, the kernel says.
fn is_signed(statement: &Statement) -> bool {
    let Ok(key) = VerifyingKey::from_bytes(&statement.signer) else {
        return false;
    };
    let signature = Signature::from_bytes(&statement.signature.0);
    let bytes = statement.body.signed_bytes();
    bytes.is_ok_and(|bytes| key.verify_strict(&bytes, &signature).is_ok())
}

/// The cloud that these statements admit the node to, when there is exactly one. That a kernel
/// counts only statements of its own cloud is no help before the cloud is known.
pub(crate) fn cloud_of(statements: &[Statement], node: NodeId) -> Option<CloudId> {
    let mut clouds = statements.iter().filter_map(|it| match &it.body {
        StatementBody::Admission {
            cloud, node: whom, ..
        } if *whom == node => Some(*cloud),
        StatementBody::Admission { .. } | StatementBody::Removal { .. } => None,
    });
    let first = clouds.next()?;
    clouds.all(|cloud| cloud == first).then_some(first)
}

/// Refuses a directory, or a link to one, that somebody but `user` could replace, and closes it to
/// everybody else.
fn refuse_foreigners(named: &Path, directory: &Path, user: u32) -> Result<(), HomeError> {
    let link = std::fs::symlink_metadata(named).map_err(HomeError::io("read", named))?;
    let data = std::fs::metadata(directory).map_err(HomeError::io("read", directory))?;
    let is_foreign = |owner: u32| owner != user && owner != 0;
    let owner = if data.uid() == user && is_foreign(link.uid()) {
        link.uid()
    } else {
        data.uid()
    };
    if owner != user {
        let directory = named.to_path_buf();
        return Err(HomeError::Foreign { directory, owner });
    }
    if data.mode() & 0o077 == 0 {
        return Ok(());
    }
    // Somebody's `--state-dir /tmp` must not close that to everybody.
    let mut entries = std::fs::read_dir(directory).map_err(HomeError::io("read", directory))?;
    let is_node = ["lock", "node.key", "daemon.log"].map(|name| directory.join(name).exists());
    if entries.next().is_some() && !is_node.contains(&true) {
        let directory = named.to_path_buf();
        return Err(HomeError::Shared { directory });
    }
    tracing::warn!(path = %directory.display(), "others could enter the state directory; closing it");
    std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o700))
        .map_err(HomeError::io("write", directory))
}

/// Makes a directory and those above it; one that is there is left as it is.
pub(crate) fn make_directory(path: &Path, mode: u32) -> Result<(), HomeError> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(HomeError::io("create", parent))?;
    }
    match DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
            Err(HomeError::io("create", path)(error))
        }
        _made_or_there => Ok(()),
    }
}

/// Whether a process still works in the state directory: a node that has answered its last call
/// needs a moment more to end.
#[must_use]
pub fn is_held(state_dir: &Path) -> bool {
    File::open(state_dir.join("lock"))
        .is_ok_and(|file| Flock::lock(file, FlockArg::LockSharedNonblock).is_err())
}

fn lock(directory: &Path) -> Result<Flock<File>, HomeError> {
    let path = directory.join("lock");
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(HomeError::io("create", &path))?;
    match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
        Ok(mut lock) => {
            // Only for people: who holds the lock is known to the system, not to the text.
            let text = std::process::id().to_string();
            lock.set_len(0)
                .and_then(|()| lock.write_all(text.as_bytes()))
                .map_err(HomeError::io("write", &path))?;
            Ok(lock)
        }
        Err((mut file, Errno::EWOULDBLOCK)) => {
            let mut text = String::new();
            let read = file.read_to_string(&mut text);
            Err(HomeError::Locked {
                directory: directory.to_path_buf(),
                pid: read.ok().and_then(|_length| text.trim().parse().ok()),
            })
        }
        Err((_, errno)) => Err(HomeError::io("lock", &path)(errno.into())),
    }
}

fn read_key(path: &Path) -> Result<Option<SigningKey>, HomeError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HomeError::io("read", path)(error)),
    };
    let secret: [u8; KEY_BYTES] = bytes.try_into().map_err(|bytes: Vec<u8>| {
        let what = format!(
            "is damaged: it has {} bytes where a key has {KEY_BYTES}",
            bytes.len()
        );
        HomeError::damaged(path, what)
    })?;
    let mode = std::fs::metadata(path).map(|data| data.permissions().mode() & 0o077);
    if mode.is_ok_and(|others| others != 0) {
        tracing::warn!(path = %path.display(), "others could read a secret key; closing it");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
            .map_err(HomeError::io("write", path))?;
    }
    Ok(Some(SigningKey::from_bytes(&secret)))
}

fn make_key(path: &Path) -> Result<SigningKey, HomeError> {
    let mut secret = [0; KEY_BYTES];
    getrandom::fill(&mut secret)
        .map_err(|error| HomeError::io("create", path)(io::Error::other(error.to_string())))?;
    write_whole(path, &secret)?;
    Ok(SigningKey::from_bytes(&secret))
}

/// Writes a file that is there whole or not at all, also after a power cut. Mode 0600.
fn write_whole(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&temporary)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        std::fs::rename(&temporary, path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    };
    write().map_err(HomeError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_daemon_is_refused_and_told_who_has_the_directory() {
        let directory = tempfile::tempdir().unwrap();
        let first = Home::open(directory.path()).unwrap();
        let refused = Home::open(directory.path()).unwrap_err();
        let text = refused.to_string();
        assert!(
            text.contains(&format!("process {}", std::process::id())),
            "{text}"
        );
        assert!(text.contains("welkin down"), "{text}");
        drop(first);
        Home::open(directory.path()).unwrap();
    }

    #[test]
    fn the_key_is_made_once_and_nobody_else_can_read_it() {
        let directory = tempfile::tempdir().unwrap();
        let state = directory.path().join("a/b");
        let node = Home::open(&state).unwrap().node();
        assert_eq!(Home::open(&state).unwrap().node(), node);
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&state), 0o700);
        assert_eq!(mode(&state.join("node.key")), 0o600);
    }

    fn open_to_all(directory: &Path) {
        std::fs::set_permissions(directory, std::fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// What a service manager makes is open to all by default, and so was the disk in it.
    #[test]
    fn a_directory_that_others_may_enter_is_closed_to_them() {
        let directory = tempfile::tempdir().unwrap();
        open_to_all(directory.path());
        drop(Home::open(directory.path()).unwrap());
        let mode = || std::fs::metadata(directory.path()).unwrap().mode() & 0o777;
        assert_eq!(mode(), 0o700);
        open_to_all(directory.path());
        drop(Home::open(directory.path()).unwrap());
        assert_eq!(mode(), 0o700);
    }

    #[test]
    fn a_directory_with_other_things_in_it_is_neither_closed_nor_used() {
        let directory = tempfile::tempdir().unwrap();
        open_to_all(directory.path());
        std::fs::write(directory.path().join("letter"), b"dear").unwrap();
        let text = Home::open(directory.path()).unwrap_err().to_string();
        assert!(text.contains("--state-dir"), "{text}");
        assert_eq!(
            std::fs::metadata(directory.path()).unwrap().mode() & 0o777,
            0o755
        );
    }

    #[test]
    fn a_directory_of_somebody_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let (path, me) = (directory.path(), geteuid().as_raw());
        assert!(refuse_foreigners(path, path, me).is_ok());
        let text = refuse_foreigners(path, path, me + 1)
            .unwrap_err()
            .to_string();
        assert!(text.contains(&format!("user {me}")), "{text}");
    }

    #[test]
    fn a_user_without_a_home_has_a_directory_of_their_own() {
        let check = |user: u32, state: Option<&str>, expect: &str| {
            let chosen = state_dir_of(Uid::from_raw(user), state.map(PathBuf::from));
            assert_eq!(chosen, Path::new(expect));
        };
        check(0, Some("/x"), ROOT_STATE_DIR);
        check(7, Some("/x"), "/x/welkin");
        check(7, None, "/var/tmp/welkin-7");
    }

    #[test]
    fn a_damaged_key_is_named_and_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("node.key"), b"short").unwrap();
        let text = Home::open(directory.path()).unwrap_err().to_string();
        assert!(
            text.contains("node.key is damaged: it has 5 bytes"),
            "{text}"
        );
        assert!(text.contains("restore it from a backup"), "{text}");
        assert_eq!(
            std::fs::read(directory.path().join("node.key")).unwrap(),
            b"short"
        );
    }

    /// A directory of a node that founded a cloud and ran.
    fn founded() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        crate::join::found(&home, Some("a")).unwrap();
        std::fs::write(home.disk_path(), b"").unwrap();
        directory
    }

    fn reopen(directory: &Path) -> Result<Admission, HomeError> {
        Home::open(directory).and_then(|home| home.admission())
    }

    /// A key that was lost was made anew, and with it another node, which no cloud knows.
    #[test]
    fn what_makes_a_node_is_missed_by_name_and_never_made_anew() {
        for (lost, left) in [("node.key", "admission"), ("admission", "disk.redb")] {
            let directory = founded();
            reopen(directory.path()).unwrap();
            std::fs::remove_file(directory.path().join(lost)).unwrap();
            let text = reopen(directory.path()).unwrap_err().to_string();
            assert!(
                text.contains(&format!("{lost} is missing, and {left} is there")),
                "{text}"
            );
            assert!(text.contains("restore it from a backup"), "{text}");
            assert!(
                !directory.path().join(lost).exists(),
                "{lost} was made anew"
            );
            assert_eq!(examine(directory.path()).unwrap_err().to_string(), text);
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Damage {
        Flip,
        Zero,
        Truncate,
    }

    impl Damage {
        fn of(self, whole: &[u8], at: usize) -> Vec<u8> {
            let mut bytes = whole.to_vec();
            match self {
                Self::Flip => bytes[at] ^= 0x10,
                Self::Zero => bytes[at] = 0,
                Self::Truncate => bytes.truncate(at),
            }
            bytes
        }
    }

    /// A bit that flips in a key makes the key of another node.
    #[test]
    fn a_changed_byte_in_what_makes_a_node_is_noticed() {
        let directory = founded();
        let path = |name| directory.path().join(name);
        let before = reopen(directory.path()).unwrap().answer;
        let check = |what: &str| match reopen(directory.path()) {
            Ok(found) => assert_eq!(found.answer, before, "{what}"),
            Err(error) => assert!(error.to_string().contains("is damaged"), "{what}: {error}"),
        };
        // The name of the node is not signed; the disk knows it too.
        let at_name = 4;
        for name in ["node.key", "admission"] {
            let whole = std::fs::read(path(name)).unwrap();
            for at in (0..whole.len()).filter(|at| name == "node.key" || *at != at_name) {
                for damage in [Damage::Flip, Damage::Zero, Damage::Truncate] {
                    std::fs::write(path(name), damage.of(&whole, at)).unwrap();
                    check(&format!("{damage:?}, {name}, {at}"));
                }
            }
            std::fs::write(path(name), whole).unwrap();
        }
    }

    /// A node that was told to listen on one address came back on all of them.
    #[test]
    fn a_damaged_list_of_addresses_is_no_reason_to_listen_everywhere() {
        let directory = founded();
        let home = Home::open(directory.path()).unwrap();
        let wanted = ["127.0.0.1:7".parse().unwrap()];
        home.keep_listen(&wanted).unwrap();
        assert_eq!(home.last_listen().unwrap(), wanted);
        std::fs::write(directory.path().join("listen"), b"127.0.0.1:7\n127.0\xff").unwrap();
        let text = home.last_listen().unwrap_err().to_string();
        assert!(text.contains("listen is damaged"), "{text}");
        assert!(text.ends_with("--listen ADDRESS:PORT"), "{text}");
        home.keep_listen(&wanted).unwrap();
        assert_eq!(home.last_listen().unwrap(), wanted);
    }

    #[test]
    fn an_empty_home_says_how_to_fill_it() {
        let directory = tempfile::tempdir().unwrap();
        let home = Home::open(directory.path()).unwrap();
        assert!(!home.is_member());
        let text = home.admission().unwrap_err().to_string();
        assert!(text.contains("welkin join TICKET"), "{text}");
    }

    #[test]
    fn a_refusing_file_system_is_explained() {
        let error = HomeError::io("write", Path::new("/x"))(io::Error::from(Errno::ENOSPC));
        assert!(
            error
                .to_string()
                .ends_with("the disk is full: make room and try again")
        );
    }

    #[test]
    fn the_socket_of_the_default_directory_is_where_others_may_look() {
        assert_eq!(
            socket_path(Path::new(ROOT_STATE_DIR)),
            Path::new(ROOT_SOCKET)
        );
        assert_eq!(
            socket_path(Path::new("/x/y")),
            Path::new("/x/y/welkin.sock")
        );
    }
}
