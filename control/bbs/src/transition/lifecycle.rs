//! The states of the ordinary row, and who may change them.

use std::collections::BTreeMap;
use std::sync::Arc;

use bbs_models::actual_lrp::Presence;
use bbs_models::error::Type;
use bbs_models::{
    ActualLRP, ActualLRPInstanceKey, ActualLRPInternalRoute, ActualLRPKey, ActualLRPNetInfo, Error,
    Message, ModificationTag, state,
};

use super::reason;
use crate::crash;
use crate::rows::{Rows, is_same};

/// What a cell tells of an instance that runs on it.
#[derive(Clone, Debug, Default)]
pub struct Started {
    /// Which index of which process.
    pub key: ActualLRPKey,
    /// The cell's container.
    pub instance: ActualLRPInstanceKey,
    /// Where it is reached.
    pub net_info: ActualLRPNetInfo,
    /// Its names inside.
    pub internal_routes: Vec<ActualLRPInternalRoute>,
    /// Its tags, filled in for the instance.
    pub metric_tags: BTreeMap<String, String>,
    /// Whether it is ready for requests.
    pub routable: bool,
    /// The cell's zone.
    pub availability_zone: String,
}

impl Started {
    /// The row that says so. Crash count and reason stay those of `before`.
    pub(super) fn row(self, before: &ActualLRP, now: i64) -> ActualLRP {
        ActualLRP {
            actual_lrp_key: self.key.into(),
            actual_lrp_instance_key: self.instance.into(),
            actual_lrp_net_info: self.net_info.into(),
            crash_count: before.crash_count,
            crash_reason: before.crash_reason.clone(),
            state: state::RUNNING.into(),
            since: now,
            modification_tag: before.modification_tag.clone(),
            presence: before.presence,
            actual_lrp_internal_routes: self.internal_routes,
            metric_tags: self.metric_tags,
            routable: Some(self.routable),
            availability_zone: self.availability_zone,
            ..ActualLRP::default()
        }
    }

    /// Whether `row` already says the same; a cell repeats itself every 30 s.
    pub(super) fn is_told_by(&self, row: &ActualLRP) -> bool {
        row.state == state::RUNNING
            && is_same(&row.actual_lrp_instance_key, &self.instance)
            && is_equal(&*row.actual_lrp_net_info, &self.net_info)
            && row.actual_lrp_internal_routes == self.internal_routes
            && row.metric_tags == self.metric_tags
            && row.routable == Some(self.routable)
            && row.availability_zone == self.availability_zone
    }
}

/// Equal on the wire, so that what a newer peer added counts as well.
fn is_equal<M: Message>(one: &M, other: &M) -> bool {
    one.encode_to_vec() == other.encode_to_vec()
}

pub(super) fn fresh_tag(epoch: String) -> ModificationTag {
    ModificationTag { epoch, ..ModificationTag::default() }
}

/// A new instance that waits for a cell.
pub fn create(key: ActualLRPKey, now: i64, epoch: String) -> ActualLRP {
    ActualLRP {
        actual_lrp_key: key.into(),
        actual_lrp_instance_key: ActualLRPInstanceKey::default().into(),
        actual_lrp_net_info: ActualLRPNetInfo::default().into(),
        state: state::UNCLAIMED.into(),
        since: now,
        modification_tag: fresh_tag(epoch).into(),
        routable: Some(false),
        ..ActualLRP::default()
    }
}

/// The row after a change at `now`: everything but the tag and the time stays.
pub(super) fn touched(row: &ActualLRP, now: i64) -> ActualLRP {
    let mut row = row.clone();
    row.since = now;
    row.modification_tag.get_or_insert_default().increment();
    row
}

/// Takes the instance from its cell. The last instance's routes, tags and zone stay visible.
pub(super) fn vacated(row: &ActualLRP, state: &str, now: i64) -> ActualLRP {
    ActualLRP {
        actual_lrp_instance_key: ActualLRPInstanceKey::default().into(),
        actual_lrp_net_info: ActualLRPNetInfo::default().into(),
        placement_error: String::new(),
        state: state.into(),
        ..touched(row, now)
    }
}

fn ordinary(rows: &Rows) -> Result<&Arc<ActualLRP>, Error> {
    rows.ordinary.as_ref().ok_or_else(|| Type::ResourceNotFound.into())
}

/// A cell takes an instance that waits. A suspect instance's cell is heard and ignored.
pub fn claim(rows: &Rows, instance: &ActualLRPInstanceKey, now: i64) -> Result<Rows, Error> {
    if rows.is_held_by(Presence::SUSPECT, instance) {
        return Ok(rows.clone());
    }
    let row = ordinary(rows)?;
    let same = is_same(&row.actual_lrp_instance_key, instance);
    match row.state.as_str() {
        state::CLAIMED if same => Ok(rows.clone()),
        state::UNCLAIMED => Ok(rows.with_ordinary(claimed(row, instance, now))),
        state::RUNNING if same => Ok(rows.with_ordinary(claimed(row, instance, now))),
        _ => Err(Type::ActualLRPCannotBeClaimed.into()),
    }
}

fn claimed(row: &ActualLRP, instance: &ActualLRPInstanceKey, now: i64) -> ActualLRP {
    ActualLRP {
        actual_lrp_instance_key: instance.clone().into(),
        ..vacated(row, state::CLAIMED, now)
    }
}

/// A cell says that an instance runs. An instance that the board has lost is added again; a claim
/// of another instance is overridden, since what runs is worth more. Rows that only served until
/// then go.
pub fn start(rows: &Rows, started: Started, now: i64, epoch: String) -> Result<Rows, Error> {
    if rows.is_held_by(Presence::SUSPECT, &started.instance) {
        return Ok(rows.clone());
    }
    let row = match &rows.ordinary {
        None => {
            let new = ActualLRP { modification_tag: fresh_tag(epoch).into(), ..Default::default() };
            Arc::new(started.row(&new, now))
        }
        Some(row) if started.is_told_by(row) => row.clone(),
        Some(row) => {
            let same = is_same(&row.actual_lrp_instance_key, &started.instance);
            match row.state.as_str() {
                state::UNCLAIMED | state::CLAIMED => {}
                state::RUNNING | state::CRASHED if same => {}
                _ => return Err(Type::ActualLRPCannotBeStarted.into()),
            }
            Arc::new(started.row(&touched(row, now), now))
        }
    };
    Ok(Rows { ordinary: Some(row), evacuating: None, suspect: None })
}

/// Gives up an instance: it waits for another cell.
pub fn unclaim(rows: &Rows, now: i64) -> Result<Rows, Error> {
    let row = ordinary(rows)?;
    match row.state.as_str() {
        state::UNCLAIMED => Ok(rows.clone()),
        _ => Ok(rows.with_ordinary(vacated(row, state::UNCLAIMED, now))),
    }
}

/// What follows from a crash.
#[derive(Clone, Debug)]
pub struct Crashed {
    /// The rows then.
    pub rows: Rows,
    /// It waits for a cell at once: an auction is due.
    pub restarts: bool,
}

/// A cell says that its instance ended without being told to.
pub fn crash(
    rows: &Rows,
    instance: &ActualLRPInstanceKey,
    why: &str,
    now: i64,
) -> Result<Crashed, Error> {
    if rows.is_held_by(Presence::SUSPECT, instance) {
        return Ok(Crashed { rows: rows.without(Presence::SUSPECT), restarts: false });
    }
    let row = ordinary(rows)?;
    let running = match row.state.as_str() {
        state::RUNNING => Some(now.saturating_sub(row.since)),
        state::CLAIMED => None,
        _ => return Err(Type::ActualLRPCannotBeCrashed.into()),
    };
    if !is_same(&row.actual_lrp_instance_key, instance) {
        return Err(Type::ActualLRPCannotBeCrashed.into());
    }
    let count = crash::count_after(row.crash_count, running);
    let restarts = crash::restarts_at_once(count);
    let state = if restarts { state::UNCLAIMED } else { state::CRASHED };
    let row =
        ActualLRP { crash_count: count, crash_reason: reason(why), ..vacated(row, state, now) };
    Ok(Crashed { rows: rows.with_ordinary(row), restarts })
}

/// No cell could take the instance. It goes on waiting, with the reason. For an index without a
/// row there is nothing to say.
pub fn fail(rows: &Rows, why: &str, now: i64) -> Result<Rows, Error> {
    let Some(row) = &rows.ordinary else { return Ok(rows.clone()) };
    if row.state != state::UNCLAIMED {
        return Err(Type::ActualLRPCannotBeFailed.into());
    }
    let row = ActualLRP { placement_error: reason(why), ..touched(row, now) };
    Ok(rows.with_ordinary(row))
}

/// Deletes the ordinary row if it is this instance, whichever it is if none is given.
pub fn remove(rows: &Rows, instance: Option<&ActualLRPInstanceKey>) -> Result<Rows, Error> {
    let row = ordinary(rows)?;
    if instance.is_some_and(|instance| !is_same(&row.actual_lrp_instance_key, instance)) {
        return Err(Type::ResourceNotFound.into());
    }
    Ok(rows.without(Presence::ORDINARY))
}
