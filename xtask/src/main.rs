//! `cargo xtask`: the same commands for people and CI.
//!
//! Builds run as the calling user; only the built `bloomery` binary and the kernel tests are
//! elevated.

#![forbid(unsafe_code)]

mod checks;

use clap::{Parser, Subcommand};

/// Set up, run and test Bloomery.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run all that CI runs: format, clippy, docs, tests, licences.
    Test,
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Test => checks::run(),
    }
}
