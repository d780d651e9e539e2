//! The containers that there are.

use std::collections::BTreeMap;

use tokio_util::sync::CancellationToken;

use super::{Error, Inner};
use crate::cache::Kept;
use crate::capacity::Capacity;
use crate::container::{Container, Guid};
use crate::logs::Streamer;

/// All containers, and the account of what they take.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) capacity: Capacity,
    pub(super) entries: BTreeMap<Guid, Entry>,
}

/// One of them, with what it holds.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) container: Container,
    /// Cancelled when its processes are to end.
    pub(super) stop: CancellationToken,
    /// Downloads that are mounted into it.
    pub(super) mounted: Vec<Kept>,
    pub(super) since: tokio::time::Instant,
}

impl Entry {
    /// Its log; none before it is known whose it is.
    pub(super) fn log(&self, inner: &Inner) -> Option<Streamer> {
        self.container.run.as_ref().map(|run| inner.streamer(run))
    }
}

impl Table {
    pub(super) fn new(capacity: Capacity) -> Self {
        Self { capacity, entries: BTreeMap::new() }
    }

    pub(super) fn insert(&mut self, container: Container) -> &mut Entry {
        let guid = container.guid.clone();
        let entry = Entry {
            container,
            stop: CancellationToken::new(),
            mounted: Vec::new(),
            since: tokio::time::Instant::now(),
        };
        self.entries.entry(guid).insert_entry(entry).into_mut()
    }

    pub(super) fn get(&self, guid: &str) -> Result<&Entry, Error> {
        self.entries.get(guid).ok_or_else(|| Error::NotFound(guid.to_owned()))
    }

    pub(super) fn get_mut(&mut self, guid: &str) -> Result<&mut Entry, Error> {
        self.entries.get_mut(guid).ok_or_else(|| Error::NotFound(guid.to_owned()))
    }
}
