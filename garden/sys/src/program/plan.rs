//! Plans: what a child is to do, as data in a sealed memory file.
//!
//! A plan is a sequence of records, each `tag: u32, length: u32` in the machine's byte order, then
//! `length` bytes, padded with zeroes to a multiple of eight. Texts end with a NUL that their
//! length includes. The daemon writes plans and the children read them, so a plan that cannot be
//! read is a fault of ours; it is answered with EPROTO all the same.

use core::ffi::CStr;

use super::raw::{Answer, Errno};

/// What a record says. Tags from 32 on belong to process 1.
pub mod tag {
    /// Text: the executable, searched in `PATH` when it has no slash.
    pub const PROGRAM: u32 = 1;
    /// Text: one argument, the first is `argv[0]`.
    pub const ARGUMENT: u32 = 2;
    /// Text: `NAME=value`.
    pub const ENVIRONMENT: u32 = 3;
    /// Text: working directory; absent means the user's home.
    pub const DIRECTORY: u32 = 4;
    /// Text: `user`, `uid`, `user:group`, `uid:gid`; absent means root.
    pub const USER: u32 = 5;
    /// Three u64: resource, soft and hard limit.
    pub const RLIMIT: u32 = 6;
    /// Two u64: bounding set of root, bounding set of everybody else.
    pub const CAPABILITIES: u32 = 7;
    /// Instructions of a seccomp filter, eight bytes each.
    pub const SECCOMP: u32 = 8;
    /// No content: set no_new_privs.
    pub const NO_NEW_PRIVILEGES: u32 = 9;
    /// No content: leave the working directory alone when it is missing instead of making it.
    pub const KEEP_DIRECTORY: u32 = 10;
    /// Text: the AppArmor profile that the program runs under.
    pub const APPARMOR: u32 = 11;

    /// u32 descriptor index, u32 kind (0 directory, 1 file), text: attach a detached mount at the
    /// path below the new root; the path `/` is the new root itself.
    pub const ATTACH: u32 = 32;
    /// u64 attributes (MOUNT_ATTR_*), then texts: target, file system type, `key=value` options.
    pub const MOUNT: u32 = 33;
    /// Text: hide a file behind the new root's /dev/null, a directory behind an empty file system.
    pub const MASK: u32 = 34;
    /// Two texts: target and path of a symbolic link.
    pub const LINK: u32 = 35;
    /// Text: the host's name.
    pub const HOSTNAME: u32 = 36;
    /// Text: a directory to make, 0755, where it is missing.
    pub const MAKE_DIRECTORY: u32 = 37;
    /// Two texts: path below /proc/sys (read from the container's own proc) and value.
    pub const SYSCTL: u32 = 38;
    /// Text: where a mount is that becomes read-only, once something stands in it.
    pub const READ_ONLY: u32 = 39;
    /// Text: an empty file to make, 0644, where nothing is, for a mount to stand on.
    pub const MAKE_FILE: u32 = 40;
}

/// One record.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// See [`tag`].
    pub tag: u32,
    /// Its bytes, without padding; starts at a multiple of eight in the plan.
    pub payload: &'a [u8],
}

impl<'a> Record<'a> {
    /// The payload as one text.
    pub fn text(&self) -> Answer<&'a CStr> {
        CStr::from_bytes_with_nul(self.payload).map_err(|_| Errno::EPROTO)
    }

    /// Splits off the first text.
    pub fn first_text(bytes: &'a [u8]) -> Answer<(&'a CStr, &'a [u8])> {
        let text = CStr::from_bytes_until_nul(bytes).map_err(|_| Errno::EPROTO)?;
        Ok((text, &bytes[text.to_bytes_with_nul().len()..]))
    }

    /// The `index`th u64 of the payload.
    pub fn long(&self, index: usize) -> Answer<u64> {
        let at = index * 8;
        let bytes = self.payload.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u64::from_ne_bytes).ok_or(Errno::EPROTO)
    }

    /// The `index`th u32 of the payload.
    pub fn word(&self, index: usize) -> Answer<u32> {
        let at = index * 4;
        let bytes = self.payload.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_ne_bytes).ok_or(Errno::EPROTO)
    }
}

/// The records of a plan, in order. A record that is cut short ends the sequence.
#[derive(Clone, Copy, Debug)]
pub struct Records<'a>(pub &'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        let (head, rest) = self.0.split_at_checked(8)?;
        let tag = u32::from_ne_bytes([head[0], head[1], head[2], head[3]]);
        let length = u32::from_ne_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let payload = rest.get(..length)?;
        self.0 = rest.get(length.next_multiple_of(8)..).unwrap_or(&[]);
        Some(Record { tag, payload })
    }
}

impl<'a> Records<'a> {
    /// The first record of a tag.
    pub fn first(&self, tag: u32) -> Option<Record<'a>> {
        let mut records = *self;
        records.find(|record| record.tag == tag)
    }

    /// How many records of a tag there are.
    pub fn count_of(&self, tag: u32) -> usize {
        (*self).filter(|record| record.tag == tag).count()
    }
}
