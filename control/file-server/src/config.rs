//! What an operator sets.

use std::path::PathBuf;

use serde::Deserialize;

/// The original's configuration file, as far as it is read here. Other keys are ignored.
#[derive(Clone, Debug, Deserialize, PartialEq, Eq)]
#[serde(default)]
pub struct Config {
    /// `HOST:PORT` for plain HTTP, or an address of any kind.
    pub server_address: String,
    /// The directory that is served.
    pub static_directory: PathBuf,
    /// Whether TLS is spoken on a second address; plain HTTP then only leads there.
    pub https_server_enabled: bool,
    /// `HOST:PORT` for TLS. Unlike with the original, clients must show a certificate of the CA.
    pub https_listen_addr: String,
    /// The CA of clients. The original has no such key.
    pub ca_file: PathBuf,
    /// Our certificate.
    pub cert_file: PathBuf,
    /// Its key.
    pub key_file: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            server_address: "127.0.0.1:8080".into(),
            static_directory: "/var/vcap/jobs/file_server/packages".into(),
            https_server_enabled: false,
            https_listen_addr: "127.0.0.1:8443".into(),
            ca_file: PathBuf::new(),
            cert_file: PathBuf::new(),
            key_file: PathBuf::new(),
        }
    }
}
