//! Peas: processes with an image of their own.
//!
//! A pea is a process like any other but for its root, which it builds itself before it executes its
//! program, its cgroup and its volume. These two have one number, which the container's record names
//! from before they are made until the pea's end is written down.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use garden_api::{Limits, ProcessSpec};
use garden_cgroup::{Leaf, Slot};
use garden_sys::program::wire::Step;
use garden_sys::supervisor::{Failure, RootPlan};

use super::Gardener;
use super::create::nanoseconds_since_epoch;
use super::destroy::UNKILLABLE;
use crate::bundle::{self, Bundle, Wishes};
use crate::command;
use crate::container::{Body, Container};
use crate::depot::PeaRecord;
use crate::error::Error;
use crate::fault;
use crate::identity;
use crate::leavings::Leaving;
use crate::root::{Owner, attachments, bind_mounts, name_files};
use crate::terminal;
use crate::volumes::Image;

/// How long a cgroup without processes may take to be removed.
const EMPTY: Duration = Duration::from_secs(1);

/// A pea that was asked for, and of which nothing is on the host yet.
#[derive(Debug)]
pub(super) struct Seed {
    pub(super) record: PeaRecord,
    pub(super) image: Image,
    /// Its `/dev/pts`, if it is to have a terminal: that is opened before it has a root.
    pub(super) terminals: Option<OwnedFd>,
}

/// Where a process begins.
#[derive(Debug)]
pub(super) struct Ground {
    pub(super) slot: Arc<Slot>,
    pub(super) leaf: Leaf,
    root: Option<OwnRoot>,
}

#[derive(Debug)]
struct OwnRoot {
    plan: RootPlan,
    /// What the plan's records are about.
    parts: Vec<String>,
}

impl Ground {
    /// Where processes in the container's image begin.
    pub(super) fn of(body: &Body) -> Self {
        Self { slot: Arc::clone(&body.slot), leaf: Leaf::Processes, root: None }
    }

    /// The plan of the process's own root, if it is a pea's.
    pub(super) fn root(&self) -> Option<&RootPlan> {
        self.root.as_ref().map(|root| &root.plan)
    }

    /// What a client is told about a process that could not be started here.
    pub(super) fn explain(&self, failure: &Failure, spec: &ProcessSpec) -> Error {
        let Some(root) = &self.root else { return command::explain(failure, spec) };
        if matches!(failure.step, Step::Mount | Step::Root) {
            return bundle::explain("cannot build the process's root", failure, &root.parts);
        }
        match command::explain(failure, spec) {
            // The original tells of it without a type, since it looks in no pea itself.
            Error::ExecutableNotFound(text) => Error::Plain(text),
            other => other,
        }
    }
}

impl Gardener {
    /// A pea, if a process is to be one.
    pub(super) fn seed(&self, spec: &ProcessSpec, privileged: bool) -> Result<Option<Seed>, Error> {
        if spec.image.uri.is_empty() {
            if !spec.bind_mounts.is_empty() {
                return Err(Error::Plain(
                    "Running a process with bind mounts and no image provided is not allowed"
                        .into(),
                ));
            }
            return Ok(None);
        }
        let image = self.volumes.find(&spec.image.uri)?;
        let terminals =
            spec.tty.map(|_| terminal::file_system(identity::root(privileged))).transpose();
        let terminals =
            terminals.map_err(|error| Error::because("cannot make a /dev/pts", &error))?;
        let record = PeaRecord {
            number: self.maker.number(),
            limits: spec.limits,
            image_size: image.size,
            created: nanoseconds_since_epoch(),
        };
        Ok(Some(Seed { record, image, terminals }))
    }

    /// Makes what a pea has beside its process.
    pub(super) fn sow(
        &self,
        seed: &Seed,
        spec: &ProcessSpec,
        body: &Body,
        privileged: bool,
    ) -> Result<Ground, Error> {
        let number = seed.record.number;
        let cgroup = |error: garden_cgroup::Error| {
            Error::because("cannot make a cgroup for the process", &error)
        };
        let (slot, leaf) = match seed.record.limits {
            Some(own) => {
                let slot = self.maker.hierarchy.create(number).map_err(cgroup)?;
                slot.restrict_devices(&self.maker.devices).map_err(cgroup)?;
                let limits = Limits { cpu: own.cpu, memory: own.memory, ..Limits::default() };
                self.limit(&slot, &limits)?;
                (Arc::new(slot), Leaf::Processes)
            }
            None => {
                body.slot.create_pea(number).map_err(cgroup)?;
                (Arc::clone(&body.slot), Leaf::Pea(number))
            }
        };
        fault::step("run/cgroup-made");
        let volume = self.volumes.make(number, identity::root(privileged))?;
        fault::step("run/volume-made");
        let users = || {
            let users = body.init.namespace("user");
            users.ok_or_else(|| Error::Plain("the container's process 1 has ended".into()))
        };
        let users = (!privileged).then(users).transpose()?;
        let owner = Owner { users, volume: &volume, slot: &slot };
        let (opened, _) = self.maker.open(&owner, &seed.image)?;
        let mut furniture = self.maker.furniture(&owner, &opened);
        furniture.terminals = seed.terminals.as_ref().map(AsFd::as_fd);
        // The network is the container's, and so is what was set for it.
        furniture.open_ping = false;
        let binds = bind_mounts(&spec.bind_mounts)?;
        let names = name_files(&self.volumes.at(body.volume))?;
        let mut bundle = Bundle::default();
        bundle.furnish(&furniture)?;
        bundle.fulfil(&Wishes {
            hostname: None,
            binds: [attachments(&binds), attachments(&names)].concat(),
        })?;
        let plan = bundle
            .plan
            .seal()
            .map_err(|error| Error::because("cannot write the plan of a root", &error))?;
        let plan = RootPlan::send(plan.as_fd(), &bundle.descriptors)
            .map_err(|error| Error::because("cannot give the process its root", &error))?;
        let parts = bundle.into_parts();
        if !opened.overlay.spent.is_empty() {
            self.leavings.put(Leaving { mounts: opened.overlay.spent, ..Leaving::default() });
        }
        fault::step("run/root-sent");
        Ok(Ground { slot, leaf, root: Some(OwnRoot { plan, parts }) })
    }

    /// Takes away what a pea has beside its process, once that has ended or was not started. What it has
    /// left running loses its files, so it is killed. Without a container its leaf is gone with that.
    pub(super) fn clear_away(&self, container: Option<&Container>, pea: &PeaRecord) {
        let removed = match (pea.slot(), container.and_then(Container::body)) {
            (Some(own), _) => self.remove_slot(own).inspect_err(|_| self.maker.leave_slot(own)),
            (None, Some(body)) => self.remove_leaf(&body.slot, pea.number),
            (None, None) => Ok(()),
        };
        if let Err(error) = removed {
            tracing::warn!(number = pea.number, %error, "a pea's cgroup is left for later");
        }
        fault::step("end/cgroup-removed");
        self.volumes.destroy(pea.number);
        fault::step("end/volume-removed");
    }

    /// Kills what is in a pea's leaf and removes it.
    pub(super) fn remove_leaf(&self, slot: &Slot, number: u32) -> Result<(), Error> {
        let removed = slot
            .kill_leaf(Leaf::Pea(number), UNKILLABLE)
            .and_then(|()| slot.remove_pea(number, EMPTY));
        let forgotten = removed.map_err(|error| {
            Error::because(format!("cannot remove the cgroup of pea {number}"), &error)
        })?;
        self.remember_kills(slot, forgotten);
        Ok(())
    }

    /// Removes leaves of peas that no record names.
    pub(super) fn remove_stray_leaves(&self) -> Result<(), Error> {
        let containers: Vec<_> = self.containers().values().cloned().collect();
        for container in containers {
            let Some(body) = container.body() else { continue };
            let peas = body
                .slot
                .peas()
                .map_err(|error| Error::because("cannot list a container's cgroups", &error))?;
            let named = |number: u32| {
                container.look(|record| record.peas().any(|pea| pea.number == number))
            };
            for number in peas.into_iter().filter(|number| !named(*number)) {
                if let Err(error) = self.remove_leaf(&body.slot, number) {
                    tracing::warn!(handle = container.handle, %error, "a pea's cgroup is left");
                }
            }
        }
        Ok(())
    }

    /// A pea by its id, and its container. Ids are unique within a container only; the first is meant.
    pub(super) fn find_pea(&self, id: &str) -> Option<(Arc<Container>, PeaRecord)> {
        let containers: Vec<_> = self.containers().values().cloned().collect();
        containers.into_iter().find_map(|container| {
            let pea = container.look(|record| record.processes.get(id)?.pea)?;
            Some((container, pea))
        })
    }
}
