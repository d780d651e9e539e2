//! Processes that a supervisor keeps: its own children, and those that one before it has started.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Child;
use std::time::Duration;

use anyhow::Context;
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, Signal, pidfd_getfd, pidfd_open, pidfd_send_signal,
};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::time::Instant;

use crate::processes;

/// For a process that was asked to end; then it is killed.
const FAREWELL: Duration = Duration::from_secs(30);
/// Before a process that ended is started again: at first, and at most.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
/// A process that lived for so long starts anew with the first pause.
const STABLE: Duration = Duration::from_secs(30);

/// A process that runs, or did a moment ago.
#[derive(Debug)]
struct Running {
    pidfd: AsyncFd<OwnedFd>,
    /// None: another process's child, whose status is not ours to know.
    child: Option<Child>,
}

impl Running {
    fn child(child: Child) -> anyhow::Result<Self> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.context("a child has no pid")?;
        // A child that nobody has waited for keeps its number.
        let pidfd = pidfd_open(pid, PidfdFlags::NONBLOCK)
            .with_context(|| format!("cannot watch process {}", child.id()))?;
        Ok(Self { child: Some(child), ..Self::found(pidfd)? })
    }

    fn found(pidfd: OwnedFd) -> anyhow::Result<Self> {
        #[expect(deprecated, reason = "an OwnedFd stays open; the successor is an unsafe function")]
        let pidfd =
            AsyncFd::with_interest(pidfd, Interest::READABLE).context("cannot watch a process")?;
        Ok(Self { pidfd, child: None })
    }

    /// Waits for the end, and says how it was. Dropping this future loses nothing.
    async fn end(&mut self) -> String {
        // A pidfd is readable once its process has ended (pidfd_open(2)).
        if let Err(error) = self.pidfd.readable().await {
            return format!("cannot be watched: {error}");
        }
        match self.child.as_mut().map(Child::wait) {
            Some(Ok(status)) => status.to_string(),
            Some(Err(error)) => format!("status unknown: {error}"),
            None => "status unknown: an earlier supervisor started it".into(),
        }
    }

    fn signal(&self, signal: Signal) {
        // It may have ended.
        let _ = pidfd_send_signal(self.pidfd.get_ref(), signal);
    }
}

/// A process that is started again whenever it ends.
#[derive(Debug)]
pub struct Kept {
    name: &'static str,
    running: Option<Running>,
    started: Instant,
    pause: Duration,
    next: Instant,
}

impl Kept {
    /// One that does not run yet.
    pub fn new(name: &'static str) -> Self {
        let now = Instant::now();
        Self { name, running: None, started: now, pause: PAUSES.0, next: now }
    }

    /// One that somebody has started before, if it still runs.
    pub fn found(name: &'static str, holder: Option<Holder>) -> anyhow::Result<Self> {
        let running = holder.map(|holder| Running::found(holder.pidfd)).transpose()?;
        Ok(Self { running, ..Self::new(name) })
    }

    pub fn runs(&self) -> bool {
        self.running.is_some()
    }

    /// When it was started, or found.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Returns when it is time to start it. Dropping this future loses nothing.
    pub async fn missing(&mut self) {
        if let Some(running) = &mut self.running {
            let status = running.end().await;
            if self.started.elapsed() > STABLE {
                self.pause = PAUSES.0;
            }
            tracing::error!(
                process = self.name,
                status,
                after = ?self.started.elapsed(),
                "it has ended; it is started again"
            );
            self.running = None;
            self.pause_once();
        }
        tokio::time::sleep_until(self.next).await;
    }

    /// Takes what was started, or tries again later.
    pub fn keep(&mut self, started: anyhow::Result<Child>) {
        self.started = Instant::now();
        match started.and_then(Running::child) {
            Ok(running) => self.running = Some(running),
            Err(error) => {
                tracing::error!(
                    process = self.name,
                    error = format!("{error:#}"),
                    "it is tried again"
                );
                self.pause_once();
            }
        }
    }

    fn pause_once(&mut self) {
        self.next = Instant::now() + self.pause;
        self.pause = (self.pause * 2).min(PAUSES.1);
    }

    /// Asks it to end and waits until it has.
    pub async fn end(&mut self) {
        let Some(mut running) = self.running.take() else { return };
        running.signal(Signal::TERM);
        if tokio::time::timeout(FAREWELL, running.end()).await.is_err() {
            tracing::warn!(process = self.name, "it does not end, and is killed");
            running.signal(Signal::KILL);
            running.end().await;
        }
    }
}

/// A process that was found.
#[derive(Debug)]
pub struct Holder {
    pub pid: u32,
    pub pidfd: OwnedFd,
}

/// The process, `but` for this one, that has this file as its descriptor of that number, if there is
/// one: what an earlier supervisor has started is known by it, whatever that had come to.
pub fn holder(mark: &Path, descriptor: u32, but: Option<u32>) -> anyhow::Result<Option<Holder>> {
    let mark = match File::open(mark) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot open {}", mark.display()));
        }
    };
    let mark = mark.metadata().context("cannot look at an open file")?;
    let holds = |pid: u32| {
        fs::metadata(format!("/proc/{pid}/fd/{descriptor}"))
            .is_ok_and(|file| (file.dev(), file.ino()) == (mark.dev(), mark.ino()))
    };
    for pid in processes::all().into_iter().filter(|pid| Some(*pid) != but && holds(*pid)) {
        let Some(process) = i32::try_from(pid).ok().and_then(Pid::from_raw) else { continue };
        // It may have ended, and its number be another's, until it was opened.
        if let Ok(pidfd) = pidfd_open(process, PidfdFlags::NONBLOCK)
            && holds(pid)
        {
            return Ok(Some(Holder { pid, pidfd }));
        }
    }
    Ok(None)
}

/// Another process's socket, as a descriptor of ours.
pub fn socket_of(process: &Holder, descriptor: i32) -> anyhow::Result<OwnedFd> {
    pidfd_getfd(&process.pidfd, descriptor, PidfdGetfdFlags::empty())
        .context("cannot take over the router's socket (pidfd_getfd)")
}
