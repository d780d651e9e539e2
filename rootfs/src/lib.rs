//! Images to layers to overlay: the root file systems of containers.

#![forbid(unsafe_code)]

pub mod archive;
pub mod busybox;
pub mod digest;
mod error;
pub mod executable;
pub mod inside;
pub mod layers;
mod layout;
pub mod overlay;
pub mod reference;
mod shift;
pub mod uri;

pub use error::Error;
