//! The bloomery binary: every daemon is a subcommand.

#![forbid(unsafe_code)]

mod garden;
mod log;
mod serve;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Cloud Foundry's runtime in one binary.
#[derive(Parser, Debug)]
#[command(name = "bloomery", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// The container daemon.
    #[command(subcommand)]
    Garden(garden::Command),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Garden(command) => garden::run(command),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bloomery: {error:#}");
            ExitCode::FAILURE
        }
    }
}
