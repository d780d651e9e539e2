//! Commands run as root: directly where we are root, else by sudo(8).

use std::ffi::OsStr;
use std::process::Command;

use crate::packages::find;

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

/// What cargo should start built programs with, so that they run as root; `None` where we are.
pub fn runner() -> Option<&'static str> {
    (!is_root()).then_some("sudo --preserve-env --")
}
