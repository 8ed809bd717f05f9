//! A made-up world for thousands of kernels.
//!
//! It runs the same [`kernel::Kernel`] as a real machine does, on a clock, a network, disks and
//! programs that it makes up from one seed. So a run that fails can be run again, exactly, from a
//! number.
//!
//! What it is not: part of the product. Nothing that ships needs it.
//!
//! | module | is |
//! | --- | --- |
//! | [`world`] | machines, the network between them, time |
//! | [`latency`] | how far places are from each other: measured matrices, or cities |
//! | [`invariants`] | what must always hold, one file each |
//! | [`scenario`] | stories of whole clouds, in `scenarios/` |
//! | [`swarm`] | random clouds, calls and faults; safety first, then healing |
//! | [`figures`] | what large clouds take: time, bytes, errors |
//! | [`journal`] | what kernels said happened |

mod disk;
mod driver;
pub mod figures;
pub mod invariants;
pub mod journal;
pub mod latency;
pub mod network;
mod queue;
pub mod scenario;
pub mod swarm;
pub mod world;
