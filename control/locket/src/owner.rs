//! An owner's name: the configured one, one that survives its daemon, or any.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use uuid::Uuid;

use crate::error::Error;

/// The configured name, or one that nobody else has if that is empty.
pub fn owner_named(configured: &str) -> String {
    match configured {
        "" => Uuid::new_v4().to_string(),
        name => name.to_owned(),
    }
}

/// The owner kept in a file, or a new one if there is no file. With it a restarted cell goes on
/// with the presence it left, where one with a fresh name would be refused until that presence
/// ended. The caller sees to it that only one daemon at a time uses the file.
pub fn owner_kept_in(path: &Path) -> Result<String, Error> {
    kept(path).map_err(|source| Error::Owner { path: path.to_owned(), source })
}

fn kept(path: &Path) -> io::Result<String> {
    match fs::read_to_string(path) {
        Ok(text) if Uuid::parse_str(text.trim()).is_ok() => return Ok(text.trim().to_owned()),
        Ok(_) => return Err(io::Error::other("what is in it is no owner")),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Err(_) => {}
    }
    let owner = Uuid::new_v4().to_string();
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty());
    let directory = directory.unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let mut file = private::file(temporary.as_ref())?;
    file.write_all(owner.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    File::open(directory)?.sync_all()?;
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_made_once() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("cell/owner");
        let owner = owner_kept_in(&path).unwrap();
        assert_eq!(owner_kept_in(&path).unwrap(), owner);
        assert_ne!(owner_kept_in(&place.path().join("other")).unwrap(), owner);
        fs::write(&path, "x").unwrap();
        assert!(owner_kept_in(&path).unwrap_err().to_string().contains("cell/owner"));
    }
}
