//! Debian's packages, unpacked into the cache, never installed.

use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context as _;

use crate::cache;
use crate::host::call;

/// The files of a package, unpacked below the cache.
pub fn unpacked(name: &str) -> anyhow::Result<PathBuf> {
    let packages = cache::directory("machine/packages")?;
    let home = packages.join(name);
    let _lock = cache::lock(&packages.join(format!("{name}.lock")))?;
    if !home.exists() {
        find(name, || Ok(described(name)?.contains("Package: ").then(|| name.to_owned())))
            .and_then(|package| unpack(&package, &home, |_| Ok(())))
            .with_context(|| format!("cannot get Debian's package {name}"))?;
    }
    Ok(home)
}

/// What a package is called, by the package lists; they are asked for where they are not there, as on
/// a machine that is made from a fresh container image.
pub(crate) fn find(
    name: &str,
    look: impl Fn() -> anyhow::Result<Option<String>>,
) -> anyhow::Result<String> {
    if let Some(package) = look()? {
        return Ok(package);
    }
    call("apt-get", ["update", "-qq"], Path::new("/"))?;
    look()?.with_context(|| format!("the package sources of this machine do not have {name}"))
}

/// What the package lists say of a package; nothing where they do not know it.
pub(crate) fn described(name: &str) -> anyhow::Result<String> {
    let output = Command::new("apt-cache")
        .args(["show", "--no-all-versions", name])
        .output()
        .context("cannot start apt-cache: test machines run Debian's programs")?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Downloads a package by its whole name, since `apt-get download` takes what it is given as a pattern,
/// and unpacks it. It is in its home when it is whole and `finish` has done its part; a failure leaves
/// nothing.
pub(crate) fn unpack(
    package: &str,
    home: &Path,
    finish: impl FnOnce(&Path) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let siblings = home.parent().context("a package's home is below the cache")?;
    let partial = tempfile::Builder::new().prefix("partial-").tempdir_in(siblings)?;
    eprintln!("machine: downloading {package}");
    call("apt-get", ["download", "-qq", package], partial.path())?;
    let mut files = fs::read_dir(partial.path())?;
    let file = files.next().context("apt-get download left no file")??.path();
    call("dpkg-deb", [OsStr::new("-x"), file.as_os_str(), OsStr::new(".")], partial.path())?;
    fs::remove_file(file)?;
    finish(partial.path())?;
    cache::keep(partial.path(), home)
}
