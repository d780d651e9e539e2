//! Making a container.

use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use garden_api::{ContainerSpec, ImageRef, Limits};
use garden_cgroup::{CpuQuota, Slot};

use super::{GRACE_TIME, Gardener, STATE};
use crate::bundle::{self, Wishes};
use crate::container::{Body, Container, Init};
use crate::depot::{self, Phase, Record};
use crate::dropsonde;
use crate::error::Error;
use crate::fault;
use crate::image::{self, Made, Wanted};
use crate::leavings::Leaving;
use crate::meters::METERS;
use crate::network::Connection;
use crate::pool::Unit;
use crate::root::{attachments, bind_mounts, name_files};
use crate::volumes::Image;

impl Gardener {
    /// Makes a container and answers its handle. On an error nothing is left of it.
    pub fn create(&self, spec: ContainerSpec) -> Result<String, Error> {
        let begun = Instant::now();
        let created = METERS.creates.time(|| self.create_by(spec));
        dropsonde::tell_time("ContainerCreationDuration", begun.elapsed());
        created
    }

    fn create_by(&self, mut spec: ContainerSpec) -> Result<String, Error> {
        if spec.handle.is_empty() {
            spec.handle = uuid::Uuid::new_v4().to_string();
        }
        let handle = spec.handle.clone();
        self.check(&spec)?;
        // For whoever fetches the image; it is not written down.
        let password = std::mem::take(&mut spec.image.password);
        let container = self.enter(spec)?;
        fault::step("create/record-written");
        match self.make(&container, password) {
            Ok(()) => {
                container.settle();
                Ok(handle)
            }
            Err(error) => {
                container.give_up();
                if let Err(left) = self.undo(&container) {
                    container.fail_destroy();
                    tracing::warn!(handle, %left, "what is left of a failed create is not removed");
                }
                Err(error)
            }
        }
    }

    fn check(&self, spec: &ContainerSpec) -> Result<(), Error> {
        depot::check_handle(&spec.handle).map_err(Error::Plain)?;
        if !spec.image.uri.is_empty() && !spec.rootfs.is_empty() {
            return Err(Error::Plain("Cannot provide both Image.URI and RootFSPath".into()));
        }
        if let Some(variable) = spec.env.iter().find(|variable| variable.contains('\0')) {
            return Err(Error::Plain(format!(
                "an environment variable contains a NUL byte: {variable:?}"
            )));
        }
        if spec.privileged && self.config.disable_privileged {
            return Err(Error::Plain("privileged container creation is disabled".into()));
        }
        Ok(())
    }

    /// Takes the handle, in memory and in the depot.
    fn enter(&self, spec: ContainerSpec) -> Result<Arc<Container>, Error> {
        let handle = spec.handle.clone();
        let grace_time = spec.grace_time.as_duration().unwrap_or(self.config.default_grace_time);
        let record = Record {
            version: depot::VERSION,
            phase: Phase::Creating,
            init: 0,
            slot: 0,
            volume: 0,
            made_image: self.images.is_some() && image::raw(named(&spec)).is_none(),
            image_size: 0,
            created: nanoseconds_since_epoch(),
            image_env: Vec::new(),
            network: self.network.promised(),
            ports: Vec::new(),
            properties: spec.properties.clone(),
            events: Vec::new(),
            processes: std::collections::BTreeMap::new(),
            spec,
        };
        let container = Arc::new(Container::new(record, grace_time));
        {
            let mut containers = self.containers();
            if containers.contains_key(&handle) {
                return Err(Error::Plain(format!("Handle '{handle}' already in use")));
            }
            let max = self.config.max_containers;
            if max > 0 && containers.len() as u64 >= max {
                return Err(Error::Plain("max containers reached".into()));
            }
            containers.insert(handle.clone(), Arc::clone(&container));
        }
        fault::step("create/entered");
        if let Err(error) = container.look(|record| self.depot.add(record)) {
            let _ = container.forget(&self.depot);
            self.containers().remove(&handle);
            return Err(Error::because("cannot write down the container", &error));
        }
        let unlimited =
            |record: &Record| record.made_image || record.spec.limits.disk.byte_hard == 0;
        if !container.look(unlimited) {
            tracing::warn!(handle, "the disk limit is not enforced");
        }
        Ok(container)
    }

    fn make(&self, container: &Arc<Container>, password: String) -> Result<(), Error> {
        let spec = container.look(|record| record.spec.clone());
        let image = self.image(&spec, password)?;
        fault::step("create/image-ready");
        let mut unit = self.pool.take(spec.privileged, &image)?;
        fault::step("create/unit-taken");
        let connection = match self.furnish(&spec, &mut unit, &image) {
            Ok(connection) => connection,
            Err(error) => {
                self.maker.discard(unit);
                return Err(error);
            }
        };
        let Unit { number, init, slot, volume, .. } = unit;
        let (ticket, slot) = (init.ticket, Arc::new(slot));
        let body = Body {
            init: Init { ticket, pid: init.pid, pidfd: Arc::clone(&init.pidfd) },
            slot: Arc::clone(&slot),
            volume: volume.number,
        };
        self.watch_memory(&slot, container);
        // From here on a failure is the destroyer's to clean up.
        container.embody(body);
        init.commit().map_err(|error| Error::because("cannot start the container", &error))?;
        fault::step("create/committed");
        let grace_time = container.grace_time();
        container.change(&self.depot, |record| {
            record.init = ticket;
            record.slot = number;
            record.volume = volume.number;
            record.image_env = image.environment;
            record.image_size = image.size;
            record.network = connection.state;
            record.ports = connection.ports;
            record.properties.extend(connection.properties);
            if !grace_time.is_zero() {
                record.properties.insert(GRACE_TIME.into(), grace_time.as_nanos().to_string());
            }
            record.properties.insert(STATE.into(), "created".into());
            record.phase = Phase::Created;
        })?;
        container.set_grace_time(grace_time);
        fault::step("create/saved");
        Ok(())
    }

    /// What the container is to stand on, made by a plugin if there are any.
    fn image(&self, spec: &ContainerSpec, password: String) -> Result<Image, Error> {
        let reference = named(spec);
        let Some(plugins) = &self.images else { return self.volumes.image(reference) };
        if let Some(root) = image::raw(reference) {
            return Ok(Made { root: root.into(), ..Made::default() }.into());
        }
        let username = spec.image.username.clone();
        let image = &ImageRef { uri: reference.to_owned(), username, password };
        let (handle, limits) = (spec.handle.as_str(), spec.limits.disk);
        let directory = &self.depot.image(handle);
        let wanted = Wanted { handle, image, directory, privileged: spec.privileged, limits };
        plugins.create(&wanted).map(Image::from)
    }

    /// Gives a unit its limits, its network and its root; answers its network.
    fn furnish(
        &self,
        spec: &ContainerSpec,
        unit: &mut Unit,
        image: &Image,
    ) -> Result<Connection, Error> {
        self.limit(&unit.slot, &spec.limits)?;
        fault::step("create/limited");
        let connection = self.network.connect(spec, unit)?;
        fault::step("create/networked");

        unit.volume.write("hosts", &connection.hosts)?;
        unit.volume.write("resolv.conf", &connection.resolv_conf)?;
        fault::step("create/names-written");
        let (binds, names) = (bind_mounts(&spec.bind_mounts)?, name_files(&unit.volume)?);
        let wishes = Wishes {
            hostname: Some(bundle::hostname(&spec.handle).to_owned()),
            binds: [attachments(&binds), attachments(&names)].concat(),
        };
        let spent = self.maker.build(unit, image, &wishes)?;
        if !spent.is_empty() {
            self.leavings.put(Leaving { mounts: spent, ..Leaving::default() });
        }
        fault::step("create/root-built");
        Ok(connection)
    }

    /// Writes limits. What this host cannot enforce was warned of at the start.
    pub(super) fn limit(&self, slot: &Slot, limits: &Limits) -> Result<(), Error> {
        let given = |value: u64| (value > 0).then_some(value);
        let shares = given(limits.cpu.shares());
        let quota = self.config.cpu_quota_per_share;
        let wanted = garden_cgroup::Limits {
            memory: given(limits.memory.limit_in_bytes),
            swap_counts: !self.config.disable_swap_limit,
            cpu_shares: shares,
            cpu_quota: shares
                .filter(|_| quota > 0)
                .map(|shares| CpuQuota::for_shares(shares, quota)),
            pids: given(limits.pid.max),
        };
        let missing = slot
            .limit(&wanted)
            .map_err(|error| Error::because("cannot limit the container", &error))?;
        if !missing.is_empty() {
            tracing::debug!(slot = slot.number(), ?missing, "limits that this host cannot enforce");
        }
        Ok(())
    }
}

/// Its image's reference.
fn named(spec: &ContainerSpec) -> &str {
    if spec.image.uri.is_empty() { &spec.rootfs } else { &spec.image.uri }
}

pub(super) fn nanoseconds_since_epoch() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
