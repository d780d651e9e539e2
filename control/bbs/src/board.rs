//! What the API's calls do: decide on a change, make it durable, tell whom it concerns.
//!
//! Requests to the auctioneer and to reps that follow from a call are made after it, on their own;
//! a call does not fail because one of them does. Convergence repairs what they miss.

mod actual_lrps;
mod desired_lrps;
mod evacuation;
mod tasks;

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bbs_models::{ActualLRP, CellPresence, Error, UpsertDomainRequest, state};
use tokio_util::task::TaskTracker;
use transport::TraceId;

pub use self::actual_lrps::Filter;
use crate::auctions::{Auctioneer, LrpStart};
use crate::callbacks::Callbacks;
use crate::cells::{Cells, Reps};
use crate::image::{Image, Write, writes};
use crate::rows::{Rows, Slot};
use crate::store::{Change, Store};
use crate::{changes, transition};

/// What a board works with.
#[derive(Debug)]
pub struct Parts {
    /// Its records.
    pub store: Store,
    /// The registered cells.
    pub cells: Arc<dyn Cells>,
    /// The reps of these cells.
    pub reps: Reps,
    /// Whom it asks for cells.
    pub auctioneer: Auctioneer,
    /// Who delivers tasks' results.
    pub callbacks: Callbacks,
    /// How often a task may be rejected before it fails.
    pub task_retries: i32,
}

/// The bulletin board. Clones are the same board.
#[derive(Clone, Debug)]
pub struct Board {
    parts: Arc<Parts>,
    /// What follows from calls and is still under way.
    following: TaskTracker,
}

/// Nanoseconds since the epoch.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

/// A fresh guid for a modification tag.
pub(crate) fn epoch() -> String {
    uuid::Uuid::new_v4().to_string()
}

impl Board {
    /// A board out of its parts.
    pub fn new(parts: Parts) -> Self {
        Self { parts: Arc::new(parts), following: TaskTracker::new() }
    }

    /// Waits for what follows from calls. No call may be made any more.
    pub async fn finish(&self) {
        self.following.close();
        self.following.wait().await;
    }

    pub(crate) fn store(&self) -> &Store {
        &self.parts.store
    }

    pub(crate) fn reps(&self) -> &Reps {
        &self.parts.reps
    }

    pub(crate) fn auctioneer(&self) -> &Auctioneer {
        &self.parts.auctioneer
    }

    /// Does something after the call, on its own.
    pub(crate) fn follow(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.following.spawn(work);
    }

    /// All registered cells.
    pub async fn cells(&self) -> Result<Vec<CellPresence>, Error> {
        self.parts.cells.list().await
    }

    /// The fresh domains.
    pub fn domains(&self) -> Result<Vec<String>, Error> {
        let fresh = self.store().read(|image| image.fresh_domains(now()))?;
        Ok(fresh.into_iter().map(|domain| domain.to_string()).collect())
    }

    /// Makes a domain fresh for a time; for ever when the time is 0.
    pub async fn upsert_domain(&self, request: UpsertDomainRequest) -> Result<(), Error> {
        let end = match i64::from(request.ttl) {
            0 => i64::MAX,
            // The original rounds to whole seconds.
            ttl => (now() / 1_000_000_000).saturating_add(ttl).saturating_mul(1_000_000_000),
        };
        let write = Write::Domain(request.domain.as_str().into(), Some(end));
        self.store().change(|_| Ok((Change { writes: vec![write], events: Vec::new() }, ()))).await
    }

    /// Makes the rows of one index into others.
    pub(crate) async fn change_rows<T>(
        &self,
        slot: &Slot,
        trace: &TraceId,
        decide: impl FnOnce(&Image, &Rows) -> Result<(Rows, T), Error>,
    ) -> Result<T, Error> {
        self.store()
            .change(|image| {
                let before = image.rows(slot);
                let (after, answer) = decide(image, &before)?;
                let mut change = Change::default();
                put(&mut change, slot, &before, &after, trace.as_str());
                Ok((change, answer))
            })
            .await
    }

    /// Asks for a cell for one instance, if it is still desired.
    pub(crate) fn auction(&self, slot: &Slot) {
        let desired = self.store().read(|image| image.desired(&slot.process_guid).cloned());
        let Ok(Some(desired)) = desired else { return };
        let starts = [LrpStart::new(&desired, vec![slot.index], false)];
        let auctioneer = self.auctioneer().clone();
        self.follow(async move { auctioneer.start_lrps(&starts, &TraceId::default()).await });
    }

    /// Tells the reps of these instances to stop them.
    pub(crate) fn stop(&self, rows: Vec<Arc<ActualLRP>>, trace: &TraceId) {
        if rows.is_empty() {
            return;
        }
        let (board, trace) = (self.clone(), trace.clone());
        self.follow(async move {
            let cells = match board.reps().registered().await {
                Ok(cells) => cells,
                Err(error) => {
                    let instances = rows.len();
                    tracing::error!(%error, instances, "instances are not stopped: no list of cells");
                    return;
                }
            };
            let mut stops = tokio::task::JoinSet::new();
            for row in rows {
                let id = &row.actual_lrp_instance_key.cell_id;
                let Some(cell) = cells.get(id).cloned() else {
                    tracing::warn!(cell = id, guid = row.actual_lrp_key.process_guid, "an instance is not stopped: its cell is not registered");
                    continue;
                };
                let (board, trace) = (board.clone(), trace.clone());
                stops.spawn(async move {
                    if let Err(error) = board.reps().stop(&cell, &row, &trace).await {
                        let guid = &row.actual_lrp_key.process_guid;
                        let error = &error as &dyn std::error::Error;
                        tracing::error!(guid, error, "an instance is not stopped");
                    }
                });
            }
            while stops.join_next().await.is_some() {}
        });
    }
}

/// Adds to a change what makes `before` into `after`, with its events.
pub(crate) fn put(change: &mut Change, slot: &Slot, before: &Rows, after: &Rows, trace: &str) {
    change.writes.extend(writes(slot, before, after));
    change.events.extend(changes::events(before, after, trace));
    change.events.extend(changes::group_events(before, after));
}

/// Adds to a change that the missing ordinary rows of these indices are created, and returns which
/// those are.
pub(crate) fn create_missing(
    change: &mut Change,
    image: &Image,
    desired: &crate::desired::Desired,
    indices: std::ops::Range<i32>,
    trace: &str,
) -> Vec<i32> {
    let mut created = Vec::new();
    for index in indices {
        let slot = Slot { process_guid: desired.process_guid.clone(), index };
        let before = image.rows(&slot);
        if before.ordinary.is_some() {
            continue;
        }
        let row = transition::create(desired.key(index), now(), epoch());
        put(change, &slot, &before, &before.with_ordinary(row), trace);
        created.push(index);
    }
    created
}

/// Adds to a change that these rows are stopped: what no cell has goes at once, what one has is
/// returned, for its rep to be told. Evacuating rows are left alone.
pub(crate) fn stop_rows<'a>(
    change: &mut Change,
    rows: impl Iterator<Item = (&'a Slot, &'a Rows)>,
    trace: &str,
) -> Vec<Arc<ActualLRP>> {
    let mut running = Vec::new();
    for (slot, before) in rows {
        let mut after = before.clone();
        if before.ordinary.as_ref().is_some_and(|row| !is_on_cell(row)) {
            after.ordinary = None;
        }
        put(change, slot, before, &after, trace);
        running.extend([after.ordinary, after.suspect].into_iter().flatten());
    }
    running
}

/// Whether a cell has the instance.
pub(crate) fn is_on_cell(row: &ActualLRP) -> bool {
    matches!(row.state.as_str(), state::CLAIMED | state::RUNNING)
}
