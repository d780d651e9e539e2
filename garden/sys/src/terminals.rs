//! Terminals of a file system of their own (devpts).

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

use crate::namespaces::in_own_mounts;

/// A detached devpts, as containers have it. Made where it cannot take of the terminals that the kernel
/// holds back for the host: those are for file systems made in the first mount namespace
/// (`fs/devpts/inode.c`, `kernel.pty.reserve`).
pub fn file_system() -> io::Result<OwnedFd> {
    in_own_mounts("devpts", || {
        let fs = fsopen("devpts", FsOpenFlags::FSOPEN_CLOEXEC)?;
        for (key, value) in [("ptmxmode", "0666"), ("mode", "0620"), ("gid", "5")] {
            fsconfig_set_string(fs.as_fd(), key, value)?;
        }
        fsconfig_create(fs.as_fd())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NOSUID | MountAttrFlags::MOUNT_ATTR_NOEXEC;
        Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
    })
}
