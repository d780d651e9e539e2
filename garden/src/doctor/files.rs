//! Where images, writable layers and records lie.

use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use garden_sys::mounts::{self, Access};
use garden_sys::overlay::{self, Writable};
use rootfs::reference::References;

use super::{Fact, NO_CONTAINER, bytes};
use crate::config::Config;
use crate::identity::MAPPED_ROOT;

/// Below this an image is unlikely to fit.
const LITTLE_DISK: u64 = 1 << 30;
/// A record is a file and a directory; a volume a handful.
const FEW_FILES: u64 = 10_000;
const LITTLE_MEMORY: u64 = 16 << 20;

/// `users` is the user namespace of a container, if one could be made.
pub fn examine(config: &Config, users: Option<&OwnedFd>) -> Vec<Fact> {
    let mut facts = match nearest(&config.store) {
        Ok(store) => {
            let (kind, options) = file_system(&store);
            let mut facts = vec![space("store", &config.store, &store, &kind, LITTLE_DISK)];
            facts.extend(layers(&store, &kind, users));
            facts.push(quotas(&kind, &options));
            facts
        }
        Err(error) => vec![
            Fact::new("store", format!("{}: {error}", config.store.display()))
                .missing(NO_CONTAINER, "name another place by --store"),
        ],
    };
    facts.push(match nearest(&config.depot) {
        Ok(depot) => space("depot", &config.depot, &depot, &file_system(&depot).0, LITTLE_MEMORY),
        Err(error) => Fact::new("depot", format!("{}: {error}", config.depot.display()))
            .missing(NO_CONTAINER, "name another place by --depot"),
    });
    facts.push(images(config));
    facts
}

/// A place, or what there is of it: nothing is made for it here.
fn nearest(place: &Path) -> io::Result<PathBuf> {
    let place = std::path::absolute(place)?;
    let mut found = place.ancestors();
    found
        .find_map(|ancestor| fs::canonicalize(ancestor).ok())
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// Type and options of the file system that a canonical path is on (proc_pid_mountinfo(5)).
fn file_system(path: &Path) -> (String, String) {
    let mountinfo = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    mount_of(&mountinfo, path).unwrap_or_else(|| ("unknown".into(), String::new()))
}

/// Of mounts on one point, the last covers the others.
fn mount_of(mountinfo: &str, path: &Path) -> Option<(String, String)> {
    let parse = |line: &str| {
        let (mount, kind) = line.split_once(" - ")?;
        let point = PathBuf::from(mount.split(' ').nth(4)?.replace("\\040", " "));
        let mut kind = kind.split(' ');
        let fstype = kind.next()?.to_owned();
        let options = kind.nth(1)?.to_owned();
        path.starts_with(&point).then(|| (point.components().count(), fstype, options))
    };
    let found = mountinfo.lines().filter_map(parse).max_by_key(|(depth, ..)| *depth);
    found.map(|(_, fstype, options)| (fstype, options))
}

fn space(name: &str, place: &Path, nearest: &Path, kind: &str, little: u64) -> Fact {
    let fact = |found: String| Fact::new(name, found);
    let stat = match rustix::fs::statvfs(nearest) {
        Ok(stat) => stat,
        Err(errno) => {
            return fact(format!("{}: {errno}", nearest.display()))
                .missing(NO_CONTAINER, format!("name another place by --{name}"));
        }
    };
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    let found = fact(format!("{} on {kind}, {} free", place.display(), bytes(free)));
    if stat.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY) {
        return found.missing(NO_CONTAINER, "mount it for writing, or name another place");
    }
    if free < little {
        return found.degraded(
            "creates and what containers write will fail soon",
            "make room, or name a larger place",
        );
    }
    // Some file systems do not count files.
    if stat.f_files > 0 && stat.f_favail < FEW_FILES {
        let found = Fact { found: format!("{}, {} files", found.found, stat.f_favail), ..found };
        return found.degraded(
            "creates and what containers write will fail soon for want of inodes",
            "make room, or make the file system anew with more inodes",
        );
    }
    found
}

/// An overlay as containers have it, in a directory that goes with it.
fn layers(store: &Path, kind: &str, users: Option<&OwnedFd>) -> Vec<Fact> {
    let place = match tempfile::Builder::new().prefix(".bloomery-doctor-").tempdir_in(store) {
        Ok(place) => place,
        Err(error) => {
            return vec![
                Fact::new("overlay", format!("cannot write to {}: {error}", store.display()))
                    .missing(NO_CONTAINER, "let root write there, or name another --store"),
            ];
        }
    };
    if let Err(error) = join(&place.path().join("plain"), None) {
        return vec![Fact::new("overlay", format!("refused on {kind}: {error}")).missing(
            NO_CONTAINER,
            "load the kernel's module overlay, or name a --store on a file system that takes upper \
             layers (ext4, XFS with ftype=1, btrfs, tmpfs; no overlay itself)",
        )];
    }
    let found = match users.map(|users| join(&place.path().join("mapped"), Some(users))) {
        Some(Ok(())) => {
            let shifts = Fact::new("id-mapped mounts", format!("work on {kind}"));
            return vec![Fact::new("overlay", format!("works on {kind}")), shifts];
        }
        Some(Err(error)) => format!("refused on {kind}: {error}"),
        None => "not tried without a container's user namespace".into(),
    };
    vec![
        Fact::new("overlay", format!("works on {kind}")),
        Fact::new("id-mapped mounts", found).degraded(
            "each image is copied once for unprivileged containers, and no root is built ahead",
            "name a --store on ext4, XFS or btrfs",
        ),
    ]
}

/// Reads and writes through an overlay whose lower layer's owners are mapped for `users`.
fn join(place: &Path, users: Option<&OwnedFd>) -> io::Result<()> {
    let [low, upper, work] = ["low", "upper", "work"].map(|name| place.join(name));
    for directory in [&low, &upper, &work] {
        fs::create_dir_all(directory)?;
    }
    fs::write(low.join("old"), "old")?;
    let lower = mounts::bind(&low, Access::default())?;
    users.map_or(Ok(()), |users| mounts::map_ids(lower.as_fd(), users.as_fd()))?;
    let overlay = overlay::mount(&[lower], Some(Writable { upper: &upper, work: &work }))?;
    let seen = PathBuf::from(format!("/proc/self/fd/{}", overlay.as_raw_fd()));
    fs::write(seen.join("new"), "new")?;
    if fs::read(upper.join("new"))? != b"new" {
        return Err(io::Error::other("what is written does not reach the upper layer"));
    }
    let expected = if users.is_some() { MAPPED_ROOT } else { 0 };
    if fs::metadata(seen.join("old"))?.uid() != expected {
        return Err(io::Error::other("files below an overlay have other owners than they should"));
    }
    Ok(())
}

fn quotas(kind: &str, options: &str) -> Fact {
    let on = options.split(',').any(|option| matches!(option, "prjquota" | "pquota"));
    let found = if on { "of projects are on" } else { "of projects are not on" };
    Fact::new("disk quotas", format!("{found} ({kind}); disk limits are not enforced either way"))
}

fn images(config: &Config) -> Fact {
    let references = References {
        default: config.default_rootfs.clone(),
        aliases: config.image_aliases.clone(),
    };
    let broken: Vec<_> = references.unusable().map(|error| super::chain(&error)).collect();
    let fact = |found: String| Fact::new("images", found);
    if !broken.is_empty() {
        return fact(broken.join("; ")).degraded(
            "containers of such an image cannot be made",
            "put right --default-rootfs and --image-alias",
        );
    }
    match &config.default_rootfs {
        Some(path) => fact(format!("the default is {}", path.display())),
        None => fact("no --default-rootfs is given: every container has to name its own".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
22 1 8:1 / / rw,relatime - ext4 /dev/sda1 rw
30 22 0:25 / /run rw,nosuid - tmpfs tmpfs rw,size=100k
31 22 8:2 / /var/lib rw - xfs /dev/sdb rw,prjquota
32 22 8:3 / /var/lib rw - btrfs /dev/sdc rw
33 22 8:4 / /with\\040space rw - vfat /dev/sdd rw
";

    #[test]
    fn the_last_and_deepest_mount_is_the_one() {
        let kind = |path: &str| mount_of(MOUNTS, Path::new(path)).unwrap().0;
        assert_eq!(kind("/"), "ext4");
        assert_eq!(kind("/runner"), "ext4");
        assert_eq!(kind("/run/bloomery"), "tmpfs");
        assert_eq!(kind("/var/lib/bloomery"), "btrfs");
        assert_eq!(kind("/with space/x"), "vfat");
        assert_eq!(mount_of("nonsense\n", Path::new("/")), None);
    }

    #[test]
    fn a_place_that_is_not_there_lies_on_what_is() {
        let place = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(place.path()).unwrap();
        assert_eq!(nearest(&place.path().join("a/b/c")).unwrap(), real);
        assert_eq!(fs::read_dir(place.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_full_or_read_only_place_is_told_from_a_good_one() {
        let place = tempfile::tempdir().unwrap();
        let look = |little| space("store", place.path(), place.path(), "any", little);
        assert_eq!(look(0).lack, None);
        assert_eq!(look(u64::MAX).lack.unwrap().grade, super::super::Grade::Degraded);
        let read_only = space("store", place.path(), Path::new("/proc/sys"), "proc", 0);
        assert!(read_only.found.contains("on proc"), "{read_only:?}");
    }

    #[test]
    fn images_that_are_not_there_are_named() {
        let config = Config { default_rootfs: Some("/no/such/image".into()), ..Config::default() };
        let fact = images(&config);
        assert!(fact.found.contains("/no/such/image"), "{fact:?}");
        assert!(fact.lack.is_some());
        assert_eq!(images(&Config::default()).lack, None);
    }
}
