//! Calls about tasks.

use std::sync::Arc;

use bbs_models::error::Type;
use bbs_models::task::State;
use bbs_models::{
    CompleteTaskRequest, DesireTaskRequest, Error, Event, FailTaskRequest, RejectTaskRequest,
    StartTaskRequest, Task, TaskChangedEvent, TaskCreatedEvent, TaskRemovedEvent, TasksRequest,
};
use transport::TraceId;

use super::{Board, now};
use crate::auctions::TaskStart;
use crate::image::Write;
use crate::store::Change;
use crate::task::{self, Outcome};

impl Board {
    /// Wants a task to run once.
    pub async fn desire_task(&self, request: DesireTaskRequest) -> Result<(), Error> {
        let task = Arc::new(task::pending(request, now()));
        self.store()
            .change(|image| {
                if image.task(&task.task_guid).is_some() {
                    return Err(Type::ResourceExists.into());
                }
                let event = TaskCreatedEvent { task: (*task).clone().into(), ..Default::default() };
                let write = Write::Task(task.task_guid.as_str().into(), Some(task.clone()));
                Ok((Change { writes: vec![write], events: vec![event.into()] }, ()))
            })
            .await?;
        let auctioneer = self.auctioneer().clone();
        self.follow(async move { auctioneer.start_tasks(&[TaskStart::new(&task)]).await });
        Ok(())
    }

    /// A cell takes a task. Says whether it is to start it.
    pub async fn start_task(&self, request: StartTaskRequest) -> Result<bool, Error> {
        let changed = self
            .change_task(&request.task_guid, |task| task::start(task, &request.cell_id, now()))
            .await?;
        Ok(changed.is_some())
    }

    /// A client does not want a task any more.
    pub async fn cancel_task(&self, guid: &str, trace: &TraceId) -> Result<(), Error> {
        let cell = self.task(guid)?.cell_id.clone();
        self.end_task(guid, |task| task::give_up(task, task::CANCELLED, now())).await?;
        if cell.is_empty() {
            return Ok(());
        }
        let (board, guid, trace) = (self.clone(), guid.to_owned(), trace.clone());
        self.follow(async move {
            let found = match board.reps().registered().await {
                Ok(mut cells) => cells.remove(&cell),
                Err(error) => {
                    tracing::error!(%error, guid, "a task's cell is not told: no list of cells");
                    return;
                }
            };
            let Some(found) = found else {
                tracing::warn!(cell, guid, "a task's cell is not told: it is not registered");
                return;
            };
            if let Err(error) = board.reps().cancel(&found, &guid, &trace).await {
                let error = &error as &dyn std::error::Error;
                tracing::error!(guid, error, "a task's cell is not told");
            }
        });
        Ok(())
    }

    /// A task has failed, says somebody who is no cell.
    pub async fn fail_task(&self, request: FailTaskRequest) -> Result<(), Error> {
        let why = request.failure_reason;
        self.end_task(&request.task_guid, |task| task::give_up(task, &why, now())).await
    }

    /// A cell or the auctioneer could not run a task.
    pub async fn reject_task(&self, request: RejectTaskRequest) -> Result<(), Error> {
        let (why, retries) = (request.rejection_reason, self.parts.task_retries);
        self.end_task(&request.task_guid, |task| task::reject(task, &why, retries, now())).await
    }

    /// A cell's task has ended.
    pub async fn complete_task(&self, request: CompleteTaskRequest) -> Result<(), Error> {
        let outcome = Outcome {
            failed: request.failed,
            failure_reason: &request.failure_reason,
            result: &request.result,
        };
        self.end_task(&request.task_guid, |task| {
            task::complete(task, &request.cell_id, &outcome, now())
        })
        .await
    }

    /// Somebody delivers a task's result.
    pub async fn resolve_task(&self, guid: &str) -> Result<(), Error> {
        self.change_task(guid, |task| task::resolve(task, now()).map(Some)).await.map(drop)
    }

    /// Deletes a task whose result was delivered.
    pub async fn delete_task(&self, guid: &str) -> Result<(), Error> {
        self.store()
            .change(|image| {
                let task = image.task(guid).ok_or(Type::ResourceNotFound)?;
                task::check_delete(task)?;
                Ok((gone(task), ()))
            })
            .await
    }

    /// Deletes a completed task that nobody has come for, if it is still this one.
    pub(crate) async fn forget_task(&self, seen: &Arc<Task>) -> Result<(), Error> {
        self.store()
            .change(|image| match image.task(&seen.task_guid) {
                Some(task) if Arc::ptr_eq(task, seen) => Ok((gone(task), ())),
                _ => Err(Type::ResourceConflict.into()),
            })
            .await
    }

    /// Deletes a task whose result nobody takes. Nobody else may try before.
    pub(crate) async fn abandon_task(&self, guid: &str) -> Result<(), Error> {
        let demoted = self.change_task(guid, |task| task::demote(task).map(Some)).await?;
        match demoted {
            Some(task) => self.forget_task(&task).await,
            None => Ok(()),
        }
    }

    /// The task of a guid.
    pub fn task(&self, guid: &str) -> Result<Arc<Task>, Error> {
        let found = self.store().read(|image| image.task(guid).cloned())?;
        found.ok_or_else(|| Type::ResourceNotFound.into())
    }

    /// All tasks that every given filter lets pass.
    pub fn tasks(&self, filter: &TasksRequest) -> Result<Vec<Arc<Task>>, Error> {
        let passes = |task: &&Arc<Task>| {
            (filter.domain.is_empty() || task.domain == filter.domain)
                && (filter.cell_id.is_empty() || task.cell_id == filter.cell_id)
        };
        self.store().read(|image| image.all_tasks().filter(passes).cloned().collect())
    }

    /// Makes a task into another, which may be the end of it: then its result is delivered.
    pub(crate) async fn end_task(
        &self,
        guid: &str,
        decide: impl FnOnce(&Task) -> Result<Task, Error>,
    ) -> Result<(), Error> {
        let changed = self.change_task(guid, |task| decide(task).map(Some)).await?;
        if let Some(task) = changed {
            self.deliver(&task);
        }
        Ok(())
    }

    /// Delivers the result of a completed task that somebody waits for.
    pub(crate) fn deliver(&self, task: &Task) {
        let url = &task.task_definition.completion_callback_url;
        if task.state != State::Completed || url.is_empty() {
            return;
        }
        let (board, guid) = (self.clone(), task.task_guid.clone());
        self.follow(async move {
            if let Err(error) = board.deliver_result(&guid).await {
                tracing::warn!(%error, guid, "a task's result is not delivered");
            }
        });
    }

    async fn deliver_result(&self, guid: &str) -> Result<(), Error> {
        let _place = self.parts.callbacks.place().await;
        self.resolve_task(guid).await?;
        let task = self.task(guid)?;
        if self.parts.callbacks.deliver(&task).await {
            self.delete_task(guid).await?;
        }
        Ok(())
    }

    async fn change_task(
        &self,
        guid: &str,
        decide: impl FnOnce(&Task) -> Result<Option<Task>, Error>,
    ) -> Result<Option<Arc<Task>>, Error> {
        self.store()
            .change(|image| {
                let before = image.task(guid).ok_or(Type::ResourceNotFound)?;
                match decide(before)? {
                    None => Ok((Change::default(), None)),
                    Some(after) => {
                        let after = Arc::new(after);
                        Ok((changed(before, &after), Some(after)))
                    }
                }
            })
            .await
    }
}

fn changed(before: &Task, after: &Arc<Task>) -> Change {
    let event: Event = TaskChangedEvent {
        before: before.clone().into(),
        after: Task::clone(after).into(),
        ..Default::default()
    }
    .into();
    let write = Write::Task(after.task_guid.as_str().into(), Some(after.clone()));
    Change { writes: vec![write], events: vec![event] }
}

/// A task is deleted.
pub(crate) fn gone(task: &Task) -> Change {
    let event = TaskRemovedEvent { task: task.clone().into(), ..Default::default() };
    let write = Write::Task(task.task_guid.as_str().into(), None);
    Change { writes: vec![write], events: vec![event.into()] }
}
