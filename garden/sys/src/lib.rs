//! The kernel behind safe types; the only crate with unsafe code.

pub mod program;
pub mod plan;
pub mod supervisor;
