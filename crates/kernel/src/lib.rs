//! The kernel of Welkin: one state machine, made of the kernel processes, that every node runs.
//!
//! What it is not: it does no IO, reads no clock, makes no randomness of its own, and knows
//! neither HTTP nor JSON. A world ([`world`]) drives it:
//!
//! ```text
//! loop {
//!     kernel.handle(now, input)          what happened
//!     while let Some(output) = kernel.poll_output() { carry it out }
//!     sleep until kernel.poll_timeout() or the next input; then kernel.handle_timeout(now)
//! }
//! ```
//!
//! Inside, the shape is a star: the kernel processes ([`auth`], [`membership`], [`measurement`],
//! [`directory`], [`placement`], [`lease`], [`objects`], [`supervisor`], [`order`], [`register`], [`tenure`]) never name each other;
//! only the hub and the [`calls`] see two at once.
#![no_std]

extern crate alloc;

pub mod alarm;
mod auth;
mod calls;
mod directory;
mod health;
mod hub;
pub mod instant;
mod lease;
pub mod limits;
mod measurement;
mod membership;
mod objects;
mod order;
mod outbox;
mod pacing;
mod patience;
mod placement;
mod questions;
mod register;
mod relaying;
mod schedule;
mod supervisor;
mod tenure;
mod twice;
pub mod world;

pub use hub::Kernel;
