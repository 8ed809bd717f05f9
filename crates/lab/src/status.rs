//! What a lab says about itself, as data.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::capabilities::Capabilities;
use crate::fabric::Counters;
use crate::link::Link;

/// A lab at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// Its name.
    pub name: String,
    /// The process that holds it; all hosts end when that does.
    pub owner_pid: u32,
    /// Where its record and its control socket are.
    pub run_directory: PathBuf,
    /// What it can do.
    pub capabilities: Capabilities,
    /// Its hosts, in order of their numbers.
    pub hosts: Vec<HostStatus>,
    /// Every direction between two hosts; empty where there is no network.
    pub links: Vec<LinkStatus>,
    /// What became of frames so far.
    pub counters: Counters,
}

/// A host at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Its name.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// The site of the WAN that it is at.
    pub site: Option<String>,
    /// Whether it is up.
    pub up: bool,
    /// Its first process, as seen from outside.
    pub init_pid: Option<i32>,
    /// Its state directory, as seen from outside.
    pub state_directory: PathBuf,
}

/// One direction between two hosts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// The host that sends.
    pub from: String,
    /// The host that gets.
    pub to: String,
    /// Whether it is cut.
    pub cut: bool,
    /// What it does to frames while it is not.
    #[serde(flatten)]
    pub link: Link,
}

/// How another process can start programs on a host.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum DoorRecord {
    Init {
        pid: i32,
        started: u64,
        cgroups: Vec<PathBuf>,
    },
    Mark(String),
}
