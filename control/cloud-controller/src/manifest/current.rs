//! What an app is, in the form of a manifest.

use serde_json::{Map, Value, json};
use sqlx::SqliteConnection;

use super::size::{show_log_rate, show_mebibytes};
use crate::store::apps::App;
use crate::store::domains::Domain;
use crate::store::processes::{HealthCheck, Process};
use crate::store::select::by_guid;
use crate::store::{processes, routes};

/// One entry of `applications`.
pub(crate) async fn of(
    conn: &mut SqliteConnection,
    app: &App,
) -> Result<Map<String, Value>, sqlx::Error> {
    let mut entry = Map::new();
    let mut set = |name: &str, value: Value| drop(entry.insert(name.to_owned(), value));
    set("name", app.name.clone().into());
    set("lifecycle", app.lifecycle.clone().into());
    if let Some(stack) = &app.stack {
        set("stack", stack.clone().into());
    }
    if !app.buildpacks().is_empty() {
        set("buildpacks", json!(app.buildpacks()));
    }
    let env = app.env();
    if !env.is_empty() {
        set("env", env.into());
    }
    let mut reached_by = Vec::new();
    for route in routes::of_app(conn, &app.guid).await? {
        let domain: Option<Domain> = by_guid(conn, "domains", &route.domain_guid).await?;
        let Some(domain) = domain else { continue };
        let leads_to = routes::destinations(conn, &route.guid).await?;
        let own = leads_to.iter().find(|one| one.app_guid == app.guid);
        let mut shown = json!({"route": route.url(&domain.name)});
        if let Some(own) = own {
            shown["protocol"] = own.protocol.clone().into();
        }
        let options = route.options();
        if !options.is_empty() {
            shown["options"] = options.into();
        }
        reached_by.push(shown);
    }
    if !reached_by.is_empty() {
        set("routes", reached_by.into());
    }
    let own = processes::of_app(conn, &app.guid).await?;
    set("processes", own.iter().map(process).collect());
    let sidecars = processes::sidecars(conn, &app.guid).await?;
    let sidecars: Vec<Value> = sidecars
        .iter()
        .filter(|sidecar| sidecar.origin == "user")
        .map(|sidecar| {
            let mut shown = json!({
                "name": sidecar.name,
                "process_types": sidecar.process_types(),
                "command": sidecar.command,
            });
            if let Some(memory) = sidecar.memory_mb {
                shown["memory"] = show_mebibytes(memory).into();
            }
            shown
        })
        .collect();
    if !sidecars.is_empty() {
        set("sidecars", sidecars.into());
    }
    let metadata = app.metadata();
    if !metadata.labels.is_empty() || !metadata.annotations.is_empty() {
        set("metadata", metadata.show());
    }
    let features: Map<String, Value> = serde_json::from_str(&app.features).unwrap_or_default();
    if !features.is_empty() {
        set("features", features.into());
    }
    Ok(entry)
}

fn process(process: &Process) -> Value {
    let mut shown = json!({
        "type": process.r#type,
        "instances": process.instances,
        "memory": show_mebibytes(process.memory_mb),
        "disk_quota": show_mebibytes(process.disk_mb),
        "log-rate-limit-per-second": show_log_rate(process.log_rate),
    });
    if let Some(command) = &process.command {
        shown["command"] = command.clone().into();
    }
    let health = process.health();
    check(&mut shown, "health-check", &health);
    if let Some(timeout) = health.timeout {
        shown["timeout"] = timeout.into();
    }
    check(&mut shown, "readiness-health-check", &process.readiness());
    shown
}

fn check(shown: &mut Value, prefix: &str, check: &HealthCheck) {
    let mut set = |name: &str, value: Value| shown[&*format!("{prefix}-{name}")] = value;
    set("type", check.kind.clone().into());
    if check.kind == "http" {
        set("http-endpoint", check.endpoint.as_deref().unwrap_or("/").into());
    }
    if let Some(timeout) = check.invocation_timeout {
        set("invocation-timeout", timeout.into());
    }
    if let Some(interval) = check.interval {
        set("interval", interval.into());
    }
}
