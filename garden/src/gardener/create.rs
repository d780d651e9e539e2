//! Making a container.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use garden_api::{BindMountMode, ContainerSpec, Limits};
use garden_cgroup::{CpuQuota, Slot};
use garden_sys::mounts::{self, Access};

use super::{GRACE_TIME, Gardener, STATE};
use crate::bundle::{self, Attachment, Bundle};
use crate::container::{Body, Container, Init};
use crate::depot::{self, Phase, Record};
use crate::error::Error;
use crate::fault;
use crate::identity::MAPPED_ROOT;
use crate::pool::Unit;
use crate::volumes::Image;

/// How long process 1 may take to build the root; a bind mount of a dead network file system is
/// the slow part.
const SETUP_PATIENCE: Duration = Duration::from_secs(30);

impl Gardener {
    /// Makes a container and answers its handle. On an error nothing is left of it.
    pub fn create(&self, mut spec: ContainerSpec) -> Result<String, Error> {
        if spec.handle.is_empty() {
            spec.handle = uuid::Uuid::new_v4().to_string();
        }
        let handle = spec.handle.clone();
        self.check(&spec)?;
        let container = self.enter(spec)?;
        fault::step("create/record-written");
        match self.make(&container) {
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
        if spec.privileged && self.config.disable_privileged {
            return Err(Error::Plain("privileged container creation is disabled".into()));
        }
        if spec.limits.disk.byte_hard > 0 {
            tracing::warn!(handle = spec.handle, "the disk limit is not enforced");
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
            stopped: false,
            init: 0,
            slot: 0,
            created: nanoseconds_since_epoch(),
            image_env: Vec::new(),
            network: serde_json::Value::Null,
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
        Ok(container)
    }

    fn make(&self, container: &Arc<Container>) -> Result<(), Error> {
        let spec = container.look(|record| record.spec.clone());
        let named = if spec.image.uri.is_empty() { &spec.rootfs } else { &spec.image.uri };
        let image = self.volumes.image(named)?;
        fault::step("create/image-ready");
        let unit = self.pool.take(spec.privileged)?;
        fault::step("create/unit-taken");
        let made = self.furnish(container, &spec, &unit, &image);
        if let Err(error) = made {
            self.maker.discard(unit);
            return Err(error);
        }
        let Unit { number, init, slot, .. } = unit;
        let (ticket, slot) = (init.ticket, Arc::new(slot));
        let body = Body {
            init: Init { ticket, pid: init.pid, pidfd: Arc::clone(&init.pidfd) },
            slot: Arc::clone(&slot),
        };
        self.watch_memory(&slot, container);
        // From here on a failure is the destroyer's to clean up.
        container.embody(body);
        init.commit().map_err(|error| Error::because("cannot start the container", &error))?;
        fault::step("create/committed");
        let state = self.network.state(&container.handle);
        let addresses = self.network.properties(&container.handle);
        let grace_time = container.grace_time();
        container.change(&self.depot, |record| {
            record.init = ticket;
            record.slot = number;
            record.image_env = image.environment;
            record.network = state;
            record.properties.extend(addresses);
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

    /// Gives a unit its limits, its network and its root.
    fn furnish(
        &self,
        container: &Arc<Container>,
        spec: &ContainerSpec,
        unit: &Unit,
        image: &Image,
    ) -> Result<(), Error> {
        self.limit(&unit.slot, &spec.limits)?;
        fault::step("create/limited");
        self.network.attach(&spec.handle, unit, &spec.network)?;
        for port in &spec.net_in {
            self.map_port(container, port.host_port, port.container_port)?;
        }
        self.network.net_out(&spec.handle, &spec.net_out)?;
        fault::step("create/networked");

        let users = if spec.privileged {
            None
        } else {
            let users = unit.init.namespace("user");
            Some(users.map_err(|error| {
                Error::because("cannot reach the container's user namespace", &error)
            })?)
        };
        let root = self.volumes.create(&spec.handle, image, users.as_ref().map(AsFd::as_fd))?;
        fault::step("create/volume-made");
        let names = self.name_files(container, spec.privileged)?;
        fault::step("create/names-made");
        let binds = bind_mounts(spec)?;
        let cgroups = if spec.privileged { Vec::new() } else { cgroup_views(&unit.slot)? };

        let bundle = Bundle {
            hostname: bundle::hostname(&spec.handle).to_owned(),
            root: root.as_fd(),
            dev: unit.dev.as_fd(),
            cgroups: attachments(&cgroups),
            many_hierarchies: self.maker.hierarchy.is_hybrid(),
            binds: attachments(&binds).into_iter().chain(attachments(&names)).collect(),
            masked: !spec.privileged,
            open_ping: self.config.no_new_privileges && !spec.privileged,
        };
        let (plan, descriptors) = bundle.plan()?;
        let plan = plan
            .seal()
            .map_err(|error| Error::because("cannot write the plan of a root", &error))?;
        let built = unit
            .init
            .setup(plan.as_fd(), &descriptors, SETUP_PATIENCE)
            .map_err(|error| Error::because("cannot build the container's root", &error))?;
        built.map_err(|failure| {
            let reason = std::io::Error::from_raw_os_error(failure.errno);
            let (step, part) = (failure.step, bundle.part(failure.detail));
            Error::Plain(format!("cannot build the container's root: {step:?} of {part}: {reason}"))
        })?;
        fault::step("create/root-built");
        Ok(())
    }

    /// Writes limits, and warns once about what this host cannot do.
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

    /// `/etc/hosts` and `/etc/resolv.conf`, as files of the container's root.
    fn name_files(
        &self,
        container: &Container,
        privileged: bool,
    ) -> Result<Vec<(OwnedFd, String, bool)>, Error> {
        let directory = self.depot.directory(&container.handle);
        let owner = if privileged { 0 } else { MAPPED_ROOT };
        let files = [
            ("hosts", self.network.hosts(&container.handle)),
            ("resolv.conf", self.network.resolv_conf(&container.handle)),
        ];
        let mut mounts = Vec::with_capacity(files.len());
        for (name, content) in files {
            let path = directory.join(name);
            let made = fs::write(&path, content)
                .and_then(|()| std::os::unix::fs::chown(&path, Some(owner), Some(owner)))
                .and_then(|()| mounts::bind(&path, Access { inert: true, ..Access::default() }));
            let mount = made.map_err(|error| {
                Error::because(format!("cannot make {}", path.display()), &error)
            })?;
            mounts.push((mount, format!("/etc/{name}"), true));
        }
        Ok(mounts)
    }
}

fn attachments(mounts: &[(OwnedFd, String, bool)]) -> Vec<Attachment<'_>> {
    mounts
        .iter()
        .map(|(mount, target, file)| Attachment {
            mount: mount.as_fd(),
            target: target.clone(),
            file: *file,
        })
        .collect()
}

fn bind_mounts(spec: &ContainerSpec) -> Result<Vec<(OwnedFd, String, bool)>, Error> {
    let mut mounts = Vec::with_capacity(spec.bind_mounts.len());
    for bind in &spec.bind_mounts {
        if !bind.dst_path.starts_with('/') {
            return Err(Error::Plain(format!(
                "bind mount target {:?} is not an absolute path",
                bind.dst_path
            )));
        }
        if bind.dst_path.split('/').all(|name| matches!(name, "" | ".")) {
            return Err(Error::Plain(format!(
                "bind mount target {:?} is the container's root",
                bind.dst_path
            )));
        }
        let source = Path::new(&bind.src_path);
        let access = Access {
            read_only: bind.mode == BindMountMode::ReadOnly,
            inert: false,
            recursive: true,
        };
        let made = fs::metadata(source)
            .and_then(|kind| Ok((mounts::bind(source, access)?, !kind.is_dir())));
        let (mount, file) = made.map_err(|error| {
            Error::because(format!("cannot bind mount {}", bind.src_path), &error)
        })?;
        mounts.push((mount, bind.dst_path.clone(), file));
    }
    Ok(mounts)
}

/// Read-only views of the container's own cgroups.
fn cgroup_views(slot: &Slot) -> Result<Vec<(OwnedFd, String, bool)>, Error> {
    let mut mounts = Vec::new();
    for (name, path) in slot.views() {
        let access = Access { read_only: true, inert: true, recursive: false };
        let mount = mounts::bind(&path, access).map_err(|error| {
            Error::because(format!("cannot show the cgroup {}", path.display()), &error)
        })?;
        let target = if name.is_empty() {
            "/sys/fs/cgroup".to_owned()
        } else {
            format!("/sys/fs/cgroup/{name}")
        };
        mounts.push((mount, target, false));
    }
    Ok(mounts)
}

fn nanoseconds_since_epoch() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}
