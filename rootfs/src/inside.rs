//! StreamIn and StreamOut where they happen: in a process of its own inside the container's
//! namespaces, started as the container's root. No name in here is ever looked up on the host.
//!
//! The destination is made while still root; then the process becomes the user for good, and only
//! then is anything read that a client sent. The process must have no second thread: credentials
//! are changed by system calls that work on threads.

mod account;

use std::ffi::CString;
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{
    CWD, Gid, Mode, OFlags, ResolveFlags, Uid, fchown, fstat, mkdirat, openat, openat2,
};
use rustix::io::Errno;
use rustix::thread::{
    CapabilitySet, CapabilitySets, set_capabilities, set_thread_groups, set_thread_res_gid,
    set_thread_res_uid,
};

use crate::archive::{self, Containment, Owners, Policy};
use account::{Account, Accounts};

/// Why a stream failed. The beginnings of the texts are the reference's.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Users are looked up by name; a number is none.
    #[error("getpwnam: Success (no user {0:?} in the container's /etc/passwd)")]
    UnknownUser(String),
    /// The destination is no directory and cannot become one.
    #[error("mkdir_p_as {uid} {gid}: {reason} ({path})", reason = plain(errno))]
    Destination {
        /// Whose it should be.
        uid: u32,
        /// And whose group's.
        gid: u32,
        /// The path as given.
        path: String,
        /// The kernel's answer.
        errno: io::Error,
    },
    /// The directory to pack, or to pack from, cannot be entered.
    #[error("cannot enter {path}")]
    Source {
        /// The path as given.
        path: String,
        /// The kernel's answer.
        source: io::Error,
    },
    /// The process cannot become the user.
    #[error("cannot become user {0}")]
    Become(String, #[source] io::Error),
    /// What tar would have said.
    #[error(transparent)]
    Archive(archive::Error),
}

/// An error's text without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or_default().to_owned()
}

/// Beyond the archive's end a client may send this much padding.
const MOST_PADDING: u64 = 64 << 20;
const BUFFER: usize = 128 * 1024;

/// Unpacks `archive`, an uncompressed tar, as `user` (a name; empty is root) into the directory
/// `path`, relative to the user's home, which is made for the user where it is missing.
pub fn stream_in(user: &str, path: &str, archive: impl Read) -> Result<(), Error> {
    let accounts = Accounts::read();
    let account = accounts.by_name(user).ok_or_else(|| Error::UnknownUser(user.to_owned()))?;
    let failed = |errno: Errno| Error::Destination {
        uid: account.uid,
        gid: account.gid,
        path: path.to_owned(),
        errno: errno.into(),
    };
    let destination = if path.is_empty() {
        Err(Errno::NOENT)
    } else {
        make_directories(&absolute(&account, path), &account)
    };
    let destination = destination.map_err(failed)?;
    let is_root = is_root(&destination).map_err(failed)?;
    account.assume().map_err(|source| Error::Become(user.to_owned(), source))?;

    let umask = rustix::process::umask(Mode::empty()).as_raw_mode();
    let policy = Policy {
        containment: if is_root { Containment::Root } else { Containment::Below },
        owners: Owners::Caller { umask },
        absolute_names: true,
        whiteouts: false,
        goes_on: true,
        below: Vec::new(),
    };
    let mut archive = BufReader::with_capacity(BUFFER, archive);
    let unpacked = archive::unpack(&mut archive, destination.as_fd(), &policy);
    if matches!(unpacked, Ok(_) | Err(archive::Error::Members(_))) {
        // A client that is cut off while it sends the padding would take that for the outcome.
        let _ = io::copy(&mut archive.take(MOST_PADDING), &mut io::sink());
    }
    unpacked.map(drop).map_err(Error::Archive)
}

/// Packs as `user` what `path`, relative to the user's home, names: with a trailing slash the
/// directory's content as `./…`, else the entry by its last name, whatever it is.
pub fn stream_out(user: &str, path: &str, archive: impl Write) -> Result<(), Error> {
    let accounts = Accounts::read();
    let account = accounts.by_name(user).ok_or_else(|| Error::UnknownUser(user.to_owned()))?;
    let absolute = absolute(&account, path);
    let (directory, base) = match absolute.rsplit_once('/') {
        Some((directory, base)) if !matches!(base, "" | "." | "..") && !path.is_empty() => {
            (format!("{directory}/"), base)
        }
        _ => (absolute.clone(), "."),
    };
    let source = |source: io::Error| Error::Source { path: path.to_owned(), source };
    let base = CString::new(base).map_err(|error| source(error.into()))?;
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let parent = openat2(CWD, directory, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
        .map_err(|errno| source(errno.into()))?;
    account.assume().map_err(|source| Error::Become(user.to_owned(), source))?;
    let archive = BufWriter::with_capacity(BUFFER, archive);
    archive::pack(parent.as_fd(), &base, &accounts.names(), archive).map_err(Error::Archive)
}

fn absolute(account: &Account, path: &str) -> String {
    if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", account.home) }
}

fn is_root(directory: &OwnedFd) -> Result<bool, Errno> {
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let (root, directory) = (fstat(root)?, fstat(directory)?);
    Ok((root.st_dev, root.st_ino) == (directory.st_dev, directory.st_ino))
}

/// Opens a directory; what is missing of it is made for the user, what is there stays as it is.
fn make_directories(path: &str, account: &Account) -> Result<OwnedFd, Errno> {
    let open = |parent: &OwnedFd, name: &str, resolve| {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(parent, name, flags, Mode::empty(), resolve)
    };
    let any = ResolveFlags::NO_MAGICLINKS;
    let root = openat(CWD, "/", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let mut directory = root;
    for name in path.split('/').filter(|name| !name.is_empty()) {
        directory = match open(&directory, name, any) {
            Err(Errno::NOENT) => {
                // A link to nothing is there, though it cannot be opened.
                mkdirat(&directory, name, Mode::from_raw_mode(0o755))
                    .map_err(|errno| if errno == Errno::EXIST { Errno::NOENT } else { errno })?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let made = openat(&directory, name, flags, Mode::empty())?;
                let (owner, group) = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
                fchown(&made, Some(owner), Some(group))?;
                made
            }
            other => other?,
        };
    }
    Ok(directory)
}

impl Account {
    /// Makes the process the user's for good: groups, ids, and none of root's capabilities.
    fn assume(&self) -> io::Result<()> {
        let groups: Vec<Gid> = self.groups.iter().copied().map(Gid::from_raw).collect();
        let (uid, gid) = (Uid::from_raw(self.uid), Gid::from_raw(self.gid));
        set_thread_groups(&groups)?;
        set_thread_res_gid(gid, gid, gid)?;
        set_thread_res_uid(uid, uid, uid)?;
        if self.uid != 0 {
            // The kernel has cleared them with the last id that was root's; this is for certain.
            let none = CapabilitySet::empty();
            let none = CapabilitySets { effective: none, permitted: none, inheritable: none };
            set_capabilities(None, none)?;
        }
        Ok(())
    }
}
