//! The process that starts Garden and the platform, again and again, and holds the router's socket.
//!
//! While the platform is started again, connections wait in the socket's queue. Garden's containers
//! are its keeper's: nothing that ends here ends them, until `down` destroys them.

use std::io::{BufRead as _, BufReader};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bloomery_garden::client::{Address, Client};
use rustix::process::{Pid, Signal, kill_process};
use tokio::signal::unix::{SignalKind, signal};

use super::installation::Installation;
use super::place::{Place, USER};

/// For Garden to answer.
const GARDEN_PATIENCE: Duration = Duration::from_secs(60);
/// For a child that was asked to end; then it is killed.
const FAREWELL: Duration = Duration::from_secs(30);
/// Before a child that ended is started again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A child that lived for so long starts anew with the first pause.
const STABLE: Duration = Duration::from_secs(30);

/// Runs the platform until SIGTERM or SIGINT, then ends it and all apps. `ready` is called once.
pub fn run(
    place: &Place,
    installation: &Installation,
    ready: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let _lock = place.take()?;
    place.set_ready(false)?;
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, installation.port))
        .with_context(|| format!("cannot listen on port {}", installation.port))?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    let kept = runtime.block_on(keep_up(place, installation, &socket, ready));
    let _ = place.set_ready(false);
    kept?;
    clean_up(place, installation)
}

async fn keep_up(
    place: &Place,
    installation: &Installation,
    socket: &TcpListener,
    ready: impl FnOnce() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut garden = Kept::new("garden");
    let mut platform = Kept::new("platform");
    let mut ready = Some(ready);
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    loop {
        tokio::select! {
            _ = tick.tick() => {}
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        }
        garden.keep(|| start_garden(place, installation))?;
        if !garden.answers && answers(place).await {
            garden.answers = true;
        }
        if garden.child.is_some() && !garden.answers && garden.started.elapsed() > GARDEN_PATIENCE {
            bail!(
                "Garden does not answer; its log is {}",
                place.data().join("log/garden.log").display()
            );
        }
        if garden.answers {
            platform.keep(|| start_platform(place, installation, socket))?;
        }
        if place.is_ready()
            && let Some(ready) = ready.take()
        {
            ready()?;
        }
    }
    tracing::info!("stopping: apps end, and are back after the next start");
    place.set_ready(false)?;
    // Apps are destroyed with Garden: a rep that is still there would report their end as crashes.
    platform.end().await;
    garden.end().await;
    Ok(())
}

async fn answers(place: &Place) -> bool {
    let client = Client::new(Address::Unix(place.garden_socket()));
    tokio::time::timeout(Duration::from_secs(1), client.ping()).await.is_ok_and(|pong| pong.is_ok())
}

/// A child that is started again whenever it ends.
struct Kept {
    name: &'static str,
    child: Option<Child>,
    started: Instant,
    pause: Duration,
    next: Instant,
    /// Somebody has seen it answer.
    answers: bool,
}

impl Kept {
    fn new(name: &'static str) -> Self {
        let now = Instant::now();
        Self { name, child: None, started: now, pause: PAUSES.0, next: now, answers: false }
    }

    fn keep(&mut self, start: impl FnOnce() -> anyhow::Result<Child>) -> anyhow::Result<()> {
        if let Some(child) = &mut self.child {
            let Some(status) = child.try_wait()? else { return Ok(()) };
            if self.started.elapsed() > STABLE {
                self.pause = PAUSES.0;
            }
            tracing::error!(
                process = self.name,
                %status,
                after = ?self.started.elapsed(),
                "it has ended; it is started again"
            );
            self.child = None;
            self.answers = false;
            self.next = Instant::now() + self.pause;
            self.pause = (self.pause * 2).min(PAUSES.1);
        }
        if Instant::now() >= self.next {
            self.child = Some(start()?);
            self.started = Instant::now();
        }
        Ok(())
    }

    async fn end(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // It may have ended.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + FAREWELL;
        while matches!(child.try_wait(), Ok(None)) {
            if Instant::now() > deadline {
                tracing::warn!(process = self.name, "it does not end, and is killed");
                let _ = child.kill();
                let _ = child.wait();
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Flags of `bloomery garden` for this place.
fn garden_flags(place: &Place, installation: &Installation) -> Vec<std::ffi::OsString> {
    let mut flags: Vec<std::ffi::OsString> = Vec::new();
    for (name, path) in [
        ("--bind-socket", place.garden_socket()),
        ("--depot", place.run().join("depot")),
        ("--keeper-dir", place.run().join("keeper")),
        ("--store", place.data().join("garden")),
        ("--default-rootfs", installation.stack.clone()),
    ] {
        flags.push(name.into());
        flags.push(path.into());
    }
    flags.extend(installation.garden.iter().map(Into::into));
    flags
}

fn start_garden(place: &Place, installation: &Installation) -> anyhow::Result<Child> {
    let log = place.log("garden")?;
    Command::new("/proc/self/exe")
        .args(["garden", "serve"])
        .args(garden_flags(place, installation))
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start Garden")
}

/// The platform gets the router's socket as its standard input, and says on its standard output
/// when it is ready.
fn start_platform(
    place: &Place,
    installation: &Installation,
    socket: &TcpListener,
) -> anyhow::Result<Child> {
    place.set_ready(false)?;
    let settings = super::super::platform::Settings {
        data: place.platform_data(),
        run: place.platform_run(),
        domain: installation.domain.clone(),
        apps_domain: installation.apps_domain(),
        port: installation.port,
        garden: place.garden_socket(),
        stack: installation.stack.clone(),
        memory_mb: installation.memory_mb,
    };
    let mut child = Command::new("/proc/self/exe")
        .arg("platform")
        .arg(serde_json::to_string(&settings)?)
        .uid(USER)
        .gid(USER)
        .stdin(Stdio::from(OwnedFd::from(socket.try_clone()?)))
        .stdout(Stdio::piped())
        .stderr(place.log("platform")?)
        .process_group(0)
        .spawn()
        .context("cannot start the platform")?;
    let told = child.stdout.take().context("the platform has no output")?;
    let place = place.clone();
    std::thread::spawn(move || {
        for line in BufReader::new(told).lines().map_while(Result::ok) {
            if line == "ready"
                && let Err(error) = place.set_ready(true)
            {
                tracing::error!(%error, "cannot say that the platform is ready");
            }
        }
    });
    Ok(child)
}

/// Removes all containers and what Garden made on this host.
pub fn clean_up(place: &Place, installation: &Installation) -> anyhow::Result<()> {
    let status = Command::new("/proc/self/exe")
        .args(["garden", "cleanup", "--log-level", "error"])
        .args(garden_flags(place, installation))
        .status()
        .context("cannot start `bloomery garden cleanup`")?;
    if !status.success() {
        bail!("`bloomery garden cleanup` failed: {status}");
    }
    Ok(())
}
