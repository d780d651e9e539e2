//! What is remembered between commands.

use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;

/// Where the platform is, who is logged in, and what is targeted.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct Session {
    /// API endpoint.
    pub api: String,
    /// Its version.
    pub api_version: String,
    /// Where tokens are had.
    pub login: String,
    /// Where logs are had.
    pub log_cache: String,
    /// Whether any certificate is good.
    pub skip_ssl_validation: bool,
    /// A JWT; empty: nobody is logged in.
    pub access_token: String,
    /// Gets the next one.
    pub refresh_token: String,
    /// The targeted org.
    pub org: Option<Named>,
    /// The targeted space.
    pub space: Option<Named>,
}

/// A thing that users know by name.
#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Named {
    /// Guid.
    pub guid: String,
    /// Name.
    pub name: String,
}

impl Session {
    /// The one in a file, or an empty one if there is none.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let text = match std::fs::read(file) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            read => read.map_err(Error::file("reading", file))?,
        };
        serde_json::from_slice(&text)
            .map_err(|error| Error::said(format!("{} is damaged: {error}", file.display())))
    }

    /// Writes it in the place of the old one: it holds tokens, so nobody else may read it.
    pub fn save(&self, file: &Path) -> Result<(), Error> {
        let cannot = || Error::file("writing", file);
        let dir = file.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(cannot())?;
        let mut new = tempfile::NamedTempFile::new_in(dir).map_err(cannot())?;
        let private = std::fs::Permissions::from_mode(0o600);
        new.as_file().set_permissions(private).map_err(cannot())?;
        serde_json::to_writer_pretty(&mut new, self).map_err(|error| cannot()(error.into()))?;
        new.write_all(b"\n").map_err(cannot())?;
        new.persist(file).map_err(|error| cannot()(error.error))?;
        Ok(())
    }
}
