//! What a node stores, so that it goes on where it was after a power cut.
//!
//! The disk is a map from `(table, key)` to a value. Values are sealed ([`seal`]): a checksum and the
//! encoding of the type that the table holds. Writes that belong together are one batch
//! and become durable together or not at all.

use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::fact::Availability;
use crate::id::{CloudId, NodeId};

/// Longest value.
pub const VALUE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// What the keys of a value are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Table {
    /// One key, `node`: [`NodeState`].
    Node,
    /// `a` or `r` (admission, removal), the subject, the signer: [`crate::peer::Statement`].
    Statements,
    /// App id: [`crate::peer::AppRecord`].
    Records,
    /// Object id: [`crate::peer::HostedObject`].
    Objects,
    /// Node id: [`crate::fact::NodeFacts`], so that a node alone after a power cut still knows
    /// whom to look for, and where.
    Facts,
    /// Number of a seat: [`crate::tenancy::StoredSeat`].
    Seats,
}

impl Table {
    /// All tables.
    pub const ALL: [Self; 6] = [
        Self::Node,
        Self::Statements,
        Self::Records,
        Self::Objects,
        Self::Facts,
        Self::Seats,
    ];

    /// Its name on disk.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Node => "node",
            Self::Statements => "statements",
            Self::Records => "records",
            Self::Objects => "objects",
            Self::Facts => "facts",
            Self::Seats => "seats",
        }
    }
}

/// What a node knows of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeState {
    /// The cloud it belongs to.
    pub cloud: CloudId,
    /// Itself.
    pub node: NodeId,
    /// No boot counter above this was ever used; see the kernel's membership process.
    pub boot_reserved: u32,
    /// The name people use.
    pub name: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Whether it takes objects.
    pub availability: Availability,
}

/// One change to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    /// Which table.
    pub table: Table,
    /// Which key.
    pub key: Vec<u8>,
    /// The new value; `None` removes it.
    pub value: Option<Vec<u8>>,
}

/// Encodes a value with its checksum (CRC-32/ISO-HDLC, little endian, before the value).
///
/// # Errors
/// [`DecodeError::TooLong`] for what could not be read again; else as [`crate::encode`].
pub fn seal<T: Serialize>(value: &T) -> Result<Vec<u8>, DecodeError> {
    let body = crate::encode(value)?;
    if body.len() > VALUE_BYTES_MAX {
        return Err(DecodeError::TooLong {
            length_bytes: body.len(),
            limit_bytes: VALUE_BYTES_MAX,
        });
    }
    let mut sealed = crc32fast::hash(&body).to_le_bytes().to_vec();
    sealed.extend_from_slice(&body);
    Ok(sealed)
}

/// Checks and decodes a value.
///
/// # Errors
/// [`DecodeError`] when it is damaged or not a `T`; it must then be set aside, never used.
pub fn unseal<'a, T: Deserialize<'a>>(sealed: &'a [u8]) -> Result<T, DecodeError> {
    let Some((checksum, body)) = sealed.split_first_chunk::<4>() else {
        return Err(DecodeError::Malformed("it ends too early"));
    };
    if crc32fast::hash(body).to_le_bytes() != *checksum {
        return Err(DecodeError::Malformed("its checksum does not fit"));
    }
    crate::decode(body, VALUE_BYTES_MAX)
}
