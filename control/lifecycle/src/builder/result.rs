//! `result.json`, which the Cloud Controller reads, and `staging_info.yml`, which the launcher reads.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::processes::{Processes, Sidecar};
use super::{Failure, dep_name};

/// What staging found out (diego.md 13.1).
#[derive(Debug, Serialize)]
pub(crate) struct StagingResult<'a> {
    lifecycle_metadata: LifecycleMetadata<'a>,
    process_types: &'a BTreeMap<String, String>,
    processes: Vec<Process<'a>>,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    sidecars: &'a [Sidecar],
    execution_metadata: &'static str,
    lifecycle_type: &'static str,
}

#[derive(Debug, Serialize)]
struct LifecycleMetadata<'a> {
    buildpack_key: &'a str,
    detected_buildpack: &'a str,
    buildpacks: Vec<BuildpackEntry>,
}

#[derive(Debug, Serialize)]
struct Process<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    command: &'a str,
}

/// A buildpack as the result names it.
#[derive(Debug, Serialize)]
pub(crate) struct BuildpackEntry {
    key: String,
    name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config: Option<Entrypoint>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Entrypoint {
    #[serde(default)]
    entrypoint_prefix: String,
}

/// A dep's `config.yml`, where a buildpack says who it is.
#[derive(Debug, Default, Deserialize)]
struct DepConfig {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    config: Option<Entrypoint>,
}

impl BuildpackEntry {
    /// What the buildpack of dep `index` says of itself; it need not say anything.
    pub(crate) fn read(key: &str, deps: &Path, index: usize, count: usize) -> Self {
        let path = deps.join(dep_name(index, count)).join("config.yml");
        let said: DepConfig = fs::read_to_string(path)
            .ok()
            .and_then(|text| serde_saphyr::from_str(&text).ok())
            .unwrap_or_default();
        Self { key: key.to_owned(), name: said.name, version: said.version, config: said.config }
    }
}

impl<'a> StagingResult<'a> {
    pub(crate) fn new(
        key: &'a str,
        detected: &'a str,
        buildpacks: Vec<BuildpackEntry>,
        processes: &'a Processes,
    ) -> Self {
        Self {
            lifecycle_metadata: LifecycleMetadata {
                buildpack_key: key,
                detected_buildpack: detected,
                buildpacks,
            },
            process_types: &processes.commands,
            processes: processes
                .commands
                .iter()
                .map(|(kind, command)| Process { kind, command })
                .collect(),
            sidecars: &processes.sidecars,
            execution_metadata: "",
            lifecycle_type: "buildpack",
        }
    }

    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let json = serde_json::to_vec(self)
            .map_err(|error| Failure::Other(format!("writing the result: {error}")))?;
        fs::write(path, json).map_err(Failure::file("writing", path))
    }

    /// JSON, which YAML readers read.
    pub(crate) fn staging_info(&self) -> Vec<u8> {
        let config =
            self.lifecycle_metadata.buildpacks.last().and_then(|last| last.config.as_ref());
        let info = serde_json::json!({
            "detected_buildpack": self.lifecycle_metadata.detected_buildpack,
            "start_command": self.process_types.get("web").map_or("", String::as_str),
            "config": config,
        });
        info.to_string().into_bytes()
    }
}
