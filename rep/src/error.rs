//! Why a rep cannot start.

/// A rep that cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration is incomplete, or asks for what is not served.
    #[error("the rep's configuration")]
    Config(#[from] transport::configured::ConfigError),
    /// Listening failed, or a certificate is unfit.
    #[error(transparent)]
    Transport(#[from] transport::Error),
    /// A socket that was given does not say where it listens.
    #[error("finding out where the rep listens")]
    Socket {
        /// Why.
        source: std::io::Error,
    },
    /// The BBS's client.
    #[error("preparing to ask the BBS")]
    Bbs(#[source] bbs_client::Error),
    /// The cell's name at Locket.
    #[error(transparent)]
    Locket(#[from] locket::Error),
    /// The authority of instances' certificates.
    #[error(transparent)]
    Identity(#[from] executor::IdentityError),
    /// The executor.
    #[error("starting the executor")]
    Executor(#[from] executor::Error),
}
