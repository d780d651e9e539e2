//! What the originals' configuration files have in common: how durations and addresses are spelled,
//! certificates that may be missing, sockets that a supervisor may hold.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::address::{Address, BadAddress};
use crate::error::Error;
use crate::identity::{Files, Identity};
use crate::listener::Listener;

/// A duration as Go spells it, a sum of numbers with `h`, `m`, `s`, `ms`, `us` or `ns`: `1h30m`,
/// `1.5s`; `0` alone needs no unit. `None` for everything else, negative ones included.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    if text.is_empty() {
        return None;
    }
    let (mut rest, mut seconds) = (text, 0.0);
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..end].parse().ok()?;
        rest = &rest[end..];
        let end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..end] {
                "h" => 3600.0,
                "m" => 60.0,
                "s" => 1.0,
                "ms" => 1e-3,
                "us" | "µs" | "μs" => 1e-6,
                "ns" => 1e-9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    Duration::try_from_secs_f64(seconds).ok()
}

/// Reads a [`parse_duration`] text, for `#[serde(deserialize_with)]`.
pub fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text)
        .ok_or_else(|| serde::de::Error::custom(format!("{text:?} is no duration such as 1m30s")))
}

/// An address, or a bare `HOST:PORT`, which is one of mutual TLS.
pub fn address(text: &str) -> Result<Address, BadAddress> {
    let is_bare = !text.contains("://") && !text.starts_with("unix:");
    if is_bare { format!("https://{text}").parse() } else { text.parse() }
}

/// The identity of these files. `None` where no certificate is named: what is spoken to then has no
/// TLS.
pub fn identity(ca: &Path, certificate: &Path, key: &Path) -> Result<Option<Identity>, Error> {
    if certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    Identity::load(Files { ca: ca.into(), certificate: certificate.into(), key: key.into() })
        .map(Some)
}

/// The socket of a server at `address`: the one that the caller holds, or one that is bound here.
pub async fn listener(
    address: &Address,
    identity: Option<Identity>,
    held: Option<TcpListener>,
) -> Result<Listener, Error> {
    let Some(held) = held else { return Listener::bind(address, identity).await };
    let identity = match address {
        Address::Https { .. } if identity.is_none() => {
            return Err(Error::NoIdentity { address: address.clone() });
        }
        Address::Https { .. } => identity,
        Address::Http { .. } | Address::Unix(_) => None,
    };
    Listener::from_tcp(held, identity)
        .map_err(|source| Error::Listen { address: address.clone(), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in
            [("0", 0), ("0s", 0), ("10s", 10_000), ("1h30m", 5_400_000), ("1m1.5s", 61_500)]
        {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        assert_eq!(parse_duration("2us"), Some(Duration::from_micros(2)));
        for text in ["", "s", "1", "1d", "-1s", "1s1", "1.1.1s", "1e3s", "1 s", "9999999999999999h"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_bare_address_is_one_of_mutual_tls() {
        let bare = address("0.0.0.0:8889").unwrap();
        assert_eq!(bare, Address::Https { host: "0.0.0.0".into(), port: 8889 });
        assert_eq!(address("unix:/x").unwrap(), Address::Unix("/x".into()));
        assert!(address("http://127.0.0.1:1").is_ok() && address("").is_err());
    }
}
