//! What a client of a Garden can be told.

use std::fmt::Display;

/// An error in the protocol's own kinds; a client tells them apart by type, never by status.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No such handle.
    #[error("unknown handle: {0}")]
    ContainerNotFound(String),
    /// No such process in the container.
    #[error("unknown process: {0}")]
    ProcessNotFound(String),
    /// The executable is not in the container.
    #[error("{0}")]
    ExecutableNotFound(String),
    /// Try again later, or elsewhere.
    #[error("{0}")]
    ServiceUnavailable(String),
    /// The host needs an operator.
    #[error("{0}")]
    Unrecoverable(String),
    /// Everything else.
    #[error("{0}")]
    Plain(String),
}

impl Error {
    /// An untyped error that says what was attempted, and the whole chain of why it failed.
    pub fn because(attempt: impl Display, error: &dyn std::error::Error) -> Self {
        let mut text = format!("{attempt}: {error}");
        let mut source = error.source();
        while let Some(cause) = source {
            text.push_str(&format!(": {cause}"));
            source = cause.source();
        }
        Self::Plain(text)
    }
}
