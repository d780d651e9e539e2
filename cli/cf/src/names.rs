//! Names of servers.

use std::net::{Ipv4Addr, SocketAddr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Knows what each resolver should know, and some do not: names that end in `localhost` are this
/// machine's (RFC 6761, 6.3). All others are the system's to resolve.
#[derive(Debug)]
pub(crate) struct Names;

impl Resolve for Names {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let known: Addrs = if is_local(name.as_str()) {
                Box::new([SocketAddr::from((Ipv4Addr::LOCALHOST, 0))].into_iter())
            } else {
                let found: Vec<_> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
                Box::new(found.into_iter())
            };
            Ok(known)
        })
    }
}

fn is_local(name: &str) -> bool {
    let last = name.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
    last.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn only_names_under_localhost_are_local() {
        for name in ["localhost", "api.bloomery.localhost", "A.LOCALHOST."] {
            assert!(is_local(name), "{name}");
        }
        for name in ["localhost.example", "notlocalhost", "api.example", ""] {
            assert!(!is_local(name), "{name}");
        }
    }
}
