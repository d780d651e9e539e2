//! What the originals' configuration files have in common: how durations and addresses are spelled,
//! certificates that may be missing, sockets that a supervisor may hold.

use std::net::TcpListener;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::address::Address;
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

/// As [`duration`], for what is repeated: it may not be zero.
pub fn period<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let period = duration(deserializer)?;
    if period.is_zero() {
        return Err(serde::de::Error::custom("it has to be more than nothing"));
    }
    Ok(period)
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A value is missing or makes no sense.
    #[error("{key}: {reason}")]
    Value {
        /// Which.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// A certificate is unfit, or an address cannot be listened on or asked.
    #[error("{key}")]
    Transport {
        /// Which value it belongs to.
        key: &'static str,
        /// Why.
        source: Error,
    },
}

impl ConfigError {
    /// A value that makes no sense.
    pub fn value(key: &'static str, reason: impl Into<String>) -> Self {
        Self::Value { key, reason: reason.into() }
    }

    /// A value that is needed.
    pub fn missing(key: &'static str) -> Self {
        Self::value(key, "it is missing")
    }

    /// What a value leads to and does not work.
    pub fn transport(key: &'static str) -> impl FnOnce(Error) -> Self {
        move |source| Self::Transport { key, source }
    }
}

/// What a bare `HOST:PORT` stands for; an [`Address`] says it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bare {
    /// Mutual TLS.
    Tls,
    /// Plain TCP.
    Plain,
}

/// The address that `key` holds.
pub fn address(key: &'static str, text: &str, bare: Bare) -> Result<Address, ConfigError> {
    if text.is_empty() {
        return Err(ConfigError::missing(key));
    }
    let is_bare = !text.contains("://") && !text.starts_with("unix:");
    let parsed = match bare {
        Bare::Tls if is_bare => format!("https://{text}").parse(),
        Bare::Plain if is_bare => format!("http://{text}").parse(),
        _ => text.parse(),
    };
    parsed.map_err(|_| {
        let reason = format!("{text:?} is neither HOST:PORT nor https://…, http://… or unix:/…");
        ConfigError::value(key, reason)
    })
}

/// The identity of these files, of which `key` names the certificate's. `None` where it names none:
/// what is spoken to then has no TLS.
pub fn identity(
    key: &'static str,
    ca: &Path,
    certificate: &Path,
    own_key: &Path,
) -> Result<Option<Identity>, ConfigError> {
    if certificate.as_os_str().is_empty() {
        return Ok(None);
    }
    Identity::load(Files { ca: ca.into(), certificate: certificate.into(), key: own_key.into() })
        .map(Some)
        .map_err(ConfigError::transport(key))
}

/// A server's socket: the one that the caller holds, or one that is bound here. Either speaks what
/// the address that `key` holds says; a held one without an address is plain.
pub async fn listener(
    key: &'static str,
    text: &str,
    bare: Bare,
    identity: Option<Identity>,
    held: Option<TcpListener>,
) -> Result<Listener, ConfigError> {
    let failed = ConfigError::transport(key);
    let Some(held) = held else {
        let address = address(key, text, bare)?;
        return Listener::bind(&address, identity).await.map_err(failed);
    };
    let identity = match text {
        "" => None,
        text => match address(key, text, bare)? {
            address @ Address::Https { .. } if identity.is_none() => {
                return Err(failed(Error::NoIdentity { address }));
            }
            Address::Https { .. } => identity,
            Address::Http { .. } | Address::Unix(_) => None,
        },
    };
    let address = held.local_addr().map(Address::http);
    Listener::from_tcp(held, identity).map_err(|source| match address {
        Ok(address) => failed(Error::Listen { address, source }),
        Err(error) => ConfigError::value(key, format!("the socket that is held: {error}")),
    })
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
    fn a_bare_address_is_what_its_key_stands_for() {
        let at = |text, bare| address("listen_address", text, bare);
        let host = || "0.0.0.0".to_owned();
        let bare = at("0.0.0.0:8889", Bare::Tls).unwrap();
        assert_eq!(bare, Address::Https { host: host(), port: 8889 });
        let bare = at("0.0.0.0:8080", Bare::Plain).unwrap();
        assert_eq!(bare, Address::Http { host: host(), port: 8080 });
        assert_eq!(at("unix:/x", Bare::Plain).unwrap(), Address::Unix("/x".into()));
        at("http://127.0.0.1:1", Bare::Tls).unwrap();
        for (text, reason) in [("", "listen_address: it is missing"), ("a:b", "\"a:b\" is neither")]
        {
            let error = at(text, Bare::Tls).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn a_period_is_more_than_nothing() {
        #[derive(Debug, Deserialize)]
        struct Settings {
            #[serde(deserialize_with = "period")]
            interval: Duration,
        }
        let read = serde_json::from_str::<Settings>;
        let hour = read(r#"{"interval":"1h"}"#).unwrap().interval;
        assert_eq!(hour, Duration::from_secs(3600));
        read(r#"{"interval":"0s"}"#).unwrap_err();
    }
}
