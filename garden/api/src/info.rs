//! What a container is now.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::container::Properties;
use crate::error::WireError;
use crate::metrics::Metrics;
use crate::spelling::null_if_empty;

/// Answer to Info. Empty lists and maps are `null` on the wire, but for the mapped ports of a
/// container that exists, which are `[]`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", rename = "garden.ContainerInfo")]
pub struct ContainerInfo {
    /// `None` only in the zero entry of a bulk answer.
    #[serde(with = "state_text")]
    pub state: Option<ContainerState>,
    /// One `Out of memory` per kill notice.
    #[serde(serialize_with = "null_if_empty::serialize")]
    pub events: Vec<String>,
    /// The host's end of the container's link.
    #[serde(rename = "HostIP")]
    pub host_ip: String,
    /// The container's end.
    #[serde(rename = "ContainerIP")]
    pub container_ip: String,
    /// Empty without IPv6.
    #[serde(rename = "ContainerIPv6")]
    pub container_ipv6: String,
    /// The address at which mapped ports answer.
    #[serde(rename = "ExternalIP")]
    pub external_ip: String,
    /// The depot directory.
    pub container_path: String,
    /// Never filled by the reference.
    #[serde(rename = "ProcessIDs", serialize_with = "null_if_empty::serialize")]
    pub process_ids: Vec<String>,
    /// The user's and the server's own.
    #[serde(serialize_with = "null_if_empty::serialize")]
    pub properties: Properties,
    /// In the order they were asked for; `None` only in the zero entry of a bulk answer.
    pub mapped_ports: Option<Vec<PortMapping>>,
}

/// Whether Stop has succeeded; it never goes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerState {
    /// Not stopped.
    Active,
    /// Stop has succeeded.
    Stopped,
}

mod state_text {
    use std::borrow::Cow;

    use serde::{Deserialize, Deserializer, Serializer, de};

    use super::ContainerState;

    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's `with` passes a reference")]
    pub(super) fn serialize<S: Serializer>(
        state: &Option<ContainerState>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(match state {
            Some(ContainerState::Active) => "active",
            Some(ContainerState::Stopped) => "stopped",
            None => "",
        })
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<ContainerState>, D::Error> {
        match Cow::<str>::deserialize(deserializer)?.as_ref() {
            "active" => Ok(Some(ContainerState::Active)),
            "stopped" => Ok(Some(ContainerState::Stopped)),
            "" => Ok(None),
            other => Err(de::Error::custom(format_args!("unknown container state {other:?}"))),
        }
    }
}

/// A forwarded port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase", rename = "garden.PortMapping")]
pub struct PortMapping {
    /// On the host.
    pub host_port: u32,
    /// Inside.
    pub container_port: u32,
}

/// One handle's part of a bulk answer: the value, or a zero value and what failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BulkEntry<T> {
    /// The call succeeded for this handle.
    Value(T),
    /// It failed for this handle only.
    Failed(WireError),
}

/// Answer to BulkInfo, by handle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BulkInfo(pub BTreeMap<String, BulkEntry<ContainerInfo>>);

/// Answer to BulkMetrics, by handle.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BulkMetrics(pub BTreeMap<String, BulkEntry<Metrics>>);

macro_rules! bulk_entry {
    ($value:ty, $key:literal, $go:literal) => {
        const _: () = {
            #[derive(Serialize, Deserialize)]
            #[serde(default, rename = $go)]
            #[derive(Default)]
            struct Entry {
                #[serde(rename = $key)]
                value: $value,
                #[serde(rename = "Err")]
                error: Option<WireError>,
            }

            impl Serialize for BulkEntry<$value> {
                fn serialize<S: serde::Serializer>(
                    &self,
                    serializer: S,
                ) -> Result<S::Ok, S::Error> {
                    let (value, error) = match self.clone() {
                        Self::Value(value) => (value, None),
                        Self::Failed(error) => (<$value>::default(), Some(error)),
                    };
                    Entry { value, error }.serialize(serializer)
                }
            }

            impl<'de> Deserialize<'de> for BulkEntry<$value> {
                fn deserialize<D: serde::Deserializer<'de>>(
                    deserializer: D,
                ) -> Result<Self, D::Error> {
                    let entry = Entry::deserialize(deserializer)?;
                    Ok(entry.error.map_or(Self::Value(entry.value), Self::Failed))
                }
            }
        };
    };
}

bulk_entry!(ContainerInfo, "Info", "garden.ContainerInfoEntry");
bulk_entry!(Metrics, "Metrics", "garden.ContainerMetricsEntry");
