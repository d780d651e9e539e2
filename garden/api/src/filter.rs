//! The answer to List.

use serde::{Deserialize, Serialize};

/// Handles that match a filter, sorted; never `null` on the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ListResponse {
    /// The handles.
    #[serde(rename = "Handles")]
    pub handles: Vec<String>,
}
