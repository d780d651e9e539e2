//! A cell's answer to `GET /container_metrics`.

use serde::{Deserialize, Serialize};

use crate::List;

/// What the containers of a cell use.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerMetricsCollection {
    /// The cell.
    pub cell_id: String,
    /// Instances.
    pub lrps: List<LrpMetrics>,
    /// Tasks.
    pub tasks: List<TaskMetrics>,
}

/// What an instance uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LrpMetrics {
    /// The instance.
    pub instance_guid: String,
    /// Its process.
    pub process_guid: String,
    /// Which of its instances.
    pub index: i32,
    /// How much.
    #[serde(flatten)]
    pub metrics: ContainerMetrics,
}

/// What a task uses.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskMetrics {
    /// The task.
    pub task_guid: String,
    /// How much.
    #[serde(flatten)]
    pub metrics: ContainerMetrics,
}

/// What one container uses, and what it may.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ContainerMetrics {
    /// Whose metrics these are for readers: the application.
    pub metric_guid: String,
    /// Cores in use since the last reading: 1.0 is one whole core.
    pub cpu_usage_fraction: f64,
    /// Disk in use.
    pub disk_usage_bytes: u64,
    /// Disk it may use.
    pub disk_quota_bytes: u64,
    /// Memory in use.
    pub memory_usage_bytes: u64,
    /// Memory it may use.
    pub memory_quota_bytes: u64,
    /// Received, if the network counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rx_bytes: Option<u64>,
    /// Sent, if the network counts it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tx_bytes: Option<u64>,
}
