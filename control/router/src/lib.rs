//! The HTTP router: requests for an app's host and path go to one of its instances.
//!
//! [`serve`] is the whole daemon. Start reading at `proxy.rs`, the life of a request; `exchange.rs` is
//! one attempt at an endpoint; `table.rs` knows the routes, which `registrar.rs` hears of on the bus.
//! HTTP/1 is spoken by `head.rs` and `body.rs` themselves and not by a library, because what is
//! forwarded has to be known to the byte: interim responses, half-closed connections, the spelling of
//! names, and where a message ends.
//!
//! What is served and how it differs from the original: `README.md`.

#![forbid(unsafe_code)]

mod access_log;
mod body;
mod config;
mod dial;
mod endpoint;
mod error;
mod exchange;
mod failure;
mod fields;
mod front;
mod head;
mod instance;
mod message;
mod proxy;
mod refusal;
mod registrar;
mod route;
mod router;
mod status;
mod sticky;
mod table;
mod target;
mod wire;

pub use access_log::{AccessLog, Record};
pub use config::{
    Backends, Balancing, Config, ForwardedClientCert, Logging, Nats, NatsHost, Pem, Status,
    StatusRoutes,
};
pub use error::Error;
pub use router::{Listeners, serve};
