//! Starting: what an earlier daemon left is taken over, or removed.

use std::collections::{BTreeSet, HashSet};
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use garden_cgroup::{DeviceFilter, Hierarchy, garden_default_devices};
use garden_seccomp::garden_default;
use garden_sys::mounts::{self, Access};
use garden_sys::program::PROGRAM;
use garden_sys::supervisor::Error::Incomplete;
use garden_sys::supervisor::{Exit, Supervisor};
use rustix::process::{Pid, Signal, pidfd_send_signal};
use tokio::runtime::Handle;

use super::destroy::UNKILLABLE;
use super::{GRACE_TIME, Gardener};
use crate::apparmor;
use crate::claim::{self, Claim, PATIENCE};
use crate::config::Config;
use crate::container::{Body, Container, Init};
use crate::depot::{Depot, ExitRecord, Phase, Record};
use crate::error::Error;
use crate::exits::Exits;
use crate::identity;
use crate::image::ImagePlugins;
use crate::leavings::Leavings;
use crate::network::{self, Network};
use crate::pool::{Maker, Pool};
use crate::process::Process;
use crate::volumes::Volumes;
use rootfs::reference::References;

/// Where cgroups are.
pub(crate) const CGROUPS: &str = "/sys/fs/cgroup";

impl Gardener {
    /// Starts a Garden: takes over the containers of an earlier one, and removes what is nobody's.
    pub fn start(config: Config, runtime: Handle) -> Result<Arc<Self>, Error> {
        claim::apart([
            ("--depot", &config.depot),
            ("--keeper-dir", &config.run),
            ("--store", &config.store),
        ])?;
        if let Some(profile) = &config.apparmor {
            apparmor::require(profile)?;
        }
        let depot = Depot::open(&config.depot)
            .map_err(|error| Error::because("cannot open the depot", &error))?;
        let exits = Arc::new(Exits::default());
        let listener = Arc::clone(&exits);
        // Before anything is changed: a daemon that is too old for the records must not start.
        let records = read_records(&depot)?;
        check_networks(&records, config.network_plugin.is_some())?;
        let plugins = config.image_plugin.is_some() || config.privileged_image_plugin.is_some();
        check_images(&records, plugins)?;
        let depot_path = fs::canonicalize(&config.depot).map_err(|error| {
            Error::because(format!("cannot resolve {}", config.depot.display()), &error)
        })?;
        let hierarchy = claim_tag(&config, &depot_path)?;
        // Before anything is asked of a plugin, or what it was asked before might be done after.
        if let Err(error) = hierarchy.end_plugin_runs(UNKILLABLE) {
            tracing::warn!(%error, "a plugin that an earlier daemon has started does not end");
        }
        let keeper_dir = Claim::take(&config.run, "--keeper-dir", &depot_path)?;
        let store = Claim::take(&config.store, "--store", &depot_path)?;
        let images = ImagePlugins::new(&config, &hierarchy)?;
        let references = match images {
            Some(_) => References::default(),
            None => References {
                default: config.default_rootfs.clone(),
                aliases: config.image_aliases.clone(),
            },
        };
        let volumes = Arc::new(Volumes::open(&config.store, references, config.shift_by_copy)?);
        store.settle(!volumes.list()?.is_empty())?;
        let home = hierarchy.clone();
        let house = move |pid| {
            let pid = Pid::from_raw(pid).ok_or(std::io::ErrorKind::NotFound)?;
            home.house(pid).map_err(std::io::Error::other)
        };
        let supervisor =
            Supervisor::attach(&config.run, house, move |ended| listener.report(ended))
                .map_err(|error| Error::because("cannot reach the keeper", &error))?;
        let children = supervisor
            .children()
            .map_err(|error| Error::because("cannot ask the keeper what it has", &error))?;
        keeper_dir.settle(!children.is_empty())?;
        let supervisor = Arc::new(supervisor);
        bring_up_to_date(&supervisor);

        for lack in hierarchy.lacks() {
            tracing::warn!(?lack, "this host cannot enforce all limits");
        }
        let network = Arc::new(Network::start(&config, &hierarchy)?);
        let (number, ticket) = next_numbers(&records, &supervisor, &hierarchy, &volumes)?;
        let maker = Arc::new(Maker {
            supervisor: Arc::clone(&supervisor),
            hierarchy,
            devices: DeviceFilter::new(garden_default_devices())
                .map_err(|error| Error::because("cannot compile the device policy", &error))?,
            network: Arc::clone(&network),
            volumes: Arc::clone(&volumes),
            no_new_privileges: config.no_new_privileges,
            numbers: AtomicU32::new(number),
            tickets: AtomicU64::new(ticket),
            stray_slots: Mutex::default(),
        });
        let own_bounds = identity::own_bounds()
            .map_err(|error| Error::because("cannot read the daemon's capabilities", &error))?;
        let missing = identity::missing(own_bounds);
        if !missing.is_empty() {
            tracing::warn!(
                ?missing,
                "privileged containers lack capabilities that this daemon has not"
            );
        }
        let seccomp = garden_default()
            .compile()
            .map_err(|error| Error::because("cannot compile the seccomp profile", &error))?;
        let own_image = image_of(&config.own_program)?;
        let pool = Pool::start(Arc::clone(&maker), 0)
            .map_err(|error| Error::because("cannot start the pool's thread", &error))?;
        let gardener = Arc::new(Self {
            config,
            depot,
            _claims: [keeper_dir, store],
            supervisor,
            exits,
            leavings: Leavings::start(Arc::clone(&maker))?,
            maker,
            pool,
            volumes,
            images,
            network,
            seccomp,
            own_bounds,
            own_image,
            memory_watch: super::usage::MemoryWatch::new()?,
            containers: Mutex::default(),
            leaving: AtomicBool::new(false),
            runtime,
        });
        gardener.begin(records).inspect_err(|_| gardener.leave())?;
        Ok(gardener)
    }

    /// Takes up what is there. Where that fails the containers are to be parted from again: the next
    /// daemon gets what has been read of their output.
    fn begin(self: &Arc<Self>, records: Vec<(String, Option<Record>)>) -> Result<(), Error> {
        self.restore(records)?;
        // Or its children and cgroups would go while they are counted as strays.
        self.leavings.settle();
        self.remove_strays()?;
        self.volumes.foresee()?;
        self.pool.resize(self.config.pool);
        self.start_chores()
    }

    fn restore(self: &Arc<Self>, records: Vec<(String, Option<Record>)>) -> Result<(), Error> {
        let mut left = Vec::new();
        for (handle, record) in records {
            let Some(record) = record else {
                if let Err(error) = self.network.destroy(&handle) {
                    tracing::warn!(handle, %error, "a broken record is left for the next start");
                    continue;
                }
                self.depot
                    .remove(&handle)
                    .map_err(|error| Error::because("cannot remove a broken record", &error))?;
                continue;
            };
            let acknowledged = matches!(record.phase, Phase::Created | Phase::Stopped);
            let whole = acknowledged && !self.config.destroy_on_start;
            let grace_time = record.properties.get(GRACE_TIME).and_then(|text| text.parse().ok());
            let grace_time = grace_time.map_or(Duration::ZERO, Duration::from_nanos);
            let container = Arc::new(Container::new(record.clone(), grace_time));
            self.containers().insert(handle.clone(), Arc::clone(&container));
            let taken = whole && self.take_over(&container, &record).map_err(|error| {
                Error::because(
                    format!(
                        "cannot take over container {handle}, which is as it was (mend this and start \
                         again, or remove all containers with `bloomery garden cleanup`)"
                    ),
                    &error,
                )
            })?;
            if taken {
                container.settle();
                tracing::info!(handle, "taken over");
                continue;
            }
            tracing::info!(handle, "removing what an earlier daemon left");
            container.give_up();
            left.push(container);
        }
        self.remove_left(left);
        Ok(())
    }

    /// Removes what cannot be taken over, several at a time: one that takes long, because of a
    /// network plugin for example, is not to hold up the start by all of them.
    fn remove_left(&self, left: Vec<Arc<Container>>) {
        const AT_ONCE: usize = 8;
        let workers = AT_ONCE.min(left.len());
        let left = Mutex::new(left.into_iter());
        let next = || left.lock().unwrap_or_else(PoisonError::into_inner).next();
        let work = || {
            while let Some(container) = next() {
                if let Err(error) = self.undo(&container) {
                    container.fail_destroy();
                    let handle = container.handle.as_str();
                    tracing::warn!(handle, %error, "what an earlier daemon left is not removed");
                }
            }
        };
        std::thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
    }

    /// Takes a container over; `false` when its process 1 is gone.
    fn take_over(
        self: &Arc<Self>,
        container: &Arc<Container>,
        record: &Record,
    ) -> Result<bool, Error> {
        let unreachable =
            |error: garden_sys::supervisor::Error| Error::because("cannot reach process 1", &error);
        let Some(init) = self.supervisor.child(record.init).map_err(unreachable)? else {
            return Ok(false);
        };
        if init.exit.is_some() {
            return Ok(false);
        }
        let (_, pidfd) = self.supervisor.take(record.init).map_err(unreachable)?;
        let slot = self
            .maker
            .hierarchy
            .open(record.slot)
            .map_err(|error| Error::because("cannot open the container's cgroup", &error))?;
        let slot = Arc::new(slot);
        self.network.restore(&container.handle, &record.network)?;
        self.watch_memory(&slot, container);
        let init = Init { ticket: record.init, pid: init.pid, pidfd };
        container.embody(Body { init, slot, volume: record.volume });
        for (id, process) in &record.processes {
            let exit = match process.exit {
                Some(ExitRecord::Status(status)) => Exit::Status(status),
                Some(ExitRecord::Unknown) => Exit::Unknown,
                None => {
                    let started = self.supervisor.child(process.ticket).map_err(unreachable)?;
                    if started.is_some() && self.take_up(container, id, process)? {
                        continue;
                    }
                    if started.is_some() {
                        self.supervisor.abandon(process.ticket);
                    }
                    // Written down, and not started, or not so far that anybody was told. Where the depot
                    // is full it stays there.
                    let forgotten = container.change(&self.depot, |record| {
                        record.processes.remove(id);
                    });
                    if let Err(error) = forgotten {
                        let handle = &container.handle;
                        tracing::warn!(handle, id, %error, "a process that never was is not forgotten");
                    }
                    continue;
                }
            };
            // An earlier daemon may have written its end down and died before it said so.
            if self.supervisor.child(process.ticket).map_err(unreachable)?.is_some() {
                self.supervisor.release(process.ticket).map_err(unreachable)?;
            }
            container.add_process(&Process::ended(
                container.handle.clone(),
                id.clone(),
                process.ticket,
                exit,
                self.runtime.clone(),
            ))?;
        }
        Ok(true)
    }

    /// Kills children that no record has, and removes slots and volumes that no container has.
    fn remove_strays(&self) -> Result<(), Error> {
        let records: Vec<_> =
            self.containers().values().map(|container| container.record()).collect();
        let tickets: HashSet<u64> = records.iter().flat_map(Record::tickets).collect();
        let unreachable = |error: garden_sys::supervisor::Error| {
            Error::because("cannot remove a stray process", &error)
        };
        for child in self.supervisor.children().map_err(unreachable)? {
            if tickets.contains(&child.ticket) {
                continue;
            }
            tracing::info!(pid = child.pid, "removing a process that belongs to no container");
            match self.supervisor.take(child.ticket) {
                Ok((_, pidfd)) => {
                    let _ = pidfd_send_signal(&pidfd, Signal::KILL);
                }
                Err(Incomplete) => self.supervisor.abandon(child.ticket),
                Err(error) => return Err(unreachable(error)),
            }
            // One that the kernel does not let go must not keep the others from being served.
            if let Err(error) = self.supervisor.release(child.ticket) {
                tracing::warn!(pid = child.pid, %error, "a stray process does not end");
            }
        }
        let slots: BTreeSet<u32> = records.iter().flat_map(Record::slots).collect();
        let present = self
            .maker
            .hierarchy
            .slots()
            .map_err(|error| Error::because("cannot list cgroups", &error))?;
        for slot in present.into_iter().filter(|slot| !slots.contains(slot)) {
            if let Err(error) = self.remove_slot(slot) {
                tracing::warn!(%error, "it is tried again");
                self.maker.leave_slot(slot);
            }
        }
        self.remove_stray_leaves()?;
        let volumes: HashSet<u32> = records.iter().flat_map(Record::volumes).collect();
        for volume in self.volumes.list()?.into_iter().filter(|volume| !volumes.contains(volume)) {
            self.volumes.destroy(volume);
        }
        let handles: HashSet<&str> =
            records.iter().map(|record| record.spec.handle.as_str()).collect();
        self.network.remove_strays(&handles)
    }

    /// Watches over memory and grace times for as long as the Garden lives.
    fn start_chores(self: &Arc<Self>) -> Result<(), Error> {
        let failed = |error: std::io::Error| Error::because("cannot start a thread", &error);
        let weak = Arc::downgrade(self);
        std::thread::Builder::new()
            .name("grace".into())
            .spawn(move || {
                while let Some(gardener) = weak.upgrade() {
                    let pause = gardener.reap_unused();
                    gardener.maker.remove_stray_slots();
                    drop(gardener);
                    std::thread::sleep(pause.max(Duration::from_millis(5)));
                }
            })
            .map_err(failed)?;
        let weak = Arc::downgrade(self);
        std::thread::Builder::new()
            .name("memory-watch".into())
            .spawn(move || {
                while let Some(gardener) = weak.upgrade() {
                    gardener.hear_of_memory();
                }
            })
            .map_err(failed)?;
        Ok(())
    }
}

/// The cgroups of this tag, claimed for the depot: links, rules and cgroups that are called by it are
/// this daemon's from then on. Two depots of one tag would remove each other's as nobody's.
fn claim_tag(config: &Config, depot: &Path) -> Result<Hierarchy, Error> {
    let tag = &config.tag;
    let name = format!("bloomery-{tag}");
    Hierarchy::claim(&name, CGROUPS.as_ref(), depot, PATIENCE).map_err(|error| match error {
        garden_cgroup::Error::InUse { owner, .. } => {
            let with = owner.map_or_else(String::new, |owner| format!(" (--depot {})", owner.display()));
            Error::Plain(format!(
                "another Garden{with} runs with the tag {tag}: stop it, or give this one another --tag"
            ))
        }
        garden_cgroup::Error::Owned { owner, path } => {
            let owner = owner.display();
            Error::Plain(format!(
                "the tag {tag} is that of a Garden with --depot {owner}, whose containers are in {}: \
                 start that one again, or remove them with `bloomery garden cleanup --tag {tag} \
                 --depot {owner}` and its other places, or give this one another --tag",
                path.display()
            ))
        }
        error => Error::because("cannot use cgroups", &error),
    })
}

/// An executable by a read-only mount of its own. Whoever runs it inside a container, and gets at
/// it by `/proc/<pid>/exe`, can write neither to it nor to the host's file (CVE-2019-5736); the mount
/// is in no namespace, so nobody can make it writable.
fn image_of(executable: &Path) -> Result<OwnedFd, Error> {
    let access = Access { read_only: true, ..Access::default() };
    mounts::bind(executable, access)
        .map_err(|error| Error::because("cannot mount the daemon's own executable", &error))
}

/// An older supervisor goes on with our program; a refused upgrade leaves it as it is.
fn bring_up_to_date(supervisor: &Supervisor) {
    match supervisor.is_current() {
        Ok(true) => {}
        Ok(false) => match supervisor.upgrade(PROGRAM) {
            Ok(()) => tracing::info!("the keeper runs this build now"),
            Err(error) => tracing::warn!(%error, "the keeper goes on with an older build"),
        },
        Err(error) => tracing::warn!(%error, "the keeper's build is unknown"),
    }
}

/// Records by handle; `None` where there is none any more. A record that cannot be read fails the
/// start: its container may run, and nobody but an operator can say that it may go.
fn read_records(depot: &Depot) -> Result<Vec<(String, Option<Record>)>, Error> {
    let found =
        depot.read_all().map_err(|error| Error::because("cannot read the depot", &error))?;
    let readable = |(handle, record): (String, std::io::Result<Record>)| match record {
        Ok(record) => Ok((handle, Some(record))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            tracing::warn!(handle, %error, "a container has no record; removing it");
            Ok((handle, None))
        }
        Err(error) if error.kind() == std::io::ErrorKind::Unsupported => {
            Err(Error::because(format!("cannot take over container {handle}"), &error))
        }
        Err(error) => Err(Error::because(
            format!(
                "cannot take over container {handle} (put its record right, or remove it: the next \
                 start destroys the container then)"
            ),
            &error,
        )),
    };
    found.into_iter().map(readable).collect()
}

/// An image is deleted by who has made it, so that one must be there.
fn check_images(records: &[(String, Option<Record>)], plugins: bool) -> Result<(), Error> {
    let made = |(_, record): &&(String, Option<Record>)| {
        record.as_ref().is_some_and(|record| record.made_image)
    };
    match records.iter().find(made).filter(|_| !plugins) {
        Some((handle, _)) => Err(Error::Plain(format!(
            "container {handle} has its root from an image plugin: start with the same --image-plugin \
             and --privileged-image-plugin, and destroy it before you start without"
        ))),
        None => Ok(()),
    }
}

/// A container's network is taken down by who has made it, so that one must be there.
fn check_networks(records: &[(String, Option<Record>)], plugin: bool) -> Result<(), Error> {
    for (handle, record) in records {
        let Some(record) = record.as_ref().filter(|record| !record.network.is_null()) else {
            continue;
        };
        match (network::is_external(&record.network), plugin) {
            (true, false) => {
                return Err(Error::Plain(format!(
                    "container {handle} has its network from a network plugin: start with the same \
                     --network-plugin, and destroy it before you start without"
                )));
            }
            (false, true) => {
                return Err(Error::Plain(format!(
                    "container {handle} has the built-in network: start without --network-plugin, and \
                     destroy it before you start with one"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The next number of a slot or volume and the next ticket: above everything that is there.
fn next_numbers(
    records: &[(String, Option<Record>)],
    supervisor: &Supervisor,
    hierarchy: &Hierarchy,
    volumes: &Volumes,
) -> Result<(u32, u64), Error> {
    let records = || records.iter().filter_map(|(_, record)| record.as_ref());
    let slots = hierarchy.slots().map_err(|error| Error::because("cannot list cgroups", &error))?;
    let number = records()
        .flat_map(|record| record.slots().chain(record.volumes()))
        .chain(slots)
        .chain(volumes.list()?)
        .max()
        .unwrap_or(0)
        + 1;
    let highest = supervisor
        .highest_ticket()
        .map_err(|error| Error::because("cannot read the keeper's ledger", &error))?;
    let ticket = records().flat_map(Record::tickets).chain([highest]).max().unwrap_or(0) + 1;
    Ok((number, ticket))
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;

    #[test]
    fn nobody_can_write_to_what_runs_inside() {
        let place = tempfile::NamedTempFile::new().unwrap();
        // A copy: a program that runs refuses writers anyway, but only until it ends.
        std::fs::copy("/bin/true", place.path()).unwrap();
        let image = super::image_of(place.path()).unwrap();
        let path = format!("/proc/self/fd/{}", image.as_raw_fd());
        let refused = std::fs::OpenOptions::new().append(true).open(&path).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    }
    #[test]
    fn only_where_there_is_no_record_a_container_is_passed_over() {
        let place = tempfile::tempdir().unwrap();
        let depot = super::Depot::open(place.path()).unwrap();
        for (handle, content) in [("empty", Some("")), ("blank", Some("\0\0\0")), ("none", None)] {
            std::fs::create_dir(depot.directory(handle)).unwrap();
            if let Some(content) = content {
                std::fs::write(depot.directory(handle).join("container.json"), content).unwrap();
            }
        }
        let records = super::read_records(&depot).unwrap();
        assert!(records.len() == 3 && records.iter().all(|(_, record)| record.is_none()));
        // A file that cannot be read now, which even root meets where a directory is in its place.
        std::fs::create_dir_all(depot.directory("busy").join("container.json")).unwrap();
        let error = super::read_records(&depot).unwrap_err().to_string();
        assert!(error.contains("container busy") && error.contains("container.json"), "{error}");
        std::fs::remove_dir(depot.directory("busy").join("container.json")).unwrap();
        for broken in ["{\"version\"", "[]", "garbage", "{\"version\":2,\"spec\":5}"] {
            std::fs::write(depot.directory("busy").join("container.json"), broken).unwrap();
            let error = super::read_records(&depot).unwrap_err().to_string();
            assert!(error.contains("busy/container.json"), "{broken}: {error}");
        }
        // What a newer build wrote is not ours to remove.
        std::fs::write(depot.directory("busy").join("container.json"), "{\"version\":4}").unwrap();
        let error = super::read_records(&depot).unwrap_err().to_string();
        assert!(error.contains("container busy") && error.contains("newer build"), "{error}");
    }
}
