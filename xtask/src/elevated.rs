//! Commands run as root: directly where we are root, else by sudo(8).

use std::ffi::OsStr;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::{Context as _, bail, ensure};
use machine::host::find;

use crate::build;

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether commands can be run as root at all.
pub fn possible() -> bool {
    is_root() || find("sudo").is_some()
}

/// A command that will run as root; sudo may ask for a password.
pub fn command(program: impl AsRef<OsStr>) -> Command {
    if is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.arg("--").arg(program);
    command
}

/// What cargo should start built programs with, so that they run as root; `None` where we are. sudo
/// sets a `PATH` of its own even where the environment is kept, and tests ask cargo and its
/// compiler.
pub fn runner() -> anyhow::Result<Option<String>> {
    if is_root() {
        return Ok(None);
    }
    let path = std::env::var("PATH").context("PATH is not text")?;
    // Cargo takes it apart at spaces.
    ensure!(!path.contains(char::is_whitespace), "PATH has a space in it: {path}");
    Ok(Some(format!("sudo --preserve-env -- env PATH={path}")))
}

/// Refuses to be somebody's root by sudo: what cargo builds then cannot be built over, nor removed,
/// by whom the clone belongs to.
pub fn refuse_by_sudo() -> anyhow::Result<()> {
    let owner = std::fs::metadata(build::workspace()).context("cannot look at the clone")?.uid();
    let caller = std::env::var("SUDO_UID").ok().and_then(|uid| uid.parse().ok());
    if !is_root() || owner == 0 || caller != Some(owner) {
        return Ok(());
    }
    bail!(
        "run this without sudo, which is asked where it is needed; builds are to be yours. What \
         sudo has built already you get back by\n  sudo chown -R {owner}: {}",
        build::target().display()
    )
}
