//! A directory's copy in which root's files belong to somebody else: what an idmapped mount shows,
//! for file systems that have no such mounts.

use std::collections::HashMap;
use std::ffi::{CStr, CString};
use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags,
    chownat, fchmod, fgetxattr, flistxattr, fsetxattr, linkat, mkdirat, mknodat, openat,
    readlinkat, statat, symlinkat, utimensat,
};
use rustix::io::Errno;

/// Something that changes when any file below the directory does.
pub fn fingerprint(directory: &Path) -> io::Result<Vec<u8>> {
    fn note(path: &Path, into: &mut Vec<u8>) -> io::Result<()> {
        let data = fs::symlink_metadata(path)?;
        let times = [data.ctime(), data.ctime_nsec()];
        into.extend(data.ino().to_ne_bytes());
        into.extend(times.iter().flat_map(|time| time.to_ne_bytes()));
        if data.is_dir() {
            let entries = fs::read_dir(path)?;
            let mut paths: Vec<PathBuf> =
                entries.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
            paths.sort();
            paths.iter().try_for_each(|path| note(path, into))?;
        }
        Ok(())
    }
    let mut bytes = directory.as_os_str().as_encoded_bytes().to_vec();
    note(directory, &mut bytes)?;
    Ok(bytes)
}

/// Copies everything below `from` into the empty directory `to`, and its own mode and owner.
pub fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>, root: u32) -> io::Result<()> {
    let top = to.try_clone_to_owned()?;
    Copying { root, top, links: HashMap::new() }.directory(from, to, Vec::new())
}

struct Copying {
    root: u32,
    top: OwnedFd,
    /// Files with several names: where the first copy is, from the top.
    links: HashMap<(u64, u64), Vec<u8>>,
}

impl Copying {
    fn owner(&self, stat: &Stat) -> (Option<Uid>, Option<Gid>) {
        let shifted = |id| if id == 0 { self.root } else { id };
        (Some(Uid::from_raw(shifted(stat.st_uid))), Some(Gid::from_raw(shifted(stat.st_gid))))
    }

    fn directory(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        path: Vec<u8>,
    ) -> io::Result<()> {
        for entry in Dir::read_from(from)? {
            let entry = entry?;
            let name = entry.file_name();
            if !matches!(name.to_bytes(), b"." | b"..") {
                let below = [path.as_slice(), name.to_bytes()].join(&b'/');
                self.file(from, to, name, below)?;
            }
        }
        let stat = rustix::fs::fstat(from)?;
        self.dress(from, to, &stat)?;
        fchmod(to, Mode::from_raw_mode(stat.st_mode & 0o7777))?;
        Ok(rustix::fs::futimens(to, &times(&stat))?)
    }

    fn file(
        &mut self,
        from: BorrowedFd<'_>,
        to: BorrowedFd<'_>,
        name: &CStr,
        path: Vec<u8>,
    ) -> io::Result<()> {
        let stat = statat(from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
        let reading = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        if kind == FileType::Directory {
            mkdirat(to, name, Mode::RWXU)?;
            let source = openat(from, name, reading | OFlags::DIRECTORY, Mode::empty())?;
            let target = openat(to, name, reading | OFlags::DIRECTORY, Mode::empty())?;
            return self.directory(source.as_fd(), target.as_fd(), path);
        }
        if stat.st_nlink > 1 {
            let inode = (stat.st_dev, stat.st_ino);
            if let Some(first) = self.links.get(&inode) {
                let first = CString::new(&first[1..])?;
                return Ok(linkat(&self.top, first.as_c_str(), to, name, AtFlags::empty())?);
            }
            self.links.insert(inode, path);
        }
        match kind {
            FileType::RegularFile => {
                let mut source = File::from(openat(from, name, reading, Mode::empty())?);
                let making = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
                let mut target = File::from(openat(to, name, making, Mode::RUSR | Mode::WUSR)?);
                io::copy(&mut source, &mut target)?;
                self.dress(source.as_fd(), target.as_fd(), &stat)?;
                fchmod(&target, mode)?;
                return Ok(rustix::fs::futimens(&target, &times(&stat))?);
            }
            FileType::Symlink => symlinkat(readlinkat(from, name, Vec::new())?, to, name)?,
            // Overlay's whiteouts are devices.
            other => mknodat(to, name, other, mode, stat.st_rdev)?,
        }
        let (owner, group) = self.owner(&stat);
        chownat(to, name, owner, group, AtFlags::SYMLINK_NOFOLLOW)?;
        if kind != FileType::Symlink {
            rustix::fs::chmodat(to, name, mode, AtFlags::empty())?;
        }
        Ok(utimensat(to, name, &times(&stat), AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Owner and extended attributes; a change of owner takes file capabilities away.
    fn dress(&self, from: BorrowedFd<'_>, to: BorrowedFd<'_>, stat: &Stat) -> io::Result<()> {
        const MOST: usize = 64 * 1024;
        let (owner, group) = self.owner(stat);
        rustix::fs::fchown(to, owner, group)?;
        let mut list = vec![0; MOST];
        let length = match flistxattr(from, &mut list[..]) {
            Err(Errno::OPNOTSUPP) => 0,
            other => other?,
        };
        for name in list[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            let mut value = vec![0; MOST];
            let length = fgetxattr(from, name, &mut value[..])?;
            value.truncate(length);
            if name == b"security.capability" {
                value = self.capabilities(value);
            }
            match fsetxattr(to, name, &value, XattrFlags::empty()) {
                Err(Errno::OPNOTSUPP) => {}
                other => other?,
            }
        }
        Ok(())
    }

    /// File capabilities count in the user namespace of their root id only (capabilities(7),
    /// "Namespaced file capabilities"): version 2 has none, version 3 ends with it.
    fn capabilities(&self, mut value: Vec<u8>) -> Vec<u8> {
        const VERSION_2: u8 = 2;
        const VERSION_3: u8 = 3;
        if value.len() == 20 && value[3] == VERSION_2 {
            value[3] = VERSION_3;
            value.extend(self.root.to_le_bytes());
        }
        value
    }
}

fn times(stat: &Stat) -> Timestamps {
    let at = |seconds, nanoseconds: u64| Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds.try_into().unwrap_or(0),
    };
    Timestamps {
        last_access: at(stat.st_atime, stat.st_atime_nsec),
        last_modification: at(stat.st_mtime, stat.st_mtime_nsec),
    }
}
