//! The emitter's settings, with the names of the original's configuration file.

use std::path::PathBuf;
use std::time::Duration;

use bus::Servers;
use locket::{Lock, Timing};
use serde::Deserialize;
use transport::Protocol;
use transport::configured::{self, Bare, ConfigError, duration, period};

use crate::emitter::Error;

/// The lock of which one emitter of all cells is the holder.
const LOCK: &str = "route_emitter";

/// Settings that are missing have the original's defaults; unknown ones are ignored. Durations are texts
/// such as `1m30s`.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// The cell whose instances are told of; all of them if it is empty.
    pub cell_id: String,
    /// Who knows the instances, as an address; a bare `HOST:PORT` has mutual TLS.
    pub bbs_address: String,
    /// Its CA.
    pub bbs_ca_cert_file: PathBuf,
    /// The certificate that is shown to it.
    pub bbs_client_cert_file: PathBuf,
    /// Its key.
    pub bbs_client_key_file: PathBuf,
    /// NATS servers, `HOST:PORT` each, with commas between them.
    pub nats_addresses: String,
    /// Empty: they want no name.
    pub nats_username: String,
    /// The name's password.
    pub nats_password: String,
    /// They speak mutual TLS.
    pub nats_tls_enabled: bool,
    /// Their CA.
    pub nats_ca_cert_file: PathBuf,
    /// The certificate that is shown to them.
    pub nats_client_cert_file: PathBuf,
    /// Its key.
    pub nats_client_key_file: PathBuf,
    /// The server of the lock, if this emitter is one for all cells. Without one, whoever runs several
    /// must see to it that one is active.
    pub locket_address: String,
    /// Its CA.
    pub locket_ca_cert_file: PathBuf,
    /// The certificate that is shown to it.
    pub locket_client_cert_file: PathBuf,
    /// Its key.
    pub locket_client_key_file: PathBuf,
    /// The lock's owner: a restarted emitter of the same owner takes over at once. A name that nobody
    /// else has if empty.
    pub uuid: String,
    /// For how long a lock is held without being renewed.
    #[serde(deserialize_with = "duration")]
    pub lock_ttl: Duration,
    /// Between two renewals, and between two tries to get it.
    #[serde(deserialize_with = "duration")]
    pub lock_retry_interval: Duration,
    /// Between comparisons with the BBS's lists.
    #[serde(deserialize_with = "period")]
    pub sync_interval: Duration,
    /// Routers that start are told everything after up to so much of their interval.
    pub jitter_factor: f64,
    /// Where an instance does not say by which address it is reached: by its own, not the cell's.
    pub register_direct_instance_routes: bool,
    /// Tell service discovery of internal routes.
    pub enable_internal_emitter: bool,
    /// Between repetitions of what is gone.
    #[serde(deserialize_with = "period")]
    pub unregistration_interval: Duration,
    /// How often it is repeated.
    pub unregistration_send_count: u32,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            cell_id: String::new(),
            bbs_address: String::new(),
            bbs_ca_cert_file: PathBuf::new(),
            bbs_client_cert_file: PathBuf::new(),
            bbs_client_key_file: PathBuf::new(),
            nats_addresses: "nats://127.0.0.1:4222".into(),
            nats_username: String::new(),
            nats_password: String::new(),
            nats_tls_enabled: false,
            nats_ca_cert_file: PathBuf::new(),
            nats_client_cert_file: PathBuf::new(),
            nats_client_key_file: PathBuf::new(),
            locket_address: String::new(),
            locket_ca_cert_file: PathBuf::new(),
            locket_client_cert_file: PathBuf::new(),
            locket_client_key_file: PathBuf::new(),
            uuid: String::new(),
            lock_ttl: Timing::LOCK.ttl,
            lock_retry_interval: Timing::LOCK.interval,
            sync_interval: Duration::from_secs(60),
            jitter_factor: 0.2,
            register_direct_instance_routes: false,
            enable_internal_emitter: true,
            unregistration_interval: Duration::from_secs(30),
            unregistration_send_count: 20,
        }
    }
}

impl Config {
    /// A client of the BBS.
    pub fn bbs(&self) -> Result<bbs_client::Client, Error> {
        let identity = configured::identity(
            "bbs_client_cert_file",
            &self.bbs_ca_cert_file,
            &self.bbs_client_cert_file,
            &self.bbs_client_key_file,
        )?;
        let address = configured::address("bbs_address", &self.bbs_address, Bare::Tls)?;
        bbs_client::Client::new(address, identity).map_err(Error::Bbs)
    }

    /// The NATS servers.
    pub fn servers(&self) -> Result<Servers, Error> {
        let tls = if self.nats_tls_enabled {
            let identity = configured::identity(
                "nats_client_cert_file",
                &self.nats_ca_cert_file,
                &self.nats_client_cert_file,
                &self.nats_client_key_file,
            )?;
            let missing = || ConfigError::missing("nats_client_cert_file");
            Some(identity.ok_or_else(missing)?.client_config(Protocol::Http1))
        } else {
            None
        };
        let login = (!self.nats_username.is_empty())
            .then(|| (self.nats_username.clone(), self.nats_password.clone()));
        let addresses = self.nats_addresses.split(',').map(str::trim).map(str::to_owned).collect();
        Ok(Servers { addresses, login, tls })
    }

    /// The lock of an emitter of all cells.
    pub(crate) fn lock(&self) -> Result<Option<Lock>, Error> {
        if !self.cell_id.is_empty() || self.locket_address.is_empty() {
            return Ok(None);
        }
        let identity = configured::identity(
            "locket_client_cert_file",
            &self.locket_ca_cert_file,
            &self.locket_client_cert_file,
            &self.locket_client_key_file,
        )?;
        let address = configured::address("locket_address", &self.locket_address, Bare::Tls)?;
        let client = locket::Client::new(&address, identity)
            .map_err(ConfigError::transport("locket_address"))?;
        let timing = Timing { ttl: self.lock_ttl, interval: self.lock_retry_interval };
        Ok(Some(Lock::new(client, LOCK, &locket::owner_named(&self.uuid), timing)))
    }
}

#[cfg(test)]
mod tests {
    use super::Config;

    #[test]
    fn settings_are_read() {
        let config: Config = serde_json::from_str(
            r#"{"cell_id":"cell-1","sync_interval":"1h","unregistration_interval":"5s","bbs_address":"x"}"#,
        )
        .unwrap();
        assert_eq!((config.cell_id.as_str(), config.sync_interval.as_secs()), ("cell-1", 3600));
        assert_eq!((config.unregistration_interval.as_secs(), config.jitter_factor), (5, 0.2));
        for bad in ["0s", "s", "5"] {
            let text = format!(r#"{{"sync_interval":"{bad}"}}"#);
            assert!(serde_json::from_str::<Config>(&text).is_err(), "{bad}");
        }
    }
}
