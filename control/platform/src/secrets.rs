//! Passwords, made once.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rand::distr::{Alphanumeric, SampleString as _};
use serde::{Deserialize, Serialize};

use crate::error::Error;

const FILE: &str = "secrets.json";

/// All passwords of an installation. They are in one file that its owner alone may read.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Secrets {
    /// Of the user `admin`.
    pub admin: String,
    /// Of Cloud Controller at UAA.
    pub(crate) user_lookup: String,
    /// What cells show at Cloud Controller.
    pub(crate) staging: String,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

/// 20 letters and digits: 119 bits.
fn password() -> String {
    Alphanumeric.sample_string(&mut rand::rng(), 20)
}

impl Secrets {
    /// Reads the secrets in a data directory.
    pub fn read(data: &Path) -> Result<Self, Error> {
        let path = data.join(FILE);
        let text = fs::read(&path).map_err(Error::file("read", &path))?;
        serde_json::from_slice(&text)
            .map_err(|error| Error::file("understand", &path)(error.into()))
    }

    /// Reads them, or makes them at the first start.
    pub(crate) fn ensure(data: &Path) -> Result<Self, Error> {
        match Self::read(data) {
            Err(Error::File { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => {}
            read => return read,
        }
        let secrets = Self { admin: password(), user_lookup: password(), staging: password() };
        let path = data.join(FILE);
        let text = serde_json::to_vec(&secrets)
            .map_err(|error| Error::file("write", &path)(error.into()))?;
        write(&path, &text, 0o600)?;
        Ok(secrets)
    }
}

/// Writes a file as a whole, or not at all; it is on the disk then.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), Error> {
    let new = path.with_added_extension("new");
    let write = || {
        let mut file =
            fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&new)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&new, path)?;
        fs::File::open(path.parent().unwrap_or(path))?.sync_all()
    };
    write().map_err(Error::file("write", path))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::Secrets;

    #[test]
    fn they_are_made_once_and_for_their_owner_alone() {
        let data = tempfile::tempdir().unwrap();
        let made = Secrets::ensure(data.path()).unwrap();
        assert_eq!(made.admin.len(), 20);
        assert_ne!(made.admin, made.staging);
        assert_eq!(Secrets::ensure(data.path()).unwrap(), made);
        assert_eq!(Secrets::read(data.path()).unwrap(), made);
        let file = data.path().join("secrets.json");
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(format!("{made:?}"), "Secrets");
        std::fs::write(&file, "{").unwrap();
        assert!(Secrets::ensure(data.path()).is_err(), "what is damaged is not replaced");
    }
}
