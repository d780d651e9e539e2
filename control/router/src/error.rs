//! What keeps a router from serving.

/// An error of the router.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A certificate, key or CA of the configuration.
    #[error("cannot use {what}")]
    Certificate {
        /// Which.
        what: &'static str,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The bus.
    #[error("cannot take part in the bus")]
    Bus(#[from] bus::Error),
    /// A listener that its caller has bound.
    #[error("cannot listen for {what}")]
    Listener {
        /// What it is for.
        what: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// A port of the configuration.
    #[error("{key}: cannot listen on port {port}")]
    Bind {
        /// Which key it belongs to.
        key: &'static str,
        /// The port.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
}
