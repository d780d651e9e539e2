//! Where a demonstration lives: places of its own, so that what it takes over, destroys and removes
//! is what a demonstration has made.

use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use garden_cgroup::{Error, Hierarchy};
use rustix::fs::{FlockOperation, flock};

use super::daemon;
use crate::up;

const DATA: &str = "/var/lib/bloomery/demo";
const RUN: &str = "/run/bloomery/demo";
const DEPOT: &str = "/run/bloomery/demo/depot";
/// Image of the demonstration's containers.
pub const IMAGE: &str = "/var/lib/bloomery/demo/busybox";
/// What the daemon says.
pub const LOG: &str = "/run/bloomery/demo/garden.log";
/// A file that the daemon has as its standard input, by which it is found again.
pub const MARK: &str = "/run/bloomery/demo/garden.mark";
/// Where clients look that are told nothing else. Only this and the tag are every Garden's.
pub const SOCKET: &str = "/run/bloomery/garden.sock";
/// Flags of `bloomery garden` for these places.
pub const GARDEN: [&str; 8] = [
    "--depot",
    DEPOT,
    "--keeper-dir",
    "/run/bloomery/demo/keeper",
    "--store",
    "/var/lib/bloomery/demo/garden",
    "--default-rootfs",
    IMAGE,
];
/// Of a Garden without flags, and of this one.
const TAG: &str = "b";

/// The right to be this host's demonstration, for as long as this value lives.
#[derive(Debug)]
pub struct Place {
    _lock: File,
}

impl Place {
    /// Takes the place, which is made.
    pub fn take() -> anyhow::Result<Self> {
        loop {
            for path in [RUN, DATA] {
                fs::create_dir_all(path).with_context(|| format!("cannot make {path}"))?;
            }
            let lock = File::open(RUN).with_context(|| format!("cannot open {RUN}"))?;
            if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
                bail!("a demonstration is under way; Ctrl-C ends it");
            }
            // Who had it may have removed it at this moment.
            if fs::metadata(RUN).is_ok_and(|now| now.ino() == inode(&lock)) {
                return Ok(Self { _lock: lock });
            }
        }
    }

    /// Whether anything of a demonstration is on this host.
    pub fn exists() -> bool {
        [RUN, DATA].into_iter().any(|path| Path::new(path).exists())
    }

    /// Refuses what others have on this host, and what an earlier demonstration has left: nobody's
    /// containers are taken over.
    pub fn refuse_others(&self) -> anyhow::Result<()> {
        if let Some(pid) = up::Place::default().supervisor()? {
            bail!("a platform is running (process {pid}); `bloomery down` ends it");
        }
        refuse_second()?;
        refuse_tag()
    }

    /// Removes what is left when all containers are gone.
    pub fn remove(self) -> anyhow::Result<()> {
        for path in [DATA, RUN] {
            match fs::remove_dir_all(path) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {path}"));
                }
                _ => {}
            }
        }
        self.leave();
        Ok(())
    }

    /// Removes directories that nothing is in, those above included.
    pub fn leave(self) {
        for directory in
            [DATA, RUN].into_iter().flat_map(|path| Path::new(path).ancestors().take(2))
        {
            // What is in it is somebody's.
            let _ = fs::remove_dir(directory);
        }
    }
}

/// Refuses to be beside a demonstration's daemon or its containers, or beside a Garden that has the
/// default socket.
pub fn refuse_second() -> anyhow::Result<()> {
    if let Some(process) = daemon::find()? {
        let pid = process.pid;
        bail!("the demonstration's Garden is running (process {pid}); `cargo xtask down` ends it");
    }
    if let Some(pid) = daemon::listener() {
        bail!("a Garden is running at {SOCKET} (process {pid}): end it first");
    }
    let left = fs::read_dir(DEPOT).map_or(0, Iterator::count);
    ensure!(
        left == 0,
        "a demonstration has left {left} containers; `cargo xtask down` removes them"
    );
    Ok(())
}

/// Refuses where another Garden with the same tag runs or has containers, in whatever place: its
/// cgroups, links and rules are called by it.
fn refuse_tag() -> anyhow::Result<()> {
    let root = format!("bloomery-{TAG}");
    match Hierarchy::claim(&root, "/sys/fs/cgroup".as_ref(), DEPOT.as_ref(), Duration::ZERO) {
        Ok(_) => Ok(()),
        Err(Error::InUse { owner, .. }) => {
            let whose =
                owner.map_or_else(String::new, |depot| format!(" --depot {}", depot.display()));
            bail!("another Garden is running (`bloomery garden serve{whose}`): end it first")
        }
        Err(Error::Owned { owner, path }) => bail!(
            "containers of another Garden are in {}: start it again, or remove them with \
             `bloomery garden cleanup --depot {}` and its other places",
            path.display(),
            owner.display()
        ),
        Err(error) => Err(error).context("cannot use cgroups"),
    }
}

fn inode(file: &File) -> u64 {
    file.metadata().map_or(0, |file| file.ino())
}
