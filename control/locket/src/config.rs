//! What an operator sets, in the original's words.

use std::path::PathBuf;

use serde::Deserialize;
use transport::Listener;
use transport::configured::{self, Bare, ConfigError};

/// The original's configuration file, as far as it is read here. Other keys are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `HOST:PORT` for mutual TLS, as the original has it, or an
    /// [`transport::Address`].
    pub listen_address: String,
    /// The database's file.
    pub database_connection_string: PathBuf,
    /// `sqlite3` or nothing.
    pub database_driver: String,
    /// The CA of all clients.
    pub ca_file: PathBuf,
    /// The server's certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

impl Config {
    /// The database's file, if the configuration names one.
    pub fn database(&self) -> Result<&PathBuf, ConfigError> {
        if !["", "sqlite3"].contains(&self.database_driver.as_str()) {
            let reason = format!("{:?} is not served, only sqlite3 is", self.database_driver);
            return Err(ConfigError::value("database_driver", reason));
        }
        if self.database_connection_string.as_os_str().is_empty() {
            return Err(ConfigError::missing("database_connection_string"));
        }
        Ok(&self.database_connection_string)
    }

    /// Binds the configured address.
    pub async fn listen(&self) -> Result<Listener, ConfigError> {
        let own =
            configured::identity("cert_file", &self.ca_file, &self.cert_file, &self.key_file)?;
        configured::listener("listen_address", &self.listen_address, Bare::Tls, own, None).await
    }
}
