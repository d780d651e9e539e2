//! `cargo xtask up` and `down`: from a clone to an app that answers, or to running containers.

use std::path::Path;

use anyhow::bail;

use crate::packages::{self, run};
use crate::{build, elevated};

/// What `up` is asked for.
#[derive(clap::Args, Debug)]
pub struct Options {
    /// Show containers instead: start the container daemon alone, show what it does, measure it, and
    /// put everything back.
    #[arg(long)]
    garden: bool,
    /// Leave that daemon running; `cargo xtask down` ends it.
    #[arg(long, requires = "garden")]
    keep: bool,
    /// Show that daemon only, without the benchmark.
    #[arg(long, requires = "garden")]
    no_bench: bool,
    /// Flags for `bloomery up`, after `--`.
    #[arg(last = true, conflicts_with = "garden", value_name = "FLAG")]
    flags: Vec<String>,
}

/// Builds as the calling user, then runs the binary as root.
pub fn up(options: &Options) -> anyhow::Result<()> {
    if !elevated::possible() {
        bail!("containers need root, and there is no sudo: run this as root");
    }
    packages::provide(match options {
        Options { garden: false, .. } => &[packages::UP],
        Options { no_bench: true, .. } => &[packages::GARDEN],
        _ => &[packages::GARDEN, packages::BENCH],
    })?;
    let binary = build::binary()?;
    let mut command = elevated::command(&binary);
    if options.garden {
        command.arg("demo");
        if options.keep {
            command.arg("--keep");
        }
        if !options.no_bench {
            command.arg("--bench");
        }
    } else {
        command.args(["up", "--sample"]).args(&options.flags);
    }
    ignore_interrupts()?;
    run(&mut command)
}

/// Ends whatever `up` left running. The platform's data stay; the demonstration leaves nothing.
pub fn down() -> anyhow::Result<()> {
    let binary = build::built();
    if !Path::new(&binary).exists() {
        build::binary()?;
    }
    ignore_interrupts()?;
    run(elevated::command(&binary).arg("down"))?;
    run(elevated::command(&binary).arg("demo").arg("--down"))
}

/// An interrupt from the terminal goes to the whole process group: the demonstration then puts
/// everything back, and whoever started it waits for that.
fn ignore_interrupts() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // A handler that is installed stays so, and a child does not inherit it.
    let _interrupts = runtime.block_on(async {
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::interrupt())
    })?;
    Ok(())
}
