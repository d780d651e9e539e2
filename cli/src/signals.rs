//! The signals by which people and systems end a program: Ctrl-C, SIGTERM, a terminal that is closed.

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// These signals, caught: they end this process no more, whatever becomes of this value. Programs
/// that it starts are not protected.
#[derive(Debug)]
pub struct Caught {
    interrupt: Signal,
    terminate: Signal,
    hang_up: Signal,
}

impl Caught {
    /// Catches them from now on; needs a runtime around it.
    pub fn catch() -> anyhow::Result<Self> {
        let caught = |kind| signal(kind).context("cannot catch signals");
        Ok(Self {
            interrupt: caught(SignalKind::interrupt())?,
            terminate: caught(SignalKind::terminate())?,
            hang_up: caught(SignalKind::hangup())?,
        })
    }

    /// Waits for one of them. Dropping this future loses nothing.
    pub async fn come(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hang_up.recv() => {}
        }
    }
}

/// Catches them for a command that is to come to its end.
pub fn hold_off() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot catch signals")?;
    let _inside = runtime.enter();
    Caught::catch().map(drop)
}
