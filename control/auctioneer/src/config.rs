//! What an operator sets, in the original's words.

use std::net::TcpListener;
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use transport::configured::{self, Bare, ConfigError, duration};
use transport::{Address, Identity, Listener};

use crate::placement::Weights;

/// The original's configuration file, as far as it is read here. Other keys are ignored.
///
/// Addresses are `HOST:PORT` for mutual TLS, as the original has them, or an [`Address`].
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where the BBS asks.
    pub listen_address: String,
    /// The CA of all clients and of the server's certificate.
    pub ca_cert_file: PathBuf,
    /// The server's certificate.
    pub server_cert_file: PathBuf,
    /// Its key.
    pub server_key_file: PathBuf,

    /// Who knows the cells, and is told of failures.
    pub bbs_address: String,
    /// Its CA.
    pub bbs_ca_cert_file: PathBuf,
    /// The certificate that is shown to it.
    pub bbs_client_cert_file: PathBuf,
    /// Its key.
    pub bbs_client_key_file: PathBuf,

    /// The CA of the reps.
    pub rep_ca_cert: PathBuf,
    /// The certificate that is shown to them.
    pub rep_client_cert: PathBuf,
    /// Its key.
    pub rep_client_key: PathBuf,
    /// For a cell to tell its state.
    #[serde(deserialize_with = "duration")]
    pub cell_state_timeout: Duration,
    /// For a call to a rep or to the BBS.
    #[serde(deserialize_with = "duration")]
    pub communication_timeout: Duration,
    /// Cells that are asked at once.
    pub auction_runner_workers: usize,

    /// The server of the lock.
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

    /// See [`Weights::starting_container`].
    pub starting_container_weight: f64,
    /// See [`Weights::bin_pack_first_fit`].
    pub bin_pack_first_fit_weight: f64,
    /// See [`Weights::starting_containers_maximum`].
    pub starting_container_count_maximum: i32,
}

impl Default for Config {
    /// With the original's times and numbers, and no addresses.
    fn default() -> Self {
        let weights = Weights::default();
        let nowhere = PathBuf::new;
        Self {
            listen_address: String::new(),
            ca_cert_file: nowhere(),
            server_cert_file: nowhere(),
            server_key_file: nowhere(),
            bbs_address: String::new(),
            bbs_ca_cert_file: nowhere(),
            bbs_client_cert_file: nowhere(),
            bbs_client_key_file: nowhere(),
            rep_ca_cert: nowhere(),
            rep_client_cert: nowhere(),
            rep_client_key: nowhere(),
            cell_state_timeout: Duration::from_secs(10),
            communication_timeout: Duration::from_secs(10),
            auction_runner_workers: 1000,
            locket_address: String::new(),
            locket_ca_cert_file: nowhere(),
            locket_client_cert_file: nowhere(),
            locket_client_key_file: nowhere(),
            uuid: String::new(),
            lock_ttl: Duration::from_secs(15),
            lock_retry_interval: Duration::from_secs(5),
            starting_container_weight: weights.starting_container,
            bin_pack_first_fit_weight: weights.bin_pack_first_fit,
            starting_container_count_maximum: weights.starting_containers_maximum,
        }
    }
}

impl Config {
    /// The server's socket: the caller's, or one that is bound here.
    pub(crate) async fn listener(
        &self,
        held: Option<TcpListener>,
    ) -> Result<Listener, ConfigError> {
        let (ca, certificate) = (&self.ca_cert_file, &self.server_cert_file);
        let own = configured::identity("server_cert_file", ca, certificate, &self.server_key_file)?;
        configured::listener("listen_address", &self.listen_address, Bare::Tls, own, held).await
    }

    pub(crate) fn bbs(&self) -> Result<(Address, Option<Identity>), ConfigError> {
        let identity = configured::identity(
            "bbs_client_cert_file",
            &self.bbs_ca_cert_file,
            &self.bbs_client_cert_file,
            &self.bbs_client_key_file,
        )?;
        Ok((configured::address("bbs_address", &self.bbs_address, Bare::Tls)?, identity))
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

    pub(crate) fn rep_identity(&self) -> Result<Option<Identity>, ConfigError> {
        let (ca, certificate) = (&self.rep_ca_cert, &self.rep_client_cert);
        configured::identity("rep_client_cert", ca, certificate, &self.rep_client_key)
    }

    pub(crate) fn weights(&self) -> Weights {
        Weights {
            starting_container: self.starting_container_weight,
            bin_pack_first_fit: self.bin_pack_first_fit_weight,
            starting_containers_maximum: self.starting_container_count_maximum,
        }
    }
}
