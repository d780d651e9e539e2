//! Contents known by their SHA-256.

use std::fmt::Write as _;
use std::io::{self, Read};

use sha2::{Digest as _, Sha256};

/// A digest as image descriptors write it: `sha256:` and 64 digits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Digest(String);

impl Digest {
    /// `None` for other algorithms and for what is none; so a digest is a safe file name.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.strip_prefix("sha256:")?;
        let hexadecimal = digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (hexadecimal && digits.len() == 64).then(|| Self(digits.to_owned()))
    }

    /// Of these bytes.
    pub fn of(bytes: impl AsRef<[u8]>) -> Self {
        Self::finish(Sha256::new_with_prefix(bytes))
    }

    fn finish(hash: Sha256) -> Self {
        let mut digits = String::with_capacity(64);
        for byte in hash.finalize() {
            let _ = write!(digits, "{byte:02x}");
        }
        Self(digits)
    }

    /// The digits alone.
    pub fn digits(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Digest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "sha256:{}", self.0)
    }
}

/// A reader that knows the digest of what has gone through it.
#[derive(Debug)]
pub struct Digesting<R> {
    source: R,
    hash: Sha256,
}

impl<R: Read> Digesting<R> {
    /// Nothing has gone through it.
    pub fn new(source: R) -> Self {
        Self { source, hash: Sha256::new() }
    }

    /// Reads what is left. Answers the whole content's digest, and the source.
    pub fn finish(mut self) -> io::Result<(Digest, R)> {
        io::copy(&mut self, &mut io::sink())?;
        Ok((Digest::finish(self.hash), self.source))
    }
}

impl<R: Read> Read for Digesting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.source.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_sha256_digests_are_digests() {
        let digits = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(Digest::parse(&format!("sha256:{digits}")).unwrap(), Digest::of(""));
        for bad in [
            digits.to_owned(),
            format!("sha512:{digits}"),
            format!("sha256:{}", &digits[1..]),
            format!("sha256:{}", digits.to_uppercase()),
            "sha256:../../../../../../../../../../../../../../../../../../../../../etc/passwd"
                .into(),
        ] {
            assert_eq!(Digest::parse(&bad), None, "{bad}");
        }
    }

    #[test]
    fn what_is_not_read_counts_too() {
        let mut reader = Digesting::new(b"abcdef".as_slice());
        reader.read_exact(&mut [0; 2]).unwrap();
        assert_eq!(reader.finish().unwrap().0, Digest::of("abcdef"));
    }
}
