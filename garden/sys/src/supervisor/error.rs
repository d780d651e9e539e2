//! What goes wrong between daemon and supervisor.

use std::io;

/// Why the supervisor did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Something of the daemon's own side.
    #[error("cannot {attempt}")]
    Io {
        /// What was tried, on what.
        attempt: String,
        /// Why it failed.
        source: io::Error,
    },
    /// The keeper answered with an errno.
    #[error("the keeper cannot {attempt}")]
    Refused {
        /// What was asked.
        attempt: &'static str,
        /// The keeper's errno.
        source: io::Error,
    },
    /// The supervisor of a newer build is at work.
    #[error(
        "the supervisor's ledger has layout {found}, and this build knows none above {newest}: a newer \
         build has been here, whose containers run on and need one at least as new"
    )]
    TooNew {
        /// The ledger's layout.
        found: u32,
        /// This build's own.
        newest: u32,
    },
    /// Of a child whose launch was broken off by a keeper's death not everything is kept.
    #[error("not all descriptors are kept of a process whose start was broken off")]
    Incomplete,
    /// The keeper went away before it answered; it may have done what was asked.
    #[error("the keeper went away while it was asked to {attempt}")]
    Disconnected {
        /// What was asked.
        attempt: &'static str,
    },
}

impl Error {
    /// The errno behind the error, where there is one.
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::Io { source, .. } | Self::Refused { source, .. } => source.raw_os_error(),
            Self::Disconnected { .. } | Self::Incomplete | Self::TooNew { .. } => None,
        }
    }
}

pub(super) fn io_error(attempt: impl Into<String>) -> impl FnOnce(io::Error) -> Error {
    let attempt = attempt.into();
    move |source| Error::Io { attempt, source }
}

pub(super) fn errno_error(attempt: impl Into<String>) -> impl FnOnce(rustix::io::Errno) -> Error {
    let attempt = attempt.into();
    move |errno| Error::Io { attempt, source: errno.into() }
}
