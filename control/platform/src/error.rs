//! Why a platform cannot run.

use std::io;
use std::path::PathBuf;

/// Why a platform cannot start, or cannot go on. Whoever runs it starts it again.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or directory of its own cannot be used.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A socket cannot be used.
    #[error("cannot listen for {daemon}")]
    Socket {
        /// Whose.
        daemon: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One of the daemons cannot be started.
    #[error("{daemon} does not start")]
    Start {
        /// Which one.
        daemon: &'static str,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// One of the daemons has ended by itself.
    #[error("{daemon} has ended")]
    Ended {
        /// Which one.
        daemon: &'static str,
        /// Why, if it said.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// What every installation has (an org, a space, buildpacks) cannot be made.
    #[error("cannot {action}: {answer}")]
    Foundation {
        /// What was tried.
        action: String,
        /// What the API answered, or why it was not asked.
        answer: String,
    },
}

impl Error {
    pub(crate) fn file(
        action: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { action, path, source }
    }

    pub(crate) fn start<E>(daemon: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Start { daemon, source: source.into() }
    }

    pub(crate) fn socket<E>(daemon: &'static str) -> impl FnOnce(E) -> Self
    where
        E: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        move |source| Self::Socket { daemon, source: source.into() }
    }
}
