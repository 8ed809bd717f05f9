//! Copies files out of and into an object, from inside: the process that does it is in the
//! object's mount namespace, so a link in the object can only lead to what the object itself sees.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use tar::{Archive, Builder};

/// Writes `path` and what is below it as an archive whose names begin with its last part.
pub(crate) fn read(path: &Path, to: File) -> io::Result<()> {
    let name = path
        .file_name()
        .map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut archive = Builder::new(io::BufWriter::new(to));
    archive.follow_symlinks(false);
    let mut pending = vec![(path.to_path_buf(), name)];
    let mut is_first = true;
    while let Some((path, name)) = pending.pop() {
        let kind = match fs::symlink_metadata(&path) {
            Ok(metadata) => metadata.file_type(),
            // It was deleted since its directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_first => continue,
            Err(error) => return Err(error),
        };
        is_first = false;
        if kind.is_socket() {
            continue;
        }
        archive.append_path_with_name(&path, &name)?;
        if kind.is_dir() {
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                pending.push((entry.path(), name.join(entry.file_name())));
            }
        }
    }
    archive.into_inner()?.flush()
}

/// Unpacks an archive into the directory `path`, which must exist.
pub(crate) fn write(path: &Path, from: File) -> io::Result<()> {
    if !fs::metadata(path)?.is_dir() {
        return Err(io::Error::from(io::ErrorKind::NotADirectory));
    }
    let mut archive = Archive::new(io::BufReader::new(from));
    archive.set_preserve_permissions(true);
    archive.set_preserve_mtime(true);
    archive.set_overwrite(true);
    archive.unpack(path)?;
    // What follows the end of the archive is padding; its sender wants to get rid of it.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}
