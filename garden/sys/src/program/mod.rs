//! The supervisor: anchor, keeper and process 1, and what the daemon needs to talk to them.
//!
//! These modules are compiled twice: into the small static program that `build.rs` makes of
//! `main.rs`, and into this library, for the daemon's side and for tests.

#[allow(dead_code, reason = "the program's part")]
mod anchor;
#[allow(dead_code, reason = "the program's part")]
mod init;
#[allow(dead_code, reason = "the program's part")]
mod keeper;
#[allow(dead_code, reason = "the program's part")]
mod launch;
pub mod ledger;
pub mod passwd;
pub mod plan;
pub mod raw;
pub mod store;
pub mod wire;

/// The program, a static x86_64 executable.
pub const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/supervisor"));

pub use init::order as init_order;
