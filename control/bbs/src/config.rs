//! What an operator sets, in the original's words.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use transport::configured::{self, Bare, ConfigError, duration};
use transport::{Address, Identity, Listener};

use crate::convergence::plan::Patience;

/// The original's configuration file, as far as it is read here. Other keys are ignored.
///
/// Addresses are `HOST:PORT` for mutual TLS, as the original has them, or an [`Address`].
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where the API is served.
    pub listen_address: String,
    /// Where `GET /` says that the process lives, in plain HTTP. Nowhere if empty.
    pub health_address: String,
    /// The CA of all clients, of the server's certificate, and of callbacks' receivers.
    pub ca_file: PathBuf,
    /// The server's certificate, with which callbacks are made as well.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,

    /// The database's file.
    pub database_connection_string: PathBuf,
    /// `sqlite3` or nothing.
    pub database_driver: String,

    /// The server of the lock and of the cells' presences.
    pub locket_address: String,
    /// Its CA.
    pub locket_ca_cert_file: PathBuf,
    /// The certificate that is shown to it.
    pub locket_client_cert_file: PathBuf,
    /// Its key.
    pub locket_client_key_file: PathBuf,
    /// The lock's owner: a restarted server of the same owner takes over at once. A name that
    /// nobody else has if empty.
    pub uuid: String,
    /// For how long a lock is held without being renewed.
    #[serde(deserialize_with = "duration")]
    pub lock_ttl: Duration,
    /// Between two renewals, and between two tries to get it.
    #[serde(deserialize_with = "duration")]
    pub lock_retry_interval: Duration,

    /// Who is asked for cells.
    pub auctioneer_address: String,
    /// Its CA.
    pub auctioneer_ca_cert: PathBuf,
    /// The certificate that is shown to it.
    pub auctioneer_client_cert: PathBuf,
    /// Its key.
    pub auctioneer_client_key: PathBuf,

    /// The CA of the reps.
    pub rep_ca_cert: PathBuf,
    /// The certificate that is shown to them.
    pub rep_client_cert: PathBuf,
    /// Its key.
    pub rep_client_key: PathBuf,

    /// Between two passes of convergence.
    #[serde(deserialize_with = "duration")]
    pub converge_repeat_interval: Duration,
    /// How long a task's result waits before its delivery is tried again.
    #[serde(deserialize_with = "duration")]
    pub kick_task_duration: Duration,
    /// How long a task waits for a cell before it fails.
    #[serde(deserialize_with = "duration")]
    pub expire_pending_task_duration: Duration,
    /// How long a completed task that nobody comes for is kept.
    #[serde(deserialize_with = "duration")]
    pub expire_completed_task_duration: Duration,
    /// How often a task may be rejected before it fails.
    pub max_task_retries: i32,
    /// Results that are delivered at once.
    pub task_callback_workers: usize,
}

impl Default for Config {
    /// With the original's times and numbers, and no addresses.
    fn default() -> Self {
        let Patience { kick_task, pending_task, completed_task, .. } = Patience::default();
        let nowhere = PathBuf::new;
        Self {
            listen_address: String::new(),
            health_address: String::new(),
            ca_file: nowhere(),
            cert_file: nowhere(),
            key_file: nowhere(),
            database_connection_string: nowhere(),
            database_driver: String::new(),
            locket_address: String::new(),
            locket_ca_cert_file: nowhere(),
            locket_client_cert_file: nowhere(),
            locket_client_key_file: nowhere(),
            uuid: String::new(),
            lock_ttl: Duration::from_secs(15),
            lock_retry_interval: Duration::from_secs(5),
            auctioneer_address: String::new(),
            auctioneer_ca_cert: nowhere(),
            auctioneer_client_cert: nowhere(),
            auctioneer_client_key: nowhere(),
            rep_ca_cert: nowhere(),
            rep_client_cert: nowhere(),
            rep_client_key: nowhere(),
            converge_repeat_interval: Duration::from_secs(30),
            kick_task_duration: kick_task,
            expire_pending_task_duration: pending_task,
            expire_completed_task_duration: completed_task,
            max_task_retries: 3,
            task_callback_workers: 1000,
        }
    }
}

impl Config {
    /// The database's file.
    pub(crate) fn database(&self) -> Result<&Path, ConfigError> {
        if !["", "sqlite3"].contains(&self.database_driver.as_str()) {
            let reason = format!("{:?} is not served, only sqlite3 is", self.database_driver);
            return Err(ConfigError::value("database_driver", reason));
        }
        if self.database_connection_string.as_os_str().is_empty() {
            return Err(ConfigError::missing("database_connection_string"));
        }
        Ok(&self.database_connection_string)
    }

    /// The API's socket: the caller's, or one that is bound here.
    pub(crate) async fn api(&self, held: Option<TcpListener>) -> Result<Listener, ConfigError> {
        let own = self.own_identity()?;
        configured::listener("listen_address", &self.listen_address, Bare::Tls, own, held).await
    }

    /// The health address's socket.
    pub(crate) async fn health(
        &self,
        held: Option<TcpListener>,
    ) -> Result<Option<Listener>, ConfigError> {
        if self.health_address.is_empty() {
            return Ok(None);
        }
        let address = &self.health_address;
        configured::listener("health_address", address, Bare::Plain, None, held).await.map(Some)
    }

    pub(crate) fn own_identity(&self) -> Result<Option<Identity>, ConfigError> {
        configured::identity("cert_file", &self.ca_file, &self.cert_file, &self.key_file)
    }

    pub(crate) fn rep_identity(&self) -> Result<Option<Identity>, ConfigError> {
        let (ca, certificate) = (&self.rep_ca_cert, &self.rep_client_cert);
        configured::identity("rep_client_cert", ca, certificate, &self.rep_client_key)
    }

    pub(crate) fn locket(&self) -> Result<(Address, Option<Identity>), ConfigError> {
        let identity = configured::identity(
            "locket_client_cert_file",
            &self.locket_ca_cert_file,
            &self.locket_client_cert_file,
            &self.locket_client_key_file,
        )?;
        Ok((configured::address("locket_address", &self.locket_address, Bare::Tls)?, identity))
    }

    pub(crate) fn auctioneer(&self) -> Result<(Address, Option<Identity>), ConfigError> {
        let identity = configured::identity(
            "auctioneer_client_cert",
            &self.auctioneer_ca_cert,
            &self.auctioneer_client_cert,
            &self.auctioneer_client_key,
        )?;
        let address =
            configured::address("auctioneer_address", &self.auctioneer_address, Bare::Tls)?;
        Ok((address, identity))
    }

    pub(crate) fn patience(&self) -> Patience {
        Patience {
            kick_task: self.kick_task_duration,
            pending_task: self.expire_pending_task_duration,
            completed_task: self.expire_completed_task_duration,
            ..Patience::default()
        }
    }
}
