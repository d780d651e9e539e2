//! A cgroup directory; everything below is reached through it.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, ResolveFlags};

use crate::error::{Error, is_gone};

/// More levels below a slot than this are not followed when it is removed.
const MAX_DEPTH: usize = 32;

/// An `O_PATH` descriptor of a cgroup directory, or of the one above it. The path is for messages.
#[derive(Debug)]
pub(crate) struct Directory {
    fd: Arc<OwnedFd>,
    /// Empty, or the name of a directory below that of `fd`, with a slash.
    below: String,
    path: PathBuf,
}

const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

impl Directory {
    pub(crate) fn open(path: &Path) -> Result<Self, Error> {
        let fd = rustix::fs::openat(CWD, path, DIRECTORY, Mode::empty())
            .map_err(|errno| io_error("open it", path.to_owned(), errno))?;
        Ok(Self { fd: Arc::new(fd), below: String::new(), path: path.to_owned() })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// For fstatfs(2): of the same file system.
    pub(crate) fn any_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Opens the directory itself.
    pub(crate) fn itself(&self) -> Result<OwnedFd, Error> {
        self.file(".", OFlags::RDONLY | OFlags::DIRECTORY)
    }

    pub(crate) fn child(&self, name: &str) -> Result<Self, Error> {
        let fd =
            self.open_at(name, DIRECTORY).map_err(|errno| self.error("open it", name, errno))?;
        Ok(Self { fd: Arc::new(fd), below: String::new(), path: self.path.join(name) })
    }

    /// A child that takes no descriptor, for those that there are thousands of: whatever directory
    /// has the name at the time is used.
    pub(crate) fn named_child(&self, name: &str) -> Result<Self, Error> {
        rustix::fs::statat(&self.fd, self.at(name), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(|errno| self.error("find it", name, errno))?;
        let below = self.at(name) + "/";
        Ok(Self { fd: Arc::clone(&self.fd), below, path: self.path.join(name) })
    }

    fn at(&self, name: &str) -> String {
        format!("{}{name}", self.below)
    }

    /// Fails if it exists.
    pub(crate) fn create(&self, name: &str) -> Result<Self, Error> {
        self.make(name)?;
        self.child(name)
    }

    /// As [`Self::create`], for [`Self::named_child`].
    pub(crate) fn create_named(&self, name: &str) -> Result<Self, Error> {
        self.make(name)?;
        self.named_child(name)
    }

    fn make(&self, name: &str) -> Result<(), Error> {
        rustix::fs::mkdirat(&self.fd, self.at(name), Mode::from_raw_mode(0o755))
            .map_err(|errno| self.error("create it", name, errno))
    }

    pub(crate) fn ensure(&self, name: &str) -> Result<Self, Error> {
        match self.create(name) {
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::AlreadyExists => {
                self.child(name)
            }
            result => result,
        }
    }

    pub(crate) fn has(&self, file: &str) -> bool {
        rustix::fs::statat(&self.fd, self.at(file), AtFlags::SYMLINK_NOFOLLOW).is_ok()
    }

    /// Whether the child of this name is that directory.
    pub(crate) fn leads_to(&self, name: &str, to: &OwnedFd) -> Result<bool, Error> {
        let failed = |errno| self.error("look at it", name, errno);
        let there = rustix::fs::statat(&self.fd, self.at(name), AtFlags::SYMLINK_NOFOLLOW);
        let Some(there) = ignore_gone(there.map_err(failed))? else { return Ok(false) };
        let to = rustix::fs::fstat(to).map_err(failed)?;
        Ok((there.st_dev, there.st_ino) == (to.st_dev, to.st_ino))
    }

    pub(crate) fn read(&self, file: &str) -> Result<String, Error> {
        let mut text = String::new();
        File::from(self.file(file, OFlags::RDONLY)?)
            .read_to_string(&mut text)
            .map_err(|source| self.io(READ, file, source))?;
        Ok(text)
    }

    /// `None` where the kernel has no such file.
    pub(crate) fn read_if_present(&self, file: &str) -> Result<Option<String>, Error> {
        match self.read(file) {
            Ok(text) => Ok(Some(text)),
            Err(err) if err.is_gone() => Ok(None),
            Err(err) => Err(err),
        }
    }

    /// One write(2), as kernfs takes it.
    pub(crate) fn write(&self, file: &str, value: &str) -> Result<(), Error> {
        let fd = self.file(file, OFlags::WRONLY)?;
        rustix::io::write(&fd, value.as_bytes())
            .map(drop)
            .map_err(|errno| self.error("write it", file, errno))
    }

    pub(crate) fn file(&self, file: &str, access: OFlags) -> Result<OwnedFd, Error> {
        self.open_at(file, access | OFlags::CLOEXEC)
            .map_err(|errno| self.error("open it", file, errno))
    }

    /// Names of the cgroups directly below.
    pub(crate) fn children(&self) -> Result<Vec<String>, Error> {
        let listing = self.file(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let failed = |errno| self.error("list it", "", errno);
        let mut names = Vec::new();
        for entry in rustix::fs::Dir::read_from(&listing).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_type() == FileType::Directory && !is_dot(entry.file_name()) {
                // A name that is not UTF-8 cannot be ours; below a slot it makes
                // the removal fail with ENOTEMPTY, which says so.
                names.extend(entry.file_name().to_str().ok().map(str::to_owned));
            }
        }
        Ok(names)
    }

    /// Every directory below, parents before children, with this one first.
    pub(crate) fn subtree(&self) -> Result<Vec<Self>, Error> {
        let mut found = vec![self.child(".")?];
        let mut level = 0..1;
        for _ in 0..MAX_DEPTH {
            let next = found.len();
            for at in level.clone() {
                for name in ignore_gone(found[at].children())?.unwrap_or_default() {
                    if let Some(child) = ignore_gone(found[at].child(&name))? {
                        found.push(child);
                    }
                }
            }
            level = next..found.len();
            if level.is_empty() {
                return Ok(found);
            }
        }
        Err(Error::TooDeep(self.path.clone()))
    }

    /// Removes a child with everything below it, if it exists. `EBUSY` says that
    /// some process is still inside.
    pub(crate) fn remove_tree(&self, name: &str) -> Result<(), Error> {
        self.remove_levels(name, MAX_DEPTH)
    }

    fn remove_levels(&self, name: &str, levels: usize) -> Result<(), Error> {
        let Some(left) = levels.checked_sub(1) else {
            return Err(Error::TooDeep(self.path.clone()));
        };
        match self.remove(name) {
            Err(Error::Io { source, .. })
                if matches!(
                    source.kind(),
                    io::ErrorKind::ResourceBusy | io::ErrorKind::DirectoryNotEmpty
                ) => {}
            result => return result,
        }
        let Some(child) = ignore_gone(self.child(name))? else { return Ok(()) };
        for grandchild in ignore_gone(child.children())?.unwrap_or_default() {
            child.remove_levels(&grandchild, left)?;
        }
        self.remove(name)
    }

    fn remove(&self, name: &str) -> Result<(), Error> {
        match rustix::fs::unlinkat(&self.fd, self.at(name), AtFlags::REMOVEDIR) {
            Err(errno) if !is_gone(&errno.into()) => Err(self.error("remove it", name, errno)),
            _ => Ok(()),
        }
    }

    /// Names come from readdir below a tree that a privileged container may
    /// write to, so nothing leads out of this directory.
    fn open_at(&self, name: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        let stay = ResolveFlags::BENEATH
            | ResolveFlags::NO_SYMLINKS
            | ResolveFlags::NO_MAGICLINKS
            | ResolveFlags::NO_XDEV;
        rustix::fs::openat2(&self.fd, self.at(name), flags, Mode::empty(), stay)
    }

    pub(crate) fn malformed(&self, file: &str, text: &str) -> Error {
        let line = text.lines().next().unwrap_or_default().chars().take(120).collect();
        Error::Malformed { path: self.path.join(file), text: line }
    }

    pub(crate) fn error(
        &self,
        action: &'static str,
        name: &str,
        errno: rustix::io::Errno,
    ) -> Error {
        self.io(action, name, errno.into())
    }

    pub(crate) fn io(&self, action: &'static str, name: &str, source: io::Error) -> Error {
        let path = if name.is_empty() { self.path.clone() } else { self.path.join(name) };
        Error::Io { action, path, source }
    }
}

const READ: &str = "read it";

fn io_error(action: &'static str, path: PathBuf, errno: rustix::io::Errno) -> Error {
    Error::Io { action, path, source: errno.into() }
}

fn is_dot(name: &CStr) -> bool {
    name == c"." || name == c".."
}

/// Cgroups come and go while a tree is walked.
pub(crate) fn ignore_gone<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(err) if err.is_gone() => Ok(None),
        Err(err) => Err(err),
    }
}
