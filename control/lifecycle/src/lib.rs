//! What runs inside app containers: builder, launcher and health check, the programs of an app
//! lifecycle bundle (the original's buildpackapplifecycle and healthcheck).
//!
//! All three are the one static `bloomery` file under another name: a bundle is an archive in which
//! that file is called `builder`, `launcher` and `healthcheck`, and [`Program::named`] tells by
//! `argv[0]` which of them is meant. So they run in any root file system, and a cell needs no file
//! beside its own program.
//!
//! [`buildpacks`] holds the buildpacks that come with the platform.

#![forbid(unsafe_code)]

mod builder;
pub mod buildpacks;
mod flags;
mod healthcheck;
mod launcher;

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

/// One of the bundle's programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Program {
    /// Turns an app's files into a droplet by its buildpacks.
    Builder,
    /// Starts an app from its droplet: sets its environment, sources its profiles, becomes its command.
    Launcher,
    /// Probes an app's port or URL, once or until something changes.
    Healthcheck,
}

impl Program {
    /// All of them, in the order in which a bundle lists them.
    pub const ALL: [Self; 3] = [Self::Builder, Self::Launcher, Self::Healthcheck];

    /// The program that is started under the name of `argv0`, its last path segment.
    pub fn named(argv0: &str) -> Option<Self> {
        let name = Path::new(argv0).file_name()?;
        Self::ALL.into_iter().find(|program| name == program.name())
    }

    /// Its file's name in a bundle.
    pub fn name(self) -> &'static str {
        match self {
            Self::Builder => "builder",
            Self::Launcher => "launcher",
            Self::Healthcheck => "healthcheck",
        }
    }

    /// Runs it with the arguments after `argv[0]`. The launcher does not return when it succeeds:
    /// it becomes the app's command.
    pub fn run(self, arguments: impl Iterator<Item = OsString>) -> ExitCode {
        let arguments: Vec<OsString> = arguments.collect();
        match self {
            Self::Builder => builder::main(&arguments),
            Self::Launcher => launcher::main(&arguments),
            Self::Healthcheck => healthcheck::main(&arguments),
        }
    }
}
