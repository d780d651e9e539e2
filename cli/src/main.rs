//! The bloomery binary: every daemon is a subcommand.

#![forbid(unsafe_code)]

mod bench;
mod ctl;
mod daemon;
mod demo;
mod descriptors;
mod doctor;
mod export;
mod garden;
mod inside;
mod log;
mod notify;
mod platform;
mod processes;
mod say;
mod serve;
mod signals;
mod up;

use std::process::ExitCode;

use ::platform::daemon::Daemon;
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
    /// Say what this host lacks for containers, what follows from it and what to do.
    ///
    /// Takes the flags of `bloomery garden serve`; leaves nothing behind and touches no container.
    /// Status 3 if no container can be made.
    Doctor(Box<doctor::Flags>),
    /// Create, run, look at and destroy containers of a Garden by hand.
    Ctl(Box<ctl::Arguments>),
    /// Log in to a Cloud Foundry, push apps and look after them.
    #[command(subcommand)]
    Cf(bloomery_cf::Command),
    /// The board of tasks and LRPs.
    #[command(after_help = daemon::keys(Daemon::Bbs))]
    Bbs(daemon::Flags),
    /// Grants locks, and knows who is present.
    #[command(after_help = daemon::keys(Daemon::Locket))]
    Locket(daemon::Flags),
    /// Finds cells for tasks and instances.
    #[command(after_help = daemon::keys(Daemon::Auctioneer))]
    Auctioneer(daemon::Flags),
    /// A cell: runs tasks and instances in containers of a Garden.
    #[command(after_help = daemon::keys(Daemon::Rep))]
    Rep(daemon::Flags),
    /// Tells routers of instances.
    #[command(after_help = daemon::keys(Daemon::RouteEmitter))]
    RouteEmitter(daemon::Flags),
    /// The HTTP router.
    #[command(after_help = daemon::keys(Daemon::Router), alias = "gorouter")]
    Router(daemon::Flags),
    /// Tells routers of servers that no cell runs.
    #[command(after_help = daemon::keys(Daemon::RouteRegistrar))]
    RouteRegistrar(daemon::Flags),
    /// Keeps the last logs and metrics.
    #[command(after_help = daemon::keys(Daemon::LogCache))]
    LogCache(daemon::Flags),
    /// Serves files to cells.
    #[command(after_help = daemon::keys(Daemon::FileServer))]
    FileServer(daemon::Flags),
    /// Cloud Foundry's API.
    #[command(after_help = daemon::keys(Daemon::CloudController))]
    CloudController(daemon::Flags),
    /// Users, clients and their tokens.
    #[command(after_help = daemon::keys(Daemon::Uaa))]
    Uaa(daemon::Flags),
    /// Write what the daemons need of this program into files.
    #[command(subcommand)]
    Export(export::Command),
    /// Start the platform on this machine.
    Up(up::Flags),
    /// End the platform and its apps, which are back after the next `up`.
    Down(up::Place),
    /// Say what runs.
    Status(up::Place),
    /// Show the logs of the platform's own processes.
    Logs(up::Logs),
    /// End the platform and remove all that it made.
    Destroy {
        #[command(flatten)]
        place: up::Place,
        /// It is meant.
        #[arg(long)]
        yes: bool,
    },
    /// Show the administrator's password.
    Credentials(up::Place),
    /// Print variables for a shell, for a cf that leaves an existing set-up alone.
    Env(up::Place),
    /// Make the root file system that `up` would make, below a directory of data.
    Stack {
        /// The directory; an archive that is there already stays.
        #[arg(long, value_name = "DIR")]
        data: std::path::PathBuf,
    },
    #[command(hide = true)]
    Supervise {
        #[command(flatten)]
        place: up::Place,
        #[arg(long)]
        stand_by: bool,
    },
    #[command(hide = true)]
    Platform { config: String },
    /// Measure, side by side with the runtimes installed here.
    #[command(subcommand)]
    Bench(Bench),
}

#[derive(Subcommand, Debug)]
enum Bench {
    /// A container's life: ours, runc's, crun's, and the fewest system calls that would do.
    Containers(bench::Flags),
    /// From a directory to an answering URL, step by step, on a platform of the bench's own.
    Push(bench::Push),
    /// What such a platform costs while nobody asks it.
    Idle(bench::Idle),
}

fn main() -> ExitCode {
    let mut arguments = std::env::args_os();
    // In a container this file is builder, launcher or health check.
    let name = arguments.next().unwrap_or_default();
    if let Some(program) = lifecycle::Program::named(&name.to_string_lossy()) {
        return program.run(arguments);
    }
    // Before anything makes a second thread.
    if arguments.next().is_some_and(|command| command == "inside") {
        return inside::run(arguments);
    }
    let done = match Arguments::parse_from(daemon::as_flags(std::env::args_os())).command {
        Command::Garden(command) => garden::run(command),
        Command::Demo(flags) => demo::run(&flags),
        Command::Doctor(flags) => return doctor::run(*flags),
        Command::Ctl(arguments) => return ctl::run(*arguments),
        Command::Cf(command) => return bloomery_cf::execute(command),
        Command::Bbs(flags) => daemon::run(Daemon::Bbs, &flags),
        Command::Locket(flags) => daemon::run(Daemon::Locket, &flags),
        Command::Auctioneer(flags) => daemon::run(Daemon::Auctioneer, &flags),
        Command::Rep(flags) => daemon::run(Daemon::Rep, &flags),
        Command::RouteEmitter(flags) => daemon::run(Daemon::RouteEmitter, &flags),
        Command::Router(flags) => daemon::run(Daemon::Router, &flags),
        Command::RouteRegistrar(flags) => daemon::run(Daemon::RouteRegistrar, &flags),
        Command::LogCache(flags) => daemon::run(Daemon::LogCache, &flags),
        Command::FileServer(flags) => daemon::run(Daemon::FileServer, &flags),
        Command::CloudController(flags) => daemon::run(Daemon::CloudController, &flags),
        Command::Uaa(flags) => daemon::run(Daemon::Uaa, &flags),
        Command::Export(command) => export::run(&command),
        Command::Up(flags) => up::up(&flags),
        Command::Down(place) => up::down(&place),
        Command::Status(place) => up::status(&place),
        Command::Logs(flags) => up::logs(&flags),
        Command::Destroy { place, yes } => up::destroy(&place, yes),
        Command::Credentials(place) => up::credentials(&place),
        Command::Env(place) => up::env(&place),
        Command::Stack { data } => up::make_stack(&data),
        Command::Supervise { place, stand_by } => up::supervise(&place, stand_by),
        Command::Platform { config } => platform::run(&config),
        Command::Bench(Bench::Containers(flags)) => bench::containers(&flags),
        Command::Bench(Bench::Push(flags)) => bench::push(&flags),
        Command::Bench(Bench::Idle(flags)) => bench::idle(&flags),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bloomery: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::Arguments;

    #[test]
    fn the_command_line_is_consistent() {
        Arguments::command().debug_assert();
    }
}
