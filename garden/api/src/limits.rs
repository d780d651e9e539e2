//! Resource limits. A zero always means "no limit" and is omitted on the wire.

use serde::{Deserialize, Serialize};

use crate::spelling::{is_default, wire_integer};

/// Limits of a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.Limits")]
pub struct Limits {
    /// Accepted and ignored by the reference.
    #[serde(rename = "bandwidth_limits")]
    pub bandwidth: BandwidthLimits,
    /// CPU weight.
    #[serde(rename = "cpu_limits")]
    pub cpu: CpuLimits,
    /// Disk quota.
    #[serde(rename = "disk_limits")]
    pub disk: DiskLimits,
    /// Memory and swap together.
    #[serde(rename = "memory_limits")]
    pub memory: MemoryLimits,
    /// Number of tasks.
    #[serde(rename = "pid_limits")]
    pub pid: PidLimits,
}

/// Network bandwidth, bytes per second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.BandwidthLimits")]
pub struct BandwidthLimits {
    /// Sustained.
    #[serde(skip_serializing_if = "is_default")]
    pub rate: u64,
    /// Burst.
    #[serde(skip_serializing_if = "is_default")]
    pub burst: u64,
}

/// CPU shares, in units of cgroup v1 `cpu.shares`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.CPULimits")]
pub struct CpuLimits {
    /// Wins over `limit_in_shares`.
    #[serde(skip_serializing_if = "is_default")]
    pub weight: u64,
    /// Deprecated spelling.
    #[serde(skip_serializing_if = "is_default")]
    pub limit_in_shares: u64,
}

impl CpuLimits {
    /// The shares that count: `weight` if set, else `limit_in_shares`; zero is no limit.
    #[must_use]
    pub fn shares(self) -> u64 {
        if self.weight > 0 { self.weight } else { self.limit_in_shares }
    }
}

/// Disk quota of a container's root file system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.DiskLimits")]
pub struct DiskLimits {
    /// Accepted, not enforced by the reference.
    #[serde(skip_serializing_if = "is_default")]
    pub inode_soft: u64,
    /// Accepted, not enforced by the reference.
    #[serde(skip_serializing_if = "is_default")]
    pub inode_hard: u64,
    /// Accepted, not enforced by the reference.
    #[serde(skip_serializing_if = "is_default")]
    pub byte_soft: u64,
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub byte_hard: u64,
    /// Whether the image counts.
    #[serde(skip_serializing_if = "is_default")]
    pub scope: DiskLimitScope,
}

/// Answer to a question of our own: `limits/disk?requested=true`. The reference's client never asks
/// it, and its server, which tells of no disk limit at all, takes no notice of the query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RequestedDiskLimits {
    /// What the container was created with; absent where the server does not know the question.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested: Option<DiskLimits>,
    /// Whether writing beyond them fails.
    pub enforced: bool,
}

wire_integer! {
    /// What a disk limit covers.
    #[derive(Default)]
    DiskLimitScope: u8 as "garden.DiskLimitScope" {
        /// The image counts too, the default.
        #[default]
        Total = 0,
        /// Only what the container writes.
        Exclusive = 1,
    }
}

/// Memory limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.MemoryLimits")]
pub struct MemoryLimits {
    /// Bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub limit_in_bytes: u64,
}

/// Limit on the number of tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.PidLimits")]
pub struct PidLimits {
    /// Tasks.
    #[serde(skip_serializing_if = "is_default")]
    pub max: u64,
}

/// A pea's own limits; its presence, even empty, takes the pea out of the container's limits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.ProcessLimits")]
pub struct ProcessLimits {
    /// CPU weight.
    #[serde(rename = "cpu_limits")]
    pub cpu: CpuLimits,
    /// Memory.
    #[serde(rename = "memory_limits")]
    pub memory: MemoryLimits,
}

/// Resource limits of one process, setrlimit(2): a value sets both soft and hard; absent inherits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.ResourceLimits")]
#[expect(missing_docs, reason = "the names are setrlimit(2)'s")]
pub struct ResourceLimits {
    #[serde(rename = "as", skip_serializing_if = "Option::is_none")]
    pub address_space: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub core: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fsize: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub locks: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memlock: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub msgqueue: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nice: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nofile: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nproc: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rss: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtprio: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sigpending: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stack: Option<u64>,
}
