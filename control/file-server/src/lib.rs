//! Serves a directory to cells: lifecycle bundles and what else every container needs.
//!
//! `GET /v1/static/PATH` answers with the file below the directory, as the original does: its ETag is
//! the digest of what is in it, so that cells keep what has not changed. Nothing is ever written.

#![forbid(unsafe_code)]

mod answer;
mod conditions;
mod config;
mod directory;
mod server;

pub use config::Config;
pub use server::{Error, Listeners, routes, serve};
