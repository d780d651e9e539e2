//! The `bloomery` binary: one static file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::packages::run;

/// As in `.cargo/config.toml`.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The workspace's directory.
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map(Path::to_path_buf).unwrap_or_default()
}

/// Builds the binary as the calling user and answers its path.
pub fn binary() -> anyhow::Result<PathBuf> {
    let arguments = ["build", "--release", "--package", "bloomery"];
    run(Command::new("cargo").current_dir(workspace()).args(arguments))?;
    Ok(built())
}

/// Where the binary is once it has been built.
pub fn built() -> PathBuf {
    target().join(TARGET).join("release/bloomery")
}

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from)
}

/// `cargo xtask dist`: the binary without its debug information, in `target/dist`.
pub fn dist() -> anyhow::Result<()> {
    let binary = binary()?;
    let directory = target().join("dist");
    std::fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let stripped = directory.join("bloomery");
    run(Command::new("strip").arg("-o").arg(&stripped).arg(&binary))?;
    let interpreter = Command::new("readelf")
        .arg("--program-headers")
        .arg(&stripped)
        .output()
        .context("cannot start readelf")?;
    if String::from_utf8_lossy(&interpreter.stdout).contains("INTERP") {
        bail!("{} is not static: it names a program interpreter", stripped.display());
    }
    let size = stripped.metadata().context("cannot look at the binary")?.len();
    println!("==> {} ({} KiB, static)", stripped.display(), size / 1024);
    Ok(())
}
