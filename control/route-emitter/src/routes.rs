//! The routes of a desired LRP: JSON, one value per router, checked by nobody before.

use bbs_models::DesiredLRP;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// What is wanted of the HTTP router for one port. What is `null` is as what is missing: Cloud
/// Controller writes it so.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub(crate) struct HttpRoute {
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) hostnames: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) port: u32,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) route_service_url: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) isolation_segment: String,
    #[serde(default, deserialize_with = "or_default")]
    pub(crate) protocol: String,
    #[serde(default)]
    pub(crate) options: Value,
}

fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
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

#[cfg(test)]
mod tests {
    use bbs_models::{DesiredLRP, ProtoRoutes};

    use super::http;

    #[test]
    fn null_is_as_nothing() {
        let text = r#"[{"hostnames":["a"],"port":8080,"route_service_url":null,
                        "isolation_segment":null,"protocol":null,"options":null},
                       {"hostnames":null,"port":null}]"#;
        let routes = ProtoRoutes {
            routes: [("cf-router".to_owned(), text.into())].into(),
            ..Default::default()
        };
        let lrp = DesiredLRP { routes: routes.into(), ..Default::default() };
        let routes = http(&lrp);
        assert_eq!((routes[0].hostnames.as_slice(), routes[0].port), (&["a".to_owned()][..], 8080));
        assert!(routes[0].route_service_url.is_empty() && routes[1].hostnames.is_empty());
    }
}
