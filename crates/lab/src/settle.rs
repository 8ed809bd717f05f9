//! Makes the new namespaces of a host into a machine: its name, its directories, its network.
//!
//! It is done by a thread of the lab that enters the namespaces and then ends, rather than by the
//! init, because here ordinary Rust may run. It does not touch the pid namespace.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::sethostname;

use crate::init::Init;
use crate::tap::{self, Station};

/// What a host is to become.
#[derive(Clone, Debug)]
pub(crate) struct Household {
    pub(crate) name: String,
    pub(crate) station: Station,
    pub(crate) peers: Vec<Station>,
    /// The router that it is behind.
    pub(crate) gateway: Option<Station>,
    /// Private directories and the places that they are mounted on.
    pub(crate) directories: Vec<(PathBuf, PathBuf)>,
}

/// Sets the host up; returns the lab's end of its network device.
pub(crate) fn settle(init: &Init, household: &Household) -> io::Result<OwnedFd> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("lab-settle".to_owned())
            .spawn_scoped(scope, || settle_here(init, household))?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("setting a host up has panicked")))
    })
}

fn settle_here(init: &Init, household: &Household) -> io::Result<OwnedFd> {
    // A thread that shares its working directory with others cannot change its mounts.
    unshare(CloneFlags::CLONE_FS)?;
    let spaces = CloneFlags::CLONE_NEWNS
        | CloneFlags::CLONE_NEWNET
        | CloneFlags::CLONE_NEWUTS
        | CloneFlags::CLONE_NEWIPC;
    setns(init.handle(), spaces)?;
    sethostname(&household.name)?;
    for (private, place) in &household.directories {
        bind(private, place)?;
    }
    renew_views();
    tap::set_up(household.station, &household.peers, household.gateway)
}

fn bind(private: &Path, place: &Path) -> io::Result<()> {
    mount(
        Some(private),
        place,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .map_err(|error| {
        let message = format!("cannot mount on {}: {error}", place.display());
        io::Error::new(io::Error::from(error).kind(), message)
    })
}

/// Gives the host its own shared memory and its own view of `/sys/class/net`. A machine without
/// these directories works as well, so failures are left alone.
fn renew_views() {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    let none = None::<&str>;
    if Path::new("/dev/shm").is_dir() {
        mount(
            Some("tmpfs"),
            "/dev/shm",
            Some("tmpfs"),
            flags,
            Some("mode=1777"),
        )
        .ok();
    }
    // The cgroup mounts lie inside /sys: hold them while /sys is mounted anew.
    let (cgroups, shelter) = ("/sys/fs/cgroup", "/run/welkin");
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    if fs::metadata(cgroups).is_err() || mount(Some(cgroups), shelter, none, bind, none).is_err() {
        return;
    }
    let flags = flags | MsFlags::MS_NOEXEC;
    mount(Some("sysfs"), "/sys", Some("sysfs"), flags, none).ok();
    mount(Some(shelter), cgroups, none, MsFlags::MS_MOVE, none).ok();
}
