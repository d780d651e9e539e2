//! Instances whose cell vanishes, and comes back.

use std::sync::Arc;

use bbs_models::actual_lrp::Presence;
use bbs_models::{ActualLRP, state};

use super::lifecycle::{create, unclaim};
use crate::rows::Rows;

/// The ordinary row's cell is not registered: the instance becomes suspect and serves on, and one
/// to replace it waits for a cell. Where a suspect instance exists already the ordinary one is
/// given up. `None` when no cell holds the ordinary row.
pub fn suspend(rows: &Rows, now: i64, epoch: String) -> Option<Rows> {
    let row = rows.ordinary.as_ref()?;
    if !matches!(row.state.as_str(), state::CLAIMED | state::RUNNING) {
        return None;
    }
    if rows.suspect.is_some() {
        return unclaim(rows, now).ok();
    }
    let suspect = ActualLRP { presence: Presence::SUSPECT.into(), ..ActualLRP::clone(row) };
    let replacement = create((*row.actual_lrp_key).clone(), now, epoch);
    Some(Rows {
        ordinary: Some(Arc::new(replacement)),
        suspect: Some(Arc::new(suspect)),
        evacuating: rows.evacuating.clone(),
    })
}

/// The suspect row's cell is registered again: its instance is the ordinary one, and the one that
/// was to replace it goes. `None` when there is no suspect row.
pub fn promote(rows: &Rows) -> Option<Rows> {
    let suspect = rows.suspect.as_ref()?;
    let row = ActualLRP { presence: Presence::ORDINARY.into(), ..ActualLRP::clone(suspect) };
    Some(Rows { ordinary: Some(Arc::new(row)), suspect: None, evacuating: rows.evacuating.clone() })
}
