//! Many hosts on one machine, with a network between them that can be cut, slowed and made lossy.
//!
//! It is a test tool, as a library for integration tests and as the command `lab`. It is not a
//! container runtime (nothing is limited and nothing is kept from a hostile program), not a
//! simulator (time is real), and it is never shipped.
//!
//! ```no_run
//! use std::time::Duration;
//! use lab::{Lab, Link, Ways};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let lab = Lab::builder().hosts(3).start()?;
//! let mut server = lab.host("h2").command("/path/to/welkin").arg("up").spawn()?;
//! lab.link("h1", "h2", Link::with_delay(Duration::from_millis(40)).loss(0.01))?;
//! lab.cut(&["h1"], &["h2", "h3"], Ways::LeftToRight)?;
//! lab.heal()?;
//! lab.host("h2").kill()?; // everything on it is dead now
//! server.wait()?;
//! lab.host("h2").start()?; // the same address, the same disk
//! # Ok(())
//! # }
//! ```
//!
//! # Hosts
//!
//! With root, a host is a set of namespaces (pid, mount, network, host name, IPC) around an init of
//! its own, with private directories on `/var/lib/welkin` and `/run/welkin` (and on others that are
//! asked for), its own `/proc`, `/sys` and `/dev/shm`, a cgroup in every hierarchy where that works,
//! and one Ethernet device `eth0` with an address of 10.77.0.0/24. The rest of the file system is
//! that of the machine. There is no route out of the lab.
//!
//! | host | means |
//! | --- | --- |
//! | up | its init runs; commands start |
//! | down | nothing of it runs and no frame moves; its directories are kept |
//!
//! | lab | means |
//! | --- | --- |
//! | up | a process holds it; all hosts end when that process does, however it ends |
//! | down | nothing is left but, where they were missing, the two empty directories above |
//! | stale | its process was killed: directories and empty cgroups are left; the next lab that starts, or `lab down`, takes them away |
//!
//! Without root, hosts are loopback addresses (127.77.0.N) with directories of their own; links
//! cannot be changed, and killing a host kills what was started through it. That is said once on
//! standard error, and [`Capabilities`] tells tests. If the process that holds such a lab is killed, its
//! programs go on until the next lab starts.
//!
//! # Network
//!
//! A thread of the process that holds the lab carries every frame, and does to it what the [`Link`]
//! of its direction says. Every neighbour is known from the start, so there is no ARP; a host that is
//! cut off or dead is silent, as it would be far away.
//!
//! A host can be *behind a router* that translates addresses ([`Builder::behind`]): then it has the
//! address 192.168.77.2, as all such hosts, others see that of its router, and nothing reaches it
//! that it has not asked for. A host can *move* ([`Host::move_to`]): its address, or that of its
//! router, is another one from then on.
//!
//! # Limits
//!
//! [`HOSTS_MAX`] hosts; [`DELAY_MAX`] of delay; 64 MiB in flight in each direction between two
//! hosts; before a limited rate, a queue of 100 ms (at least 64 KiB) after a burst of 16 KiB. Frames of
//! one direction never overtake each other. Kernel 5.9 or later on a 64-bit machine.

mod addresses;
mod builder;
mod capabilities;
mod cgroups;
mod clock;
pub mod control;
pub mod daemon;
mod door;
mod errors;
mod fabric;
mod fallback;
mod init;
mod keeper;
mod lab;
mod link;
mod nat;
mod notice;
mod process;
mod rundir;
mod settle;
mod status;
mod switch;
mod tap;
mod wan;

pub use addresses::{HOSTS_MAX, Subnet};
pub use builder::Builder;
pub use capabilities::Capabilities;
pub use errors::{DownError, HostError, NetworkError, StartError};
pub use fabric::Counters;
pub use lab::{Host, Lab, Ways};
pub use link::{DELAY_MAX, Link, LinkChange, parse_duration, parse_rate, parse_share};
pub use nat::Nat;
pub use status::{HostStatus, LinkStatus, Status};
pub use wan::{Wan, WanError};
