//! Detached mounts: made here, attached only inside a container (open_tree(2), mount_setattr(2)).

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::program::raw::{self, attribute};

fn error(errno: raw::Errno) -> io::Error {
    io::Error::from_raw_os_error(errno.0)
}

/// What a bind mount lets its users do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// No writing.
    pub read_only: bool,
    /// Neither set-user-ID programs nor devices work.
    pub inert: bool,
    /// No program there is executed.
    pub no_exec: bool,
    /// What is mounted below comes along.
    pub recursive: bool,
}

/// A detached copy of the mount at `path`.
pub fn bind(path: &Path, access: Access) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let fd = raw::clone_mount_at(&path, access.recursive).map_err(error)?;
    // SAFETY: open_tree answers a new descriptor that nobody else knows.
    let mount = unsafe { OwnedFd::from_raw_fd(fd) };
    let mut set = 0;
    if access.read_only {
        set |= attribute::RDONLY;
    }
    if access.inert {
        set |= attribute::NOSUID | attribute::NODEV;
    }
    if access.no_exec {
        set |= attribute::NOEXEC;
    }
    if set != 0 {
        raw::mount_setattr(mount.as_raw_fd(), set, access.recursive).map_err(error)?;
    }
    Ok(mount)
}

/// Shifts the owners that a detached mount shows by a user namespace's map.
pub fn map_ids(mount: BorrowedFd<'_>, user_namespace: BorrowedFd<'_>) -> io::Result<()> {
    raw::map_mount_ids(mount.as_raw_fd(), user_namespace.as_raw_fd()).map_err(error)
}
