//! Where this node can be reached: the addresses of its interfaces with the port of its links.
//!
//! What it is not: it asks nobody outside. An address that a router translates is not found here.

use std::net::{IpAddr, SocketAddr};

use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use wire::fact::ADDRESSES_MAX;

/// Names of interfaces that lead to virtual machines and containers on this machine only.
const INNER: [&str; 8] = [
    "docker", "br-", "veth", "virbr", "cni", "lxc", "lxdbr", "podman",
];

/// An address of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Own {
    ip: IpAddr,
    is_inner: bool,
}

/// Addresses as `ip:port`, best first, for sockets that are bound like this. Empty when the machine
/// cannot be asked for its interfaces now: that is no news.
pub(crate) fn of(bound: &[SocketAddr]) -> Vec<String> {
    select(bound, &interfaces())
}

/// Whether an interface of this machine has this address; yes, when it cannot be asked.
pub(crate) fn is_own(ip: IpAddr) -> bool {
    let own = interfaces();
    own.is_empty() || own.iter().any(|own| own.ip == ip)
}

fn interfaces() -> Vec<Own> {
    let Ok(all) = getifaddrs() else {
        return Vec::new();
    };
    all.filter(|interface| interface.flags.contains(InterfaceFlags::IFF_UP))
        .filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|v4| IpAddr::V4(v4.ip()));
            let v6 = || address.as_sockaddr_in6().map(|v6| IpAddr::V6(v6.ip()));
            let name = &interface.interface_name;
            let is_inner = INNER.iter().any(|prefix| name.starts_with(prefix));
            Some(Own {
                ip: v4.or_else(v6)?,
                is_inner,
            })
        })
        .collect()
}

fn is_link_local(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    }
}

fn select(bound: &[SocketAddr], own: &[Own]) -> Vec<String> {
    let mut chosen: Vec<(u8, SocketAddr)> = Vec::new();
    for socket in bound {
        if !socket.ip().is_unspecified() {
            chosen.push((0, *socket));
            continue;
        }
        let family = own
            .iter()
            .filter(|own| own.ip.is_ipv4() == socket.is_ipv4());
        for own in family.filter(|own| !is_link_local(own.ip)) {
            let rank = match (own.ip.is_loopback(), own.is_inner, own.ip.is_ipv4()) {
                (true, ..) => 4,
                (false, true, _) => 3,
                (false, false, false) => 2,
                (false, false, true) => 1,
            };
            chosen.push((rank, SocketAddr::new(own.ip, socket.port())));
        }
    }
    let has_outside = chosen.iter().any(|(rank, _)| *rank < 4);
    chosen.retain(|(rank, _)| *rank < 4 || !has_outside);
    chosen.sort();
    chosen.dedup();
    chosen.truncate(ADDRESSES_MAX);
    chosen
        .into_iter()
        .map(|(_, address)| address.to_string())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(bound: &[&str], own: &[(&str, bool)], expect: &[&str]) {
        let bound: Vec<SocketAddr> = bound.iter().map(|text| text.parse().unwrap()).collect();
        let address = |(ip, is_inner): &(&str, bool)| Own {
            ip: ip.parse().unwrap(),
            is_inner: *is_inner,
        };
        let own: Vec<Own> = own.iter().map(address).collect();
        assert_eq!(select(&bound, &own), expect);
    }

    #[test]
    fn outer_interfaces_come_first_and_loopback_not_at_all() {
        check(
            &["0.0.0.0:7117", "[::]:7117"],
            &[
                ("127.0.0.1", false),
                ("172.17.0.1", true),
                ("10.0.0.5", false),
                ("2001:db8::1", false),
            ],
            &["10.0.0.5:7117", "[2001:db8::1]:7117", "172.17.0.1:7117"],
        );
    }

    #[test]
    fn a_machine_alone_is_found_by_itself() {
        check(&["0.0.0.0:1"], &[("127.0.0.1", false)], &["127.0.0.1:1"]);
    }

    #[test]
    fn a_socket_bound_to_an_address_has_that_one_only() {
        check(&["127.0.0.1:1"], &[("10.0.0.5", false)], &["127.0.0.1:1"]);
    }

    #[test]
    fn addresses_of_one_cable_are_left_out() {
        check(
            &["0.0.0.0:1", "[::]:1"],
            &[("fe80::1", false), ("10.0.0.1", false)],
            &["10.0.0.1:1"],
        );
    }
}
