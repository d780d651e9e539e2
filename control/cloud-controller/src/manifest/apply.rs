//! Makes apps what a manifest says.

use serde_json::{Map, Value, json};
use sqlx::SqliteConnection;

use super::document::{self, Application, ProcessChange, WantedRoute};
use super::route::{self, Fault};
use crate::CloudController;
use crate::error::ApiError;
use crate::metadata::Metadata;
use crate::resources::app_actions::settle;
use crate::resources::apps::{self, lifecycle_faults};
use crate::resources::routes::{NewRoute, insert, touch};
use crate::running::APP_PORT;
use crate::store::apps::{self as rows, App, NewApp};
use crate::store::domains::{self, Domain};
use crate::store::events::{Party, Place, record};
use crate::store::orgs::Space;
use crate::store::routes::Route;
use crate::store::select::by_guid;
use crate::store::{json_text, processes, routes};

/// Applies a manifest app by app. The first app that fails ends it; what was applied before stays.
pub(crate) async fn run(
    controller: &CloudController,
    space_guid: &str,
    yaml: &str,
    actor: &Party,
) -> Result<Vec<String>, ApiError> {
    let apps = document::parse(yaml).map_err(ApiError::unprocessable_all)?;
    for app in &apps {
        let mut tx = controller.store.begin().await?;
        let guid =
            apply(controller, &mut tx, space_guid, app, actor).await.map_err(|mut err| {
                for error in &mut err.errors {
                    error.detail = format!("For application '{}': {}", app.name, error.detail);
                }
                err
            })?;
        tx.commit().await?;
        settle(controller, &guid, Vec::new()).await;
    }
    Ok(Vec::new())
}

/// An app that a manifest names, made if the space has none of that name.
pub(crate) async fn ensure(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    space_guid: &str,
    wanted: &Application,
    actor: &Party,
) -> Result<App, ApiError> {
    if let Some(app) = rows::by_name(conn, space_guid, &wanted.name).await? {
        return Ok(app);
    }
    let lifecycle = wanted.lifecycle.kind.clone().unwrap_or_else(|| "buildpack".into());
    let stack = wanted.lifecycle.stack.clone().flatten();
    let stack = match &*lifecycle {
        "docker" => None,
        _ => Some(stack.unwrap_or_else(|| controller.config.default_stack().to_owned())),
    };
    let new = NewApp {
        name: wanted.name.clone(),
        space_guid: space_guid.to_owned(),
        lifecycle,
        buildpacks: wanted.lifecycle.buildpacks.clone().unwrap_or_default(),
        stack,
        env: Map::new(),
        metadata: Metadata::default(),
    };
    let app = apps::insert(controller, conn, actor, &new).await?;
    controller.logs.api(&app.guid, format!("Created app with guid {}", app.guid));
    Ok(app)
}

/// What the database knows and the manifest alone does not: stacks and buildpacks.
pub(crate) async fn faults(
    conn: &mut SqliteConnection,
    apps: &[Application],
) -> Result<Vec<String>, sqlx::Error> {
    let mut faults = Vec::new();
    for app in apps {
        let chosen = app.lifecycle.buildpacks.clone().unwrap_or_default();
        let stack = app.lifecycle.stack.clone().flatten();
        for fault in lifecycle_faults(conn, &chosen, stack.as_deref()).await? {
            faults.push(format!("For application '{}': {fault}", app.name));
        }
    }
    Ok(faults)
}

async fn apply(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    space_guid: &str,
    wanted: &Application,
    actor: &Party,
) -> Result<String, ApiError> {
    let mut app = ensure(controller, conn, space_guid, wanted, actor).await?;
    if wanted.lifecycle.kind.as_ref().is_some_and(|kind| *kind != app.lifecycle) {
        return Err(ApiError::unprocessable("Lifecycle type cannot be changed"));
    }
    let mut features: Map<String, Value> = serde_json::from_str(&app.features).unwrap_or_default();
    for (name, on) in &wanted.features {
        features.insert(name.clone(), (*on).into());
    }
    app.features = json_text(&features);
    for change in &wanted.processes {
        apply_process(controller, conn, &app, change).await?;
    }
    for sidecar in &wanted.sidecars {
        processes::put_sidecar(conn, &app.guid, sidecar, "user").await?;
    }
    if let Some(chosen) = &wanted.lifecycle.buildpacks {
        app.buildpacks = json_text(chosen);
    }
    if let Some(stack) = &wanted.lifecycle.stack {
        app.stack = stack.clone();
    }
    let metadata = app.metadata().merge(&wanted.metadata).map_err(ApiError::unprocessable_all)?;
    app.labels = json_text(&metadata.labels);
    app.annotations = json_text(&metadata.annotations);
    if let Some(env) = &wanted.env {
        let mut vars = app.env();
        vars.extend(env.clone());
        app.env = json_text(&vars);
    }
    rows::update(conn, &app).await?;
    apply_routes(controller, conn, &app, wanted, actor).await?;
    let data = json!({"manifest_triggered": true, "request": {"name": app.name}});
    apps::record_app(conn, "audit.app.apply_manifest", actor, &app, &data).await?;
    Ok(app.guid)
}

async fn apply_process(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    app: &App,
    change: &ProcessChange,
) -> Result<(), ApiError> {
    let config = &controller.config;
    if change.scale.disk_mb.is_some_and(|disk| disk > config.maximum_app_disk_in_mb) {
        let most = config.maximum_app_disk_in_mb;
        return Err(ApiError::unprocessable(format!(
            "Disk quota is too large, maximum is {most}M"
        )));
    }
    if change.health.timeout.is_some_and(|time| time > config.maximum_health_check_timeout) {
        let most = config.maximum_health_check_timeout;
        return Err(ApiError::unprocessable(format!(
            "Timeout must be less than or equal to {most}"
        )));
    }
    let found = processes::by_type(conn, &app.guid, &change.kind).await?;
    let mut process = match found {
        Some(process) => process,
        None => processes::insert(conn, &app.guid, &change.kind, config).await?,
    };
    change.apply(&mut process);
    processes::update(conn, &mut process).await?;
    Ok(())
}

/// Where an app's routes may lie.
struct Ground {
    space: Space,
    domains: Vec<Domain>,
}

async fn apply_routes(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    app: &App,
    wanted: &Application,
    actor: &Party,
) -> Result<(), ApiError> {
    let change = &wanted.routes;
    let has_routes = !routes::of_app(conn, &app.guid).await?.is_empty();
    if change.none {
        return unmap_all(conn, app, actor).await;
    }
    let space: Option<Space> = by_guid(conn, "spaces", &app.space_guid).await?;
    let space = space.ok_or_else(|| ApiError::not_found("Space"))?;
    let domains = domains::usable_by(conn, &space.org_guid).await?;
    let ground = Ground { space, domains };
    for wanted in &change.routes {
        map(controller, conn, app, &ground, wanted, actor).await?;
    }
    if change.routes.is_empty() && !has_routes && (change.default || change.random) {
        let host = match change.random {
            true => route::random_host(&app.name, rand::random()),
            false => route::host_of(&app.name),
        };
        let default = ground.domains.iter().find(|domain| !domain.internal);
        let default =
            default.ok_or_else(|| ApiError::unprocessable("No default domains available"))?;
        let route = format!("{host}.{}", default.name);
        let wanted = WantedRoute { route, protocol: None, options: Map::new() };
        map(controller, conn, app, &ground, &wanted, actor).await?;
    }
    Ok(())
}

async fn unmap_all(conn: &mut SqliteConnection, app: &App, actor: &Party) -> Result<(), ApiError> {
    for route in routes::of_app(conn, &app.guid).await? {
        for destination in routes::destinations(conn, &route.guid).await? {
            if destination.app_guid == app.guid {
                routes::unmap(conn, &destination.guid).await?;
                touch(conn, &app.guid, &destination.process_type).await?;
                mapped(conn, "audit.app.unmap-route", app, &route.guid, actor).await?;
            }
        }
    }
    Ok(())
}

async fn mapped(
    conn: &mut SqliteConnection,
    kind: &str,
    app: &App,
    route_guid: &str,
    actor: &Party,
) -> Result<(), sqlx::Error> {
    let target = Party::new("app", &app.guid, &app.name);
    let place = Place { space_guid: Some(&app.space_guid), org_guid: None };
    let data = json!({"route_guid": route_guid, "manifest_triggered": true});
    record(conn, kind, actor, &target, place, &data).await
}

/// Maps a route to an app, made if it does not exist.
async fn map(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    app: &App,
    ground: &Ground,
    wanted: &WantedRoute,
    actor: &Party,
) -> Result<(), ApiError> {
    let text = &wanted.route;
    let names: Vec<&str> = ground.domains.iter().map(|domain| &*domain.name).collect();
    let parts = route::resolve(text, &names).map_err(|fault| {
        ApiError::unprocessable(match fault {
            Fault::Malformed => format!("The route '{text}' is not a properly formed URL"),
            Fault::NoDomain => format!("The route '{text}' did not match any existing domains."),
            Fault::Port => format!("The route '{text}' has a port: TCP routes are not served yet"),
        })
    })?;
    let domain = &ground.domains[parts.domain];
    let existing = routes::find(conn, &domain.guid, &parts.host, &parts.path).await?;
    let guid = match existing {
        Some(route) if route.space_guid != app.space_guid => {
            return Err(ApiError::unprocessable(format!(
                "The app cannot be mapped to route {text} because the route is not in this space. \
                 Apps must be mapped to routes in the same space."
            )));
        }
        Some(route) => {
            set_options(conn, &route, wanted).await?;
            route.guid
        }
        None => {
            let new = NewRoute {
                space: &ground.space,
                domain,
                host: &parts.host,
                path: &parts.path,
                options: &wanted.options,
                metadata: &Metadata::default(),
            };
            insert(controller, conn, &new, actor, false).await?
        }
    };
    let protocol = wanted.protocol.as_deref().unwrap_or("http1");
    if routes::map(conn, &guid, &app.guid, "web", i64::from(APP_PORT), protocol).await? {
        mapped(conn, "audit.app.map-route", app, &guid, actor).await?;
    } else if wanted.protocol.is_some() {
        routes::set_protocol(conn, &guid, &app.guid, "web", protocol).await?;
    }
    touch(conn, &app.guid, "web").await?;
    Ok(())
}

async fn set_options(
    conn: &mut SqliteConnection,
    route: &Route,
    wanted: &WantedRoute,
) -> Result<(), sqlx::Error> {
    if wanted.options.is_empty() {
        return Ok(());
    }
    let mut options = route.options();
    for (name, value) in &wanted.options {
        match value {
            Value::Null => drop(options.shift_remove(name)),
            value => drop(options.insert(name.clone(), value.clone())),
        }
    }
    routes::set_options(conn, &route.guid, &options).await
}
