//! What this machine can and cannot do for objects: sentences for `welkin doctor`.
//!
//! It only reads what the kernel says of itself; nothing is made or tried out, so it may be
//! called at any time from any thread. The last word has a start itself: what could not be had
//! is in its `protections_off`.

use std::path::Path;

use nix::unistd::{access, geteuid};

use crate::cgroup::{self, Controller};
use crate::directory::read_text;

/// What to do when limits of objects do not hold.
pub const LIMITS_REMEDY: &str = "run the node as root, or below your own service manager: \
                                 welkin down && systemd-run --user --scope welkin up";

/// One protection of objects on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protection {
    /// A word or two.
    pub name: &'static str,
    /// Whether objects have it.
    pub available: bool,
    /// What that means, as a sentence.
    pub explanation: String,
    /// What to do about it; empty when it is available.
    pub remedy: String,
}

impl Protection {
    fn new(name: &'static str, missing: Option<(String, String)>, explanation: &str) -> Self {
        let available = missing.is_none();
        let (explanation, remedy) = missing.unwrap_or((explanation.to_string(), String::new()));
        Self {
            name,
            available,
            explanation,
            remedy,
        }
    }
}

/// Looks at this machine.
#[must_use]
pub fn probe() -> Vec<Protection> {
    let mut all = vec![kernel(), namespaces(), layer(), filter()];
    all.extend(cgroup::available().into_iter().map(|(controller, state)| {
        let name = match controller {
            Controller::Memory => "memory limit",
            Controller::Processes => "process limit",
            Controller::Cpu => "CPU limit",
            Controller::CpuUsage => "CPU accounting",
        };
        let missing = state.err().map(|why| {
            let why = format!("an object runs, but {}: {why}", controller.absence());
            (why, LIMITS_REMEDY.to_string())
        });
        Protection::new(name, missing, "control groups of the node can be used")
    }));
    all.push(freezer());
    all
}

fn freezer() -> Protection {
    let missing = cgroup::can_freeze().err().map(|why| {
        let remedy = "mount cgroup2 and run the node as root, or as a service with Delegate=yes";
        let sentence = format!(
            "an object of an app that never runs twice is killed where it could be frozen: {why}"
        );
        (sentence, remedy.to_string())
    });
    let explanation = "an object that may not run for a while can go on later";
    Protection::new("freezer", missing, explanation)
}

fn kernel() -> Protection {
    let release = read_text(Path::new("/proc/sys/kernel/osrelease")).unwrap_or_default();
    let mut numbers = release
        .split(['.', '-'])
        .map(|part| part.trim().parse::<u32>().unwrap_or(0));
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let missing = (version < (5, 12)).then(|| {
        let why = format!(
            "Linux {} is older than 5.12: objects may not start",
            release.trim()
        );
        (why, "install a newer kernel".to_string())
    });
    Protection::new("kernel", missing, "the kernel is new enough")
}

fn has_capability(capability: u32) -> bool {
    let status = read_text(Path::new("/proc/self/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let set = line
        .and_then(|set| u64::from_str_radix(set.trim(), 16).ok())
        .unwrap_or(0);
    set & (1 << capability) != 0
}

/// `CAP_SYS_ADMIN`.
const ADMINISTRATOR: u32 = 21;

fn namespaces() -> Protection {
    if has_capability(ADMINISTRATOR) {
        return Protection::new(
            "namespaces",
            None,
            "objects see only their own processes and files",
        );
    }
    let setting = |name: &str| {
        let text = read_text(&Path::new("/proc/sys").join(name)).ok()?;
        text.trim().parse::<i64>().ok()
    };
    let refusal = if setting("user/max_user_namespaces").is_none_or(|most| most == 0) {
        Some((
            "the kernel allows no user namespaces",
            "sysctl user.max_user_namespaces=15000",
        ))
    } else if setting("kernel/unprivileged_userns_clone") == Some(0) {
        let remedy = "sysctl kernel.unprivileged_userns_clone=1";
        Some(("only root may make user namespaces", remedy))
    } else if setting("kernel/apparmor_restrict_unprivileged_userns") == Some(1) {
        let remedy =
            "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile";
        Some(("AppArmor restricts user namespaces", remedy))
    } else {
        None
    };
    let missing = refusal.map(|(why, remedy)| {
        let why = format!("objects see the processes and files of the node: {why}");
        (why, format!("run the node as root, or as root: {remedy}"))
    });
    Protection::new(
        "namespaces",
        missing,
        "objects are in user namespaces of their own",
    )
}

/// Whether the kernel has overlays, or loads the module for them once one is mounted; `root` is
/// that of the machine.
fn has_overlay(root: &Path) -> bool {
    let read = |name: &str| read_text(&root.join(name)).unwrap_or_default();
    let kinds = read("proc/filesystems");
    let release = read("proc/sys/kernel/osrelease");
    let modules = root.join("lib/modules").join(release.trim());
    kinds
        .lines()
        .any(|line| line.trim_start_matches("nodev").trim() == "overlay")
        || root.join("sys/module/overlay").exists()
        || modules.join("kernel/fs/overlayfs").exists()
}

fn layer() -> Protection {
    let missing = if !has_overlay(Path::new("/")) {
        let why = "objects can change files only in /tmp and /run: the kernel has no overlayfs";
        Some((why.to_string(), "as root: modprobe overlay".to_string()))
    } else if geteuid().is_root() || has_capability(ADMINISTRATOR) {
        None
    } else {
        let why = "objects can change files only in /tmp and /run: without root there is no layer \
                   over the files of the node";
        Some((why.to_string(), "run the node as root".to_string()))
    };
    Protection::new(
        "file layer",
        missing,
        "objects change files only in a layer of their own",
    )
}

fn filter() -> Protection {
    let actions = Path::new("/proc/sys/kernel/seccomp/actions_avail");
    let missing = access(actions, nix::unistd::AccessFlags::F_OK)
        .is_err()
        .then(|| {
            let why = "objects do not start: the kernel has no system-call filters (seccomp)";
            (
                why.to_string(),
                "use a kernel with CONFIG_SECCOMP_FILTER".to_string(),
            )
        });
    Protection::new(
        "system-call filter",
        missing,
        "objects can make only harmless system calls",
    )
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    // On a machine that had just started, doctor said that its kernel had no overlayfs, until the
    // first object made the kernel load it.
    #[test]
    fn a_module_that_is_loaded_when_it_is_needed_is_not_missing() {
        let root = tempfile::tempdir().unwrap();
        let kernel = root.path().join("proc/sys/kernel");
        fs::create_dir_all(&kernel).unwrap();
        fs::write(kernel.join("osrelease"), "6.1.0-cloud\n").unwrap();
        let kinds = root.path().join("proc/filesystems");
        fs::write(&kinds, "nodev\ttmpfs\n\text4\n").unwrap();
        let modules = |release: &str| {
            let place = root.path().join("lib/modules").join(release);
            fs::create_dir_all(place.join("kernel/fs/overlayfs")).unwrap();
        };
        assert!(!has_overlay(root.path()));
        modules("6.1.0-other");
        assert!(!has_overlay(root.path()), "of another kernel");
        modules("6.1.0-cloud");
        assert!(has_overlay(root.path()));
        fs::remove_dir_all(root.path().join("lib")).unwrap();
        fs::write(&kinds, "nodev\ttmpfs\nnodev\toverlay\n").unwrap();
        assert!(has_overlay(root.path()));
    }
}
