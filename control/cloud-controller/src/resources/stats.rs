//! How the instances of a process are.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, App, processes};
use crate::CloudController;
use crate::caller::Caller;
use crate::env::FILE_DESCRIPTORS;
use crate::error::ApiError;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::runtime::{Instance, InstanceState, RuntimeError};
use crate::store::apps::App as AppRow;
use crate::store::processes::Process;
use crate::usage::Usage;

/// How long an answer waits for an instance that is starting. Not only waiting commands read this.
const HOLD: Duration = Duration::from_millis(2500);
/// Between two looks meanwhile: the runtime does not tell us of changes.
const LOOK_EVERY: Duration = Duration::from_millis(100);

fn unavailable(err: RuntimeError) -> ApiError {
    tracing::warn!(error = %err, "cannot read the instances of a process");
    ApiError::unavailable("Stats server temporarily unavailable.")
}

/// The instances of a process that there should be, with what the runtime knows of each.
async fn look(
    controller: &CloudController,
    process: &Process,
    started: bool,
) -> Result<Vec<(u32, Option<Instance>)>, ApiError> {
    if !started || process.instances < 1 {
        return Ok(Vec::new());
    }
    let known = controller.runtime.instances(&process.process_guid()).await.map_err(unavailable)?;
    let wanted = u32::try_from(process.instances).unwrap_or(u32::MAX);
    let find = |index| known.iter().find(|instance| instance.index == index).cloned();
    Ok((0..wanted).map(|index| (index, find(index))).collect())
}

/// Seconds since an instance came into its state.
fn age(instance: &Instance) -> i64 {
    let since = instance.since / 1000;
    ((crate::time::now() - since) / 1_000_000).max(0)
}

const MEBIBYTE: i64 = 1 << 20;

/// What an instance uses, unless that was measured of one that was there before it, or before it came
/// into its state.
fn usage_of<'a>(
    usages: &'a [Usage],
    process_guid: &str,
    instance: Option<&Instance>,
) -> Option<&'a Usage> {
    let instance = instance?;
    usages.iter().find(|usage| {
        usage.process_guid == process_guid
            && usage.index == instance.index
            && usage.time >= instance.since
    })
}

fn show_row(
    process: &Process,
    index: u32,
    instance: Option<&Instance>,
    usage: Option<&Usage>,
) -> Value {
    let state = instance.map_or(InstanceState::Down, |instance| instance.state);
    let details = instance.and_then(|instance| instance.details.as_ref());
    let Some(instance) = instance.filter(|_| state != InstanceState::Down) else {
        return json!({
            "type": process.r#type,
            "index": index,
            "state": "DOWN",
            "routable": false,
            "uptime": instance.map_or(0, age),
            "isolation_segment": null,
            "details": details,
        });
    };
    let ports: Vec<Value> = instance
        .ports
        .iter()
        .map(|port| {
            let some = |number: u32| (number > 0).then_some(number);
            json!({
                "external": some(port.external),
                "internal": some(port.internal),
                "external_tls_proxy_port": some(port.external_tls_proxy),
                "internal_tls_proxy_port": some(port.internal_tls_proxy),
            })
        })
        .collect();
    json!({
        "type": process.r#type,
        "index": index,
        "instance_guid": instance.instance_guid,
        "state": state.as_str(),
        "routable": instance.routable,
        "host": instance.host,
        "instance_internal_ip": instance.internal_ip,
        "uptime": age(instance),
        "mem_quota": process.memory_mb.saturating_mul(MEBIBYTE),
        "disk_quota": process.disk_mb.saturating_mul(MEBIBYTE),
        "log_rate_limit": process.log_rate,
        "fds_quota": FILE_DESCRIPTORS,
        "isolation_segment": null,
        "details": details,
        "instance_ports": ports,
        "usage": usage.map_or_else(|| json!({}), Usage::show),
    })
}

async fn rows(
    controller: &CloudController,
    process: &Process,
    app: &AppRow,
) -> Result<Json<Value>, ApiError> {
    let deadline = tokio::time::Instant::now() + HOLD;
    loop {
        let seen = look(controller, process, app.started()).await?;
        let state = |instance: &Option<Instance>| instance.as_ref().map(|found| found.state);
        let starting = seen.iter().any(|(_, found)| state(found) == Some(InstanceState::Starting));
        // One that runs is what clients wait for.
        let runs = seen.iter().any(|(_, found)| state(found) == Some(InstanceState::Running));
        if !starting || runs || tokio::time::Instant::now() >= deadline {
            let usages = controller.metrics.of(&app.guid).await;
            let rows = seen.iter().map(|(index, found)| {
                let found = found.as_ref();
                show_row(process, *index, found, usage_of(&usages, &process.guid, found))
            });
            let rows: Vec<Value> = rows.collect();
            return Ok(Json(json!({"resources": rows})));
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_EVERY) => {}
            () = controller.stop.cancelled() => {
                return Err(ApiError::unavailable("The Cloud Controller is stopping"));
            }
        }
    }
}

/// `GET /v3/processes/:guid/stats`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (process, app, _) = processes::access(&mut conn, &caller, &guid).await?;
    drop(conn);
    rows(&controller, &process, &app).await
}

/// `GET /v3/apps/:guid/processes/:type/stats`.
pub(crate) async fn of_app(
    State(controller): App,
    caller: Caller,
    Path((guid, kind)): Path<(String, String)>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (process, app, _) = processes::access_by_type(&mut conn, &caller, &guid, &kind).await?;
    drop(conn);
    rows(&controller, &process, &app).await
}

/// Instances without their numbers, for lists.
pub(crate) async fn instances_of(
    controller: &CloudController,
    process: &Process,
    started: bool,
) -> Result<Vec<Value>, ApiError> {
    let seen = look(controller, process, started).await?;
    Ok(seen
        .iter()
        .map(|(index, found)| {
            let state = found.as_ref().map_or(InstanceState::Down, |found| found.state);
            let since = found.as_ref().map_or(0, age);
            json!({"index": index, "state": state.as_str(), "since": since})
        })
        .collect())
}

/// `GET /v3/processes/:guid/process_instances`.
pub(crate) async fn instances(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    let mut conn = controller.store.read().await?;
    let (process, app, _) = processes::access(&mut conn, &caller, &guid).await?;
    drop(conn);
    let shown = instances_of(&controller, &process, app.started()).await?;
    let total = i64::try_from(shown.len()).unwrap_or(i64::MAX);
    let address = controller.url(&format!("/v3/processes/{guid}/process_instances"));
    Ok(Json(page::document(&address, &query, Paging::of(&query)?, total, shown, None)))
}

async fn stop_instance(
    controller: &CloudController,
    process: &Process,
    index: &str,
) -> Result<StatusCode, ApiError> {
    let missing = || ApiError::not_found("Instance");
    let index: u32 = index.parse().map_err(|_| missing())?;
    if i64::from(index) >= process.instances {
        return Err(missing());
    }
    let stopped = controller.runtime.stop_instance(&process.process_guid(), index).await;
    match stopped.map_err(unavailable)? {
        true => Ok(StatusCode::NO_CONTENT),
        false => Err(missing()),
    }
}

/// `DELETE /v3/processes/:guid/instances/:index`.
pub(crate) async fn stop(
    State(controller): App,
    caller: Caller,
    Path((guid, index)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let mut conn = controller.store.read().await?;
    let (process, _, space) = processes::access(&mut conn, &caller, &guid).await?;
    space.require_supporter()?;
    drop(conn);
    stop_instance(&controller, &process, &index).await
}

/// `DELETE /v3/apps/:guid/processes/:type/instances/:index`.
pub(crate) async fn stop_of_app(
    State(controller): App,
    caller: Caller,
    Path((guid, kind, index)): Path<(String, String, String)>,
) -> Result<StatusCode, ApiError> {
    let mut conn = controller.store.read().await?;
    let (process, _, space) = processes::access_by_type(&mut conn, &caller, &guid, &kind).await?;
    space.require_supporter()?;
    drop(conn);
    stop_instance(&controller, &process, &index).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instance_is_not_said_to_use_what_one_before_it_used() {
        let usage = |index, time| Usage {
            process_guid: "p".into(),
            index,
            time,
            cpu: 0.0,
            cpu_entitlement: None,
            memory: 1,
            disk: 1,
            log_rate: 0,
        };
        let instance = |index, since| Instance {
            index,
            state: InstanceState::Running,
            details: None,
            routable: true,
            instance_guid: String::new(),
            host: String::new(),
            internal_ip: String::new(),
            ports: Vec::new(),
            since,
        };
        let usages = [usage(0, 10), usage(1, 20)];
        let of = |index, since| usage_of(&usages, "p", Some(&instance(index, since)));
        assert_eq!((of(0, 10), of(1, 15)), (Some(&usages[0]), Some(&usages[1])));
        assert_eq!((of(0, 11), of(2, 0)), (None, None));
        assert_eq!(usage_of(&usages, "other", Some(&instance(0, 0))), None);
    }
}
