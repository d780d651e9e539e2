//! Where kernels and templates are kept between runs: below the target directory.
//!
//! What root makes there, as tests do, is given to whom the directory belongs, who makes, uses and
//! removes everything else in it.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt as _, lchown};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Cargo's directory of everything that can be made again.
fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// A directory below it, made if it is not there.
pub fn directory(name: &str) -> anyhow::Result<PathBuf> {
    let mut directory = target();
    let cannot = |path: &Path| format!("cannot make {}", path.display());
    fs::create_dir_all(&directory).with_context(|| cannot(&directory))?;
    for part in Path::new(name) {
        directory.push(part);
        match fs::create_dir(&directory).and_then(|()| hand_over(&directory)) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| cannot(&directory));
            }
            _ => {}
        }
    }
    directory.canonicalize().with_context(|| format!("cannot find {}", directory.display()))
}

/// Waits for the lock of a part of the cache, a file, which who makes the part holds. It is held as
/// long as the file is open.
pub fn lock(path: &Path) -> anyhow::Result<File> {
    let cannot = || format!("cannot lock {}", path.display());
    let make = || File::options().create(true).truncate(false).write(true).open(path);
    // It need not be writable: somebody else may have made it.
    let file = File::open(path).or_else(|_| make()).with_context(cannot)?;
    hand_over(path).with_context(cannot)?;
    file.lock().with_context(cannot)?;
    Ok(file)
}

/// Gives what was made its place, in one step: whoever finds it finds it whole.
pub fn keep(made: &Path, place: &Path) -> anyhow::Result<()> {
    hand_over_all(made)
        .and_then(|()| fs::rename(made, place))
        .with_context(|| format!("cannot keep {} as {}", made.display(), place.display()))
}

/// Gives a directory and all that is in it to whom the target directory belongs.
pub(crate) fn hand_over_all(path: &Path) -> io::Result<()> {
    hand_over(path)?;
    if path.symlink_metadata()?.is_dir() {
        for entry in fs::read_dir(path)? {
            hand_over_all(&entry?.path())?;
        }
    }
    Ok(())
}

/// Nobody but root has to, or could.
fn hand_over(path: &Path) -> io::Result<()> {
    let owner = fs::metadata(target())?;
    if !rustix::process::geteuid().is_root() || path.symlink_metadata()?.uid() == owner.uid() {
        return Ok(());
    }
    lchown(path, Some(owner.uid()), Some(owner.gid()))
}
