//! The control groups of one object: limits, usage, and what was killed for want of memory.
//!
//! Hosts have their controllers in one hierarchy (v2), in one each (v1), or in both (hybrid). For
//! each controller that we want this module finds the hierarchy that carries it and makes
//! `welkin-NODE/OBJECT` there: below the group that the daemon itself is in, and on v2 below
//! [`SLICE`] in the outermost group that the node may use: the top one for the superuser, that of
//! their service manager for a person. A group that has members cannot give controllers to its
//! children on v2, and the daemon's own has: the daemon, the shims, or whatever else is in the
//! session of the person who started it; and once it gave them, no service manager could start
//! the daemon in it again. Where there is no other place, [`prepare`] moves the daemon out of its
//! own group into the leaf [`DAEMON_LEAF`] below it, which is what a service with `Delegate=yes`
//! and `DelegateSubgroup=` is for. No other group that Welkin did not make is changed, except that
//! the outermost one gives controllers to its children.
//!
//! Why plain files: the crates that handle hybrid hosts bring a message bus or a runtime along,
//! and all that is needed here is a dozen writes that must not take a millisecond.
//!
//! A controller that cannot be used becomes a sentence for the object's owner, never a silence.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{AccessFlags, Pid, access};
use wire::driver::Launch;
use wire::fact::Usage;
use wire::id::{NodeId, ObjectId};
use wire::spec::Resources;

use crate::directory::read_text;

mod freezer;

pub(crate) use self::freezer::Freezer;

/// Where a node has its objects on v2, in the outermost group that it may use.
const SLICE: &str = "welkin.slice";

/// Leaf for the daemon and the shims on v2, where no group but the daemon's own may be used.
const DAEMON_LEAF: &str = "welkin-daemon";

/// Period over which CPU time is limited, in microseconds: the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;
/// Smallest quota that the kernel accepts, in microseconds.
const CPU_QUOTA_US_MIN: u64 = 1_000;
/// Attempts against others that make and remove the node's group at the same time.
const CREATE_ATTEMPTS: u32 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Memory,
    Processes,
    Cpu,
    CpuUsage,
}

impl Controller {
    pub(crate) const ALL: [Self; 4] = [Self::Memory, Self::Processes, Self::Cpu, Self::CpuUsage];

    fn name(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Memory, _) => "memory",
            (Self::Processes, _) => "pids",
            (Self::CpuUsage, Version::V1) => "cpuacct",
            (Self::Cpu, _) | (Self::CpuUsage, Version::V2) => "cpu",
        }
    }

    /// What an object lacks without it.
    pub(crate) fn absence(self) -> &'static str {
        match self {
            Self::Memory => "its memory is not limited",
            Self::Processes => "the number of its processes is not limited",
            Self::Cpu => "its CPU time is not limited",
            Self::CpuUsage => "its CPU time is not measured",
        }
    }
}

/// A group below which objects get theirs.
#[derive(Debug, Clone)]
struct Base {
    version: Version,
    path: PathBuf,
    /// It, or the one above it: the outermost that has to give controllers to its children.
    top: PathBuf,
}

impl Base {
    /// Why no group can be made below it, if so.
    fn check(&self) -> Result<(), String> {
        let top = self.top.display();
        access(&self.top, AccessFlags::W_OK)
            .map_err(|error| format!("{top} may not be written ({})", error.desc()))
    }
}

/// Finds where each controller is, from `/proc/self/cgroup` and `/proc/self/mountinfo`.
#[derive(Debug)]
struct Hierarchies {
    memberships: String,
    mounts: String,
    may_write: fn(&Path) -> bool,
}

impl Hierarchies {
    fn read() -> io::Result<Self> {
        Ok(Self {
            memberships: read_text(Path::new("/proc/self/cgroup"))?,
            mounts: read_text(Path::new("/proc/self/mountinfo"))?,
            may_write: |group| access(group, AccessFlags::W_OK).is_ok(),
        })
    }

    fn find(&self, controller: Controller) -> Option<Base> {
        let wanted = controller.name(Version::V1);
        let v1 = self.memberships.lines().find_map(|line| {
            let (_, rest) = line.split_once(':')?;
            let (controllers, path) = rest.split_once(':')?;
            controllers
                .split(',')
                .any(|name| name == wanted)
                .then_some(path)
        });
        if let Some(path) = v1 {
            let path = self.place(
                "cgroup",
                |options| options.split(',').any(|o| o == wanted),
                path,
            )?;
            return Some(Base {
                version: Version::V1,
                top: path.clone(),
                path,
            });
        }
        let base = self.unified()?;
        let offered = read_text(&base.top.join("cgroup.controllers")).ok()?;
        let wanted = controller.name(Version::V2);
        offered
            .split_whitespace()
            .any(|name| name == wanted)
            .then_some(base)
    }

    fn unified(&self) -> Option<Base> {
        let own = self.own()?;
        let outermost = own
            .ancestors()
            .filter(|group| (self.may_write)(group) && may_give(group, &own))
            .last();
        let (path, top) = match outermost {
            Some(top) => (top.join(SLICE), top.to_path_buf()),
            None => (own.clone(), own),
        };
        Some(Base {
            version: Version::V2,
            path,
            top,
        })
    }

    /// The group of the daemon.
    fn own(&self) -> Option<PathBuf> {
        let path = self
            .memberships
            .lines()
            .find_map(|line| line.strip_prefix("0::"))?;
        let path = self.place("cgroup2", |_options| true, path)?;
        let in_leaf = path.file_name().is_some_and(|name| name == DAEMON_LEAF);
        if in_leaf {
            path.parent().map(Path::to_path_buf)
        } else {
            Some(path)
        }
    }

    /// Where the group `path` of a hierarchy is in the file tree.
    fn place(&self, kind: &str, is_it: impl Fn(&str) -> bool, path: &str) -> Option<PathBuf> {
        self.mounts.lines().find_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let mut after = after.split(' ');
            if after.next()? != kind || !is_it(after.nth(1)?) {
                return None;
            }
            let mut before = before.split(' ').skip(3);
            let (root, point) = (before.next()?, before.next()?);
            let below = Path::new(path).strip_prefix(root).ok()?;
            Some(Path::new(point).join(below))
        })
    }
}

/// Whether a group can give controllers to its children although the daemon is somewhere below it
/// in `own`: the top one of the machine always can, and one that does so already. What lies above
/// a hierarchy can not, and neither can `own`, nor the top of a container that has members.
fn may_give(group: &Path, own: &Path) -> bool {
    let read = |name: &str| read_text(&group.join(name)).ok();
    let is_top = || !group.join("cgroup.events").exists();
    let gives = || read("cgroup.subtree_control").is_some_and(|given| !given.trim().is_empty());
    read("cgroup.controllers").is_some() && (is_top() || (group != own && gives()))
}

/// The groups of one object, one per hierarchy that is used.
#[derive(Debug, Default)]
pub(crate) struct Group {
    members: Vec<Member>,
}

/// What it means that an object of an app that never runs twice cannot be frozen.
pub(crate) const NOT_FROZEN: &str =
    "it is killed, not frozen, as soon as its node has not renewed in time that it may run";

const NO_UNIFIED: &str = "the node cannot make control groups of version 2 (cgroup2)";

#[derive(Debug)]
struct Member {
    version: Version,
    path: PathBuf,
    /// That of its [`Base`].
    top: PathBuf,
    controllers: Vec<Controller>,
}

impl Group {
    /// Plans the groups of an object; nothing is made yet. Sentences say what cannot be had.
    ///
    /// One that may have to be frozen gets a group on v2 although no controller may be there.
    pub(crate) fn plan(launch: &Launch, off: &mut Vec<String>) -> Self {
        let mut group = Self::default();
        let found = match Hierarchies::read() {
            Ok(found) => found,
            Err(error) => {
                off.push(format!(
                    "control groups cannot be found ({error}): no limit holds"
                ));
                return group;
            }
        };
        for controller in Controller::ALL {
            let Some(base) = found.find(controller) else {
                off.push(format!(
                    "{}: the control group of the node has no {} controller",
                    controller.absence(),
                    controller.name(Version::V2)
                ));
                continue;
            };
            group.member(base, launch).controllers.push(controller);
        }
        if let (Some(_), Some(base)) = (launch.tenure, found.unified()) {
            group.member(base, launch);
        }
        group
    }

    /// The object's group below a base.
    fn member(&mut self, base: Base, launch: &Launch) -> &mut Member {
        let node = base.path.join(node_group(launch.node));
        let path = node.join(launch.object.to_string());
        let known = self.members.iter().position(|member| member.path == path);
        let index = known.unwrap_or(self.members.len());
        if known.is_none() {
            self.members.push(Member {
                version: base.version,
                path,
                top: base.top,
                controllers: Vec::new(),
            });
        }
        &mut self.members[index]
    }

    /// The groups that a shim said it had made, for those who come after it.
    pub(crate) fn recorded(text: &str, object: ObjectId) -> Self {
        let name = object.to_string();
        let members = text
            .lines()
            .map(PathBuf::from)
            .filter(|path| path.is_absolute() && path.ends_with(&name))
            .map(|path| Member {
                version: Version::V1,
                top: path.clone(),
                path,
                controllers: Vec::new(),
            })
            .collect();
        Self { members }
    }

    /// The paths, one a line.
    pub(crate) fn record(&self) -> String {
        self.members
            .iter()
            .map(|member| format!("{}\n", member.path.display()))
            .collect()
    }

    /// Makes the groups and sets the limits. What fails is left out, with a sentence.
    pub(crate) fn create(&mut self, resources: &Resources, off: &mut Vec<String>) {
        self.members.retain(|member| match member.create() {
            Ok(()) => true,
            Err(error) => {
                off.extend(member.controllers.iter().map(|controller| {
                    let absence = controller.absence();
                    format!("{absence}: cannot make {} ({error})", member.path.display())
                }));
                false
            }
        });
        for member in &self.members {
            for controller in &member.controllers {
                if let Err(error) = member.limit(*controller, resources) {
                    let absence = controller.absence();
                    off.push(format!(
                        "{absence}: cannot write to {} ({error})",
                        member.path.display()
                    ));
                }
            }
        }
    }

    /// The v2 group, of which there is one at most.
    fn unified(&self) -> Option<&Member> {
        self.members
            .iter()
            .find(|member| member.version == Version::V2)
    }

    /// Puts a process into the v2 group; what it forks is in it too.
    pub(crate) fn attach(&self, pid: Pid, off: &mut Vec<String>) -> io::Result<()> {
        let Some(member) = self.unified() else {
            return Ok(());
        };
        write(&member.entrance(), &pid.to_string()).inspect_err(|error| {
            off.extend(member.not_entered(error));
        })
    }

    /// What freezes all that was attached.
    pub(crate) fn freezer(&self) -> io::Result<Freezer> {
        let unified = self.unified();
        let unified = unified.ok_or_else(|| io::Error::other(NO_UNIFIED))?;
        Freezer::open(&unified.path)
    }

    /// The v1 groups' entrances: a process that writes `0` to one is inside.
    ///
    /// Whoever moves another process, or one of several threads, takes a lock for which the
    /// kernel waits for all processors: milliseconds. A thread that moves itself does not.
    pub(crate) fn entrances(&self, off: &mut Vec<String>) -> Vec<File> {
        let mut files = Vec::new();
        for member in self
            .members
            .iter()
            .filter(|member| member.version == Version::V1)
        {
            match OpenOptions::new().write(true).open(member.entrance()) {
                Ok(file) => files.push(file),
                Err(error) => off.extend(member.not_entered(&error)),
            }
        }
        files
    }

    /// Puts the calling process, which has one thread, into all groups.
    pub(crate) fn enter(&self) -> io::Result<()> {
        self.members
            .iter()
            .try_for_each(|member| write(&member.entrance(), "0"))
    }

    pub(crate) fn usage(&self) -> Usage {
        let mut usage = Usage::default();
        for (member, controller) in self.pairs() {
            match (controller, member.version) {
                (Controller::Memory, version) => usage.memory_bytes = member.memory_bytes(version),
                (Controller::Processes, _) => {
                    let processes = member.number("pids.current").unwrap_or(0);
                    usage.processes = u32::try_from(processes).unwrap_or(u32::MAX);
                }
                (Controller::CpuUsage, Version::V1) => {
                    usage.cpu_us = member.number("cpuacct.usage").unwrap_or(0) / 1000;
                }
                (Controller::CpuUsage, Version::V2) => {
                    usage.cpu_us = member.keyed("cpu.stat", "usage_usec").unwrap_or(0);
                }
                (Controller::Cpu, _) => {}
            }
        }
        usage
    }

    /// How many of the object's processes were killed because its memory limit was reached.
    pub(crate) fn out_of_memory_kills(&self) -> u64 {
        let memory = self
            .pairs()
            .find(|(_, controller)| *controller == Controller::Memory);
        let kills = memory.and_then(|(member, _)| match member.version {
            Version::V1 => member.keyed("memory.oom_control", "oom_kill"),
            Version::V2 => member.keyed("memory.events", "oom_kill"),
        });
        kills.unwrap_or(0)
    }

    /// Kills what is in the groups. Returns how many processes there were; call again until none.
    pub(crate) fn kill(&self) -> usize {
        let mut found = 0;
        for member in &self.members {
            if write(&member.path.join("cgroup.kill"), "1").is_ok() {
                found += usize::from(member.is_populated());
                continue;
            }
            for pid in member.processes() {
                found += 1;
                // It may have ended by itself meanwhile.
                let _gone = kill(pid, Signal::SIGKILL);
            }
        }
        found
    }

    /// Removes the groups. False while a process is still in one. One that may not even be looked
    /// at was never made: its making had failed for the same reason.
    pub(crate) fn remove(&mut self) -> bool {
        self.members.retain(|member| {
            let kind = fs::remove_dir(&member.path).map_err(|error| error.kind());
            let gone = [io::ErrorKind::NotFound, io::ErrorKind::PermissionDenied];
            kind.is_err_and(|kind| !gone.contains(&kind))
        });
        self.members.is_empty()
    }

    fn pairs(&self) -> impl Iterator<Item = (&Member, Controller)> {
        self.members
            .iter()
            .flat_map(|m| m.controllers.iter().map(move |controller| (m, *controller)))
    }
}

impl Member {
    fn entrance(&self) -> PathBuf {
        self.path.join(match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.procs",
        })
    }

    fn not_entered(&self, error: &io::Error) -> Vec<String> {
        let path = self.path.display();
        let sentence = |c: &Controller| format!("{}: cannot enter {path} ({error})", c.absence());
        self.controllers.iter().map(sentence).collect()
    }

    fn create(&self) -> io::Result<()> {
        let mut outcome = Ok(());
        for _attempt in 0..CREATE_ATTEMPTS {
            outcome = self.try_create();
            let error = outcome.as_ref().err().map(io::Error::kind);
            // Otherwise somebody has just removed the last object, and the node's group with it.
            if error != Some(io::ErrorKind::NotFound) {
                break;
            }
        }
        outcome
    }

    /// Every level is made to pass the controllers on, although it may do so already: whoever
    /// has made it at the same time may not have come so far.
    fn try_create(&self) -> io::Result<()> {
        let above = self.path.ancestors().skip(1);
        let levels: Vec<&Path> = above.take_while(|l| l.starts_with(&self.top)).collect();
        for level in levels.into_iter().rev() {
            if level != self.top {
                make(level)?;
            }
            if self.version == Version::V2 {
                self.pass_on(level);
            }
        }
        make(&self.path)
    }

    /// Gives the wanted controllers to the children of a v2 group, each for itself: one that is
    /// not to be had does not cost the others, and is missed when its limit is set.
    fn pass_on(&self, path: &Path) {
        let file = path.join("cgroup.subtree_control");
        let passed = read_text(&file).unwrap_or_default();
        for controller in &self.controllers {
            let name = controller.name(Version::V2);
            if !passed.split_whitespace().any(|other| other == name) {
                let _missed = write(&file, &format!("+{name}"));
            }
        }
    }

    fn limit(&self, controller: Controller, resources: &Resources) -> io::Result<()> {
        let set = |name: &str, value: String| write(&self.path.join(name), &value);
        let cpu = u64::from(resources.cpu_millis);
        let quota = (cpu * CPU_PERIOD_US / 1000).max(CPU_QUOTA_US_MIN);
        match (controller, self.version) {
            (Controller::CpuUsage, _) => Ok(()),
            (Controller::Processes, _) if resources.processes == 0 => Ok(()),
            // Init is one more.
            (Controller::Processes, _) => set(
                "pids.max",
                resources.processes.saturating_add(1).to_string(),
            ),
            (Controller::Memory, _) if resources.memory_bytes == 0 => Ok(()),
            (Controller::Memory, Version::V1) => {
                set("memory.limit_in_bytes", resources.memory_bytes.to_string())?;
                optional(set(
                    "memory.memsw.limit_in_bytes",
                    resources.memory_bytes.to_string(),
                ))
            }
            (Controller::Memory, Version::V2) => {
                set("memory.max", resources.memory_bytes.to_string())?;
                optional(set("memory.swap.max", "0".to_string()))
            }
            // Nothing was promised: it gets what the others leave.
            (Controller::Cpu, Version::V1) if cpu == 0 => set("cpu.shares", "2".to_string()),
            (Controller::Cpu, Version::V2) if cpu == 0 => set("cpu.weight", "1".to_string()),
            (Controller::Cpu, Version::V1) => {
                set("cpu.cfs_quota_us", quota.to_string())?;
                set(
                    "cpu.shares",
                    (cpu * 1024 / 1000).clamp(2, 262_144).to_string(),
                )
            }
            (Controller::Cpu, Version::V2) => {
                set("cpu.max", format!("{quota} {CPU_PERIOD_US}"))?;
                set("cpu.weight", (cpu / 10).clamp(1, 10_000).to_string())
            }
        }
    }

    /// What it uses without the files that the kernel could drop at once.
    fn memory_bytes(&self, version: Version) -> u64 {
        let (used, reclaimable) = match version {
            Version::V1 => ("memory.usage_in_bytes", "total_inactive_file"),
            Version::V2 => ("memory.current", "inactive_file"),
        };
        let used = self.number(used).unwrap_or(0);
        used.saturating_sub(self.keyed("memory.stat", reclaimable).unwrap_or(0))
    }

    fn number(&self, file: &str) -> Option<u64> {
        read_text(&self.path.join(file)).ok()?.trim().parse().ok()
    }

    fn keyed(&self, file: &str, key: &str) -> Option<u64> {
        let text = read_text(&self.path.join(file)).ok()?;
        text.lines().find_map(|line| {
            let (name, value) = line.split_once(' ')?;
            (name == key).then(|| value.trim().parse().ok())?
        })
    }

    fn processes(&self) -> Vec<Pid> {
        let text = read_text(&self.path.join("cgroup.procs")).unwrap_or_default();
        let pids = text.lines().filter_map(|line| line.parse().ok());
        pids.filter(|pid| *pid > 1).map(Pid::from_raw).collect()
    }

    fn is_populated(&self) -> bool {
        self.keyed("cgroup.events", "populated").unwrap_or(0) > 0
    }
}

fn node_group(node: NodeId) -> String {
    format!("welkin-{}", node.short())
}

fn make(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    OpenOptions::new()
        .write(true)
        .open(path)?
        .write_all(value.as_bytes())
}

/// A file that not every kernel has.
fn optional(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Prepares the daemon's own group on v2 for having objects below it, if they can be nowhere else:
/// called once when the daemon starts. Returns sentences about what will not hold.
pub(crate) fn prepare() -> Vec<String> {
    let Ok(found) = Hierarchies::read() else {
        return Vec::new();
    };
    let Some(base) = found.unified() else {
        return Vec::new();
    };
    let has_own_place = base.top != base.path;
    let offered = read_text(&base.path.join("cgroup.controllers")).unwrap_or_default();
    // What may not be written is told by `available`.
    if has_own_place || offered.trim().is_empty() || !(found.may_write)(&base.path) {
        return Vec::new();
    }
    let leaf = base.path.join(DAEMON_LEAF);
    let moved = make(&leaf).and_then(|()| write(&leaf.join("cgroup.procs"), "0"));
    let passed = moved.and_then(|()| {
        let wanted = ["cpu", "memory", "pids"].into_iter();
        let wanted = wanted.filter(|name| offered.split_whitespace().any(|other| other == *name));
        let wanted: Vec<String> = wanted.map(|name| format!("+{name}")).collect();
        write(&base.path.join("cgroup.subtree_control"), &wanted.join(" "))
    });
    match passed {
        Ok(()) => Vec::new(),
        Err(error) => vec![format!(
            "limits of objects may not hold: {} cannot have groups with limits below it ({error})",
            base.path.display()
        )],
    }
}

/// Which controllers could be used by an object of this process, and why the others could not.
pub(crate) fn available() -> Vec<(Controller, Result<(), String>)> {
    let found = match Hierarchies::read() {
        Ok(found) => found,
        Err(error) => {
            let why = |controller| (controller, Err(error.to_string()));
            return Controller::ALL.into_iter().map(why).collect();
        }
    };
    let check = |controller| match found.find(controller) {
        None => Err("the control group of the node does not have it".to_string()),
        Some(base) => base.check(),
    };
    Controller::ALL
        .into_iter()
        .map(|controller| (controller, check(controller)))
        .collect()
}

/// Whether an object of this process could be frozen, and why not.
pub(crate) fn can_freeze() -> Result<(), String> {
    let found = Hierarchies::read().map_err(|error| error.to_string())?;
    let base = found.unified();
    base.ok_or_else(|| NO_UNIFIED.to_string())?.check()
}

/// Removes the groups of a node, once it has no objects.
pub(crate) fn remove_node(node: NodeId) {
    let Ok(found) = Hierarchies::read() else {
        return;
    };
    for base in Controller::ALL
        .into_iter()
        .filter_map(|controller| found.find(controller))
        .chain(found.unified())
    {
        // Not empty or already gone: both are fine.
        let _kept = fs::remove_dir(base.path.join(node_group(node)));
        if base.top != base.path {
            let _kept = fs::remove_dir(&base.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID_MOUNTS: &str = "\
30 23 0:26 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
31 30 0:27 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
32 30 0:28 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
33 30 0:29 /docker/abc /sys/fs/cgroup/pids rw,relatime - cgroup cgroup rw,pids
34 30 0:30 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    fn check(memberships: &str, controller: Controller, expect: Option<&str>) {
        let found = Hierarchies {
            memberships: memberships.to_string(),
            mounts: HYBRID_MOUNTS.to_string(),
            may_write: |_group| false,
        };
        let path = found.find(controller).map(|base| base.path);
        assert_eq!(
            path.as_deref(),
            expect.map(Path::new),
            "{controller:?} in {memberships}"
        );
    }

    #[test]
    fn controllers_are_found_where_a_hybrid_host_has_them() {
        let memberships = "4:memory:/a/b\n3:cpu,cpuacct:/\n8:pids:/docker/abc/x\n0::/\n";
        check(
            memberships,
            Controller::Memory,
            Some("/sys/fs/cgroup/memory/a/b"),
        );
        check(
            memberships,
            Controller::Cpu,
            Some("/sys/fs/cgroup/cpu,cpuacct/"),
        );
        check(
            memberships,
            Controller::CpuUsage,
            Some("/sys/fs/cgroup/cpu,cpuacct/"),
        );
        check(
            memberships,
            Controller::Processes,
            Some("/sys/fs/cgroup/pids/x"),
        );
    }

    #[test]
    fn a_group_outside_of_what_is_mounted_is_not_guessed() {
        check("8:pids:/elsewhere\n", Controller::Processes, None);
        check("", Controller::Memory, None);
    }

    #[test]
    fn the_unified_group_of_the_daemon_is_the_one_above_its_leaf() {
        let found = Hierarchies {
            memberships: "0::/system.slice/welkin.service/welkin-daemon\n".to_string(),
            mounts: HYBRID_MOUNTS.to_string(),
            may_write: |_group| false,
        };
        let base = found.unified().map(|base| base.path);
        let expect = Path::new("/sys/fs/cgroup/unified/system.slice/welkin.service");
        assert_eq!(base.as_deref(), Some(expect));
    }

    /// A made-up v2 hierarchy, and what a daemon in a person's session finds in it.
    fn unified_tree() -> (tempfile::TempDir, Hierarchies) {
        let top = tempfile::tempdir().unwrap();
        fs::write(top.path().join("cgroup.controllers"), "cpu memory pids\n").unwrap();
        let point = top.path().display();
        let found = Hierarchies {
            memberships: "0::/user.slice/session-1.scope\n".to_string(),
            mounts: format!("30 23 0:26 / {point} rw - cgroup2 cgroup2 rw\n"),
            may_write: |_group| true,
        };
        (top, found)
    }

    /// A group that is not the top one, and gives what `given` says to its children.
    fn group(path: &Path, given: &str) {
        fs::create_dir_all(path).unwrap();
        fs::write(path.join("cgroup.controllers"), "memory pids\n").unwrap();
        fs::write(path.join("cgroup.events"), "populated 1\n").unwrap();
        fs::write(path.join("cgroup.subtree_control"), given).unwrap();
    }

    // The scope of a session has members that are not ours, and an older systemd starts a daemon
    // in the very group that has to be without members. No limit held in either.
    #[test]
    fn the_superuser_has_a_place_of_its_own_on_v2() {
        let (top, mut found) = unified_tree();
        let base = |found: &Hierarchies| found.find(Controller::Memory).map(|base| base.path);
        assert_eq!(base(&found), Some(top.path().join(SLICE)));
        found.may_write = |_group| false;
        let own = top.path().join("user.slice/session-1.scope");
        assert_eq!(found.unified().map(|base| base.path), Some(own.clone()));
        found.may_write = |_group| true;
        group(top.path(), "");
        let unified = found.unified().map(|base| base.path);
        assert_eq!(unified, Some(own), "a container's top that has members");
    }

    // The daemon's own group gave controllers to its objects. As long as one of them ran, systemd
    // could not start the daemon in it again: `systemctl --user restart` failed with 219/CGROUP.
    #[test]
    fn the_node_of_a_person_has_its_place_in_the_group_of_their_service_manager() {
        let (top, mut found) = unified_tree();
        let manager = top.path().join("user.slice/user@1000.service");
        group(top.path(), "memory pids\n");
        group(&top.path().join("user.slice"), "memory pids\n");
        group(&manager, "memory pids\n");
        group(&manager.join("app.slice"), "memory pids\n");
        let own = manager.join("app.slice/welkin.service");
        for given in ["", "memory pids\n"] {
            group(&own, given);
            for leaf in ["", "/welkin-daemon"] {
                let own = "/user.slice/user@1000.service/app.slice/welkin.service";
                found.memberships = format!("0::{own}{leaf}\n");
                found.may_write = |group| group.iter().any(|name| name == "user@1000.service");
                let base = found.find(Controller::Memory).unwrap();
                assert_eq!(
                    (base.path, base.top),
                    (manager.join(SLICE), manager.clone())
                );
                // A service of the system that is delegated to a person has no other place.
                found.may_write = |group| group.iter().any(|name| name == "welkin.service");
                let base = found.find(Controller::Memory).unwrap();
                assert_eq!(base.path, top.path().join(&own[1..]), "{leaf} {given}");
            }
        }
    }

    // A launch that found the node's group already made did not wait until its maker had passed
    // the controllers on, and one controller that could not be passed on cost all others.
    #[test]
    fn every_level_passes_controllers_on_before_a_group_is_made() {
        let (top, found) = unified_tree();
        let base = found.find(Controller::Memory).unwrap();
        let node = base.path.join("welkin-node");
        fs::create_dir_all(&node).unwrap();
        let control = |path: &Path| path.join("cgroup.subtree_control");
        fs::write(control(top.path()), "pids\n").unwrap();
        // Nothing can be written there.
        fs::create_dir(control(&base.path)).unwrap();
        fs::write(control(&node), "").unwrap();
        let mut member = Member {
            version: base.version,
            path: node.join("object"),
            top: base.top,
            controllers: vec![Controller::Processes, Controller::Memory],
        };
        member.create().unwrap();
        let text = |path: &Path| fs::read_to_string(control(path)).unwrap();
        assert_eq!(text(top.path()), "+memory");
        assert!(text(&node).starts_with("+memory"), "{}", text(&node));
        member.controllers.clear();
        member.path = base.path.join("another/object");
        member.create().unwrap();
        assert!(member.path.is_dir());
    }

    #[test]
    fn only_recorded_groups_of_the_object_itself_are_taken() {
        let object = ObjectId([7; 16]);
        let text = format!("/sys/fs/cgroup/memory/welkin-x/{object}\n/sys/fs/cgroup/memory\nx\n");
        assert_eq!(Group::recorded(&text, object).members.len(), 1);
    }
}
