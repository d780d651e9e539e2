//! Tells routers which instances answer for which routes.
//!
//! [`serve`] follows the BBS's events, compares with its lists once a minute, and publishes on the bus:
//! what is new or gone at once, and all of it as often as routers ask for. [`Table`] is the pure part:
//! records in, messages out.
//!
//! Not yet: routes of the TCP router (`tcp-router`).

#![forbid(unsafe_code)]

mod config;
mod emitter;
mod greeting;
mod message;
mod routes;
mod table;
mod unregistrations;

pub use config::Config;
pub use emitter::{Error, serve, serve_telling};
pub use message::{Audience, Message, Notice, Verb};
pub use table::Table;
