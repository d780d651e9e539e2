//! The cell: takes on work, and keeps the BBS and Garden in agreement.
//!
//! Start reading at [`serve`]. Work comes in by [`http`] and is taken on by [`work`]: a container is
//! reserved for each piece. From then on whatever happens to a container is an [operation]: the BBS
//! is told, and its answer says what becomes of the container. [`sync`] says what there is to do, from
//! one container's state or from a comparison of everything, which is made every 30 s and finds what
//! was missed.
//!
//! Nothing is kept here: containers carry their own records at Garden, so a rep may be killed and
//! started anew without a container noticing.
//!
//! [operation]: operations

#![forbid(unsafe_code)]

pub mod cell;
mod config;
mod error;
pub mod evacuation;
pub mod http;
pub mod label;
pub mod operations;
pub mod queue;
pub mod recipe;
pub mod root_fs;
mod server;
pub mod sync;
pub mod usage;
pub mod work;

pub use config::{Config, Listeners};
pub use error::Error;
pub use server::serve;
