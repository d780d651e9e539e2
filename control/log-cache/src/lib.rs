//! The last logs and metrics of every source, and Log Cache's read API.
//!
//! [`Store`] keeps envelopes in memory: a bounded number per source, bounded bytes in all.
//! [`Ingress`] is how other parts of the platform bring them, in this process or over Loggregator's
//! gRPC, and [`LogCache`] answers: Loggregator's and Log Cache's gRPC on one side, the read API for
//! users on the other.
//!
//! The cf CLI follows a log by time and holds back what is younger than two seconds, in case an
//! older line still arrives. [`Store::walk`] says how its users get every line at once all the same.

#![forbid(unsafe_code)]

mod access;
mod client;
mod config;
mod envelope;
mod error;
mod following;
mod grpc;
mod http_api;
mod json;
mod messages;
mod query;
mod reader;
mod selection;
mod server;
mod store;

pub use access::{Access, peer};
pub use client::{Delivery, Ingress};
pub use config::{Agent, Config};
pub use envelope::{AppMetrics, Origin};
pub use error::Error;
pub use messages::logcache::v1;
pub use messages::loggregator::v2;
pub use reader::Reader;
pub use selection::{BadSelection, MAX_LIMIT, Selection};
pub use server::{Listeners, LogCache, serve};
pub use store::{Entry, Latest, Limits, Meta, Number, Store};
