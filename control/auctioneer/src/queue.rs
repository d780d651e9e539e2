//! What waits for the next auction.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Mutex, MutexGuard, PoisonError};

use rep_api::{Lrp, LrpStartRequest, Task};
use tokio::sync::Notify;
use transport::TraceId;

/// Instances and tasks by their names: what is asked for twice is placed once.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    waiting: Mutex<Waiting>,
    asked: Notify,
}

/// What one auction is about.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    lrps: HashMap<(String, i32), (Lrp, TraceId)>,
    tasks: HashMap<String, (Task, TraceId)>,
}

impl Queue {
    /// Instances wait from here on. Requests that make no sense are left out; the next auction is
    /// held all the same.
    pub(crate) fn ask_lrps(&self, requests: Vec<LrpStartRequest>, trace: &TraceId) {
        let mut waiting = self.lock();
        for request in requests {
            if let Err(reason) = check_lrp(&request) {
                let guid = request.process_guid;
                tracing::error!(guid, reason, "a request for instances makes no sense");
                continue;
            }
            for &index in request.indices.iter() {
                let name = (request.process_guid.clone(), index);
                if let Entry::Vacant(place) = waiting.lrps.entry(name) {
                    place.insert((instance(&request, index), trace.clone()));
                }
            }
        }
        drop(waiting);
        self.asked.notify_one();
    }

    /// Tasks wait from here on.
    pub(crate) fn ask_tasks(&self, tasks: Vec<Task>, trace: &TraceId) {
        let mut waiting = self.lock();
        for task in tasks {
            if let Err(reason) = check_task(&task) {
                let guid = task.task_guid;
                tracing::error!(guid, reason, "a request for a task makes no sense");
                continue;
            }
            if let Entry::Vacant(place) = waiting.tasks.entry(task.task_guid.clone()) {
                place.insert((task, trace.clone()));
            }
        }
        drop(waiting);
        self.asked.notify_one();
    }

    /// Waits until somebody has asked since the last time.
    pub(crate) async fn asked(&self) {
        self.asked.notified().await;
    }

    /// Takes everything that waits.
    pub(crate) fn take(&self) -> Waiting {
        std::mem::take(&mut *self.lock())
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The instances and the tasks, by name so that equal wishes have one order.
    pub(crate) fn wishes(&self) -> (Vec<Lrp>, Vec<Task>) {
        let mut lrps: Vec<_> = self.lrps.values().map(|(lrp, _)| lrp.clone()).collect();
        let mut tasks: Vec<_> = self.tasks.values().map(|(task, _)| task.clone()).collect();
        lrps.sort_by(|one, other| one.process_guid.cmp(&other.process_guid));
        tasks.sort_by(|one, other| one.task_guid.cmp(&other.task_guid));
        (lrps, tasks)
    }

    /// The id of the request that an instance was first asked for in.
    pub(crate) fn trace_of_lrp(&self, lrp: &Lrp) -> TraceId {
        let name = (lrp.process_guid.clone(), lrp.index);
        self.lrps.get(&name).map(|(_, trace)| trace.clone()).unwrap_or_default()
    }

    /// The id of the request that a task was first asked for in.
    pub(crate) fn trace_of_task(&self, task: &Task) -> TraceId {
        self.tasks.get(&task.task_guid).map(|(_, trace)| trace.clone()).unwrap_or_default()
    }
}

/// As the rep is asked for it: guid and state are the cell's to say.
fn instance(request: &LrpStartRequest, index: i32) -> Lrp {
    Lrp {
        process_guid: request.process_guid.clone(),
        index,
        domain: request.domain.clone(),
        placement: request.placement.clone(),
        resource: request.resource,
        ..Lrp::default()
    }
}

fn check_lrp(request: &LrpStartRequest) -> Result<(), &'static str> {
    if request.process_guid.is_empty() {
        return Err("there is no process guid");
    }
    if request.indices.is_empty() {
        return Err("there are no indices");
    }
    check(&request.placement, &request.resource)
}

fn check_task(task: &Task) -> Result<(), &'static str> {
    if task.task_guid.is_empty() {
        return Err("there is no task guid");
    }
    check(&task.placement, &task.resource)
}

fn check(
    placement: &rep_api::PlacementConstraint,
    resource: &rep_api::Resource,
) -> Result<(), &'static str> {
    if resource.memory_mb < 0 || resource.disk_mb < 0 {
        return Err("memory or disk is less than nothing");
    }
    if placement.root_fs.is_empty() { Err("there is no root file system") } else { Ok(()) }
}
