//! Copies files out of and into an object, from inside: the process that does it is in the
//! object's mount namespace, so a link in the object can only lead to what the object itself sees.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use tar::{Archive, Builder, Header};

/// What is read into memory before it is written down, so that its length is known. Larger files
/// must end where they did when their copying began.
const WHOLE_BYTES_MAX: u64 = 64 * 1024;

/// Writes `path` and what is below it as an archive whose names begin with its last part.
pub(crate) fn read(path: &Path, to: File) -> io::Result<()> {
    let name = path
        .file_name()
        .map_or_else(|| PathBuf::from("."), PathBuf::from);
    let mut archive = Builder::new(io::BufWriter::new(to));
    archive.follow_symlinks(false);
    // Holes are read as what they are, zeros: a file that changes meanwhile has others.
    archive.sparse(false);
    let mut pending = vec![(path.to_path_buf(), name)];
    let mut is_first = true;
    while let Some((path, name)) = pending.pop() {
        match append(&mut archive, &path, &name) {
            Ok(false) => {}
            Ok(true) => {
                for entry in fs::read_dir(&path)? {
                    let entry = entry?;
                    pending.push((entry.path(), name.join(entry.file_name())));
                }
            }
            // It was deleted since its directory was listed.
            Err(error) if error.kind() == io::ErrorKind::NotFound && !is_first => {}
            Err(error) => return Err(error),
        }
        is_first = false;
    }
    archive.into_inner()?.flush()
}

/// Appends one entry. Whether it is a directory.
fn append<W: Write>(archive: &mut Builder<W>, path: &Path, name: &Path) -> io::Result<bool> {
    let kind = fs::symlink_metadata(path)?.file_type();
    if kind.is_socket() {
        return Ok(false);
    }
    if !kind.is_file() {
        archive.append_path_with_name(path, name)?;
        return Ok(kind.is_dir());
    }
    let mut options = OpenOptions::new();
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = options.read(true).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let mut header = Header::new_gnu();
    header.set_metadata(&metadata);
    // Files of the kernel say that they are empty, or a page long, and are neither.
    if metadata.len() <= WHOLE_BYTES_MAX {
        let mut whole = Vec::new();
        (&mut file).take(WHOLE_BYTES_MAX).read_to_end(&mut whole)?;
        header.set_size(u64::try_from(whole.len()).unwrap_or(0));
        archive.append_data(&mut header, name, whole.as_slice())?;
        return Ok(false);
    }
    // The header has been sent when a file gets shorter: what is missing becomes zeros.
    let exact = file.chain(io::repeat(0)).take(metadata.len());
    archive.append_data(&mut header, name, exact)?;
    Ok(false)
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
