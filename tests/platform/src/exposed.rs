//! What users of the machine see who are none of the platform's.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// All files below a directory that everybody may read or write, with their paths in it, sorted.
/// Directories that nobody else may enter hide what is below them; links are not followed.
pub fn exposed(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    collect(directory, &mut found);
    let mut found: Vec<_> =
        found.iter().map(|path| path.strip_prefix(directory).unwrap().to_owned()).collect();
    found.sort();
    found
}

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    const READ_OR_WRITE: u32 = 0o006;
    const ENTER: u32 = 0o001;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        // What runs may take its files away meanwhile.
        let Ok(data) = fs::symlink_metadata(&path) else { continue };
        let mode = data.permissions().mode();
        if data.is_dir() {
            if mode & ENTER != 0 {
                collect(&path, found);
            }
        } else if !data.is_symlink() && mode & READ_OR_WRITE != 0 {
            found.push(path);
        }
    }
}
