//! What labs can do on this machine. It decides between the two kinds of host and explains the
//! choice; it starts nothing.

use std::fs::{self, OpenOptions};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

/// Capability bits of Linux that hosts in namespaces need.
const NEEDED: [(u32, &str); 3] = [
    (12, "CAP_NET_ADMIN"),
    (18, "CAP_SYS_CHROOT"),
    (21, "CAP_SYS_ADMIN"),
];

/// What a lab can do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Hosts are separate machines to the programs on them: own processes, mounts, names, network;
    /// killing a host ends everything on it at once, and all hosts end with the process that owns the lab.
    /// Otherwise hosts are loopback addresses.
    pub isolation: bool,
    /// Links can be cut, slowed and made lossy. Goes with `isolation`.
    pub wan: bool,
    /// What this machine or user lacks for `isolation`, one reason each; empty if nothing.
    pub missing: Vec<String>,
}

impl Capabilities {
    /// Those of a lab that this process would start now.
    pub fn of_this_machine() -> Self {
        let mut missing = Vec::new();
        if !geteuid().is_root() {
            missing.push("not root".to_owned());
        }
        let held = effective_capabilities();
        for (bit, name) in NEEDED {
            if held & (1 << bit) == 0 {
                missing.push(format!("no {name}"));
            }
        }
        let tun = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/net/tun");
        if let Err(error) = tun {
            missing.push(format!("/dev/net/tun: {error}"));
        }
        Self {
            isolation: missing.is_empty(),
            wan: missing.is_empty(),
            missing,
        }
    }

    /// Those of a lab that is told to use loopback addresses.
    pub(crate) fn fallback() -> Self {
        Self {
            isolation: false,
            wan: false,
            missing: vec!["told not to use namespaces".to_owned()],
        }
    }
}

fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .unwrap_or(0)
}
