//! What routers and service discovery are told.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// Who is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Audience {
    /// Routers.
    Router,
    /// Service discovery, which resolves internal names.
    ServiceDiscovery,
}

/// What they are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Take it, or keep it.
    Register,
    /// Forget it.
    Unregister,
}

/// One message and its subject.
#[derive(Clone, Debug, PartialEq)]
pub struct Notice {
    /// Whom it is for.
    pub audience: Audience,
    /// What is to be done.
    pub verb: Verb,
    /// What it is about.
    pub message: Message,
}

/// An endpoint of one URI. As JSON it is the original's message, in its order.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Message {
    /// The cell's address or the instance's own.
    pub host: String,
    /// 0 for service discovery.
    pub port: u32,
    /// Where it speaks TLS; 0 if it does not.
    #[serde(skip_serializing_if = "is_zero")]
    pub tls_port: u32,
    /// One, but for service discovery, which has the instance's own name besides.
    pub uris: Vec<String>,
    /// `http1` or `http2`; empty is the former.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub protocol: String,
    /// The source of its logs.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub app: String,
    /// Where requests go first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route_service_url: String,
    /// The instance's guid.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_instance_id: String,
    /// Its index, in digits.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub private_instance_index: String,
    /// The name in its certificate.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub server_cert_domain_san: String,
    /// Which routers are to take it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub isolation_segment: String,
    /// When it became as it is now, in nanoseconds; 0 in all messages but the first that say so.
    #[serde(skip_serializing_if = "is_never")]
    pub endpoint_updated_at_ns: i64,
    /// Of its metrics, and who says all this.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Where it is.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub availability_zone: String,
    /// As the app's route has them.
    #[serde(skip_serializing_if = "Value::is_null")]
    pub options: Value,
}

/// What routers know an endpoint of a URI by.
pub(crate) type Identity = (Audience, String, u32, u32, Vec<String>);

impl Message {
    pub(crate) fn identity(&self, audience: Audience) -> Identity {
        (audience, self.host.clone(), self.port, self.tls_port, self.uris.clone())
    }
}

impl Notice {
    /// Where it is published.
    pub fn subject(&self) -> &'static str {
        match (self.audience, self.verb) {
            (Audience::Router, Verb::Register) => "router.register",
            (Audience::Router, Verb::Unregister) => "router.unregister",
            (Audience::ServiceDiscovery, Verb::Register) => "service-discovery.register",
            (Audience::ServiceDiscovery, Verb::Unregister) => "service-discovery.unregister",
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde asks.
fn is_zero(port: &u32) -> bool {
    *port == 0
}

#[allow(clippy::trivially_copy_pass_by_ref)] // As serde asks.
fn is_never(time: &i64) -> bool {
    *time == 0
}
