//! `bloomery export`: what is in this program, as the files that daemons serve elsewhere.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use lifecycle::buildpacks;

/// What to write.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// The lifecycle bundle, below a file server's static directory.
    Lifecycle {
        /// The static directory.
        directory: PathBuf,
    },
    /// A buildpack, as `cf create-buildpack` uploads it.
    Buildpack {
        /// staticfile_buildpack, python_buildpack or binary_buildpack.
        name: String,
        /// The zip file.
        file: PathBuf,
    },
}

/// Writes it.
pub fn run(command: &Command) -> anyhow::Result<()> {
    match command {
        Command::Lifecycle { directory } => {
            platform::write_lifecycle_bundle(Path::new("/proc/self/exe"), directory)?;
            println!("/v1/static/{}", platform::LIFECYCLE_BUNDLE);
        }
        Command::Buildpack { name, file } => {
            let found = buildpacks::ALL.iter().find(|buildpack| buildpack.name == name);
            let Some(buildpack) = found else {
                let names: Vec<_> = buildpacks::ALL.iter().map(|known| known.name).collect();
                bail!("no buildpack {name:?}; there are {}", names.join(", "));
            };
            let archive = buildpack.archive().with_context(|| format!("cannot pack {name}"))?;
            fs::write(file, archive).with_context(|| format!("cannot write {}", file.display()))?;
        }
    }
    Ok(())
}
