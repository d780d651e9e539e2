//! What keeps a log-cache from starting.

/// What keeps a log-cache, or a client of one, from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("configuration: {0}")]
    Config(String),
    /// An address cannot be listened on or asked.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// A socket that was handed over cannot be used.
    #[error("using the socket of {of}")]
    Socket {
        /// Which of the listeners.
        of: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
}
