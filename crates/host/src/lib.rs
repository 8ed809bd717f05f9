//! The real world for one kernel: clock, links, disk, shims, system calls.
//!
//! | module | is |
//! | --- | --- |
//! | [`daemon`] | a running node: all of this put together, and the loop |
//! | [`home`] | its state directory |
//! | [`mod@join`] | how it comes into a cloud |
//! | `links` | datagrams, messages and streams between members |
//! | `disk` | what survives a power cut |
//! | `shims` | the objects on this machine |
//! | `server`, `api`, `calls` | system calls over the Unix socket |
//! | `streams`, `frames` | terminals, logs and files |
//! | `events`, `metrics`, [`doctor`] | what people want to know |
//! | `measure`, `addresses`, `clock`, `notify` | the machine |
//!
//! What it is not: it decides nothing. Whatever involves a choice is an output of the kernel.

mod addresses;
mod api;
mod calls;
mod clock;
pub mod daemon;
mod disk;
pub mod doctor;
mod events;
mod frames;
pub mod home;
pub mod join;
mod links;
mod measure;
mod metrics;
mod notify;
mod probes;
mod server;
mod shims;
mod streams;

pub use daemon::{Host, Options, Ready, ServeError, run, serve};
pub use disk::DiskError;
pub use home::{Home, HomeError, default_state_dir, socket_path};
pub use join::{JoinError, found, join};
pub use links::BindError;
