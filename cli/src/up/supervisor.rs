//! The process that starts Garden and the platform, again and again, and holds the router's socket.
//!
//! ```text
//! supervisor ──starts──> garden, platform, stand-by
//!     │ killed                             │ waits for the supervisor's lock, with the socket
//!     └──────────── lock is free ─────────>┘ finds garden and platform, and goes on
//! ```
//!
//! While the platform is started again, connections wait in the socket's queue. Garden's containers
//! are its keeper's: nothing that ends here ends them, until `down` destroys them.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use bloomery_garden::client::{Address, Client};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{sleep, timeout, timeout_at};

use super::installation::Installation;
use super::place::{Logged, Place, USER};
use super::process::{Holder, Kept, holder, socket_of};
use crate::garden::clean_up_apart;

/// For Garden to answer.
const GARDEN_PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at what is about to be ready.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// How a supervisor's own death is survived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Succession {
    /// A stand-by goes on.
    StandBy,
    /// Whoever started it in the foreground starts another one.
    Caller,
}

/// Runs the platform until SIGTERM or SIGINT, then ends it and all apps. `ready` is called once.
pub fn run(
    place: &Place,
    installation: &Installation,
    succession: Succession,
    ready: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _lock = place.take()?;
    let socket = match platform(place)? {
        Some(platform) => TcpListener::from(socket_of(&platform, 0)?),
        None => TcpListener::bind((Ipv4Addr::LOCALHOST, installation.port))
            .with_context(|| format!("cannot listen on port {}", installation.port))?,
    };
    supervise(place, installation, &socket, succession, ready)
}

/// Waits for the end of the supervisor that is at work, and takes its place. The router's socket
/// is the standard input.
pub fn succeed(place: &Place) -> anyhow::Result<()> {
    let socket =
        std::io::stdin().as_fd().try_clone_to_owned().context("the standard input is no socket")?;
    let _lock = place.wait_and_take()?;
    tracing::warn!("the supervisor was killed; this process goes on");
    let installation = Installation::read(place)?;
    supervise(place, &installation, &TcpListener::from(socket), Succession::StandBy, || Ok(()))
}

fn supervise(
    place: &Place,
    installation: &Installation,
    socket: &TcpListener,
    succession: Succession,
    ready: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let runtime = super::runtime()?;
    runtime.block_on(async {
        let mut parts = Parts::find(place)?;
        let kept = parts.keep_up(place, installation, socket, succession, ready).await;
        parts.end(place).await?;
        kept
    })?;
    clean_up(place, installation)
}

/// Ends what a supervisor has left that was killed together with its stand-by.
pub fn end_left_over(place: &Place) -> anyhow::Result<()> {
    let runtime = super::runtime()?;
    runtime.block_on(async { Parts::find(place)?.end(place).await })
}

/// Whether a platform runs that no supervisor looks after.
pub fn is_left_alone(place: &Place) -> anyhow::Result<bool> {
    Ok(place.supervisor()?.is_none() && platform(place)?.is_some())
}

/// Names and numbers of all processes of an installation that run now.
pub fn processes(place: &Place) -> anyhow::Result<Vec<(&'static str, u32)>> {
    let supervisor = place.supervisor()?.and_then(|pid| u32::try_from(pid).ok());
    let pid = |holder: Option<Holder>| holder.map(|holder| holder.pid);
    let own = [
        ("supervisor", supervisor),
        ("stand-by", pid(stand_by(place, supervisor)?)),
        ("garden", pid(garden(place)?)),
        ("platform", pid(platform(place)?)),
    ];
    let own = own.into_iter().filter_map(|(name, pid)| Some((name, pid?)));
    Ok(own.chain(crate::processes::helpers(&place.keeper())?).collect())
}

/// Garden has its mark as its standard input. The others' input is the router's socket; they have
/// their marks as their standard output.
fn garden(place: &Place) -> anyhow::Result<Option<Holder>> {
    holder(&place.garden_mark(), 0, None)
}

fn platform(place: &Place) -> anyhow::Result<Option<Holder>> {
    holder(&place.platform_mark(), 1, None)
}

/// A supervisor that was a stand-by has the mark still.
fn stand_by(place: &Place, supervisor: Option<u32>) -> anyhow::Result<Option<Holder>> {
    holder(&place.stand_by_mark(), 1, supervisor)
}

/// The processes of an installation.
struct Parts {
    garden: Kept,
    platform: Kept,
    stand_by: Kept,
}

impl Parts {
    /// What still runs of what an earlier supervisor has started.
    fn find(place: &Place) -> anyhow::Result<Self> {
        Ok(Self {
            garden: Kept::found("garden", garden(place)?)?,
            platform: Kept::found("platform", platform(place)?)?,
            stand_by: Kept::found("stand-by", stand_by(place, Some(std::process::id()))?)?,
        })
    }

    /// Starts whatever is missing, until the supervisor is told to end.
    async fn keep_up(
        &mut self,
        place: &Place,
        installation: &Installation,
        socket: &TcpListener,
        succession: Succession,
        ready: impl FnOnce() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut ready = Some(ready);
        let mut garden_answers = false;
        let Self { garden, platform, stand_by } = self;
        loop {
            let (garden_runs, garden_started) = (garden.runs(), garden.started());
            let platform_runs = platform.runs();
            tokio::select! {
                () = stand_by.missing(), if succession == Succession::StandBy => {
                    stand_by.keep(start_stand_by(place, socket));
                }
                () = garden.missing() => {
                    garden_answers = false;
                    garden.keep(start_garden(place, installation));
                }
                answered = timeout_at(garden_started + GARDEN_PATIENCE, answer(place)),
                    if garden_runs && !garden_answers =>
                {
                    if answered.is_err() {
                        let log = place.log_file(Logged::Garden);
                        bail!("Garden does not answer; its log is {}", log.display());
                    }
                    garden_answers = true;
                }
                () = platform.missing(), if garden_answers => {
                    platform.keep(start_platform(place, installation, socket));
                }
                () = readiness(place), if platform_runs && ready.is_some() => {
                    if let Some(ready) = ready.take() {
                        ready()?;
                    }
                }
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
                // In the foreground the terminal is whom all of this is for.
                _ = hang_up.recv(), if succession == Succession::Caller => break,
            }
        }
        tracing::info!("stopping: apps end, and are back after the next start");
        Ok(())
    }

    /// Ends all. Apps are destroyed with Garden: a rep that is still there would report their end as
    /// crashes, and a stand-by would start everything again.
    async fn end(mut self, place: &Place) -> anyhow::Result<()> {
        self.stand_by.end().await;
        self.platform.end().await;
        place.forget_ready()?;
        self.garden.end().await;
        Ok(())
    }
}

async fn answer(place: &Place) {
    let client = Client::new(Address::Unix(place.garden_socket()));
    while !timeout(Duration::from_secs(1), client.ping()).await.is_ok_and(|pong| pong.is_ok()) {
        sleep(LOOK_EVERY).await;
    }
}

async fn readiness(place: &Place) {
    while !place.is_ready() {
        sleep(LOOK_EVERY).await;
    }
}

/// Flags of `bloomery garden` for this place.
fn garden_flags(place: &Place, installation: &Installation) -> Vec<std::ffi::OsString> {
    let mut flags: Vec<std::ffi::OsString> = Vec::new();
    for (name, path) in [
        ("--bind-socket", place.garden_socket()),
        ("--depot", place.run().join("depot")),
        ("--keeper-dir", place.keeper()),
        ("--store", place.data().join("garden")),
        ("--default-rootfs", installation.stack.clone()),
    ] {
        flags.push(name.into());
        flags.push(path.into());
    }
    // The platform, which strangers talk to, needs no privileged containers. If somebody makes it ask
    // for one, that would be root on this host.
    flags.push("--disable-privileged-containers".into());
    // Apps reach what security groups allow them: the public networks and name servers, as far as
    // nobody says otherwise.
    flags.push("--deny-network=0.0.0.0/0".into());
    flags.extend(installation.garden.iter().map(Into::into));
    flags
}

fn mark(path: &std::path::Path) -> anyhow::Result<File> {
    File::options()
        .read(true)
        .append(true)
        .create(true)
        .open(path)
        .with_context(|| format!("cannot make {}", path.display()))
}

fn start_garden(place: &Place, installation: &Installation) -> anyhow::Result<Child> {
    let log = place.log(Logged::Garden)?;
    Command::new("/proc/self/exe")
        .args(["garden", "serve"])
        .args(garden_flags(place, installation))
        .stdin(mark(&place.garden_mark())?)
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start Garden")
}

/// The platform gets the router's socket as its standard input, and writes a file when it is ready.
fn start_platform(
    place: &Place,
    installation: &Installation,
    socket: &TcpListener,
) -> anyhow::Result<Child> {
    place.forget_ready()?;
    let config = serde_json::to_string(&installation.platform(place))?;
    Command::new("/proc/self/exe")
        .arg("platform")
        .arg(config)
        .uid(USER)
        .gid(USER)
        .stdin(Stdio::from(OwnedFd::from(socket.try_clone()?)))
        .stdout(mark(&place.platform_mark())?)
        .stderr(place.log(Logged::Platform)?)
        .process_group(0)
        .spawn()
        .context("cannot start the platform")
}

fn start_stand_by(place: &Place, socket: &TcpListener) -> anyhow::Result<Child> {
    let log = place.log(Logged::Supervisor)?;
    Command::new("/proc/self/exe")
        .args(["supervise", "--stand-by"])
        .args(place.flags())
        .stdin(Stdio::from(OwnedFd::from(socket.try_clone()?)))
        .stdout(mark(&place.stand_by_mark())?)
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start a stand-by")
}

/// Removes all containers and what Garden made on this host.
pub fn clean_up(place: &Place, installation: &Installation) -> anyhow::Result<()> {
    clean_up_apart(garden_flags(place, installation))
}
