//! Files and directories that no other user of the machine looks into: apps' variables, passwords,
//! droplets and what containers write lie in them.
//!
//! What earlier builds made is open, so whatever exists is closed as well.

#![forbid(unsafe_code)]

use std::ffi::OsString;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

const DIRECTORY: u32 = 0o700;
const FILE: u32 = 0o600;
/// In a mode: what group and others may do.
const OTHERS: u32 = 0o077;
/// In a mode: everybody may make files, and remove their own.
const SHARED: u32 = 0o1000;

/// Makes a directory, or closes the one that is there. What is missing above it is made as usual. A
/// directory like `/tmp`, which is everybody's on purpose, is an error.
pub fn directory(path: &Path) -> io::Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(DIRECTORY).create(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {
            close(path, DIRECTORY)
        }
        made => made,
    }
}

/// Makes a file, or empties and closes the one that is there.
pub fn file(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(FILE).open(path)?;
    close(path, FILE)?;
    Ok(file)
}

/// Makes the file of a SQLite database, empty, or closes the one that is there and its companions.
/// Those that SQLite makes later get the mode of the file (sqlite.org, "Temporary files").
pub fn database(path: &Path) -> io::Result<()> {
    // One that is there must not be opened: its closing would free all locks that this process has
    // on it (sqlite.org, "How To Corrupt An SQLite Database File").
    match OpenOptions::new().write(true).create_new(true).mode(FILE).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made.map(drop),
    }
    for companion in ["", "-wal", "-shm", "-journal"] {
        let mut name = OsString::from(path);
        name.push(companion);
        match close(name.as_ref(), FILE) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

fn close(path: &Path, mode: u32) -> io::Result<()> {
    let found = fs::metadata(path)?.permissions().mode();
    if found & OTHERS == 0 {
        return Ok(());
    }
    if found & SHARED != 0 {
        return Err(io::Error::other("it is everybody's, and must not be taken from them"));
    }
    fs::set_permissions(path, Permissions::from_mode(mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    fn open_to_all(path: &Path) {
        fs::set_permissions(path, Permissions::from_mode(0o777)).unwrap();
    }

    #[test]
    fn what_is_made_is_closed_and_what_was_open_is_closed_again() {
        let place = tempfile::tempdir().unwrap();
        let (above, inner) = (place.path().join("above"), place.path().join("above/inner"));
        for _ in 0..2 {
            directory(&inner).unwrap();
            assert_eq!(mode(&inner), 0o700);
            assert_ne!(mode(&above), 0o700, "others may have something beside it");
            let secret = inner.join("secret");
            drop(file(&secret).unwrap());
            assert_eq!(mode(&secret), 0o600);
            open_to_all(&inner);
            open_to_all(&secret);
        }
    }

    #[test]
    fn a_database_keeps_its_content_and_is_closed_with_its_companions() {
        let place = tempfile::tempdir().unwrap();
        let name = |name: &str| place.path().join(name);
        database(&name("x.db")).unwrap();
        assert_eq!(mode(&name("x.db")), 0o600);
        assert!(!name("x.db-wal").exists());
        for file in ["x.db", "x.db-wal", "x.db-shm"] {
            fs::write(name(file), file).unwrap();
            open_to_all(&name(file));
        }
        database(&name("x.db")).unwrap();
        for file in ["x.db", "x.db-wal", "x.db-shm"] {
            assert_eq!(mode(&name(file)), 0o600, "{file}");
            assert_eq!(fs::read_to_string(name(file)).unwrap(), file);
        }
    }

    #[test]
    fn what_is_everybody_s_is_not_taken_from_them() {
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), Permissions::from_mode(0o1777)).unwrap();
        let error = directory(place.path()).unwrap_err();
        assert!(error.to_string().contains("everybody's"), "{error}");
        assert_eq!(mode(place.path()), 0o1777);
        // Nor is a file taken for a directory.
        fs::write(place.path().join("file"), "").unwrap();
        directory(&place.path().join("file")).unwrap_err();
    }
}
