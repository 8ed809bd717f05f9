//! What a lab is to be, before it is started. It makes plans, not hosts.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder};
use std::io;
use std::net::Ipv4Addr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use crate::addresses::{HOSTS_MAX, Subnet};
use crate::capabilities::Capabilities;
use crate::cgroups::HostCgroups;
use crate::errors::StartError;
use crate::fabric::ethernet_address;
use crate::lab::Lab;
use crate::nat::{self, Nat};
use crate::settle::Household;
use crate::tap::Station;
use crate::wan::Wan;

/// Where the state directory of a host is mounted.
pub(crate) const STATE: &str = "/var/lib/welkin";
/// Where the directory for sockets of a host is mounted.
pub(crate) const RUN: &str = "/run/welkin";

const NAME_BYTES_MAX: usize = 32;

static LABS: AtomicU32 = AtomicU32::new(0);

/// A lab to be. See [`Lab::builder`].
#[derive(Clone, Debug)]
#[must_use = "a lab starts with `start`"]
pub struct Builder {
    hosts: usize,
    name: Option<String>,
    wan: Option<Wan>,
    sites: Option<Vec<String>>,
    subnet: Option<Subnet>,
    seed: u64,
    fallback: bool,
    private: Vec<PathBuf>,
    data: Option<PathBuf>,
    routers: BTreeMap<String, Nat>,
}

/// One host to be.
#[derive(Debug)]
pub(crate) struct HostPlan {
    pub(crate) name: String,
    pub(crate) address: Ipv4Addr,
    pub(crate) site: Option<String>,
    pub(crate) state: PathBuf,
    pub(crate) run: PathBuf,
    pub(crate) cgroups: HostCgroups,
    pub(crate) household: Household,
    /// The router that it is behind.
    pub(crate) nat: Option<Nat>,
    isolated: bool,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            hosts: 3,
            name: None,
            wan: None,
            sites: None,
            subnet: None,
            seed: 1,
            fallback: false,
            private: Vec::new(),
            data: None,
            routers: BTreeMap::new(),
        }
    }

    /// How many hosts, from 1 to [`HOSTS_MAX`]. They are called `h1`, `h2`, ....
    pub fn hosts(mut self, count: usize) -> Self {
        self.hosts = count;
        self
    }

    /// A name, instead of one that no other process and lab has.
    pub fn name(mut self, name: impl Into<String>) -> Self {
        self.name = Some(name.into());
        self
    }

    /// Round-trip times. Hosts are dealt out over the sites in turn, from the first.
    pub fn wan(mut self, wan: Wan) -> Self {
        self.wan = Some(wan);
        self
    }

    /// Only these sites of the WAN, in this order.
    pub fn sites<S: Into<String>>(mut self, sites: impl IntoIterator<Item = S>) -> Self {
        self.sites = Some(sites.into_iter().map(Into::into).collect());
        self
    }

    /// The network of the hosts, instead of [`Subnet::DEFAULT`].
    pub fn subnet(mut self, subnet: Subnet) -> Self {
        self.subnet = Some(subnet);
        self
    }

    /// The seed of loss and jitter.
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Each host gets an empty directory of its own in this place, besides those for state and
    /// sockets. For `/tmp`, mind that programs which lie there cannot be seen then.
    pub fn private_directory(mut self, place: impl Into<PathBuf>) -> Self {
        self.private.push(place.into());
        self
    }

    /// Where the hosts' directories are kept, as a directory of this lab's own below `parent`,
    /// instead of `/var/tmp` (for root) or the temporary directory.
    pub fn data_below(mut self, parent: impl Into<PathBuf>) -> Self {
        self.data = Some(parent.into());
        self
    }

    /// Puts a host behind a router that translates addresses: others see it at the address that it
    /// would have otherwise, and reach it only where it has sent something first. Does nothing where
    /// hosts are loopback addresses.
    pub fn behind(mut self, host: impl Into<String>, nat: Nat) -> Self {
        self.routers.insert(host.into(), nat);
        self
    }

    /// Hosts are loopback addresses even where there could be namespaces.
    pub fn without_namespaces(mut self) -> Self {
        self.fallback = true;
        self
    }

    /// Starts the lab; when this returns, all hosts are up.
    pub fn start(self) -> Result<Lab, StartError> {
        if !(1..=HOSTS_MAX).contains(&self.hosts) {
            return Err(StartError::BadCount(self.hosts));
        }
        let known = |host: &String| (1..=self.hosts).any(|number| format!("h{number}") == *host);
        if let Some(host) = self.routers.keys().find(|host| !known(host)) {
            return Err(StartError::NoSuchHost(host.clone()));
        }
        let name = match &self.name {
            Some(name) => name.clone(),
            None => {
                let number = LABS.fetch_add(1, Ordering::Relaxed);
                format!("t{}-{number}", std::process::id())
            }
        };
        if !is_name(&name) {
            return Err(StartError::BadName(name));
        }
        let wan = match (&self.wan, &self.sites) {
            (Some(wan), Some(sites)) => Some(wan.only(sites)?),
            (wan, _) => wan.clone(),
        };
        let capabilities = match self.fallback {
            true => Capabilities::fallback(),
            false => Capabilities::of_this_machine(),
        };
        let parent = self.data.clone().unwrap_or_else(default_data);
        let data = parent.join(format!("lab-{name}"));
        let plan = |index| self.plan(index, &name, &data, wan.as_ref(), &capabilities);
        let plans = (0..self.hosts).map(plan).collect();
        Lab::start(name, capabilities, wan, self.seed, data, plans)
    }

    fn plan(
        &self,
        index: usize,
        lab: &str,
        data: &Path,
        wan: Option<&Wan>,
        capabilities: &Capabilities,
    ) -> HostPlan {
        let isolated = capabilities.isolation;
        let name = format!("h{}", index + 1);
        let own = data.join(&name);
        let station = |index| Station {
            ethernet: ethernet_address(index),
            address: self.network(isolated).address(index + 1),
        };
        let nat = isolated.then(|| self.routers.get(&name)).flatten().copied();
        let inside = |station: Station| Station {
            address: nat::INNER,
            ..station
        };
        let gateway = Station {
            ethernet: nat::GATEWAY_ETHERNET,
            address: nat::GATEWAY,
        };
        let (state, run) = (own.join("state"), own.join("run"));
        let mut directories = vec![
            (state.clone(), PathBuf::from(STATE)),
            (run.clone(), PathBuf::from(RUN)),
        ];
        for (number, place) in self.private.iter().enumerate() {
            directories.push((own.join(format!("private{number}")), place.clone()));
        }
        HostPlan {
            address: station(index).address,
            site: wan.map(|wan| wan.site_of(index).to_owned()),
            state,
            run,
            cgroups: match isolated {
                true => HostCgroups::planned(&format!("lab-{lab}-{name}")),
                false => HostCgroups::default(),
            },
            household: Household {
                name: name.clone(),
                station: match nat {
                    Some(_) => inside(station(index)),
                    None => station(index),
                },
                peers: (0..self.hosts)
                    .filter(|it| *it != index)
                    .map(station)
                    .collect(),
                gateway: nat.map(|_| gateway),
                directories,
            },
            name,
            nat,
            isolated,
        }
    }

    fn network(&self, isolated: bool) -> Subnet {
        match (isolated, self.subnet) {
            (true, Some(subnet)) => subnet,
            (true, None) => Subnet::DEFAULT,
            (false, _) => Subnet::LOOPBACK,
        }
    }
}

impl HostPlan {
    /// Makes the private directories and the places that they will be mounted on. Places that this
    /// has made stay: removing one would take away the mounts of other labs that are up.
    pub(crate) fn make_directories(&self) -> io::Result<()> {
        for (private, place) in &self.household.directories {
            DirBuilder::new()
                .recursive(true)
                .mode(0o755)
                .create(private)?;
            let mut mode = 0o755;
            if self.isolated {
                fs::create_dir_all(place)?;
                mode = fs::metadata(place)?.permissions().mode() & 0o7777;
            }
            fs::set_permissions(private, fs::Permissions::from_mode(mode))?;
        }
        Ok(())
    }
}

/// On a disk, where state files are usually kept: `/run` and often `/tmp` are memory.
fn default_data() -> PathBuf {
    let disk = Path::new("/var/tmp");
    if nix::unistd::geteuid().is_root() && disk.is_dir() {
        return disk.to_owned();
    }
    std::env::temp_dir()
}

/// Names become file names, cgroup names and host marks.
pub(crate) fn is_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=NAME_BYTES_MAX).contains(&name.len()) && name.bytes().all(allowed)
}
