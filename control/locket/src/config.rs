//! What an operator sets, in the original's words.

use std::path::PathBuf;

use serde::Deserialize;
use transport::configured;
use transport::{Address, Files, Identity, Listener};

use crate::error::Error;

/// The original's configuration file, as far as it is read here. Other keys are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// `HOST:PORT` for mutual TLS, as the original has it, or an [`Address`].
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
    pub fn database(&self) -> Result<&PathBuf, Error> {
        if !["", "sqlite3"].contains(&self.database_driver.as_str()) {
            let driver = &self.database_driver;
            return Err(Error::Config(format!(
                "database_driver {driver:?}: only sqlite3 is served"
            )));
        }
        if self.database_connection_string.as_os_str().is_empty() {
            return Err(Error::Config("database_connection_string is missing".into()));
        }
        Ok(&self.database_connection_string)
    }

    /// Binds the configured address.
    pub async fn listen(&self) -> Result<Listener, Error> {
        let text = &self.listen_address;
        let address = configured::address(text).map_err(|_| {
            Error::Config(format!("listen_address {text:?} is no address and no HOST:PORT"))
        })?;
        let identity = match address {
            Address::Https { .. } => Some(Identity::load(Files {
                ca: self.ca_file.clone(),
                certificate: self.cert_file.clone(),
                key: self.key_file.clone(),
            })?),
            Address::Http { .. } | Address::Unix(_) => None,
        };
        Ok(Listener::bind(&address, identity).await?)
    }
}
