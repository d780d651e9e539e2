//! The port of what records in databases name.
//!
//! Desired LRPs and tasks carry addresses of droplets, bundles and callbacks, and outlive this
//! process. So the internal server comes back on the port that it had.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;

use crate::error::Error;

const FILE: &str = "internal-port";

/// Binds the internal server's port on loopback: the one of the last start if it is free, and
/// another one otherwise, which is then remembered.
pub fn internal(data: &Path) -> Result<TcpListener, Error> {
    let path = data.join(FILE);
    let last = match fs::read_to_string(&path) {
        Ok(text) => text.trim().parse().unwrap_or(0),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => 0,
        Err(error) => return Err(Error::file("read", &path)(error)),
    };
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    let listener = bind(last)
        .or_else(|error| {
            tracing::warn!(port = last, %error, "the internal port is taken: another one is used");
            bind(0)
        })
        .map_err(Error::socket("the internal server"))?;
    let port = listener.local_addr().map_err(Error::socket("the internal server"))?.port();
    if port != last {
        fs::write(&path, port.to_string()).map_err(Error::file("write", &path))?;
    }
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::internal;

    #[test]
    fn a_port_is_kept_while_it_is_free() {
        let data = tempfile::tempdir().unwrap();
        let port = |listener: &std::net::TcpListener| listener.local_addr().unwrap().port();
        let first = internal(data.path()).unwrap();
        let second = internal(data.path()).unwrap();
        assert_ne!(port(&first), port(&second));
        let kept = port(&second);
        drop((first, second));
        assert_eq!(port(&internal(data.path()).unwrap()), kept);
    }
}
