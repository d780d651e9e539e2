//! A container's process 1 in a cgroup of its own, kept by a supervisor of its own.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use garden_cgroup::{
    CpuQuota, DeviceFilter, Hierarchy, Leaf, Limits, NotEnforced, Slot, Survey,
    garden_default_devices,
};
use garden_sys::pidfd::ends_within;
use garden_sys::supervisor::{ParkedInit, Supervisor};

use super::{Fact, NO_CONTAINER, chain};
use crate::gardener::{CGROUPS, processes_of};
use crate::identity::ID_MAP;

/// How long anything of it may take to go.
const PATIENCE: Duration = Duration::from_secs(10);
const TICKET: u64 = 1;

/// What was made. [`Trial::end`] takes all of it away.
pub struct Trial {
    cgroup: Option<(Hierarchy, Slot)>,
    supervisor: Option<Supervisor>,
    init: Option<ParkedInit>,
    users: Option<OwnedFd>,
    /// Where the supervisor's files are.
    place: tempfile::TempDir,
}

impl Trial {
    /// Makes all that can be made, and tells what cannot.
    pub fn start() -> (Option<Self>, Vec<Fact>) {
        let mut facts = Vec::new();
        let place = match tempfile::Builder::new().prefix("bloomery-doctor-").tempdir() {
            Ok(place) => place,
            Err(error) => {
                let fact = Fact::new("supervisor", format!("no temporary directory: {error}"));
                return (None, vec![fact.missing("it cannot be tried", "set TMPDIR")]);
            }
        };
        let mut trial = Self { cgroup: None, supervisor: None, init: None, users: None, place };
        facts.extend(trial.make_cgroup());
        match Supervisor::attach(&trial.place.path().join("keeper"), |_| Ok(()), |_| {}) {
            Ok(supervisor) => trial.supervisor = Some(supervisor),
            Err(error) => facts.push(Fact::new("supervisor", chain(&error)).missing(
                NO_CONTAINER,
                "see why the kernel refuses it; a sealed memory file must be executable \
                 (vm.memfd_noexec below 2)",
            )),
        }
        facts.extend(trial.park());
        (Some(trial), facts)
    }

    /// A slot with every limit, if no controller has to be enabled for it beside others' cgroups.
    fn make_cgroup(&mut self) -> Option<Fact> {
        let under = Path::new(CGROUPS);
        Survey::of(under).ok().filter(|survey| survey.not_enabled().is_empty())?;
        let name = format!("bloomery-doctor-{}", std::process::id());
        let fact = |found: String| Fact::new("cgroups", found);
        let failed = |error: garden_cgroup::Error| {
            fact(chain(&error)).missing(NO_CONTAINER, "let root make cgroups and set their limits")
        };
        let hierarchy = match Hierarchy::detect(&name, under) {
            Ok(hierarchy) => hierarchy,
            Err(error) => return Some(failed(error)),
        };
        let slot = match hierarchy.create(1) {
            Ok(slot) => slot,
            Err(error) => {
                let _ = hierarchy.remove_root();
                return Some(failed(error));
            }
        };
        let limited = DeviceFilter::new(garden_default_devices())
            .and_then(|filter| slot.restrict_devices(&filter))
            .and_then(|()| slot.limit(&EVERY_LIMIT));
        self.cgroup = Some((hierarchy, slot));
        match limited {
            Ok(lacks) if lacks.contains(&NotEnforced::Swap) => {
                Some(fact("the kernel does not account swap".into()).degraded(
                    "a container may swap beyond its memory limit",
                    "swapaccount=1 on the kernel's command line, or no swap",
                ))
            }
            Ok(lacks) if lacks.contains(&NotEnforced::CpuQuota) => {
                Some(fact("no bandwidth control".into()).degraded(
                    "--cpu-quota-per-share has no effect",
                    "a kernel with CONFIG_CFS_BANDWIDTH",
                ))
            }
            Ok(_) => Some(fact("made, with limits and device policy".into())),
            Err(error) => Some(failed(error)),
        }
    }

    fn park(&mut self) -> Option<Fact> {
        let supervisor = self.supervisor.as_ref()?;
        let fact = |found: String| Fact::new("namespaces", found);
        let refused = |found: String| {
            fact(found).missing(
                NO_CONTAINER,
                "allow root user namespaces: user.max_*_namespaces above 0, and no container or LSM \
                 around this that forbids them",
            )
        };
        let parked = match &self.cgroup {
            Some((_, slot)) => {
                let births = slot.birth(Leaf::Init).and_then(|b| Ok((b, slot.joins(Leaf::Init)?)));
                let (birth, joins) = match births {
                    Ok(births) => births,
                    Err(error) => return Some(refused(chain(&error))),
                };
                let joins: Vec<_> = joins.iter().map(AsFd::as_fd).collect();
                supervisor.park(TICKET, false, Some(birth.as_fd()), &joins)
            }
            None => supervisor.park(TICKET, false, None, &[]),
        };
        let ready = parked.and_then(|init| {
            init.map_ids(ID_MAP, ID_MAP)?;
            let users = init.namespace("user")?;
            Ok((init, users))
        });
        match ready {
            Ok((init, users)) => {
                (self.init, self.users) = (Some(init), Some(users));
                Some(fact("a container's process 1 has its own, with ids of its own".into()))
            }
            Err(error) => Some(refused(chain(&error))),
        }
    }

    /// The user namespace of the container.
    pub fn users(&self) -> Option<&OwnedFd> {
        self.users.as_ref()
    }

    /// Takes everything away. The pidfd of the process that was reaped then, and what stays.
    pub fn end(self) -> (Option<OwnedFd>, Option<Fact>) {
        let ended = self.init.as_ref().and_then(|init| init.pidfd.try_clone().ok());
        drop(self.init);
        let removed = self.cgroup.map_or(Ok(()), |(hierarchy, slot)| {
            slot.kill(PATIENCE)?;
            slot.remove(PATIENCE)?;
            hierarchy.remove_root()
        });
        let reaped = self.supervisor.is_some_and(|supervisor| {
            let released = supervisor.release(TICKET);
            let processes = processes_of(&supervisor).unwrap_or_default();
            // It leaves by itself some seconds later if it cannot be told to.
            let _ = supervisor.dismiss();
            drop(supervisor);
            for process in &processes {
                let _ = ends_within(process, PATIENCE);
            }
            released.is_ok()
        });
        let left = removed.err().map(|error| {
            Fact::new("doctor", chain(&error))
                .degraded("a cgroup of the doctor's own is left", "remove it with rmdir")
        });
        (ended.filter(|_| reaped), left)
    }
}

const EVERY_LIMIT: Limits = Limits {
    memory: Some(64 << 20),
    swap_counts: true,
    cpu_shares: Some(1024),
    cpu_quota: Some(CpuQuota::Micros(100_000)),
    pids: Some(64),
};
