//! What an operator sets.

use std::path::PathBuf;

use serde::Deserialize;
use transport::Identity;
use transport::configured::{self, Bare, ConfigError};

use crate::client::{Delivery, Ingress};

use crate::store::Limits;

/// A log-cache's configuration. The keys are the environment variables of the original's log-cache
/// and cf-auth-proxy in lower case, where these have them. Addresses are those of
/// [`transport::Address`], or `HOST:PORT` for mutual TLS.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Where envelopes come in and programs read, by gRPC.
    pub addr: String,
    /// Where users read, with their tokens. Empty: nowhere.
    pub proxy_addr: String,
    /// Where whoever gets there reads everything by HTTP. Empty: nowhere.
    pub gateway_addr: String,
    /// UAA, for the keys of tokens.
    pub uaa_addr: String,
    /// What good tokens name as their issuer: `https://uaa.…/oauth/token`.
    pub uaa_issuer: String,
    /// Cloud Controller, which is asked what a user may read.
    pub capi_addr: String,
    /// Envelopes of one source that are kept.
    pub max_per_source: usize,
    /// Bytes of all envelopes that are kept.
    pub memory_limit: usize,
    /// The CA of everybody.
    pub ca_path: PathBuf,
    /// Our certificate.
    pub cert_path: PathBuf,
    /// Its key.
    pub key_path: PathBuf,
}

/// Where a daemon sends envelopes: the block `loggregator` of the originals' configuration files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Agent {
    /// Envelopes are sent.
    pub loggregator_use_v2_api: bool,
    /// The port of the agent on 127.0.0.1, whose certificate names `metron`.
    pub loggregator_api_port: u16,
    /// A server elsewhere, as an address; the original has no such key.
    pub loggregator_api_address: String,
    /// The CA of the server.
    pub loggregator_ca_path: PathBuf,
    /// The certificate that is shown to it.
    pub loggregator_cert_path: PathBuf,
    /// Its key.
    pub loggregator_key_path: PathBuf,
}

impl Agent {
    /// The way there, if envelopes are sent. Must be called inside a tokio runtime.
    pub fn ingress(&self) -> Result<Option<(Ingress, Delivery)>, ConfigError> {
        if !self.loggregator_use_v2_api {
            return Ok(None);
        }
        let identity = configured::identity(
            "loggregator.loggregator_cert_path",
            &self.loggregator_ca_path,
            &self.loggregator_cert_path,
            &self.loggregator_key_path,
        )?;
        let (key, way) = if self.loggregator_api_address.is_empty() {
            let key = "loggregator.loggregator_api_port";
            if self.loggregator_api_port == 0 {
                return Err(ConfigError::missing(key));
            }
            (key, Ingress::agent(self.loggregator_api_port, identity))
        } else {
            let key = "loggregator.loggregator_api_address";
            let address = configured::address(key, &self.loggregator_api_address, Bare::Tls)?;
            (key, Ingress::remote(&address, identity))
        };
        way.map(Some).map_err(ConfigError::transport(key))
    }
}

impl Default for Config {
    fn default() -> Self {
        let Limits { envelopes_per_source, bytes } = Limits::default();
        Self {
            addr: "127.0.0.1:8080".into(),
            proxy_addr: String::new(),
            gateway_addr: String::new(),
            uaa_addr: String::new(),
            uaa_issuer: String::new(),
            capi_addr: String::new(),
            max_per_source: envelopes_per_source,
            memory_limit: bytes,
            ca_path: PathBuf::new(),
            cert_path: PathBuf::new(),
            key_path: PathBuf::new(),
        }
    }
}

impl Config {
    pub(crate) fn limits(&self) -> Limits {
        Limits { envelopes_per_source: self.max_per_source, bytes: self.memory_limit }
    }

    /// Our certificate, if one is named.
    pub(crate) fn identity(&self) -> Result<Option<Identity>, ConfigError> {
        configured::identity("cert_path", &self.ca_path, &self.cert_path, &self.key_path)
    }
}
