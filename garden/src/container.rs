//! One container in the daemon's memory: its record, its handles on the kernel, its processes.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use garden_cgroup::Slot;

use crate::depot::{Depot, Phase, Record};
use crate::error::Error;
use crate::process::Process;

/// A container's process 1.
#[derive(Clone, Debug)]
pub struct Init {
    /// Its pid in the daemon's pid namespace.
    pub pid: i32,
    /// Its pidfd.
    pub pidfd: Arc<OwnedFd>,
}

/// What exists once a container has been made.
#[derive(Clone, Debug)]
pub struct Body {
    /// Process 1.
    pub init: Init,
    /// Its cgroup.
    pub slot: Arc<Slot>,
}

/// A handle and all that belongs to it.
#[derive(Debug)]
pub struct Container {
    /// Its name; never changes.
    pub handle: String,
    inner: Mutex<Inner>,
    /// Writes of the record go one after the other, newest last.
    saving: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    record: Record,
    body: Option<Body>,
    processes: HashMap<String, Arc<Process>>,
    destroying: bool,
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
    /// A container as its record has it.
    pub fn new(record: Record, body: Option<Body>, grace_time: Duration) -> Self {
        let grace = Grace { time: grace_time, calls: 0, since: Instant::now() };
        let handle = record.spec.handle.clone();
        let inner = Inner { record, body, processes: HashMap::new(), destroying: false, grace };
        Self { handle, inner: Mutex::new(inner), saving: Mutex::new(()) }
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

    /// Changes the record, in memory and in the depot. What is answered is durable.
    pub fn change<T>(
        &self,
        depot: &Depot,
        change: impl FnOnce(&mut Record) -> T,
    ) -> Result<T, Error> {
        let _saving = self.saving.lock().unwrap_or_else(PoisonError::into_inner);
        let (record, answer) = {
            let mut inner = self.inner();
            let answer = change(&mut inner.record);
            (inner.record.clone(), answer)
        };
        depot
            .save(&record)
            .map_err(|error| Error::because("cannot write a container's record", &error))?;
        Ok(answer)
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
        inner.record.phase == Phase::Created
    }

    /// Takes the right to destroy it; only one caller at a time has it.
    pub fn begin_destroy(&self) -> bool {
        !std::mem::replace(&mut self.inner().destroying, true)
    }

    /// Gives the right back after a destroy that failed.
    pub fn fail_destroy(&self) {
        self.inner().destroying = false;
    }

    /// A process by id.
    pub fn process(&self, id: &str) -> Option<Arc<Process>> {
        self.inner().processes.get(id).cloned()
    }

    /// All processes, ended ones that are remembered included.
    pub fn processes(&self) -> Vec<Arc<Process>> {
        self.inner().processes.values().cloned().collect()
    }

    /// Enters a process under its id, unless the id is taken.
    pub fn add_process(&self, process: &Arc<Process>) -> bool {
        let mut inner = self.inner();
        if inner.processes.contains_key(process.id()) {
            return false;
        }
        inner.processes.insert(process.id().to_owned(), Arc::clone(process));
        true
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
