//! Documents by which clients find everything else.

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};

use super::{App, link};
use crate::CloudController;

/// The version of the API that clients take this for: at 3.211 the CLI fetches all processes of a
/// space in one call; see the table of thresholds in `docs/cloud-controller-api.md`.
pub(crate) const API_VERSION: &str = "3.218.0";

/// `GET /`.
pub(crate) async fn root(State(controller): App) -> Json<Value> {
    let links = &controller.config.links;
    let offered = |address: &str| match address {
        "" => Value::Null,
        address => json!({"href": address}),
    };
    let log_stream = match &*links.log_stream {
        "" => &links.log_cache,
        address => address,
    };
    let ssh = match &*links.app_ssh {
        "" => Value::Null,
        address => json!({
            "href": address,
            "meta": {
                "host_key_fingerprint": links.app_ssh_host_key_fingerprint,
                "oauth_client": "ssh-proxy",
            },
        }),
    };
    let v3 = controller.url("/v3");
    Json(json!({"links": {
        "self": link(&controller, ""),
        "cloud_controller_v2": null,
        "cloud_controller_v3": {"href": v3, "meta": {"version": API_VERSION}},
        "network_policy_v0": null,
        "network_policy_v1": null,
        "login": offered(&links.login),
        "uaa": offered(&links.uaa),
        "credhub": null,
        "routing": null,
        "logging": null,
        "log_cache": offered(&links.log_cache),
        "log_stream": offered(log_stream),
        "app_ssh": ssh,
        // Not in the original's document: the Java client looks here before it asks for /v2/info.
        "authorization_endpoint": offered(&links.login),
    }}))
}

/// `GET /v3`.
pub(crate) async fn v3(State(controller): App) -> Json<Value> {
    const COLLECTIONS: [&str; 32] = [
        "app_usage_events",
        "apps",
        "audit_events",
        "buildpacks",
        "builds",
        "deployments",
        "domains",
        "droplets",
        "environment_variable_groups",
        "feature_flags",
        "info",
        "isolation_segments",
        "organizations",
        "organization_quotas",
        "packages",
        "processes",
        "resource_matches",
        "roles",
        "routes",
        "security_groups",
        "service_brokers",
        "service_instances",
        "service_credential_bindings",
        "service_offerings",
        "service_plans",
        "service_route_bindings",
        "service_usage_events",
        "spaces",
        "space_quotas",
        "stacks",
        "tasks",
        "users",
    ];
    let mut links = Map::new();
    links.insert("self".into(), link(&controller, "/v3"));
    for name in COLLECTIONS {
        links.insert(name.into(), link(&controller, &format!("/v3/{name}")));
    }
    Json(json!({"links": links}))
}

/// `GET /v3/info`.
pub(crate) async fn info(State(controller): App) -> Json<Value> {
    let info = &controller.config.info;
    Json(json!({
        "build": info.build,
        "cli_version": {
            "minimum": info.min_cli_version.as_deref().unwrap_or_default(),
            "recommended": info.min_recommended_cli_version.as_deref().unwrap_or_default(),
        },
        "custom": {},
        "description": info.description,
        "name": info.name,
        "version": info.version,
        "osbapi_version": "2.15",
        "rate_limits": {
            "enabled": false,
            "general_limit": 0,
            "reset_interval_in_minutes": 0,
        },
        "links": {"self": link(&controller, "/v3/info"), "support": support(&controller)},
    }))
}

fn support(controller: &CloudController) -> Value {
    json!({"href": controller.config.info.support_address})
}
