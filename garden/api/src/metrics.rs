//! What a container uses.

use serde::{Deserialize, Serialize};

use crate::spelling::Nanoseconds;

/// Answer to Metrics.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.Metrics")]
pub struct Metrics {
    /// Memory.
    #[serde(rename = "MemoryStat")]
    pub memory: MemoryStat,
    /// CPU time.
    #[serde(rename = "CPUStat")]
    pub cpu: CpuStat,
    /// Disk.
    #[serde(rename = "DiskStat")]
    pub disk: DiskStat,
    /// `null` unless the network metrics feature is on for this container.
    #[serde(rename = "NetworkStat")]
    pub network: Option<NetworkStat>,
    /// Tasks.
    #[serde(rename = "PidStat")]
    pub pid: PidStat,
    /// Since the container's creation.
    #[serde(rename = "Age")]
    pub age: Nanoseconds,
    /// CPU time, in nanoseconds, that its share entitled the container to since its creation.
    #[serde(rename = "CPUEntitlement")]
    pub cpu_entitlement: u64,
}

/// The kernel's memory statistics. cgroup v1 fills the first 28, v2 the ones of the same name in
/// its `memory.stat`. Bytes, but for the page counts and faults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.ContainerMemoryStat")]
#[expect(missing_docs, reason = "the names are those of the kernel's memory.stat")]
pub struct MemoryStat {
    pub active_anon: u64,
    pub active_file: u64,
    pub cache: u64,
    pub hierarchical_memory_limit: u64,
    pub inactive_anon: u64,
    pub inactive_file: u64,
    pub mapped_file: u64,
    pub pgfault: u64,
    pub pgmajfault: u64,
    pub pgpgin: u64,
    pub pgpgout: u64,
    pub rss: u64,
    pub total_active_anon: u64,
    pub total_active_file: u64,
    pub total_cache: u64,
    pub total_inactive_anon: u64,
    pub total_inactive_file: u64,
    pub total_mapped_file: u64,
    pub total_pgfault: u64,
    pub total_pgmajfault: u64,
    pub total_pgpgin: u64,
    pub total_pgpgout: u64,
    pub total_rss: u64,
    pub total_unevictable: u64,
    pub unevictable: u64,
    pub swap: u64,
    pub hierarchical_memsw_limit: u64,
    pub total_swap: u64,
    /// What counts toward the limit, clamped at zero: the only figure Diego reads. v1: total_rss +
    /// total_cache + total_swap − total_inactive_file; v2: anon + file + swapcached − inactive_file.
    #[serde(rename = "TotalUsageTowardLimit")]
    pub total_usage_toward_limit: u64,
    pub anon: u64,
    pub file: u64,
    pub swapcached: u64,
}

/// CPU time in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", rename = "garden.ContainerCPUStat")]
pub struct CpuStat {
    /// In all.
    pub usage: u64,
    /// In user mode.
    pub user: u64,
    /// In the kernel.
    pub system: u64,
}

/// Disk use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", rename = "garden.ContainerDiskStat")]
pub struct DiskStat {
    /// Image and writes.
    pub total_bytes_used: u64,
    /// Stays zero in the reference.
    pub total_inodes_used: u64,
    /// Writes.
    pub exclusive_bytes_used: u64,
    /// Stays zero in the reference.
    pub exclusive_inodes_used: u64,
}

/// Traffic as the container sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", rename = "garden.ContainerNetworkStat")]
pub struct NetworkStat {
    /// Received.
    pub rx_bytes: u64,
    /// Sent.
    pub tx_bytes: u64,
}

/// Tasks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", rename = "garden.ContainerPidStat")]
pub struct PidStat {
    /// Now.
    pub current: u64,
    /// Zero: unlimited.
    pub max: u64,
}
