//! A container as the executor knows it, and the states it goes through.
//!
//! ```text
//! reserved ──> initializing ──> created ──> running ──┐
//!    └──────────────┴──────────────┴──────────────────┴──> completed ──> gone
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::run_info::RunInfo;

/// A container's guid: also its handle at Garden, and the instance guid of an LRP.
pub type Guid = String;

/// The states, as the original names them. Nothing leaves `Completed` but the container itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It has resources, and nobody has said what to run yet.
    Reserved,
    /// What to run is known; its files are being fetched.
    Initializing,
    /// Garden has made it.
    Created,
    /// Its process runs and its startup checks have passed.
    Running,
    /// It ended, or it never began.
    Completed,
}

impl State {
    /// Whether a container may go from here to `next`.
    pub fn may_become(self, next: Self) -> bool {
        matches!(
            (self, next),
            (Self::Reserved, Self::Initializing)
                | (Self::Initializing, Self::Created)
                | (Self::Created, Self::Running)
                | (
                    Self::Reserved | Self::Initializing | Self::Created | Self::Running,
                    Self::Completed
                )
        )
    }

    /// Whether it counts as starting in auctions.
    pub fn is_starting(self) -> bool {
        matches!(self, Self::Reserved | Self::Initializing | Self::Created)
    }
}

/// What a container takes of its cell.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resource {
    /// MiB; 0 is no limit, and counts as nothing.
    pub memory_mb: i32,
    /// MiB; 0 is no limit, and counts as nothing.
    pub disk_mb: i32,
    /// Tasks; 0 is no limit.
    pub max_pids: i32,
}

/// A port of a container as the outside reaches it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortMapping {
    /// The app's port.
    pub container_port: u32,
    /// The cell's port that leads there; 0 if none does.
    pub host_port: u32,
    /// The TLS proxy's port inside; 0 without a proxy.
    pub container_tls_proxy_port: u32,
    /// The cell's port that leads to the proxy; 0 if none does.
    pub host_tls_proxy_port: u32,
}

/// Where a container answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// The cell's address, which its mapped ports belong to.
    pub external_ip: String,
    /// The container's own address.
    pub internal_ip: String,
    /// Its IPv6 address; empty if it has none.
    pub internal_ipv6: String,
    /// One entry per pair of port and proxy port.
    pub ports: Vec<PortMapping>,
}

/// How a container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Completion {
    /// Whether its work failed.
    pub failed: bool,
    /// Why, for the user.
    pub failure_reason: String,
    /// Nothing of the user's has run: it can be tried elsewhere.
    pub retryable: bool,
}

/// One container. A snapshot: the store changes its own.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its guid.
    pub guid: Guid,
    /// What its owner wrote on it; the executor reads nothing of it.
    pub tags: BTreeMap<String, String>,
    /// What it takes.
    pub resource: Resource,
    /// How far it is.
    pub state: State,
    /// What it runs; none while it is only reserved.
    pub run: Option<Arc<RunInfo>>,
    /// Where it answers; none before it is created.
    pub network: Option<Network>,
    /// Whether routers should send it requests: no readiness check, or one that passes.
    pub routable: bool,
    /// Its end; in state completed.
    pub completion: Option<Completion>,
    /// Its owner asked it to stop.
    pub stopped: bool,
}

impl Container {
    /// A reserved one.
    pub fn reserved(guid: Guid, tags: BTreeMap<String, String>, resource: Resource) -> Self {
        Self {
            guid,
            tags,
            resource,
            state: State::Reserved,
            run: None,
            network: None,
            routable: false,
            completion: None,
            stopped: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::State;

    #[test]
    fn states_only_go_forward() {
        use State::{Completed, Created, Initializing, Reserved, Running};
        let all = [Reserved, Initializing, Created, Running, Completed];
        for (from, state) in all.into_iter().enumerate() {
            for (to, next) in all.into_iter().enumerate() {
                let expected = state != Completed && (to == from + 1 || next == Completed);
                assert_eq!(state.may_become(next), expected, "{state:?} to {next:?}");
            }
        }
        assert!(Created.is_starting() && !Running.is_starting());
    }
}
