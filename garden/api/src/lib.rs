//! Garden's wire types: what travels between a Garden client and server as JSON.
//!
//! Field and key names, zero values and omissions are those of the reference's Go types, so that a
//! value encoded by [`go_json::encode`] has the same bytes as the reference's. Zero means "absent"
//! wherever the wire says so; callers turn such sentinels into their own types at the edge.

#![forbid(unsafe_code)]

mod container;
mod error;
mod filter;
pub mod go_json;
mod info;
mod limits;
mod metrics;
mod network;
mod process;
mod spelling;

pub use container::{
    BindMount, BindMountMode, BindMountOrigin, Capacity, ContainerSpec, CreateResponse, ImageRef,
    Properties, PropertyValue, ServerName, StopRequest,
};
pub use error::{ErrorKind, WireError};
pub use filter::ListResponse;
pub use info::{BulkEntry, BulkInfo, BulkMetrics, ContainerInfo, ContainerState, PortMapping};
pub use limits::{
    BandwidthLimits, CpuLimits, DiskLimitScope, DiskLimits, Limits, MemoryLimits, PidLimits,
    ProcessLimits, RequestedDiskLimits, ResourceLimits,
};
pub use metrics::{CpuStat, DiskStat, MemoryStat, Metrics, NetworkStat, PidStat};
pub use network::{
    IcmpControl, IpRange, NetIn, NetInRequest, NetInResponse, NetOutRule, PortRange, Protocol,
};
pub use process::{Payload, ProcessSpec, Signal, Source, TtySpec, WindowSize};
pub use spelling::Nanoseconds;
