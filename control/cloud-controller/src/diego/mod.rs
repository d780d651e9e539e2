//! The runtime is Diego: recipes as the messages of the BBS, and its answers as instances.
//!
//! `lrp` and `task` are pure functions; `bbs` carries what they make to the BBS. Domains, paths, log sources and tags are what the original's
//! cells, log services and emitters expect.

mod actions;
mod bbs;
mod lrp;
mod task;

pub use bbs::Diego;
pub use lrp::{desired_lrp, instance, update};
pub use task::task_definition;

/// Domain of running apps.
pub const APPS: &str = "cf-apps";
/// Domain of tasks that users run.
pub const TASKS: &str = "cf-tasks";
/// Domain of staging tasks.
pub const STAGING: &str = "cf-app-staging";

/// What a conversion must know of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Installation {
    /// Where cells fetch the archive with builder, launcher and health check.
    pub lifecycle_bundle: String,
    /// Directory of the platform's certificates in containers.
    pub trusted_certificates: String,
    /// Processes that a container may have; 0 for no limit.
    pub max_pids: i32,
}
