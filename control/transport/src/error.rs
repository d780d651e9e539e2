//! Why something could not be reached, or not be served.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::address::Address;

/// An error of another library.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A failure, with what was attempted and on which address.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate, key or CA file cannot be read, or holds something else.
    #[error("cannot use {what} in {}", .file.display())]
    Identity {
        /// Which of the three.
        what: &'static str,
        /// Where it was looked for.
        file: PathBuf,
        /// Why.
        source: BoxError,
    },
    /// A server could not take its address.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: Address,
        /// Why.
        source: io::Error,
    },
    /// An `https` address was given without an identity.
    #[error("{address} needs a certificate, a key and a CA")]
    NoIdentity {
        /// The address.
        address: Address,
    },
    /// The request cannot be sent as it is.
    #[error("{call} at {address}: the request cannot be sent")]
    Request {
        /// Method and path.
        call: String,
        /// Where to.
        address: Address,
        /// Why.
        source: BoxError,
    },
    /// No connection: nothing of the request has been sent.
    #[error("{call} at {address}: cannot connect")]
    Connect {
        /// Method and path.
        call: String,
        /// Where to.
        address: Address,
        /// Why.
        source: BoxError,
    },
    /// The connection broke after the request may have been sent: whether the server has acted on
    /// it is not known.
    #[error("{call} at {address}: the connection broke before the answer was complete")]
    Broken {
        /// Method and path.
        call: String,
        /// Where to.
        address: Address,
        /// Why.
        source: BoxError,
    },
    /// No complete answer in time: whether the server has acted on it is not known.
    #[error("{call} at {address}: no complete answer within {after:?}")]
    Timeout {
        /// Method and path.
        call: String,
        /// Where to.
        address: Address,
        /// The time that was given.
        after: Duration,
    },
    /// The answer's body is longer than the caller takes.
    #[error("{call} at {address}: the answer is longer than {limit} bytes")]
    TooLong {
        /// Method and path.
        call: String,
        /// Where to.
        address: Address,
        /// What the caller would take, in bytes.
        limit: usize,
    },
}

impl Error {
    /// Whether nothing of the request can have reached the server, so that sending it again is
    /// harmless.
    pub fn is_unsent(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Request { .. } | Self::NoIdentity { .. })
    }

    /// Whether time ran out.
    pub fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }
}
