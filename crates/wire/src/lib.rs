//! Every type that crosses a boundary of Welkin, and nothing else.
//!
//! One module per boundary:
//!
//! | module | between |
//! | --- | --- |
//! | [`call`] | a program or a person and the Cloud OS: the system calls |
//! | [`stream`] | the same two, where bytes flow: terminals, logs, files |
//! | [`peer`] | one node's kernel and another's |
//! | [`relay`] | a member and the one that carries its packets to others |
//! | [`driver`] | a node and the shims that hold its objects |
//! | [`disk`] | a node and its own past: what is stored |
//!
//! and the words that they share: [`id`], [`spec`], [`fact`], [`health`], [`job`],
//! [`tenancy`].
//!
//! What this crate is not: it decides nothing and does no IO. It is the only place that derives
//! `Serialize`. Every decoder here is bounded: it refuses what is too long before it allocates,
//! and never panics whatever the bytes are.
#![no_std]
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::expect_used
    )
)]

extern crate alloc;

pub use codec::{decode, encode};
pub use serde::Serialize;

pub mod call;
mod codec;
pub mod disk;
pub mod driver;
pub mod fact;
pub mod health;
pub mod id;
pub mod job;
pub mod peer;
pub mod relay;
pub mod spec;
pub mod stream;
pub mod tenancy;

/// The version of the protocol between nodes; it is part of the ALPN name (RFC 7301), so nodes
/// that share no version do not connect at all.
pub const PEER_VERSION: u32 = 1;

/// What this program knows to say within that version. An older one leaves out fields that it does
/// not know, and refuses variants; so what would be misunderstood is said only where all know it.
///
/// | level | knows |
/// | --- | --- |
/// | 1 | the first |
/// | 2 | start order: [`spec::AppSpec::after`], [`peer::Ask::Standing`]; schedules: [`job`]; deadlines: [`spec::AppSpec::deadline_ms`] |
pub const LEVEL: u32 = 2;

/// ALPN name of links between members of one cloud.
pub const PEER_ALPN: &[u8] = b"welkin/1";

/// ALPN name on which a node that is not a member yet asks to be admitted.
pub const JOIN_ALPN: &[u8] = b"welkin-join/1";

/// ALPN name of lines between a member and one that relays for it.
pub const RELAY_ALPN: &[u8] = b"welkin-relay/1";

/// Why bytes from outside were refused. Nothing was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DecodeError {
    /// Longer than this boundary allows.
    TooLong {
        /// What arrived.
        length_bytes: usize,
        /// What is allowed.
        limit_bytes: usize,
    },
    /// Not the encoding of the expected type; the text says what is wrong.
    Malformed(&'static str),
    /// A whole value and then something more.
    TrailingBytes {
        /// How much more.
        length_bytes: usize,
    },
}

impl core::fmt::Display for DecodeError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            Self::TooLong {
                length_bytes,
                limit_bytes,
            } => {
                write!(
                    f,
                    "{length_bytes} bytes where at most {limit_bytes} are allowed"
                )
            }
            Self::Malformed(why) => write!(f, "cannot be decoded: {why}"),
            Self::TrailingBytes { length_bytes } => {
                write!(f, "{length_bytes} bytes follow the end of the value")
            }
        }
    }
}

impl core::error::Error for DecodeError {}
