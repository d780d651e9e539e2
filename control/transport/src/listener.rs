//! The socket a server listens on.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, UnixListener};

use crate::address::{Address, resolve};
use crate::error::Error;
use crate::identity::Identity;
use crate::stream::{self, Stream};

/// How long another server may take to bind its socket in the same directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);
/// Who may connect to a unix socket: the server's user and group.
const MODE: u32 = 0o660;

/// A bound socket. Clients may connect from here on, and are answered once it is served.
#[derive(Debug)]
pub struct Listener {
    socket: Socket,
    identity: Option<Identity>,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix { listener: UnixListener, file: Option<SocketFile> },
}

/// A socket's place in the file system, removed with its listener.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    inode: u64,
}

impl Listener {
    /// Binds. An `https` address needs the identity, the others do without. A stale socket file is
    /// replaced; one that a server listens on is an error, and so is any other kind of file. Port
    /// 0 takes any free port. Must be called inside a tokio runtime, as all of these.
    pub async fn bind(address: &Address, identity: Option<Identity>) -> Result<Self, Error> {
        let cannot = |source| Error::Listen { address: address.clone(), source };
        match address {
            Address::Unix(path) => {
                let path = path.clone();
                let socket = tokio::task::spawn_blocking(move || bind_unix(&path))
                    .await
                    .unwrap_or_else(|panic| Err(io::Error::other(panic)))
                    .map_err(cannot)?;
                Ok(Self { socket, identity: None })
            }
            Address::Http { host, port } => {
                let listener = bind_tcp(host, *port).await.map_err(cannot)?;
                Ok(Self { socket: Socket::Tcp(listener), identity: None })
            }
            Address::Https { host, port } => {
                let Some(identity) = identity else {
                    return Err(Error::NoIdentity { address: address.clone() });
                };
                let listener = bind_tcp(host, *port).await.map_err(cannot)?;
                Ok(Self { socket: Socket::Tcp(listener), identity: Some(identity) })
            }
        }
    }

    /// A socket that was bound by someone else, who may hold a duplicate of it. With an identity
    /// TLS is spoken on it.
    pub fn from_tcp(
        listener: std::net::TcpListener,
        identity: Option<Identity>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        Ok(Self { socket: Socket::Tcp(TcpListener::from_std(listener)?), identity })
    }

    /// A socket that was bound by someone else, to whom its file belongs.
    pub fn from_unix(listener: std::os::unix::net::UnixListener) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { socket: Socket::Unix { listener, file: None }, identity: None })
    }

    /// Where it listens, with the port that was taken.
    pub fn address(&self) -> io::Result<Address> {
        match &self.socket {
            Socket::Tcp(listener) if self.identity.is_some() => {
                listener.local_addr().map(Address::https)
            }
            Socket::Tcp(listener) => listener.local_addr().map(Address::http),
            Socket::Unix { file: Some(file), .. } => Ok(Address::Unix(file.path.clone())),
            Socket::Unix { listener, file: None } => {
                let name = listener.local_addr()?;
                let path = name.as_pathname().ok_or(io::ErrorKind::Unsupported)?;
                Ok(Address::Unix(path.to_owned()))
            }
        }
    }

    pub(crate) fn identity(&self) -> Option<&Identity> {
        self.identity.as_ref()
    }

    /// The next connection, before any handshake, and the client's address on TCP.
    pub(crate) async fn accept(&self) -> io::Result<(Stream, Option<SocketAddr>)> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                stream::prepare(&stream)?;
                Ok((Stream::Tcp(stream), Some(peer)))
            }
            Socket::Unix { listener, .. } => Ok((Stream::Unix(listener.accept().await?.0), None)),
        }
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Another server may have come in our place.
        if std::fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

async fn bind_tcp(host: &str, port: u16) -> io::Result<TcpListener> {
    TcpListener::bind(&*resolve(host, port).await?).await
}

/// The socket is made under another name and renamed when it has its mode: nobody ever sees it with
/// a wrong one, and a stale socket is replaced in one step.
fn bind_unix(path: &Path) -> io::Result<Socket> {
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_string_lossy();
    std::fs::create_dir_all(parent)?;
    // Two servers that start at once must not both find the socket stale.
    let _lock = lock(parent)?;
    check_replaceable(path)?;
    let temporary = parent.join(format!(".{name}.{}", std::process::id()));
    match std::fs::remove_file(&temporary) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&temporary)?;
    let ready = (|| {
        listener.set_nonblocking(true)?;
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(MODE))?;
        let inode = std::fs::symlink_metadata(&temporary)?.ino();
        let listener = UnixListener::from_std(listener)?;
        std::fs::rename(&temporary, path)?;
        let file = Some(SocketFile { path: path.to_owned(), inode });
        Ok(Socket::Unix { listener, file })
    })();
    if ready.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    ready
}

fn lock(directory: &Path) -> io::Result<File> {
    let file = File::open(directory)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(std::fs::TryLockError::WouldBlock) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(std::fs::TryLockError::WouldBlock) => {
                return Err(io::Error::other("another program holds the directory's lock"));
            }
            Err(std::fs::TryLockError::Error(error)) => return Err(error),
        }
    }
}

fn check_replaceable(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => {
            Err(io::Error::other("there is a file that is no socket"))
        }
        Ok(_) => match std::os::unix::net::UnixStream::connect(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            Err(error) => Err(error),
            Ok(_) => {
                Err(io::Error::new(io::ErrorKind::AddrInUse, "another server is listening there"))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new/bbs.sock");
        let address = Address::Unix(path.clone());
        let first = Listener::bind(&address, None).await.unwrap();
        assert_eq!(first.address().unwrap(), address);
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, MODE);
        let Error::Listen { source, .. } = Listener::bind(&address, None).await.unwrap_err() else {
            panic!("another error");
        };
        assert_eq!(source.kind(), io::ErrorKind::AddrInUse);
        drop(first);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = Listener::bind(&address, None).await.unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        drop(second);
    }

    #[tokio::test]
    async fn other_files_and_successors_sockets_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let precious = place.path().join("precious");
        std::fs::write(&precious, "x").unwrap();
        Listener::bind(&Address::Unix(precious.clone()), None).await.unwrap_err();
        assert_eq!(std::fs::read(&precious).unwrap(), b"x");

        let path = place.path().join("s");
        let first = Listener::bind(&Address::Unix(path.clone()), None).await.unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Listener::bind(&Address::Unix(path.clone()), None).await.unwrap();
        drop(first);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(second);
    }

    #[tokio::test]
    async fn tls_is_not_served_without_an_identity() {
        let address: Address = "https://127.0.0.1:0".parse().unwrap();
        let error = Listener::bind(&address, None).await.unwrap_err();
        assert!(matches!(error, Error::NoIdentity { .. }), "{error}");
    }
}
