//! The bulletin board: which processes and tasks are wanted, and what has become of them.
//!
//! A request comes in at [`http`], is carried out by [`board`], which decides by pure functions
//! ([`transition`], [`task`]) on the [`image`] of all records and makes the change durable in the
//! [`store`]; [`changes`] says what subscribers of [`events`] are told of it. [`convergence`]
//! repairs, every 30 s, what calls cannot: what was lost, left over or has to wait.
//!
//! Records are on disk as the messages of the API, not encrypted: the database is to be readable
//! by the board alone.

#![forbid(unsafe_code)]

pub mod auctions;
pub mod board;
pub mod callbacks;
pub mod cells;
pub mod changes;
mod config;
pub mod convergence;
pub mod crash;
pub mod desired;
pub mod events;
pub mod http;
pub mod image;
mod lists;
mod presences;
pub mod rows;
mod server;
pub mod store;
pub mod task;
pub mod transition;
mod versions;

pub use config::Config;
pub use presences::Presences;
pub use server::{Listeners, ServeError, serve};
