//! Where a server is, and connecting to it.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use crate::http::Wire;

const PATIENCE: Duration = Duration::from_secs(2);
/// Between two tries while the server's queue of new connections is full.
const PAUSE: Duration = Duration::from_millis(5);

/// Where a Garden listens. As text a path with a slash, or `IP:PORT`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A unix socket.
    Unix(PathBuf),
    /// TCP.
    Tcp(SocketAddr),
}

/// A text that is no [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is neither a socket's path nor IP:PORT")]
pub struct BadAddress(String);

impl FromStr for Address {
    type Err = BadAddress;

    fn from_str(text: &str) -> Result<Self, BadAddress> {
        if text.contains('/') {
            Ok(Self::Unix(text.into()))
        } else {
            text.parse().map(Self::Tcp).map_err(|_| BadAddress(text.to_owned()))
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => path.display().fmt(f),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

impl Address {
    /// A fresh connection.
    pub(super) async fn connect(&self) -> io::Result<Wire> {
        let deadline = Instant::now() + PATIENCE;
        let connected = tokio::time::timeout_at(deadline, async {
            match self {
                Self::Unix(path) => loop {
                    match UnixStream::connect(path).await {
                        // Unlike TCP's, a unix socket's full queue is an error at once, connect(2).
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                            tokio::time::sleep(PAUSE).await;
                        }
                        connected => return connected.map(Wire::new),
                    }
                },
                Self::Tcp(address) => {
                    let stream = TcpStream::connect(address).await?;
                    // Frames are small, and each waits for an answer.
                    stream.set_nodelay(true)?;
                    Ok(Wire::new(stream))
                }
            }
        });
        connected.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_paths_or_ports() {
        let unix: Address = "./garden.sock".parse().unwrap();
        assert_eq!(unix, Address::Unix("./garden.sock".into()));
        let tcp: Address = "[::1]:7777".parse().unwrap();
        assert_eq!(tcp.to_string(), "[::1]:7777");
        for bad in ["garden.sock", "localhost", "127.0.0.1", ""] {
            bad.parse::<Address>().unwrap_err();
        }
    }

    #[tokio::test]
    async fn a_full_queue_is_waited_for() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("s");
        let listener = rustix::net::socket_with(
            rustix::net::AddressFamily::UNIX,
            rustix::net::SocketType::STREAM,
            rustix::net::SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        let name = rustix::net::SocketAddrUnix::new(&path).unwrap();
        rustix::net::bind(&listener, &name).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        let first = std::os::unix::net::UnixStream::connect(&path).unwrap();
        let address = Address::Unix(path);
        let second = tokio::spawn(async move { address.connect().await });
        let accepted = tokio::task::spawn_blocking(move || {
            let accepted = [(); 2].map(|()| rustix::net::accept(&listener).unwrap());
            drop(first);
            accepted
        });
        second.await.unwrap().unwrap();
        accepted.await.unwrap();
    }
}
