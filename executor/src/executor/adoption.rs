//! Containers that an earlier executor has left.

use bloomery_garden::client::Error as GardenError;
use garden_api::{ContainerInfo, Properties};

use super::creation::Resumed;
use super::{Error, Executor};
use crate::absence::{self, Absence, is_away};
use crate::container::{Container, State};
use crate::health;
use crate::record::{RUNNING, Record};
use crate::spec::{self, CHECKED_INSIDE, OWNER, RECORD};
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
            let found = if whole.contains(&handle) {
                self.found(&handle).await.map_err(Error::garden(format!("asking for {handle}")))?
            } else {
                None
            };
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
                if let Err(error) = self.0.destroy(&handle).await {
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

    /// What can be taken up of a container; an error says that Garden has not told of it.
    async fn found(&self, handle: &str) -> Result<Option<(Container, Resumed)>, GardenError> {
        let (properties, info) = match self.told(handle).await {
            Ok(told) => told,
            Err(error) if is_away(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(guid = handle, %error, "Garden does not tell of it");
                return Ok(None);
            }
        };
        let Some(record) = properties.get(RECORD) else { return Ok(None) };
        let record: Record = match serde_json::from_str(record) {
            Ok(record) => record,
            Err(error) => {
                tracing::warn!(guid = handle, %error, "its record is not readable");
                return Ok(None);
            }
        };
        let network = spec::network(&info, &record.run.ports);
        let was_healthy = properties.contains_key(RUNNING);
        let checks = match properties.contains_key(CHECKED_INSIDE) {
            true => health::From::Container,
            false => health::From::Cell,
        };
        let progress = properties
            .get(PROGRESS)
            .and_then(|json| serde_json::from_str(json).ok())
            .unwrap_or_default();
        let mut container = Container::reserved(handle.to_owned(), record.tags, record.resource);
        // It is running again once its processes have been found.
        container.state = State::Created;
        container.network = Some(network.clone());
        container.run = Some(record.run.into());
        Ok(Some((container, Resumed { network, progress, was_healthy, checks })))
    }

    async fn told(&self, handle: &str) -> Result<(Properties, ContainerInfo), GardenError> {
        let told = || async {
            let properties = self.0.garden.properties(handle).await?;
            Ok((properties, self.0.garden.info(handle).await?))
        };
        Absence::new(handle, absence::OF_CALLS).answer(told).await
    }
}
