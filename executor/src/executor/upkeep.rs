//! What is done again and again: reservations expire, Garden is compared with the table, and Garden
//! itself is checked.

use std::time::Duration;

use bloomery_garden::client::{Error as GardenError, ProcessIo};
use futures_util::future::BoxFuture;
use garden_api::{ContainerSpec, ImageRef, ProcessSpec, Properties};
use tokio::time::{MissedTickBehavior, interval};
use uuid::Uuid;

use super::{Error, Executor};
use crate::absence::Absence;
use crate::container::{Completion, Guid, State};
use crate::spec::OWNER;
use crate::steps::chain;

/// How often reservations are looked at.
const EXPIRY: Duration = Duration::from_secs(30);

/// Properties of the container in which Garden is checked (diego.md 10.2).
const CHECK_OWNER: &str = "executor-health-check";
const CHECK_TAG: &str = "tag:healthcheck-tag";
/// For a Garden that is started again just when it is checked: it is checked rarely.
const CHECK_PATIENCE: Duration = Duration::from_secs(10);

impl Executor {
    pub(super) fn begin_upkeep(&self) {
        let config = &self.0.config;
        self.every(EXPIRY.min(config.reservation), |executor| {
            executor.expire();
            Box::pin(std::future::ready(()))
        });
        self.every(config.reaping, |executor| {
            Box::pin(async move {
                if let Err(error) = executor.reap().await {
                    let error = chain(&error);
                    tracing::warn!(error, "Garden cannot be compared with the cell");
                }
            })
        });
        self.every(config.garden_check, |executor| Box::pin(executor.check_garden()));
    }

    fn every(
        &self,
        period: Duration,
        work: impl for<'a> Fn(&'a Self) -> BoxFuture<'a, ()> + Send + Sync + 'static,
    ) {
        let executor = self.clone();
        tokio::spawn(async move {
            let mut ticks = interval(period);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => work(&executor).await,
                    () = executor.0.stop.cancelled() => return,
                }
            }
        });
    }

    /// Completes what was reserved and then forgotten.
    fn expire(&self) {
        let expired: Vec<Guid> = {
            let table = self.table();
            let old = |entry: &super::table::Entry| {
                entry.container.state == State::Reserved
                    && entry.since.elapsed() >= self.0.config.reservation
            };
            let entries = table.entries.iter();
            entries.filter(|(_, entry)| old(entry)).map(|(guid, _)| guid.clone()).collect()
        };
        for guid in expired {
            self.complete(
                &guid,
                Completion {
                    failed: true,
                    failure_reason: "expired container".into(),
                    retryable: false,
                },
            );
        }
    }

    /// Destroys what is at Garden and not in the table, and completes what is in the table and not at
    /// Garden any more.
    async fn reap(&self) -> Result<(), Error> {
        // The table first: a container that is made meanwhile is in none of the two lists.
        let living: Vec<Guid> = {
            let table = self.table();
            let at_garden = |state| matches!(state, State::Created | State::Running);
            let entries = table.entries.iter();
            entries
                .filter(|(_, entry)| at_garden(entry.container.state))
                .map(|(guid, _)| guid.clone())
                .collect()
        };
        let owner = Properties::from([(OWNER.to_owned(), self.0.config.owner.clone())]);
        let handles = self.0.garden.list(&owner).await.map_err(Error::garden("listing"))?;
        for guid in living.iter().filter(|guid| !handles.contains(guid)) {
            self.complete(
                guid,
                Completion {
                    failed: true,
                    failure_reason: "missing garden container".into(),
                    retryable: false,
                },
            );
        }
        for handle in handles {
            if self.table().entries.contains_key(&handle) {
                continue;
            }
            tracing::info!(guid = handle, "destroying a container that nobody knows");
            if let Err(error) = self.0.destroy(&handle).await {
                let error = chain(&error);
                tracing::warn!(guid = handle, error, "it cannot be destroyed");
            }
        }
        Ok(())
    }

    /// Runs something in a container of its own, as an app would.
    async fn check_garden(&self) {
        let Some(rootfs) = &self.0.config.garden_check_rootfs else {
            let pinged = Absence::new("", CHECK_PATIENCE).answer(|| self.0.garden.ping()).await;
            drop(self.0.garden_health.send_replace(pinged.map_err(|error| chain(&error))));
            return;
        };
        const ATTEMPTS: u32 = 3;
        const PAUSE: Duration = Duration::from_secs(1);
        let mut result = Ok(());
        for _ in 0..ATTEMPTS {
            result = self.run_check(rootfs).await;
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
        }
        if let Err(error) = &result {
            tracing::error!(error, "Garden does not run containers: this cell takes no work");
        }
        drop(self.0.garden_health.send_replace(result));
    }

    async fn run_check(&self, rootfs: &str) -> Result<(), String> {
        let garden = &self.0.garden;
        let properties = Properties::from([
            (OWNER.to_owned(), CHECK_OWNER.to_owned()),
            (CHECK_TAG.to_owned(), "healthcheck".to_owned()),
            ("network.healthcheck".to_owned(), "true".to_owned()),
        ]);
        let failed = |error: GardenError| chain(&error);
        let tag = Properties::from([(CHECK_TAG.to_owned(), "healthcheck".to_owned())]);
        for old in garden.list(&tag).await.map_err(failed)? {
            destroyed(garden.destroy(&old).await)?;
        }
        let handle = format!("check-{}", Uuid::new_v4());
        let spec = ContainerSpec {
            handle: handle.clone(),
            image: ImageRef { uri: rootfs.to_owned(), ..ImageRef::default() },
            properties,
            ..ContainerSpec::default()
        };
        garden.create(&spec).await.map_err(failed)?;
        let run = async {
            let spec = ProcessSpec {
                path: "/bin/sh".into(),
                args: vec!["-c".into(), "ls > /tmp/test".into()],
                user: "vcap".into(),
                ..ProcessSpec::default()
            };
            let process = garden.run(&handle, &spec, ProcessIo::default()).await.map_err(failed)?;
            match process.wait().await.map_err(failed)? {
                0 => Ok(()),
                status => Err(format!("the check's process ended with status {status}")),
            }
        };
        let result = run.await;
        destroyed(garden.destroy(&handle).await)?;
        result
    }
}

fn destroyed(result: Result<(), GardenError>) -> Result<(), String> {
    match result {
        Ok(()) | Err(GardenError::ContainerNotFound(_)) => Ok(()),
        Err(error) if error.to_string().contains("already being destroyed") => Ok(()),
        Err(error) => Err(chain(&error)),
    }
}
