//! The life of containers: made, used, stopped, destroyed, and taken over by the next daemon.
//!
//! All calls block. Containers are independent: no lock is held across a slow step of one that
//! another could wait for.

mod archive;
mod census;
mod cleanup;
mod create;
mod destroy;
mod pea;
mod restore;
mod run;
mod usage;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use garden_api::{
    Capacity, ContainerInfo, ContainerState, CpuLimits, DiskLimits, Limits, MemoryLimits,
    NetOutRule, PortMapping, Properties,
};
use garden_seccomp::Filter;
use garden_sys::supervisor::Supervisor;
use tokio::runtime::Handle;

pub use archive::{Helper, Packing, Unpacking};

use crate::claim::Claim;
use crate::config::Config;
use crate::container::{Call, Container};
use crate::depot::{Depot, Phase};
use crate::error::Error;
use crate::exits::Exits;
use crate::identity;
use crate::image::ImagePlugins;
use crate::leavings::Leavings;
use crate::network::{self, Network};
use crate::pool::{Maker, Pool};
use crate::volumes::Volumes;

pub(crate) use cleanup::processes_of;
pub(crate) use restore::CGROUPS;

/// Property that says whether a container is ready to be seen.
const STATE: &str = "garden.state";
/// Property that holds the grace time in nanoseconds.
const GRACE_TIME: &str = "garden.grace-time";

/// A Garden without its server.
#[derive(Debug)]
pub struct Gardener {
    config: Config,
    depot: Depot,
    _claims: [Claim; 2],
    supervisor: Arc<Supervisor>,
    exits: Arc<Exits>,
    maker: Arc<Maker>,
    pool: Pool,
    leavings: Leavings,
    volumes: Arc<Volumes>,
    /// They make roots instead of `volumes`, if there are any.
    images: Option<ImagePlugins>,
    network: Arc<Network>,
    seccomp: Filter,
    own_bounds: u64,
    /// This executable, for what runs inside containers on our behalf.
    own_image: OwnedFd,
    memory_watch: usage::MemoryWatch,
    containers: Mutex<BTreeMap<String, Arc<Container>>>,
    /// The daemon is about to end: what its clients leave is left to the next one.
    leaving: AtomicBool,
    runtime: Handle,
}

impl Gardener {
    fn containers(&self) -> MutexGuard<'_, BTreeMap<String, Arc<Container>>> {
        self.containers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn find(&self, handle: &str) -> Result<Arc<Container>, Error> {
        self.containers()
            .get(handle)
            .cloned()
            .ok_or_else(|| Error::ContainerNotFound(handle.to_owned()))
    }

    /// A container and the call on it, during which its grace time stands still.
    fn call(&self, handle: &str) -> Result<(Arc<Container>, Call), Error> {
        let container = self.find(handle)?;
        let call = container.call();
        Ok((container, call))
    }

    /// Holds a container's grace time still for as long as the answer lives.
    pub fn hold(&self, handle: &str) -> Result<Call, Error> {
        self.call(handle).map(|(_, call)| call)
    }

    /// What this Garden can hold. Its disk is that of the store, where containers write; the depot
    /// usually is in memory. How much of it they may have is an image plugin's to say.
    pub fn capacity(&self) -> Result<Capacity, Error> {
        let memory = rustix::system::sysinfo();
        let disk = rustix::fs::statvfs(&self.config.store).map_err(|errno| {
            Error::because("cannot look at the store's file system", &std::io::Error::from(errno))
        })?;
        let disk = disk.f_blocks.saturating_mul(disk.f_frsize);
        let schedulable = match self.images.as_ref().map(ImagePlugins::capacity) {
            Some(Ok(Some(capacity))) => capacity,
            Some(Err(error)) => {
                tracing::warn!(%error, "the capacity is told as that of the store's file system");
                disk
            }
            None | Some(Ok(None)) => disk,
        };
        Ok(Capacity {
            memory_in_bytes: memory.totalram * u64::from(memory.mem_unit),
            disk_in_bytes: disk,
            schedulable_disk_in_bytes: schedulable,
            max_containers: self.most_containers(),
        })
    }

    fn most_containers(&self) -> u64 {
        let (subnets, most) = (self.network.capacity(), self.config.max_containers);
        if most == 0 { subnets } else { most.min(subnets) }
    }

    /// Handles of containers that have all these properties. Half-made ones are seen only by who
    /// filters on `garden.state`, where `all` means any.
    pub fn list(&self, filter: &Properties) -> Vec<String> {
        let containers: Vec<_> = self.containers().values().cloned().collect();
        let state = filter.get(STATE).map(String::as_str);
        let wanted = |container: &Container| {
            let visible = match state {
                Some("all") => true,
                Some(state) => container
                    .look(|record| record.properties.get(STATE).map(String::as_str) == Some(state)),
                None => container.is_created(),
            };
            visible
                && container.look(|record| {
                    filter
                        .iter()
                        .filter(|(key, _)| *key != STATE)
                        .all(|(key, value)| record.properties.get(key) == Some(value))
                })
        };
        containers
            .iter()
            .filter(|container| wanted(container))
            .map(|container| container.handle.clone())
            .collect()
    }

    /// What a client may know about a container.
    pub fn info(&self, handle: &str) -> Result<ContainerInfo, Error> {
        let (container, _call) = self.call(handle)?;
        Ok(self.info_of(&container))
    }

    /// As [`Self::info`], without a pause of the container's grace time: whoever watches all
    /// containers keeps none of them alive.
    pub fn info_untouched(&self, handle: &str) -> Result<ContainerInfo, Error> {
        Ok(self.info_of(&*self.find(handle)?))
    }

    fn info_of(&self, container: &Container) -> ContainerInfo {
        let record = container.record();
        let address = |key: &str| record.properties.get(key).cloned().unwrap_or_default();
        ContainerInfo {
            state: Some(if record.phase == Phase::Stopped {
                ContainerState::Stopped
            } else {
                ContainerState::Active
            }),
            events: record.events.clone(),
            host_ip: address("garden.network.host-ip"),
            container_ip: address("garden.network.container-ip"),
            container_ipv6: address("garden.network.container-ipv6"),
            external_ip: address("garden.network.external-ip"),
            container_path: self.depot.directory(&container.handle).display().to_string(),
            process_ids: Vec::new(),
            mapped_ports: Some(record.ports),
            properties: record.properties,
        }
    }

    /// All properties.
    pub fn properties(&self, handle: &str) -> Result<Properties, Error> {
        let (container, _call) = self.call(handle)?;
        Ok(container.look(|record| record.properties.clone()))
    }

    /// One property.
    pub fn property(&self, handle: &str, key: &str) -> Result<String, Error> {
        let (container, _call) = self.call(handle)?;
        container
            .look(|record| record.properties.get(key).cloned())
            .ok_or_else(|| Error::Plain(format!("property does not exist: {key}")))
    }

    /// Sets a property.
    pub fn set_property(&self, handle: &str, key: &str, value: &str) -> Result<(), Error> {
        let (container, _call) = self.call(handle)?;
        container.change(&self.depot, |record| {
            drop(record.properties.insert(key.to_owned(), value.to_owned()))
        })
    }

    /// Removes a property; one that does not exist is no error.
    pub fn remove_property(&self, handle: &str, key: &str) -> Result<(), Error> {
        let (container, _call) = self.call(handle)?;
        container.change(&self.depot, |record| drop(record.properties.remove(key)))
    }

    /// Sets after which time without calls the container is destroyed; zero is never.
    pub fn set_grace_time(&self, handle: &str, time: Duration) -> Result<(), Error> {
        let container = self.find(handle)?;
        container.change(&self.depot, |record| {
            drop(record.properties.insert(GRACE_TIME.into(), time.as_nanos().to_string()));
        })?;
        container.set_grace_time(time);
        Ok(())
    }

    /// The limits as they were asked for, CPU in shares.
    pub fn limits(&self, handle: &str) -> Result<Limits, Error> {
        let (container, _call) = self.call(handle)?;
        Ok(container.look(|record| record.spec.limits))
    }

    /// The disk limits as they were asked for, and whether writing beyond them fails.
    pub fn disk_limits(&self, handle: &str) -> Result<(DiskLimits, bool), Error> {
        let (container, _call) = self.call(handle)?;
        // A plugin was told of them.
        Ok(container.look(|record| (record.spec.limits.disk, record.made_image)))
    }

    /// CPU limits as the original reports them: the weight on a v2 host, the shares elsewhere, and
    /// none for a container that was given none.
    pub fn cpu_limits(&self, handle: &str) -> Result<CpuLimits, Error> {
        let shares = self.limits(handle)?.cpu.shares();
        let value = if shares == 0 || self.maker.hierarchy.is_hybrid() {
            shares
        } else {
            garden_cgroup::cpu_weight(shares)
        };
        Ok(CpuLimits { weight: 0, limit_in_shares: value })
    }

    /// The memory limit.
    pub fn memory_limits(&self, handle: &str) -> Result<MemoryLimits, Error> {
        Ok(self.limits(handle)?.memory)
    }

    /// Maps a port of the host to one of the container; 0 means to choose, or the same.
    pub fn net_in(
        &self,
        handle: &str,
        host_port: u32,
        container_port: u32,
    ) -> Result<(u32, u32), Error> {
        let (container, _call) = self.call(handle)?;
        let (host_port, container_port) =
            self.network.net_in(&container, host_port, container_port)?;
        let state = self.network.state(&container);
        let written = container.change(&self.depot, |record| {
            record.ports.push(PortMapping { host_port, container_port });
            let ports = network::mapped_ports(&record.ports);
            record.properties.insert(network::MAPPED_PORTS.into(), ports);
            record.network = state;
        });
        match written {
            Ok(()) => Ok((host_port, container_port)),
            Err(error) => {
                self.network.take_net_in_back(&container.handle, (host_port, container_port));
                Err(error)
            }
        }
    }

    /// Allows traffic out of the container.
    pub fn net_out(&self, handle: &str, rule: &NetOutRule) -> Result<(), Error> {
        let (container, _call) = self.call(handle)?;
        self.network.net_out(&container, rule)?;
        self.note_rules(&container, std::slice::from_ref(rule))
    }

    /// The same for several rules, of which all or none apply.
    pub fn bulk_net_out(&self, handle: &str, rules: &[NetOutRule]) -> Result<(), Error> {
        let (container, _call) = self.call(handle)?;
        self.network.bulk_net_out(&container, rules)?;
        self.note_rules(&container, rules)
    }

    fn note_rules(&self, container: &Container, rules: &[NetOutRule]) -> Result<(), Error> {
        let state = self.network.state(container);
        container
            .change(&self.depot, |record| record.network = state)
            .inspect_err(|_| self.network.take_net_out_back(&container.handle, rules))
    }

    /// Destroys containers whose grace time is over; how long until the next may be.
    pub fn reap_unused(self: &Arc<Self>) -> Duration {
        const LONGEST: Duration = Duration::from_millis(500);
        let containers: Vec<_> = self.containers().values().cloned().collect();
        let mut next = LONGEST;
        for container in containers {
            match container.grace_left() {
                Some(Duration::ZERO) if container.is_created() => {
                    tracing::info!(handle = container.handle, "grace time is over");
                    if let Err(error) = self.destroy(&container.handle) {
                        tracing::warn!(handle = container.handle, %error, "an unused container is not destroyed");
                    }
                }
                Some(left) if !left.is_zero() => next = next.min(left),
                _ => {}
            }
        }
        next
    }

    /// From now on clients go because the daemon does, which ends nobody's input, and what processes
    /// write is left to the next daemon.
    pub fn keep_streams(&self) {
        self.leaving.store(true, Ordering::SeqCst);
        let containers: Vec<_> = self.containers().values().cloned().collect();
        for process in containers.iter().flat_map(|container| container.processes()) {
            for (stream, unheard) in process.hold().into_iter().enumerate() {
                let kept = self.supervisor.give_back(process.ticket(), stream, &unheard);
                if let Err(error) = kept {
                    tracing::warn!(process = process.id(), %error, "output that nobody has heard is lost");
                }
            }
        }
    }

    /// Parts from the containers, which run on. What was parked is removed.
    pub fn leave(&self) {
        self.keep_streams();
        self.pool.close();
        self.leavings.close();
    }

    /// Destroys every container and removes what the Garden itself has made on the host.
    pub fn raze(&self) -> Result<(), Error> {
        let mut errors = Vec::new();
        for handle in self.list(&[(STATE.to_owned(), "all".to_owned())].into()) {
            match self.destroy_for_certain(&handle) {
                Ok(()) | Err(Error::ContainerNotFound(_)) => {}
                Err(error) => errors.push(format!("{handle}: {error}")),
            }
        }
        self.leave();
        self.maker.remove_stray_slots();
        if !errors.is_empty() {
            return Err(Error::Plain(format!("not destroyed: {}", errors.join("; "))));
        }
        self.network.raze()?;
        self.maker
            .hierarchy
            .remove_root()
            .map_err(|error| Error::because("cannot remove the cgroup", &error))
    }

    fn surroundings<'a>(
        &'a self,
        record: &'a crate::depot::Record,
    ) -> crate::command::Surroundings<'a> {
        let privileged = record.spec.privileged;
        crate::command::Surroundings {
            environment: record
                .image_env
                .iter()
                .chain(&record.spec.env)
                .map(String::as_str)
                .collect(),
            bounds: identity::bounds(privileged, self.own_bounds),
            seccomp: (!privileged).then_some(&self.seccomp),
            no_new_privileges: self.config.no_new_privileges && !privileged,
            apparmor: self.config.apparmor.as_deref().filter(|_| !privileged),
        }
    }
}
