//! What the machine has and what it does, as Linux counts it.
//!
//! What it is not: a judge of it. Limits of the control groups that the node itself runs in count
//! as the size of the machine, because objects are made below them.

use std::path::{Path, PathBuf};

use wire::fact::{Load, Platform};

/// The size of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size {
    /// Thousandths of a core.
    pub(crate) cpu_millis: u32,
    /// Bytes of memory.
    pub(crate) memory_bytes: u64,
}

fn read(path: impl AsRef<Path>) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// What kind of machine it is.
pub(crate) fn platform() -> Platform {
    let (os, arch, kernel) = match nix::sys::utsname::uname() {
        Ok(names) => {
            let text = |part: &std::ffi::OsStr| part.to_string_lossy().into_owned();
            (
                text(names.sysname()),
                text(names.machine()),
                text(names.release()),
            )
        }
        Err(_) => (
            "linux".to_owned(),
            std::env::consts::ARCH.to_owned(),
            String::new(),
        ),
    };
    let os = os.to_lowercase();
    Platform { os, arch, kernel }
}

/// The name of the machine, as a name of a node: its host name up to the first dot, in lower
/// case, other characters as dashes.
pub(crate) fn host_name() -> String {
    let name = nix::unistd::gethostname().unwrap_or_default();
    node_name(&name.to_string_lossy())
}

fn node_name(host_name: &str) -> String {
    let first = host_name
        .split('.')
        .next()
        .unwrap_or_default()
        .to_ascii_lowercase();
    let letter = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let mut name: String = first.chars().map(letter).collect();
    name.truncate(wire::spec::NAME_CHARACTERS_MAX);
    let name = name.trim_matches('-');
    if name.is_empty() {
        "node".to_owned()
    } else {
        name.to_owned()
    }
}

/// How large the machine is.
pub(crate) fn size() -> Size {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cores_millis = u32::try_from(cores)
        .unwrap_or(u32::MAX / 1000)
        .saturating_mul(1000);
    let memory = memory_field(&read("/proc/meminfo"), "MemTotal").unwrap_or(0);
    let (cpu_limit, memory_limit) = control_group_limits();
    Size {
        cpu_millis: cpu_limit.map_or(cores_millis, |limit| limit.min(cores_millis)),
        memory_bytes: memory_limit.map_or(memory, |limit| limit.min(memory)),
    }
}

/// The smallest limits on the way from this process's control group to the root of the tree.
fn control_group_limits() -> (Option<u32>, Option<u64>) {
    let (mut cpu, mut memory) = (None::<u32>, None::<u64>);
    let membership = read("/proc/self/cgroup");
    for line in membership.lines() {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next(), parts.next(), parts.next());
        let (Some(controllers), Some(path)) = (controllers, path) else {
            continue;
        };
        for root in hierarchy_roots(controllers) {
            let mut directory = root.join(path.trim_start_matches('/'));
            while directory.starts_with(&root) {
                if let Some(limit) = cpu_limit(&directory) {
                    cpu = Some(cpu.map_or(limit, |least| least.min(limit)));
                }
                if let Some(limit) = memory_limit(&directory) {
                    memory = Some(memory.map_or(limit, |least| least.min(limit)));
                }
                if !directory.pop() {
                    break;
                }
            }
        }
    }
    (cpu, memory)
}

/// Where the hierarchy of these controllers is mounted; none are named in version 2.
fn hierarchy_roots(controllers: &str) -> Vec<PathBuf> {
    let root = Path::new("/sys/fs/cgroup");
    if controllers.is_empty() {
        return vec![root.to_path_buf(), root.join("unified")];
    }
    let wanted = |name: &&str| matches!(*name, "cpu" | "memory");
    controllers
        .split(',')
        .filter(wanted)
        .map(|name| root.join(name))
        .collect()
}

fn cpu_limit(directory: &Path) -> Option<u32> {
    let text = read(directory.join("cpu.max"));
    let mut words = text.split_whitespace();
    let (quota, period) = match (words.next(), words.next()) {
        (Some(quota), Some(period)) => (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?),
        _ => {
            let number = |name: &str| read(directory.join(name)).trim().parse::<u64>().ok();
            (number("cpu.cfs_quota_us")?, number("cpu.cfs_period_us")?)
        }
    };
    u32::try_from(quota.checked_mul(1000)?.checked_div(period)?).ok()
}

fn memory_limit(directory: &Path) -> Option<u64> {
    let number = |name: &str| read(directory.join(name)).trim().parse::<u64>().ok();
    number("memory.max").or_else(|| number("memory.limit_in_bytes"))
}

/// A field of `/proc/meminfo` in bytes.
fn memory_field(text: &str, name: &str) -> Option<u64> {
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let kibibytes: u64 = line.split_whitespace().next()?.parse().ok()?;
    kibibytes.checked_mul(1024)
}

/// CPU time of all cores in ticks: busy, and all.
fn cpu_ticks(text: &str) -> Option<(u64, u64)> {
    let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
    let ticks: Vec<u64> = line
        .split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect();
    // user nice system idle iowait irq softirq steal; guests are in user already.
    let all: u64 = ticks.iter().take(8).sum();
    let idle: u64 = ticks.iter().skip(3).take(2).sum();
    Some((all.checked_sub(idle)?, all))
}

/// Measures the load between calls.
#[derive(Debug)]
pub(crate) struct Meter {
    size: Size,
    cores_millis: u64,
    last: (u64, u64),
}

impl Meter {
    pub(crate) fn new(size: Size) -> Self {
        let stat = read("/proc/stat");
        let cores = stat
            .lines()
            .filter(|line| line.starts_with("cpu"))
            .count()
            .saturating_sub(1);
        Self {
            size,
            cores_millis: u64::try_from(cores).unwrap_or(1).max(1) * 1000,
            last: cpu_ticks(&stat).unwrap_or_default(),
        }
    }

    /// The load since the last call.
    pub(crate) fn load(&mut self) -> Load {
        let ticks = cpu_ticks(&read("/proc/stat")).unwrap_or(self.last);
        let busy = ticks.0.saturating_sub(self.last.0);
        let all = ticks.1.saturating_sub(self.last.1).max(1);
        self.last = ticks;
        let meminfo = read("/proc/meminfo");
        let total = memory_field(&meminfo, "MemTotal").unwrap_or(self.size.memory_bytes);
        let available = memory_field(&meminfo, "MemAvailable").unwrap_or(total);
        let cpu = u32::try_from(busy.saturating_mul(self.cores_millis) / all).unwrap_or(u32::MAX);
        Load {
            cpu_used_millis: cpu.min(self.size.cpu_millis),
            memory_used_bytes: total.saturating_sub(available).min(self.size.memory_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_of_idle_and_waiting_cores_are_not_busy() {
        let text = "cpu  10 1 20 1000 50 2 3 4 0 0\ncpu0 1 1 1 1\n";
        assert_eq!(cpu_ticks(text), Some((40, 1090)));
    }

    #[test]
    fn meminfo_is_in_kibibytes() {
        assert_eq!(
            memory_field("MemTotal:   16 kB\nMemFree: 1 kB\n", "MemTotal"),
            Some(16 * 1024)
        );
        assert_eq!(memory_field("MemTotalX: 16 kB\n", "MemTotal"), None);
    }

    #[test]
    fn host_names_become_names_of_nodes() {
        for (host, node) in [
            ("Web-1.example.org", "web-1"),
            ("my_pc", "my-pc"),
            ("..", "node"),
        ] {
            assert_eq!(node_name(host), node);
            wire::spec::check_name(&node_name(host)).unwrap();
        }
    }

    #[test]
    fn this_machine_has_a_size_and_a_load_within_it() {
        let size = size();
        assert!(size.cpu_millis > 0 && size.memory_bytes > 0);
        let load = Meter::new(size).load();
        assert!(load.cpu_used_millis <= size.cpu_millis);
        assert!(load.memory_used_bytes > 0 && load.memory_used_bytes <= size.memory_bytes);
    }
}
