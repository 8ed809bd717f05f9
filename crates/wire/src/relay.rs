//! Between a member and a relay: packets of links between members that cannot reach each other.
//!
//! A *line* is the connection on which they travel, [`crate::RELAY_ALPN`]. It carries frames, one in
//! a datagram, and begins with one [`LineWelcome`].
//!
//! ```text
//! offset  bytes  is
//!      0      1  direction: 0 to the relay, for NODE; 1 from the relay, of NODE
//!      1      1  part: 0 a whole packet, 1 its first half, 2 its second half
//!      2     32  NODE
//!     34      4  of a half: the number of the packet, big endian
//!   then   rest  bytes of the packet
//! ```

use alloc::string::String;
use alloc::vec::Vec;

use serde::{Deserialize, Serialize};

use crate::DecodeError;
use crate::id::NodeId;

/// Longest encoding of a [`LineWelcome`].
pub const WELCOME_BYTES_MAX: usize = 128;
/// Bytes of a frame before the packet, when it is whole.
pub const FRAME_BYTES: usize = 34;
/// The same before a half.
pub const HALF_FRAME_BYTES: usize = 38;
/// Most relays by which a node says that it is reached.
pub const RELAYS_MAX: usize = 4;

/// The first that the relay says on a line: a unidirectional stream with this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LineWelcome {
    /// Where the relay sees the other end, `ip:port`.
    pub seen: String,
    /// Whether it carries what others send; if not, the line is good for `seen` alone.
    pub carries: bool,
}

/// Which way a frame goes. What comes from a relay is never given to a relay again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// To the relay, for the node of the frame.
    To,
    /// From the relay, of the node of the frame.
    From,
}

/// Which part of a packet a frame carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of it.
    Whole,
    /// The first half of the packet of this number.
    First(u32),
    /// Its second half.
    Second(u32),
}

/// A frame, borrowed from the datagram that it came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Which way it goes.
    pub direction: Direction,
    /// Whom it is for, or of whom it is.
    pub node: NodeId,
    /// Which part of the packet it carries.
    pub part: Part,
    /// That part.
    pub bytes: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads what came in a datagram.
    ///
    /// # Errors
    /// [`DecodeError::Malformed`].
    pub fn parse(datagram: &'a [u8]) -> Result<Self, DecodeError> {
        let short = DecodeError::Malformed("a frame ends too early");
        let (&[direction, part], rest) = datagram.split_first_chunk().ok_or(short)?;
        let (node, rest) = rest.split_first_chunk().ok_or(short)?;
        let number = || {
            let (number, rest) = rest.split_first_chunk().ok_or(short)?;
            Ok::<_, DecodeError>((u32::from_be_bytes(*number), rest))
        };
        let (part, bytes) = match part {
            0 => (Part::Whole, rest),
            1 => number().map(|(number, rest)| (Part::First(number), rest))?,
            2 => number().map(|(number, rest)| (Part::Second(number), rest))?,
            _ => return Err(DecodeError::Malformed("a frame has an unknown part")),
        };
        let direction = match direction {
            0 => Direction::To,
            1 => Direction::From,
            _ => return Err(DecodeError::Malformed("a frame goes nowhere")),
        };
        Ok(Self {
            direction,
            node: NodeId(*node),
            part,
            bytes,
        })
    }

    /// The datagram that carries it.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let (part, number) = match self.part {
            Part::Whole => (0, None),
            Part::First(number) => (1, Some(number)),
            Part::Second(number) => (2, Some(number)),
        };
        let direction = match self.direction {
            Direction::To => 0,
            Direction::From => 1,
        };
        let mut datagram = Vec::with_capacity(HALF_FRAME_BYTES.saturating_add(self.bytes.len()));
        datagram.extend([direction, part]);
        datagram.extend(self.node.0);
        if let Some(number) = number {
            datagram.extend(number.to_be_bytes());
        }
        datagram.extend(self.bytes);
        datagram
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_written() {
        for part in [Part::Whole, Part::First(7), Part::Second(u32::MAX)] {
            for direction in [Direction::To, Direction::From] {
                let frame = Frame {
                    direction,
                    node: NodeId([3; 32]),
                    part,
                    bytes: b"packet",
                };
                assert_eq!(Frame::parse(&frame.encode()), Ok(frame));
            }
        }
    }

    #[test]
    fn a_frame_that_is_none_is_refused() {
        let whole = Frame {
            direction: Direction::To,
            node: NodeId([3; 32]),
            part: Part::First(7),
            bytes: b"",
        }
        .encode();
        for length in 0..whole.len() {
            assert!(Frame::parse(&whole[..length]).is_err(), "{length}");
        }
        for (at, byte) in [(0, 2), (1, 3)] {
            let mut odd = whole.clone();
            odd[at] = byte;
            assert!(Frame::parse(&odd).is_err());
        }
    }
}
