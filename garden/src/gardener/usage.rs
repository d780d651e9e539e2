//! What containers use, and when they use too much.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garden_api::{CpuStat, DiskStat, MemoryStat, Metrics, Nanoseconds, NetworkStat, PidStat};
use garden_cgroup::{OomWatch, Slot};

use super::Gardener;
use crate::container::{Container, Init};
use crate::depot::PeaRecord;
use crate::error::Error;
use crate::meters::METERS;
use crate::traffic;
use crate::volumes::Usage;

/// Containers by cgroup slot, and how many of their processes have been killed for want of memory.
#[derive(Debug)]
pub(super) struct MemoryWatch {
    kernel: OomWatch,
    watched: Mutex<HashMap<u32, Watched>>,
}

#[derive(Debug)]
struct Watched {
    container: Weak<Container>,
    slot: Arc<Slot>,
    kills: u64,
    /// Kills that the kernel no longer counts, since the cgroup in which they were is gone.
    forgotten: u64,
}

impl MemoryWatch {
    pub(super) fn new() -> Result<Self, Error> {
        let kernel =
            OomWatch::new().map_err(|error| Error::because("cannot watch memory", &error))?;
        Ok(Self { kernel, watched: Mutex::default() })
    }

    fn watched(&self) -> std::sync::MutexGuard<'_, HashMap<u32, Watched>> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gardener {
    pub(super) fn watch_memory(&self, slot: &Arc<Slot>, container: &Arc<Container>) {
        if let Err(error) = self.memory_watch.kernel.add(slot) {
            tracing::warn!(handle = container.handle, %error, "memory is not watched");
        }
        let kills = container.look(|record| record.events.len() as u64);
        let counted = if kills == 0 { Ok(0) } else { slot.oom_kills() };
        let watched = Watched {
            container: Arc::downgrade(container),
            slot: Arc::clone(slot),
            kills,
            forgotten: kills.saturating_sub(counted.unwrap_or(kills)),
        };
        self.memory_watch.watched().insert(slot.number(), watched);
    }

    pub(super) fn unwatch_memory(&self, slot: &Slot) {
        self.memory_watch.kernel.remove(slot.number());
        self.memory_watch.watched().remove(&slot.number());
    }

    /// A cgroup below a container's has been removed, in which so many kills were counted.
    pub(super) fn remember_kills(&self, slot: &Slot, kills: u64) {
        if let Some(watched) = self.memory_watch.watched().get_mut(&slot.number()) {
            watched.forgotten += kills;
        }
    }

    /// Waits a moment for the kernel to tell of a want of memory.
    pub(super) fn hear_of_memory(&self) {
        match self.memory_watch.kernel.wait(Some(Duration::from_millis(500))) {
            Ok(slots) => slots.into_iter().for_each(|slot| self.count_kills(slot)),
            Err(error) => {
                tracing::warn!(%error, "memory is not watched for a moment");
                std::thread::sleep(Duration::from_millis(500));
            }
        }
    }

    /// A process has ended: if for want of memory, that must be known before its status is.
    pub(super) fn note_memory_kills(&self, container: &Container) {
        if let Some(body) = container.body() {
            self.count_kills(body.slot.number());
        }
    }

    /// One event per kill since the last look.
    fn count_kills(&self, slot: u32) {
        let (container, new) = {
            let mut watched = self.memory_watch.watched();
            let Some(watched) = watched.get_mut(&slot) else { return };
            let counted = watched.slot.oom_kills().map(|counted| counted + watched.forgotten);
            let kills = counted.unwrap_or(watched.kills);
            let new = kills.saturating_sub(watched.kills);
            watched.kills = watched.kills.max(kills);
            (watched.container.upgrade(), new)
        };
        METERS.memory_kills.add(new);
        let (Some(container), 1..) = (container, new) else { return };
        let noted = container.change(&self.depot, |record| {
            record.events.extend((0..new).map(|_| "Out of memory".to_owned()));
            record.properties.insert("rundmc.events".into(), record.events.join(","));
        });
        if let Err(error) = noted {
            tracing::warn!(handle = container.handle, %error, "a want of memory is not recorded");
        }
    }

    /// What a container uses, or a pea whose id no container has as its handle.
    pub fn metrics(&self, handle: &str) -> Result<Metrics, Error> {
        let pea = match self.call(handle) {
            Ok((container, _call)) => return self.metrics_of(&container),
            Err(unknown) => self.find_pea(handle).ok_or(unknown),
        };
        let (container, pea) = pea?;
        let _call = container.call();
        self.metrics_of_pea(&container, &pea)
    }

    /// As [`Self::metrics`], without a pause of the container's grace time.
    pub fn metrics_untouched(&self, handle: &str) -> Result<Metrics, Error> {
        let pea = match self.find(handle) {
            Ok(container) => return self.metrics_of(&container),
            Err(unknown) => self.find_pea(handle).ok_or(unknown),
        };
        let (container, pea) = pea?;
        self.metrics_of_pea(&container, &pea)
    }

    fn metrics_of(&self, container: &Container) -> Result<Metrics, Error> {
        let handle = container.handle.as_str();
        let body = container.body().ok_or_else(|| Error::ContainerNotFound(handle.to_owned()))?;
        if !body.init.is_alive() {
            return Err(Error::Plain(format!("container {handle} is not running")));
        }
        let used = body
            .slot
            .metrics()
            .map_err(|error| Error::because("cannot read the container's usage", &error))?;
        let (created, shares, volume, image) = container.look(|record| {
            (record.created, record.spec.limits.cpu.shares(), record.volume, record.image_size)
        });
        let network = self.traffic(container, &body.init);
        let (made, privileged) =
            container.look(|record| (record.made_image, record.spec.privileged));
        let disk = match self.images.as_ref().filter(|_| made) {
            Some(plugins) => plugins.stats(&container.handle, privileged)?,
            None => self.volumes.usage(volume, image),
        };
        Ok(Metrics { network, ..self.told(&used, disk, created, shares) })
    }

    fn metrics_of_pea(&self, container: &Container, pea: &PeaRecord) -> Result<Metrics, Error> {
        let read = match (pea.slot(), container.body()) {
            (Some(own), _) => self.maker.hierarchy.open(own).and_then(|slot| slot.metrics()),
            (None, Some(body)) => body.slot.pea_metrics(pea.number),
            (None, None) => return Err(Error::ContainerNotFound(container.handle.clone())),
        };
        let used =
            read.map_err(|error| Error::because("cannot read the process's usage", &error))?;
        let shares = pea.limits.map_or(0, |limits| limits.cpu.shares());
        let disk = self.volumes.usage(pea.number, pea.image_size);
        Ok(self.told(&used, disk, pea.created, shares))
    }

    /// Measures in the words of the protocol; `created` is a Unix time in nanoseconds.
    fn told(
        &self,
        used: &garden_cgroup::Metrics,
        disk: Usage,
        created: u64,
        shares: u64,
    ) -> Metrics {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let age = now.saturating_sub(Duration::from_nanos(created));
        Metrics {
            memory: memory_stat(&used.memory),
            cpu: CpuStat {
                usage: nanoseconds(used.cpu.usage),
                user: nanoseconds(used.cpu.user),
                system: nanoseconds(used.cpu.system),
            },
            disk: DiskStat {
                total_bytes_used: disk.total,
                exclusive_bytes_used: disk.exclusive,
                ..DiskStat::default()
            },
            network: None,
            pid: PidStat { current: used.pids.current, max: used.pids.max.unwrap_or(0) },
            age: Nanoseconds::from_duration(age),
            cpu_entitlement: self.entitlement(shares, age),
        }
    }

    /// Bytes through the interface that the container's property names, if anybody wants them.
    fn traffic(&self, container: &Container, init: &Init) -> Option<NetworkStat> {
        if !self.config.network_metrics {
            return None;
        }
        let interface = container.look(|record| {
            let property = |key| record.properties.get(key).map(String::as_str);
            let checked = property("network.healthcheck") == Some("true");
            property("garden.network.interface").filter(|_| !checked).map(str::to_owned)
        })?;
        let devices = std::fs::read_to_string(format!("/proc/{}/net/dev", init.pid)).ok()?;
        // Still alive: so it was this process's pid, and no other's.
        if init.is_alive() { traffic::through(&interface, &devices) } else { None }
    }

    /// CPU time that a container of so many shares may expect to have had, in nanoseconds.
    fn entitlement(&self, shares: u64, age: Duration) -> u64 {
        #[expect(
            clippy::cast_precision_loss,
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an estimate of a time; casts from float saturate"
        )]
        {
            let per_share = self.config.cpu_entitlement_per_share.unwrap_or_else(|| {
                let memory = rustix::system::sysinfo();
                let mebibytes = (memory.totalram * u64::from(memory.mem_unit)) >> 20;
                let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
                100.0 * cores as f64 / mebibytes.max(1) as f64
            });
            (shares as f64 * per_share / 100.0 * age.as_nanos() as f64) as u64
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn memory_stat(used: &garden_cgroup::MemoryStat) -> MemoryStat {
    MemoryStat {
        active_anon: used.active_anon,
        active_file: used.active_file,
        cache: used.cache,
        hierarchical_memory_limit: used.hierarchical_memory_limit,
        inactive_anon: used.inactive_anon,
        inactive_file: used.inactive_file,
        mapped_file: used.mapped_file,
        pgfault: used.pgfault,
        pgmajfault: used.pgmajfault,
        pgpgin: used.pgpgin,
        pgpgout: used.pgpgout,
        rss: used.rss,
        total_active_anon: used.total_active_anon,
        total_active_file: used.total_active_file,
        total_cache: used.total_cache,
        total_inactive_anon: used.total_inactive_anon,
        total_inactive_file: used.total_inactive_file,
        total_mapped_file: used.total_mapped_file,
        total_pgfault: used.total_pgfault,
        total_pgmajfault: used.total_pgmajfault,
        total_pgpgin: used.total_pgpgin,
        total_pgpgout: used.total_pgpgout,
        total_rss: used.total_rss,
        total_unevictable: used.total_unevictable,
        unevictable: used.unevictable,
        swap: used.swap,
        hierarchical_memsw_limit: used.hierarchical_memsw_limit,
        total_swap: used.total_swap,
        total_usage_toward_limit: used.total_usage_toward_limit,
        anon: used.anon,
        file: used.file,
        swapcached: used.swapcached,
    }
}
