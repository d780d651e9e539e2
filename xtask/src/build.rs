//! The `bloomery` binary: one static file.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use rootfs::executable::is_static;

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
    strip(&binary, &stripped)?;
    let size = stripped.metadata().context("cannot look at the binary")?.len();
    println!("==> {} ({} KiB, static)", stripped.display(), size / 1024);
    Ok(())
}

/// Makes a file of a program that runs wherever its kernel does: a program that needs libraries is
/// an error.
fn strip(program: &Path, file: &Path) -> anyhow::Result<()> {
    run(Command::new("strip").arg("-o").arg(file).arg(program))?;
    let is_static = is_static(file).with_context(|| format!("cannot read {}", file.display()))?;
    ensure!(is_static, "{} is not static: it names a program interpreter", file.display());
    Ok(())
}

#[cfg(test)]
mod tests {
    use machine::Programs;
    use machine::host::find;

    use super::*;

    #[test]
    fn the_one_file_runs_where_there_is_nothing_else() {
        let built = Programs::binary("bloomery").unwrap().path("cli", "bloomery").unwrap();
        let empty = tempfile::tempdir().unwrap();
        strip(&built, &empty.path().join("bloomery")).unwrap();
        let mut alone = Command::new("chroot");
        let told = alone.arg(empty.path()).args(["/bloomery", "--version"]).output().unwrap();
        assert!(told.status.success(), "{told:?}");
        assert_eq!(told.stdout, format!("bloomery {}\n", env!("CARGO_PKG_VERSION")).into_bytes());
    }

    #[test]
    fn a_program_that_needs_libraries_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let refused = strip(&find("strip").unwrap(), &place.path().join("strip")).unwrap_err();
        assert!(refused.to_string().contains("is not static"), "{refused}");
    }
}
