//! The socket a server listens on.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use tokio::net::{TcpListener, UnixListener};

use crate::config::Listen;
use crate::error::Error;
use crate::http::Wire;

/// How long another server may take to bind its socket in the same directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// A bound socket. Clients may connect from here on, and are answered once the server serves.
#[derive(Debug)]
pub struct Listener(Socket);

#[derive(Debug)]
enum Socket {
    Unix { listener: UnixListener, path: PathBuf, inode: u64 },
    Tcp(TcpListener),
}

impl Listener {
    /// Binds. A stale socket file is replaced; one that a server listens on is an error, and so is
    /// any other kind of file. Must be called inside a tokio runtime.
    pub fn bind(listen: &Listen) -> Result<Self, Error> {
        match listen {
            Listen::Unix { path, mode } => bind_unix(path, *mode).map_err(|error| {
                Error::because(format!("cannot listen on {}", path.display()), &error)
            }),
            Listen::Tcp(address) => bind_tcp(*address)
                .map_err(|error| Error::because(format!("cannot listen on {address}"), &error)),
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Wire> {
        match &self.0 {
            Socket::Unix { listener, .. } => Ok(Wire::new(listener.accept().await?.0)),
            Socket::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                stream.set_nodelay(true)?;
                Ok(Wire::new(stream))
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socket::Unix { path, inode, .. } = &self.0 {
            // Another server may have come in our place.
            if std::fs::symlink_metadata(path).is_ok_and(|found| found.ino() == *inode) {
                let _ = std::fs::remove_file(path);
            }
        }
    }
}

fn bind_tcp(address: std::net::SocketAddr) -> io::Result<Listener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    Ok(Listener(Socket::Tcp(TcpListener::from_std(listener)?)))
}

/// The socket is made under another name and renamed when it has its mode: nobody ever sees it with
/// a wrong one, and a stale socket is replaced in one step.
fn bind_unix(path: &Path, mode: u32) -> io::Result<Listener> {
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
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
        std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode))?;
        let inode = std::fs::symlink_metadata(&temporary)?.ino();
        let listener = UnixListener::from_std(listener)?;
        std::fs::rename(&temporary, path)?;
        Ok(Listener(Socket::Unix { listener, path: path.to_path_buf(), inode }))
    })();
    if ready.is_err() {
        let _ = std::fs::remove_file(&temporary);
    }
    ready
}

fn lock(directory: &Path) -> io::Result<std::fs::File> {
    let file = std::fs::File::open(directory)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Ok(file),
            Err(rustix::io::Errno::WOULDBLOCK) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => {
                return Err(io::Error::other("another program holds the directory's lock"));
            }
            Err(errno) => return Err(errno.into()),
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

    fn unix(path: &Path, mode: u32) -> Listen {
        Listen::Unix { path: path.to_path_buf(), mode }
    }

    #[tokio::test]
    async fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("new/garden.sock");
        let first = Listener::bind(&unix(&path, 0o620)).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o620);
        let refused = Listener::bind(&unix(&path, 0o660)).unwrap_err().to_string();
        assert!(refused.ends_with("another server is listening there"), "{refused}");
        drop(first);
        assert!(!path.exists());

        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let second = Listener::bind(&unix(&path, 0o660)).unwrap();
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        drop(second);
    }

    #[tokio::test]
    async fn other_files_are_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("precious");
        std::fs::write(&path, "x").unwrap();
        let refused = Listener::bind(&unix(&path, 0o660)).unwrap_err().to_string();
        assert!(refused.contains("no socket"), "{refused}");
        assert_eq!(std::fs::read(&path).unwrap(), b"x");
    }

    #[tokio::test]
    async fn a_successors_socket_survives_its_predecessor() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("garden.sock");
        let first = Listener::bind(&unix(&path, 0o660)).unwrap();
        std::fs::remove_file(&path).unwrap();
        let second = Listener::bind(&unix(&path, 0o660)).unwrap();
        drop(first);
        std::os::unix::net::UnixStream::connect(&path).unwrap();
        drop(second);
    }
}
