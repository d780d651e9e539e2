//! The container daemon: Garden's HTTP API over real Linux containers.
//!
//! Start reading at [`gardener`], the life of a container; [`process`] is the life of what runs in
//! it.

#![forbid(unsafe_code)]

mod apparmor;
pub mod bundle;
mod claim;
pub mod client;
mod command;
pub mod config;
mod container;
mod depot;
pub mod devices;
pub mod doctor;
pub mod dropsonde;
mod error;
mod exits;
pub mod fault;
pub mod gardener;
pub mod http;
pub mod identity;
mod image;
mod leavings;
mod meters;
mod network;
mod plugin;
mod pool;
pub mod process;
mod root;
pub mod server;
mod terminal;
mod traffic;
mod volumes;

pub use error::Error;
pub use gardener::Gardener;
