//! `cargo xtask`: the same commands for people and CI.
//!
//! Builds run as the calling user; only the built `bloomery` binary and the kernel tests are
//! elevated.

#![forbid(unsafe_code)]

mod build;
mod checks;
mod elevated;
mod packages;
mod up;
mod vm;

use std::process::ExitCode;

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
    /// Build, start the platform on this machine, push the sample app, and return when it answers.
    Up(up::Options),
    /// End what `up` left running.
    Down,
    /// Run all that CI runs: format, licences, clippy, docs, tests.
    Test,
    /// Run something in a test machine: an emulated one with Debian's kernel 6.1 or 6.12.
    #[command(subcommand)]
    Vm(vm::Action),
    /// Make the one static file, `target/dist/bloomery`.
    Dist,
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(status) => status,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    elevated::refuse_by_sudo()?;
    match command {
        Command::Vm(action) => return vm::run(action),
        Command::Up(options) => up::up(&options)?,
        Command::Down => up::down()?,
        Command::Test => checks::run()?,
        Command::Dist => build::dist()?,
    }
    Ok(ExitCode::SUCCESS)
}
