//! Containers that an earlier executor has left.

use garden_api::Properties;

use super::creation::Resumed;
use super::{Error, Executor};
use crate::container::{Container, State};
use crate::record::{RUNNING, Record};
use crate::spec::{self, OWNER, RECORD};
use crate::steps::PROGRESS;

impl Executor {
    /// Takes up every container of ours at Garden. What cannot be taken up, half-made containers
    /// among them, is destroyed.
    pub(super) async fn adopt(&self) -> Result<(), Error> {
        let mut filter = Properties::new();
        filter.insert(OWNER.into(), self.0.config.owner.clone());
        let whole = self.0.garden.list(&filter).await.map_err(Error::garden("listing"))?;
        filter.insert("garden.state".into(), "all".into());
        let all = self.0.garden.list(&filter).await.map_err(Error::garden("listing"))?;
        for handle in all {
            let found = if whole.contains(&handle) { self.found(&handle).await } else { None };
            if let Some((container, resumed)) = found {
                tracing::info!(guid = handle, state = ?container.state, "taking up a container");
                {
                    let mut table = self.table();
                    table.capacity.hold(&handle, &container.resource);
                    table.insert(container);
                }
                let (executor, guid) = (self.clone(), handle);
                tokio::spawn(async move { executor.live(guid, Some(resumed)).await });
            } else {
                tracing::info!(guid = handle, "destroying a container that is not whole");
                if let Err(error) = self.0.garden.destroy(&handle).await {
                    // The reaper tries again.
                    tracing::warn!(guid = handle, %error, "it cannot be destroyed");
                }
            }
        }
        if let Some(authority) = &self.0.authority {
            let table = self.table();
            authority.retain(&|guid| table.entries.contains_key(guid));
        }
        Ok(())
    }

    async fn found(&self, handle: &str) -> Option<(Container, Resumed)> {
        let properties = self.0.garden.properties(handle).await.ok()?;
        let record: Record = serde_json::from_str(properties.get(RECORD)?)
            .inspect_err(
                |error| tracing::warn!(guid = handle, %error, "its record is not readable"),
            )
            .ok()?;
        let info = self.0.garden.info(handle).await.ok()?;
        let network = spec::network(&info, &record.run.ports);
        let was_healthy = properties.contains_key(RUNNING);
        let progress = properties
            .get(PROGRESS)
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        let mut container = Container::reserved(handle.to_owned(), record.tags, record.resource);
        // It is running again once its processes have been found.
        container.state = State::Created;
        container.network = Some(network.clone());
        container.run = Some(record.run.into());
        Some((container, Resumed { network, progress, was_healthy }))
    }
}
