//! What a platform is started with.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

/// A platform's settings.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
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
        authority(host, &self.domain, self.port)
    }

    /// An address for clients.
    pub fn url(&self, host: &str) -> String {
        format!("http://{}", self.authority(host))
    }

    /// A unix socket of one of the daemons, as an address.
    pub(crate) fn socket(&self, daemon: &str) -> transport::Address {
        socket(&self.run, daemon)
    }
}

/// A unix socket of one of the daemons of the platform that has them in this directory.
pub(crate) fn socket(run: &Path, daemon: &str) -> transport::Address {
    transport::Address::Unix(run.join(format!("{daemon}.sock")))
}

/// A name in a domain, with the port that clients need.
pub fn authority(host: &str, domain: &str, port: u16) -> String {
    match port {
        80 => format!("{host}.{domain}"),
        port => format!("{host}.{domain}:{port}"),
    }
}
