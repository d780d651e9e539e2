//! One container's cgroup, on cgroup v2 and on hosts that bind controllers to v1.
//!
//! [`Hierarchy::detect`] finds out what the host offers. A container gets a
//! [`Slot`] of it: a numbered directory that carries the limits, with leaves for
//! its processes. A slot is made unlimited (and may wait so in a pool), limited
//! when it is leased, and never used twice.
//!
//! ```text
//! <under>/<root>/                controllers enabled for the slots
//!   ├─ 17/                       the slot: limits, device filter, OOM counter
//!   │   ├─ init                  pid 1
//!   │   ├─ processes             everything run in the container's own image
//!   │   └─ pea-3                 a process with its own image
//!   └─ plugins/3                 a program of the operator's that runs for the daemon
//! ```
//!
//! On a hybrid host this tree is in the v2 hierarchy, where membership, device
//! filter, kill and CPU usage live; each v1 controller has `<root>/17` (and
//! `pea-3`) beside it. A process is born into the v2 directory
//! ([`Slot::birth`]) and, there, joins the v1 ones itself ([`Slot::joins`]).
//!
//! A root has one user at a time, and its slots one owner, where this is asked for
//! ([`Hierarchy::claim`]).
//!
//! Files and units are those of the kernel's `cgroup-v2.rst` and
//! `cgroup-v1/*.rst`. Calls block, but only [`Slot::kill`], [`Slot::remove`],
//! [`Slot::wait_empty`] and [`OomWatch::wait`] wait for anything. Dropping a
//! value changes no cgroup: containers outlive the daemon.

#![forbid(unsafe_code)]

mod claim;
mod devices;
mod directory;
mod error;
mod hierarchy;
mod limits;
mod metrics;
mod mounts;
mod oom;
mod plugins;
mod slot;
mod survey;

pub use devices::{DeviceAccess, DeviceFilter, DeviceKind, DeviceRule, garden_default_devices};
pub use error::Error;
pub use hierarchy::{Hierarchy, Requirement};
pub use limits::{CpuQuota, Limits, NotEnforced, cpu_weight};
pub use metrics::{CpuStat, MemoryStat, Metrics, PidStat};
pub use oom::OomWatch;
pub use plugins::PluginRun;
pub use slot::{Leaf, Slot};
pub use survey::{Enforcer, Root, Survey};
