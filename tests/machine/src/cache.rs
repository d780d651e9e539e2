//! Where kernels and templates are kept between runs: below the target directory.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// Cargo's directory of everything that can be made again.
pub fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    workspace.join(std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into()))
}

/// The part of it that is ours.
pub fn directory() -> PathBuf {
    target().join("machine")
}

/// Opens the lock file of a part of the cache; who makes the part holds it.
pub fn lock_file(name: &str) -> anyhow::Result<File> {
    let directory = directory();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {directory:?}"))?;
    let path = directory.join(format!("{name}.lock"));
    File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .with_context(|| format!("cannot open {path:?}"))
}
