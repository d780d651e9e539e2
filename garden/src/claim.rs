//! Directories that one Garden has for itself, while it runs and while what is in them belongs to its
//! containers.
//!
//! A start removes what no record of its depot names, so two depots must not share the rest: the
//! second would take the first one's containers for nobody's.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// How long an earlier daemon of the same depot may take to end.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// In the directory: whose it is.
const OWNER: &str = "owner.json";
const UNFINISHED: &str = "owner.new";

/// Who has a directory. No container outlives the boot that it was made in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Owner {
    depot: PathBuf,
    boot: String,
}

/// A directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct Claim {
    directory: PathBuf,
    /// By which an operator chooses the directory.
    flag: &'static str,
    owner: Owner,
    _lock: File,
}

impl Claim {
    /// Locks a directory, which is made, for the Garden of a depot. Waits for an earlier daemon of
    /// that depot, and for nobody else.
    pub fn take(directory: &Path, flag: &'static str, depot: &Path) -> Result<Self, Error> {
        let failed = |attempt: &str| {
            let attempt = format!("cannot {attempt} {}", directory.display());
            move |error: io::Error| Error::because(attempt, &error)
        };
        fs::create_dir_all(directory).map_err(failed("make"))?;
        let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id")
            .map_err(|error| Error::because("cannot read which boot this is", &error))?;
        let owner = Owner { depot: depot.to_owned(), boot: boot.trim().to_owned() };
        let lock = File::open(directory).map_err(failed("open"))?;
        let deadline = Instant::now() + PATIENCE;
        while let Err(errno) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            if errno != Errno::WOULDBLOCK {
                return Err(failed("lock")(errno.into()));
            }
            let other = recorded(directory).filter(|recorded| *recorded != owner);
            if other.is_some() || Instant::now() >= deadline {
                let depot = other.map_or(owner.depot, |other| other.depot);
                return Err(Error::Plain(format!(
                    "another Garden (--depot {}) runs with {flag} {}: stop it, or give this one \
                     another {flag}",
                    depot.display(),
                    directory.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { directory: directory.to_owned(), flag, owner, _lock: lock })
    }

    /// Writes down whose the directory is. Where it is another's and `used` by containers, that is
    /// an error, and nothing is to be touched.
    pub fn settle(&self, used: bool) -> Result<(), Error> {
        match recorded(&self.directory) {
            Some(recorded) if recorded == self.owner => return Ok(()),
            Some(recorded) if used && recorded.boot == self.owner.boot => {
                let (flag, other) = (self.flag, recorded.depot.display());
                return Err(Error::Plain(format!(
                    "what is in {} belongs to containers of a Garden with --depot {other}: start that \
                     one again, or remove them with `bloomery garden cleanup --depot {other}` and its \
                     other places, or give this one another {flag}",
                    self.directory.display()
                )));
            }
            _ => {}
        }
        let (path, temporary) = (self.directory.join(OWNER), self.directory.join(UNFINISHED));
        serde_json::to_vec(&self.owner)
            .map_err(io::Error::from)
            .and_then(|owner| fs::write(&temporary, owner))
            .and_then(|()| fs::rename(&temporary, &path))
            .map_err(|error| Error::because(format!("cannot write {}", path.display()), &error))
    }

    /// Removes what claims have left in a directory.
    pub fn withdraw(directory: &Path) -> io::Result<()> {
        for name in [OWNER, UNFINISHED] {
            match fs::remove_file(directory.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Makes the directories that flags name, and makes sure that no two of them are one: what a start
/// locks in one of them it would wait for in the other.
pub fn apart(directories: [(&'static str, &Path); 3]) -> Result<(), Error> {
    let mut known: Vec<(&str, (u64, u64))> = Vec::with_capacity(directories.len());
    for (flag, directory) in directories {
        let metadata =
            fs::create_dir_all(directory).and_then(|()| fs::metadata(directory)).map_err(
                |error| Error::because(format!("cannot make {}", directory.display()), &error),
            )?;
        let identity = (metadata.dev(), metadata.ino());
        if let Some((other, _)) = known.iter().find(|(_, known)| *known == identity) {
            return Err(Error::Plain(format!(
                "{other} and {flag} are one directory, {}: each needs its own",
                directory.display()
            )));
        }
        known.push((flag, identity));
    }
    Ok(())
}

/// Whose a directory is. What cannot be read was not written by a Garden to its end.
fn recorded(directory: &Path) -> Option<Owner> {
    serde_json::from_slice(&fs::read(directory.join(OWNER)).ok()?).ok()
}
