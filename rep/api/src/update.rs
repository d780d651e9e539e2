//! What the BBS tells a cell about a running instance, and what a drain script is told.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Changed routes or tags of an instance: the part that did not change is `null`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LrpUpdate {
    /// The instance.
    pub instance_guid: String,
    /// Its process.
    pub process_guid: String,
    /// Which of its instances.
    pub index: i32,
    /// The process's domain.
    pub domain: String,
    /// All of its internal routes from now on; `None` leaves them.
    pub internal_routes: Option<Vec<InternalRoute>>,
    /// All of its metric tags from now on; `None` leaves them.
    pub metric_tags: Option<BTreeMap<String, String>>,
}

/// A name by which other applications reach the instance.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct InternalRoute {
    /// The name.
    pub hostname: String,
}

/// The answer to `POST /evacuate`: the cell is empty once this path no longer answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvacuateResponse {
    /// A path on the same address.
    pub ping_path: String,
}
