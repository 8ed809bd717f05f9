//! The addresses of hosts: a /24, of which host N has number N. It is not a DHCP server.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The most hosts a lab can have.
pub const HOSTS_MAX: usize = 250;

/// A /24 network, such as `10.77.0.0/24`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subnet {
    first_three: [u8; 3],
}

impl Subnet {
    /// The network of a lab with namespaces, unless it asks for another: `10.77.0.0/24`.
    pub const DEFAULT: Self = Self {
        first_three: [10, 77, 0],
    };
    /// The network of a lab on loopback addresses: `127.77.0.0/24`.
    pub const LOOPBACK: Self = Self {
        first_three: [127, 77, 0],
    };

    /// The address of host `number`, counted from one.
    pub(crate) fn address(self, number: usize) -> Ipv4Addr {
        let [a, b, c] = self.first_three;
        Ipv4Addr::new(
            a,
            b,
            c,
            u8::try_from(number).expect("a lab has at most 250 hosts"),
        )
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c] = self.first_three;
        write!(formatter, "{a}.{b}.{c}.0/24")
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("'{text}' is not a network such as {}", Self::DEFAULT);
        let address = text.strip_suffix("/24").ok_or_else(refused)?;
        let address: Ipv4Addr = address.parse().or(Err(refused()))?;
        match address.octets() {
            [a, b, c, 0] if !address.is_multicast() => Ok(Self {
                first_three: [a, b, c],
            }),
            _ => Err(refused()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_whole_slash_24_is_a_subnet() {
        let subnet: Subnet = "10.5.6.0/24".parse().expect("a subnet");
        assert_eq!(subnet.address(7), Ipv4Addr::new(10, 5, 6, 7));
        assert_eq!(subnet.to_string(), "10.5.6.0/24");
        for bad in [
            "10.5.6.0",
            "10.5.6.1/24",
            "10.5.0.0/16",
            "224.0.0.0/24",
            "x",
        ] {
            assert!(bad.parse::<Subnet>().is_err(), "{bad}");
        }
    }
}
