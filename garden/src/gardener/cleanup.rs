//! Cleaning up by hand after a Garden that is gone.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use garden_sys::pidfd::ends_within;
use garden_sys::supervisor::Supervisor;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::runtime::Handle;

use super::Gardener;
use crate::claim::Claim;
use crate::config::Config;
use crate::error::Error;

/// How long the last threads of a Garden, its supervisor and its volumes may take to go.
const PATIENCE: Duration = Duration::from_secs(30);

impl Gardener {
    /// Removes all that a Garden of this configuration has left on the host: containers and their
    /// processes, the supervisor, cgroups, links, rules, volumes, and the directories if they are
    /// empty then. Unpacked images stay, as does what a container cannot be freed of: that is an
    /// error, and the next clean-up tries again.
    pub fn clean_up(mut config: Config, runtime: Handle) -> Result<(), Error> {
        config.destroy_on_start = true;
        config.pool = 0;
        // No container is made, so no image is unpacked.
        config.default_rootfs = None;
        let gardener = Self::start(config.clone(), runtime)?;
        let supervisor = processes_of(&gardener.supervisor)?;
        gardener.raze()?;
        if let Err(error) = gardener.supervisor.dismiss() {
            // It leaves by itself a few seconds after its last container and daemon.
            tracing::info!(%error, "the supervisor cannot be told to leave");
        }
        let gone = Arc::downgrade(&gardener);
        drop(gardener);
        wait_until("the daemon's threads end", || gone.strong_count() == 0)?;
        for process in supervisor {
            let ended = ends_within(&process, PATIENCE)
                .map_err(|error| Error::because("cannot wait for the supervisor", &error))?;
            if !ended {
                return Err(Error::Plain("the supervisor does not end".into()));
            }
        }
        let volumes = config.store.join("volumes");
        wait_until("destroyed volumes are deleted", || !has_volumes(&volumes))?;
        for place in [&config.run, &config.store] {
            tolerate(Claim::withdraw(place), place)?;
        }
        for file in ["keeper.sock", "supervisor.log"] {
            let path = config.run.join(file);
            tolerate(fs::remove_file(&path), &path)?;
        }
        for place in ["volumes", "layers"] {
            let path = config.store.join(place);
            tolerate(fs::remove_dir(&path), &path)?;
        }
        for place in [&config.store, &config.run, &config.depot] {
            tolerate(fs::remove_dir(place), place)?;
        }
        Ok(())
    }
}

/// Pidfds of those of keeper and anchor that are alive.
pub(crate) fn processes_of(supervisor: &Supervisor) -> Result<Vec<OwnedFd>, Error> {
    let (keeper, anchor) = supervisor
        .pids()
        .map_err(|error| Error::because("cannot find the supervisor's processes", &error))?;
    let opened = |pid: i32| {
        let pid = Pid::from_raw(pid)?;
        // One that cannot be opened is gone already.
        pidfd_open(pid, PidfdFlags::empty()).ok()
    };
    Ok([keeper, anchor].into_iter().filter_map(opened).collect())
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) -> Result<(), Error> {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() >= deadline {
            return Err(Error::Plain(format!("waited {PATIENCE:?} in vain until {what}")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn has_volumes(directory: &Path) -> bool {
    let numbered = |entry: fs::DirEntry| {
        entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
    };
    fs::read_dir(directory).is_ok_and(|entries| entries.flatten().any(numbered))
}

/// What is not there need not be removed, and other people's files keep their directory.
fn tolerate(removed: io::Result<()>, path: &Path) -> Result<(), Error> {
    match removed {
        Err(error)
            if !matches!(
                error.kind(),
                io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty
            ) =>
        {
            Err(Error::because(format!("cannot remove {}", path.display()), &error))
        }
        _ => Ok(()),
    }
}
