//! Images to layers to overlay: the root file systems of containers.

#![forbid(unsafe_code)]

pub mod archive;
pub mod busybox;
pub mod inside;
