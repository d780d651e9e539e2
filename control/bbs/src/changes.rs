//! What subscribers are told when the rows of an index change.
//!
//! An event is about an instance, not about a row: an instance that moves from one presence to
//! another has changed, and a row that passes to another instance is one instance created and
//! another removed.

use std::sync::Arc;

use bbs_models::actual_lrp::Presence;
use bbs_models::{
    ActualLRP, ActualLRPChangedEvent, ActualLRPCrashedEvent, ActualLRPCreatedEvent, ActualLRPGroup,
    ActualLRPInstanceChangedEvent, ActualLRPInstanceCreatedEvent, ActualLRPInstanceKey,
    ActualLRPInstanceRemovedEvent, ActualLRPRemovedEvent, Event, state,
};

use crate::rows::{PRESENCES, Rows, is_same};

/// The events of a change from `before` to `after`, in the order in which they are sent: crashes,
/// then what runs now, so that a route is gained before another is lost, then the rest.
pub fn events(before: &Rows, after: &Rows, trace: &str) -> Vec<Event> {
    let mut crashes = Vec::new();
    let mut running = Vec::new();
    let mut rest = Vec::new();
    let mut tell = |event: Event, now: Option<&ActualLRP>| match now {
        Some(row) if row.state == state::RUNNING => running.push(event),
        _ => rest.push(event),
    };
    for presence in PRESENCES {
        let (old, new) = (before.get(presence), after.get(presence));
        if is_untouched(old, new) {
            continue;
        }
        let from = new.and_then(|new| elsewhere(before, after, presence, new));
        let is_gone = old.is_some_and(|old| elsewhere(after, before, presence, old).is_none());
        match (old, new, from) {
            (_, Some(new), Some(from)) => {
                tell(changed(from, new, trace), Some(new));
                if let (Some(old), true) = (old, is_gone) {
                    tell(removed(old, trace), None);
                }
            }
            (Some(old), Some(new), None) => {
                if has_crashed(old, new) {
                    crashes.push(crashed(old, new));
                }
                if is_one_instance(old, new) {
                    tell(changed(old, new, trace), Some(new));
                } else {
                    tell(created(new, trace), Some(new));
                    if is_gone {
                        tell(removed(old, trace), None);
                    }
                }
            }
            (None, Some(new), None) => tell(created(new, trace), Some(new)),
            (Some(old), None, _) if is_gone => tell(removed(old, trace), None),
            (_, None, _) => {}
        }
    }
    [crashes, running, rest].concat()
}

/// The same change in the words of the oldest clients, to whom every row of an index is one half of a
/// group. Crashes they are told as everybody is.
pub fn group_events(before: &Rows, after: &Rows) -> Vec<Event> {
    let (mut gained, mut lost) = (Vec::new(), Vec::new());
    // A container that is being drained serves before its instance waits for another cell.
    let order = [Presence::EVACUATING, Presence::SUSPECT, Presence::ORDINARY];
    for presence in order {
        let (old, new) = (before.get(presence), after.get(presence));
        let group = |row: &Arc<ActualLRP>| {
            let row = ActualLRP::clone(row).into();
            match presence {
                Presence::EVACUATING => ActualLRPGroup { evacuating: row, ..Default::default() },
                _ => ActualLRPGroup { instance: row, ..Default::default() },
            }
        };
        match (old, new) {
            _ if is_untouched(old, new) => {}
            (None, Some(new)) => {
                let actual_lrp_group = group(new).into();
                gained
                    .push(ActualLRPCreatedEvent { actual_lrp_group, ..Default::default() }.into());
            }
            (Some(old), Some(new)) => {
                let (before, after) = (group(old).into(), group(new).into());
                gained.push(ActualLRPChangedEvent { before, after, ..Default::default() }.into());
            }
            (Some(old), None) => {
                let actual_lrp_group = group(old).into();
                lost.push(ActualLRPRemovedEvent { actual_lrp_group, ..Default::default() }.into());
            }
            (None, None) => {}
        }
    }
    [gained, lost].concat()
}

fn has_crashed(old: &ActualLRP, new: &ActualLRP) -> bool {
    new.crash_count != old.crash_count
        && !old.actual_lrp_instance_key.is_empty()
        && new.actual_lrp_instance_key.is_empty()
}

fn is_untouched(old: Option<&Arc<ActualLRP>>, new: Option<&Arc<ActualLRP>>) -> bool {
    match (old, new) {
        (None, None) => true,
        (Some(old), Some(new)) => Arc::ptr_eq(old, new),
        _ => false,
    }
}

/// Where the instance of `row`, which has `presence` on one side of a change, moved from or to: its
/// row of another presence on the other side, which it has on that side alone.
fn elsewhere<'a>(
    there: &'a Rows,
    here: &Rows,
    presence: Presence,
    row: &ActualLRP,
) -> Option<&'a ActualLRP> {
    let instance = &row.actual_lrp_instance_key;
    if instance.is_empty() || there.is_held_by(presence, instance) {
        return None;
    }
    let others = PRESENCES.into_iter().filter(|&other| other != presence);
    let is_it =
        |other: &Presence| there.is_held_by(*other, instance) && !here.is_held_by(*other, instance);
    others.filter(is_it).find_map(|other| there.get(other)).map(Arc::as_ref)
}

/// The row's instance is the same, has just come, or has crashed and waits for its time.
fn is_one_instance(old: &ActualLRP, new: &ActualLRP) -> bool {
    let was_crashed = old.state == state::CRASHED;
    is_same(&old.actual_lrp_instance_key, &new.actual_lrp_instance_key) && !was_crashed
        || old.actual_lrp_instance_key.is_empty() && !new.actual_lrp_instance_key.is_empty()
        || new.state == state::CRASHED
}

/// Whichever of the two rows has an instance.
fn instance(old: &ActualLRP, new: &ActualLRP) -> ActualLRPInstanceKey {
    let row = if new.actual_lrp_instance_key.is_empty() { old } else { new };
    (*row.actual_lrp_instance_key).clone()
}

/// A row that came to be.
pub fn created(row: &ActualLRP, trace: &str) -> Event {
    ActualLRPInstanceCreatedEvent {
        actual_lrp: row.clone().into(),
        trace_id: trace.into(),
        ..Default::default()
    }
    .into()
}

/// A row that went, or is about to go.
pub fn removed(row: &ActualLRP, trace: &str) -> Event {
    ActualLRPInstanceRemovedEvent {
        actual_lrp: row.clone().into(),
        trace_id: trace.into(),
        ..Default::default()
    }
    .into()
}

fn changed(old: &ActualLRP, new: &ActualLRP, trace: &str) -> Event {
    ActualLRPInstanceChangedEvent {
        actual_lrp_key: new.actual_lrp_key.clone(),
        actual_lrp_instance_key: instance(old, new).into(),
        before: old.info().into(),
        after: new.info().into(),
        trace_id: trace.into(),
        ..Default::default()
    }
    .into()
}

fn crashed(old: &ActualLRP, new: &ActualLRP) -> Event {
    ActualLRPCrashedEvent {
        actual_lrp_key: new.actual_lrp_key.clone(),
        actual_lrp_instance_key: old.actual_lrp_instance_key.clone(),
        crash_count: new.crash_count,
        crash_reason: new.crash_reason.clone(),
        since: new.since,
        ..Default::default()
    }
    .into()
}
