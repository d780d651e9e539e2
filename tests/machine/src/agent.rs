//! The agent's executable, built when it is needed.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

const MANIFEST: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../Cargo.toml");

/// Asks cargo for the agent: it builds it, or says at once where it is. Cargo has no stable way to
/// make one package's test depend on another's executable.
pub fn executable() -> anyhow::Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The whole workspace decides about features, as in `cargo test --workspace`: nothing is built
    // twice.
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bin", "machine-agent"])
        .args(["--message-format", "json", "--manifest-path", MANIFEST])
        .stderr(Stdio::inherit())
        .output()
        .context("cannot start cargo, which builds the machines' agent")?;
    ensure!(output.status.success(), "the machines' agent does not build: {}", output.status);
    String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .context("cargo did not say where the machines' agent is")
}
