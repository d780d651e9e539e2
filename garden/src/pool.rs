//! Parked containers: what every container needs and no container's wishes decide, made ahead.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use garden_cgroup::{DeviceFilter, Hierarchy, Leaf, Slot};
use garden_sys::supervisor::{ParkedInit, Supervisor};

use crate::devices;
use crate::error::Error;
use crate::identity::{ID_MAP, MAPPED_ROOT};
use crate::network::{Network, Plumbed};

/// A container without a name: process 1 in its cgroup slot, with its ids mapped, its link plumbed
/// and its `/dev` made. Used once; what is not used is undone by [`Maker::discard`].
#[derive(Debug)]
pub struct Unit {
    /// Number of its cgroup slot, and of whatever else is counted.
    pub number: u32,
    /// Its process 1, parked.
    pub init: ParkedInit,
    /// Its cgroup.
    pub slot: Slot,
    /// Its `/dev`.
    pub dev: OwnedFd,
    /// Its link to the host.
    pub link: Plumbed,
}

/// What a slot is filled with: process 1, `/dev`, link.
type Content = (ParkedInit, OwnedFd, Plumbed);

/// What makes units.
#[derive(Debug)]
pub struct Maker {
    /// Clones process 1.
    pub supervisor: Arc<Supervisor>,
    /// Gives slots.
    pub hierarchy: Hierarchy,
    /// What devices may be used.
    pub devices: DeviceFilter,
    /// Plumbs links.
    pub network: Arc<Network>,
    /// Next slot.
    pub numbers: AtomicU32,
    /// Next ticket.
    pub tickets: AtomicU64,
    /// Slots that could not be removed, to be tried again.
    pub stray_slots: Mutex<BTreeSet<u32>>,
}

impl Maker {
    /// A ticket that no child has had.
    pub fn ticket(&self) -> u64 {
        self.tickets.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a unit now.
    pub fn make(&self, privileged: bool) -> Result<Unit, Error> {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        let slot = self
            .hierarchy
            .create(number)
            .inspect_err(|_| self.leave_slot(number))
            .map_err(|error| Error::because("cannot make a cgroup", &error))?;
        let made = self.fill(number, &slot, privileged);
        match made {
            Ok((init, dev, link)) => Ok(Unit { number, init, slot, dev, link }),
            Err(error) => {
                self.remove_slot(&slot);
                Err(error)
            }
        }
    }

    fn fill(&self, number: u32, slot: &Slot, privileged: bool) -> Result<Content, Error> {
        let cgroup =
            |error: garden_cgroup::Error| Error::because("cannot prepare a cgroup", &error);
        slot.restrict_devices(&self.devices).map_err(cgroup)?;
        let birth = slot.birth(Leaf::Init).map_err(cgroup)?;
        let joins = slot.joins(Leaf::Init).map_err(cgroup)?;
        let joins: Vec<_> = joins.iter().map(AsFd::as_fd).collect();
        let init = self
            .supervisor
            .park(self.ticket(), privileged, Some(birth.as_fd()), &joins)
            .map_err(|error| Error::because("cannot make a container's process 1", &error))?;
        let ticket = init.ticket;
        let furnished = self.furnish(number, init, privileged);
        if furnished.is_err() {
            // It has ended with its socket.
            self.release(ticket);
        }
        furnished
    }

    fn furnish(&self, number: u32, init: ParkedInit, privileged: bool) -> Result<Content, Error> {
        if !privileged {
            init.map_ids(ID_MAP, ID_MAP)
                .map_err(|error| Error::because("cannot map ids", &error))?;
        }
        let root = if privileged { 0 } else { MAPPED_ROOT };
        let dev = devices::file_system(root, privileged)
            .map_err(|error| Error::because("cannot make a /dev", &error))?;
        let netns = init
            .namespace("net")
            .map_err(|error| Error::because("cannot reach a network namespace", &error))?;
        let link = self.network.plumb(netns.as_fd(), number)?;
        Ok((init, dev, link))
    }

    /// Undoes a unit that was not used, or was used in vain.
    pub fn discard(&self, unit: Unit) {
        let ticket = unit.init.ticket;
        drop(unit.init);
        self.network.unplumb(&unit.link);
        self.remove_slot(&unit.slot);
        self.release(ticket);
    }

    fn release(&self, ticket: u64) {
        if let Err(error) = self.supervisor.release(ticket) {
            tracing::warn!(%error, "an unused process 1 is not released");
        }
    }

    fn remove_slot(&self, slot: &Slot) {
        let removed =
            slot.kill(Duration::from_secs(10)).and_then(|()| slot.remove(Duration::from_secs(1)));
        if let Err(error) = removed {
            tracing::warn!(slot = slot.number(), %error, "a cgroup is left for later");
            self.leave_slot(slot.number());
        }
    }

    fn strays(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        self.stray_slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn leave_slot(&self, number: u32) {
        self.strays().insert(number);
    }

    /// Removes what there is of slots that could not be removed when it was time to.
    pub fn remove_stray_slots(&self) {
        let strays = std::mem::take(&mut *self.strays());
        for number in strays {
            let removed = match self.hierarchy.open(number) {
                Ok(slot) => slot.kill(Duration::from_secs(1)),
                Err(error) if error.is_gone() => Ok(()),
                Err(error) => Err(error),
            };
            let removed =
                removed.and_then(|()| self.hierarchy.remove(number, Duration::from_millis(100)));
            if removed.is_err() {
                self.leave_slot(number);
            }
        }
    }
}

/// Units in store, refilled in the background.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
    refiller: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug)]
struct Shared {
    maker: Arc<Maker>,
    target: AtomicUsize,
    ready: Mutex<VecDeque<Unit>>,
    changed: Condvar,
    closing: AtomicBool,
}

impl Shared {
    fn ready(&self) -> MutexGuard<'_, VecDeque<Unit>> {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the store full; a host that cannot make units now is asked again later.
    fn refill(&self) {
        while !self.closing.load(Ordering::SeqCst) {
            let full = |ready: &mut VecDeque<Unit>| {
                ready.len() >= self.target.load(Ordering::SeqCst)
                    && !self.closing.load(Ordering::SeqCst)
            };
            let guard =
                self.changed.wait_while(self.ready(), full).unwrap_or_else(PoisonError::into_inner);
            drop(guard);
            if self.closing.load(Ordering::SeqCst) {
                break;
            }
            match self.maker.make(false) {
                Ok(unit) => self.ready().push_back(unit),
                Err(error) => {
                    tracing::warn!(%error, "the pool cannot be refilled");
                    let guard = self.ready();
                    let _ = self.changed.wait_timeout(guard, Duration::from_secs(1));
                }
            }
        }
        let left: Vec<_> = self.ready().drain(..).collect();
        left.into_iter().for_each(|unit| self.maker.discard(unit));
    }
}

impl Pool {
    /// Starts filling a store of `target` units.
    pub fn start(maker: Arc<Maker>, target: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            maker,
            target: AtomicUsize::new(target),
            ready: Mutex::default(),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
        });
        let refiller = Arc::clone(&shared);
        let refiller =
            std::thread::Builder::new().name("pool".into()).spawn(move || refiller.refill())?;
        Ok(Self { shared, refiller: Mutex::new(Some(refiller)) })
    }

    /// A unit from the store, or one made now. Privileged ones are always made now.
    pub fn take(&self, privileged: bool) -> Result<Unit, Error> {
        if !privileged {
            loop {
                let taken = self.shared.ready().pop_front();
                self.shared.changed.notify_all();
                match taken {
                    Some(unit) if unit.init.is_alive() => return Ok(unit),
                    Some(dead) => self.shared.maker.discard(dead),
                    None => break,
                }
            }
        }
        self.shared.maker.make(privileged)
    }

    /// Sets how many units are kept in store.
    pub fn resize(&self, target: usize) {
        self.shared.target.store(target, Ordering::SeqCst);
        self.shared.changed.notify_all();
    }

    /// Stops refilling, and waits until what was in store has been discarded.
    pub fn close(&self) {
        {
            let _ready = self.shared.ready();
            self.shared.closing.store(true, Ordering::SeqCst);
        }
        self.shared.changed.notify_all();
        let refiller = self.refiller.lock().unwrap_or_else(PoisonError::into_inner).take();
        if refiller.is_some_and(|refiller| refiller.join().is_err()) {
            tracing::error!("the pool's thread died");
        }
    }
}
