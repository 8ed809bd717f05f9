//! Removes trees that objects have made, whatever their shape.
//!
//! An object may nest directories as deep as its disk allows, so nothing here recurses or holds
//! a descriptor per level: a directory below the top one first gives its own directories to the
//! top one, and is then as flat as any other. Two descriptors are open at a time, no path is ever
//! longer than two names, and no link is followed.
//!
//! What it is not: it does not cross into other file systems; what is mounted stays, and fails.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, renameat};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{UnlinkatFlags, unlinkat};

const OPEN: OFlag = OFlag::O_DIRECTORY
    .union(OFlag::O_NOFOLLOW)
    .union(OFlag::O_CLOEXEC);

/// Removes a tree that may already be gone, also when it holds directories that their own owner
/// may not enter (an overlay leaves such a one behind).
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    match Dir::open(path, OPEN, Mode::empty()) {
        Ok(top) => empty_directory(top)?,
        Err(Errno::ENOENT) => return Ok(()),
        Err(error) => return Err(error.into()),
    }
    match unlinkat(AT_FDCWD, path, UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Removes everything in a directory.
pub(crate) fn empty(path: &Path) -> io::Result<()> {
    Ok(empty_directory(Dir::open(path, OPEN, Mode::empty())?)?)
}

fn empty_directory(mut top: Dir) -> nix::Result<()> {
    let target = clone(&top)?;
    let mut moved = 0;
    loop {
        let mut is_empty = true;
        for entry in top.iter() {
            let entry = entry?;
            let name = entry.file_name();
            if is_special(name) {
                continue;
            }
            is_empty = false;
            if !unlink(&target, name, entry.file_type())? {
                flatten(&target, name, &mut moved)?;
                unlinkat(&target, name, UnlinkatFlags::RemoveDir)?;
            }
        }
        // What was moved here while it was being listed may or may not have been seen.
        if is_empty {
            return Ok(());
        }
    }
}

/// Removes the files of a directory and moves its directories up.
fn flatten(top: &OwnedFd, name: &CStr, moved: &mut u64) -> nix::Result<()> {
    let mut directory = match Dir::openat(top, name, OPEN, Mode::empty()) {
        Err(Errno::EACCES) => {
            permit(top, name)?;
            Dir::openat(top, name, OPEN, Mode::empty())?
        }
        other => other?,
    };
    let from = clone(&directory)?;
    for entry in directory.iter() {
        let entry = entry?;
        let inner = entry.file_name();
        if is_special(inner) {
            continue;
        }
        let is_gone = match unlink(&from, inner, entry.file_type()) {
            Err(Errno::EACCES) => {
                permit(top, name)?;
                unlink(&from, inner, entry.file_type())?
            }
            other => other?,
        };
        if !is_gone {
            move_up(&from, inner, top, moved)?;
        }
    }
    Ok(())
}

/// Gives a directory to the top one, under a number that is free there.
fn move_up(from: &OwnedFd, name: &CStr, top: &OwnedFd, moved: &mut u64) -> nix::Result<()> {
    let mut is_permitted = false;
    loop {
        let number = moved.to_string();
        match renameat(from, name, top, number.as_str()) {
            Ok(()) => return Ok(()),
            Err(Errno::EEXIST | Errno::ENOTEMPTY | Errno::ENOTDIR) => *moved += 1,
            // Its owner must be able to write to it, because its parent changes.
            Err(Errno::EACCES) if !is_permitted => {
                permit(from, name)?;
                is_permitted = true;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Removes what is no directory. False when it is one.
fn unlink(parent: &OwnedFd, name: &CStr, kind: Option<Type>) -> nix::Result<bool> {
    if kind == Some(Type::Directory) {
        return Ok(false);
    }
    match unlinkat(parent, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => Ok(true),
        Err(Errno::EISDIR) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Listing a directory borrows it, and something has to name it meanwhile.
fn clone(directory: &Dir) -> nix::Result<OwnedFd> {
    let cloned = directory.as_fd().try_clone_to_owned();
    cloned.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}

/// Lets the owner of a directory into it.
fn permit(parent: &OwnedFd, name: &CStr) -> nix::Result<()> {
    fchmodat(parent, name, Mode::S_IRWXU, FchmodatFlags::FollowSymlink)
}

fn is_special(name: &CStr) -> bool {
    [c".", c".."].contains(&name)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use nix::sys::stat::mkdirat;

    use super::*;

    /// Makes `levels` directories called `a`, each in the one before, as a program does that
    /// enters each of them.
    fn nest(path: &Path, levels: u32) {
        let mut inner = Dir::open(path, OPEN, Mode::empty()).unwrap();
        for _ in 0..levels {
            mkdirat(&inner, c"a", Mode::S_IRWXU).unwrap();
            inner = Dir::openat(&inner, c"a", OPEN, Mode::empty()).unwrap();
        }
    }

    // An object made 18,000 directories, each in the one before. The daemon, which removed them
    // one call deeper per level, ran out of stack and ended at every start.
    #[test]
    fn a_tree_deeper_than_any_stack_is_removed() {
        let home = tempfile::tempdir().unwrap();
        let tree = home.path().join("tree");
        fs::create_dir(&tree).unwrap();
        nest(&tree, 20_000);
        remove(&tree).unwrap();
        assert!(!tree.exists());
    }

    #[test]
    fn names_like_ours_links_and_closed_directories_are_removed_too() {
        let home = tempfile::tempdir().unwrap();
        let (tree, outside) = (home.path().join("tree"), home.path().join("outside"));
        fs::create_dir_all(tree.join("x/y/z")).unwrap();
        fs::create_dir_all(tree.join("0/1/2")).unwrap();
        fs::write(tree.join("1"), "a file").unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("kept"), "").unwrap();
        symlink(&outside, tree.join("x/link")).unwrap();
        fs::set_permissions(tree.join("x/y"), fs::Permissions::from_mode(0o000)).unwrap();
        empty(&tree).unwrap();
        assert_eq!(fs::read_dir(&tree).unwrap().count(), 0);
        remove(&tree).unwrap();
        remove(&tree).unwrap();
        assert!(!tree.exists() && outside.join("kept").exists());
    }
}
