//! Archive into directory.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::fd::{AsFd, BorrowedFd};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, Timespec, Timestamps, Uid, XattrFlags, chownat,
    fchmod, fchown, fsetxattr, fstat, futimens, linkat, mkdirat, mknodat, openat, statat,
    symlinkat, utimensat,
};
use rustix::io::Errno;

use super::error::{Error, Failures};
use super::member::{Kind, Member, Members};
use super::tree::{Parents, Tree, mode_of, split};

pub use super::tree::Containment;

/// Whose the unpacked files are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// The calling user's; permissions pass this umask and lose their set-id and sticky bits.
    /// Extended attributes are kept as far as the user may set them, and a device is an error.
    Caller {
        /// Bits to take away.
        umask: u32,
    },
    /// The archive's, with all permission bits. Devices are left out, and attributes that say how
    /// an overlay is to be read.
    Archive,
}

/// How an archive is unpacked.
#[derive(Debug)]
pub struct Policy<'a> {
    /// What a symbolic link on the way to a member means.
    pub containment: Containment,
    /// Whose the files are.
    pub owners: Owners,
    /// Names that begin with a slash lose it; else they are refused.
    pub absolute_names: bool,
    /// `.wh.` members are an image layer's deletions, and become overlay's
    /// (image-spec, "Whiteouts"; kernel, "overlayfs", "whiteouts and opaque directories").
    pub whiteouts: bool,
    /// After a member that cannot be unpacked go on with the next, as GNU tar does, and tell of all
    /// failures at the end. Else the first one is the end.
    pub goes_on: bool,
    /// Directories that this one will be laid over, topmost first. A directory that the archive
    /// has files in but does not name looks as it does there.
    pub below: Vec<BorrowedFd<'a>>,
}

/// What came out of an archive.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// Members that are now files.
    pub members: u64,
    /// Devices that were left out.
    pub devices: u64,
}

/// Directories remembered until the end, in bytes of their names.
const MOST_REMEMBERED: usize = 256 << 20;
const WHITEOUT: &[u8] = b".wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";
/// Other names with a meaning among aufs' own files; no layer should have them.
const RESERVED: &[u8] = b".wh..wh.";

/// Unpacks an archive into the directory `root`. What has been unpacked stays, whatever fails.
/// Reads `source` in small pieces, so it should be buffered, and not beyond the archive's end.
pub fn unpack<R: Read>(
    source: R,
    root: BorrowedFd<'_>,
    policy: &Policy<'_>,
) -> Result<Unpacked, Error> {
    let umask = match policy.owners {
        Owners::Caller { umask } => umask,
        Owners::Archive => 0o022,
    };
    let parents =
        Parents { mode: Mode::from_raw_mode(0o755 & !umask), below: policy.below.clone() };
    let tree = Tree::new(root, policy.containment, policy.absolute_names, parents);
    let mut unpacking =
        Unpacking { tree, policy, later: Vec::new(), remembered: 0, unpacked: Unpacked::default() };
    let mut members = Members::new(source);
    let mut failures = Failures::default();
    let mut all = || {
        while let Some(member) = members.next()? {
            match unpacking.member(&member, &mut members) {
                Err(error) if policy.goes_on && error.is_of_one_member() => failures.add(error),
                outcome => outcome?,
            }
        }
        unpacking.finish()
    };
    match all() {
        Err(error) if failures.is_empty() => Err(error),
        Err(error) => {
            failures.add(error);
            Err(Error::Members(failures))
        }
        Ok(()) if failures.is_empty() => Ok(unpacking.unpacked),
        Ok(()) => Err(Error::Members(failures)),
    }
}

struct Unpacking<'a> {
    tree: Tree<'a>,
    policy: &'a Policy<'a>,
    /// Directories get their permissions and times when everything is in them.
    later: Vec<Directory>,
    remembered: usize,
    unpacked: Unpacked,
}

struct Directory {
    path: Vec<u8>,
    device: u64,
    inode: u64,
    mode: Mode,
    modified: (i64, u32),
    /// It was there before and may be somebody else's.
    existed: bool,
}

impl Unpacking<'_> {
    fn member<R: Read>(&mut self, member: &Member, members: &mut Members<R>) -> Result<(), Error> {
        let path = self.tree.clean(&member.path)?;
        let name = split(&path).1;
        if self.policy.whiteouts && name.starts_with(WHITEOUT) {
            return self.whiteout(&path);
        }
        if path.is_empty() && member.kind != Kind::Directory {
            return Err(Error::refused(&member.path, "only a directory can be '.'"));
        }
        match member.kind {
            Kind::Directory => self.directory(&path, member)?,
            Kind::File => self.file(&path, member, members)?,
            Kind::Symlink => self.symlink(&path, member)?,
            Kind::HardLink => self.hard_link(&path, member)?,
            Kind::Fifo => self.fifo(&path, member)?,
            Kind::Device => match self.policy.owners {
                Owners::Archive => {
                    self.unpacked.devices += 1;
                    return Ok(());
                }
                Owners::Caller { .. } => {
                    return Err(Error::refused(&member.path, "Cannot mknod: devices are refused"));
                }
            },
        }
        self.unpacked.members += 1;
        Ok(())
    }

    /// Tries to make something at a place; if something else is there, it gives way once.
    fn replacing<T>(
        &mut self,
        path: &[u8],
        attempt: &'static str,
        make: impl Fn(BorrowedFd<'_>, &std::ffi::OsStr) -> Result<T, Errno>,
    ) -> Result<T, Error> {
        let place = self.tree.place(path)?;
        match make(place.parent, place.name) {
            Err(Errno::EXIST) => {}
            other => return other.map_err(Error::on(attempt, path)),
        }
        self.tree.clear(path)?;
        let place = self.tree.place(path)?;
        make(place.parent, place.name).map_err(Error::on(attempt, path))
    }

    fn file<R: Read>(
        &mut self,
        path: &[u8],
        member: &Member,
        members: &mut Members<R>,
    ) -> Result<(), Error> {
        let flags =
            OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let private = Mode::RUSR | Mode::WUSR;
        let file =
            self.replacing(path, "open it", |parent, name| openat(parent, name, flags, private))?;
        let mut file = File::from(file);
        let mut buffer = vec![0; 128 * 1024];
        let mut written = 0;
        for (offset, length) in member.extents.iter().filter(|(_, length)| *length > 0) {
            if *offset != written {
                file.seek(SeekFrom::Start(*offset)).map_err(Error::on("write it", path))?;
            }
            let mut left = *length;
            while left > 0 {
                let most = buffer.len() as u64;
                let piece = usize::try_from(left.min(most)).unwrap_or(buffer.len());
                members.read(&mut buffer[..piece])?;
                file.write_all(&buffer[..piece]).map_err(Error::on("write it", path))?;
                left -= piece as u64;
            }
            written = offset + length;
        }
        if written != member.size {
            file.set_len(member.size).map_err(Error::on("write it", path))?;
        }
        self.dress(file.as_fd(), path, member)?;
        fchmod(&file, self.mode(member)).map_err(Error::on("change the mode of it", path))?;
        futimens(&file, &times(member.modified)).map_err(Error::on("set the time of it", path))
    }

    fn directory(&mut self, path: &[u8], member: &Member) -> Result<(), Error> {
        // Until the end we must be able to write into it.
        let mode = self.mode(member);
        let until = (mode & Mode::from_raw_mode(0o777)) | Mode::RWXU;
        let existed =
            self.tree.place(path)?.is_directory().map_err(Error::on("look at it", path))?;
        if !existed {
            self.replacing(path, "make the directory", |parent, name| {
                mkdirat(parent, name, until)
            })?;
        }
        let place = self.tree.place(path)?;
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let directory = match openat(place.parent, place.name, flags, Mode::empty()) {
            // Somebody else's, which can be used though not read or changed.
            Err(Errno::ACCESS) if existed => return Ok(()),
            other => other.map_err(Error::on("open the directory", path))?,
        };
        let stat = fstat(&directory).map_err(Error::on("look at it", path))?;
        self.dress(directory.as_fd(), path, member)?;
        if !existed || self.policy.owners == Owners::Archive {
            fchmod(&directory, until).map_err(Error::on("change the mode of it", path))?;
        }
        self.remembered += path.len() + size_of::<Directory>();
        if self.remembered > MOST_REMEMBERED {
            return Err(Error::Malformed("more directories than anybody has".into()));
        }
        let mode = match self.policy.owners {
            // What the sticky bit protects is not the archive's to decide.
            Owners::Caller { .. } if existed => {
                mode | (mode_of(&stat) & Mode::from_raw_mode(0o7000))
            }
            _ => mode,
        };
        self.later.push(Directory {
            path: path.to_vec(),
            device: stat.st_dev,
            inode: stat.st_ino,
            mode,
            modified: member.modified,
            existed,
        });
        Ok(())
    }

    fn symlink(&mut self, path: &[u8], member: &Member) -> Result<(), Error> {
        if member.link.is_empty() {
            return Err(Error::refused(path, "a symbolic link to nothing"));
        }
        self.replacing(path, "make the symbolic link", |parent, name| {
            symlinkat(member.link.as_slice(), parent, name)
        })?;
        self.dress_by_name(path, member)
    }

    fn hard_link(&mut self, path: &[u8], member: &Member) -> Result<(), Error> {
        let target = self.tree.clean(&member.link)?;
        let (directory, target_name) = split(&target);
        let outside = Error::on("reach the target of the link", path);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let directory = self.tree.open_existing(directory, flags).map_err(outside)?;
        let there = |error| Error::on("link it to what is not there", path)(error);
        let target_stat =
            statat(&directory, target_name, AtFlags::SYMLINK_NOFOLLOW).map_err(there)?;
        let place = self.tree.place(path)?;
        if let Some(stat) = place.stat().map_err(Error::on("look at it", path))?
            && (stat.st_dev, stat.st_ino) == (target_stat.st_dev, target_stat.st_ino)
        {
            return Ok(());
        }
        self.replacing(path, "make the hard link", |parent, name| {
            linkat(&directory, target_name, parent, name, AtFlags::empty())
        })
    }

    fn fifo(&mut self, path: &[u8], member: &Member) -> Result<(), Error> {
        let mode = self.mode(member);
        self.replacing(path, "make the named pipe", |parent, name| {
            mknodat(parent, name, FileType::Fifo, mode, 0)
        })?;
        self.dress_by_name(path, member)?;
        if self.policy.owners == Owners::Archive {
            // Nobody else is in a layer's directory, so the name is still what we made.
            let place = self.tree.place(path)?;
            rustix::fs::chmodat(place.parent, place.name, mode, AtFlags::empty())
                .map_err(Error::on("change the mode of it", path))?;
        }
        Ok(())
    }

    /// A layer's deletion of what lies below it.
    fn whiteout(&mut self, path: &[u8]) -> Result<(), Error> {
        let (parent, name) = split(path);
        if name == OPAQUE {
            if parent.is_empty() {
                return Err(Error::refused(path, "a layer that deletes the whole image"));
            }
            let _ = self.tree.place(path)?;
            let directory =
                self.tree.directory(parent).map_err(Error::on("open the directory", parent))?;
            return fsetxattr(&directory, "trusted.overlay.opaque", b"y", XattrFlags::empty())
                .map_err(Error::on("make it opaque", parent));
        }
        let hidden = &name[WHITEOUT.len()..];
        if name.starts_with(RESERVED) || matches!(hidden, b"" | b"." | b"..") {
            return Err(Error::refused(path, "a whiteout of an impossible name"));
        }
        let mut target = parent.to_vec();
        if !target.is_empty() {
            target.push(b'/');
        }
        target.extend_from_slice(hidden);
        let place = self.tree.place(&target)?;
        // A layer's own file is newer than what it deletes, in whichever order they come.
        if place.stat().map_err(Error::on("look at it", &target))?.is_some() {
            return Ok(());
        }
        mknodat(place.parent, place.name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(Error::on("make the whiteout", &target))
    }

    fn mode(&self, member: &Member) -> Mode {
        Mode::from_raw_mode(match self.policy.owners {
            Owners::Caller { umask } => member.mode & 0o777 & !umask,
            Owners::Archive => member.mode & 0o7777,
        })
    }

    /// Owner and extended attributes. Permissions come afterwards: a change of owner takes set-id
    /// bits away; but file capabilities go with it, too, so they come after the owner.
    fn dress(&self, file: BorrowedFd<'_>, path: &[u8], member: &Member) -> Result<(), Error> {
        if self.policy.owners == Owners::Archive {
            let (owner, group) = owner(path, member)?;
            fchown(file, Some(owner), Some(group))
                .map_err(Error::on("change the owner of it", path))?;
        }
        for (name, value) in &member.xattrs {
            if self.policy.owners == Owners::Archive && !belongs_to_images(name) {
                continue;
            }
            match fsetxattr(file, name.as_slice(), value, XattrFlags::empty()) {
                // Not every file system has them, and not every user may.
                Err(
                    Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::INVAL | Errno::RANGE,
                ) => {}
                other => other.map_err(Error::on("set an attribute of it", path))?,
            }
        }
        Ok(())
    }

    /// Owner and times of what cannot or should not be opened.
    fn dress_by_name(&mut self, path: &[u8], member: &Member) -> Result<(), Error> {
        let archived = self.policy.owners == Owners::Archive;
        let place = self.tree.place(path)?;
        if archived {
            let (owner, group) = owner(path, member)?;
            chownat(place.parent, place.name, Some(owner), Some(group), AtFlags::SYMLINK_NOFOLLOW)
                .map_err(Error::on("change the owner of it", path))?;
        }
        utimensat(place.parent, place.name, &times(member.modified), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(Error::on("set the time of it", path))
    }

    fn finish(&mut self) -> Result<(), Error> {
        // From the inside out: a directory's own permissions may hide those in it. Of two entries
        // for one directory the later counts.
        self.later.sort_by(|one, other| other.path.cmp(&one.path));
        for directory in std::mem::take(&mut self.later) {
            let path = &directory.path;
            // Something newer may be there: then this entry has been replaced.
            let Ok(open) = self.tree.directory(path) else { continue };
            let is_same =
                |stat: Stat| stat.st_dev == directory.device && stat.st_ino == directory.inode;
            if !fstat(&open).is_ok_and(is_same) {
                continue;
            }
            let set = futimens(&open, &times(directory.modified))
                .and_then(|()| fchmod(&open, directory.mode));
            match set {
                Err(Errno::PERM) if directory.existed => {}
                other => other.map_err(Error::on("change the mode of it", path))?,
            }
        }
        Ok(())
    }
}

fn owner(path: &[u8], member: &Member) -> Result<(Uid, Gid), Error> {
    let id = |value: u64| {
        u32::try_from(value)
            .ok()
            .filter(|id| *id != u32::MAX)
            .ok_or_else(|| Error::refused(path, "an owner beyond 32 bits"))
    };
    Ok((Uid::from_raw(id(member.uid)?), Gid::from_raw(id(member.gid)?)))
}

/// Attributes that an image may bring: data, file capabilities and access lists.
fn belongs_to_images(name: &[u8]) -> bool {
    name == b"security.capability"
        || name.starts_with(b"system.posix_acl_")
        || (name.starts_with(b"user.") && !name.starts_with(b"user.overlay."))
}

fn times((seconds, nanoseconds): (i64, u32)) -> Timestamps {
    let at = Timespec { tv_sec: seconds, tv_nsec: nanoseconds.into() };
    Timestamps { last_access: at, last_modification: at }
}
