//! What of the node no object sees, although it sees the node's root: keys, passwords and homes.
//!
//! An object runs as the superuser unless it says otherwise, so the permissions of the node's
//! files keep nothing from it. What is listed here is found on the node before the object has a
//! root, and covered by mounts in that root, which the object cannot take away. The home of the
//! superuser is replaced by one of the object's own, because programs want to write there.
//!
//! What it is not: no list of secrets is complete. What a machine has elsewhere is readable for
//! objects without a user of their own.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use nix::sys::statvfs::FsFlags;
use nix::unistd::geteuid;

use super::{Failure, user};

/// The home of the superuser.
const HOME: &str = "/root";

/// Directories that are empty in an object.
const DIRECTORIES: [&str; 8] = [
    "/home",
    "/etc/kubernetes",
    "/etc/ssl/private",
    "/etc/wireguard",
    "/var/lib/containerd",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/lib/private",
];

/// Files that are empty in an object: where they are and how their names begin.
const FILES: [(&str, &[&str]); 2] = [
    ("/etc", &["shadow", "gshadow"]),
    ("/etc/ssh", &["ssh_host_"]),
];

/// What is on this node; every path is without links.
#[derive(Debug, Default)]
pub(super) struct Hidden {
    /// The home of the superuser.
    pub(super) home: Option<PathBuf>,
    /// Sorted, and none is below another one or below `home`.
    pub(super) directories: Vec<PathBuf>,
    pub(super) files: Vec<PathBuf>,
}

impl Hidden {
    /// Looks at the node. `own` are directories of the node itself.
    pub(super) fn find(own: &[&Path]) -> Result<Self, Failure> {
        let user_home = home_of_user();
        let listed = DIRECTORIES.iter().map(Path::new);
        let own = own.iter().copied();
        let wanted = listed.chain(own).chain(user_home.as_deref());
        let mut hidden = Self {
            home: resolve(Path::new(HOME))?,
            ..Self::default()
        };
        for path in wanted {
            hidden.directories.extend(resolve(path)?);
        }
        hidden.directories.sort();
        let home = hidden.home.clone();
        let mut last = home.clone();
        hidden.directories.retain(|path| {
            let above = [&home, &last];
            let is_covered = above.into_iter().flatten().any(|a| path.starts_with(a));
            if !is_covered {
                last = Some(path.clone());
            }
            !is_covered
        });
        for (directory, prefixes) in FILES {
            hidden.files.extend(files(Path::new(directory), prefixes));
        }
        Ok(hidden)
    }

    /// Whether nothing of a place of the node is to be seen.
    pub(super) fn covers(&self, path: &Path) -> bool {
        let all = self.directories.iter().chain(&self.home);
        all.into_iter().any(|hidden| path.starts_with(hidden))
    }
}

/// Where a place of the node really is; `None` when there is none, or none that could be seen.
fn resolve(path: &Path) -> Result<Option<PathBuf>, Failure> {
    let unseen = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied];
    match fs::canonicalize(path) {
        Ok(path) => Ok(Some(path)),
        Err(error) if unseen.contains(&error.kind()) => Ok(None),
        Err(error) => {
            let what = format!("the directory {} cannot be hidden from it", path.display());
            Err(Failure::setup(&what, error))
        }
    }
}

/// The home of an unprivileged node's user. System users often have a directory of the system
/// for a home, which is not theirs.
fn home_of_user() -> Option<PathBuf> {
    use std::os::unix::fs::MetadataExt;
    let user = geteuid();
    let home = PathBuf::from(user::find(None).ok()?.home);
    let is_theirs = fs::metadata(&home).is_ok_and(|found| found.uid() == user.as_raw());
    (!user.is_root() && is_theirs).then_some(home)
}

fn files(directory: &Path, prefixes: &[&str]) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else {
        return Vec::new();
    };
    let found = entries.flatten().filter(|entry| {
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        prefixes.iter().any(|p| name.starts_with(p.as_bytes()))
    });
    let found = found.filter_map(|entry| fs::canonicalize(entry.path()).ok());
    found.filter(|path| path.is_file()).collect()
}

/// For a path that cannot be used inside an object: whether that is because the place is hidden.
/// Where it leads to is looked at as well.
pub(super) fn is_cause(path: &Path) -> bool {
    let target = fs::read_link(path).ok();
    let target = target.and_then(|target| Some(path.parent()?.join(target)));
    [Some(path), target.as_deref()]
        .into_iter()
        .flatten()
        .any(|path| {
            let existing = path.ancestors().find(|above| above.exists());
            path.starts_with(HOME) || existing.is_some_and(is_place)
        })
}

/// Whether a directory that exists inside an object only covers one of the node.
pub(super) fn is_place(directory: &Path) -> bool {
    directory == Path::new(HOME)
        || statfs(directory).is_ok_and(|found| {
            found.filesystem_type() == TMPFS_MAGIC && found.flags().contains(FsFlags::ST_RDONLY)
        })
}

/// Why a path of the node cannot be used.
pub(super) fn explain(path: &Path) -> String {
    format!(
        "{} is hidden in objects, as are all homes and secrets of the node; what they need must \
         be elsewhere, for example below /opt or /srv",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_outermost_of_hidden_places_are_covered_and_links_are_followed() {
        let node = tempfile::tempdir_in("/var/tmp").unwrap();
        let inner = node.path().join("objects/1");
        fs::create_dir_all(&inner).unwrap();
        let link = node.path().join("link");
        std::os::unix::fs::symlink("/var/tmp", &link).unwrap();
        let own = [inner.as_path(), node.path(), Path::new("/no/such/place")];
        let hidden = Hidden::find(&own).unwrap();
        let ours = |path: &&PathBuf| path.starts_with("/var/tmp");
        let found: Vec<_> = hidden.directories.iter().filter(ours).collect();
        assert_eq!(found, [node.path()]);
        assert!(hidden.covers(&inner) && !hidden.covers(Path::new("/var/tmp")));
        let hidden = Hidden::find(&[inner.as_path(), &link]).unwrap();
        assert!(hidden.directories.contains(&PathBuf::from("/var/tmp")));
        assert!(!hidden.directories.contains(&inner));
    }

    #[test]
    fn passwords_are_hidden() {
        let hidden = Hidden::find(&[]).unwrap();
        assert!(hidden.files.contains(&PathBuf::from("/etc/shadow")));
        assert!(!hidden.files.contains(&PathBuf::from("/etc/passwd")));
    }
}
