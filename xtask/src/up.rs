//! `cargo xtask up` and `down`: from a clone to running containers.

use std::path::Path;

use anyhow::bail;

use crate::packages::{self, run};
use crate::{build, elevated};

/// What `up` is asked for.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Leave the daemon running; `cargo xtask down` ends it.
    #[arg(long)]
    keep: bool,
    /// Show the demonstration only, without the benchmark.
    #[arg(long)]
    no_bench: bool,
}

/// Builds as the calling user, then runs the binary's own demonstration as root.
pub fn up(options: &Options) -> anyhow::Result<()> {
    if !elevated::possible() {
        bail!("containers need root, and there is no sudo: run this as root");
    }
    packages::provide(&packages::UP.iter().collect::<Vec<_>>())?;
    let binary = build::binary()?;
    let mut command = elevated::command(&binary);
    command.arg("demo");
    if options.keep {
        command.arg("--keep");
    }
    if !options.no_bench {
        command.arg("--bench");
    }
    // Ctrl-C reaches the demonstration as well, which then puts everything back; we wait for it.
    ignore_interrupts()?;
    run(&mut command)
}

/// Ends a daemon that `up --keep` left, and removes all that it made.
pub fn down() -> anyhow::Result<()> {
    let binary = build::built();
    if !Path::new(&binary).exists() {
        build::binary()?;
    }
    run(elevated::command(&binary).arg("demo").arg("--down"))
}

/// An interrupt from the terminal goes to the whole process group; who started it must outlive it.
fn ignore_interrupts() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // A handler that is installed stays so, and a child does not inherit it.
    let _interrupts = runtime.block_on(async {
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
    })?;
    Ok(())
}
