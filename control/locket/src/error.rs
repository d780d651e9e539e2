//! Why a server cannot start.

use std::io;
use std::path::PathBuf;

/// A server that cannot start, or an owner that cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database cannot be used.
    #[error("cannot use the database {}", .path.display())]
    Database {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: sqlx::Error,
    },
    /// The database's tables are not this version's.
    #[error("cannot bring the database {} up to date", .path.display())]
    Migration {
        /// Its file.
        path: PathBuf,
        /// Why.
        source: sqlx::migrate::MigrateError,
    },
    /// The file of an owner can be neither read nor written.
    #[error("cannot keep the owner in {}", .path.display())]
    Owner {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The configuration makes no sense.
    #[error("Locket's configuration")]
    Config(#[from] transport::configured::ConfigError),
}
