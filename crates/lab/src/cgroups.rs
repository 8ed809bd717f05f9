//! The cgroups of lab hosts: one child of our own cgroup in every hierarchy (version 1 and 2) where
//! that works. It is not a limiter: it sets no limits, it only gives each host a subtree of its own.
//!
//! Only directories named `lab-LAB-HOST` that this lab made are ever written to or removed.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::clock;

/// How long killed processes may take to leave their cgroup.
const EMPTY_LIMIT: Duration = Duration::from_secs(10);

/// The cgroups of one host, by hierarchy.
#[derive(Clone, Debug, Default)]
pub(crate) struct HostCgroups {
    directories: Vec<PathBuf>,
}

impl HostCgroups {
    /// Where the cgroups of a host called `name` (`lab-LAB-HOST`) will be.
    pub(crate) fn planned(name: &str) -> Self {
        Self {
            directories: own_cgroups()
                .into_iter()
                .map(|own| own.join(name))
                .collect(),
        }
    }

    /// Cgroups that an earlier lab has recorded.
    pub(crate) fn recorded(directories: Vec<PathBuf>) -> Self {
        let ours = |directory: &PathBuf| {
            let name = directory.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with("lab-"))
        };
        Self {
            directories: directories.into_iter().filter(ours).collect(),
        }
    }

    pub(crate) fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Makes the cgroups and puts a process there; hierarchies where that does not work are left
    /// out of the result.
    pub(crate) fn make_around(&self, pid: i32) -> Self {
        let placed = |directory: &&PathBuf| {
            make(directory).is_ok()
                && fs::write(directory.join("cgroup.procs"), pid.to_string()).is_ok()
        };
        let directories: Vec<PathBuf> = self.directories.iter().filter(placed).cloned().collect();
        for refused in self
            .directories
            .iter()
            .filter(|it| !directories.contains(it))
        {
            fs::remove_dir(refused).ok();
        }
        Self { directories }
    }

    /// The files that a process writes `0` to in order to join, open for that.
    pub(crate) fn doors(&self) -> io::Result<Vec<File>> {
        self.directories
            .iter()
            .map(|it| OpenOptions::new().write(true).open(it.join("cgroup.procs")))
            .collect()
    }

    /// Thaws everything below, so that a SIGKILL that waits is seen.
    pub(crate) fn thaw(&self) {
        for directory in &self.directories {
            for cgroup in subtree(directory) {
                let state = cgroup.join("freezer.state");
                if state.exists() {
                    fs::write(state, "THAWED").ok();
                }
            }
        }
    }

    /// Kills every process in the subtrees and removes them. Done again, it does nothing.
    pub(crate) fn remove(&self) -> io::Result<()> {
        for directory in &self.directories {
            let gone = clock::poll_until(EMPTY_LIMIT, || {
                kill_all(directory);
                remove_subtree(directory)
            });
            if !gone {
                let message = format!("processes in {} do not die", directory.display());
                return Err(io::Error::new(io::ErrorKind::TimedOut, message));
            }
        }
        Ok(())
    }
}

fn make(directory: &Path) -> io::Result<()> {
    match fs::create_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    // A new cpuset takes no process before it has processors and memory nodes.
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (own, above) = (
            directory.join(file),
            directory.parent().map(|it| it.join(file)),
        );
        if let (Ok(now), Some(Ok(value))) =
            (fs::read_to_string(&own), above.map(fs::read_to_string))
            && now.trim().is_empty()
            && !value.trim().is_empty()
        {
            fs::write(own, value)?;
        }
    }
    Ok(())
}

fn kill_all(directory: &Path) {
    if fs::write(directory.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    for cgroup in subtree(directory) {
        let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines().filter_map(|line| line.parse().ok()) {
            kill_member(&cgroup, pid);
        }
    }
}

/// Kills a process if it is (still) in the cgroup, so that a reused pid is not hit.
fn kill_member(cgroup: &Path, pid: i32) {
    let Ok(handle) = crate::process::open_handle(pid) else {
        return;
    };
    let members = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    if members.lines().any(|line| line.parse() == Ok(pid)) {
        crate::process::kill_by_handle(&handle).ok();
    }
}

/// True if nothing is left.
fn remove_subtree(directory: &Path) -> bool {
    let mut cgroups = subtree(directory);
    // Children come after their parents.
    cgroups.reverse();
    for cgroup in cgroups {
        fs::remove_dir(cgroup).ok();
    }
    !directory.exists()
}

/// A cgroup and all below it, parents first.
fn subtree(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut next = vec![directory.to_owned()];
    while let Some(cgroup) = next.pop() {
        let Ok(entries) = fs::read_dir(&cgroup) else {
            continue;
        };
        next.extend(
            entries
                .flatten()
                .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                .map(|entry| entry.path()),
        );
        found.push(cgroup);
    }
    found
}

/// The directories of the cgroups of this process.
fn own_cgroups() -> Vec<PathBuf> {
    let membership = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    directories(&membership, &mounts)
        .into_iter()
        .filter(|directory| directory.join("cgroup.procs").exists())
        .collect()
}

/// The same, from the text of the two files.
fn directories(membership: &str, mounts: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for line in membership.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let mount = mounts
            .lines()
            .filter_map(CgroupMount::parse)
            .find(|mount| mount.holds(controllers) && Path::new(path).starts_with(mount.root));
        if let Some(mount) = mount {
            let below = Path::new(path)
                .strip_prefix(mount.root)
                .unwrap_or(Path::new(""));
            let directory = Path::new(mount.point).join(below);
            if !found.contains(&directory) {
                found.push(directory);
            }
        }
    }
    found
}

struct CgroupMount<'a> {
    root: &'a str,
    point: &'a str,
    version_2: bool,
    options: &'a str,
}

impl<'a> CgroupMount<'a> {
    /// A line of `/proc/self/mountinfo`, if it is about a cgroup hierarchy.
    fn parse(line: &'a str) -> Option<Self> {
        let (before, after) = line.split_once(" - ")?;
        let mut after = after.split(' ');
        let version_2 = match after.next()? {
            "cgroup" => false,
            "cgroup2" => true,
            _ => return None,
        };
        let mut before = before.split(' ').skip(3);
        Some(Self {
            root: before.next()?,
            point: before.next()?,
            version_2,
            options: after.nth(1)?,
        })
    }

    fn holds(&self, controllers: &str) -> bool {
        if self.version_2 || controllers.is_empty() {
            return self.version_2 && controllers.is_empty();
        }
        let options: Vec<&str> = self.options.split(',').collect();
        controllers.split(',').all(|it| options.contains(&it))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_cgroups_are_found_in_hybrid_hierarchies() {
        let membership =
            "4:memory:/a/b\n3:cpu,cpuacct:/\n2:freezer:/x\n1:name=systemd:/\n0::/s/t\n";
        let mounts = "\
30 25 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct\n\
32 30 0:28 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
33 30 0:29 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
34 30 0:30 /s /sys/fs/cgroup/unified rw shared:4 - cgroup2 cgroup2 rw\n";
        let expect: Vec<PathBuf> = ["memory/a/b", "cpu/", "systemd/", "unified/t"]
            .iter()
            .map(|it| Path::new("/sys/fs/cgroup").join(it))
            .collect();
        assert_eq!(directories(membership, mounts), expect);
    }

    #[test]
    fn only_directories_named_by_a_lab_are_ever_touched() {
        let recorded = vec![
            PathBuf::from("/sys/fs/cgroup/cpu"),
            PathBuf::from("/x/lab-a-h1"),
        ];
        let kept = HostCgroups::recorded(recorded);
        assert_eq!(kept.directories(), [PathBuf::from("/x/lab-a-h1")]);
    }
}
