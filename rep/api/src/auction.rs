//! What is asked for at auctions, and what cells have of it.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{List, PlacementConstraint, Resource};

/// An instance of a process on a cell, or to be placed on one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Lrp {
    /// Empty in requests: the cell names it.
    pub instance_guid: String,
    /// The process.
    pub process_guid: String,
    /// Which of its instances.
    pub index: i32,
    /// The process's domain.
    pub domain: String,
    /// Where it may run.
    #[serde(flatten)]
    pub placement: PlacementConstraint,
    /// What it takes. On a cell the memory includes what its proxy takes.
    #[serde(flatten)]
    pub resource: Resource,
    /// What became of it on the cell.
    pub state: LrpState,
}

/// The state of an instance on a cell.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LrpState {
    /// In requests: the empty text.
    #[default]
    Unset,
    /// A container that does not run yet.
    Claimed,
    /// A container that runs.
    Running,
    /// It ended by itself.
    Crashed,
    /// It ended because it was told to.
    Shutdown,
    /// Another text.
    Other(String),
}

impl LrpState {
    fn as_str(&self) -> &str {
        match self {
            Self::Unset => "",
            Self::Claimed => "CLAIMED",
            Self::Running => "RUNNING",
            Self::Crashed => "CRASHED",
            Self::Shutdown => "SHUTDOWN",
            Self::Other(text) => text,
        }
    }
}

impl Serialize for LrpState {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl<'de> Deserialize<'de> for LrpState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "" => Self::Unset,
            "CLAIMED" => Self::Claimed,
            "RUNNING" => Self::Running,
            "CRASHED" => Self::Crashed,
            "SHUTDOWN" => Self::Shutdown,
            _ => Self::Other(text),
        })
    }
}

/// A task on a cell, or to be placed on one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Task {
    /// The task, and its container.
    #[serde(rename = "TaskGuid")]
    pub task_guid: String,
    /// Its domain.
    #[serde(rename = "Domain")]
    pub domain: String,
    /// Where it may run.
    #[serde(flatten)]
    pub placement: PlacementConstraint,
    /// What it takes.
    #[serde(flatten)]
    pub resource: Resource,
    /// `Running` or `Completed` on a cell, `Invalid` in requests.
    pub state: TaskState,
    /// Whether a completed one failed.
    pub failed: bool,
}

/// The state of a task, spelled as the BBS spells it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TaskState {
    /// In requests.
    #[default]
    Invalid,
    /// Waits for a cell.
    Pending,
    /// Has a cell.
    Running,
    /// Has ended.
    Completed,
    /// Its end is being told.
    Resolving,
}

/// What a cell shall take on. In the answer: what it did not take.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Work {
    /// Instances.
    #[serde(rename = "LRPs")]
    pub lrps: List<Lrp>,
    /// Tasks.
    #[serde(rename = "Tasks")]
    pub tasks: List<Task>,
    /// The cell that is meant, empty in answers. A cell of another id refuses.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub cell_id: String,
}

/// What the BBS asks the auctioneer for: instances of one process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LrpStartRequest {
    /// The process.
    pub process_guid: String,
    /// Its domain.
    pub domain: String,
    /// Which of its instances.
    pub indices: List<i32>,
    /// Where they may run.
    #[serde(flatten)]
    pub placement: PlacementConstraint,
    /// What each takes.
    #[serde(flatten)]
    pub resource: Resource,
}
