//! What a lab leaves where others can find it: a run directory with a record of everything it has
//! made, so that whoever comes after a crash can take it away. It is not the hosts' disk; that lies
//! in the data directory, which the record names.
//!
//! | state | means |
//! | --- | --- |
//! | `BASE/.lab-NAME.PID` | being claimed |
//! | `BASE/lab-NAME`, locked | a lab is up |
//! | `BASE/lab-NAME`, not locked | its owner has died: stale |
//!
//! BASE is `/run` for root, otherwise `$XDG_RUNTIME_DIR` or the temporary directory. The lock
//! (`flock` on the directory itself) is held by the process that owns the lab, so it goes when that process goes.
//! Every start of a lab takes stale ones away first.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::cgroups::HostCgroups;
use crate::{clock, fallback, process};

const RECORD: &str = "lab.json";
/// How often a claim is tried again when somebody else tidies at the same moment.
const CLAIM_TRIES: usize = 20;
/// How long somebody else may take to tidy a name that we want.
const TIDYING_LIMIT: Duration = Duration::from_millis(500);

/// A claimed run directory. Dropping it takes only the lock away; see [`RunDirectory::remove`].
#[derive(Debug)]
pub(crate) struct RunDirectory {
    path: PathBuf,
    lock: File,
}

/// Everything that a lab has made outside its own memory.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    pub(crate) data: PathBuf,
    pub(crate) cgroups: Vec<PathBuf>,
    /// Inits that are up.
    pub(crate) inits: Vec<InitRecord>,
    /// The mark in the environment of the programs of a lab on loopback addresses.
    pub(crate) mark: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct InitRecord {
    pub(crate) pid: i32,
    pub(crate) started: u64,
}

/// Why a name could not be claimed.
#[derive(Debug)]
pub(crate) enum ClaimError {
    /// A lab of this name is up.
    Taken,
    Io(io::Error),
}

impl From<io::Error> for ClaimError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Where run directories are.
pub(crate) fn base() -> PathBuf {
    if nix::unistd::geteuid().is_root() {
        return PathBuf::from("/run");
    }
    std::env::var_os("XDG_RUNTIME_DIR")
        .map(PathBuf::from)
        .filter(|directory| directory.is_dir())
        .unwrap_or_else(std::env::temp_dir)
}

/// The run directory of the lab of this name, whether it exists or not.
pub(crate) fn path_of(name: &str) -> PathBuf {
    base().join(format!("lab-{name}"))
}

/// The names of the run directories that are there, stale or not.
pub(crate) fn names() -> Vec<String> {
    let mut names: Vec<String> = entries()
        .into_iter()
        .filter_map(|path| Some(path.file_name()?.to_str()?.strip_prefix("lab-")?.to_owned()))
        .collect();
    names.sort();
    names
}

impl RunDirectory {
    /// Claims a name. The record is in place before anything that it names is made.
    pub(crate) fn claim(name: &str, record: &Record) -> Result<Self, ClaimError> {
        let path = path_of(name);
        let staging = base().join(format!(".lab-{name}.{}", std::process::id()));
        for _ in 0..CLAIM_TRIES {
            match fs::remove_dir_all(&staging) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
                Ok(()) | Err(_) => {}
            }
            DirBuilder::new().mode(0o700).create(&staging)?;
            let lock = File::open(&staging)?;
            if lock.try_lock().is_err() {
                continue;
            }
            let claimed = Self {
                path: staging.clone(),
                lock,
            };
            if claimed.write(record).is_err() || fs::rename(&staging, &path).is_err() {
                // The name is in use, or somebody has tidied our staging directory away.
                fs::remove_dir_all(&staging).ok();
                if path.exists() && !take_away_unless_up(&path)? {
                    return Err(ClaimError::Taken);
                }
                continue;
            }
            let lock = claimed.lock;
            return Ok(Self { path, lock });
        }
        Err(ClaimError::Taken)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Replaces the record.
    pub(crate) fn write(&self, record: &Record) -> io::Result<()> {
        let new = self.path.join("lab.json.new");
        fs::write(&new, serde_json::to_vec_pretty(record)?)?;
        fs::rename(new, self.path.join(RECORD))
    }

    /// Removes the directory; the name is free afterwards.
    pub(crate) fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

/// Takes away what labs have left whose owners have died. Best effort: what cannot be removed now
/// is tried again by the next lab.
pub(crate) fn sweep() {
    for path in entries() {
        take_away_stale(&path).ok();
    }
}

/// Takes away what the lab of this name has left; false if it is up.
pub(crate) fn sweep_one(name: &str) -> io::Result<bool> {
    take_away_unless_up(&path_of(name))
}

/// As `take_away_stale`, but waits a little for somebody else who may be tidying just now: their
/// lock looks like that of a lab that is up.
fn take_away_unless_up(path: &Path) -> io::Result<bool> {
    let mut done = take_away_stale(path);
    clock::poll_until(TIDYING_LIMIT, || {
        if matches!(done, Ok(false)) {
            done = take_away_stale(path);
        }
        !matches!(done, Ok(false))
    });
    done
}

/// Our own run directories and staging directories.
fn entries() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(base()) else {
        return Vec::new();
    };
    entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("lab-") || name.starts_with(".lab-"))
        })
        .filter(|path| is_ours(path))
        .collect()
}

/// A record tells us to kill and to delete: believe only what this user has written.
fn is_ours(path: &Path) -> bool {
    let user = nix::unistd::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|it| it.is_dir() && it.uid() == user)
}

/// True if the directory is gone; false if a lab holds it.
fn take_away_stale(path: &Path) -> io::Result<bool> {
    if !path.exists() {
        return Ok(true);
    }
    if !is_ours(path) {
        return Ok(false);
    }
    let lock = match File::open(path) {
        Ok(lock) => lock,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(true),
        Err(error) => return Err(error),
    };
    if lock.try_lock().is_err() {
        return Ok(false);
    }
    // It may have been removed and claimed again between the two calls above.
    let same = fs::metadata(path).is_ok_and(|now| {
        let locked = lock.metadata();
        locked.is_ok_and(|locked| (locked.dev(), locked.ino()) == (now.dev(), now.ino()))
    });
    if same {
        let record = fs::read(path.join(RECORD)).unwrap_or_default();
        if let Ok(record) = serde_json::from_slice::<Record>(&record) {
            undo(&record)?;
        }
        remove_tree(path)?;
    }
    Ok(true)
}

/// Takes away everything that a record names.
fn undo(record: &Record) -> io::Result<()> {
    for init in &record.inits {
        if let Some(handle) = process::open_same(init.pid, init.started) {
            process::kill_by_handle(&handle).ok();
        }
    }
    let cgroups = HostCgroups::recorded(record.cgroups.clone());
    cgroups.thaw();
    cgroups.remove()?;
    if let Some(mark) = &record.mark {
        fallback::kill_marked(mark)?;
    }
    let is_lab = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("lab-");
    if record.data.file_name().is_some_and(is_lab) {
        remove_tree(&record.data)?;
    }
    Ok(())
}

/// Removes a directory; that it is gone already is fine.
pub(crate) fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            let message = format!("cannot remove {}: {error}", path.display());
            Err(io::Error::new(error.kind(), message))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
