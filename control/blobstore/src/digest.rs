//! Digests of a blob, taken while it passes.

use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a blob is known by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Digests {
    /// Length in bytes.
    pub size: u64,
    /// In lower-case hexadecimal.
    pub sha1: String,
    /// In lower-case hexadecimal.
    pub sha256: String,
}

/// Digests that are still being taken.
#[derive(Clone, Debug, Default)]
pub struct Digesting {
    size: u64,
    sha1: Sha1,
    sha256: Sha256,
}

impl Digesting {
    /// Takes up the next bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.sha1.update(bytes);
        self.sha256.update(bytes);
    }

    /// The digests of all bytes.
    pub fn finish(self) -> Digests {
        let Self { size, sha1, sha256 } = self;
        Digests { size, sha1: hex(&sha1.finalize()), sha256: hex(&sha256.finalize()) }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
