//! The processes of an app: from the deps' `launch.yml`, a buildpack's `release`, and the Procfile.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::Deserialize;

use super::{Failure, dep_name};

/// Start commands by process type, and sidecars.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(crate) struct Processes {
    pub(crate) commands: BTreeMap<String, String>,
    pub(crate) sidecars: Vec<Sidecar>,
}

/// A process that runs beside others in their containers.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Sidecar {
    pub(crate) name: String,
    pub(crate) process_types: Vec<String>,
    pub(crate) command: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) memory: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Launch {
    #[serde(default)]
    processes: Vec<LaunchProcess>,
}

#[derive(Debug, Deserialize)]
struct LaunchProcess {
    #[serde(rename = "type")]
    kind: String,
    command: String,
    #[serde(default)]
    platforms: Platforms,
    #[serde(default)]
    limits: Limits,
}

#[derive(Debug, Default, Deserialize)]
struct Platforms {
    #[serde(default)]
    cloudfoundry: CloudFoundry,
}

#[derive(Debug, Default, Deserialize)]
struct CloudFoundry {
    #[serde(default)]
    sidecar_for: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Limits {
    /// MiB.
    #[serde(default)]
    memory: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
struct Release {
    #[serde(default)]
    default_process_types: BTreeMap<String, String>,
}

impl Processes {
    /// What the deps' `launch.yml` name; a later dep's process replaces an earlier one's.
    pub(crate) fn of_deps(deps: &Path, count: usize) -> Result<Self, Failure> {
        let mut processes = Self::default();
        for index in 0..count {
            let path = deps.join(dep_name(index, count)).join("launch.yml");
            let Ok(text) = fs::read_to_string(&path) else { continue };
            let launch: Launch = serde_saphyr::from_str(&text).map_err(|error| {
                Failure::Other(format!("{} is not readable: {error}", path.display()))
            })?;
            for process in launch.processes {
                processes.take(process);
            }
        }
        Ok(processes)
    }

    fn take(&mut self, process: LaunchProcess) {
        let LaunchProcess { kind, command, platforms, limits } = process;
        let process_types = platforms.cloudfoundry.sidecar_for;
        if process_types.is_empty() {
            self.commands.insert(kind, command);
        } else {
            let sidecar = Sidecar { name: kind, process_types, command, memory: limits.memory };
            self.sidecars.push(sidecar);
        }
    }

    /// What a buildpack's `release` printed: YAML with `default_process_types`.
    pub(crate) fn of_release(output: &[u8]) -> Result<Self, String> {
        let text = String::from_utf8_lossy(output);
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let release: Release = serde_saphyr::from_str(&text)
            .map_err(|error| format!("its output is not readable: {error}"))?;
        Ok(Self { commands: release.default_process_types, sidecars: Vec::new() })
    }

    /// Lets the app's Procfile, a YAML map of commands, replace what buildpacks said.
    pub(crate) fn take_procfile(&mut self, app: &Path) -> Result<(), Failure> {
        let path = app.join("Procfile");
        if !path.is_file() {
            return Ok(());
        }
        let text = fs::read_to_string(&path).map_err(Failure::file("reading", &path))?;
        let commands: BTreeMap<String, String> =
            serde_saphyr::from_str(&text).map_err(|error| {
                Failure::Other(format!(
                    "Procfile is not readable, it wants lines like `web: command`: {error}"
                ))
            })?;
        self.commands.extend(commands);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.commands.is_empty() && self.sidecars.is_empty()
    }

    pub(crate) fn has_web(&self) -> bool {
        self.commands.get("web").is_some_and(|command| !command.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::{Processes, Sidecar};

    #[test]
    fn launch_files_give_processes_and_sidecars() {
        let deps = tempfile::tempdir().unwrap();
        for (index, text) in [
            ("0", "processes:\n- type: web\n  command: old\n- type: worker\n  command: work\n"),
            (
                "1",
                "processes:\n- type: web\n  command: new\n- type: side\n  command: watch\n  platforms: {cloudfoundry: {sidecar_for: [web]}}\n  limits: {memory: 10}\n",
            ),
        ] {
            fs::create_dir(deps.path().join(index)).unwrap();
            fs::write(deps.path().join(index).join("launch.yml"), text).unwrap();
        }
        let processes = Processes::of_deps(deps.path(), 2).unwrap();
        assert_eq!(processes.commands["web"], "new");
        assert_eq!(processes.commands["worker"], "work");
        assert_eq!(
            processes.sidecars,
            [Sidecar {
                name: "side".into(),
                process_types: vec!["web".into()],
                command: "watch".into(),
                memory: Some(10)
            }]
        );
    }

    #[test]
    fn the_procfile_wins() {
        let app = tempfile::tempdir().unwrap();
        let mut processes =
            Processes::of_release(b"---\ndefault_process_types:\n  web: released\n  cron: tick\n")
                .unwrap();
        assert!(processes.has_web());
        processes.take_procfile(app.path()).unwrap();
        assert_eq!(processes.commands["web"], "released");
        fs::write(app.path().join("Procfile"), "web: ./serve --port $PORT\n").unwrap();
        processes.take_procfile(app.path()).unwrap();
        assert_eq!(processes.commands["web"], "./serve --port $PORT");
        assert_eq!(processes.commands["cron"], "tick");
    }

    #[test]
    fn unreadable_files_are_errors() {
        let app = tempfile::tempdir().unwrap();
        fs::write(app.path().join("Procfile"), "just a command").unwrap();
        let error = Processes::default().take_procfile(app.path()).unwrap_err().to_string();
        assert!(error.starts_with("Procfile is not readable"), "{error}");
        assert!(Processes::of_release(b"[").is_err());
        assert!(Processes::of_release(b"  \n").unwrap().is_empty());
    }
}
