//! Locks and presences with a time to live: the gRPC service and its client.
//!
//! A [`Server`] keeps resources, each under a key with an owner, who renews it before its time to
//! live ends. A *lock* is what a daemon holds while it alone is active; a *presence* says that a
//! cell is there. [`Client`] makes single calls, [`Lock`] and [`Presence`] keep calling.
//!
//! Renewing changes nothing on disk. Only the server's memory knows when a resource ends, and a
//! server that starts gives each the whole of its time again, as the original does.

#![forbid(unsafe_code)]

mod client;
mod config;
mod error;
mod locks;
mod owner;
mod server;
mod session;
mod store;
mod table;

/// The messages and the service, package `models` of the original.
#[allow(missing_docs, missing_debug_implementations, clippy::all)]
pub mod models {
    tonic::include_proto!("models");
}

pub use client::Client;
pub use config::Config;
pub use error::Error;
pub use owner::{owner_kept_in, owner_named};
pub use server::{Server, serve};
pub use session::{Held, Lock, Lost, Presence, Timing};
