//! The directory, and the digests of its files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read as _, Seek as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use sha2::{Digest as _, Sha256};

/// Digests that are remembered.
const MOST: usize = 10_000;

/// A directory that files are served from.
#[derive(Debug)]
pub(crate) struct Directory {
    root: OwnedFd,
    /// By path, each with what the file was like when it was read.
    digests: Mutex<HashMap<String, (Version, String)>>,
}

/// What tells whether a file was changed: device, inode, size, time of change.
type Version = (u64, u64, u64, i64, i64);

/// One file, open, at its beginning.
#[derive(Debug)]
pub(crate) struct Found {
    pub file: File,
    /// Bytes.
    pub size: u64,
    pub modified: SystemTime,
    /// SHA-256, hexadecimal.
    pub digest: String,
}

/// Why there is no file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Missing {
    /// Nothing is there, nothing that is a file, or something outside.
    #[error("there is no such file")]
    Nothing,
    /// There is a directory.
    #[error("it is a directory")]
    Directory,
    /// It cannot be read.
    #[error(transparent)]
    Unreadable(#[from] io::Error),
}

impl Directory {
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        Ok(Self { root, digests: Mutex::default() })
    }

    /// The file at a relative path. Blocks, for as long as reading the whole file takes if it was
    /// not read before.
    pub fn find(&self, path: &str) -> Result<Found, Missing> {
        // Links may lead to other places of the directory, and the kernel sees to it that they lead
        // nowhere else. A pipe must not hold up who opens it.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
        let path = path.trim_start_matches('/');
        let name = if path.is_empty() { "." } else { path };
        let opened = rustix::fs::openat2(&self.root, name, flags, Mode::empty(), resolve);
        let mut file = match opened {
            Ok(file) => File::from(file),
            Err(Errno::NOENT | Errno::NOTDIR | Errno::XDEV | Errno::LOOP | Errno::NAMETOOLONG) => {
                return Err(Missing::Nothing);
            }
            Err(Errno::INVAL) if path.contains('\0') => return Err(Missing::Nothing),
            Err(error) => return Err(io::Error::from(error).into()),
        };
        let metadata = file.metadata()?;
        if metadata.is_dir() {
            return Err(Missing::Directory);
        }
        if !metadata.is_file() {
            return Err(Missing::Nothing);
        }
        let changed = (metadata.ctime(), metadata.ctime_nsec());
        let version = (metadata.dev(), metadata.ino(), metadata.len(), changed.0, changed.1);
        let digest = match self.known(path, version) {
            Some(digest) => digest,
            None => {
                let digest = digest(&mut file)?;
                file.rewind()?;
                self.remember(path, version, &digest);
                digest
            }
        };
        Ok(Found { file, size: metadata.len(), modified: metadata.modified()?, digest })
    }

    fn known(&self, path: &str, version: Version) -> Option<String> {
        let digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        let (known, digest) = digests.get(path)?;
        (*known == version).then(|| digest.clone())
    }

    fn remember(&self, path: &str, version: Version, digest: &str) {
        let mut digests = self.digests.lock().unwrap_or_else(PoisonError::into_inner);
        if digests.len() >= MOST {
            digests.clear();
        }
        digests.insert(path.to_owned(), (version, digest.to_owned()));
    }
}

fn digest(file: &mut File) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut piece = vec![0; 128 << 10];
    loop {
        let read = file.read(&mut piece)?;
        if read == 0 {
            break;
        }
        hash.update(&piece[..read]);
    }
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
