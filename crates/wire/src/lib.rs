//! Every type that crosses a boundary of Welkin, and nothing else.
//!
//! One module per boundary:
//!
//! | module | between |
//! | --- | --- |
//! | [`call`] | a program or a person and the Cloud OS: the system calls |
//! | [`stream`] | the same two, where bytes flow: terminals, logs, files |
//! | [`peer`] | one node's kernel and another's |
//! | [`driver`] | a node and the shims that hold its objects |
//! | [`disk`] | a node and its own past: what is stored |
//!
//! and the words that they share: [`id`], [`spec`], [`fact`], [`health`], [`tenancy`].
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

pub use serde::Serialize;

pub mod call;
pub mod disk;
pub mod driver;
pub mod fact;
pub mod health;
pub mod id;
pub mod peer;
pub mod spec;
pub mod stream;
pub mod tenancy;

/// The version of the protocol between nodes; it is part of the ALPN name (RFC 7301), so nodes
/// that share no version do not connect at all.
pub const PEER_VERSION: u32 = 1;

/// ALPN name of links between members of one cloud.
pub const PEER_ALPN: &[u8] = b"welkin/1";

/// ALPN name on which a node that is not a member yet asks to be admitted.
pub const JOIN_ALPN: &[u8] = b"welkin-join/1";

/// Encodes a value for a peer, a shim or the disk.
///
/// # Errors
/// Never for the types of this crate: they have no maps of unknown length and no borrowed data.
/// The error is kept in the signature because the encoder has one.
pub fn encode<T: Serialize>(value: &T) -> Result<alloc::vec::Vec<u8>, DecodeError> {
    postcard::to_allocvec(value).map_err(|error| DecodeError::Malformed(error_name(&error)))
}

/// Decodes one value that fills `bytes` exactly.
///
/// # Errors
/// [`DecodeError::TooLong`] when `bytes` is longer than `bytes_max`; [`DecodeError::Malformed`]
/// when it is not the encoding of a `T`; [`DecodeError::TrailingBytes`] when something follows it.
pub fn decode<'a, T: serde::Deserialize<'a>>(
    bytes: &'a [u8],
    bytes_max: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeError::TooLong {
            length_bytes: bytes.len(),
            limit_bytes: bytes_max,
        });
    }
    let (value, rest) = postcard::take_from_bytes(bytes)
        .map_err(|error| DecodeError::Malformed(error_name(&error)))?;
    if !rest.is_empty() {
        return Err(DecodeError::TrailingBytes {
            length_bytes: rest.len(),
        });
    }
    Ok(value)
}

fn error_name(error: &postcard::Error) -> &'static str {
    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "the enum of another crate, which may grow"
    )]
    match error {
        postcard::Error::DeserializeUnexpectedEnd => "it ends too early",
        postcard::Error::DeserializeBadUtf8 => "a text is not UTF-8",
        postcard::Error::DeserializeBadVarint => "a number is too large",
        postcard::Error::DeserializeBadEnum => "it has a variant that this version does not know",
        _ => "it is not the encoding of the expected type",
    }
}

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
