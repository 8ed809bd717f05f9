//! Packets that are longer than what carries them: cut in two, and put together again.
//!
//! A QUIC handshake needs packets of 1,200 bytes (RFC 9000, section 14.1), and a line over a path
//! that carries no more than that cannot hold one whole. Longer packets are never needed: one that
//! does not fit is dropped, and the link finds out what fits.

use std::collections::VecDeque;

use wire::id::NodeId;
use wire::relay::{FRAME_BYTES, Part};

/// Packets up to this length are carried, whatever fits.
const NEEDED_BYTES: usize = 1_200;
/// Halves of one line that wait for the other half; beyond, the oldest is dropped.
const WAITING_MAX: usize = 64;

/// The parts of a packet that fit into datagrams of `room` bytes; none when it does not need to
/// be carried.
pub(super) fn cut(packet: &[u8], room: usize, number: u32) -> Vec<(Part, &[u8])> {
    if packet.len() + FRAME_BYTES <= room {
        return Vec::from([(Part::Whole, packet)]);
    }
    if packet.len() > NEEDED_BYTES {
        return Vec::new();
    }
    let (first, second) = packet.split_at(packet.len() / 2);
    Vec::from([(Part::First(number), first), (Part::Second(number), second)])
}

/// Halves that have come on one line.
#[derive(Debug, Default)]
pub(super) struct Halves {
    waiting: VecDeque<(NodeId, Part, Vec<u8>)>,
}

impl Halves {
    /// A part has come: the packet, when it is whole now.
    pub(super) fn join(&mut self, of: NodeId, part: Part, bytes: &[u8]) -> Option<Vec<u8>> {
        let other = match part {
            Part::Whole => return Some(bytes.to_vec()),
            Part::First(number) => Part::Second(number),
            Part::Second(number) => Part::First(number),
        };
        let mut waiting = self.waiting.iter();
        let found = waiting.position(|(node, part, _)| (*node, *part) == (of, other));
        let Some((_, _, kept)) = found.and_then(|at| self.waiting.remove(at)) else {
            if self.waiting.len() == WAITING_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back((of, part, bytes.to_vec()));
            return None;
        };
        Some(match part {
            Part::First(_) => [bytes, &kept].concat(),
            Part::Second(_) | Part::Whole => [kept.as_slice(), bytes].concat(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: NodeId = NodeId([3; 32]);

    #[test]
    fn a_packet_that_fits_stays_whole_and_one_that_nobody_needs_is_dropped() {
        let packet = vec![7; 1_400];
        assert_eq!(cut(&packet, 1_434, 1), [(Part::Whole, packet.as_slice())]);
        assert_eq!(cut(&packet, 1_433, 1), []);
    }

    #[test]
    fn halves_make_the_packet_again_in_any_order() {
        let packet: Vec<u8> = (0..1_199)
            .map(|at| u8::try_from(at % 251).unwrap())
            .collect();
        let parts = cut(&packet, 1_160, 9);
        assert_eq!(parts.len(), 2);
        for order in [[0, 1], [1, 0]] {
            let mut halves = Halves::default();
            let mut whole = None;
            for index in order {
                let (part, bytes) = parts[index];
                assert_eq!(whole, None);
                whole = halves.join(OF, part, bytes);
            }
            assert_eq!(whole.as_ref(), Some(&packet));
        }
    }

    #[test]
    fn halves_of_different_packets_and_senders_are_not_put_together() {
        let mut halves = Halves::default();
        assert_eq!(halves.join(OF, Part::First(1), b"a"), None);
        assert_eq!(halves.join(OF, Part::Second(2), b"b"), None);
        assert_eq!(halves.join(NodeId([4; 32]), Part::Second(1), b"c"), None);
        for number in 10..10 + u32::try_from(WAITING_MAX).unwrap() {
            assert_eq!(halves.join(OF, Part::First(number), b"x"), None);
        }
        assert_eq!(halves.join(OF, Part::Second(1), b"d"), None, "forgotten");
    }
}
