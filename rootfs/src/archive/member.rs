//! Reads an archive member by member: POSIX ustar and pax, GNU long names, all GNU sparse formats.
//!
//! Sources: pax(1) "pax Interchange Format", and the GNU tar manual, "Basic Tar Format" and
//! "Storing Sparse Files".

use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, Header};

use super::Attributes;
use super::error::Error;

const BLOCK: usize = 512;
/// Of what describes one member: long names and extended headers together. Linux' own limits are
/// 4 KiB for a path and 64 KiB for an extended attribute.
const MOST_METADATA: usize = 1 << 20;
/// Of pieces in one sparse file.
const MOST_EXTENTS: usize = 1 << 20;

/// What a member is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A regular file; its content follows.
    File,
    /// A directory.
    Directory,
    /// A symbolic link to the member's link.
    Symlink,
    /// Another name for an earlier member.
    HardLink,
    /// A named pipe.
    Fifo,
    /// A character or block device.
    Device,
}

/// One file as the archive describes it. Nothing in it has been checked against any directory.
#[derive(Clone, Debug)]
pub struct Member {
    /// What it is.
    pub kind: Kind,
    /// Its name as written.
    pub path: Vec<u8>,
    /// Target of a link as written, else empty.
    pub link: Vec<u8>,
    /// Permission bits with set-id and sticky bits.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u64,
    /// Numeric group.
    pub gid: u64,
    /// Seconds since the epoch and nanoseconds.
    pub modified: (i64, u32),
    /// Names and values of extended attributes.
    pub xattrs: Attributes,
    /// Length of the file, holes included.
    pub size: u64,
    /// Where content lies in the file (offset, length), ascending; everything else is a hole.
    pub extents: Vec<(u64, u64)>,
}

/// A source of members.
#[derive(Debug)]
pub struct Members<R> {
    source: R,
    /// Content of the current member not read yet.
    content: u64,
    /// Zeros after it.
    padding: u64,
    begun: bool,
    ended: bool,
}

/// Records of extended headers and GNU long names, until the member that they describe comes.
#[derive(Debug, Default)]
struct Extensions {
    records: Attributes,
    path: Option<Vec<u8>>,
    link: Option<Vec<u8>>,
    bytes: usize,
}

impl<R: Read> Members<R> {
    pub fn new(source: R) -> Self {
        Self { source, content: 0, padding: 0, begun: false, ended: false }
    }

    /// The next member; what is left of the current one is skipped.
    pub fn next(&mut self) -> Result<Option<Member>, Error> {
        let mut extensions = Extensions::default();
        loop {
            self.skip()?;
            let Some(header) = self.header()? else {
                let described = extensions.bytes > 0;
                return if described { Err(Error::Truncated) } else { Ok(None) };
            };
            let size = header.entry_size().map_err(|error| malformed(&error))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    let bytes = self.metadata(size, &mut extensions)?;
                    extensions.add_records(&bytes)?;
                }
                EntryType::GNULongName => {
                    extensions.path = Some(until_nul(self.metadata(size, &mut extensions)?));
                }
                EntryType::GNULongLink => {
                    extensions.link = Some(until_nul(self.metadata(size, &mut extensions)?));
                }
                // Defaults for everything that follows: in practice a comment. Volume labels are
                // not files either.
                EntryType::XGlobalHeader => self.expect(size)?,
                other if other.as_byte() == b'V' => self.expect(size)?,
                other => return self.member(&header, other, extensions).map(Some),
            }
        }
    }

    /// Reads the current member's content.
    pub fn read(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        let length = buffer.len() as u64;
        self.content = self.content.checked_sub(length).ok_or(Error::Truncated)?;
        self.fill(buffer)
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        self.source.read_exact(buffer).map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => Error::Truncated,
            _ => Error::Stream { attempt: "read", source },
        })
    }

    /// A block, or `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        if self.ended {
            return Ok(None);
        }
        let mut header = Header::new_old();
        let block = header.as_mut_bytes();
        let mut filled = 0;
        while filled < BLOCK {
            match self.source.read(&mut block[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => return Err(Error::Stream { attempt: "read", source }),
            }
        }
        // Archives without the final zeros exist.
        if filled == 0 && self.begun {
            self.ended = true;
            return Ok(None);
        }
        if filled < BLOCK {
            return Err(if self.begun { Error::Truncated } else { Error::NotAnArchive });
        }
        if block.iter().all(|byte| *byte == 0) {
            self.ended = true;
            return Ok(None);
        }
        let sum: u32 = (0..)
            .zip(block.iter())
            .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
            .sum();
        if header.cksum().ok() != Some(sum) {
            return Err(if self.begun {
                Error::Malformed("a header's checksum is wrong".into())
            } else {
                Error::NotAnArchive
            });
        }
        self.begun = true;
        Ok(Some(header))
    }

    fn expect(&mut self, size: u64) -> Result<(), Error> {
        self.content = size;
        self.padding = size.wrapping_neg() % BLOCK as u64;
        if size > i64::MAX.unsigned_abs() {
            return Err(Error::Malformed("a member is larger than any file".into()));
        }
        Ok(())
    }

    fn metadata(&mut self, size: u64, extensions: &mut Extensions) -> Result<Vec<u8>, Error> {
        self.expect(size)?;
        let length = usize::try_from(size).ok();
        let within = length
            .and_then(|length| extensions.bytes.checked_add(length)?.checked_add(BLOCK))
            .filter(|total| *total <= MOST_METADATA);
        let (Some(length), Some(total)) = (length, within) else {
            return Err(Error::Malformed(format!(
                "more than {MOST_METADATA} bytes describe one member"
            )));
        };
        extensions.bytes = total;
        let mut bytes = vec![0; length];
        self.read(&mut bytes)?;
        Ok(bytes)
    }

    fn skip(&mut self) -> Result<(), Error> {
        let rest = self.content + self.padding;
        let skipped = io::copy(&mut (&mut self.source).take(rest), &mut io::sink())
            .map_err(|source| Error::Stream { attempt: "read", source })?;
        (self.content, self.padding) = (0, 0);
        if skipped < rest { Err(Error::Truncated) } else { Ok(()) }
    }

    fn member(
        &mut self,
        header: &Header,
        kind: EntryType,
        extensions: Extensions,
    ) -> Result<Member, Error> {
        let number = |value: io::Result<u64>| value.map_err(|error| malformed(&error));
        let mut path = header.path_bytes().into_owned();
        let mut link = header.link_name_bytes().unwrap_or_default().into_owned();
        let mut stored = number(header.entry_size())?;
        let mut uid = header.uid().unwrap_or(0);
        let mut gid = header.gid().unwrap_or(0);
        let mut modified = (signed(header.mtime().unwrap_or(0)), 0);
        let mut xattrs = Vec::new();
        let mut sparse = PaxSparse::default();
        for (key, value) in extensions.records {
            if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                xattrs.push((name.to_vec(), value));
                continue;
            }
            if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
                sparse.note(key, value)?;
                continue;
            }
            // An empty value takes the header's back.
            if value.is_empty() {
                continue;
            }
            match key.as_slice() {
                b"path" => path = value,
                b"linkpath" => link = value,
                b"size" => stored = decimal(&value)?,
                b"uid" => uid = decimal(&value)?,
                b"gid" => gid = decimal(&value)?,
                b"mtime" => modified = time(&value)?,
                _ => {}
            }
        }
        path = extensions.path.unwrap_or(path);
        link = extensions.link.unwrap_or(link);
        let kind = match kind {
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                // The oldest format has no type for directories.
                if path.ends_with(b"/") { Kind::Directory } else { Kind::File }
            }
            EntryType::Directory => Kind::Directory,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Link => Kind::HardLink,
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => Kind::Device,
            _ => return Err(Error::refused(&path, "a member of an unknown type")),
        };
        // What links store on tape is nothing, whatever they say (GNU tar does the same).
        self.expect(if kind == Kind::HardLink { 0 } else { stored })?;
        let mut size = stored;
        let mut extents = vec![(0, stored)];
        if kind == Kind::File {
            if header.entry_type() == EntryType::GNUSparse {
                (size, extents) = self.old_sparse(header)?;
            } else if let Some(described) = sparse.resolve(self)? {
                (size, extents) = (described.size, described.extents);
                path = described.name.unwrap_or(path);
            }
            self.check_extents(&path, size, &extents)?;
        }
        if path.contains(&0) || link.contains(&0) {
            return Err(Error::refused(&path, "a name with a NUL byte"));
        }
        let mode = header.mode().unwrap_or(0) & 0o7777;
        Ok(Member { kind, path, link, mode, uid, gid, modified, xattrs, size, extents })
    }

    fn check_extents(&self, path: &[u8], size: u64, extents: &[(u64, u64)]) -> Result<(), Error> {
        let (mut end, mut stored) = (0_u64, 0_u64);
        for (offset, length) in extents {
            let (Some(next), Some(total)) =
                (offset.checked_add(*length), stored.checked_add(*length))
            else {
                return Err(Error::refused(path, "a sparse file beyond all bounds"));
            };
            if *offset < end || next > size {
                return Err(Error::refused(path, "a sparse file whose pieces overlap"));
            }
            (end, stored) = (next, total);
        }
        if stored > self.content || size > i64::MAX.unsigned_abs() {
            return Err(Error::refused(path, "a sparse file that is larger than what is stored"));
        }
        Ok(())
    }

    /// GNU's old format: the map is in the header, and in blocks before the content.
    fn old_sparse(&mut self, header: &Header) -> Result<(u64, Vec<(u64, u64)>), Error> {
        let gnu = header.as_gnu().ok_or_else(|| {
            Error::Malformed("a sparse file whose header is not in GNU's format".into())
        })?;
        let size = gnu.real_size().map_err(|error| malformed(&error))?;
        let mut extents = Vec::new();
        let mut add = |blocks: &[tar::GnuSparseHeader]| -> Result<(), Error> {
            for block in blocks.iter().filter(|block| !block.is_empty()) {
                let place = block.offset().and_then(|offset| Ok((offset, block.length()?)));
                extents.push(place.map_err(|error| malformed(&error))?);
            }
            if extents.len() > MOST_EXTENTS { Err(too_many_extents()) } else { Ok(()) }
        };
        add(&gnu.sparse)?;
        let mut more = gnu.is_extended();
        while more {
            let mut next = GnuExtSparseHeader::new();
            self.fill(next.as_mut_bytes())?;
            add(next.sparse())?;
            more = next.is_extended();
        }
        Ok((size, extents))
    }

    /// A line of the map that precedes a sparse file's content (format 1.0).
    fn map_number(&mut self, read: &mut u64) -> Result<u64, Error> {
        let mut digits = Vec::new();
        loop {
            let mut byte = [0];
            self.read(&mut byte)?;
            *read += 1;
            match byte[0] {
                b'\n' => return decimal(&digits),
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(Error::Malformed("a sparse file's map is no list".into())),
            }
        }
    }
}

/// What extended headers say of a sparse file.
#[derive(Debug, Default)]
struct PaxSparse {
    major: u64,
    size: Option<u64>,
    name: Option<Vec<u8>>,
    /// Offsets and lengths in turn (formats 0.0 and 0.1).
    map: Vec<u64>,
}

struct Described {
    size: u64,
    name: Option<Vec<u8>>,
    extents: Vec<(u64, u64)>,
}

impl PaxSparse {
    fn note(&mut self, key: &[u8], value: Vec<u8>) -> Result<(), Error> {
        match key {
            b"major" => self.major = decimal(&value)?,
            b"name" => self.name = Some(value),
            b"size" | b"realsize" => self.size = Some(decimal(&value)?),
            b"offset" | b"numbytes" => self.map.push(decimal(&value)?),
            b"map" => {
                for number in value.split(|byte| *byte == b',') {
                    self.map.push(decimal(number)?);
                }
            }
            _ => {}
        }
        if self.map.len() > 2 * MOST_EXTENTS { Err(too_many_extents()) } else { Ok(()) }
    }

    fn resolve<R: Read>(self, members: &mut Members<R>) -> Result<Option<Described>, Error> {
        let Some(size) = self.size else { return Ok(None) };
        let mut numbers = self.map;
        if self.major == 1 {
            let mut read = 0;
            let count = members.map_number(&mut read)?;
            let count = usize::try_from(count).ok().filter(|count| *count <= MOST_EXTENTS);
            for _ in 0..2 * count.ok_or_else(too_many_extents)? {
                numbers.push(members.map_number(&mut read)?);
            }
            let rest = usize::try_from(read.wrapping_neg() % BLOCK as u64).unwrap_or(0);
            members.read(&mut [0; BLOCK][..rest])?;
        } else if self.major != 0 {
            return Err(Error::Malformed("an unknown format of sparse files".into()));
        }
        let (pairs, rest) = numbers.as_chunks::<2>();
        if !rest.is_empty() {
            return Err(Error::Malformed("a sparse file's map ends early".into()));
        }
        let extents = pairs.iter().map(|[offset, length]| (*offset, *length)).collect();
        Ok(Some(Described { size, name: self.name, extents }))
    }
}

impl Extensions {
    /// `LENGTH KEY=VALUE\n`, where LENGTH counts all of it.
    fn add_records(&mut self, mut bytes: &[u8]) -> Result<(), Error> {
        let wrong = || Error::Malformed("an extended header is no list of records".into());
        while !bytes.is_empty() {
            let space = bytes.iter().position(|byte| *byte == b' ').ok_or_else(wrong)?;
            let length = usize::try_from(decimal(&bytes[..space])?).map_err(|_| wrong())?;
            let record = bytes.get(space + 1..length).ok_or_else(wrong)?;
            let record = record.strip_suffix(b"\n").ok_or_else(wrong)?;
            let equals = record.iter().position(|byte| *byte == b'=').ok_or_else(wrong)?;
            self.records.push((record[..equals].to_vec(), record[equals + 1..].to_vec()));
            bytes = &bytes[length..];
        }
        Ok(())
    }
}

fn malformed(error: &io::Error) -> Error {
    Error::Malformed(error.to_string())
}

fn too_many_extents() -> Error {
    Error::Malformed(format!("a sparse file of more than {MOST_EXTENTS} pieces"))
}

fn until_nul(mut bytes: Vec<u8>) -> Vec<u8> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    bytes.truncate(end);
    bytes
}

/// Times before the epoch are negative numbers in base 256, which the header's reader gives as the
/// two's complement.
fn signed(value: u64) -> i64 {
    value.cast_signed()
}

fn decimal(text: &[u8]) -> Result<u64, Error> {
    std::str::from_utf8(text)
        .ok()
        .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| {
            Error::Malformed(format!("{:?} is no number", String::from_utf8_lossy(text)))
        })
}

/// Seconds with a decimal fraction, as [`Member::modified`].
fn time(text: &[u8]) -> Result<(i64, u32), Error> {
    let wrong = || Error::Malformed(format!("{:?} is no time", String::from_utf8_lossy(text)));
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let point = digits.iter().position(|byte| *byte == b'.').unwrap_or(digits.len());
    let seconds = i64::try_from(decimal(&digits[..point])?).map_err(|_| wrong())?;
    let mut fraction: Vec<u8> = digits.get(point + 1..).unwrap_or_default().to_vec();
    fraction.resize(9, b'0');
    let nanoseconds = u32::try_from(decimal(&fraction)?).map_err(|_| wrong())?;
    Ok(match (negative, nanoseconds) {
        (false, _) => (seconds, nanoseconds),
        (true, 0) => (-seconds, 0),
        (true, _) => (-seconds - 1, 1_000_000_000 - nanoseconds),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_fractions_on_either_side_of_the_epoch() {
        assert_eq!(time(b"12").unwrap(), (12, 0));
        assert_eq!(time(b"12.5").unwrap(), (12, 500_000_000));
        assert_eq!(time(b"-1.25").unwrap(), (-2, 750_000_000));
        assert_eq!(time(b"0.1234567891").unwrap(), (0, 123_456_789));
        for bad in [b"".as_slice(), b"x", b"1.x", b"--1", b"99999999999999999999"] {
            time(bad).unwrap_err();
        }
    }

    #[test]
    fn records_are_cut_by_their_length() {
        let mut extensions = Extensions::default();
        extensions.add_records(b"12 a=b\nc=d\n\n6 e=f\n").unwrap();
        assert_eq!(extensions.records[0], (b"a".to_vec(), b"b\nc=d\n".to_vec()));
        assert_eq!(extensions.records[1], (b"e".to_vec(), b"f".to_vec()));
        for bad in [b"7 a=b".as_slice(), b"0 a=b\n", b"99 a=b\n", b"x", b"3 a\n", b"5 ab\n"] {
            Extensions::default().add_records(bad).unwrap_err();
        }
    }

    #[test]
    fn what_describes_a_member_is_bounded() {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::XHeader);
        header.set_size(4 << 30);
        header.set_cksum();
        // Endless zeros: nothing of the claimed size may be kept.
        let endless = header.as_bytes().as_slice().chain(io::repeat(0));
        let error = Members::new(endless).next().unwrap_err();
        assert!(error.to_string().contains("describe one member"), "{error}");
    }

    #[test]
    fn nothing_and_text_are_no_archives() {
        for bytes in [b"".as_slice(), b"this is no tar at all", &[7; 2048]] {
            assert!(matches!(Members::new(bytes).next(), Err(Error::NotAnArchive)));
        }
        assert!(Members::new([0; 10240].as_slice()).next().unwrap().is_none());
    }
}
