//! The kernel behind safe types; the only crate with unsafe code.

pub mod bpf;
pub mod child;
pub mod entropy;
pub mod floor;
pub mod heap;
pub mod mounts;
pub mod namespaces;
pub mod overlay;
pub mod pidfd;
pub mod plan;
pub mod program;
pub mod supervisor;
pub mod terminals;
pub mod trial;
