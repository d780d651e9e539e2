//! Why a call failed.

use std::io;

use garden_api::{ErrorKind, WireError};

use super::Address;

/// A failed call: what the server said, by its kind, or what became of the connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such container.
    #[error("unknown handle: {0}")]
    ContainerNotFound(String),
    /// No such process in the container.
    #[error("unknown process: {0}")]
    ProcessNotFound(String),
    /// The executable is not in the container.
    #[error("{0}")]
    ExecutableNotFound(String),
    /// The server asks to try again later.
    #[error("{0}")]
    ServiceUnavailable(String),
    /// The server's host needs an operator.
    #[error("{0}")]
    Unrecoverable(String),
    /// Any other error of the server, in its words.
    #[error("{0}")]
    Plain(String),

    /// There is no server.
    #[error("{call}: cannot connect to {address}")]
    Unreachable {
        /// Garden's name of the call.
        call: &'static str,
        /// Where a server was expected.
        address: Address,
        /// What connecting failed with.
        source: io::Error,
    },
    /// The connection ended or failed before the answer was complete; whether the server has done
    /// what was asked is not known.
    #[error("{call} at {address}: the connection broke before the answer came")]
    Broken {
        /// Garden's name of the call.
        call: &'static str,
        /// The server.
        address: Address,
        /// What reading or writing failed with.
        source: io::Error,
    },
    /// The answer is not Garden's.
    #[error("{call} at {address}: status {status} with a body that is not Garden's: {what}")]
    BadResponse {
        /// Garden's name of the call.
        call: &'static str,
        /// The server.
        address: Address,
        /// HTTP status.
        status: u16,
        /// What is wrong with it, or its beginning.
        what: String,
    },
    /// The caller's own data could not be read.
    #[error("{call}: cannot read what should be sent")]
    Source {
        /// Garden's name of the call.
        call: &'static str,
        /// What reading it failed with.
        source: io::Error,
    },

    /// The process ended, but its exit status is lost.
    #[error("the exit status of process {process} is not known: {reason}")]
    StatusUnknown {
        /// Its id.
        process: String,
        /// The server's words.
        reason: String,
    },
    /// The server, or the way to it, is gone; the process may well run on.
    #[error("the server left process {process} before its end: {reason}")]
    Disconnected {
        /// Its id.
        process: String,
        /// How the connection ended.
        reason: String,
    },
    /// The process runs, but one of its outputs could not be connected.
    #[error("cannot listen to {stream} of process {process}")]
    NoStream {
        /// Its id.
        process: String,
        /// `stdout` or `stderr`.
        stream: &'static str,
        /// Why.
        source: std::sync::Arc<Error>,
    },
    /// The process has ended and takes neither input nor signals.
    #[error("process {process} has ended")]
    Ended {
        /// Its id.
        process: String,
    },
}

impl From<WireError> for Error {
    fn from(error: WireError) -> Self {
        match error.kind {
            ErrorKind::ContainerNotFound => Self::ContainerNotFound(error.handle),
            ErrorKind::ProcessNotFound => Self::ProcessNotFound(error.process_id),
            ErrorKind::ExecutableNotFound => Self::ExecutableNotFound(error.message),
            ErrorKind::ServiceUnavailable => Self::ServiceUnavailable(error.message),
            ErrorKind::Unrecoverable => Self::Unrecoverable(error.message),
            ErrorKind::Untyped => Self::Plain(error.message),
        }
    }
}
