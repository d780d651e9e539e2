//! Taking on what an auction has given to this cell.

use executor::{Executor, Guid, Reservation, Resource};
use rep_api::{Lrp, PlacementConstraint, Task, Work};
use transport::TraceId;
use uuid::Uuid;

use crate::label::{Label, Owner};
use crate::root_fs::RootFses;

/// Characters of a UUID that an instance's guid has. It is part of names that may not be longer.
const GUID: usize = 28;

/// What became of work.
#[derive(Debug, Default)]
pub struct Taken {
    /// Containers that are reserved for it.
    pub guids: Vec<Guid>,
    /// What was not taken.
    pub failed: Work,
}

/// Reserves a container for each, the largest instances first. What does not fit, or what this cell
/// has not got the root file system or the volume driver for, is not taken.
pub fn take(executor: &Executor, root_fses: &RootFses, work: Work, trace: &TraceId) -> Taken {
    let mut taken = Taken::default();
    let mut lrps = work.lrps.into_vec();
    lrps.sort_by_key(|lrp| std::cmp::Reverse(lrp.resource.memory_mb));
    for lrp in lrps {
        let guid = instance_guid();
        let Lrp { process_guid, index, domain, placement, .. } = lrp.clone();
        let label = Label {
            owner: Owner::Lrp { process_guid, index },
            domain,
            placement,
            trace: trace.clone(),
        };
        if reserve(executor, root_fses, &guid, label, lrp.resource) {
            taken.guids.push(guid);
        } else {
            taken.failed.lrps.push(lrp);
        }
    }
    for task in work.tasks {
        let Task { task_guid: guid, domain, placement, .. } = task.clone();
        let label = Label { owner: Owner::Task, domain, placement, trace: trace.clone() };
        if reserve(executor, root_fses, &guid, label, task.resource) {
            taken.guids.push(guid);
        } else {
            taken.failed.tasks.push(task);
        }
    }
    taken
}

fn reserve(
    executor: &Executor,
    root_fses: &RootFses,
    guid: &str,
    label: Label,
    resource: rep_api::Resource,
) -> bool {
    if let Err(reason) = fits(root_fses, &label.placement) {
        tracing::info!(guid, reason, "work is not taken");
        return false;
    }
    let reservation = Reservation {
        guid: guid.to_owned(),
        tags: label.write(guid),
        resource: Resource {
            memory_mb: resource.memory_mb,
            disk_mb: resource.disk_mb,
            max_pids: resource.max_pids,
        },
    };
    executor
        .reserve(reservation)
        .inspect_err(|error| tracing::info!(guid, %error, "work is not taken"))
        .is_ok()
}

fn fits(root_fses: &RootFses, placement: &PlacementConstraint) -> Result<(), String> {
    root_fses.image(&placement.root_fs).map_err(|unknown| unknown.to_string())?;
    match placement.volume_drivers.first() {
        Some(driver) => Err(format!("this cell has no volume driver {driver:?}")),
        None => Ok(()),
    }
}

fn instance_guid() -> Guid {
    let mut guid = Uuid::new_v4().to_string();
    guid.truncate(GUID);
    guid
}
