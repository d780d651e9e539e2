//! Places instances and tasks on cells by auction.
//!
//! The BBS asks at `server`; what it asks for waits in the `queue` until the `auction` under
//! way is over. An auction asks all cells what they have, places everything that waits by
//! [`placement`], which is pure, gives each cell its work and tells the BBS what found no place.
//! Nothing is tried twice here: the BBS asks again.

#![forbid(unsafe_code)]

mod auction;
mod config;
pub mod placement;
mod queue;
mod server;

pub use config::Config;
pub use server::{Listeners, ServeError, serve};
