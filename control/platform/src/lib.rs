//! The platform on one machine: every daemon but Garden, in one process without privileges.
//!
//! ```text
//!             ┌───────────────────────────── this process ─────────────────────────────┐
//! client ──> router ──> Cloud Controller, UAA, Log Cache        (routes by the bus)     │
//!             │   └──> apps <── rep ──> Garden (another process, root)                  │
//!             │          route emitter, BBS, auctioneer, Locket, file server            │
//!             └─────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! The daemons are those that run alone elsewhere. Those of Diego, Garden and what users and apps ask
//! speak over sockets, in the original's protocols, as they do there. Within the process are: the bus;
//! what cells, router and Cloud Controller send to Log Cache, and usage read from there, which alone go
//! by gRPC; and what Cloud Controller, UAA and Log Cache ask each other, the same requests to the same
//! routes without a socket between them, since these would need certificates of their own.
//! [`serve()`] starts them; none knows that the others are near.
//! State is in one directory ([`Config::data`]); killed at any moment the process goes on from there.

#![forbid(unsafe_code)]

mod bundle;
mod config;
pub mod daemon;
mod error;
mod foundation;
mod identity;
mod logs;
mod overview;
mod ports;
mod registration;
mod secrets;
mod serve;
mod usage;

pub use bundle::{PATH as LIFECYCLE_BUNDLE, write as write_lifecycle_bundle};
pub use config::{Config, Stack, authority};
pub use error::Error;
pub use overview::{Overview, overview};
pub use secrets::Secrets;
pub use serve::{Listeners, Ready, serve};
