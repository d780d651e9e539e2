//! How much there is of everything, for who watches over a Garden.

use rootfs::layers::Held;

use super::Gardener;
use crate::dropsonde;

/// A file system's size and what is free of it, in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disk {
    pub(crate) size: u64,
    pub(crate) free: u64,
}

/// Numbers at one moment. What is between two of them is not counted twice or lost, but it may have
/// changed meanwhile: no lock is held for all.
#[derive(Debug)]
pub(crate) struct Census {
    /// In whatever state.
    pub(crate) containers: usize,
    /// That have not ended.
    pub(crate) processes: usize,
    /// As [`Gardener::capacity`] says.
    pub(crate) most_containers: u64,
    pub(crate) parked: usize,
    pub(crate) pool_size: usize,
    /// Destroyed containers of which something is still to be taken away.
    pub(crate) leavings: usize,
    /// How often the keeper was lost and found.
    pub(crate) keeper_losses: u64,
    pub(crate) volumes: usize,
    /// Absent where they cannot be looked at, as the disk.
    pub(crate) layers: Option<Held>,
    pub(crate) disk: Option<Disk>,
}

impl Gardener {
    pub(crate) fn census(&self) -> Census {
        let containers: Vec<_> = self.containers().values().cloned().collect();
        let running = containers.iter().flat_map(|container| container.processes());
        let (parked, pool_size) = self.pool.stock();
        let disk = rustix::fs::statvfs(&self.config.store).ok().map(|stat| Disk {
            size: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bfree.saturating_mul(stat.f_frsize),
        });
        Census {
            containers: containers.len(),
            processes: running.filter(|process| process.outcome().is_none()).count(),
            most_containers: self.most_containers(),
            parked,
            pool_size,
            leavings: self.leavings.waiting(),
            keeper_losses: self.supervisor.losses(),
            volumes: self.volumes.list().map_or(0, |volumes| volumes.len()),
            layers: self.volumes.layers_held(),
            disk,
        }
    }

    /// Tells a collector of metrics what the original does from time to time.
    #[expect(clippy::cast_precision_loss, reason = "the protocol has nothing else")]
    pub fn report(&self) {
        dropsonde::report(|| {
            let unkillable = self.containers().values().filter(|one| one.is_unkillable()).count();
            let records = self.depot_directories().map_or(-1.0, |count| count as f64);
            [("DepotDirs", records), ("UnkillableContainers", unkillable as f64)]
        });
    }

    /// Tasks of the runtime that have not ended.
    pub(crate) fn tasks(&self) -> usize {
        self.runtime.metrics().num_alive_tasks()
    }

    /// Records in the depot; `None` if it cannot be read.
    pub(crate) fn depot_directories(&self) -> Option<usize> {
        std::fs::read_dir(&self.config.depot).ok().map(Iterator::count)
    }
}
