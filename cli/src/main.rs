//! The bloomery binary: every daemon is a subcommand.

#![forbid(unsafe_code)]

fn main() {}
