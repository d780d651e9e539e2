//! Asks a cell's rep: state, work, stop, update, cancel, metrics.

#![forbid(unsafe_code)]

mod client;
mod error;
mod fleet;

pub use client::RepClient;
pub use error::Error;
pub use fleet::Fleet;
