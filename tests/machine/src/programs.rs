//! The workspace's own programs, to be run inside machines.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, ensure};

use crate::host::call;
use crate::vm::Machine;

const WORKSPACE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

/// An executable that cargo has built.
#[derive(Clone, Debug)]
struct Built {
    /// The package's directory in the workspace.
    package: String,
    name: String,
    is_test: bool,
    path: PathBuf,
}

/// Executables to be put into machines, without their symbols, which are most of their size.
#[derive(Debug)]
pub struct Programs {
    built: Vec<Built>,
}

impl Programs {
    /// Builds integration tests, each given as its package's directory and its name, as in
    /// `("garden/cgroup", "kernel")`. Within `cargo test --workspace` they are only looked up.
    pub fn tests(tests: &[(&str, &str)]) -> anyhow::Result<Self> {
        let mut arguments = vec!["test", "--no-run"];
        arguments.extend(tests.iter().flat_map(|(_, name)| ["--test", name]));
        let programs = Self::build(&arguments)?;
        for (package, name) in tests {
            programs.find(package, name)?;
        }
        Ok(programs)
    }

    /// Builds a package's binary.
    pub fn binary(name: &str) -> anyhow::Result<Self> {
        Self::build(&["build", "--bin", name])
    }

    fn build(arguments: &[&str]) -> anyhow::Result<Self> {
        Ok(Self { built: build(arguments)? })
    }

    fn find(&self, package: &str, name: &str) -> anyhow::Result<&Built> {
        let mut built = self.built.iter();
        built
            .find(|built| built.package == package && built.name == name)
            .with_context(|| format!("{package} has no {name}"))
    }

    /// Where cargo has put a program.
    pub fn path(&self, package: &str, name: &str) -> anyhow::Result<PathBuf> {
        Ok(self.find(package, name)?.path.clone())
    }

    /// Puts a program into a machine, to `/opt` and its name. What a test may name by the path it
    /// was built at, its package's binaries, gets there too.
    pub fn put(&self, machine: &Machine, package: &str, name: &str) -> anyhow::Result<String> {
        let wanted = self.find(package, name)?;
        let path = format!("/opt/{name}");
        wanted.put(machine, &path)?;
        let beside = |built: &&Built| wanted.is_test && !built.is_test && built.package == package;
        for built in self.built.iter().filter(beside) {
            built.put(machine, &built.path.to_string_lossy())?;
        }
        Ok(path)
    }
}

impl Built {
    fn put(&self, machine: &Machine, path: &str) -> anyhow::Result<()> {
        let stripped = tempfile::NamedTempFile::new()?;
        call("strip", [Path::new("-o"), stripped.path(), &self.path], Path::new("/"))
            .context("apt-get install binutils")?;
        machine.put_bytes(&std::fs::read(stripped.path())?, path, 0o755)
    }
}

/// The machines' agent: cargo has no stable way to make one package's test depend on another's
/// executable.
pub(crate) fn agent() -> anyhow::Result<PathBuf> {
    let built = build(&["build", "--bin", "machine-agent"])?;
    let agent = built.into_iter().find(|built| built.name == "machine-agent");
    Ok(agent.context("cargo has built no machine-agent")?.path)
}

/// Builds what these arguments name, or only says where it is. The whole workspace decides about
/// features, as in `cargo test --workspace`: nothing is built twice.
fn build(arguments: &[&str]) -> anyhow::Result<Vec<Built>> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let workspace = Path::new(WORKSPACE).canonicalize()?;
    let mut command = Command::new(cargo);
    command
        .args(arguments)
        .args(["--workspace", "--quiet", "--message-format", "json"])
        .current_dir(&workspace)
        .stderr(Stdio::inherit());
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    ensure!(output.status.success(), "{command:?}: {}", output.status);
    let messages = String::from_utf8_lossy(&output.stdout);
    let built = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let manifest = Path::new(message["manifest_path"].as_str()?);
        let package = manifest.parent()?.strip_prefix(&workspace).ok()?;
        Some(Built {
            package: package.to_str()?.to_owned(),
            name: message["target"]["name"].as_str()?.to_owned(),
            is_test: message["target"]["kind"][0] == "test",
            path: PathBuf::from(message["executable"].as_str()?),
        })
    });
    Ok(built.collect())
}
