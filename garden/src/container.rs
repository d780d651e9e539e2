//! One container in the daemon's memory: its record, its handles on the kernel, its processes.

use std::collections::HashMap;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use garden_cgroup::Slot;
use garden_sys::pidfd::ends_within;

use crate::depot::{Depot, Phase, Record};
use crate::error::Error;
use crate::process::Process;

/// A container's process 1.
#[derive(Clone, Debug)]
pub struct Init {
    /// Its name between daemon and keeper.
    pub ticket: u64,
    /// Its pid in the daemon's pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: Arc<OwnedFd>,
}

impl Init {
    /// Whether it still runs.
    pub fn is_alive(&self) -> bool {
        matches!(ends_within(&*self.pidfd, Duration::ZERO), Ok(false))
    }

    /// One of its namespaces, by the name in `/proc/<pid>/ns`; `None` once it has ended.
    pub fn namespace(&self, kind: &str) -> Option<OwnedFd> {
        let file = File::open(format!("/proc/{}/ns/{kind}", self.pid)).ok();
        // Else the pid may be somebody else's by now.
        file.filter(|_| self.is_alive()).map(OwnedFd::from)
    }

    /// Its mount namespace. While somebody has it open, the end of process 1 does not wait for all of
    /// its mounts to be taken apart.
    pub fn mount_namespace(&self) -> Option<OwnedFd> {
        self.namespace("mnt")
    }
}

/// What exists once a container has been made.
#[derive(Clone, Debug)]
pub struct Body {
    /// Process 1.
    pub init: Init,
    /// Its cgroup.
    pub slot: Arc<Slot>,
    /// Number of its volume.
    pub volume: u32,
}

/// A handle and all that belongs to it.
#[derive(Debug)]
pub struct Container {
    /// Its name; never changes.
    pub handle: String,
    inner: Mutex<Inner>,
    /// Signalled when it has been made, or could not be.
    settled: Condvar,
    /// Writes of the record go one after the other, newest last.
    saving: Mutex<()>,
}

/// Who has a container in hand. Only one at a time does.
///
/// ```text
///  Maker ──(made)──> Nobody <──(failed)── Destroyer ──> Forgotten
///    └──(failed)────────────────────────────^
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hand {
    Maker,
    Nobody,
    Destroyer,
    /// Nothing is left of it, and nothing will be written any more.
    Forgotten,
}

#[derive(Debug)]
struct Inner {
    record: Record,
    body: Option<Body>,
    processes: HashMap<String, Arc<Process>>,
    hand: Hand,
    grace: Grace,
}

#[derive(Debug)]
struct Grace {
    time: Duration,
    calls: usize,
    /// Since when nobody has called.
    since: Instant,
}

impl Container {
    /// A container as its record has it, in the hand of who makes it or takes it over.
    pub fn new(record: Record, grace_time: Duration) -> Self {
        let grace = Grace { time: grace_time, calls: 0, since: Instant::now() };
        let handle = record.spec.handle.clone();
        let hand = Hand::Maker;
        let inner = Inner { record, body: None, processes: HashMap::new(), hand, grace };
        Self { handle, inner: Mutex::new(inner), settled: Condvar::new(), saving: Mutex::new(()) }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of the record.
    pub fn record(&self) -> Record {
        self.inner().record.clone()
    }

    /// Looks at the record.
    pub fn look<T>(&self, look: impl FnOnce(&Record) -> T) -> T {
        look(&self.inner().record)
    }

    /// Changes the record in the depot, then in memory. What is answered is durable; after an error
    /// nothing has changed.
    pub fn change<T>(
        &self,
        depot: &Depot,
        change: impl FnOnce(&mut Record) -> T,
    ) -> Result<T, Error> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let mut record = {
            let inner = self.inner();
            if inner.hand == Hand::Forgotten {
                return Err(Error::ContainerNotFound(self.handle.clone()));
            }
            inner.record.clone()
        };
        let answer = change(&mut record);
        depot
            .save(&record)
            .map_err(|error| Error::because("cannot write a container's record", &error))?;
        self.inner().record = record;
        Ok(answer)
    }

    /// Removes the record; nothing is written after that. Repeatable.
    pub fn forget(&self, depot: &Depot) -> std::io::Result<()> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        depot.remove(&self.handle)?;
        self.inner().hand = Hand::Forgotten;
        self.settled.notify_all();
        Ok(())
    }

    /// What the container is made of, once it has been made.
    pub fn body(&self) -> Option<Body> {
        self.inner().body.clone()
    }

    /// The container has been made.
    pub fn embody(&self, body: Body) {
        self.inner().body = Some(body);
    }

    /// Whether clients may see it without asking for everything.
    pub fn is_created(&self) -> bool {
        let inner = self.inner();
        matches!(inner.record.phase, Phase::Created | Phase::Stopped)
    }

    /// It has been made, or taken over: anybody may use it.
    pub fn settle(&self) {
        self.inner().hand = Hand::Nobody;
        self.settled.notify_all();
    }

    /// Whoever makes it cannot, and is the one to remove what there is of it.
    pub fn give_up(&self) {
        self.inner().hand = Hand::Destroyer;
        self.settled.notify_all();
    }

    /// Takes the right to destroy it, once it has been made; only one caller at a time has it.
    pub fn begin_destroy(&self) -> Result<(), Error> {
        let mut inner = self
            .settled
            .wait_while(self.inner(), |inner| inner.hand == Hand::Maker)
            .unwrap_or_else(PoisonError::into_inner);
        match inner.hand {
            Hand::Maker | Hand::Nobody => {
                inner.hand = Hand::Destroyer;
                Ok(())
            }
            Hand::Destroyer => Err(Error::Plain("container already being destroyed".into())),
            Hand::Forgotten => Err(Error::ContainerNotFound(self.handle.clone())),
        }
    }

    /// Gives the right back after a destroy that failed.
    pub fn fail_destroy(&self) {
        self.inner().hand = Hand::Nobody;
    }

    /// Whether a destroy has failed: something of it does not end.
    pub fn is_unkillable(&self) -> bool {
        let inner = self.inner();
        inner.hand == Hand::Nobody && inner.record.phase == Phase::Destroying
    }

    /// A process by id.
    pub fn process(&self, id: &str) -> Option<Arc<Process>> {
        self.inner().processes.get(id).cloned()
    }

    /// All processes, ended ones that are remembered included.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.inner().processes.values().cloned().collect()
    }

    /// Enters a process under its id, unless the id is taken or the container is being destroyed.
    pub fn add_process(&self, process: &Arc<Process>) -> Result<(), Error> {
        let mut inner = self.inner();
        if matches!(inner.hand, Hand::Destroyer | Hand::Forgotten) {
            return Err(Error::ContainerNotFound(self.handle.clone()));
        }
        let id = process.id();
        if inner.processes.contains_key(id) {
            return Err(Error::Plain(format!("process ID '{id}' already in use")));
        }
        inner.processes.insert(id.to_owned(), Arc::clone(process));
        Ok(())
    }

    /// Forgets a process.
    pub fn remove_process(&self, id: &str) {
        self.inner().processes.remove(id);
    }

    /// The grace time; zero is none.
    pub fn grace_time(&self) -> Duration {
        self.inner().grace.time
    }

    /// Sets the grace time, starting it anew.
    pub fn set_grace_time(&self, time: Duration) {
        let mut inner = self.inner();
        inner.grace.time = time;
        inner.grace.since = Instant::now();
    }

    /// A call begins: the grace time stands still until it ends.
    pub fn call(self: &Arc<Self>) -> Call {
        self.inner().grace.calls += 1;
        Call(Arc::clone(self))
    }

    /// Whether the grace time is over; `None` while it stands still or is none, else what is left.
    pub fn grace_left(&self) -> Option<Duration> {
        let grace = &self.inner().grace;
        (grace.calls == 0 && !grace.time.is_zero())
            .then(|| grace.time.saturating_sub(grace.since.elapsed()))
    }
}

/// A call in progress on a container.
#[derive(Debug)]
pub struct Call(Arc<Container>);

impl Drop for Call {
    fn drop(&mut self) {
        let mut inner = self.0.inner();
        inner.grace.calls -= 1;
        inner.grace.since = Instant::now();
    }
}
