//! What a pass does, decided from one look at everything. No I/O, no clock.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;
use std::time::Duration;

use bbs_models::actual_lrp::Presence;
use bbs_models::task::State;
use bbs_models::{ActualLRP, Task, state};

use crate::cells::{InternalRoute, Update};
use crate::desired::Desired;
use crate::rows::{PRESENCES, Rows, Slot};
use crate::{crash, task};

/// How long things may stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// An instance waits for a cell before the auctioneer is asked again.
    pub unclaimed: Duration,
    /// A task waits for a cell before it fails.
    pub pending_task: Duration,
    /// A task's result waits before its delivery is tried again.
    pub kick_task: Duration,
    /// A task's result is kept.
    pub completed_task: Duration,
}

impl Default for Patience {
    /// The original's.
    fn default() -> Self {
        Self {
            unclaimed: Duration::from_secs(30),
            pending_task: Duration::from_secs(1800),
            kick_task: Duration::from_secs(30),
            completed_task: Duration::from_secs(120),
        }
    }
}

/// Everything a pass over LRPs looks at.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// Nanoseconds since the epoch.
    pub now: i64,
    /// The domains in which what is not desired may be destroyed.
    pub fresh: BTreeSet<Arc<str>>,
    /// What is desired, by guid.
    pub desired: BTreeMap<Arc<str>, Arc<Desired>>,
    /// What there is.
    pub rows: BTreeMap<Slot, Rows>,
    /// The registered cells.
    pub cells: HashSet<String>,
}

/// What is done about one index.
#[derive(Clone, Debug)]
pub enum Step {
    /// Rows go.
    Drop(Vec<Presence>),
    /// The auctioneer is asked once more.
    Auction(Arc<Desired>),
    /// An instance is missing.
    Create(Arc<Desired>),
    /// The ordinary instance's cell has vanished.
    Suspend(Arc<Desired>),
    /// The suspect instance's cell is back.
    Promote,
    /// The time of a crashed instance has come.
    Restart(Arc<Desired>),
    /// The ordinary instance's cell is told to stop it.
    Stop,
}

/// What a pass over LRPs does.
#[derive(Debug, Default)]
pub struct LrpPlan {
    /// Steps, with the rows that they were decided on.
    pub steps: Vec<(Slot, Rows, Step)>,
    /// Instances that do not carry what is desired.
    pub updates: Vec<(Arc<ActualLRP>, Update)>,
}

/// Whether these are the very same rows.
pub fn is_unchanged(seen: &Rows, now: &Rows) -> bool {
    PRESENCES.into_iter().all(|presence| match (seen.get(presence), now.get(presence)) {
        (None, None) => true,
        (Some(seen), Some(now)) => Arc::ptr_eq(seen, now),
        _ => false,
    })
}

/// Plans a pass over LRPs. An index gets at most one step; what else is to be done about it shows
/// in the next pass.
pub fn lrps(snapshot: &Snapshot, patience: &Patience) -> LrpPlan {
    let mut plan = LrpPlan::default();
    for (slot, rows) in &snapshot.rows {
        let desired = snapshot.desired.get(&slot.process_guid);
        if let Some(step) = about(snapshot, patience, slot, rows, desired) {
            plan.steps.push((slot.clone(), rows.clone(), step));
        }
        if let (Some(desired), Some(row)) = (desired, &rows.ordinary)
            && let Some(update) = update(desired, row)
        {
            plan.updates.push((row.clone(), update));
        }
    }
    for (guid, desired) in &snapshot.desired {
        for index in 0..desired.instances {
            let slot = Slot { process_guid: guid.clone(), index };
            if !snapshot.rows.contains_key(&slot) {
                plan.steps.push((slot, Rows::default(), Step::Create(desired.clone())));
            }
        }
    }
    plan
}

/// What is to be done about an index that has rows.
fn about(
    snapshot: &Snapshot,
    patience: &Patience,
    slot: &Slot,
    rows: &Rows,
    desired: Option<&Arc<Desired>>,
) -> Option<Step> {
    let is_registered =
        |row: &ActualLRP| snapshot.cells.contains(&row.actual_lrp_instance_key.cell_id);
    let wanted = desired.filter(|desired| slot.index < desired.instances);
    if rows.evacuating.as_ref().is_some_and(|row| !is_registered(row)) {
        return Some(Step::Drop(vec![Presence::EVACUATING]));
    }
    let is_fresh = rows.iter().any(|row| snapshot.fresh.contains(&*row.actual_lrp_key.domain));
    if let Some(suspect) = &rows.suspect {
        if desired.is_none() && is_fresh {
            return Some(Step::Drop(vec![Presence::SUSPECT]));
        }
        let both_run = suspect.state == state::RUNNING
            && rows.ordinary.as_ref().is_some_and(|row| row.state == state::RUNNING);
        if both_run {
            return Some(Step::Drop(vec![Presence::SUSPECT]));
        }
        if is_registered(suspect) {
            return Some(Step::Promote);
        }
    }
    let Some(row) = &rows.ordinary else { return wanted.cloned().map(Step::Create) };
    let on_cell = matches!(row.state.as_str(), state::CLAIMED | state::RUNNING);
    let Some(wanted) = wanted.cloned() else {
        return match is_fresh {
            false => None,
            true if on_cell && is_registered(row) => Some(Step::Stop),
            true => Some(Step::Drop(vec![Presence::ORDINARY])),
        };
    };
    match row.state.as_str() {
        state::CLAIMED | state::RUNNING if !is_registered(row) => Some(Step::Suspend(wanted)),
        state::UNCLAIMED if has_passed(row.since, patience.unclaimed, snapshot.now) => {
            Some(Step::Auction(wanted))
        }
        state::CRASHED => crash::restart_time(row.crash_count, row.since)
            .filter(|&time| time <= snapshot.now)
            .map(|_| Step::Restart(wanted)),
        _ => None,
    }
}

/// Whether more than `time` lies between `since` and `now`.
fn has_passed(since: i64, time: Duration, now: i64) -> bool {
    let time = i64::try_from(time.as_nanos()).unwrap_or(i64::MAX);
    now.saturating_sub(since) > time
}

/// What the rep of a running instance is to be told, if it does not carry what is desired.
fn update(desired: &Desired, row: &ActualLRP) -> Option<Update> {
    if row.state != state::RUNNING {
        return None;
    }
    let (key, instance) = (&row.actual_lrp_key, &row.actual_lrp_instance_key);
    let mut update = Update::of(row);
    let mut has: Vec<_> = row.actual_lrp_internal_routes.iter().map(|r| &r.hostname).collect();
    let mut wants: Vec<_> = desired.internal_routes.iter().collect();
    has.sort_unstable();
    wants.sort_unstable();
    if has != wants {
        let route = |hostname: &String| InternalRoute { hostname: hostname.clone() };
        update.internal_routes = Some(desired.internal_routes.iter().map(route).collect());
    }
    let tags = desired.tags_of_instance(key.index, &instance.instance_guid);
    if row.metric_tags != tags {
        update.metric_tags = Some(tags);
    }
    (update.internal_routes.is_some() || update.metric_tags.is_some()).then_some(update)
}

/// What is done about one task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TaskStep {
    /// The auctioneer is asked once more.
    Auction,
    /// It fails, for this reason.
    GiveUp(&'static str),
    /// Its result was not delivered: somebody else may try.
    Demote,
    /// Its result was not delivered, for so long that it is deleted.
    Abandon,
    /// Its result is delivered.
    Deliver,
    /// Nobody has come for its result.
    Delete,
}

/// Plans a pass over tasks.
pub fn tasks<'a>(
    tasks: &'a [Arc<Task>],
    cells: &'a HashSet<String>,
    now: i64,
    patience: &'a Patience,
) -> impl Iterator<Item = (Arc<Task>, TaskStep)> + 'a {
    let about = move |task: &Task| match task.state.as_known()? {
        State::Pending if has_passed(task.created_at, patience.pending_task, now) => {
            Some(TaskStep::GiveUp(task::EXPIRED))
        }
        State::Pending => Some(TaskStep::Auction),
        State::Running if !cells.contains(&task.cell_id) => Some(TaskStep::GiveUp(task::CELL_LOST)),
        State::Resolving if has_passed(task.updated_at, patience.kick_task, now) => {
            match has_passed(task.first_completed_at, patience.completed_task, now) {
                true => Some(TaskStep::Abandon),
                false => Some(TaskStep::Demote),
            }
        }
        State::Completed if has_passed(task.first_completed_at, patience.completed_task, now) => {
            Some(TaskStep::Delete)
        }
        State::Completed if has_passed(task.updated_at, patience.kick_task, now) => {
            Some(TaskStep::Deliver)
        }
        _ => None,
    };
    tasks.iter().filter_map(move |task| Some((task.clone(), about(task)?)))
}
