//! The daemon of the demonstration: this program, started again.

use std::fs::File;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bloomery_garden::client::{Address, Client};
use garden_sys::pidfd::ends_within;
use rustix::process::{Signal, pidfd_send_signal};

use super::place::{GARDEN, LOG, MARK, SOCKET};
use crate::say::say;
use crate::up::{Holder, holder};

/// A first start on a slow machine; a stop that waits for calls.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running daemon.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    pub client: Client,
}

/// The daemon of a demonstration, whoever started it.
pub fn find() -> anyhow::Result<Option<Holder>> {
    holder(Path::new(MARK), 0, None)
}

/// The process that listens on the socket, by its credentials (unix(7), SO_PEERCRED).
pub fn listener() -> Option<i32> {
    let connection = UnixStream::connect(SOCKET).ok()?;
    let peer = rustix::net::sockopt::socket_peercred(&connection).ok()?;
    Some(peer.pid.as_raw_nonzero().get())
}

/// Asks the daemon of a demonstration to end, and waits until it has.
pub async fn end_whoever_serves() -> anyhow::Result<()> {
    let Some(Holder { pid, pidfd }) = find()? else { return Ok(()) };
    say!("ending process {pid}");
    pidfd_send_signal(&pidfd, Signal::TERM).with_context(|| format!("cannot end process {pid}"))?;
    let ended = tokio::task::spawn_blocking(move || ends_within(&pidfd, PATIENCE)).await?;
    if !ended.with_context(|| format!("cannot wait for process {pid}"))? {
        bail!("process {pid} is still there after {} s", PATIENCE.as_secs());
    }
    Ok(())
}

/// Shows the end of what the daemon logged.
pub fn print_log() {
    const LINES: usize = 20;
    let text = std::fs::read_to_string(LOG).unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    say!("the end of the daemon's log:");
    for line in &lines[lines.len().saturating_sub(LINES)..] {
        say!("  {line}");
    }
}

impl Daemon {
    /// Starts a daemon in the demonstration's place and waits until it serves.
    pub async fn start(flags: &[&str]) -> anyhow::Result<Self> {
        let log = File::create(LOG).with_context(|| format!("cannot make {LOG}"))?;
        let mark = File::create(MARK).with_context(|| format!("cannot make {MARK}"))?;
        let started = Instant::now();
        let child = Command::new(std::env::current_exe()?)
            .args(["garden", "serve"])
            .args(GARDEN)
            .args(flags)
            .stdin(mark)
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
        say!(
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
        say!(
            "\nThe daemon stays; its log is {LOG}. Try\n  sudo {program} ctl create --handle first\n  \
             sudo {program} ctl run first --tty -- sh\nand `cargo xtask down` to end it and remove all that it made."
        );
    }
}
