//! The daemon of the demonstration: this program, started again.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bloomery_garden::client::{Address, Client};
use garden_sys::pidfd::ends_within;
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

use super::IMAGE;

const SOCKET: &str = "/run/bloomery/garden.sock";
const LOG: &str = "/run/bloomery/garden.log";
/// A first start on a slow machine; a stop that waits for calls.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    pub client: Client,
}

/// Says who listens already, if anybody does.
pub fn refuse_second() -> anyhow::Result<()> {
    if let Some((pid, _)) = listener()? {
        bail!("a Garden is running at {SOCKET} (process {pid}); `cargo xtask down` ends it");
    }
    Ok(())
}

/// The process that listens on the socket, by its credentials (unix(7), SO_PEERCRED).
fn listener() -> anyhow::Result<Option<(i32, OwnedFd)>> {
    let Ok(connection) = UnixStream::connect(SOCKET) else { return Ok(None) };
    let peer = rustix::net::sockopt::socket_peercred(&connection)?;
    // It may have ended since.
    let Ok(pidfd) = pidfd_open(peer.pid, PidfdFlags::empty()) else { return Ok(None) };
    Ok(Some((peer.pid.as_raw_nonzero().get(), pidfd)))
}

/// Asks the daemon at the socket to end, and waits until it has.
pub async fn end_whoever_listens() -> anyhow::Result<()> {
    let Some((pid, pidfd)) = listener()? else { return Ok(()) };
    println!("ending process {pid}");
    pidfd_send_signal(&pidfd, Signal::TERM)?;
    let ended = tokio::task::spawn_blocking(move || ends_within(&pidfd, PATIENCE)).await?;
    if !ended.with_context(|| format!("cannot wait for process {pid}"))? {
        bail!("process {pid} is still there after {} s", PATIENCE.as_secs());
    }
    Ok(())
}

/// Removes all that a daemon made and left: containers, cgroups, links, rules, its keeper.
pub fn clean_up() -> anyhow::Result<()> {
    let status = Command::new(std::env::current_exe()?)
        .args(["garden", "cleanup", "--log-level", "error"])
        .status()
        .context("cannot start `bloomery garden cleanup`")?;
    if !status.success() {
        bail!("`bloomery garden cleanup` failed: {status}");
    }
    Ok(())
}

/// Shows the end of what the daemon logged.
pub fn print_log() {
    const LINES: usize = 20;
    let text = std::fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    println!("the end of {LOG}:");
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        println!("  {line}");
    }
}

impl Daemon {
    /// Starts a daemon with the default places and waits until it serves.
    pub async fn start(flags: &[&str]) -> anyhow::Result<Self> {
        std::fs::create_dir_all("/run/bloomery").context("cannot make /run/bloomery")?;
        let log = File::create(LOG).with_context(|| format!("cannot make {LOG}"))?;
        let started = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .args(["garden", "serve", "--default-rootfs", IMAGE])
            .args(flags)
            .stdin(std::process::Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            // Ctrl-C is for us: we end the daemon in our own time.
            .process_group(0)
            .spawn()
            .context("cannot start `bloomery garden serve`")?;
        let client = Client::new(Address::Unix(SOCKET.into()));
        let mut daemon = Self { child, client };
        while daemon.client.ping().await.is_err() {
            if let Some(status) = daemon.child.try_wait()? {
                bail!("the daemon ended: {status}");
            }
            if started.elapsed() > PATIENCE {
                bail!("the daemon does not answer");
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!(
            "started   bloomery garden serve (process {}), serving after {} ms at {SOCKET}",
            daemon.child.id(),
            started.elapsed().as_millis()
        );
        Ok(daemon)
    }

    /// Ends it, as an operator would.
    pub async fn end(mut self) -> anyhow::Result<()> {
        let pid = i32::try_from(self.child.id()).ok().and_then(rustix::process::Pid::from_raw);
        let pid = pid.context("the daemon has no pid")?;
        rustix::process::kill_process(pid, Signal::TERM)?;
        let status = tokio::task::spawn_blocking(move || self.child.wait()).await??;
        if !status.success() {
            bail!("the daemon ended: {status}");
        }
        Ok(())
    }

    /// Leaves it running, and says how to use and to end it.
    pub fn keep(self) {
        let program = std::env::current_exe().unwrap_or_else(|_| Path::new("bloomery").into());
        let program = program.display();
        println!(
            "\nThe daemon stays; its log is {LOG}. Try\n  sudo {program} ctl create --handle first\n  \
             sudo {program} ctl run first --tty -- sh\nand `cargo xtask down` to end it and remove all that it made."
        );
    }
}
