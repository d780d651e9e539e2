//! The cells by their presences at Locket.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::time::Duration;

use bbs_models::error::Type;
use bbs_models::{CellCapacity, CellPresence, Error, Provider};
use locket::models::TypeCode;
use serde::Deserialize;

use crate::cells::Cells;

/// For one look at all presences.
const PATIENCE: Duration = Duration::from_secs(10);

/// Registered is who has a presence.
#[derive(Clone, Debug)]
pub struct Presences {
    locket: locket::Client,
}

impl Presences {
    /// As this server knows them.
    pub fn new(locket: locket::Client) -> Self {
        Self { locket }
    }

    async fn fetch(&self) -> Result<Vec<CellPresence>, Error> {
        let asked = self.locket.fetch_all(TypeCode::Presence, Some(PATIENCE));
        // The deadline in the request binds the server; this binds us.
        let answer = tokio::time::timeout(PATIENCE, asked).await;
        let answer = answer.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer")));
        let resources = answer.map_err(|status| {
            tracing::error!(%status, "the cells are not known: Locket does not tell");
            Error::from(Type::UnknownError)
        })?;
        let mut cells = Vec::with_capacity(resources.len());
        for resource in resources {
            match cell(&resource.value) {
                Ok(cell) => cells.push(cell),
                Err(error) => {
                    tracing::error!(%error, key = resource.key, "a presence is not readable");
                }
            }
        }
        Ok(cells)
    }
}

impl Cells for Presences {
    fn list(&self) -> Pin<Box<dyn Future<Output = Result<Vec<CellPresence>, Error>> + Send + '_>> {
        Box::pin(self.fetch())
    }
}

/// A presence's value; what is missing or `null` is the type's empty value.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Value {
    cell_id: String,
    rep_address: String,
    zone: String,
    capacity: Capacity,
    rootfs_provider_list: Option<Vec<RootFsProvider>>,
    placement_tags: Option<Vec<String>>,
    optional_placement_tags: Option<Vec<String>>,
    rep_url: String,
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Capacity {
    memory_mb: i32,
    disk_mb: i32,
    containers: i32,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RootFsProvider {
    name: String,
    properties: Option<Vec<String>>,
}

fn cell(value: &str) -> serde_json::Result<CellPresence> {
    let value: Value = serde_json::from_str(value)?;
    let Capacity { memory_mb, disk_mb, containers } = value.capacity;
    let provider = |RootFsProvider { name, properties }| Provider {
        name,
        properties: properties.unwrap_or_default(),
        ..Default::default()
    };
    Ok(CellPresence {
        cell_id: value.cell_id,
        rep_address: value.rep_address,
        zone: value.zone,
        capacity: CellCapacity { memory_mb, disk_mb, containers, ..Default::default() }.into(),
        rootfs_providers: value
            .rootfs_provider_list
            .unwrap_or_default()
            .into_iter()
            .map(provider)
            .collect(),
        placement_tags: value.placement_tags.unwrap_or_default(),
        optional_placement_tags: value.optional_placement_tags.unwrap_or_default(),
        rep_url: value.rep_url,
        annotations: value.annotations.unwrap_or_default(),
        ..Default::default()
    })
}
