//! What can be wrong with an archive or with the directory it goes to or comes from.

use std::fmt;
use std::io;

/// Why packing or unpacking stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The first block is no header; so is the lack of one. The words are GNU tar's.
    #[error("This does not look like a tar archive")]
    NotAnArchive,
    /// The archive ends within a member.
    #[error("Unexpected EOF in archive")]
    Truncated,
    /// The archive contradicts itself or the format.
    #[error("malformed archive: {0}")]
    Malformed(String),
    /// A member that must not be unpacked, here or anywhere.
    #[error("{member}: {reason}")]
    Refused {
        /// Its name, as far as it is text.
        member: String,
        /// Why.
        reason: &'static str,
    },
    /// The file system refuses.
    #[error("{path}: cannot {attempt}")]
    File {
        /// What was attempted, as a verb.
        attempt: &'static str,
        /// On what: a member's name or a path.
        path: String,
        /// Its answer.
        source: io::Error,
    },
    /// Some members could not be unpacked, and then the others were.
    #[error("{0}")]
    Members(Failures),
    /// The stream that the archive is read from or written to breaks.
    #[error("cannot {attempt} the archive")]
    Stream {
        /// `read` or `write`.
        attempt: &'static str,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// For [`Result::map_err`] on a member's or path's bytes.
    pub(crate) fn on<E: Into<io::Error>>(
        attempt: &'static str,
        path: &[u8],
    ) -> impl FnOnce(E) -> Self {
        let path = text(path);
        move |source| Self::File { attempt, path, source: source.into() }
    }

    /// Whether the members behind the one that it is about may still be fine.
    pub(crate) fn is_of_one_member(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::File { .. })
    }

    pub(crate) fn refused(member: &[u8], reason: &'static str) -> Self {
        Self::Refused { member: text(member), reason }
    }
}

/// The first failures of several, and the last, each a line, as GNU tar tells them.
#[derive(Debug, Default)]
pub struct Failures {
    lines: Vec<String>,
    untold: usize,
    last: String,
}

impl Failures {
    const MOST_LINES: usize = 10;

    pub(crate) fn add(&mut self, error: Error) {
        let mut line = error.to_string();
        if let Some(cause) = std::error::Error::source(&error) {
            line.push_str(&format!(": {cause}"));
        }
        if self.lines.len() < Self::MOST_LINES {
            self.lines.push(line);
        } else {
            self.untold += 1;
            self.last = line;
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        if self.untold > 1 {
            writeln!(f, "and {} more", self.untold - 1)?;
        }
        if self.untold > 0 {
            writeln!(f, "{}", self.last)?;
        }
        f.write_str("Exiting with failure status due to previous errors")
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
