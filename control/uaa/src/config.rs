//! What a UAA is started with.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::Deserialize;

use crate::clients::ClientDetails;

/// A password or a client's secret. It never shows in logs.
#[derive(Clone, Default, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Secret(pub String);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// A UAA's configuration. The keys are those of `uaa.yml` where that has them.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub struct Config {
    /// Directory of the database and of the signing key; made if missing.
    pub data_dir: PathBuf,
    /// Address that clients know this UAA by, without a slash at the end. The issuer of tokens is
    /// this and `/oauth/token`.
    pub uaa_url: String,
    /// Address of the log-in pages and of the token endpoint that clients use.
    pub login_url: String,
    /// Users that exist from the first start on. One that exists already stays as it is.
    pub users: Vec<SeedUser>,
    /// Clients by id, added to the platform's own or replacing them.
    pub clients: BTreeMap<String, ClientDetails>,
    /// Secrets for the platform's own clients, by id. A platform client that is not public and has
    /// none here cannot log in.
    pub client_secrets: BTreeMap<String, Secret>,
    /// What one look at a password costs.
    pub password_cost: PasswordCost,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "uaa".into(),
            uaa_url: "http://localhost:8080".into(),
            login_url: "http://localhost:8080".into(),
            users: Vec::new(),
            clients: BTreeMap::new(),
            client_secrets: BTreeMap::new(),
            password_cost: PasswordCost::default(),
        }
    }
}

/// A user that a configuration names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct SeedUser {
    /// Name to log in with, unique within the origin `uaa` whatever its case.
    pub user_name: String,
    /// Password of the first start. A later change by the user stays.
    pub password: Secret,
    /// E-mail address; the name if empty.
    pub email: String,
    /// Groups beside those that every user is in.
    pub groups: Vec<String>,
}

/// Parameters of argon2id for new passwords; existing hashes carry their own.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(default)]
pub struct PasswordCost {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over the memory.
    pub passes: u32,
}

impl Default for PasswordCost {
    /// OWASP's recommendation for one lane: 19 MiB, two passes.
    fn default() -> Self {
        Self { memory_kib: 19 * 1024, passes: 2 }
    }
}
