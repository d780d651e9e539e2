//! Where a part of the platform is.

use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::str::FromStr;

/// Where a part listens. As text `https://HOST:PORT`, `http://HOST:PORT` or `unix:/PATH`; the port
/// may be left out where it is the scheme's own, and a trailing slash is ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// TCP with mutual TLS. The server's certificate must be valid for the host.
    Https {
        /// A name or a literal address, the latter without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// Plain TCP.
    Http {
        /// A name or a literal address, the latter without brackets.
        host: String,
        /// TCP port.
        port: u16,
    },
    /// A unix socket.
    Unix(PathBuf),
}

/// A text that is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of https://HOST:PORT, http://HOST:PORT and unix:/PATH")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        let bad = || BadAddress(text.to_owned());
        if let Some(path) = text.strip_prefix("unix:") {
            // `unix:///path` is how others write the same.
            let path = path.strip_prefix("//").unwrap_or(path);
            return if path.starts_with('/') { Ok(Self::Unix(path.into())) } else { Err(bad()) };
        }
        let (authority, secure) =
            match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
                (Some(authority), _) => (authority, true),
                (None, Some(authority)) => (authority, false),
                (None, None) => return Err(bad()),
            };
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let (host, port) = split(authority).ok_or_else(bad)?;
        let host = host.to_owned();
        Ok(if secure {
            Self::Https { host, port: port.unwrap_or(443) }
        } else {
            Self::Http { host, port: port.unwrap_or(80) }
        })
    }
}

/// Host without brackets, and the port if one is named.
fn split(authority: &str) -> Option<(&str, Option<u16>)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, rest) = rest.split_once(']')?;
        host.parse::<Ipv6Addr>().ok()?;
        (host, rest)
    } else {
        let end = authority.find(':').unwrap_or(authority.len());
        let host = &authority[..end];
        let named = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if host.is_empty() || !host.bytes().all(named) {
            return None;
        }
        (host, &authority[end..])
    };
    let digits = match port.strip_prefix(':') {
        Some(digits) => digits,
        None if port.is_empty() => return Some((host, None)),
        None => return None,
    };
    // u16's own parser also takes a sign.
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok().map(|port| (host, Some(port)))
}

impl Address {
    /// An address of plain TCP.
    pub fn http(address: SocketAddr) -> Self {
        Self::Http { host: address.ip().to_string(), port: address.port() }
    }

    /// An address of TCP with mutual TLS.
    pub fn https(address: SocketAddr) -> Self {
        Self::Https { host: address.ip().to_string(), port: address.port() }
    }

    /// What a request to this address says in its Host header.
    pub fn authority(&self) -> String {
        let (host, port) = match self {
            Self::Https { host, port } | Self::Http { host, port } => (host, port),
            Self::Unix(_) => return "localhost".into(),
        };
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    pub(crate) fn scheme(&self) -> &'static str {
        match self {
            Self::Https { .. } => "https",
            Self::Http { .. } | Self::Unix(_) => "http",
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Https { .. } | Self::Http { .. } => {
                write!(f, "{}://{}", self.scheme(), self.authority())
            }
        }
    }
}

/// The addresses of a host. Loopback's names are answered here, literal addresses need no answer;
/// only other names go to the system's resolver, which a static program may not have.
pub(crate) async fn resolve(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(vec![(ip, port).into()]);
    }
    // RFC 6761, 6.3.
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    if name == "localhost" || name.ends_with(".localhost") {
        return Ok(vec![(Ipv4Addr::LOCALHOST, port).into(), (Ipv6Addr::LOCALHOST, port).into()]);
    }
    Ok(tokio::net::lookup_host((host, port)).await?.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_written() {
        for (text, host, port) in [
            ("https://bbs.service.cf.internal:8889", "bbs.service.cf.internal", 8889),
            ("https://127.0.0.1:1801/", "127.0.0.1", 1801),
            ("https://[::1]:8891", "::1", 8891),
            ("https://uaa", "uaa", 443),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address, Address::Https { host: host.into(), port }, "{text}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
        let plain: Address = "http://localhost:9999".parse().unwrap();
        assert_eq!(plain, Address::Http { host: "localhost".into(), port: 9999 });
        for text in ["unix:/run/bbs.sock", "unix:///run/bbs.sock"] {
            let unix: Address = text.parse().unwrap();
            assert_eq!(unix, Address::Unix("/run/bbs.sock".into()));
            assert_eq!(unix.to_string(), "unix:/run/bbs.sock");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for bad in [
            "",
            "bbs:8889",
            "ftp://bbs:1",
            "https://",
            "https://:1",
            "https://bbs:",
            "https://bbs:x",
            "https://bbs:+1",
            "https://bbs:65536",
            "https://bbs:1/path",
            "https://user@bbs:1",
            "https://[::1",
            "https://[bbs]:1",
            "https://::1:1",
            "unix:",
            "unix:relative",
            "unix://relative",
        ] {
            let error = bad.parse::<Address>().unwrap_err();
            assert!(error.to_string().contains(bad), "{error}");
        }
    }

    #[tokio::test]
    async fn loopback_needs_no_resolver() {
        let found = resolve("api.Localhost", 80).await.unwrap();
        assert_eq!(found[0], "127.0.0.1:80".parse().unwrap());
        assert_eq!(resolve("::1", 80).await.unwrap(), ["[::1]:80".parse().unwrap()]);
    }
}
