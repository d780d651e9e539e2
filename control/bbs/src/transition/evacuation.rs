//! Calls of a cell that is being drained: what becomes of its instances, and whether it keeps
//! their containers until they are replaced.

use std::sync::Arc;

use bbs_models::actual_lrp::Presence;
use bbs_models::error::Type;
use bbs_models::{ActualLRP, ActualLRPInstanceKey, Error, state};

use super::lifecycle::{Started, crash, fresh_tag, touched, unclaim};
use crate::rows::Rows;

/// What follows from an evacuation call.
#[derive(Clone, Debug)]
pub struct Evacuated {
    /// The rows then.
    pub rows: Rows,
    /// The cell keeps the container and asks again.
    pub keep_container: bool,
    /// An instance waits for a cell now: an auction is due.
    pub auction: bool,
}

impl Evacuated {
    fn gone(rows: Rows) -> Self {
        Self { rows, keep_container: false, auction: false }
    }

    fn kept(rows: Rows) -> Self {
        Self { rows, keep_container: true, auction: false }
    }
}

/// How the desired LRP wants its running instances to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Evacuee {
    /// The old instance serves until its replacement does.
    Rolling,
    /// Never two of an index: it may go once all that are desired run, one at a time.
    Recreate {
        /// Whether all desired instances run as ordinary ones.
        complete: bool,
    },
}

/// The row that only serves of this instance goes, if there is one.
fn without_serving(rows: &Rows, instance: &ActualLRPInstanceKey) -> Option<Rows> {
    [Presence::EVACUATING, Presence::SUSPECT]
        .into_iter()
        .find(|&presence| rows.is_held_by(presence, instance))
        .map(|presence| rows.without(presence))
}

/// An instance whose container is only reserved or being made goes back to wait.
pub fn evacuate_claimed(
    rows: &Rows,
    instance: &ActualLRPInstanceKey,
    now: i64,
) -> Result<Evacuated, Error> {
    if let Some(rows) = without_serving(rows, instance) {
        return Ok(Evacuated::gone(rows));
    }
    let row = rows.ordinary.as_ref().ok_or(Type::ResourceNotFound)?;
    if row.state != state::UNCLAIMED && !rows.is_held_by(Presence::ORDINARY, instance) {
        return Err(Type::ActualLRPCannotBeUnclaimed.into());
    }
    Ok(Evacuated { auction: true, ..Evacuated::gone(unclaim(rows, now)?) })
}

/// An instance whose container has crashed. It waits as after any crash, but no auction is due.
pub fn evacuate_crashed(
    rows: &Rows,
    instance: &ActualLRPInstanceKey,
    why: &str,
    now: i64,
) -> Result<Evacuated, Error> {
    match without_serving(rows, instance) {
        Some(rows) => Ok(Evacuated::gone(rows)),
        None => Ok(Evacuated::gone(crash(rows, instance, why, now)?.rows)),
    }
}

/// An instance whose container was stopped goes, whatever its presence.
pub fn evacuate_stopped(rows: &Rows, instance: &ActualLRPInstanceKey) -> Result<Evacuated, Error> {
    if let Some(rows) = without_serving(rows, instance) {
        return Ok(Evacuated::gone(rows));
    }
    if rows.is_held_by(Presence::ORDINARY, instance) {
        return Ok(Evacuated::gone(rows.without(Presence::ORDINARY)));
    }
    Err(Type::ResourceNotFound.into())
}

/// The evacuating row goes, if it is this instance.
pub fn remove_evacuating(rows: &Rows, instance: &ActualLRPInstanceKey) -> Result<Rows, Error> {
    match rows.is_held_by(Presence::EVACUATING, instance) {
        true => Ok(rows.without(Presence::EVACUATING)),
        false => Err(Type::ResourceNotFound.into()),
    }
}

/// An instance that runs on a cell being drained.
pub fn evacuate(
    rows: &Rows,
    started: Started,
    evacuee: Evacuee,
    now: i64,
    epoch: String,
) -> Evacuated {
    let held = |presence| rows.is_held_by(presence, &started.instance);
    let replaced = match &rows.ordinary {
        None => true,
        Some(row) => {
            !held(Presence::ORDINARY)
                && matches!(row.state.as_str(), state::RUNNING | state::CRASHED)
        }
    };
    if replaced {
        let mut rows = rows.without(Presence::EVACUATING);
        if rows.is_held_by(Presence::SUSPECT, &started.instance) {
            rows.suspect = None;
        }
        return Evacuated::gone(rows);
    }
    if let Evacuee::Recreate { complete } = evacuee {
        return match held(Presence::ORDINARY) {
            false => Evacuated::gone(rows.clone()),
            true if complete => give_up(rows, now),
            true => Evacuated::kept(rows.clone()),
        };
    }
    if held(Presence::ORDINARY) {
        // The zone stays what the cell said when the instance started.
        let mut told = rows.ordinary.iter().map(|row| &row.availability_zone);
        let zone = told.find(|zone| !zone.is_empty()).cloned();
        let availability_zone = zone.unwrap_or_else(|| started.availability_zone.clone());
        // So do the names inside, where the cell tells none.
        let mut internal_routes = started.internal_routes;
        if internal_routes.is_empty() {
            let row = rows.ordinary.iter();
            internal_routes = row.flat_map(|row| row.actual_lrp_internal_routes.clone()).collect();
        }
        let started = Started { availability_zone, internal_routes, ..started };
        let evacuating = serve_on(rows, started, now, epoch);
        let Evacuated { rows, auction, .. } = give_up(rows, now);
        let rows = Rows { evacuating: Some(evacuating), ..rows };
        return Evacuated { rows, keep_container: true, auction };
    }
    if rows.evacuating.is_some() && !held(Presence::EVACUATING) {
        return Evacuated::gone(rows.clone());
    }
    let suspect = rows.suspect.clone().filter(|_| !held(Presence::SUSPECT));
    let evacuating = Some(serve_on(rows, started, now, epoch));
    Evacuated::kept(Rows { evacuating, suspect, ordinary: rows.ordinary.clone() })
}

fn give_up(rows: &Rows, now: i64) -> Evacuated {
    match unclaim(rows, now) {
        Ok(rows) => Evacuated { auction: true, ..Evacuated::gone(rows) },
        Err(_) => Evacuated::gone(rows.clone()),
    }
}

/// The evacuating row of an instance that serves on: as it is if it already says so.
fn serve_on(rows: &Rows, started: Started, now: i64, epoch: String) -> Arc<ActualLRP> {
    let before = match &rows.evacuating {
        Some(row) if started.is_told_by(row) => return row.clone(),
        Some(row) if rows.is_held_by(Presence::EVACUATING, &started.instance) => touched(row, now),
        _ => ActualLRP {
            modification_tag: fresh_tag(epoch).into(),
            presence: Presence::EVACUATING.into(),
            ..ActualLRP::default()
        },
    };
    Arc::new(started.row(&before, now))
}
