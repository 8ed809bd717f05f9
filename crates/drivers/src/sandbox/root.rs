//! The file tree that an object sees.
//!
//! | path | is |
//! | --- | --- |
//! | `/` | the node's root, read-only, under a layer of the object's own (`scratch/upper`) |
//! | other file systems of the node | the same, read-only |
//! | `/proc` | the object's own; what tells of or changes the node is covered |
//! | `/sys` | read-only |
//! | `/dev` | the harmless devices, terminals of its own, `shm` |
//! | `/run` | empty, writable, in memory |
//! | `/tmp` | empty, writable, in the object's scratch |
//! | the node's state | empty, read-only |
//!
//! When no layer can be put on the node's root, the root is read-only and a sentence says so.
//! What keeps the node's secrets from the object is never left out: if it fails, so does the
//! start.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{chdir, pivot_root};

use super::{Failure, Isolation, Reporter};
use crate::directory::{Directory, SCRATCH, read_text};
use crate::sys::{MOUNT_NO_SET_UID, MOUNT_READ_ONLY, mount_set};
use crate::tree;

/// Devices of `/dev`: name, major, minor.
const DEVICES: [(&str, u64, u64); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];

/// Covered by `/dev/null`: memory, keys and timers of the node.
const MASKED_FILES: [&str; 6] = [
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
];

/// Covered by an empty directory.
const MASKED_DIRECTORIES: [&str; 4] = ["/proc/acpi", "/proc/asound", "/proc/scsi", "/sys/firmware"];

/// Made read-only.
const READ_ONLY: [&str; 5] = [
    "/proc/sys",
    "/proc/sysrq-trigger",
    "/proc/irq",
    "/proc/bus",
    "/proc/fs",
];

/// Kinds of file systems that are no files of the node.
const PSEUDO: [&str; 24] = [
    "proc",
    "sysfs",
    "devtmpfs",
    "devpts",
    "cgroup",
    "cgroup2",
    "securityfs",
    "debugfs",
    "tracefs",
    "bpf",
    "pstore",
    "configfs",
    "mqueue",
    "hugetlbfs",
    "autofs",
    "binfmt_misc",
    "efivarfs",
    "fusectl",
    "rpc_pipefs",
    "nsfs",
    "selinuxfs",
    "ramfs",
    "fuse.gvfsd-fuse",
    "fuse.portal",
];

/// Trees that are replaced anyway.
const REPLACED: [&str; 5] = ["/proc", "/sys", "/dev", "/run", "/tmp"];

/// Makes the tree and enters it. The calling process is in a mount namespace of its own.
pub(super) fn make(
    directory: &Directory,
    hidden: &[String],
    isolation: Isolation,
    reporter: &Reporter,
) -> Result<(), Failure> {
    umask(Mode::empty());
    let tree = Tree {
        directory,
        isolation,
        reporter,
    };
    tree.private()
        .map_err(|error| Failure::setup("its mounts cannot be made private", error))?;
    match tree.build() {
        Ok(()) => {}
        Err((what, error)) if isolation == Isolation::Unprivileged => {
            reporter.off(&format!(
                "it sees the files of the node: {what} ({})",
                error.desc()
            ));
        }
        Err((what, error)) => return Err(Failure::setup(what, error.desc())),
    }
    umask(Mode::from_bits_truncate(0o022));
    tree.cover(hidden)
}

type Step = Result<(), (&'static str, Errno)>;

#[derive(Debug)]
struct Tree<'a> {
    directory: &'a Directory,
    isolation: Isolation,
    reporter: &'a Reporter,
}

impl Tree<'_> {
    fn private(&self) -> nix::Result<()> {
        let flags = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
        mount(None::<&str>, "/", None::<&str>, flags, None::<&str>)
    }

    fn build(&self) -> Step {
        let scratch = self.directory.file(SCRATCH);
        for name in ["upper", "work", "root", "tmp", "empty"] {
            make_directory(&scratch.join(name), 0o755)
                .map_err(|error| ("its scratch directory cannot be made", error))?;
        }
        let others = others(self.directory.path());
        // Everything from here on is relative, so that no path is too long or misread.
        chdir(&scratch).map_err(|error| ("its scratch directory cannot be entered", error))?;
        let is_layered = self.layer();
        if !is_layered {
            self.bind_root()
                .map_err(|error| ("the root of the node cannot be shown", error))?;
        } else {
            others.iter().for_each(|path| show(path));
        }
        self.system()
            .map_err(|error| ("its /proc, /sys, /dev, /run or /tmp cannot be made", error))?;
        self.mask()
            .map_err(|error| ("what tells of the node in /proc cannot be covered", error))?;
        chdir("root")
            .and_then(|()| pivot_root(".", "."))
            .and_then(|()| umount2(".", MntFlags::MNT_DETACH))
            .and_then(|()| chdir("/"))
            .map_err(|error| ("its root cannot be entered", error))
    }

    /// Puts a layer of the object's own over the root of the node.
    fn layer(&self) -> bool {
        let flags = MsFlags::MS_NODEV | MsFlags::MS_NOSUID;
        let more = if self.isolation == Isolation::Full {
            ""
        } else {
            ",userxattr"
        };
        let over = |lower: &str| {
            let options = format!("lowerdir={lower},upperdir=upper,workdir=work{more}");
            mount(
                Some("overlay"),
                "root",
                Some("overlay"),
                flags,
                Some(options.as_str()),
            )
        };
        let Err(first) = over("/") else { return true };
        // Some kernels refuse a layer that lies within what it covers, but not one on a view.
        let view = format!("lowerdir=/:empty{more}");
        let read_only = flags | MsFlags::MS_RDONLY;
        let viewed = mount(
            Some("overlay"),
            "empty",
            Some("overlay"),
            read_only,
            Some(view.as_str()),
        )
        .and_then(|()| over("empty"));
        if viewed.is_ok() {
            return true;
        }
        self.reporter.off(&format!(
            "it can change files only in /tmp, /run and /dev/shm: this node cannot give it a layer \
             of its own over the root ({})",
            first.desc()
        ));
        false
    }

    /// The root of the node as it is, read-only, with all that is mounted on it.
    fn bind_root(&self) -> nix::Result<()> {
        bind("/", "root")?;
        set("root", MOUNT_READ_ONLY | MOUNT_NO_SET_UID)
    }

    fn system(&self) -> nix::Result<()> {
        for name in ["proc", "sys", "dev", "run", "tmp"] {
            make_directory(&Path::new("root").join(name), 0o755).or_else(ignore(Errno::EROFS))?;
        }
        let plain = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        if let Err(error) = mount(Some("proc"), "root/proc", Some("proc"), plain, None::<&str>) {
            // Within a container whose own /proc is covered in parts.
            bind("/proc", "root/proc")?;
            let why = error.desc();
            self.reporter.off(&format!(
                "its /proc shows the processes of the node ({why})"
            ));
        }
        let read_only = plain | MsFlags::MS_RDONLY;
        mount(
            Some("sysfs"),
            "root/sys",
            Some("sysfs"),
            read_only,
            None::<&str>,
        )
        .or_else(|_| {
            bind("/sys", "root/sys")?;
            set("root/sys", MOUNT_READ_ONLY)
        })?;
        self.devices()?;
        let in_memory = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(
            Some("tmpfs"),
            "root/run",
            Some("tmpfs"),
            in_memory,
            Some("mode=755,size=10%"),
        )?;
        empty("tmp")?;
        bind("tmp", "root/tmp")
    }

    fn devices(&self) -> nix::Result<()> {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
        mount(
            Some("tmpfs"),
            "root/dev",
            Some("tmpfs"),
            flags,
            Some("mode=755,size=64k"),
        )?;
        for (name, major, minor) in DEVICES {
            let path = format!("root/dev/{name}");
            let all = Mode::from_bits_truncate(0o666);
            if mknod(path.as_str(), SFlag::S_IFCHR, all, makedev(major, minor)).is_err() {
                fs::write(&path, "").map_err(errno)?;
                bind(&format!("/dev/{name}"), &path)?;
            }
        }
        let links = [
            ("/proc/self/fd", "fd"),
            ("/proc/self/fd/0", "stdin"),
            ("/proc/self/fd/1", "stdout"),
            ("/proc/self/fd/2", "stderr"),
            ("pts/ptmx", "ptmx"),
        ];
        for (target, name) in links {
            symlink(target, format!("root/dev/{name}")).map_err(errno)?;
        }
        make_directory(Path::new("root/dev/pts"), 0o755)?;
        make_directory(Path::new("root/dev/shm"), 0o755)?;
        let terminals = "newinstance,ptmxmode=0666,mode=0620";
        let (devpts, options) = (Some("devpts"), format!("{terminals},gid=5"));
        mount(
            devpts,
            "root/dev/pts",
            devpts,
            flags,
            Some(options.as_str()),
        )
        .or_else(|_no_group| mount(devpts, "root/dev/pts", devpts, flags, Some(terminals)))?;
        let shared = flags | MsFlags::MS_NODEV;
        mount(
            Some("tmpfs"),
            "root/dev/shm",
            Some("tmpfs"),
            shared,
            Some("mode=1777"),
        )
    }

    fn mask(&self) -> nix::Result<()> {
        for path in MASKED_FILES {
            bind("root/dev/null", &format!("root{path}")).or_else(ignore(Errno::ENOENT))?;
        }
        for path in MASKED_DIRECTORIES {
            conceal(&format!("root{path}")).or_else(ignore(Errno::ENOENT))?;
        }
        for path in READ_ONLY {
            let path = format!("root{path}");
            match bind(&path, &path) {
                Ok(()) => set(&path, MOUNT_READ_ONLY)?,
                Err(Errno::ENOENT) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Covers the node's secrets, inside the new root so that its links mean what they say there.
    fn cover(&self, hidden: &[String]) -> Result<(), Failure> {
        let own = self.directory.path().to_string_lossy();
        let is_covered = hidden
            .iter()
            .any(|path| Path::new(own.as_ref()).starts_with(path));
        let own = (!is_covered).then_some(own.as_ref());
        for path in hidden.iter().map(String::as_str).chain(own) {
            match conceal(path).or_else(ignore(Errno::ENOENT)) {
                Ok(()) => {}
                Err(error) if self.isolation == Isolation::Unprivileged => {
                    let why = error.desc();
                    self.reporter
                        .off(&format!("it sees the directory {path} of the node ({why})"));
                }
                Err(error) => {
                    let what = format!("the directory {path} cannot be hidden from it");
                    return Err(Failure::setup(&what, error.desc()));
                }
            }
        }
        Ok(())
    }
}

fn bind(from: &str, to: &str) -> nix::Result<()> {
    mount(
        Some(from),
        to,
        None::<&str>,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        None::<&str>,
    )
}

fn set(path: &str, attributes: u64) -> nix::Result<()> {
    mount_set(path, attributes).map_err(errno)
}

/// Covers a directory with an empty one.
fn conceal(path: &str) -> nix::Result<()> {
    let flags = MsFlags::MS_RDONLY | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(
        Some("tmpfs"),
        path,
        Some("tmpfs"),
        flags,
        Some("mode=555,size=4k,nr_inodes=2"),
    )
}

/// Shows another file system of the node, read-only. One that cannot be shown stays an empty
/// directory, which protects as well.
fn show(path: &Path) {
    let (Some(from), Ok(below)) = (path.to_str(), path.strip_prefix("/")) else {
        return;
    };
    let to = format!("root/{}", below.display());
    if bind(from, &to).is_ok() && set(&to, MOUNT_READ_ONLY | MOUNT_NO_SET_UID).is_err() {
        let _gone = umount2(to.as_str(), MntFlags::MNT_DETACH);
    }
}

/// The file systems of the node that lie below its root and are to be seen, outermost first and
/// none that lies below another one of them.
fn others(own: &Path) -> Vec<PathBuf> {
    let mounts = read_text(Path::new("/proc/self/mountinfo")).unwrap_or_default();
    let mut found: Vec<PathBuf> = Vec::new();
    let points: BTreeSet<PathBuf> = mounts.lines().filter_map(mount_point).collect();
    for point in points {
        let is_below = found.iter().any(|other| point.starts_with(other));
        if !is_below && !point.starts_with(own) {
            found.push(point);
        }
    }
    found
}

fn mount_point(line: &str) -> Option<PathBuf> {
    let (before, after) = line.split_once(" - ")?;
    let kind = after.split(' ').next()?;
    let point = PathBuf::from(unescape(before.split(' ').nth(4)?));
    let is_replaced = REPLACED.iter().any(|path| point.starts_with(path));
    (point != Path::new("/") && !is_replaced && !PSEUDO.contains(&kind)).then_some(point)
}

/// Undoes the octal escapes of `/proc/self/mountinfo`.
fn unescape(text: &str) -> String {
    let escapes = [
        ("\\040", " "),
        ("\\011", "\t"),
        ("\\012", "\n"),
        ("\\134", "\\"),
    ];
    escapes
        .iter()
        .fold(text.to_string(), |text, (from, to)| text.replace(from, to))
}

fn make_directory(path: &Path, mode: u32) -> nix::Result<()> {
    match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(errno(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Empties a directory and makes it one for temporary files.
fn empty(path: &str) -> nix::Result<()> {
    tree::empty(Path::new(path)).map_err(errno)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o1777)).map_err(errno)
}

fn ignore(ignored: Errno) -> impl FnOnce(Errno) -> nix::Result<()> {
    move |error| if error == ignored { Ok(()) } else { Err(error) }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "the shape that `map_err` wants"
)]
fn errno(error: io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expect: Option<&str>) {
        assert_eq!(
            mount_point(line).as_deref(),
            expect.map(Path::new),
            "{line}"
        );
    }

    #[test]
    fn only_real_file_systems_of_the_node_are_shown() {
        check("1 0 8:1 / / rw - ext4 /dev/sda1 rw", None);
        check("2 1 8:2 / /home rw - ext4 /dev/sda2 rw", Some("/home"));
        check("3 1 0:5 / /proc rw - proc proc rw", None);
        check("4 1 0:6 / /run/user/0 rw - tmpfs tmpfs rw", None);
        check(
            "5 1 0:7 / /opt/a\\040b rw - tmpfs tmpfs rw",
            Some("/opt/a b"),
        );
        check("6 1 0:8 / /var/lib/x rw - nsfs nsfs rw", None);
        check("7 1", None);
    }
}
