//! What keeps a log-cache from starting.

/// What keeps a log-cache, or a client of one, from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("Log Cache's configuration")]
    Config(#[from] transport::configured::ConfigError),
}
