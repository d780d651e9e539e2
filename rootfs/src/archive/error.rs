//! What can be wrong with an archive or with the directory it goes to or comes from.

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

    pub(crate) fn refused(member: &[u8], reason: &'static str) -> Self {
        Self::Refused { member: text(member), reason }
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
