//! Destinations of routes: which process of which app, on which port.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use http::StatusCode;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, apps, link, routes as route};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::query::Query;
use crate::running::{self, APP_PORT};
use crate::store::events::{Party, Place, record};
use crate::store::routes::{self, Destination, Route};
use crate::time;

pub(crate) fn show_destination(destination: &Destination) -> Value {
    json!({
        "guid": destination.guid,
        "created_at": time::show(destination.created_at),
        "updated_at": time::show(destination.updated_at),
        "app": {
            "guid": destination.app_guid,
            "process": {"type": destination.process_type},
        },
        "weight": null,
        "port": destination.port,
        "protocol": destination.protocol,
    })
}

async fn show_all(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    guid: &str,
) -> Result<Value, ApiError> {
    let all = routes::destinations(conn, guid).await?;
    let all: Vec<Value> = all.iter().map(show_destination).collect();
    let path = format!("/v3/routes/{guid}");
    Ok(json!({
        "destinations": all,
        "links": {
            "self": link(controller, &format!("{path}/destinations")),
            "route": link(controller, &path),
        },
    }))
}

/// `GET /v3/routes/:guid/destinations`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&["app_guids"])?;
    let mut conn = controller.store.read().await?;
    route::access(&mut conn, &caller, &guid).await?;
    let mut shown = show_all(&controller, &mut conn, &guid).await?;
    if let Some(apps) = query.list("app_guids")
        && let Some(all) = shown["destinations"].as_array_mut()
    {
        let wanted = |one: &Value| apps.iter().any(|app| one["app"]["guid"] == **app);
        all.retain(wanted);
    }
    Ok(Json(shown))
}

/// What a request wants a route to lead to.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Wanted {
    app_guid: String,
    process_type: String,
    port: i64,
    protocol: String,
}

fn take_wanted(fields: &mut Fields) -> Vec<Wanted> {
    let list = match fields.take("destinations") {
        Some(Value::Array(list)) => list,
        _ => {
            fields.fault("Destinations must be an array containing destination hashes");
            return Vec::new();
        }
    };
    let mut wanted = Vec::new();
    for value in list {
        let Some(app_guid) = value["app"]["guid"].as_str() else {
            fields.fault("Destinations must have the structure \"destinations\": [{\"app\": {\"guid\": \"app_guid\"}}]");
            continue;
        };
        let port = match &value["port"] {
            Value::Null => i64::from(APP_PORT),
            port => match port.as_i64().filter(|port| (1024..=65535).contains(port)) {
                Some(port) => port,
                None => {
                    fields.fault("Port must be between 1024 and 65535");
                    continue;
                }
            },
        };
        let protocol = match &value["protocol"] {
            Value::Null => "http1",
            protocol => match protocol.as_str() {
                Some(protocol @ ("http1" | "http2")) => protocol,
                _ => {
                    fields.fault("Destination protocol must be 'http1' or 'http2'");
                    continue;
                }
            },
        };
        if value.get("weight").is_some_and(|weight| !weight.is_null()) {
            fields.fault("Weighted destinations are not served yet");
        }
        wanted.push(Wanted {
            app_guid: app_guid.to_owned(),
            process_type: value["app"]["process"]["type"].as_str().unwrap_or("web").to_owned(),
            port,
            protocol: protocol.to_owned(),
        });
    }
    wanted
}

/// The apps must be in the route's space.
async fn check(
    conn: &mut SqliteConnection,
    caller: &Caller,
    route: &Route,
    wanted: &[Wanted],
) -> Result<(), ApiError> {
    for one in wanted {
        let app = apps::access(conn, caller, &one.app_guid).await;
        let (app, _) = app.map_err(|err| match err.status {
            StatusCode::NOT_FOUND => ApiError::unprocessable(format!(
                "App(s) with guid(s) \"{}\" do not exist or you do not have access.",
                one.app_guid
            )),
            _ => err,
        })?;
        if app.space_guid != route.space_guid {
            return Err(ApiError::unprocessable(
                "Routes cannot be mapped to destinations in different spaces",
            ));
        }
    }
    Ok(())
}

async fn record_map(
    conn: &mut SqliteConnection,
    kind: &str,
    caller: &Caller,
    route: &Route,
    app_guid: &str,
) -> Result<(), sqlx::Error> {
    let target = Party::new("app", app_guid, "");
    let place = Place { space_guid: Some(&route.space_guid), org_guid: None };
    let data = json!({"route_guid": route.guid});
    record(conn, kind, &caller.party(), &target, place, &data).await
}

/// `POST /v3/routes/:guid/destinations`.
pub(crate) async fn add(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let wanted = take_wanted(&mut fields);
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let (route, space) = route::access(&mut tx, &caller, &guid).await?;
    space.require_supporter()?;
    check(&mut tx, &caller, &route, &wanted).await?;
    for one in &wanted {
        let Wanted { app_guid, process_type, port, protocol } = one;
        if routes::map(&mut tx, &guid, app_guid, process_type, *port, protocol).await? {
            record_map(&mut tx, "audit.app.map-route", &caller, &route, app_guid).await?;
            route::touch(&mut tx, app_guid, process_type).await?;
        }
    }
    let shown = show_all(&controller, &mut tx, &guid).await?;
    tx.commit().await?;
    for one in &wanted {
        running::settle(&controller, &one.app_guid, &[]).await;
    }
    Ok(Json(shown))
}

/// `PATCH /v3/routes/:guid/destinations`: these instead of all others.
pub(crate) async fn replace(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let wanted = take_wanted(&mut fields);
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let (route, space) = route::access(&mut tx, &caller, &guid).await?;
    space.require_supporter()?;
    check(&mut tx, &caller, &route, &wanted).await?;
    let mut changed: Vec<String> = Vec::new();
    for old in routes::destinations(&mut tx, &guid).await? {
        let kept = wanted.iter().any(|one| {
            one.app_guid == old.app_guid
                && one.process_type == old.process_type
                && one.port == old.port
                && one.protocol == old.protocol
        });
        if !kept {
            routes::unmap(&mut tx, &old.guid).await?;
            record_map(&mut tx, "audit.app.unmap-route", &caller, &route, &old.app_guid).await?;
            route::touch(&mut tx, &old.app_guid, &old.process_type).await?;
            changed.push(old.app_guid);
        }
    }
    for one in &wanted {
        let Wanted { app_guid, process_type, port, protocol } = one;
        if routes::map(&mut tx, &guid, app_guid, process_type, *port, protocol).await? {
            record_map(&mut tx, "audit.app.map-route", &caller, &route, app_guid).await?;
            route::touch(&mut tx, app_guid, process_type).await?;
            changed.push(app_guid.clone());
        }
    }
    let shown = show_all(&controller, &mut tx, &guid).await?;
    tx.commit().await?;
    for app_guid in &changed {
        running::settle(&controller, app_guid, &[]).await;
    }
    Ok(Json(shown))
}

/// `DELETE /v3/routes/:guid/destinations/:destination`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path((guid, destination)): Path<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let mut tx = controller.store.begin().await?;
    let (route, space) = route::access(&mut tx, &caller, &guid).await?;
    space.require_supporter()?;
    let all = routes::destinations(&mut tx, &guid).await?;
    let Some(one) = all.into_iter().find(|one| one.guid == destination) else {
        return Err(ApiError::unprocessable(
            "Unable to unmap route from destination. Ensure the route has a destination with this \
             guid.",
        ));
    };
    routes::unmap(&mut tx, &destination).await?;
    record_map(&mut tx, "audit.app.unmap-route", &caller, &route, &one.app_guid).await?;
    route::touch(&mut tx, &one.app_guid, &one.process_type).await?;
    tx.commit().await?;
    running::settle(&controller, &one.app_guid, &[]).await;
    Ok(StatusCode::NO_CONTENT)
}
