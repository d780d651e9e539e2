//! The bloomery binary: every daemon is a subcommand.

#![forbid(unsafe_code)]

mod bench;
mod ctl;
mod demo;
mod garden;
mod inside;
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
    /// Show on this host what containers are, and put everything back.
    Demo(demo::Flags),
    /// Create, run, look at and destroy containers of a Garden by hand.
    Ctl(Box<ctl::Arguments>),
    /// Measure, side by side with the runtimes installed here.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand, Debug)]
enum Bench {
    /// A container's life: ours, runc's, crun's, and the fewest system calls that would do.
    Containers(bench::Flags),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    // Before anything makes a second thread.
    if arguments.next().is_some_and(|command| command == "inside") {
        return inside::run(arguments);
    }
    let done = match Arguments::parse().command {
        Command::Garden(command) => garden::run(command),
        Command::Demo(flags) => demo::run(&flags),
        Command::Ctl(arguments) => return ctl::run(*arguments),
        Command::Bench(Bench::Containers(flags)) => bench::containers(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bloomery: {error:#}");
            ExitCode::FAILURE
        }
    }
}
