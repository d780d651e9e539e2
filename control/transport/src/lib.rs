//! How the control plane's parts reach each other: mutual TLS, loopback and unix sockets, for servers and clients.
//!
//! An [`Address`] says where a part is, an [`Identity`] proves who speaks. A [`Listener`] and a
//! [`Server`] answer on an address, a [`Client`] asks one; both stream bodies in either direction.
//! gRPC goes the same way: a service of tonic's is served by [`Server`], and its channel is
//! connected by a [`Connector`]. A [`Target`] is a URL that somebody else has named.

#![forbid(unsafe_code)]

mod address;
mod body;
mod client;
pub mod configured;
mod connector;
mod error;
mod identity;
mod listener;
mod server;
mod stream;
mod target;
mod trace;

pub use address::{Address, BadAddress};
pub use body::{Body, empty, full};
pub use client::{Client, Timeouts};
pub use connector::{Connector, Protocol};
pub use error::{BoxError, Error};
pub use identity::{Files, Identity};
pub use listener::Listener;
pub use server::{Limits, Peer, Server};
pub use stream::Stream;
pub use target::{BadTarget, Target, without_credentials};
pub use trace::{TRACE_HEADER, TraceId};
