//! What can go wrong.

use std::time::Duration;

/// An error of a bus.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A text that is no subject, or one with wildcards where a message is to be published.
    #[error("{subject:?} is not a subject for this")]
    Subject {
        /// The text.
        subject: String,
    },
    /// A message above [`crate::PAYLOAD`].
    #[error("a message of {length} bytes on {subject} is too long")]
    TooLong {
        /// Where it was to be published.
        subject: String,
        /// Its bytes.
        length: usize,
    },
    /// A request without an answer.
    #[error("nobody answered on {subject} within {patience:?}")]
    NoAnswer {
        /// Where it was published.
        subject: String,
        /// How long it waited.
        patience: Duration,
    },
    /// An address that names no server.
    #[error("cannot use the NATS server {address:?}")]
    Server {
        /// The address.
        address: String,
        /// Why.
        source: std::io::Error,
    },
    /// What a server, or the lack of one, prevented.
    #[error("cannot {action} at the NATS server")]
    Nats {
        /// `publish on SUBJECT` and the like.
        action: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}
