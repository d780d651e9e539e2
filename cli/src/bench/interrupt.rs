//! Ctrl-C ends the bench between two turns, so that everything it has made is removed.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, bail};

use crate::signals::Caught;

/// Whether a signal has come that ends programs.
#[derive(Clone, Debug, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Catches these signals from now on.
    pub fn catch() -> anyhow::Result<Self> {
        let interrupt = Self::default();
        let caught = interrupt.clone();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("cannot wait for signals")?;
        let mut signals = {
            let _inside = runtime.enter();
            Caught::catch()?
        };
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                runtime.block_on(signals.come());
                caught.0.store(true, Ordering::SeqCst);
                eprintln!("\ninterrupted; cleaning up");
            })
            .context("cannot start a thread")?;
        Ok(interrupt)
    }

    /// An error once a signal has come.
    pub fn check(&self) -> anyhow::Result<()> {
        if self.0.load(Ordering::SeqCst) {
            bail!("interrupted");
        }
        Ok(())
    }
}
