//! Directory into archive, as `tar --format=posix --sort=name` writes it: pax records for times
//! and whatever does not fit, two blocks of zeros, padded to records of 10,240 bytes.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{
    AtFlags, Dir, FileType, Mode, OFlags, Stat, fgetxattr, flistxattr, fstat, major, minor, openat,
    readlinkat, statat,
};
use rustix::io::Errno;
use tar::{EntryType, Header};

use super::Attributes;
use super::error::Error;

const BLOCK: u64 = 512;
const RECORD: u64 = 20 * BLOCK;
const FIELD: usize = 100;

/// Names of owners by number; those that are missing stay numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Users.
    pub users: BTreeMap<u32, Vec<u8>>,
    /// Groups.
    pub groups: BTreeMap<u32, Vec<u8>>,
}

/// Packs `base`, a name in the directory `parent` or `.` for `parent` itself, with everything below.
/// A symbolic link is packed as one. Files that vanish meanwhile are left out, files that shrink are
/// filled with zeros, sockets are ignored; what cannot be read is an error, the first before a
/// single byte is written. Extended attributes of users are kept.
pub fn pack<W: Write>(
    parent: BorrowedFd<'_>,
    base: &CStr,
    names: &Names,
    out: W,
) -> Result<(), Error> {
    let mut packing = Packing { out, written: 0, names, links: HashMap::new() };
    packing.file(parent, base, base.to_bytes().to_vec(), true)?;
    let end = (packing.written + 2 * BLOCK).next_multiple_of(RECORD);
    packing.zeros(end - packing.written)?;
    packing.out.flush().map_err(writing)
}

struct Packing<'a, W> {
    out: W,
    written: u64,
    names: &'a Names,
    /// Where files with several names are in the archive.
    links: HashMap<(u64, u64), Vec<u8>>,
}

fn writing(source: io::Error) -> Error {
    Error::Stream { attempt: "write", source }
}

impl<W: Write> Packing<'_, W> {
    fn file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: Vec<u8>,
        top: bool,
    ) -> Result<(), Error> {
        match self.try_file(parent, name, path) {
            Err(Error::File { source, .. }) if !top && source.kind() == io::ErrorKind::NotFound => {
                Ok(())
            }
            other => other,
        }
    }

    fn try_file(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: Vec<u8>,
    ) -> Result<(), Error> {
        let stat =
            statat(parent, name, AtFlags::SYMLINK_NOFOLLOW).map_err(Error::on("stat it", &path))?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        if kind == FileType::Socket {
            return Ok(());
        }
        let several = stat.st_nlink > 1 && kind != FileType::Directory;
        if several && let Some(first) = self.links.get(&(stat.st_dev, stat.st_ino)) {
            let first = first.clone();
            return self.header(&path, &stat, EntryType::Link, 0, &first, Vec::new());
        }
        match kind {
            FileType::Directory => return self.directory(parent, name, path),
            FileType::RegularFile => self.content(parent, name, &path)?,
            FileType::Symlink => {
                let target = readlinkat(parent, name, Vec::new())
                    .map_err(Error::on("read the link", &path))?;
                self.header(&path, &stat, EntryType::Symlink, 0, target.as_bytes(), Vec::new())?;
            }
            other => {
                let entry = match other {
                    FileType::Fifo => EntryType::Fifo,
                    FileType::CharacterDevice => EntryType::Char,
                    FileType::BlockDevice => EntryType::Block,
                    _ => return Err(Error::refused(&path, "a file of an unknown type")),
                };
                self.header(&path, &stat, entry, 0, b"", Vec::new())?;
            }
        }
        if several {
            self.links.insert((stat.st_dev, stat.st_ino), path);
        }
        Ok(())
    }

    /// Opens what must still be of this type.
    fn open(
        parent: BorrowedFd<'_>,
        name: &CStr,
        path: &[u8],
        kind: FileType,
    ) -> Result<(OwnedFd, Stat), Error> {
        // A pipe that has taken its place must not hold us.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file =
            openat(parent, name, flags, Mode::empty()).map_err(Error::on("open it", path))?;
        let stat = fstat(&file).map_err(Error::on("stat it", path))?;
        if FileType::from_raw_mode(stat.st_mode) != kind {
            return Err(Error::refused(path, "it became something else while it was read"));
        }
        Ok((file, stat))
    }

    fn directory(
        &mut self,
        parent: BorrowedFd<'_>,
        name: &CStr,
        mut path: Vec<u8>,
    ) -> Result<(), Error> {
        let (directory, stat) = Self::open(parent, name, &path, FileType::Directory)?;
        let mut inside = Vec::new();
        let entries = Dir::read_from(&directory).map_err(Error::on("read the directory", &path))?;
        for entry in entries {
            let entry = entry.map_err(Error::on("read the directory", &path))?;
            if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
                inside.push(CString::from(entry.file_name()));
            }
        }
        inside.sort();
        path.push(b'/');
        let xattrs = xattrs(directory.as_fd(), &path)?;
        self.header(&path, &stat, EntryType::Directory, 0, b"", xattrs)?;
        for name in inside {
            let below = [path.as_slice(), name.to_bytes()].concat();
            self.file(directory.as_fd(), &name, below, false)?;
        }
        Ok(())
    }

    fn content(&mut self, parent: BorrowedFd<'_>, name: &CStr, path: &[u8]) -> Result<(), Error> {
        let (file, stat) = Self::open(parent, name, path, FileType::RegularFile)?;
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        let xattrs = xattrs(file.as_fd(), path)?;
        let mut file = File::from(file).take(size);
        // What cannot be read must be known before the header is out.
        let mut buffer = vec![0; 128 * 1024];
        let mut filled = file.read(&mut buffer).map_err(Error::on("read it", path))?;
        self.header(path, &stat, EntryType::Regular, size, b"", xattrs)?;
        let mut left = size;
        while filled > 0 {
            self.write(&buffer[..filled])?;
            left -= filled as u64;
            filled = file.read(&mut buffer).map_err(Error::on("read it", path))?;
        }
        self.zeros(left + size.wrapping_neg() % BLOCK)
    }

    fn header(
        &mut self,
        path: &[u8],
        stat: &Stat,
        kind: EntryType,
        size: u64,
        link: &[u8],
        xattrs: Attributes,
    ) -> Result<(), Error> {
        let mut records = Vec::new();
        let unfit = |text: &[u8]| text.len() > FIELD || !text.is_ascii();
        if unfit(path) {
            record(&mut records, b"path", path);
        }
        if unfit(link) {
            record(&mut records, b"linkpath", link);
        }
        if octal_digits(size) > 11 {
            record(&mut records, b"size", size.to_string().as_bytes());
        }
        for (key, id) in [(b"uid", stat.st_uid), (b"gid", stat.st_gid)] {
            if octal_digits(id.into()) > 7 {
                record(&mut records, key, id.to_string().as_bytes());
            }
        }
        if stat.st_mtime < 0 || stat.st_mtime_nsec != 0 {
            record(&mut records, b"mtime", time(stat.st_mtime, stat.st_mtime_nsec).as_bytes());
        }
        record(&mut records, b"atime", time(stat.st_atime, stat.st_atime_nsec).as_bytes());
        record(&mut records, b"ctime", time(stat.st_ctime, stat.st_ctime_nsec).as_bytes());
        for (name, value) in xattrs {
            record(&mut records, &[b"SCHILY.xattr.", name.as_slice()].concat(), &value);
        }
        let mut extended = blank(&extended_name(path), EntryType::XHeader, records.len() as u64);
        extended.set_mode(0o644);
        extended.set_uid(0);
        extended.set_gid(0);
        let modified = u64::try_from(stat.st_mtime).unwrap_or(0);
        extended.set_mtime(modified);
        seal(&mut extended);
        self.write(extended.as_bytes())?;
        self.write(&records)?;
        self.zeros((records.len() as u64).wrapping_neg() % BLOCK)?;

        let mut header = blank(path, kind, size);
        header.set_mode(stat.st_mode & 0o7777);
        let fits = |id: u32| if octal_digits(id.into()) > 7 { 0 } else { id.into() };
        header.set_uid(fits(stat.st_uid));
        header.set_gid(fits(stat.st_gid));
        header.set_mtime(modified);
        let device = matches!(kind, EntryType::Char | EntryType::Block).then_some(stat.st_rdev);
        if let Some(ustar) = header.as_ustar_mut() {
            put(&mut ustar.linkname, link);
            put(&mut ustar.uname, self.names.users.get(&stat.st_uid).map_or(b"", Vec::as_slice));
            put(&mut ustar.gname, self.names.groups.get(&stat.st_gid).map_or(b"", Vec::as_slice));
            ustar.set_device_major(device.map_or(0, major));
            ustar.set_device_minor(device.map_or(0, minor));
        }
        seal(&mut header);
        self.write(header.as_bytes())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.out.write_all(bytes).map_err(writing)?;
        self.written += bytes.len() as u64;
        Ok(())
    }

    fn zeros(&mut self, count: u64) -> Result<(), Error> {
        let copied = io::copy(&mut io::repeat(0).take(count), &mut self.out).map_err(writing)?;
        self.written += copied;
        Ok(())
    }
}

/// A header with what every one has; its name is cut where it does not fit.
fn blank(name: &[u8], kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_ustar();
    if let Some(ustar) = header.as_ustar_mut() {
        put(&mut ustar.name, name);
    }
    header.set_entry_type(kind);
    // A size beyond the field is in the extended header.
    header.set_size(if octal_digits(size) > 11 { 0 } else { size });
    header
}

/// The checksum in GNU's spelling: six digits, NUL, space.
fn seal(header: &mut Header) {
    header.set_cksum();
    let sum = header.cksum().unwrap_or(0);
    put(&mut header.as_old_mut().cksum, format!("{sum:06o}\0 ").as_bytes());
}

fn put(field: &mut [u8], text: &[u8]) {
    let length = text.len().min(field.len());
    field[..length].copy_from_slice(&text[..length]);
}

/// `DIRECTORY/PaxHeaders/FILE`, where tools that know no extended headers put them.
fn extended_name(path: &[u8]) -> Vec<u8> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let (directory, file) = match path.iter().rposition(|byte| *byte == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b".".as_slice(), path),
    };
    [directory, b"/PaxHeaders/", file].concat()
}

/// `LENGTH KEY=VALUE\n`, where LENGTH counts itself.
fn record(records: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    records.extend_from_slice(length.to_string().as_bytes());
    records.push(b' ');
    records.extend_from_slice(key);
    records.push(b'=');
    records.extend_from_slice(value);
    records.push(b'\n');
}

/// Seconds with as many decimals as needed.
fn time(seconds: i64, nanoseconds: impl TryInto<u64>) -> String {
    let nanoseconds = nanoseconds.try_into().unwrap_or(0);
    if nanoseconds == 0 {
        return seconds.to_string();
    }
    // Before the epoch the fraction counts towards it.
    let (sign, whole, part) = if seconds < 0 {
        ("-", -(seconds + 1), 1_000_000_000 - nanoseconds)
    } else {
        ("", seconds, nanoseconds)
    };
    format!("{sign}{whole}.{part:09}").trim_end_matches('0').to_owned()
}

fn octal_digits(value: u64) -> u32 {
    (u64::BITS - value.leading_zeros()).div_ceil(3)
}

/// Users' extended attributes of an open file.
fn xattrs(file: BorrowedFd<'_>, path: &[u8]) -> Result<Attributes, Error> {
    const MOST: usize = 64 * 1024;
    let failed = |errno| Error::on("read the attributes of it", path)(errno);
    let mut list = vec![0; MOST];
    let length = match flistxattr(file, &mut list[..]) {
        Err(Errno::OPNOTSUPP) => return Ok(Vec::new()),
        other => other.map_err(failed)?,
    };
    let mut found = Vec::new();
    for name in list[..length].split(|byte| *byte == 0) {
        if !name.starts_with(b"user.") {
            continue;
        }
        let mut value = vec![0; MOST];
        match fgetxattr(file, name, &mut value[..]) {
            Err(Errno::NODATA) => {}
            other => {
                value.truncate(other.map_err(failed)?);
                found.push((name.to_vec(), value));
            }
        }
    }
    Ok(found)
}
