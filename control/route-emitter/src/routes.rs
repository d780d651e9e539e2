//! The routes of a desired LRP: JSON, one value per router, checked by nobody before.

use bbs_models::DesiredLRP;
use serde::Deserialize;
use serde_json::Value;

/// What is wanted of the HTTP router for one port.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct HttpRoute {
    #[serde(default)]
    pub(crate) hostnames: Vec<String>,
    #[serde(default)]
    pub(crate) port: u32,
    #[serde(default)]
    pub(crate) route_service_url: String,
    #[serde(default)]
    pub(crate) isolation_segment: String,
    #[serde(default)]
    pub(crate) protocol: String,
    #[serde(default)]
    pub(crate) options: Value,
}

#[derive(Clone, Debug, PartialEq, Deserialize)]
struct InternalRoute {
    hostname: String,
}

pub(crate) fn http(lrp: &DesiredLRP) -> Vec<HttpRoute> {
    read(lrp, "cf-router")
}

/// Host names.
pub(crate) fn internal(lrp: &DesiredLRP) -> Vec<String> {
    read::<InternalRoute>(lrp, "internal-router").into_iter().map(|route| route.hostname).collect()
}

/// A value that is not what it should be has no routes.
fn read<T: for<'de> Deserialize<'de>>(lrp: &DesiredLRP, router: &str) -> Vec<T> {
    let Some(value) = lrp.routes.routes.get(router) else { return Vec::new() };
    serde_json::from_slice::<Option<Vec<T>>>(value)
        .unwrap_or_else(|error| {
            tracing::warn!(process_guid = lrp.process_guid, router, %error, "unreadable routes");
            None
        })
        .unwrap_or_default()
}
