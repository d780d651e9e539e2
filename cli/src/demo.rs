//! `bloomery demo`: containers on this host, from nothing to nothing, for people to watch.
//!
//! ```text
//! image ──> outside (a network of its own) ──> daemon ──> story ──> benchmark ──> put back
//!                                                              └── --keep: daemon stays
//! ```
//!
//! Everything that is changed on the host is named when it is set, and put back at the end, after a
//! failure and after Ctrl-C.

mod changes;
mod daemon;
mod outside;
mod story;

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};

use changes::Host;
use daemon::Daemon;
use outside::Outside;

pub use daemon::refuse_second;

use crate::up::Place;

/// What to show.
#[derive(clap::Args, Debug)]
pub struct Flags {
    /// Measure as well, after the demonstration.
    #[arg(long)]
    bench: bool,
    /// Leave a daemon running at the end.
    #[arg(long)]
    keep: bool,
    /// End a daemon that was left running, and remove all that it made.
    #[arg(long, conflicts_with_all = ["bench", "keep"])]
    down: bool,
}

/// Image of the demonstration's containers.
const IMAGE: &str = "/var/lib/bloomery/busybox";

/// Runs the demonstration.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("containers need root: run this as root, or use `cargo xtask up --garden`");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut interrupts = signal(SignalKind::interrupt())?;
        let mut ends = signal(SignalKind::terminate())?;
        if flags.down {
            return down().await;
        }
        tokio::select! {
            shown = show(flags) => shown,
            _ = interrupts.recv() => interrupted().await,
            _ = ends.recv() => interrupted().await,
        }
    })
}

/// The demonstration was dropped where it stood; what it leaves is what `down` removes.
async fn interrupted() -> anyhow::Result<()> {
    println!("\ninterrupted");
    down().await?;
    bail!("interrupted before the end")
}

async fn down() -> anyhow::Result<()> {
    if let Some(pid) = Place::default().supervisor()? {
        bail!("a platform is running (process {pid}); `bloomery down` ends it");
    }
    let host = Host::look()?;
    put_back().await?;
    println!("put back:");
    host.print_changes()
}

async fn show(flags: &Flags) -> anyhow::Result<()> {
    if let Some(pid) = Place::default().supervisor()? {
        bail!(
            "a platform is running (process {pid}), and has the same places; `bloomery down` ends it"
        );
    }
    daemon::refuse_second()?;
    let host = Host::look()?;
    let shown = show_and_measure(flags, &host).await;
    if flags.keep && shown.is_ok() {
        return Ok(());
    }
    if let Err(error) = &shown {
        println!("\nthe demonstration failed: {error:#}");
        daemon::print_log();
    }
    put_back().await?;
    println!("\nput back; what differs from before:");
    host.print_changes()?;
    shown
}

async fn show_and_measure(flags: &Flags, host: &Host) -> anyhow::Result<()> {
    prepare_image()?;
    let outside = Outside::make().context("cannot make the demonstration's outside world")?;
    // A host without a default route has no other address that ports could be mapped from.
    let (resolver, external) = (outside::ADDRESS.to_string(), outside::HOST_ADDRESS.to_string());
    let daemon = Daemon::start(&["--dns-server", &resolver, "--external-ip", &external]).await?;
    println!("for as long as the daemon runs, this host has:");
    host.print_changes()?;
    story::tell(&daemon).await?;
    daemon.end().await?;
    drop(outside);
    if flags.bench {
        bench()?;
    }
    if flags.keep {
        println!();
        let daemon = Daemon::start(&[]).await?;
        println!("for as long as it runs, this host has:");
        host.print_changes()?;
        daemon.keep();
    }
    Ok(())
}

/// Ends the daemon, and removes all that it and the demonstration have made.
async fn put_back() -> anyhow::Result<()> {
    daemon::end_whoever_listens().await?;
    daemon::clean_up()?;
    Outside::remove()?;
    match std::fs::remove_dir_all(IMAGE) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {IMAGE}"))
        }
        _ => Ok(()),
    }
}

fn bench() -> anyhow::Result<()> {
    println!();
    let status = Command::new(std::env::current_exe()?)
        .args(["bench", "containers"])
        .status()
        .context("cannot start the benchmark")?;
    if !status.success() {
        bail!("the benchmark failed: {status}");
    }
    Ok(())
}

fn prepare_image() -> anyhow::Result<()> {
    let image = Path::new(IMAGE);
    if image.exists() {
        return Ok(());
    }
    let busybox = rootfs::busybox::find()?;
    std::fs::create_dir_all(image.parent().unwrap_or(image))
        .with_context(|| format!("cannot make the directory of {IMAGE}"))?;
    rootfs::busybox::build(image, &busybox).with_context(|| format!("cannot make {IMAGE}"))?;
    println!("made {IMAGE} from {}", busybox.display());
    Ok(())
}
