//! Overlays over detached mounts, as detached mounts (kernel, "overlayfs"; fsopen(2)).

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, mount as mount_at, move_mount,
};

use crate::namespaces::in_own_mounts;

/// Where layers are attached, in a namespace where nobody else sees it: it exists everywhere.
const STAGE: &str = "/sys";

/// Where what a container writes goes: two directories on one file system, `work` empty. Nothing is
/// ever synced, so they are to end with the container.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs, reason = "the names are overlayfs's")]
pub struct Writable<'a> {
    pub upper: &'a Path,
    pub work: &'a Path,
}

/// Joins layers, topmost first; without a writable one the overlay is read-only.
///
/// Until 6.14 the kernel takes only layers that are attached in the caller's own mount namespace
/// (`check_mnt` in `clone_private_mount`, `fs/namespace.c`). There they are attached in a namespace
/// of a thread that then ends.
pub fn mount(lower: &[OwnedFd], writable: Option<Writable<'_>>) -> io::Result<OwnedFd> {
    let names = lower.iter().map(|layer| format!("/proc/self/fd/{}", layer.as_raw_fd()));
    match create(&names.collect::<Vec<_>>().join(":"), writable) {
        Err(Errno::INVAL) => {}
        result => return Ok(result?),
    }
    let Some(Writable { upper, work }) = writable else { return staged(lower, None) };
    // The attempt has marked its work directory as one of a volatile overlay that is not to be used
    // again.
    match fs::remove_dir_all(work.join("work")) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // The stage must not hide the writable layer.
    let (upper, work) = (fs::canonicalize(upper)?, fs::canonicalize(work)?);
    staged(lower, Some(Writable { upper: &upper, work: &work }))
}

fn create(lower: &str, writable: Option<Writable<'_>>) -> Result<OwnedFd, Errno> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(fs.as_fd(), "lowerdir", lower)?;
    if let Some(Writable { upper, work }) = writable {
        fsconfig_set_string(fs.as_fd(), "upperdir", upper)?;
        fsconfig_set_string(fs.as_fd(), "workdir", work)?;
        fsconfig_set_flag(fs.as_fd(), "volatile")?;
    }
    fsconfig_create(fs.as_fd())?;
    fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
}

fn staged(lower: &[OwnedFd], writable: Option<Writable<'_>>) -> io::Result<OwnedFd> {
    in_own_mounts("overlay", || {
        mount_at("tmpfs", STAGE, "tmpfs", MountFlags::empty(), c"")?;
        let mut names = Vec::new();
        for (layer, mount) in lower.iter().enumerate() {
            let name = format!("{STAGE}/{layer}");
            fs::create_dir(&name)?;
            attach(mount.as_fd(), &name)?;
            names.push(name);
        }
        Ok(create(&names.join(":"), writable)?)
    })
}

fn attach(mount: BorrowedFd<'_>, at: &str) -> Result<(), Errno> {
    move_mount(mount, "", CWD, at, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mounts::{Access, bind};

    /// What the newest kernel does not need works on it too, and shows both layers.
    #[test]
    fn layers_join_whether_attached_or_not() {
        for make in [mount, staged] {
            let places = tempfile::tempdir().unwrap();
            let place = |name: &str| places.path().join(name);
            for name in ["low", "high", "upper", "work", "seen"] {
                fs::create_dir(place(name)).unwrap();
            }
            fs::write(place("low/both"), "low").unwrap();
            fs::write(place("low/one"), "one").unwrap();
            fs::write(place("high/both"), "high").unwrap();
            let layers = ["high", "low"].map(|name| bind(&place(name), Access::default()).unwrap());
            let (upper, work) = (place("upper"), place("work"));
            let writable = Writable { upper: &upper, work: &work };
            let overlay = make(&layers, Some(writable)).unwrap();
            let seen = format!("/proc/self/fd/{}", overlay.as_raw_fd());
            assert_eq!(fs::read_to_string(format!("{seen}/both")).unwrap(), "high");
            assert_eq!(fs::read_to_string(format!("{seen}/one")).unwrap(), "one");
            fs::write(format!("{seen}/new"), "new").unwrap();
            assert_eq!(fs::read_to_string(place("upper/new")).unwrap(), "new");
            let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
            assert!(!mounts.contains(places.path().to_str().unwrap()), "nothing is attached");
        }
    }
}
