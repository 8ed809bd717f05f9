//! A router between a host and the WAN that translates addresses, as a pure machine: it rewrites
//! frames, owns no socket and reads no clock. It is not a firewall of its own: what comes from
//! outside passes only where the host has sent something before, which is what such routers do.
//!
//! - `outward` is given what the host sends, `inward` what is sent to its outer address; both return
//!   the frame as it goes on, or nothing.
//!
//! Translated are UDP and TCP over IPv4; everything else ends here. There are two kinds (RFC 4787):
//!
//! | kind | a port outside is kept for | lets in |
//! | --- | --- | --- |
//! | [`Nat::Cone`] | the port inside | from where the host has sent to; holes can be punched |
//! | [`Nat::Symmetric`] | the port inside and one destination | the same; holes cannot be punched |

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::fabric::{Nanoseconds, ethernet_address};

/// The address of every host that is behind a router: they know nothing of each other.
pub(crate) const INNER: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 2);
/// The router's own address on that side.
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 168, 77, 1);
/// Its Ethernet address there.
pub(crate) const GATEWAY_ETHERNET: [u8; 6] = [0x02, 0x77, 0x6c, 0x61, 0xff, 0xfe];
/// A port outside is free again when nothing was sent for so long.
const IDLE: Duration = Duration::from_secs(60);
/// The first port outside.
const FIRST_PORT: u16 = 30_000;

const ETHERNET_BYTES: usize = 14;
const ADDRESS_BYTES: usize = 4;
const SOURCE: usize = ETHERNET_BYTES + 12;
const TARGET: usize = SOURCE + ADDRESS_BYTES;

/// What kind of router a host is behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Nat {
    /// One port outside for each port inside, as most routers at home do.
    Cone,
    /// One port outside for each destination, as many carriers do.
    Symmetric,
}

/// The router of one host.
#[derive(Debug)]
pub(crate) struct Router {
    kind: Nat,
    outer: Ipv4Addr,
    next_port: u16,
    /// By protocol and port outside.
    mappings: BTreeMap<(u8, u16), Mapping>,
}

#[derive(Debug)]
struct Mapping {
    inner: SocketAddrV4,
    /// The only destination, of a symmetric one.
    only: Option<SocketAddrV4>,
    /// Where something was sent to, and when last.
    sent: BTreeMap<SocketAddrV4, Nanoseconds>,
}

impl Router {
    pub(crate) fn new(kind: Nat, outer: Ipv4Addr) -> Self {
        Self {
            kind,
            outer,
            next_port: FIRST_PORT,
            mappings: BTreeMap::new(),
        }
    }

    /// The router has another address outside, and has forgotten all.
    pub(crate) fn move_to(&mut self, outer: Ipv4Addr) {
        self.outer = outer;
        self.mappings.clear();
    }

    /// What the host sends, as the WAN sees it. `find` knows which host is at an address.
    pub(crate) fn outward(
        &mut self,
        now: Nanoseconds,
        frame: &[u8],
        find: impl FnOnce(Ipv4Addr) -> Option<usize>,
    ) -> Option<Vec<u8>> {
        let packet = Packet::parse(frame)?;
        let to = ethernet_address(find(*packet.target.ip())?);
        let port = self.port_for(now, &packet);
        let mapping = self.mappings.get_mut(&(packet.protocol, port))?;
        mapping.sent.insert(packet.target, now);
        let mut frame = packet.rewritten(SOURCE, SocketAddrV4::new(self.outer, port));
        frame[..6].copy_from_slice(&to);
        Some(frame)
    }

    /// What was sent to the outer address, as the host sees it.
    pub(crate) fn inward(
        &self,
        now: Nanoseconds,
        frame: &[u8],
        ethernet: [u8; 6],
    ) -> Option<Vec<u8>> {
        let packet = Packet::parse(frame)?;
        if *packet.target.ip() != self.outer {
            return None;
        }
        let mapping = self
            .mappings
            .get(&(packet.protocol, packet.target.port()))?;
        let sent = *mapping.sent.get(&packet.source)?;
        if is_idle(now, sent) {
            return None;
        }
        let mut frame = packet.rewritten(TARGET, mapping.inner);
        frame[..6].copy_from_slice(&ethernet);
        frame[6..12].copy_from_slice(&GATEWAY_ETHERNET);
        Some(frame)
    }

    fn port_for(&mut self, now: Nanoseconds, packet: &Packet<'_>) -> u16 {
        self.mappings.retain(|_, mapping| {
            mapping.sent.retain(|_, sent| !is_idle(now, *sent));
            !mapping.sent.is_empty()
        });
        let only = (self.kind == Nat::Symmetric).then_some(packet.target);
        let kept = self.mappings.iter().find(|((protocol, _), mapping)| {
            *protocol == packet.protocol && mapping.inner == packet.source && mapping.only == only
        });
        if let Some(((_, port), _)) = kept {
            return *port;
        }
        let port = self.next_port;
        self.next_port = port.checked_add(1).unwrap_or(FIRST_PORT);
        let mapping = Mapping {
            inner: packet.source,
            only,
            sent: BTreeMap::new(),
        };
        self.mappings.insert((packet.protocol, port), mapping);
        port
    }
}

fn is_idle(now: Nanoseconds, sent: Nanoseconds) -> bool {
    u128::from(now.saturating_sub(sent)) > IDLE.as_nanos()
}

/// A whole UDP or TCP packet over IPv4 without options, in its frame.
#[derive(Debug)]
struct Packet<'a> {
    frame: &'a [u8],
    protocol: u8,
    source: SocketAddrV4,
    target: SocketAddrV4,
    /// Where its ports begin.
    ports: usize,
    /// Where its checksum is.
    checksum: usize,
}

impl<'a> Packet<'a> {
    const UDP: u8 = 17;
    const TCP: u8 = 6;

    fn parse(frame: &'a [u8]) -> Option<Self> {
        if frame.get(12..14)? != [0x08, 0x00] || frame.get(14)? >> 4 != 4 {
            return None;
        }
        let protocol = *frame.get(ETHERNET_BYTES + 9)?;
        let ports = ETHERNET_BYTES + usize::from(frame[14] & 0x0f) * 4;
        let checksum = match protocol {
            Self::UDP => ports + 6,
            Self::TCP => ports + 16,
            _ => return None,
        };
        // A fragment but the first has no ports.
        let fragment = u16::from_be_bytes([frame[20], frame[21]]) & 0x1fff;
        if fragment != 0 || frame.len() < checksum + 2 {
            return None;
        }
        let end = |address: usize, port: usize| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|byte| frame[address + byte]);
            let port = u16::from_be_bytes([frame[port], frame[port + 1]]);
            SocketAddrV4::new(Ipv4Addr::new(a, b, c, d), port)
        };
        Some(Self {
            frame,
            protocol,
            source: end(SOURCE, ports),
            target: end(TARGET, ports + 2),
            ports,
            checksum,
        })
    }

    /// The frame with one end of the packet replaced.
    fn rewritten(&self, address: usize, end: SocketAddrV4) -> Vec<u8> {
        let mut frame = self.frame.to_vec();
        let port = self.ports + if address == SOURCE { 0 } else { 2 };
        let mut sums = Vec::from([(ETHERNET_BYTES + 10, false)]);
        // A UDP packet may have no checksum (RFC 768).
        if self.protocol == Self::TCP || frame[self.checksum..self.checksum + 2] != [0, 0] {
            sums.push((self.checksum, true));
        }
        let old_address = [0, 1, 2, 3].map(|byte| frame[address + byte]);
        let old_port = [frame[port], frame[port + 1]];
        let (new_address, new_port) = (end.ip().octets(), end.port().to_be_bytes());
        for (at, has_ports) in sums {
            let mut sum = u16::from_be_bytes([frame[at], frame[at + 1]]);
            for half in [0, 2] {
                let old = [old_address[half], old_address[half + 1]];
                let new = [new_address[half], new_address[half + 1]];
                sum = adjusted(sum, old, new);
            }
            if has_ports {
                sum = adjusted(sum, old_port, new_port);
            }
            frame[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        }
        frame[address..address + ADDRESS_BYTES].copy_from_slice(&new_address);
        frame[port..port + 2].copy_from_slice(&new_port);
        frame
    }
}

/// A checksum after two bytes of what it covers have changed (RFC 1624, equation 3).
fn adjusted(checksum: u16, old: [u8; 2], new: [u8; 2]) -> u16 {
    let (old, new) = (u16::from_be_bytes(old), u16::from_be_bytes(new));
    let mut sum = u32::from(!checksum) + u32::from(!old) + u32::from(new);
    sum = (sum & 0xffff) + (sum >> 16);
    sum = (sum & 0xffff) + (sum >> 16);
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
    const SECOND: Nanoseconds = 1_000_000_000;

    /// A UDP packet of two bytes, with right checksums.
    fn packet(source: &str, target: &str) -> Vec<u8> {
        let (source, target): (SocketAddrV4, SocketAddrV4) = (parse(source), parse(target));
        let mut ip = Vec::from([0x45, 0, 0, 30, 0, 0, 0, 0, 64, Packet::UDP, 0, 0]);
        ip.extend(source.ip().octets());
        ip.extend(target.ip().octets());
        let sum = checksum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        let mut udp = source.port().to_be_bytes().to_vec();
        udp.extend(target.port().to_be_bytes());
        udp.extend([0, 10, 0, 0, b'h', b'i']);
        let sum = checksum(&[&pseudo(&ip), udp.as_slice()].concat());
        udp[6..8].copy_from_slice(&sum.to_be_bytes());
        [&[0; 12], [0x08, 0x00].as_slice(), &ip, &udp].concat()
    }

    fn pseudo(ip: &[u8]) -> Vec<u8> {
        [&ip[12..20], &[0, Packet::UDP, 0, 10]].concat()
    }

    fn checksum(bytes: &[u8]) -> u16 {
        let sum = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)))
            .sum::<u32>();
        let sum = (sum & 0xffff) + (sum >> 16);
        !u16::try_from((sum & 0xffff) + (sum >> 16)).expect("folded")
    }

    fn parse(text: &str) -> SocketAddrV4 {
        text.parse().expect("an address")
    }

    /// Source and target of a frame whose checksums are right.
    fn ends(frame: &[u8]) -> (String, String) {
        assert_eq!(checksum(&frame[14..34]), 0, "of the header");
        let whole = [&pseudo(&frame[14..34]), &frame[34..]].concat();
        assert_eq!(checksum(&whole), 0, "of the packet");
        let packet = Packet::parse(frame).expect("a packet");
        (packet.source.to_string(), packet.target.to_string())
    }

    fn outward(router: &mut Router, source: &str, target: &str) -> String {
        let frame = router.outward(SECOND, &packet(source, target), |_| Some(2));
        ends(&frame.expect("it is translated")).0
    }

    #[test]
    fn an_answer_finds_its_way_in_and_nothing_else_does() {
        let mut router = Router::new(Nat::Cone, OUTER);
        let seen = outward(&mut router, "192.168.77.2:7", "10.77.0.3:9");
        assert_eq!(seen, "10.77.0.1:30000");
        let inward = |source: &str, at| router.inward(at, &packet(source, &seen), [7; 6]);
        let frame = inward("10.77.0.3:9", SECOND).expect("an answer");
        assert_eq!(ends(&frame).1, "192.168.77.2:7");
        assert_eq!(&frame[..6], [7; 6]);
        assert!(inward("10.77.0.3:8", SECOND).is_none(), "another port");
        assert!(inward("10.77.0.4:9", SECOND).is_none(), "another host");
        assert!(inward("10.77.0.3:9", 62 * SECOND).is_none(), "too late");
    }

    #[test]
    fn a_cone_keeps_its_port_and_a_symmetric_one_does_not() {
        for (kind, ports) in [
            (Nat::Cone, ["30000"; 2]),
            (Nat::Symmetric, ["30000", "30001"]),
        ] {
            let mut router = Router::new(kind, OUTER);
            for (target, port) in ["10.77.0.3:9", "10.77.0.4:9"].iter().zip(ports) {
                let seen = outward(&mut router, "192.168.77.2:7", target);
                assert_eq!(seen, format!("10.77.0.1:{port}"), "{kind:?}");
            }
        }
    }

    #[test]
    fn a_router_that_moved_has_forgotten_all() {
        let mut router = Router::new(Nat::Cone, OUTER);
        let seen = outward(&mut router, "192.168.77.2:7", "10.77.0.3:9");
        router.move_to(Ipv4Addr::new(10, 77, 0, 9));
        let answer = router.inward(SECOND, &packet("10.77.0.3:9", &seen), [7; 6]);
        assert!(answer.is_none());
    }

    #[test]
    fn what_is_no_packet_ends_at_the_router() {
        let mut router = Router::new(Nat::Cone, OUTER);
        let whole = packet("192.168.77.2:7", "10.77.0.3:9");
        for length in 0..whole.len() - 2 {
            let frame = router.outward(0, &whole[..length], |_| Some(2));
            assert!(frame.is_none(), "{length}");
        }
    }
}
