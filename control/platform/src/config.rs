//! What a platform is started with.

use std::path::PathBuf;

/// A platform's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Databases, blobs, secrets and downloads; made if missing, readable by the owner alone.
    pub data: PathBuf,
    /// For unix sockets; a directory that is there, of a short path.
    pub run: PathBuf,
    /// Domain of the platform: `api.<domain>` is its API.
    pub domain: String,
    /// Domain of apps.
    pub apps_domain: String,
    /// The port under which clients reach the router.
    pub port: u16,
    /// Garden's socket or `IP:PORT`.
    pub garden: String,
    /// The static program that is builder, launcher and health check in containers.
    pub lifecycle: PathBuf,
    /// What apps run on.
    pub stack: Stack,
    /// MiB that the cell offers; none: what Garden has.
    pub memory_mb: Option<i64>,
    /// MiB that the cell offers; none: what Garden has.
    pub disk_mb: Option<i64>,
}

/// A root file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stack {
    /// Name, as in a manifest.
    pub name: String,
    /// One line about it.
    pub description: String,
    /// Where Garden finds it: a directory, or a URI with a scheme of its own.
    pub rootfs: String,
}

impl Config {
    /// A name in the platform's domain, with the port that clients need.
    pub(crate) fn authority(&self, host: &str) -> String {
        match self.port {
            80 => format!("{host}.{}", self.domain),
            port => format!("{host}.{}:{port}", self.domain),
        }
    }

    /// An address for clients.
    pub fn url(&self, host: &str) -> String {
        format!("http://{}", self.authority(host))
    }

    /// A unix socket of one of the daemons, as an address.
    pub(crate) fn socket(&self, daemon: &str) -> transport::Address {
        transport::Address::Unix(self.run.join(format!("{daemon}.sock")))
    }
}
