//! The client alone, for machines that need nothing else.

#![forbid(unsafe_code)]

use std::process::ExitCode;

use clap::Parser;

/// A small cf: log in, push, look, scale, delete.
#[derive(Parser, Debug)]
#[command(name = "bloomery-cf", version)]
struct Arguments {
    #[command(subcommand)]
    command: bloomery_cf::Command,
}

fn main() -> ExitCode {
    bloomery_cf::execute(Arguments::parse().command)
}
