//! IPv4 networks in CIDR notation.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A network such as `10.254.0.0/22`: host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Ipv4Network {
    base: Ipv4Addr,
    prefix: u8,
}

/// Text that is no IPv4 network. `Display` uses the words of Go's `net.ParseCIDR`, which Garden
/// clients see.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid CIDR address: {0}")]
pub struct InvalidCidr(pub String);

impl Ipv4Network {
    /// The network of `prefix` bits that `address` lies in; `None` if `prefix` exceeds 32.
    #[must_use]
    pub fn containing(address: Ipv4Addr, prefix: u8) -> Option<Self> {
        (prefix <= 32)
            .then(|| Self { base: Ipv4Addr::from_bits(address.to_bits() & mask(prefix)), prefix })
    }

    /// Splits `a.b.c.d/n` into the address as written and its network.
    pub fn parse_with_address(text: &str) -> Result<(Ipv4Addr, Self), InvalidCidr> {
        let invalid = || InvalidCidr(text.to_owned());
        let (address, prefix) = text.split_once('/').ok_or_else(invalid)?;
        let address: Ipv4Addr = address.parse().map_err(|_| invalid())?;
        if prefix.is_empty() || prefix.len() > 2 || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(invalid());
        }
        let prefix = prefix.parse().map_err(|_| invalid())?;
        let network = Self::containing(address, prefix).ok_or_else(invalid)?;
        Ok((address, network))
    }

    /// The first address.
    #[must_use]
    pub fn base(self) -> Ipv4Addr {
        self.base
    }

    /// Bits of the network part, at most 32.
    #[must_use]
    pub fn prefix(self) -> u8 {
        self.prefix
    }

    /// The last address, which is the broadcast address in networks of two and more.
    #[must_use]
    pub fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.base.to_bits() | !mask(self.prefix))
    }

    /// Whether `address` lies inside.
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.prefix) == self.base.to_bits()
    }

    /// Whether the two share an address.
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.base) || other.contains(self.base)
    }
}

fn mask(prefix: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(prefix)).unwrap_or(0)
}

impl fmt::Display for Ipv4Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.base, self.prefix)
    }
}

impl FromStr for Ipv4Network {
    type Err = InvalidCidr;

    /// Host bits are cut off, as Go's `net.ParseCIDR` does.
    fn from_str(text: &str) -> Result<Self, InvalidCidr> {
        Self::parse_with_address(text).map(|(_, network)| network)
    }
}

impl TryFrom<String> for Ipv4Network {
    type Error = InvalidCidr;

    fn try_from(text: String) -> Result<Self, InvalidCidr> {
        text.parse()
    }
}

impl From<Ipv4Network> for String {
    fn from(network: Ipv4Network) -> Self {
        network.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_of_small_and_whole_networks() {
        let network: Ipv4Network = "10.254.0.7/30".parse().unwrap();
        assert_eq!(network.to_string(), "10.254.0.4/30");
        assert_eq!(network.last(), Ipv4Addr::new(10, 254, 0, 7));
        let all: Ipv4Network = "0.0.0.0/0".parse().unwrap();
        assert_eq!(all.last(), Ipv4Addr::BROADCAST);
        assert!(all.overlaps(network) && network.overlaps(all));
        let one: Ipv4Network = "10.0.0.1/32".parse().unwrap();
        assert_eq!(one.last(), one.base());
    }

    #[test]
    fn refuses_what_is_no_network() {
        for text in ["", "10.0.0.1", "10.0.0.999/24", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/+8"] {
            let error = text.parse::<Ipv4Network>().unwrap_err();
            assert_eq!(error.to_string(), format!("invalid CIDR address: {text}"));
        }
    }
}
