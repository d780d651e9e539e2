//! Containers: what a client asks for, and the small requests about one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::network::{NetIn, NetOutRule};
use crate::spelling::{Nanoseconds, is_default, wire_integer};

/// Free-form labels; sorted by key, as Go encodes maps.
pub type Properties = BTreeMap<String, String>;

/// What `POST /containers` asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.ContainerSpec")]
pub struct ContainerSpec {
    /// Empty: the server generates a version 4 UUID.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub handle: String,
    /// Zero: the server's default.
    #[serde(skip_serializing_if = "Nanoseconds::is_zero")]
    pub grace_time: Nanoseconds,
    /// Deprecated spelling of `image.uri`; giving both is an error.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rootfs: String,
    /// The root file system; no URI here and no `rootfs` means the server's default.
    pub image: ImageRef,
    /// Host directories and files to show inside, in this order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub bind_mounts: Vec<BindMount>,
    /// A subnet request, `a.b.c.d` or `a.b.c.d/n`; empty: the next free /30.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// The user's properties.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub properties: Properties,
    /// `KEY=value`, for every process of the container.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// Without a user namespace.
    #[serde(skip_serializing_if = "is_default")]
    pub privileged: bool,
    /// Resource limits of all processes together.
    pub limits: Limits,
    /// Allowed destinations.
    #[serde(rename = "netout_rules", skip_serializing_if = "Vec::is_empty")]
    pub net_out: Vec<NetOutRule>,
    /// Ports to forward from the host.
    #[serde(rename = "netin", skip_serializing_if = "Vec::is_empty")]
    pub net_in: Vec<NetIn>,
}

/// A root file system by URI, with credentials for a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.ImageRef")]
pub struct ImageRef {
    /// `docker:///repo#tag`, a path, `oci://`, …
    #[serde(skip_serializing_if = "String::is_empty")]
    pub uri: String,
    /// Registry user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// Registry password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
}

/// A host path shown inside a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.BindMount")]
pub struct BindMount {
    /// Path on the host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub src_path: String,
    /// Path inside; created if missing.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub dst_path: String,
    /// Read-only unless said otherwise.
    #[serde(skip_serializing_if = "is_default")]
    pub mode: BindMountMode,
    /// Ignored by the reference.
    #[serde(skip_serializing_if = "is_default")]
    pub origin: BindMountOrigin,
}

wire_integer! {
    /// Whether a bind mount may be written to.
    #[derive(Default)]
    BindMountMode: u8 as "garden.BindMountMode" {
        /// Read-only, the default.
        #[default]
        ReadOnly = 0,
        /// Read-write.
        ReadWrite = 1,
    }
}

wire_integer! {
    /// Where a bind mount's source path is looked up.
    #[derive(Default)]
    BindMountOrigin: u8 as "garden.BindMountOrigin" {
        /// On the host, the default.
        #[default]
        Host = 0,
        /// In the container.
        Container = 1,
    }
}

/// Answer to Create.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CreateResponse {
    /// The handle asked for, or the generated one.
    #[serde(rename = "Handle")]
    pub handle: String,
}

/// Answer to a question of our own: `ping?server=true`. The reference's client never asks it, and its
/// server takes no notice of the query.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct ServerName {
    /// Empty where the server does not know the question.
    pub server: String,
}

impl ServerName {
    /// What this server is called.
    pub fn own() -> Self {
        Self { server: "bloomery".into() }
    }
}

/// What the machine offers. Zero fields are omitted on the wire.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.Capacity")]
pub struct Capacity {
    /// Host total, bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub memory_in_bytes: u64,
    /// Size of the file system that holds the depot, bytes.
    #[serde(skip_serializing_if = "is_default")]
    pub disk_in_bytes: u64,
    /// Bytes that containers may be given.
    #[serde(skip_serializing_if = "is_default")]
    pub schedulable_disk_in_bytes: u64,
    /// How many containers fit.
    #[serde(skip_serializing_if = "is_default")]
    pub max_containers: u64,
}

/// Body of Stop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "struct { Kill bool \"json:\\\"kill\\\"\" }")]
pub struct StopRequest {
    /// SIGKILL at once instead of SIGTERM first.
    pub kill: bool,
}

/// Body of SetProperty and answer of Property.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "struct { Value string \"json:\\\"value\\\"\" }")]
pub struct PropertyValue {
    /// The value.
    pub value: String,
}
