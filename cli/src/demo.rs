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
    let host = Host::look();
    daemon::end_whoever_listens().await?;
    daemon::clean_up()?;
    Outside::remove()?;
    println!("put back:");
    host.print_changes();
    Ok(())
}

async fn show(flags: &Flags) -> anyhow::Result<()> {
    if let Some(pid) = Place::default().supervisor()? {
        bail!(
            "a platform is running (process {pid}), and has the same places; `bloomery down` ends it"
        );
    }
    daemon::refuse_second()?;
    // What an interrupted demonstration left would be taken for ours.
    Outside::remove()?;
    prepare_image()?;
    let host = Host::look();
    let outside = Outside::make().context("cannot make the demonstration's outside world")?;
    // A host without a default route has no other address that ports could be mapped from.
    let own = ["--dns-server", outside::ADDRESS, "--external-ip", outside::HOST_ADDRESS];
    let daemon = Daemon::start(&own).await?;
    println!("for as long as the daemon runs, this host has:");
    host.print_changes();

    let told = story::tell(&daemon).await;
    if let Err(error) = &told {
        println!("\nthe demonstration failed: {error:#}");
        daemon.print_log();
    }
    daemon.end().await?;
    drop(outside);
    let told = told.and_then(|()| if flags.bench { bench() } else { Ok(()) });
    if flags.keep && told.is_ok() {
        Daemon::start(&[]).await?.keep();
        return Ok(());
    }
    daemon::clean_up()?;
    println!("\nput back:");
    host.print_changes();
    told
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
