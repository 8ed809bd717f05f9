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
//! | `/root` | the object's own, writable, in its scratch, kept with the object |
//! | the node's state, homes and secrets | empty, read-only; see [`super::hidden`] |
//!
//! When no layer can be put on the node's root, the root is read-only and a sentence says so.
//! What keeps the node's secrets from the object is never left out: if it fails, so does the
//! start.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::{Mode, SFlag, makedev, mknod, umask};
use nix::unistd::{chdir, pivot_root};

use super::hidden::Hidden;
use super::{Failure, Isolation, Reporter};
use crate::directory::{Directory, SCRATCH, read_text};
use crate::sys::{MOUNT_NO_DEVICES, MOUNT_NO_SET_UID, MOUNT_READ_ONLY, mount_set};
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

/// Kinds of file systems that are no files of the node: the kernel's, and what others have put
/// together for somebody else, such as the roots and the secrets of containers.
const PSEUDO: [&str; 26] = [
    "overlay",
    "tmpfs",
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

/// Attributes of what is shown of the node. A device file of the node, wherever it is, would open
/// the device.
const SHOWN: u64 = MOUNT_READ_ONLY | MOUNT_NO_SET_UID | MOUNT_NO_DEVICES;

/// Makes the tree and enters it. The calling process is in a mount namespace of its own.
pub(super) fn make(
    directory: &Directory,
    hidden: &[String],
    isolation: Isolation,
    reporter: &Reporter,
) -> Result<(), Failure> {
    umask(Mode::empty());
    let own = hidden.iter().map(Path::new).chain([directory.path()]);
    let own: Vec<&Path> = own.collect();
    let tree = Tree {
        directory,
        isolation,
        reporter,
        hidden: Hidden::find(&own)?,
        mounts: Mounts::read(),
    };
    tree.private()
        .map_err(|error| Failure::setup("its mounts cannot be made private", error))?;
    let is_built = match tree.build() {
        Ok(()) => true,
        Err((what, error)) if isolation == Isolation::Unprivileged => {
            reporter.off(&format!(
                "it sees the files of the node: {what} ({})",
                error.desc()
            ));
            false
        }
        Err((what, error)) => return Err(Failure::setup(what, error.desc())),
    };
    umask(Mode::from_bits_truncate(0o022));
    tree.cover(is_built)
}

type Step = Result<(), (&'static str, Errno)>;

#[derive(Debug)]
struct Tree<'a> {
    directory: &'a Directory,
    isolation: Isolation,
    reporter: &'a Reporter,
    hidden: Hidden,
    mounts: Mounts,
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
        make_directory(&scratch.join("home"), 0o700)
            .map_err(|error| ("its home directory cannot be made", error))?;
        // Everything from here on is relative, so that no path is too long or misread.
        chdir(&scratch).map_err(|error| ("its scratch directory cannot be entered", error))?;
        if self.layer() {
            let others = self.mounts.others(&self.hidden);
            others.iter().for_each(|path| self.show(path));
        } else {
            self.show_tree("/", "root")
                .map_err(|error| ("the root of the node cannot be shown", error))?;
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
            mount_overlay("root", flags, &options)
        };
        let Err(first) = over("/") else { return true };
        // Some kernels refuse a layer that lies within what it covers, but not one on a view.
        let view = format!("lowerdir=/:empty{more}");
        let read_only = flags | MsFlags::MS_RDONLY;
        let viewed = mount_overlay("empty", read_only, &view).and_then(|()| over("empty"));
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

    /// Shows another file system of the node. One that cannot be shown stays an empty directory,
    /// which protects as well.
    fn show(&self, path: &Path) {
        let (Some(from), Ok(below)) = (path.to_str(), path.strip_prefix("/")) else {
            return;
        };
        let to = format!("root/{}", below.display());
        if self.show_tree(from, &to).is_err() {
            let _gone = umount2(to.as_str(), MntFlags::MNT_DETACH);
        }
    }

    /// Shows a tree of the node, read-only, with what is mounted in it and is to be seen.
    fn show_tree(&self, from: &str, to: &str) -> nix::Result<()> {
        bind(from, to)?;
        set(to, SHOWN)?;
        for point in self.mounts.foreign(Path::new(from)) {
            let path = format!("root{}", point.display());
            // One may lie upon another.
            while umount2(path.as_str(), MntFlags::MNT_DETACH).is_ok() {}
            // What it has inherited, somebody without privileges may only cover, and a file not
            // even that; but permissions hold for it.
            if self.isolation == Isolation::Unprivileged {
                let _is_file = conceal(&path);
            }
        }
        Ok(())
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
        bind("tmp", "root/tmp")?;
        set("root/tmp", MOUNT_NO_SET_UID | MOUNT_NO_DEVICES)?;
        self.home()
    }

    /// Puts a home of the object's own in the place of the superuser's.
    fn home(&self) -> nix::Result<()> {
        let Some(home) = &self.hidden.home else {
            return Ok(());
        };
        let path = format!("root{}", home.display());
        bind("home", &path)?;
        set(&path, MOUNT_NO_SET_UID | MOUNT_NO_DEVICES)
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
    /// One that is on the node but not there, where it could be covered, is somewhere else, unless
    /// it lies in what the object is not shown.
    fn cover(&self, is_built: bool) -> Result<(), Failure> {
        let is_replaced = |path: &Path| is_built && is_replaced(path);
        let home = self.hidden.home.iter().filter(|_| !is_built);
        let directories = self.hidden.directories.iter().chain(home);
        let mut nothing: Option<&str> = None;
        for path in directories.filter(|path| !is_replaced(path)) {
            let Some(text) = path.to_str() else {
                self.covered(path, Err(Errno::EILSEQ))?;
                continue;
            };
            // One empty file system is enough.
            let outcome = nothing.map_or_else(|| conceal(text), |nothing| bind(nothing, text));
            if outcome.is_ok() {
                nothing = Some(text);
            }
            self.covered(path, outcome)?;
        }
        for path in self.hidden.files.iter().filter(|path| !is_replaced(path)) {
            let text = path.to_str().ok_or(Errno::EILSEQ);
            self.covered(path, text.and_then(|text| bind("/dev/null", text)))?;
        }
        Ok(())
    }

    fn covered(&self, path: &Path, outcome: nix::Result<()>) -> Result<(), Failure> {
        let is_unseen = outcome == Err(Errno::ENOENT) && self.mounts.is_foreign(path);
        let path = path.display();
        match outcome {
            Ok(()) => Ok(()),
            Err(_) if is_unseen => Ok(()),
            Err(error) if self.isolation == Isolation::Unprivileged => {
                let why = error.desc();
                self.reporter
                    .off(&format!("it sees {path} of the node ({why})"));
                Ok(())
            }
            Err(error) => {
                let what = format!("{path} cannot be hidden from it");
                Err(Failure::setup(&what, error.desc()))
            }
        }
    }
}

/// Mounts an overlay that follows no redirections: those of an object that was allowed to make
/// them would bring what is hidden back under another name.
fn mount_overlay(target: &str, flags: MsFlags, options: &str) -> nix::Result<()> {
    let kind = Some("overlay");
    let strict = format!("{options},redirect_dir=nofollow,metacopy=off");
    match mount(kind, target, kind, flags, Some(strict.as_str())) {
        // A kernel that does not know the words does not do it either.
        Err(Errno::EINVAL) => mount(kind, target, kind, flags, Some(options)),
        other => other,
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

/// What is mounted on the node: where, and whether it holds files of the node.
#[derive(Debug)]
struct Mounts(Vec<(PathBuf, bool)>);

impl Mounts {
    fn read() -> Self {
        let text = read_text(Path::new("/proc/self/mountinfo")).unwrap_or_default();
        Self::parse(&text)
    }

    fn parse(text: &str) -> Self {
        let found = text.lines().filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let point = PathBuf::from(unescape(before.split(' ').nth(4)?));
            Some((point, !PSEUDO.contains(&kind)))
        });
        let mut found: Vec<_> = found.collect();
        found.sort();
        Self(found)
    }

    /// The file systems of the node that lie below its root and are to be seen, outermost first
    /// and none that lies below another one of them.
    fn others(&self, hidden: &Hidden) -> Vec<&Path> {
        let mut found: Vec<&Path> = Vec::new();
        for (point, has_files) in &self.0 {
            let is_below = found.iter().any(|other| point.starts_with(other));
            let is_hidden = is_root(point) || is_replaced(point) || hidden.covers(point);
            if *has_files && !is_below && !is_hidden {
                found.push(point);
            }
        }
        found
    }

    /// What is mounted within a tree of the node and holds no files of the node.
    fn foreign<'a>(&'a self, tree: &'a Path) -> impl Iterator<Item = &'a Path> {
        self.0
            .iter()
            .filter(|(_, has_files)| !has_files)
            .map(|(point, _)| point.as_path())
            .filter(move |point| point.starts_with(tree) && *point != tree && !is_replaced(point))
    }

    /// Whether a place of the node is on something that is not shown.
    fn is_foreign(&self, path: &Path) -> bool {
        let mut foreign = self.0.iter().filter(|(_, has_files)| !has_files);
        foreign.any(|(point, _)| !is_root(point) && path.starts_with(point))
    }
}

fn is_root(point: &Path) -> bool {
    point == Path::new("/")
}

fn is_replaced(point: &Path) -> bool {
    REPLACED.iter().any(|path| point.starts_with(path))
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

    const MOUNTS: &str = "\
1 0 8:1 / / rw - ext4 /dev/sda1 rw
2 1 8:2 / /srv rw - ext4 /dev/sda2 rw
3 1 0:5 / /proc rw - proc proc rw
4 1 0:6 / /run/user/0 rw - ext4 /dev/sda3 rw
5 1 0:7 / /opt/a\\040b rw - xfs /dev/sda4 rw
6 1 0:8 / /var/lib/x rw - nsfs nsfs rw
7 2 0:9 / /srv/pod/root rw - overlay overlay rw
8 2 0:9 / /srv/pod/token rw - tmpfs tmpfs rw
9 2 8:5 / /srv/data rw - ext4 /dev/sda5 rw
10 1 8:6 / /secret/disk rw - ext4 /dev/sda6 rw
11 1
";

    #[test]
    fn only_real_file_systems_of_the_node_are_shown() {
        let mounts = Mounts::parse(MOUNTS);
        let hidden = Hidden {
            directories: vec![PathBuf::from("/secret")],
            ..Hidden::default()
        };
        assert_eq!(
            mounts.others(&hidden),
            [Path::new("/opt/a b"), Path::new("/srv")]
        );
        let foreign: Vec<_> = mounts.foreign(Path::new("/srv")).collect();
        assert_eq!(
            foreign,
            [Path::new("/srv/pod/root"), Path::new("/srv/pod/token")]
        );
        assert!(mounts.is_foreign(Path::new("/srv/pod/token/key")));
        assert!(!mounts.is_foreign(Path::new("/srv/data")));
        let foreign = mounts.foreign(Path::new("/")).count();
        assert_eq!(foreign, 3, "what is replaced need not be detached");
    }
}
