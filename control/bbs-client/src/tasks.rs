//! Calls about tasks.

use bbs_models::*;

use crate::call::Client;
use crate::error::Error;

impl Client {
    /// The tasks that every given filter lets pass.
    pub async fn tasks(&self, filter: TasksRequest) -> Result<Vec<Task>, Error> {
        let answer: TasksResponse = self.call("/v1/tasks/list.r3", &filter).await?;
        Ok(answer.tasks)
    }

    /// The task of a guid.
    pub async fn task(&self, guid: &str) -> Result<Task, Error> {
        let request = TaskByGuidRequest { task_guid: guid.into(), ..Default::default() };
        let answer: TaskResponse = self.call("/v1/tasks/get_by_task_guid.r3", &request).await?;
        Ok(answer.task.into_option().unwrap_or_default())
    }

    /// Wants a task to run once.
    pub async fn desire_task(
        &self,
        guid: &str,
        domain: &str,
        definition: TaskDefinition,
    ) -> Result<(), Error> {
        let request = DesireTaskRequest {
            task_definition: definition.into(),
            task_guid: guid.into(),
            domain: domain.into(),
            ..Default::default()
        };
        self.lifecycle("/v1/tasks/desire.r2", &request).await
    }

    /// A cell takes a task. Says whether it is to start it: it need not when it already has.
    pub async fn start_task(&self, guid: &str, cell_id: &str) -> Result<bool, Error> {
        let request = StartTaskRequest {
            task_guid: guid.into(),
            cell_id: cell_id.into(),
            ..Default::default()
        };
        let answer: StartTaskResponse = self.call("/v1/tasks/start", &request).await?;
        Ok(answer.should_start)
    }

    /// Does not want a task any more.
    pub async fn cancel_task(&self, guid: &str) -> Result<(), Error> {
        self.named("/v1/tasks/cancel", guid).await
    }

    /// A task could not be run. The reason must not be empty.
    pub async fn reject_task(&self, guid: &str, reason: &str) -> Result<(), Error> {
        let request = RejectTaskRequest {
            task_guid: guid.into(),
            rejection_reason: reason.into(),
            ..Default::default()
        };
        self.lifecycle("/v1/tasks/reject", &request).await
    }

    /// A cell's task has ended.
    pub async fn complete_task(&self, request: CompleteTaskRequest) -> Result<(), Error> {
        self.lifecycle("/v1/tasks/complete", &request).await
    }

    /// Says that the task's result is being taken care of.
    pub async fn resolving_task(&self, guid: &str) -> Result<(), Error> {
        self.named("/v1/tasks/resolving", guid).await
    }

    /// Deletes a task whose result was taken care of.
    pub async fn delete_task(&self, guid: &str) -> Result<(), Error> {
        self.named("/v1/tasks/delete", guid).await
    }

    async fn named(&self, call: &'static str, guid: &str) -> Result<(), Error> {
        let request = TaskGuidRequest { task_guid: guid.into(), ..Default::default() };
        self.lifecycle(call, &request).await
    }

    async fn lifecycle(&self, call: &'static str, request: &impl Message) -> Result<(), Error> {
        let _: TaskLifecycleResponse = self.call(call, request).await?;
        Ok(())
    }
}
