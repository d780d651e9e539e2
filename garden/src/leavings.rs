//! What ended containers leave and nobody has to wait for: taken away by one thread, after the answer.
//!
//! A container is destroyed when its processes are dead and its record is gone. Its cgroup, its
//! mounts, its child in the keeper's ledger and its volume follow. A daemon that is killed meanwhile
//! leaves them without a record, so the next one takes them away when it starts.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use crate::error::Error;
use crate::pool::Maker;

/// How many may wait; then whoever brings one does its work.
const BACKLOG: usize = 256;

/// One container's.
#[derive(Debug, Default)]
pub(crate) struct Leaving {
    /// Its mount namespace and mounts that are in none; the last descriptor takes them along, and the
    /// kernel a grace period.
    pub(crate) mounts: Vec<OwnedFd>,
    /// Its cgroup and those of its peas.
    pub(crate) slots: Vec<u32>,
    /// Tickets of its ended processes.
    pub(crate) children: Vec<u64>,
    /// Its volume and those of its peas.
    pub(crate) volumes: Vec<u32>,
}

#[derive(Debug)]
struct Shared {
    maker: Arc<Maker>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Leaving>,
    /// One is being taken away.
    busy: bool,
    closing: bool,
}

/// The thread and its queue.
#[derive(Debug)]
pub(crate) struct Leavings {
    shared: Arc<Shared>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        let mut state = self.state();
        loop {
            let idle = |state: &mut State| state.waiting.is_empty() && !state.closing;
            state = self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner);
            let Some(leaving) = state.waiting.pop_front() else { return };
            state.busy = true;
            drop(state);
            self.maker.take_away(leaving);
            state = self.state();
            state.busy = false;
            self.changed.notify_all();
        }
    }
}

impl Leavings {
    /// Starts the thread.
    pub(crate) fn start(maker: Arc<Maker>) -> Result<Self, Error> {
        let shared = Arc::new(Shared { maker, state: Mutex::default(), changed: Condvar::new() });
        let worker = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("leavings".into())
            .spawn(move || worker.work())
            .map_err(|error| Error::because("cannot start a thread", &error))?;
        Ok(Self { shared, thread: Mutex::new(Some(thread)) })
    }

    /// Has something taken away before long.
    pub(crate) fn put(&self, leaving: Leaving) {
        let mut state = self.shared.state();
        if state.waiting.len() >= BACKLOG || state.closing {
            drop(state);
            self.shared.maker.take_away(leaving);
            return;
        }
        state.waiting.push_back(leaving);
        self.shared.changed.notify_all();
    }

    /// How many have something that is still to be taken away.
    pub(crate) fn waiting(&self) -> usize {
        let state = self.shared.state();
        state.waiting.len() + usize::from(state.busy)
    }

    /// Waits until all is taken away but volumes.
    pub(crate) fn settle(&self) {
        let working = |state: &mut State| state.busy || !state.waiting.is_empty();
        let settled = self.shared.changed.wait_while(self.shared.state(), working);
        drop(settled.unwrap_or_else(PoisonError::into_inner));
    }

    /// Waits until all is taken away but volumes, and ends the thread.
    pub(crate) fn close(&self) {
        self.shared.state().closing = true;
        self.shared.changed.notify_all();
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the thread that takes away what containers leave died");
        }
    }
}
