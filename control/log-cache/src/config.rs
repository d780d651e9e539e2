//! What an operator sets.

use std::path::PathBuf;

use serde::Deserialize;
use transport::configured;
use transport::{Address, Identity};

use crate::error::Error;
use crate::store::Limits;

/// A log-cache's configuration. The keys are the environment variables of the original's log-cache
/// and cf-auth-proxy in lower case, where these have them. Addresses are those of
/// [`Address`], or `HOST:PORT` for mutual TLS.
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
    pub(crate) fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(configured::identity(&self.ca_path, &self.cert_path, &self.key_path)?)
    }

    pub(crate) fn address(key: &str, text: &str) -> Result<Address, Error> {
        configured::address(text)
            .map_err(|_| Error::Config(format!("{key} {text:?} is no address and no HOST:PORT")))
    }
}
