//! Who uses a root, and whose its slots are, kept by the kernel on the root's directory.

use std::ffi::OsString;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, XattrFlags, fgetxattr, flock, fsetxattr};
use rustix::io::{Errno, Result};

/// Of the kind that only who may administer the host can read or write (xattr(7)): a privileged
/// container sees this directory.
const OWNER: &str = "trusted.bloomery.owner";
/// Of a path, `PATH_MAX`.
const LONGEST: usize = 4096;

/// Locks the directory for as long as the descriptor is open; `false` if another process has.
pub(crate) fn lock(root: &OwnedFd) -> Result<bool> {
    match flock(root, FlockOperation::NonBlockingLockExclusive) {
        Err(Errno::WOULDBLOCK) => Ok(false),
        locked => locked.map(|()| true),
    }
}

/// Whose it is, if anybody has said so.
pub(crate) fn owner(root: &OwnedFd) -> Result<Option<PathBuf>> {
    let mut value = vec![0; LONGEST];
    match fgetxattr(root, OWNER, &mut value[..]) {
        Err(Errno::NODATA) => Ok(None),
        read => {
            value.truncate(read?);
            Ok(Some(OsString::from_vec(value).into()))
        }
    }
}

pub(crate) fn set_owner(root: &OwnedFd, owner: &Path) -> Result<()> {
    fsetxattr(root, OWNER, owner.as_os_str().as_bytes(), XattrFlags::empty())
}
