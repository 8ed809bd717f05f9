//! The files of one object's directory, as [`wire::driver`] lists them, and how they are read
//! and written. Nothing here decides anything.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::posix_fallocate;
use wire::driver::{LAUNCH_BYTES_MAX, Launch};
use wire::fact::Exit;

use crate::limits::{EXIT_BYTES_MAX, KERNEL_FILE_BYTES_MAX};

pub(crate) const LAUNCH: &str = "launch";
pub(crate) const SOCKET: &str = "shim.sock";
pub(crate) const PIDS: &str = "shim.pid";
pub(crate) const ERRORS: &str = "shim.err";
pub(crate) const EXIT: &str = "exit";
/// Room for [`EXIT`], then it itself before it is renamed.
pub(crate) const PARTIAL: &str = "exit.partial";
/// The control groups that the shim made, one path a line; written before they are made.
pub(crate) const CGROUPS: &str = "cgroups";
pub(crate) const SCRATCH: &str = "scratch";

/// The directory of an object.
#[derive(Debug, Clone)]
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_path_buf())
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub(crate) fn read_launch(&self) -> io::Result<Launch> {
        let bytes = read_bounded(&self.file(LAUNCH), LAUNCH_BYTES_MAX)?;
        wire::decode(&bytes, LAUNCH_BYTES_MAX).map_err(io::Error::other)
    }

    pub(crate) fn write_launch(&self, launch: &Launch) -> io::Result<()> {
        let bytes = wire::encode(launch).map_err(io::Error::other)?;
        if bytes.len() > LAUNCH_BYTES_MAX {
            return Err(io::Error::other(format!(
                "the program, its arguments and its environment take {} bytes; at most \
                 {LAUNCH_BYTES_MAX} are allowed",
                bytes.len()
            )));
        }
        write_private(&self.file(LAUNCH), &bytes)?;
        Ok(())
    }

    /// `None` when the object has not ended, or nobody was left to write how.
    pub(crate) fn read_exit(&self) -> io::Result<Option<Exit>> {
        match read_bounded(&self.file(EXIT), EXIT_BYTES_MAX) {
            Ok(bytes) => wire::decode(&bytes, EXIT_BYTES_MAX)
                .map(Some)
                .map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the room on the disk that [`Self::write_exit`] will need, so that a disk that the
    /// object fills does not cost the news of its end.
    pub(crate) fn reserve_exit(&self) -> io::Result<()> {
        let length = i64::try_from(EXIT_BYTES_MAX).unwrap_or(0);
        match posix_fallocate(self.open_partial()?, 0, length) {
            // A file system that keeps no room in advance.
            Err(Errno::EOPNOTSUPP) => Ok(()),
            kept => Ok(kept?),
        }
    }

    /// Durable when it returns: a reader sees all of it or nothing, also after a power cut.
    pub(crate) fn write_exit(&self, exit: &Exit) -> io::Result<()> {
        let bytes = wire::encode(exit).map_err(io::Error::other)?;
        let partial = self.open_partial()?;
        // In place, where there is room.
        partial.write_all_at(&bytes, 0)?;
        partial.set_len(u64::try_from(bytes.len()).unwrap_or(u64::MAX))?;
        partial.sync_all()?;
        fs::rename(self.file(PARTIAL), self.file(EXIT))?;
        File::open(&self.0)?.sync_all()
    }

    fn open_partial(&self) -> io::Result<File> {
        let mut options = OpenOptions::new();
        options
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(self.file(PARTIAL))
    }

    /// Process ids of the shim and, once it runs, of the program.
    pub(crate) fn read_pids(&self) -> Vec<i32> {
        let text = read_text(&self.file(PIDS)).unwrap_or_default();
        text.lines()
            .take(2)
            .filter_map(|line| line.parse().ok())
            .collect()
    }

    pub(crate) fn write_pids(&self, pids: &[i32]) -> io::Result<()> {
        let text: String = pids.iter().map(|pid| format!("{pid}\n")).collect();
        write_private(&self.file(PIDS), text.as_bytes())?;
        Ok(())
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<File> {
    let mut options = OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)?;
    Ok(file)
}

fn read_bounded(path: &Path, bytes_max: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let limit = u64::try_from(bytes_max)
        .unwrap_or(u64::MAX)
        .saturating_add(1);
    File::open(path)?.take(limit).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// A small text file, usually of the kernel.
pub(crate) fn read_text(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?
        .take(KERNEL_FILE_BYTES_MAX)
        .read_to_string(&mut text)?;
    Ok(text)
}

/// Removes a file that may already be gone.
pub(crate) fn remove_file(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
