//! How values become bytes: between nodes, on disk, and to shims.
//!
//! A form for two programs of which one is older. A struct says how long it is, so an older reader
//! leaves out the fields that it does not know, and a newer one takes the default for fields that
//! are not there. So a struct may grow at its **end**, by fields with `#[serde(default)]`, and
//! nothing else about it may change. All else is positional and as small as it gets, like postcard,
//! whose structs cannot grow; postbag, whose can, needs the standard library.
//!
//! ```text
//! u8, bool           one byte
//! u16, u32, u64      varint: seven bits a byte, lowest first; the high bit says that more follow
//! i16, i32, i64      zigzag (0, −1, 1, −2 … are 0, 1, 2, 3 …), then as above; i8 is one byte
//! text, bytes        varint length, then the bytes
//! list, map          varint count, then the elements; a map's in order of its keys
//! optional           00, or 01 and the value
//! tuple, newtype     the elements, nothing between
//! struct             varint length of all that follows, then the fields in order
//! enum               varint number of the variant from 0, then its value; named fields as a struct
//! ```
//!
//! What it is not: self-describing. Numbers of 128 bits or with a point, and single
//! characters, have no form, because nothing here has any; a type that asks for one is refused.
//!
//! # Limits
//!
//! A reader never allocates more than the bytes that it was given allow for: a count beyond the
//! bytes that are left is refused. How deep values nest is bounded by their types, none of which
//! holds itself.

use alloc::vec::Vec;
use core::fmt::{self, Display};

use serde::{Serialize, de, ser};

use crate::DecodeError;

mod reader;
mod writer;

/// Encodes a value for a peer, a shim or the disk.
///
/// # Errors
/// [`DecodeError::Malformed`] for a type that has no form; none of this crate.
pub fn encode<T: Serialize>(value: &T) -> Result<Vec<u8>, DecodeError> {
    let mut writer = writer::Writer::default();
    value.serialize(&mut writer)?;
    Ok(writer.bytes)
}

/// Decodes one value that fills `bytes` exactly.
///
/// # Errors
/// [`DecodeError::TooLong`] when `bytes` is longer than `bytes_max`; [`DecodeError::Malformed`]
/// when it is not the encoding of a `T`; [`DecodeError::TrailingBytes`] when something follows it.
pub fn decode<'a, T: de::Deserialize<'a>>(
    bytes: &'a [u8],
    bytes_max: usize,
) -> Result<T, DecodeError> {
    if bytes.len() > bytes_max {
        return Err(DecodeError::TooLong {
            length_bytes: bytes.len(),
            limit_bytes: bytes_max,
        });
    }
    let mut reader = reader::Reader { rest: bytes };
    let value = T::deserialize(&mut reader)?;
    if !reader.rest.is_empty() {
        return Err(DecodeError::TrailingBytes {
            length_bytes: reader.rest.len(),
        });
    }
    Ok(value)
}

/// What is wrong with bytes or with a type, without a word of its own for each: who reads it needs
/// to know that a peer or a disk is at fault, not which field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Fault(&'static str);

impl Fault {
    const END: Self = Self("it ends too early");
    const NUMBER: Self = Self("a number is too large");
    const TEXT: Self = Self("a text is not UTF-8");
    const COUNT: Self = Self("it claims more elements than it has bytes");
    const CHOICE: Self = Self("it has a variant that this version does not know");
    const FORM: Self = Self("it is not the encoding of the expected type");
    const FORMLESS: Self = Self("its type has no encoding");
}

impl From<Fault> for DecodeError {
    fn from(Fault(what): Fault) -> Self {
        Self::Malformed(what)
    }
}

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl core::error::Error for Fault {}

impl ser::Error for Fault {
    fn custom<T: Display>(_message: T) -> Self {
        Self::FORMLESS
    }
}

impl de::Error for Fault {
    fn custom<T: Display>(_message: T) -> Self {
        Self::FORM
    }
    fn invalid_value(_value: de::Unexpected<'_>, _expected: &dyn de::Expected) -> Self {
        Self::CHOICE
    }
}

#[cfg(test)]
mod tests;
