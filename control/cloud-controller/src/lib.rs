//! The Cloud Controller API v3: orgs, spaces, apps, packages, builds, droplets, routes.
//!
//! Start reading at [`CloudController`]. `server` names every route, `resources` answers them,
//! `store` is the database, `job` does what goes on after its request, `manifest` turns a manifest
//! into changes, `running` keeps Diego in agreement with the database.
//!
//! What is served, and what is not yet, is a table in `docs/cloud-controller-api.md`.

#![forbid(unsafe_code)]

mod bits;
mod body;
mod caller;
mod config;
mod controller;
mod deletion;
pub mod diego;
mod env;
mod error;
mod job;
mod logs;
mod manifest;
mod metadata;
mod multipart;
mod page;
mod query;
pub mod recipe;
mod resources;
mod running;
mod runtime;
mod selector;
mod server;
mod staging;
mod store;
mod time;
mod usage;
mod waiting;

pub use config::{Config, Info, Links, Packages, ResourcePool, Stack, Staging, StagingAuth};
pub use controller::{CloudController, Surroundings};
pub use error::{ApiError, Detail};
pub use logs::{AppLog, Line};
pub use runtime::{Desired, Instance, InstancePort, InstanceState, Runtime, RuntimeError};
pub use store::OpenError;
pub use usage::{Metrics, Usage};
