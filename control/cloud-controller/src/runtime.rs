//! What runs apps: Diego, as Cloud Controller needs it.
//!
//! The trait is small so that tests can hold a runtime that keeps its state in memory; the one for
//! the real Diego speaks to the BBS.

use std::fmt::Debug;

use futures_util::future::BoxFuture;

/// Why the runtime did not do what it was asked.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{action}: {reason}")]
pub struct RuntimeError {
    /// What was attempted, on what.
    pub action: String,
    /// Why it failed.
    pub reason: String,
}

/// The state of one instance, as clients see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// It runs and is healthy.
    Running,
    /// It is on its way.
    Starting,
    /// It has crashed and is started again later.
    Crashed,
    /// No cell has it.
    Down,
}

impl InstanceState {
    /// As the API spells it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "RUNNING",
            Self::Starting => "STARTING",
            Self::Crashed => "CRASHED",
            Self::Down => "DOWN",
        }
    }
}

/// A port of an instance. 0 where there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct InstancePort {
    /// On the cell.
    pub external: u32,
    /// In the container.
    pub internal: u32,
    /// On the cell, behind a proxy that speaks TLS.
    pub external_tls_proxy: u32,
    /// In the container, of that proxy.
    pub internal_tls_proxy: u32,
}

/// One instance that the runtime knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// From 0.
    pub index: u32,
    /// Its state.
    pub state: InstanceState,
    /// Why it is not placed, or has crashed.
    pub details: Option<String>,
    /// Whether requests get to it.
    pub routable: bool,
    /// Its own guid, once a cell has it.
    pub instance_guid: String,
    /// Address of the cell.
    pub host: String,
    /// Address of the container.
    pub internal_ip: String,
    /// Ports.
    pub ports: Vec<InstancePort>,
    /// When it came into this state, in nanoseconds since the epoch.
    pub since: i64,
}

/// A wanted process, as far as the runtime tells it back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// `<process guid>-<version>`.
    pub process_guid: String,
    /// What [`Recipe::annotation`](crate::recipe::RunRecipe::annotation) was.
    pub annotation: String,
}

/// Runs apps and stages them. Every call can be repeated: what is there already, or gone already, is
/// a success.
pub trait Runtime: Debug + Send + Sync {
    /// Wants a process to run.
    fn desire<'a>(
        &'a self,
        recipe: &'a crate::recipe::RunRecipe,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Changes number of instances, routes and annotation of a wanted process. False if it is not
    /// wanted.
    fn update<'a>(
        &'a self,
        recipe: &'a crate::recipe::RunRecipe,
    ) -> BoxFuture<'a, Result<bool, RuntimeError>>;

    /// Wants a process no longer.
    fn stop<'a>(&'a self, process_guid: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Ends one instance; another takes its place. False if there is no such instance.
    fn stop_instance<'a>(
        &'a self,
        process_guid: &'a str,
        index: u32,
    ) -> BoxFuture<'a, Result<bool, RuntimeError>>;

    /// The instances of a process that exist, in any order.
    fn instances<'a>(
        &'a self,
        process_guid: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Instance>, RuntimeError>>;

    /// All processes that are wanted.
    fn desired(&self) -> BoxFuture<'_, Result<Vec<Desired>, RuntimeError>>;

    /// What is wanted is complete: processes that were not named are strays.
    fn bump_freshness(&self) -> BoxFuture<'_, Result<(), RuntimeError>>;

    /// Begins to stage. The end is told to the completion address of the recipe.
    fn stage<'a>(
        &'a self,
        recipe: &'a crate::recipe::StagingRecipe,
    ) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Ends staging; its completion address is told that it failed.
    fn cancel<'a>(&'a self, task_guid: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>>;

    /// Guids of the staging tasks that the runtime knows.
    fn staging(&self) -> BoxFuture<'_, Result<Vec<String>, RuntimeError>>;
}
