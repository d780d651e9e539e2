//! Parked containers: what every container needs and no container's wishes decide, made ahead.

use std::collections::{BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use garden_cgroup::{DeviceFilter, Hierarchy, Leaf, Slot};
use garden_sys::supervisor::{ParkedInit, Supervisor};

use crate::error::Error;
use crate::fault;
use crate::identity::{self, ID_MAP};
use crate::leavings::Leaving;
use crate::meters::METERS;
use crate::network::Network;
use crate::volumes::{Image, Likeness, Volume, Volumes};

/// A container without a name: process 1 in its cgroup slot, with its ids mapped, its link plumbed
/// where the network is ours, its volume made and, where the image could be foreseen, its root built. Used once; what is not
/// used is undone by [`Maker::discard`].
#[derive(Debug)]
pub struct Unit {
    /// Number of its cgroup slot and of its link.
    pub number: u32,
    /// It has no user namespace.
    pub privileged: bool,
    /// Its process 1, parked.
    pub init: ParkedInit,
    /// Its cgroup.
    pub slot: Slot,
    /// Its files.
    pub volume: Volume,
    /// What its root is built of, once it is.
    pub root: Option<Likeness>,
}

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
    /// Makes volumes.
    pub volumes: Arc<Volumes>,
    /// Unprivileged containers' processes gain no privileges (PR_SET_NO_NEW_PRIVS).
    pub no_new_privileges: bool,
    /// Next slot and volume.
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

    /// A number that no slot and no volume has had.
    pub(crate) fn number(&self) -> u32 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Makes a unit now, without a root.
    pub fn make(&self, privileged: bool) -> Result<Unit, Error> {
        let number = self.number();
        let slot = self
            .hierarchy
            .create(number)
            .inspect_err(|_| self.leave_slot(number))
            .map_err(|error| Error::because("cannot make a cgroup", &error))?;
        match self.fill(number, &slot, privileged) {
            Ok((init, volume)) => Ok(Unit { number, privileged, init, slot, volume, root: None }),
            Err(error) => {
                self.kill_and_remove(&slot);
                Err(error)
            }
        }
    }

    /// Process 1, link and volume.
    fn fill(
        &self,
        number: u32,
        slot: &Slot,
        privileged: bool,
    ) -> Result<(ParkedInit, Volume), Error> {
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
        let equipped = self.equip(number, &init, privileged);
        match equipped {
            Ok(volume) => Ok((init, volume)),
            Err(error) => {
                // It ends with its socket.
                drop(init);
                self.release(ticket);
                Err(error)
            }
        }
    }

    fn equip(&self, number: u32, init: &ParkedInit, privileged: bool) -> Result<Volume, Error> {
        if !privileged {
            init.map_ids(ID_MAP, ID_MAP)
                .map_err(|error| Error::because("cannot map ids", &error))?;
        }
        let netns = init
            .namespace("net")
            .map_err(|error| Error::because("cannot reach a network namespace", &error))?;
        let volume = self.make_volume(privileged)?;
        match self.network.plumb(netns.as_fd(), number) {
            Ok(()) => Ok(volume),
            Err(error) => {
                self.volumes.destroy(volume.number);
                Err(error)
            }
        }
    }

    /// Makes a volume for a unit.
    pub(crate) fn make_volume(&self, privileged: bool) -> Result<Volume, Error> {
        self.volumes.make(self.number(), identity::root(privileged))
    }

    /// Undoes a unit that was not used, or was used in vain.
    pub fn discard(&self, unit: Unit) {
        let ticket = unit.init.ticket;
        drop(unit.init);
        self.network.unplumb(unit.number);
        self.kill_and_remove(&unit.slot);
        self.release(ticket);
        self.volumes.destroy(unit.volume.number);
    }

    /// Takes away what an ended container has left.
    pub(crate) fn take_away(&self, leaving: Leaving) {
        drop(leaving.mounts);
        for number in leaving.slots {
            if let Err(error) = self.hierarchy.remove(number, Duration::from_secs(1)) {
                tracing::warn!(slot = number, %error, "a cgroup is left for later");
                self.leave_slot(number);
            }
        }
        fault::step("destroy/cgroup-removed");
        leaving.children.into_iter().for_each(|ticket| self.release(ticket));
        fault::step("destroy/released");
        leaving.volumes.into_iter().for_each(|number| self.volumes.destroy(number));
        fault::step("destroy/volume-removed");
    }

    fn release(&self, ticket: u64) {
        if let Err(error) = self.supervisor.release(ticket) {
            tracing::warn!(%error, "an ended process is not released");
        }
    }

    fn kill_and_remove(&self, slot: &Slot) {
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

    /// Leaves a slot to be removed later.
    pub fn leave_slot(&self, number: u32) {
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

/// How long after a unit was taken the store is not refilled while it is more than half full: making
/// a unit needs the cores and the kernel's locks that the create under way needs, too.
const COURTESY: Duration = Duration::from_millis(10);

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
    store: Mutex<Store>,
    changed: Condvar,
    closing: AtomicBool,
}

#[derive(Debug, Default)]
struct Store {
    units: VecDeque<Unit>,
    /// When one was last taken.
    taken: Option<Instant>,
}

impl Shared {
    fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long there is no need to refill now; `None` is until something changes.
    fn leisure(&self, store: &Store) -> Option<Duration> {
        let (target, have) = (self.target.load(Ordering::SeqCst), store.units.len());
        if self.closing.load(Ordering::SeqCst) {
            return Some(Duration::ZERO);
        }
        if have >= target {
            return None;
        }
        let since = store.taken.map_or(COURTESY, |taken| taken.elapsed());
        Some(if have * 2 > target { COURTESY.saturating_sub(since) } else { Duration::ZERO })
    }

    /// Waits until the store is to be refilled.
    fn wait(&self) {
        let mut store = self.store();
        loop {
            let patience = match self.leisure(&store) {
                Some(Duration::ZERO) => return,
                Some(left) => left,
                None => Duration::MAX,
            };
            store = self
                .changed
                .wait_timeout(store, patience)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// A unit with a root, if an image can be foreseen.
    fn make(&self) -> Result<Unit, Error> {
        let mut unit = self.maker.make(false)?;
        match self.maker.build_ahead(&mut unit) {
            Ok(()) => Ok(unit),
            Err(error) => {
                // Whoever asks for that image will hear of it.
                tracing::debug!(%error, "no root can be built ahead");
                self.maker.discard(unit);
                self.maker.make(false)
            }
        }
    }

    /// Keeps the store full; a host that cannot make units now is asked again later.
    fn refill(&self) {
        loop {
            self.wait();
            if self.closing.load(Ordering::SeqCst) {
                break;
            }
            match self.make() {
                Ok(unit) => self.store().units.push_back(unit),
                Err(error) => {
                    METERS.pool_failures.increment();
                    tracing::warn!(%error, "the pool cannot be refilled");
                    let store = self.store();
                    let _ = self.changed.wait_timeout(store, Duration::from_secs(1));
                }
            }
        }
        let left: Vec<_> = self.store().units.drain(..).collect();
        left.into_iter().for_each(|unit| self.maker.discard(unit));
    }
}

impl Pool {
    /// Starts filling a store of `target` units.
    pub fn start(maker: Arc<Maker>, target: usize) -> std::io::Result<Self> {
        let shared = Arc::new(Shared {
            maker,
            target: AtomicUsize::new(target),
            store: Mutex::default(),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
        });
        let refiller = Arc::clone(&shared);
        let refiller =
            std::thread::Builder::new().name("pool".into()).spawn(move || refiller.refill())?;
        Ok(Self { shared, refiller: Mutex::new(Some(refiller)) })
    }

    /// A unit from the store, or one made now: if it has a root, then of this image. Privileged ones
    /// are always made now.
    pub fn take(&self, privileged: bool, image: &Image) -> Result<Unit, Error> {
        let mut unit = self.any(privileged)?;
        if let Err(error) = self.shared.maker.suit(&mut unit, image) {
            self.shared.maker.discard(unit);
            return Err(error);
        }
        Ok(unit)
    }

    fn any(&self, privileged: bool) -> Result<Unit, Error> {
        if !privileged {
            loop {
                let taken = {
                    let mut store = self.shared.store();
                    store.taken = Some(Instant::now());
                    store.units.pop_front()
                };
                self.shared.changed.notify_all();
                match taken {
                    Some(unit) if unit.init.is_alive() => {
                        METERS.pool_hits.increment();
                        return Ok(unit);
                    }
                    Some(dead) => self.shared.maker.discard(dead),
                    None => break,
                }
            }
        }
        METERS.pool_misses.increment();
        self.shared.maker.make(privileged)
    }

    /// How many units are in store, and how many are to be.
    pub fn stock(&self) -> (usize, usize) {
        (self.shared.store().units.len(), self.shared.target.load(Ordering::SeqCst))
    }

    /// Sets how many units are kept in store.
    pub fn resize(&self, target: usize) {
        self.shared.target.store(target, Ordering::SeqCst);
        self.shared.changed.notify_all();
    }

    /// Stops refilling, and waits until what was in store has been discarded.
    pub fn close(&self) {
        {
            let _store = self.shared.store();
            self.shared.closing.store(true, Ordering::SeqCst);
        }
        self.shared.changed.notify_all();
        let refiller = self.refiller.lock().unwrap_or_else(PoisonError::into_inner).take();
        if refiller.is_some_and(|refiller| refiller.join().is_err()) {
            tracing::error!("the pool's thread died");
        }
    }
}
