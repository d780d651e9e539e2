//! Everything the board holds, in memory: what calls read and transitions start from.
//!
//! Records are shared, so that a list takes a reference of each under the lock and encodes them
//! afterwards. [`crate::store`] writes the same changes, in the same order, to disk.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use bbs_models::actual_lrp::Presence;
use bbs_models::{ActualLRP, Task};

use crate::desired::Desired;
use crate::rows::{PRESENCES, Rows, Slot};

/// One record put or taken away.
#[derive(Clone, Debug)]
pub enum Write {
    /// A domain with its end in nanoseconds since the epoch, or no domain.
    Domain(Arc<str>, Option<i64>),
    /// A desired LRP.
    Desired(Arc<str>, Option<Arc<Desired>>),
    /// One row of an index.
    Actual(Slot, Presence, Option<Arc<ActualLRP>>),
    /// A task.
    Task(Arc<str>, Option<Arc<Task>>),
}

/// The board's records by key.
#[derive(Debug, Default)]
pub struct Image {
    domains: BTreeMap<Arc<str>, i64>,
    desired: BTreeMap<Arc<str>, Arc<Desired>>,
    actual: BTreeMap<Slot, Rows>,
    /// The slots that a cell has a row in.
    by_cell: HashMap<String, BTreeSet<Slot>>,
    tasks: BTreeMap<Arc<str>, Arc<Task>>,
}

impl Image {
    /// Takes over one change.
    pub fn apply(&mut self, write: Write) {
        match write {
            Write::Domain(domain, Some(end)) => {
                self.domains.insert(domain, end);
            }
            Write::Domain(domain, None) => {
                self.domains.remove(&domain);
            }
            Write::Desired(guid, Some(lrp)) => {
                self.desired.insert(guid, lrp);
            }
            Write::Desired(guid, None) => {
                self.desired.remove(&guid);
            }
            Write::Actual(slot, presence, row) => self.put_row(slot, presence, row),
            Write::Task(guid, Some(task)) => {
                self.tasks.insert(guid, task);
            }
            Write::Task(guid, None) => {
                self.tasks.remove(&guid);
            }
        }
    }

    fn put_row(&mut self, slot: Slot, presence: Presence, row: Option<Arc<ActualLRP>>) {
        let rows = self.actual.entry(slot.clone()).or_default();
        let left = rows.get(presence).cloned();
        rows.set(presence, row);
        let cells: Vec<_> = rows.iter().map(|row| cell(row).to_owned()).collect();
        if rows.is_empty() {
            self.actual.remove(&slot);
        }
        if let Some(left) = left
            && !cells.iter().any(|id| id == cell(&left))
            && let Some(slots) = self.by_cell.get_mut(cell(&left))
        {
            slots.remove(&slot);
            if slots.is_empty() {
                self.by_cell.remove(cell(&left));
            }
        }
        for id in cells.into_iter().filter(|id| !id.is_empty()) {
            self.by_cell.entry(id).or_default().insert(slot.clone());
        }
    }

    /// The domains that are fresh at `now`.
    pub fn fresh_domains(&self, now: i64) -> BTreeSet<Arc<str>> {
        let fresh = self.domains.iter().filter(|&(_, &end)| end > now);
        fresh.map(|(domain, _)| domain.clone()).collect()
    }

    /// The domains that are not.
    pub fn expired_domains(&self, now: i64) -> Vec<Arc<str>> {
        let expired = self.domains.iter().filter(|&(_, &end)| end <= now);
        expired.map(|(domain, _)| domain.clone()).collect()
    }

    /// A desired LRP by its guid.
    pub fn desired(&self, process_guid: &str) -> Option<&Arc<Desired>> {
        self.desired.get(process_guid)
    }

    /// All desired LRPs.
    pub fn all_desired(&self) -> impl Iterator<Item = &Arc<Desired>> {
        self.desired.values()
    }

    /// The rows of an index; empty when there are none.
    pub fn rows(&self, slot: &Slot) -> Rows {
        self.actual.get(slot).cloned().unwrap_or_default()
    }

    /// The indices of a process, in order.
    pub fn rows_of<'a>(
        &'a self,
        process_guid: &'a str,
    ) -> impl Iterator<Item = (&'a Slot, &'a Rows)> {
        let first = Slot::new(process_guid, i32::MIN);
        let from = self.actual.range(first..);
        from.take_while(move |(slot, _)| *slot.process_guid == *process_guid)
    }

    /// The indices that a cell has a row in. Other cells' rows of them are among the rows.
    pub fn rows_on<'a>(&'a self, cell_id: &str) -> impl Iterator<Item = (&'a Slot, &'a Rows)> {
        let slots = self.by_cell.get(cell_id).into_iter().flatten();
        slots.filter_map(|slot| self.actual.get_key_value(slot))
    }

    /// All indices.
    pub fn all_rows(&self) -> impl Iterator<Item = (&Slot, &Rows)> {
        self.actual.iter()
    }

    /// A task by its guid.
    pub fn task(&self, guid: &str) -> Option<&Arc<Task>> {
        self.tasks.get(guid)
    }

    /// All tasks.
    pub fn all_tasks(&self) -> impl Iterator<Item = &Arc<Task>> {
        self.tasks.values()
    }
}

fn cell(row: &ActualLRP) -> &str {
    &row.actual_lrp_instance_key.cell_id
}

/// The writes that make `before` into `after`.
pub fn writes<'a>(
    slot: &'a Slot,
    before: &'a Rows,
    after: &'a Rows,
) -> impl Iterator<Item = Write> + 'a {
    PRESENCES.into_iter().filter_map(move |presence| {
        let same = match (before.get(presence), after.get(presence)) {
            (None, None) => true,
            (Some(old), Some(new)) => Arc::ptr_eq(old, new),
            _ => false,
        };
        let write = || Write::Actual(slot.clone(), presence, after.get(presence).cloned());
        (!same).then(write)
    })
}

#[cfg(test)]
mod tests {
    use bbs_models::{ActualLRPInstanceKey, ActualLRPKey};

    use super::*;
    use crate::transition;

    fn row(cell_id: &str) -> Arc<ActualLRP> {
        let mut row = transition::create(ActualLRPKey::new("p", 0, "d"), 1, "e".into());
        row.actual_lrp_instance_key = ActualLRPInstanceKey::new("i", cell_id).into();
        Arc::new(row)
    }

    #[test]
    fn a_cell_is_asked_for_no_longer_than_it_has_a_row() {
        let mut image = Image::default();
        let slot = Slot::new("p", 0);
        let put = |image: &mut Image, presence, row| {
            image.apply(Write::Actual(slot.clone(), presence, row));
        };
        put(&mut image, Presence::ORDINARY, Some(row("a")));
        put(&mut image, Presence::EVACUATING, Some(row("a")));
        put(&mut image, Presence::ORDINARY, Some(row("b")));
        assert_eq!((image.rows_on("a").count(), image.rows_on("b").count()), (1, 1));
        put(&mut image, Presence::EVACUATING, None);
        assert_eq!((image.rows_on("a").count(), image.rows_on("b").count()), (0, 1));
        put(&mut image, Presence::ORDINARY, None);
        assert_eq!(image.rows_on("b").count(), 0);
        assert!(image.by_cell.is_empty() && image.all_rows().next().is_none());
    }

    #[test]
    fn the_rows_of_a_process_are_not_those_of_a_longer_name() {
        let mut image = Image::default();
        for guid in ["a", "ab", "b"] {
            image.apply(Write::Actual(Slot::new(guid, 0), Presence::ORDINARY, Some(row(""))));
        }
        let guids: Vec<_> = image.rows_of("a").map(|(slot, _)| slot.process_guid.clone()).collect();
        assert_eq!(guids, [Arc::from("a")]);
    }
}
