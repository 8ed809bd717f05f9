//! Names that nobody has to agree on: ids, versions, times.
//!
//! In text (JSON, tables, command lines) an id is lower-case hexadecimal; between nodes and on
//! disk it is its bytes. Any prefix of at least [`PREFIX_CHARACTERS_MIN`] characters that fits
//! only one id may stand for it.

#[cfg(feature = "schema")]
use alloc::format;
use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use data_encoding::HEXLOWER;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};

/// The fewest characters of an id that may stand for it.
pub const PREFIX_CHARACTERS_MIN: usize = 2;

/// The text is not an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdError {
    /// How many hexadecimal digits an id of this kind has.
    pub digits: usize,
}

impl fmt::Display for IdError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "expected {} hexadecimal digits", self.digits)
    }
}

impl core::error::Error for IdError {}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, short = $short:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// The first characters of the text form: enough for a table.
            #[must_use]
            pub fn short(&self) -> String {
                let mut text = self.to_string();
                text.truncate($short);
                text
            }

            /// Whether the text form begins with `prefix`.
            #[must_use]
            pub fn has_prefix(&self, prefix: &str) -> bool {
                prefix.len() >= PREFIX_CHARACTERS_MIN && self.to_string().starts_with(prefix)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}({})", stringify!($name), self.short())
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let wrong = IdError { digits: $bytes * 2 };
                let bytes = HEXLOWER.decode(text.as_bytes()).map_err(|_not_hex| wrong)?;
                Ok(Self(bytes.try_into().map_err(|_length| wrong)?))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.serialize_str(&HEXLOWER.encode(&self.0))
                } else {
                    self.0.as_slice().serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
                } else {
                    let bytes = <&[u8]>::deserialize(deserializer)?;
                    let wrong = |_length| de::Error::invalid_length(bytes.len(), &"an id");
                    Ok(Self(bytes.try_into().map_err(wrong)?))
                }
            }
        }

        #[cfg(feature = "schema")]
        impl schemars::JsonSchema for $name {
            fn schema_name() -> alloc::borrow::Cow<'static, str> {
                stringify!($name).into()
            }
            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({
                    "type": "string",
                    "pattern": format!("^[0-9a-f]{{{}}}$", $bytes * 2),
                })
            }
        }
    };
}

id!(
    /// A machine that runs `welkin`: its ed25519 public key.
    NodeId, 32, short = 10
);
id!(
    /// A cloud: the ed25519 public key that every admission chains to.
    CloudId, 32, short = 10
);
id!(
    /// A cloud object: 128 random bits.
    ObjectId, 16, short = 12
);
id!(
    /// An app: made from its name, so that every node finds its guardians without asking.
    AppId, 16, short = 12
);
id!(
    /// A ticket: 128 random bits.
    TicketId, 16, short = 12
);

impl NodeId {
    /// Eight bytes of the key, for packets that carry many members. Two nodes of one cloud with
    /// the same short id cannot both be admitted.
    #[must_use]
    pub fn short_id(&self) -> u64 {
        let [a, b, c, d, e, f, g, h, ..] = self.0;
        u64::from_be_bytes([a, b, c, d, e, f, g, h])
    }
}

impl AppId {
    /// The id of the app called `name`.
    #[must_use]
    pub fn of_name(name: &str) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(b"welkin/1/app\0");
        hasher.update(name.as_bytes());
        let digest: [u8; 32] = hasher.finalize().into();
        let mut id = [0; 16];
        id.iter_mut().zip(digest).for_each(|(to, from)| *to = from);
        Self(id)
    }
}

/// Wall-clock time in milliseconds since 1970-01-01 UTC. For people and for ordering by
/// [`Version`] only: but for schedules, which people wish by it, no timer depends on it, so a clock
/// that jumps breaks nothing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct UnixMillis(pub u64);

/// A hybrid logical clock reading (Kulkarni et al. 2014): later writes have larger versions even
/// when wall clocks disagree, and no two nodes ever make the same one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize,
)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    /// The largest wall-clock time seen, in milliseconds.
    pub millis: u64,
    /// Distinguishes writes within that millisecond.
    pub counter: u32,
    /// Short id of the node that wrote: breaks ties.
    pub node: u64,
}
