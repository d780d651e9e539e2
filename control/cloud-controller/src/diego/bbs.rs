//! The runtime behind the BBS.

use std::error::Error as _;
use std::fmt::Write;
use std::time::Duration;

use bbs_client::{Client, Error};
use bbs_models::error::Type;
use bbs_models::{
    ActualLRP, ActualLRPKey, ActualLRPsRequest, DesiredLRPsRequest, Event, TasksRequest,
    actual_lrp, state,
};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;

use super::{APPS, Installation, STAGING, TASKS, desired_lrp, instance, task_definition, update};
use crate::CloudController;
use crate::recipe::{RunRecipe, StagingRecipe};
use crate::resources::internal::{Crash, record_crash};
use crate::runtime::{Desired, Instance, Runtime, RuntimeError};

/// How long the BBS believes that it knows all that is wanted: four comparisons may fail.
const FRESH_FOR: Duration = Duration::from_secs(120);

/// Diego, by its BBS.
#[derive(Clone, Debug)]
pub struct Diego {
    client: Client,
    installation: Installation,
}

/// What failed, with all of its causes: it goes into a log as one line.
fn failed(action: &str, on: &str) -> impl FnOnce(Error) -> RuntimeError {
    let action = format!("cannot {action} {on}");
    move |error| {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let _ = write!(reason, ": {inner}");
            cause = inner.source();
        }
        RuntimeError { action, reason }
    }
}

/// A refusal of this kind is an answer of its own.
fn unless<T>(result: Result<T, Error>, kinds: &[Type], then: T) -> Result<T, Error> {
    match result {
        Err(error) if kinds.iter().any(|kind| error.is(*kind)) => Ok(then),
        result => result,
    }
}

impl Diego {
    /// Speaks to the BBS of `client`.
    pub fn new(client: Client, installation: Installation) -> Self {
        Self { client, installation }
    }

    async fn actual_lrps(&self, process_guid: &str) -> Result<Vec<ActualLRP>, Error> {
        let filter =
            ActualLRPsRequest { process_guid: process_guid.into(), ..ActualLRPsRequest::default() };
        let all =
            unless(self.client.actual_lrps(filter).await, &[Type::ResourceNotFound], Vec::new())?;
        Ok(one_per_index(all))
    }

    /// Tells the controller of crashes until it stops. Diego tells each once: those of a moment
    /// without a connection are lost, as with the original's watcher.
    pub async fn watch_crashes(&self, controller: &CloudController) {
        loop {
            tokio::select! {
                ended = self.follow(controller) => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "the BBS tells no more events");
                    }
                }
                () = controller.stop.cancelled() => return,
            }
            tokio::select! {
                () = tokio::time::sleep(bbs_client::RESUBSCRIBE) => {}
                () = controller.stop.cancelled() => return,
            }
        }
    }

    async fn follow(&self, controller: &CloudController) -> Result<(), Error> {
        let mut events = self.client.instance_events("").await?;
        while let Some(event) = events.next().await? {
            let Event::ActualLRPCrashed(crashed) = event else { continue };
            let key = &crashed.actual_lrp_key;
            if key.domain != APPS {
                continue;
            }
            let crash = Crash {
                instance: crashed.actual_lrp_instance_key.instance_guid.clone(),
                index: u32::try_from(key.index).unwrap_or_default(),
                cell_id: crashed.actual_lrp_instance_key.cell_id.clone(),
                reason: "CRASHED".into(),
                exit_description: crashed.crash_reason.clone(),
                crash_count: crashed.crash_count.into(),
                crash_timestamp: crashed.since,
            };
            if let Err(error) = record_crash(controller, &key.process_guid, &crash).await {
                tracing::debug!(process = %key.process_guid, %error, "a crash is of no interest");
            }
        }
        Ok(())
    }
}

/// An instance that moves to another cell exists twice; the one that runs counts, else the one that
/// stays.
fn one_per_index(all: Vec<ActualLRP>) -> Vec<ActualLRP> {
    let mut kept: Vec<ActualLRP> = Vec::new();
    let rank = |lrp: &ActualLRP| {
        (lrp.state == state::RUNNING, lrp.presence == actual_lrp::Presence::ORDINARY)
    };
    for lrp in all {
        let index = lrp.actual_lrp_key.index;
        match kept.iter_mut().find(|known| known.actual_lrp_key.index == index) {
            Some(known) if rank(known) >= rank(&lrp) => {}
            Some(known) => *known = lrp,
            None => kept.push(lrp),
        }
    }
    kept
}

impl Runtime for Diego {
    fn desire<'a>(&'a self, recipe: &'a RunRecipe) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let lrp = desired_lrp(recipe, &self.installation);
            unless(self.client.desire_lrp(lrp).await, &[Type::ResourceExists], ())
                .map_err(failed("run", &recipe.process_guid))
        }
        .boxed()
    }

    fn update<'a>(&'a self, recipe: &'a RunRecipe) -> BoxFuture<'a, Result<bool, RuntimeError>> {
        async move {
            let updated = self.client.update_lrp(&recipe.process_guid, update(recipe)).await;
            unless(updated.map(|()| true), &[Type::ResourceNotFound], false)
                .map_err(failed("update", &recipe.process_guid))
        }
        .boxed()
    }

    fn stop<'a>(&'a self, process_guid: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            unless(self.client.remove_lrp(process_guid).await, &[Type::ResourceNotFound], ())
                .map_err(failed("stop", process_guid))
        }
        .boxed()
    }

    fn stop_instance<'a>(
        &'a self,
        process_guid: &'a str,
        index: u32,
    ) -> BoxFuture<'a, Result<bool, RuntimeError>> {
        async move {
            let Ok(index) = i32::try_from(index) else { return Ok(false) };
            let key = ActualLRPKey::new(process_guid, index, APPS);
            let retired = self.client.retire_actual_lrp(key).await;
            unless(retired.map(|()| true), &[Type::ResourceNotFound], false)
                .map_err(failed("stop an instance of", process_guid))
        }
        .boxed()
    }

    fn instances<'a>(
        &'a self,
        process_guid: &'a str,
    ) -> BoxFuture<'a, Result<Vec<Instance>, RuntimeError>> {
        async move {
            let all = self.actual_lrps(process_guid).await;
            let all = all.map_err(failed("read the instances of", process_guid))?;
            Ok(all.iter().filter_map(instance).collect())
        }
        .boxed()
    }

    fn desired(&self) -> BoxFuture<'_, Result<Vec<Desired>, RuntimeError>> {
        async move {
            let filter =
                DesiredLRPsRequest { domain: APPS.into(), ..DesiredLRPsRequest::default() };
            let all = self.client.scheduling_infos(filter).await;
            let all = all.map_err(failed("list the processes of", APPS))?;
            Ok(all
                .into_iter()
                .map(|info| Desired {
                    process_guid: info.desired_lrp_key.process_guid.clone(),
                    annotation: info.annotation,
                })
                .collect())
        }
        .boxed()
    }

    fn bump_freshness(&self) -> BoxFuture<'_, Result<(), RuntimeError>> {
        async move {
            for domain in [APPS, TASKS] {
                let bumped = self.client.upsert_domain(domain, FRESH_FOR).await;
                bumped.map_err(failed("freshen the domain", domain))?;
            }
            Ok(())
        }
        .boxed()
    }

    fn stage<'a>(&'a self, recipe: &'a StagingRecipe) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let task = task_definition(recipe, &self.installation);
            let guid = &recipe.build_guid;
            let desired = self.client.desire_task(guid, STAGING, task).await;
            unless(desired, &[Type::ResourceExists], ()).map_err(failed("stage", guid))
        }
        .boxed()
    }

    fn cancel<'a>(&'a self, task_guid: &'a str) -> BoxFuture<'a, Result<(), RuntimeError>> {
        async move {
            let gone = [Type::ResourceNotFound, Type::InvalidStateTransition];
            unless(self.client.cancel_task(task_guid).await, &gone, ())
                .map_err(failed("cancel", task_guid))
        }
        .boxed()
    }

    fn staging(&self) -> BoxFuture<'_, Result<Vec<String>, RuntimeError>> {
        async move {
            let filter = TasksRequest { domain: STAGING.into(), ..TasksRequest::default() };
            let all = self.client.tasks(filter).await;
            let all = all.map_err(failed("list the tasks of", STAGING))?;
            Ok(all.into_iter().map(|task| task.task_guid).collect())
        }
        .boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_that_moves_is_one_instance() {
        let lrp = |index, state: &str, presence: actual_lrp::Presence| ActualLRP {
            actual_lrp_key: ActualLRPKey::new("p", index, APPS).into(),
            state: state.into(),
            presence: presence.into(),
            ..ActualLRP::default()
        };
        let kept = one_per_index(vec![
            lrp(0, state::CLAIMED, actual_lrp::Presence::ORDINARY),
            lrp(0, state::RUNNING, actual_lrp::Presence::EVACUATING),
            lrp(1, state::RUNNING, actual_lrp::Presence::EVACUATING),
            lrp(1, state::RUNNING, actual_lrp::Presence::ORDINARY),
        ]);
        let seen: Vec<_> = kept.iter().map(|lrp| (lrp.state.as_str(), lrp.presence)).collect();
        assert_eq!(seen.len(), 2);
        assert_eq!(seen[0].0, "RUNNING");
        assert_eq!(seen[1].1, actual_lrp::Presence::ORDINARY);
    }
}
