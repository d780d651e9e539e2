//! Writing plans: the daemon's side of [`crate::program::plan`].

use std::ffi::CString;
use std::io::{self, Write};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, memfd_create};

use crate::program::plan::tag;

/// A plan under construction; see [`tag`] for what each record says.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    bytes: Vec<u8>,
}

impl Plan {
    /// A plan without records.
    pub fn new() -> Self {
        Self::default()
    }

    fn record(&mut self, tag: u32, payload: &[u8]) -> &mut Self {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        self.bytes.extend_from_slice(&tag.to_ne_bytes());
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        self
    }

    /// A record of one text (PROGRAM, ARGUMENT, ENVIRONMENT, DIRECTORY, USER, APPARMOR, MASK, HOSTNAME,
    /// MAKE_DIRECTORY, MAKE_FILE, READ_ONLY).
    pub fn text(&mut self, tag: u32, text: &CString) -> &mut Self {
        self.record(tag, text.as_bytes_with_nul())
    }

    /// A record of two texts (LINK, SYSCTL).
    pub fn texts(&mut self, tag: u32, first: &CString, second: &CString) -> &mut Self {
        let payload = [first.as_bytes_with_nul(), second.as_bytes_with_nul()].concat();
        self.record(tag, &payload)
    }

    /// A record without content (NO_NEW_PRIVILEGES, KEEP_DIRECTORY).
    pub fn mark(&mut self, tag: u32) -> &mut Self {
        self.record(tag, &[])
    }

    /// Soft and hard limit of a resource (RLIMIT_* of getrlimit(2)).
    pub fn rlimit(&mut self, resource: u32, value: u64) -> &mut Self {
        let payload = [u64::from(resource), value].map(u64::to_ne_bytes).concat();
        self.record(tag::RLIMIT, &payload)
    }

    /// Bounding sets, as bit masks: of uid 0, and of everybody else.
    pub fn capabilities(&mut self, root: u64, others: u64) -> &mut Self {
        let payload = [root, others].map(u64::to_ne_bytes).concat();
        self.record(tag::CAPABILITIES, &payload)
    }

    /// A seccomp filter: an array of struct sock_filter.
    pub fn seccomp(&mut self, filter: &[u8]) -> &mut Self {
        self.record(tag::SECCOMP, filter)
    }

    /// Attach the mount in the message's `descriptor`th descriptor at `target`; the first one is
    /// the new root.
    pub fn attach(&mut self, descriptor: usize, file: bool, target: &CString) -> &mut Self {
        let descriptor = u32::try_from(descriptor).unwrap_or(u32::MAX);
        let mut payload = [descriptor, u32::from(file)].map(u32::to_ne_bytes).concat();
        payload.extend_from_slice(target.as_bytes_with_nul());
        self.record(tag::ATTACH, &payload)
    }

    /// Mount a new file system (its kind and `key=value` options) with MOUNT_ATTR_* `attributes`.
    pub fn mount(
        &mut self,
        target: &CString,
        kind: &CString,
        options: &[CString],
        attributes: u64,
    ) -> &mut Self {
        let mut payload = attributes.to_ne_bytes().to_vec();
        payload.extend_from_slice(target.as_bytes_with_nul());
        payload.extend_from_slice(kind.as_bytes_with_nul());
        for option in options {
            payload.extend_from_slice(option.as_bytes_with_nul());
        }
        self.record(tag::MOUNT, &payload)
    }

    /// The plan in a memory file that nobody can change any more.
    pub fn seal(&self) -> io::Result<OwnedFd> {
        sealed_file("plan", &self.bytes)
    }
}

/// A memory file with this content, sealed against any change (fcntl(2) F_ADD_SEALS).
pub fn sealed_file(name: &str, content: &[u8]) -> io::Result<OwnedFd> {
    let mut file =
        std::fs::File::from(memfd_create(name, MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?);
    file.write_all(content)?;
    fcntl_add_seals(
        &file,
        SealFlags::WRITE | SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL,
    )?;
    Ok(file.into())
}
