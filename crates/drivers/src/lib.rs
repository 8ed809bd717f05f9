//! What runs objects on one machine: the exec driver and the shim.
//!
//! A node starts one [`shim`] per object and talks to it over a Unix socket; the words are in
//! [`wire::driver`] and [`wire::stream`]. The shim makes the object's namespaces, control groups
//! and root, runs its program there, keeps its log and says how it ended. It outlives the node's
//! daemon: killing, restarting or upgrading the daemon touches no object.
//!
//! | module | is |
//! | --- | --- |
//! | [`exec`] | what the node calls: launch, scan, connect, remove, probe |
//! | [`shim`] | the process that holds one object |
//! | [`log`] | the object's output on disk |
//!
//! What this crate is not: it knows nothing of clouds, placement or restarts, and it runs no
//! thread and no asynchronous task. It is one of the two crates where `unsafe` may appear, and
//! keeps it in one module of thin system-call wrappers.

mod cgroup;
mod clock;
mod directory;
pub mod exec;
pub mod limits;
pub mod log;
mod probe;
mod sandbox;
pub mod shim;
mod sys;
mod tree;
