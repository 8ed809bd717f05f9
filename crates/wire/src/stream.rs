//! Where bytes flow: the frames of terminals, logs and files.
//!
//! # The conversation
//!
//! ```text
//! caller                                              object (through one or two nodes)
//!   POST /v1/stream, Upgrade: welkin-stream/1  ─────►
//!                                              ◄─────  101 Switching Protocols
//!   Open { object, what }                      ─────►  (opening)
//!                                              ◄─────  Stdout | Stderr | Log | Data …   (open)
//!   Stdin … StdinEnd | Resize | Signal         ─────►
//!                                              ◄─────  Exit | Failure                   (closed)
//! ```
//!
//! The same frames travel on the Unix socket of the node, between two nodes on a QUIC stream, and
//! on the Unix socket of the shim: a node only copies them. After `Exit` or `Failure` the side
//! that sent it closes. A caller that goes away closes the stream; what that means depends on what
//! was opened: an `exec` gets SIGHUP, an attached object goes on.
//!
//! # A frame
//!
//! ```text
//! kind: u8 │ length: u32, big endian │ payload: length bytes (at most 64 KiB)
//! ```
//!
//! Payloads that have structure are JSON, so that a client in any language is an afternoon's
//! work; see `docs/protocols/stream.md`.

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::id::{NodeId, ObjectId};
use crate::spec::Program;

/// Longest payload of a frame.
pub const PAYLOAD_BYTES_MAX: usize = 64 * 1024;
/// Length of what comes before the payload.
pub const HEADER_BYTES: usize = 5;
/// Bytes before the data in a [`Kind::Log`] payload: stream (1), microseconds since 1970 (8, big
/// endian).
pub const LOG_PREFIX_BYTES: usize = 9;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// JSON [`Open`]: the first frame of a caller.
    Open = 0,
    /// Bytes for standard input, or for the terminal.
    Stdin = 1,
    /// Standard input has ended. Empty.
    StdinEnd = 2,
    /// Bytes from standard output, or from the terminal.
    Stdout = 3,
    /// Bytes from standard error.
    Stderr = 4,
    /// The caller's terminal changed: rows, columns, each u16 big endian.
    Resize = 5,
    /// A signal for the program: one byte, its number.
    Signal = 6,
    /// JSON [`crate::fact::ExitReason`]: the last frame of a stream that went well.
    Exit = 7,
    /// JSON [`crate::call::Problem`]: the last frame of a stream that did not.
    Failure = 8,
    /// One piece of a log: stream (1 stdout, 2 stderr), time, bytes.
    Log = 9,
    /// A piece of a tar archive (POSIX.1-2001 ustar or pax).
    Data = 10,
    /// The archive is complete. Empty.
    DataEnd = 11,
    /// JSON [`crate::call::Event`].
    Event = 12,
    /// Postcard [`crate::driver::ShimRequest`]; only between a node and its shims.
    ShimRequest = 13,
    /// Postcard [`crate::driver::ShimReport`]; only between a node and its shims.
    ShimReport = 14,
}

impl TryFrom<u8> for Kind {
    type Error = DecodeError;
    fn try_from(kind: u8) -> Result<Self, DecodeError> {
        const KINDS: [Kind; 15] = [
            Kind::Open,
            Kind::Stdin,
            Kind::StdinEnd,
            Kind::Stdout,
            Kind::Stderr,
            Kind::Resize,
            Kind::Signal,
            Kind::Exit,
            Kind::Failure,
            Kind::Log,
            Kind::Data,
            Kind::DataEnd,
            Kind::Event,
            Kind::ShimRequest,
            Kind::ShimReport,
        ];
        KINDS
            .get(usize::from(kind))
            .copied()
            .ok_or(DecodeError::Malformed("no such kind of frame"))
    }
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: Kind,
    /// At most [`PAYLOAD_BYTES_MAX`].
    pub payload: Vec<u8>,
}

/// What is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Open {
    /// The node that hosts it, as `app/locate` said.
    pub node: NodeId,
    /// The object; all zeros for [`What::Events`].
    pub object: ObjectId,
    /// What is wanted from it.
    pub what: What,
}

/// What is wanted from an object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// Its output as it comes (`Stdout`, `Stderr`), its input, its exit.
    Attach {
        /// Send `Stdin` to the program; one caller at a time.
        stdin: bool,
        /// Begin with everything that is still in the log.
        replay: bool,
    },
    /// What its log holds (`Log`), then `Exit` or, when following, what comes.
    Logs {
        /// Go on until the object has ended.
        follow: bool,
        /// Only the last so many lines.
        tail_lines: Option<u64>,
        /// Only what is not older than this: milliseconds since 1970.
        since_ms: Option<u64>,
    },
    /// One more program inside it.
    Exec {
        /// What to run.
        program: Program,
    },
    /// One more program inside it, which nothing of may outlive its caller: a health check.
    Probe {
        /// What to run.
        program: Program,
    },
    /// A file or directory of it, as a tar archive (`Data`).
    Read {
        /// Absolute path inside the object.
        path: String,
    },
    /// A tar archive (`Data`, `DataEnd`) to be unpacked inside it.
    Write {
        /// Absolute path of the directory, inside the object, to unpack in.
        path: String,
    },
    /// What happened on the node (`Event`).
    Events {
        /// Go on until the caller leaves.
        follow: bool,
        /// Only what is not older than this: milliseconds since 1970.
        since_ms: Option<u64>,
    },
}

impl Frame {
    /// A frame of these bytes; what is beyond [`PAYLOAD_BYTES_MAX`] must go into the next one.
    #[must_use]
    pub fn new(kind: Kind, payload: &[u8]) -> Self {
        let length = payload.len().min(PAYLOAD_BYTES_MAX);
        Self {
            kind,
            payload: payload.get(..length).unwrap_or(payload).to_vec(),
        }
    }

    /// Appends the encoding to `bytes`.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        let length = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        bytes.push(self.kind as u8);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
    }

    /// Splits one frame from the front of `bytes`: the frame and how many bytes it took, or
    /// `None` while it is not complete.
    ///
    /// # Errors
    /// [`DecodeError`] when the kind is unknown or the length beyond the limit; the stream cannot
    /// be read on.
    pub fn decode(bytes: &[u8]) -> Result<Option<(Self, usize)>, DecodeError> {
        let Some((header, rest)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let (kind, length_bytes) = decode_header(*header)?;
        let Some(payload) = rest.get(..length_bytes) else {
            return Ok(None);
        };
        let taken = HEADER_BYTES.saturating_add(length_bytes);
        Ok(Some((
            Self {
                kind,
                payload: payload.to_vec(),
            },
            taken,
        )))
    }
}

/// Reads what comes before a payload: the kind and the payload's length.
///
/// # Errors
/// [`DecodeError`] when the kind is unknown or the length beyond [`PAYLOAD_BYTES_MAX`].
pub fn decode_header(header: [u8; HEADER_BYTES]) -> Result<(Kind, usize), DecodeError> {
    let [kind, a, b, c, d] = header;
    let kind = Kind::try_from(kind)?;
    let length_bytes = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
    if length_bytes > PAYLOAD_BYTES_MAX {
        return Err(DecodeError::TooLong {
            length_bytes,
            limit_bytes: PAYLOAD_BYTES_MAX,
        });
    }
    Ok((kind, length_bytes))
}
