//! A directory that nothing leaves: every name below it is resolved by openat2(2) from its
//! descriptor.

use std::ffi::OsStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, ResolveFlags, Stat, Uid, chownat, fstat, mkdirat,
    openat2, statat, unlinkat,
};
use rustix::io::Errno;

use super::error::Error;

/// What a symbolic link on the way to a member means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Containment {
    /// The directory is the root of a file system: absolute links and `..` begin and end there.
    Root,
    /// The directory is a part of a file system: a link that leaves it is an error.
    Below,
}

/// The directory, and the last one used below it.
#[derive(Debug)]
pub struct Tree<'a> {
    root: BorrowedFd<'a>,
    resolve: ResolveFlags,
    absolute: bool,
    parents: Parents<'a>,
    last: Option<(Vec<u8>, OwnedFd)>,
}

/// How directories are made that the archive has files in but does not name.
#[derive(Debug)]
pub struct Parents<'a> {
    /// Permissions, where nothing below says otherwise.
    pub mode: Mode,
    /// Directories to take owner and permissions from, the first that has the path.
    pub below: Vec<BorrowedFd<'a>>,
}

/// Where a member goes: a name in an open directory.
#[derive(Debug)]
pub struct Place<'a> {
    pub parent: BorrowedFd<'a>,
    /// `.` for the directory itself.
    pub name: &'a OsStr,
}

impl<'a> Tree<'a> {
    /// `absolute` says whether a member's name may begin with slashes, which then mean nothing.
    pub fn new(
        root: BorrowedFd<'a>,
        containment: Containment,
        absolute: bool,
        parents: Parents<'a>,
    ) -> Self {
        let resolve = ResolveFlags::NO_MAGICLINKS
            | match containment {
                Containment::Root => ResolveFlags::IN_ROOT,
                Containment::Below => ResolveFlags::BENEATH,
            };
        Self { root, resolve, absolute, parents, last: None }
    }

    /// A member's name with `.` and doubled slashes taken out; empty is the directory itself.
    pub fn clean(&self, path: &[u8]) -> Result<Vec<u8>, Error> {
        if path.starts_with(b"/") && !self.absolute {
            return Err(Error::refused(path, "an absolute name in an archive"));
        }
        if path.is_empty() {
            return Err(Error::refused(path, "a member without a name"));
        }
        let mut clean = Vec::with_capacity(path.len());
        for name in path.split(|byte| *byte == b'/') {
            match name {
                b"" | b"." => continue,
                b".." => return Err(Error::refused(path, "a name that contains '..'")),
                _ => {}
            }
            if !clean.is_empty() {
                clean.push(b'/');
            }
            clean.extend_from_slice(name);
        }
        Ok(clean)
    }

    /// The place of a clean name; missing directories on the way are made.
    pub fn place<'b>(&'b mut self, clean: &'b [u8]) -> Result<Place<'b>, Error> {
        let (parent, name) = split(clean);
        if name.is_empty() {
            return Ok(Place { parent: self.root, name: OsStr::new(".") });
        }
        if self.last.as_ref().is_none_or(|(path, _)| path != parent) {
            let opened =
                self.open_parent(parent).map_err(Error::on("reach the directory", parent))?;
            self.last = Some((parent.to_vec(), opened));
        }
        let parent = self.last.as_ref().map_or(self.root, |(_, directory)| directory.as_fd());
        Ok(Place { parent, name: OsStr::from_bytes(name) })
    }

    /// The open directory of a clean name.
    pub fn directory(&self, clean: &[u8]) -> io::Result<OwnedFd> {
        self.open(clean, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW, self.resolve)
    }

    /// Opens what a clean name leads to; nothing is made.
    pub fn open_existing(&self, clean: &[u8], flags: OFlags) -> io::Result<OwnedFd> {
        self.open(clean, flags, self.resolve)
    }

    fn open(&self, path: &[u8], flags: OFlags, resolve: ResolveFlags) -> io::Result<OwnedFd> {
        let path = if path.is_empty() { b"." } else { path };
        // A rename elsewhere on the way makes the kernel give up a look-up with `..` (EAGAIN).
        let mut attempts = 0;
        loop {
            match openat2(self.root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) if attempts < 32 => attempts += 1,
                Err(Errno::XDEV) => {
                    return Err(io::Error::other("a symbolic link leads out of the destination"));
                }
                other => return other.map_err(io::Error::from),
            }
        }
    }

    fn open_parent(&self, path: &[u8]) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        match self.open(path, flags, self.resolve) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => return other,
        }
        let mut parent = self.open(b"", flags, self.resolve)?;
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
        for end in ends.chain([path.len()]) {
            let prefix = &path[..end];
            let next = match self.open(prefix, flags, self.resolve) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    self.make_parent(parent.as_fd(), prefix)?;
                    self.open(prefix, flags, self.resolve)
                }
                other => other,
            };
            parent = next?;
        }
        Ok(parent)
    }

    fn make_parent(&self, parent: BorrowedFd<'_>, path: &[u8]) -> io::Result<()> {
        let name = split(path).1;
        match mkdirat(parent, name, self.parents.mode) {
            // A dangling link: what it should lead to is not ours to make.
            Err(Errno::EXIST) => return Err(Errno::NOENT.into()),
            other => other?,
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let contained = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
        let lower = self.parents.below.iter().find_map(|below| {
            let directory = openat2(below, path, flags, Mode::empty(), contained).ok()?;
            fstat(directory).ok()
        });
        if let Some(lower) = lower {
            let (owner, group) = (Uid::from_raw(lower.st_uid), Gid::from_raw(lower.st_gid));
            chownat(parent, name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)?;
            rustix::fs::chmodat(parent, name, mode_of(&lower), AtFlags::empty())?;
        }
        Ok(())
    }

    /// Removes what is at a place, but no directory with something in it.
    pub fn clear(&mut self, clean: &[u8]) -> Result<(), Error> {
        let removed = {
            let place = self.place(clean)?;
            match unlinkat(place.parent, place.name, AtFlags::empty()) {
                Err(Errno::ISDIR) => unlinkat(place.parent, place.name, AtFlags::REMOVEDIR),
                other => other,
            }
        };
        // The directory that was used last may be the one that is gone.
        self.last = None;
        removed.map_err(Error::on("replace it", clean))
    }
}

impl Place<'_> {
    /// What is there, links not followed.
    pub fn stat(&self) -> Result<Option<Stat>, Errno> {
        match statat(self.parent, self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            other => other.map(Some),
        }
    }

    pub fn is_directory(&self) -> Result<bool, Errno> {
        let is = |stat: Stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        Ok(self.stat()?.is_some_and(is))
    }
}

/// A clean name's directory and last part.
pub fn split(clean: &[u8]) -> (&[u8], &[u8]) {
    match clean.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&clean[..at], &clean[at + 1..]),
        None => (b"", clean),
    }
}

pub fn mode_of(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & 0o7777)
}
