//! What an executor writes on its containers at Garden, and reads there after a restart.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::Resource;
use crate::run_info::RunInfo;

/// All that is needed to take a container up again. Fields are only added, with defaults.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Record {
    /// As it was reserved.
    pub tags: BTreeMap<String, String>,
    /// What it takes.
    pub resource: Resource,
    /// What it runs.
    pub run: RunInfo,
}

/// Written once a container has become healthy, so that an executor that takes it up does not check
/// its start again.
pub(crate) const RUNNING: &str = "executor:running";
