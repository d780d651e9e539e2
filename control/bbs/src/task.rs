//! What may become of tasks: pure functions from a task to a task.
//!
//! ```text
//!    Pending ──start──> Running ──complete──> Completed ──resolving──> Resolving ──delete──> gone
//!       ^ │                │ │                    ^  ^                     │
//!       │ └── cancel, fail, expiry ───────────────┘  └──── demotion ───────┘
//!       └───── reject ─────┘
//! ```
//!
//! `now` is in nanoseconds since the epoch.

use bbs_models::task::State;
use bbs_models::{DesireTaskRequest, Error, Task};

use crate::transition::reason;

/// The user does not want it any more.
pub const CANCELLED: &str = "task was cancelled";
/// No cell took it in time.
pub const EXPIRED: &str = "not started within time limit";
/// Its cell has vanished.
pub const CELL_LOST: &str = "cell disappeared before completion";

/// A task that waits for a cell.
pub fn pending(request: DesireTaskRequest, now: i64) -> Task {
    Task {
        task_definition: request.task_definition,
        task_guid: request.task_guid,
        domain: request.domain,
        created_at: now,
        updated_at: now,
        state: State::Pending.into(),
        ..Task::default()
    }
}

fn refuse(task: &Task, to: State) -> Error {
    Error::invalid_state_transition(name(task), format!("{to:?}"))
}

fn name(task: &Task) -> String {
    match task.state.as_known() {
        Some(state) => format!("{state:?}"),
        None => task.state.to_i32().to_string(),
    }
}

/// A cell takes the task. `None` when the same cell has it already: it need not start it again.
pub fn start(task: &Task, cell_id: &str, now: i64) -> Result<Option<Task>, Error> {
    if task.state == State::Running && task.cell_id == cell_id {
        return Ok(None);
    }
    if task.state != State::Pending {
        return Err(refuse(task, State::Running));
    }
    Ok(Some(Task {
        state: State::Running.into(),
        updated_at: now,
        cell_id: cell_id.into(),
        ..task.clone()
    }))
}

/// How a task ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome<'a> {
    /// It did not succeed.
    pub failed: bool,
    /// Why it did not.
    pub failure_reason: &'a str,
    /// What it wrote into its result file.
    pub result: &'a str,
}

impl<'a> Outcome<'a> {
    /// Not successful, for this reason.
    pub fn failed(failure_reason: &'a str) -> Self {
        Self { failed: true, failure_reason, result: "" }
    }
}

/// The recorded cell says that the task has ended.
pub fn complete(task: &Task, cell_id: &str, outcome: &Outcome, now: i64) -> Result<Task, Error> {
    if task.state == State::Running && task.cell_id != cell_id {
        return Err(Error::running_on_different_cell(&task.cell_id, cell_id));
    }
    if task.state != State::Running {
        return Err(refuse(task, State::Completed));
    }
    Ok(Task { cell_id: String::new(), ..completed(task, outcome, now) })
}

/// The task is given up before it ended, as [`CANCELLED`] or for another reason.
pub fn give_up(task: &Task, failure_reason: &str, now: i64) -> Result<Task, Error> {
    if !(task.state == State::Pending || task.state == State::Running) {
        return Err(refuse(task, State::Completed));
    }
    Ok(completed(task, &Outcome::failed(failure_reason), now))
}

fn completed(task: &Task, outcome: &Outcome, now: i64) -> Task {
    Task {
        state: State::Completed.into(),
        updated_at: now,
        first_completed_at: now,
        failed: outcome.failed,
        failure_reason: reason(outcome.failure_reason),
        result: outcome.result.into(),
        ..task.clone()
    }
}

/// A cell or the auctioneer could not run the task: it waits again, unless that happened more than
/// `retries` times.
pub fn reject(task: &Task, why: &str, retries: i32, now: i64) -> Result<Task, Error> {
    if !(task.state == State::Pending || task.state == State::Running) {
        return Err(refuse(task, State::Pending));
    }
    let rejected = Task {
        rejection_count: task.rejection_count.saturating_add(1),
        rejection_reason: reason(why),
        updated_at: now,
        ..task.clone()
    };
    if task.rejection_count >= retries {
        return give_up(&rejected, why, now);
    }
    Ok(Task { state: State::Pending.into(), ..rejected })
}

/// Somebody delivers the result.
pub fn resolve(task: &Task, now: i64) -> Result<Task, Error> {
    if task.state != State::Completed {
        return Err(refuse(task, State::Resolving));
    }
    Ok(Task { state: State::Resolving.into(), updated_at: now, ..task.clone() })
}

/// The result was not delivered in time: somebody else may try.
pub fn demote(task: &Task) -> Result<Task, Error> {
    if task.state != State::Resolving {
        return Err(refuse(task, State::Completed));
    }
    Ok(Task { state: State::Completed.into(), ..task.clone() })
}

/// Whether the task may be deleted: its result has been delivered. The original's refusal names
/// the state that is missing.
pub fn check_delete(task: &Task) -> Result<(), Error> {
    match task.state == State::Resolving {
        true => Ok(()),
        false => Err(refuse(task, State::Resolving)),
    }
}
