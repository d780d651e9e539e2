//! Tar archives into directories and back, for layers on the host and streams inside containers.
//!
//! Members are framed here and not by the `tar` crate's iterator, of which only the header is used:
//! metadata that describes other members is bounded, extended headers are cut by their lengths (a
//! value may hold newlines), and all of GNU tar's sparse formats are read. Everything in an archive
//! is hostile; where it lands is decided by `tree`, through directory descriptors alone.

mod error;
mod member;
mod pack;
mod tree;
mod unpack;

pub use error::{Error, Failures};
pub use pack::{Names, pack};
pub use unpack::{Containment, Owners, Policy, unpack};

/// Names and values of extended attributes.
pub(crate) type Attributes = Vec<(Vec<u8>, Vec<u8>)>;
