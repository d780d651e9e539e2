//! What a test machine's process 1 and its harness say to each other.

#![forbid(unsafe_code)]

pub mod wire;
