//! `bloomery demo`: containers on this host, from nothing to nothing, for people to watch.
//!
//! ```text
//! image ──> outside (a network of its own) ──> daemon ──> story ──> benchmark ──> put back
//!                                                              └── --keep: daemon stays
//! ```
//!
//! It lives in a place of its own, so that it meets nobody else's containers. Everything that is
//! changed on the host is named when it is set, and put back at the end, after a failure and after
//! Ctrl-C; what puts it back is not interrupted.

mod benchmark;
mod changes;
mod daemon;
mod outside;
mod place;
mod story;

use std::path::Path;

use anyhow::{Context, anyhow, bail};

use changes::Host;
use daemon::Daemon;
use outside::Outside;
use place::{IMAGE, Place};

pub use place::refuse_second;

use crate::garden::clean_up_apart;
use crate::say::say;
use crate::signals::Caught;

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

/// Runs the demonstration.
pub fn run(flags: &Flags) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("containers need root: run this as root, or use `cargo xtask up --garden`");
    }
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async {
        let mut caught = Caught::catch()?;
        if flags.down { down().await } else { show(flags, &mut caught).await }
    })
}

/// Ends a daemon that was kept, and what a demonstration has left that was killed.
async fn down() -> anyhow::Result<()> {
    if !Place::exists() {
        say!("nothing of a demonstration is here");
        return Ok(());
    }
    let place = Place::take()?;
    let host = Host::look()?;
    put_back(place).await?;
    say!("put back:");
    host.print_changes()
}

async fn show(flags: &Flags, caught: &mut Caught) -> anyhow::Result<()> {
    let place = Place::take()?;
    let host = Host::look()?;
    if let Err(error) = place.refuse_others() {
        place.leave();
        return Err(error);
    }
    let shown = tokio::select! {
        shown = show_and_measure(flags, &host) => shown.inspect_err(|error| {
            say!("\nthe demonstration failed: {error:#}");
            daemon::print_log();
        }),
        // The demonstration is dropped where it stands.
        () = caught.come() => {
            say!("\ninterrupted");
            Err(anyhow!("interrupted before the end"))
        }
    };
    if flags.keep && shown.is_ok() {
        return Ok(());
    }
    put_back(place).await?;
    say!("\nput back; what differs from before:");
    host.print_changes()?;
    shown
}

async fn show_and_measure(flags: &Flags, host: &Host) -> anyhow::Result<()> {
    prepare_image()?;
    let outside = Outside::make().context("cannot make the demonstration's outside world")?;
    // A host without a default route has no other address that ports could be mapped from.
    let (resolver, external) = (outside::ADDRESS.to_string(), outside::HOST_ADDRESS.to_string());
    let daemon = Daemon::start(&["--dns-server", &resolver, "--external-ip", &external]).await?;
    say!("for as long as the daemon runs, this host has:");
    host.print_changes()?;
    story::tell(&daemon).await?;
    daemon.end().await?;
    drop(outside);
    if flags.bench {
        say!("\nfor as long as the benchmark runs, each of its four Gardens needs the same");
        benchmark::run().await?;
        say!("\nthe benchmark has put back what it set; still, this host has:");
        host.print_changes()?;
    }
    if flags.keep {
        say!("");
        let daemon = Daemon::start(&[]).await?;
        say!("for as long as it runs, this host has:");
        host.print_changes()?;
        daemon.keep();
    }
    Ok(())
}

/// Ends the daemon, and removes all that it and the demonstration have made.
async fn put_back(place: Place) -> anyhow::Result<()> {
    daemon::end_whoever_serves().await?;
    clean_up_apart(place::GARDEN)?;
    Outside::remove()?;
    place.remove()
}

fn prepare_image() -> anyhow::Result<()> {
    if Path::new(IMAGE).exists() {
        return Ok(());
    }
    let busybox = rootfs::busybox::find()?;
    rootfs::busybox::build(Path::new(IMAGE), &busybox)
        .with_context(|| format!("cannot make {IMAGE}"))?;
    say!("made {IMAGE} from {}", busybox.display());
    Ok(())
}
