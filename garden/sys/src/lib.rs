//! The kernel behind safe types; the only crate with unsafe code.
