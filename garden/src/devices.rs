//! A container's `/dev`: a small tmpfs made by the host, since nobody in a user namespace may make
//! device nodes, and given to the container's root.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, Uid, chmodat, chownat, makedev, mkdirat, mknodat, symlinkat,
};
use rustix::io::Result;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_string, fsmount,
    fsopen,
};

/// Name, major, minor: the devices that every container has (device nodes of `null(4)`, `random(4)`,
/// `tty(4)`).
const NODES: [(&str, u32, u32); 6] = [
    ("null", 1, 3),
    ("zero", 1, 5),
    ("full", 1, 7),
    ("random", 1, 8),
    ("urandom", 1, 9),
    ("tty", 5, 0),
];
const FUSE: (&str, u32, u32) = ("fuse", 10, 229);
/// Target and name.
const LINKS: [(&str, &str); 5] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
    ("pts/ptmx", "ptmx"),
];
const DIRECTORIES: [&str; 3] = ["pts", "shm", "mqueue"];

/// A detached `/dev` whose files belong to `root` (a host id).
pub fn file_system(root: u32, privileged: bool) -> Result<OwnedFd> {
    let owner = root.to_string();
    let fs = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    for (key, value) in [("mode", "755"), ("size", "65536k"), ("uid", &owner), ("gid", &owner)] {
        fsconfig_set_string(fs.as_fd(), key, value)?;
    }
    fsconfig_create(fs.as_fd())?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NOEXEC | MountAttrFlags::MOUNT_ATTR_STRICTATIME;
    let dev = fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)?;
    for node in NODES.iter().chain(privileged.then_some(&FUSE)) {
        make_node(dev.as_fd(), node, root)?;
    }
    let (uid, gid) = (Some(Uid::from_raw(root)), Some(Gid::from_raw(root)));
    for directory in DIRECTORIES {
        mkdirat(&dev, directory, Mode::from_raw_mode(0o755))?;
        chownat(&dev, directory, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    for (target, name) in LINKS {
        symlinkat(target, &dev, name)?;
        chownat(&dev, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
    }
    Ok(dev)
}

fn make_node(
    dev: BorrowedFd<'_>,
    &(name, major, minor): &(&str, u32, u32),
    root: u32,
) -> Result<()> {
    let mode = Mode::from_raw_mode(0o666);
    mknodat(dev, name, FileType::CharacterDevice, mode, makedev(major, minor))?;
    // The umask has cut the mode.
    chmodat(dev, name, mode, AtFlags::empty())?;
    chownat(
        dev,
        name,
        Some(Uid::from_raw(root)),
        Some(Gid::from_raw(root)),
        AtFlags::SYMLINK_NOFOLLOW,
    )
}
