//! Cgroups of the operator's plugins, one per run, so that all that a run has started can be killed:
//! by who waits for it, and by the next daemon if that one was killed.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::directory::{Directory, ignore_gone};
use crate::error::Error;
use crate::hierarchy::Roots;
use crate::slot::kill;

/// Beside the slots, in the v2 hierarchy alone.
pub(crate) const PLUGINS: &str = "plugins";

/// The cgroup of one run of a plugin. Dropping it changes nothing.
#[derive(Debug)]
pub struct PluginRun {
    plugins: Directory,
    name: String,
}

impl PluginRun {
    pub(crate) fn create(roots: &Arc<Roots>) -> Result<Self, Error> {
        // What an earlier process has left is ended before this one makes any.
        static RUNS: AtomicU64 = AtomicU64::new(0);
        let plugins = roots.unified.ensure(PLUGINS)?;
        let name = RUNS.fetch_add(1, Ordering::Relaxed).to_string();
        plugins.create(&name)?;
        Ok(Self { plugins, name })
    }

    /// Its `cgroup.procs`, open for writing: whoever writes `0` to it is inside.
    pub fn door(&self) -> Result<OwnedFd, Error> {
        self.plugins.child(&self.name)?.file("cgroup.procs", OFlags::WRONLY)
    }

    /// Kills what is inside, processes that are being forked included, and removes the cgroup.
    /// [`Error::NotEmpty`] after `patience`; the signals stay sent.
    pub fn end(&self, patience: Duration) -> Result<(), Error> {
        end(&self.plugins, &self.name, patience)
    }
}

/// Ends every run that there is.
pub(crate) fn end_all(roots: &Roots, patience: Duration) -> Result<(), Error> {
    let Some(plugins) = ignore_gone(roots.unified.child(PLUGINS))? else { return Ok(()) };
    for name in ignore_gone(plugins.children())?.unwrap_or_default() {
        end(&plugins, &name, patience)?;
    }
    Ok(())
}

fn end(plugins: &Directory, name: &str, patience: Duration) -> Result<(), Error> {
    let Some(run) = ignore_gone(plugins.child(name))? else { return Ok(()) };
    kill(&run, patience)?;
    plugins.remove_tree(name)
}
