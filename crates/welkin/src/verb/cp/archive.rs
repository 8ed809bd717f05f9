//! Archives, made and unpacked on this machine.

use std::cmp::Reverse;
use std::error::Error;
use std::fs::{self, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use tokio::sync::mpsc::{Receiver, Sender};
use wire::stream::PAYLOAD_BYTES_MAX;

use super::Piece;
use crate::failure::Failure;
use crate::output::human;

/// What is kept of the mode of a file: who may read, write and execute it.
const MODE_BITS: u32 = 0o777;

/// Where in the object to unpack, and under which name.
///
/// `cp a web:/dir/` makes `/dir/a`; `cp a web:/b` makes `/b`, or `/b/a` where `/b` is a directory;
/// `cp dir/. web:/dir` copies what is in the directory.
pub(super) fn destination(
    from: &Path,
    path: &str,
    is_directory: bool,
) -> Result<(String, PathBuf), Failure> {
    let only_contents =
        from.as_os_str().as_encoded_bytes().ends_with(b"/.") || from == Path::new(".");
    if is_directory && only_contents {
        return Ok((path.to_owned(), PathBuf::from(".")));
    }
    if is_directory {
        let whole = from.canonicalize();
        let name = from
            .file_name()
            .or_else(|| whole.as_ref().ok()?.file_name());
        let name = name.ok_or_else(|| Failure::usage("what is copied needs a name"))?;
        return Ok((path.to_owned(), PathBuf::from(name)));
    }
    let path = Path::new(path);
    match (path.parent().and_then(Path::to_str), path.file_name()) {
        (Some(parent), Some(name)) => Ok((parent.to_owned(), PathBuf::from(name))),
        (Some(_), None) | (None, _) => Err(Failure::usage("the destination needs a name")),
    }
}

/// Whether the first entry of an archive is a directory.
pub(super) fn begins_with_directory(piece: &[u8]) -> bool {
    let mut archive = tar::Archive::new(piece);
    let first = archive
        .entries()
        .ok()
        .and_then(|mut entries| entries.next());
    first.is_some_and(|entry| entry.is_ok_and(|it| it.header().entry_type().is_dir()))
}

/// Packs a file or a directory under this name. The end is sent only when all of it was packed.
pub(super) fn pack(from: &Path, name: &Path, pieces: Sender<Piece>) -> Result<(), Failure> {
    let cannot = |error: io::Error| failed("cannot read", from, &error);
    // The link that was named is followed, as cp does; those below it are copied as links.
    let from = &from.canonicalize().map_err(cannot)?;
    let writer = io::BufWriter::with_capacity(PAYLOAD_BYTES_MAX, PieceWriter(pieces));
    let mut builder = tar::Builder::new(writer);
    builder.follow_symlinks(false);
    let packed = if from.is_dir() {
        builder.append_dir_all(name, from)
    } else {
        builder.append_path_with_name(from, name)
    };
    let finished = packed
        .and_then(|()| builder.into_inner())
        .and_then(|mut it| it.flush().map(|()| it));
    match finished {
        Ok(writer) => {
            // Whoever sends has given up already when this fails, and says why.
            drop(writer.get_ref().0.blocking_send(Piece::End));
            Ok(())
        }
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(cannot(error)),
    }
}

struct PieceWriter(Sender<Piece>);

impl Write for PieceWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = bytes.len().min(PAYLOAD_BYTES_MAX);
        let piece = Piece::Data(bytes.get(..taken).unwrap_or(bytes).to_vec());
        let sent = self.0.blocking_send(piece);
        sent.map_err(|_closed| io::Error::from(io::ErrorKind::BrokenPipe))?;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Unpacks what was at `path` in an object to `to`: into it when it is a directory, else as it.
pub(super) fn unpack(pieces: Receiver<Vec<u8>>, path: &str, to: &Path) -> Result<(), Failure> {
    let cannot = |error: io::Error| failed("cannot write to", to, &error);
    let mut archive = tar::Archive::new(PieceReader {
        pieces,
        rest: Vec::new(),
        taken: 0,
    });
    // A set-user-id bit from inside an object would be one of this user's here.
    archive.set_preserve_permissions(false);
    archive.set_overwrite(true);
    let root = Root::of(path, to);
    let mut directories = Vec::new();
    for entry in archive.entries().map_err(cannot)? {
        let mut entry = entry.map_err(cannot)?;
        let inside = entry.path().map_err(cannot)?.into_owned();
        let place = root.place(&inside).map_err(cannot)?;
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent).map_err(cannot)?;
        }
        if entry.header().entry_type().is_dir() {
            make_directory(&place).map_err(cannot)?;
            directories.push((place, entry.header().mode().map_err(cannot)? & MODE_BITS));
            continue;
        }
        // A hard link names another entry of the archive, by its name there.
        let link = entry
            .link_name()
            .map_err(cannot)?
            .map(std::borrow::Cow::into_owned);
        match link.filter(|_| entry.header().entry_type().is_hard_link()) {
            Some(target) => {
                let target = root.place(&target).map_err(cannot)?;
                fs::hard_link(target, place).map_err(cannot)?;
            }
            None => {
                entry.unpack(place).map_err(cannot)?;
            }
        }
    }
    // One that may not be written to had to be filled before; deepest first, for one that may not
    // be entered hides what is below it.
    directories.sort_by_key(|(place, _)| Reverse(place.components().count()));
    for (place, mode) in directories {
        fs::set_permissions(&place, Permissions::from_mode(mode)).map_err(cannot)?;
    }
    Ok(())
}

fn make_directory(place: &Path) -> io::Result<()> {
    // What a link leads to is not this directory.
    if place.is_symlink() {
        return Err(io::Error::from(io::ErrorKind::AlreadyExists));
    }
    fs::create_dir_all(place)
}

/// What did not work, and why: an error of the archive names its file and hides the reason below.
fn failed(what: &str, path: &Path, error: &io::Error) -> Failure {
    let mut text = format!("{what} {}: {error}", path.display());
    let mut below = error.source();
    while let Some(reason) = below {
        text.push_str(&format!(": {reason}"));
        below = reason.source();
    }
    let look = ["ls", "-ld", &path.display().to_string()].map(str::to_owned);
    Failure::new(text).remedy(human::command(&look))
}

/// Where the entries of an archive go.
struct Root {
    directory: PathBuf,
    /// The first part of every entry is the name of the whole, which is called otherwise here.
    named: bool,
}

impl Root {
    fn of(path: &str, to: &Path) -> Self {
        let name = Path::new(path).file_name();
        let into = name.filter(|_| to.is_dir() && !path.ends_with("/."));
        Self {
            directory: into.map_or_else(|| to.to_path_buf(), |name| to.join(name)),
            named: name.is_some(),
        }
    }

    /// Where an entry goes. The archive comes from inside an object: it must not lead elsewhere,
    /// not through `..` and not through a symbolic link that it made itself.
    fn place(&self, inside: &Path) -> io::Result<PathBuf> {
        let outside = || io::Error::other(format!("{} leads outside", inside.display()));
        let parts = inside
            .components()
            .filter(|part| *part != Component::CurDir);
        let mut parts = parts.skip(usize::from(self.named)).peekable();
        let mut place = self.directory.clone();
        while let Some(part) = parts.next() {
            let Component::Normal(name) = part else {
                return Err(outside());
            };
            place.push(name);
            if parts.peek().is_some() && place.is_symlink() {
                return Err(outside());
            }
        }
        Ok(place)
    }
}

struct PieceReader {
    pieces: Receiver<Vec<u8>>,
    rest: Vec<u8>,
    taken: usize,
}

impl Read for PieceReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.rest.len() {
            match self.pieces.blocking_recv() {
                Some(piece) => (self.rest, self.taken) = (piece, 0),
                None => return Ok(0),
            }
        }
        let rest = self.rest.get(self.taken..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(rest) {
            *to = *from;
        }
        self.taken += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(from: &Path, name: &str) -> Vec<u8> {
        let (sender, mut receiver) = tokio::sync::mpsc::channel(16);
        let (from, name) = (from.to_path_buf(), PathBuf::from(name));
        let packing = std::thread::spawn(move || pack(&from, &name, sender));
        let mut bytes = Vec::new();
        while let Some(Piece::Data(piece)) = receiver.blocking_recv() {
            bytes.extend(piece);
        }
        packing.join().unwrap().unwrap();
        bytes
    }

    fn unpacked(bytes: &[u8], path: &str, to: &Path) -> Result<(), Failure> {
        let (sender, receiver) = tokio::sync::mpsc::channel(16);
        let bytes = bytes.to_vec();
        let feeding = std::thread::spawn(move || {
            for piece in bytes.chunks(100) {
                if sender.blocking_send(piece.to_vec()).is_err() {
                    return;
                }
            }
        });
        let done = unpack(receiver, path, to);
        feeding.join().unwrap();
        done
    }

    #[test]
    fn a_tree_survives_the_journey() {
        let here = tempfile::tempdir().unwrap();
        let site = here.path().join("site");
        fs::create_dir_all(site.join("deep/er")).unwrap();
        fs::write(site.join("deep/er/file"), vec![7; 200_000]).unwrap();
        std::os::unix::fs::symlink("deep/er/file", site.join("link")).unwrap();
        let bytes = packed(&site, "site");
        assert!(begins_with_directory(&bytes));
        // Into a directory that exists, under its own name; else under the name that was given.
        let there = here.path().join("there");
        unpacked(&bytes, "/srv/site", &there).unwrap();
        assert_eq!(fs::read(there.join("deep/er/file")).unwrap().len(), 200_000);
        assert_eq!(
            fs::read_link(there.join("link")).unwrap(),
            Path::new("deep/er/file")
        );
        unpacked(&bytes, "/srv/site", &there).unwrap();
        assert!(there.join("site/deep/er/file").exists());
    }

    #[test]
    fn a_file_takes_the_name_it_is_given() {
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("hosts");
        fs::write(&file, "127.0.0.1").unwrap();
        let bytes = packed(&file, "hosts");
        assert!(!begins_with_directory(&bytes));
        unpacked(&bytes, "/etc/hosts", &here.path().join("copy")).unwrap();
        assert_eq!(fs::read(here.path().join("copy")).unwrap(), b"127.0.0.1");
    }

    /// A directory that may not be written to took nothing in when its mode came before its files,
    /// and a program of root's set-user-id bit arrived with it.
    #[test]
    fn modes_arrive_but_for_those_that_give_rights_away() {
        let here = tempfile::tempdir().unwrap();
        let to = here.path().join("to");
        let mut builder = tar::Builder::new(Vec::new());
        let mut add = |name: &str, kind, mode, bytes: &[u8]| {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(kind);
            header.set_mode(mode);
            header.set_size(bytes.len().try_into().unwrap());
            builder.append_data(&mut header, name, bytes).unwrap();
        };
        add("x/", tar::EntryType::Directory, 0o555, b"");
        add("x/deep/", tar::EntryType::Directory, 0o2511, b"");
        add("x/deep/tool", tar::EntryType::Regular, 0o4755, b"#!");
        let bytes = builder.into_inner().unwrap();
        unpacked(&bytes, "/x", &to).unwrap();
        let mode = |path: &str| fs::metadata(to.join(path)).unwrap().permissions().mode() & 0o7777;
        assert_eq!(
            [mode(""), mode("deep"), mode("deep/tool")],
            [0o555, 0o511, 0o755]
        );
        for path in ["", "deep"] {
            fs::set_permissions(to.join(path), Permissions::from_mode(0o755)).unwrap();
        }
    }

    #[test]
    fn what_cannot_be_written_says_why() {
        let here = tempfile::tempdir().unwrap();
        let file = here.path().join("hosts");
        fs::write(&file, "127.0.0.1").unwrap();
        let bytes = packed(&file, "hosts");
        fs::create_dir_all(here.path().join("taken/hosts/x")).unwrap();
        let refused = unpacked(&bytes, "/etc/hosts", &here.path().join("taken")).unwrap_err();
        assert!(refused.detail.contains("directory"), "{}", refused.detail);
        assert!(refused.remedy.starts_with("ls -ld "), "{}", refused.remedy);
    }

    #[test]
    fn an_archive_cannot_lead_elsewhere() {
        let here = tempfile::tempdir().unwrap();
        let to = here.path().join("to");
        let mut builder = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        builder
            .append_link(&mut header, "x/out", here.path())
            .unwrap();
        let mut header = tar::Header::new_gnu();
        header.set_size(4);
        header.set_mode(0o644);
        builder
            .append_data(&mut header, "x/out/evil", &b"evil"[..])
            .unwrap();
        let bytes = builder.into_inner().unwrap();
        let refused = unpacked(&bytes, "/x", &to).unwrap_err();
        assert!(
            refused.detail.contains("leads outside"),
            "{}",
            refused.detail
        );
        assert!(!here.path().join("evil").exists());
        let root = Root::of("/x", &to);
        assert!(root.place(Path::new("x/../../evil")).is_err());
        // All of an object: its entries have no first name.
        let all = Root::of("/", &to);
        assert_eq!(
            all.place(Path::new("./etc/hosts")).unwrap(),
            to.join("etc/hosts")
        );
    }

    #[test]
    fn destinations_are_named_as_people_expect() {
        let check = |from: &str, path: &str, is_directory, into: &str, name: &str| {
            let found = destination(Path::new(from), path, is_directory).unwrap();
            assert_eq!(
                found,
                (into.to_owned(), PathBuf::from(name)),
                "{from} {path}"
            );
        };
        check("a", "/dir/", true, "/dir/", "a");
        check("x/a", "/b", false, "/", "b");
        check("a", "/b/c", false, "/b", "c");
        check("a/.", "/b", true, "/b", ".");
        assert!(destination(Path::new("a"), "/", false).is_err());
    }
}
