//! Users, clients and tokens: the part of UAA that Cloud Foundry's clients and components use.
//!
//! [`Uaa::open`] reads the signing key and the users from the data directory, [`Uaa::routes`] answers
//! UAA's HTTP API. Whoever checks tokens holds a [`TokenVerifier`], fed from the same process or over
//! HTTP, and asks for names through a [`Client`].
//!
//! Access and refresh tokens are JWTs signed by a key that survives restarts, so a restart logs
//! nobody out. A refresh token dies with the user, with the user's password or with the client's
//! secret: each is part of the claim `rev_sig`.

#![forbid(unsafe_code)]

pub mod client;
mod clients;
mod config;
mod discovery;
mod error;
mod filter;
mod form;
mod grant;
mod key;
mod password;
mod scim;
mod server;
mod store;
mod token;
mod verifier;

pub use client::{Client, Peer};
pub use clients::ClientDetails;
pub use config::{Config, PasswordCost, Secret, SeedUser};
pub use error::Error;
pub use server::Uaa;
pub use token::Claims;
pub use verifier::{PublicKeys, Refusal, TokenVerifier};
