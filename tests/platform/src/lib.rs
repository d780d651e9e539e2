//! The platform as its users and operators have it: `bloomery up` itself, asked through its public
//! interfaces.
//!
//! [`Platform`] starts it on a host of its own ([`World`]): namespaces with their own network,
//! `/etc/hosts` and processes. [`Api`] is a user of Cloud Controller. What an answer promises is looked
//! for where it has to be: in the BBS, at Garden and behind the router.

#![forbid(unsafe_code)]

mod api;
pub mod apps;
mod cache;
mod clients;
mod exposed;
mod http;
pub mod outside;
mod platform;
mod session;
mod world;

pub use api::{Api, SPACE, Sent, Step, Told, guid};
pub use cache::{program, python_packages, stack};
pub use clients::{CLIENTS, Extent, Seen, meanwhile};
pub use exposed::exposed;
pub use http::Answer;
pub use platform::{Part, Platform};
pub use session::Session;
pub use world::{Process, World};

use std::time::{Duration, Instant};

/// Longer than anything takes here, on the busiest host.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// Waits until there is an answer; panics with the last words about its absence if there is none.
pub fn eventually<T>(what: &str, look: impl FnMut() -> Result<T, String>) -> T {
    within(PATIENCE, what, look)
}

/// The same, with a patience of its own.
pub fn within<T>(patience: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match look() {
            Ok(found) => return found,
            Err(instead) => assert!(Instant::now() < deadline, "{what}: {instead}"),
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}
