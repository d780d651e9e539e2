//! The rows of one instance index: at most one actual LRP for each presence.

use std::sync::Arc;

use bbs_models::actual_lrp::Presence;
use bbs_models::{ActualLRP, ActualLRPInstanceKey};

/// The presences that a row may have, in the order in which lists show them.
pub const PRESENCES: [Presence; 3] = [Presence::ORDINARY, Presence::EVACUATING, Presence::SUSPECT];

/// A process's index, as rows are kept and locked by it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot {
    /// The desired LRP's guid.
    pub process_guid: Arc<str>,
    /// Which of its instances.
    pub index: i32,
}

impl Slot {
    /// Names an index.
    pub fn new(process_guid: &str, index: i32) -> Self {
        Self { process_guid: process_guid.into(), index }
    }
}

/// What the board holds of one index. Transitions take rows and return rows.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// The instance that is wanted: it waits, starts, runs or has crashed.
    pub ordinary: Option<Arc<ActualLRP>>,
    /// Still serves on a cell that is being drained.
    pub evacuating: Option<Arc<ActualLRP>>,
    /// Perhaps still serves on a cell that has vanished.
    pub suspect: Option<Arc<ActualLRP>>,
}

impl Rows {
    /// The row of a presence.
    pub fn get(&self, presence: Presence) -> Option<&Arc<ActualLRP>> {
        match presence {
            Presence::ORDINARY => self.ordinary.as_ref(),
            Presence::EVACUATING => self.evacuating.as_ref(),
            Presence::SUSPECT => self.suspect.as_ref(),
        }
    }

    /// Puts or takes away the row of a presence.
    pub fn set(&mut self, presence: Presence, row: Option<Arc<ActualLRP>>) {
        match presence {
            Presence::ORDINARY => self.ordinary = row,
            Presence::EVACUATING => self.evacuating = row,
            Presence::SUSPECT => self.suspect = row,
        }
    }

    /// All rows, ordinary first.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<ActualLRP>> {
        PRESENCES.into_iter().filter_map(|presence| self.get(presence))
    }

    /// No row at all.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }

    /// The same rows with another ordinary one.
    pub(crate) fn with_ordinary(&self, row: ActualLRP) -> Self {
        Self { ordinary: Some(Arc::new(row)), ..self.clone() }
    }

    pub(crate) fn without(&self, presence: Presence) -> Self {
        let mut rows = self.clone();
        rows.set(presence, None);
        rows
    }

    /// Whether the row of this presence is this very instance.
    pub(crate) fn is_held_by(&self, presence: Presence, instance: &ActualLRPInstanceKey) -> bool {
        self.get(presence).is_some_and(|row| is_same(&row.actual_lrp_instance_key, instance))
    }
}

/// Whether two instance keys name the same instance; what else a newer peer wrote into them does
/// not matter.
pub(crate) fn is_same(one: &ActualLRPInstanceKey, other: &ActualLRPInstanceKey) -> bool {
    one.instance_guid == other.instance_guid && one.cell_id == other.cell_id
}
