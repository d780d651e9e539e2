//! Processes of apps, and their sidecars.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use http::StatusCode;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, action, app_actions, apps, flags, link, stats, to_one};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::{Caller, SpaceAccess};
use crate::error::ApiError;
use crate::metadata::Metadata;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::store::apps::App as AppRow;
use crate::store::json_text;
use crate::store::packages::Droplet;
use crate::store::processes::{self, HealthCheck, Process, Sidecar};
use crate::store::select::{Select, by_guid};
use crate::time;

/// What lists show in place of commands, which may hold secrets.
const HIDDEN: &str = "[PRIVATE DATA HIDDEN IN LISTS]";

fn show_check(check: &HealthCheck, readiness: bool) -> Value {
    let mut data = json!({});
    if !readiness {
        data["timeout"] = check.timeout.into();
    }
    data["invocation_timeout"] = check.invocation_timeout.into();
    data["interval"] = check.interval.into();
    if check.kind == "http" {
        data["endpoint"] = check.endpoint.as_deref().unwrap_or("/").into();
    }
    json!({"type": check.kind, "data": data})
}

pub(crate) fn show_process(
    controller: &CloudController,
    process: &Process,
    command: Option<&str>,
) -> Value {
    let guid = &process.guid;
    let path = format!("/v3/processes/{guid}");
    let app = format!("/v3/apps/{}", process.app_guid);
    json!({
        "guid": guid,
        "created_at": time::show(process.created_at),
        "updated_at": time::show(process.updated_at),
        "type": process.r#type,
        "version": process.version,
        "command": command,
        "user": process.user.as_deref().unwrap_or("vcap"),
        "instances": process.instances,
        "memory_in_mb": process.memory_mb,
        "disk_in_mb": process.disk_mb,
        "log_rate_limit_in_bytes_per_second": process.log_rate,
        "health_check": show_check(&process.health(), false),
        "readiness_health_check": show_check(&process.readiness(), true),
        "relationships": {"app": to_one(Some(&process.app_guid)), "revision": null},
        "metadata": Metadata::read(&process.labels, &process.annotations).show(),
        "links": {
            "self": link(controller, &path),
            "scale": action(controller, &format!("{path}/actions/scale")),
            "app": link(controller, &app),
            "space": {"href": null},
            "stats": link(controller, &format!("{path}/stats")),
            "process_instances": link(controller, &format!("{path}/process_instances")),
        },
    })
}

/// A single process, with the command that it runs.
async fn show_one(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    process: &Process,
    app: &AppRow,
) -> Result<Value, ApiError> {
    let mut command = process.command.clone();
    if command.is_none()
        && let Some(guid) = &app.droplet_guid
        && let Some(droplet) = by_guid::<Droplet>(conn, "droplets", guid).await?
    {
        let types = droplet.process_types();
        command = types.get(&process.r#type).and_then(Value::as_str).map(str::to_owned);
    }
    let mut shown = show_process(controller, process, command.as_deref());
    shown["links"]["space"] = link(controller, &format!("/v3/spaces/{}", app.space_guid));
    Ok(shown)
}

/// A process whose app the caller sees.
pub(crate) async fn access(
    conn: &mut SqliteConnection,
    caller: &Caller,
    guid: &str,
) -> Result<(Process, AppRow, SpaceAccess), ApiError> {
    let missing = || ApiError::not_found("Process");
    let process: Process = by_guid(conn, "processes", guid).await?.ok_or_else(missing)?;
    let (app, space) =
        apps::access(conn, caller, &process.app_guid).await.map_err(|err| match err.status {
            StatusCode::NOT_FOUND => missing(),
            _ => err,
        })?;
    Ok((process, app, space))
}

/// A process of an app by its type.
pub(crate) async fn access_by_type(
    conn: &mut SqliteConnection,
    caller: &Caller,
    app_guid: &str,
    kind: &str,
) -> Result<(Process, AppRow, SpaceAccess), ApiError> {
    let (app, space) = apps::access(conn, caller, app_guid).await?;
    let process = processes::by_type(conn, app_guid, kind).await?;
    Ok((process.ok_or_else(|| ApiError::not_found("Process"))?, app, space))
}

async fn page_of(
    controller: &CloudController,
    path: &str,
    query: &Query,
    mut select: Select,
) -> Answer {
    query.allow(&["types", "app_guids", "space_guids", "organization_guids", "embed"])?;
    select.filter(query, "types", "processes.type");
    select.filter(query, "app_guids", "processes.app_guid").common_filters(query)?;
    if let Some(spaces) = query.list("space_guids") {
        let mut apps = Select::from("apps");
        apps.any("apps.space_guid", &spaces);
        select.within("processes.app_guid", "guid", &apps);
    }
    if let Some(orgs) = query.list("organization_guids") {
        let mut spaces = Select::from("spaces");
        spaces.any("spaces.org_guid", &orgs);
        let mut apps = Select::from("apps");
        apps.within("apps.space_guid", "guid", &spaces);
        select.within("processes.app_guid", "guid", &apps);
    }
    let embed = match query.get("embed") {
        None => false,
        Some("process_instances") => true,
        Some(_) => {
            return Err(ApiError::bad_query(
                "Invalid embedded resource. Valid embedded resources are: 'process_instances'",
            ));
        }
    };
    select.labels(query)?.order(query, &[])?;
    let paging = Paging::of(query)?;
    let mut conn = controller.store.read().await?;
    let (found, total) = select.page::<Process>(&mut conn, paging).await?;
    let mut shown = Vec::with_capacity(found.len());
    for process in &found {
        let app: Option<AppRow> = by_guid(&mut conn, "apps", &process.app_guid).await?;
        let mut one = show_process(controller, process, Some(HIDDEN));
        if let Some(app) = &app {
            one["links"]["space"] = link(controller, &format!("/v3/spaces/{}", app.space_guid));
        }
        shown.push((one, app.is_some_and(|app| app.started())));
    }
    drop(conn);
    let mut resources = Vec::with_capacity(shown.len());
    for (process, (mut one, started)) in found.iter().zip(shown) {
        if embed {
            one["process_instances"] =
                stats::instances_of(controller, process, started).await?.into();
        }
        resources.push(one);
    }
    Ok(Json(page::document(&controller.url(path), query, paging, total, resources, None)))
}

/// `GET /v3/processes`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut visible = Select::from("apps");
    caller.only_visible_spaces(&mut visible, "apps.space_guid");
    let mut select = Select::from("processes");
    select.within("processes.app_guid", "guid", &visible);
    page_of(&controller, "/v3/processes", &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/apps/:guid/processes`.
pub(crate) async fn of_app(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    apps::access(&mut conn, &caller, &guid).await?;
    drop(conn);
    let mut select = Select::from("processes");
    select.only("processes.app_guid = ?", [&*guid]);
    select.default_order("processes.type <> 'web', processes.id");
    let path = format!("/v3/apps/{guid}/processes");
    page_of(&controller, &path, &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/processes/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (process, app, _) = access(&mut conn, &caller, &guid).await?;
    Ok(Json(show_one(&controller, &mut conn, &process, &app).await?))
}

/// `GET /v3/apps/:guid/processes/:type`.
pub(crate) async fn show_of_app(
    State(controller): App,
    caller: Caller,
    Path((guid, kind)): Path<(String, String)>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (process, app, _) = access_by_type(&mut conn, &caller, &guid, &kind).await?;
    Ok(Json(show_one(&controller, &mut conn, &process, &app).await?))
}

/// `PATCH /v3/processes/:guid`.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    fields: Fields,
) -> Answer {
    let mut tx = controller.store.begin().await?;
    let found = access(&mut tx, &caller, &guid).await?;
    change(&controller, tx, &caller, found, fields).await
}

/// `PATCH /v3/apps/:guid/processes/:type`.
pub(crate) async fn update_of_app(
    State(controller): App,
    caller: Caller,
    Path((guid, kind)): Path<(String, String)>,
    fields: Fields,
) -> Answer {
    let mut tx = controller.store.begin().await?;
    let found = access_by_type(&mut tx, &caller, &guid, &kind).await?;
    change(&controller, tx, &caller, found, fields).await
}

/// Command and checks take effect at the next start, as in the original.
async fn change(
    controller: &CloudController,
    mut tx: sqlx::Transaction<'static, sqlx::Sqlite>,
    caller: &Caller,
    (mut process, app, space): (Process, AppRow, SpaceAccess),
    mut fields: Fields,
) -> Answer {
    space.require_developer()?;
    if let Some(command) = fields.take("command") {
        match command {
            Value::Null => process.command = None,
            Value::String(text) if (1..=4096).contains(&text.len()) => process.command = Some(text),
            _ => fields.fault("Command must be between 1 and 4096 characters"),
        }
    }
    if let Some(user) = fields.string("user") {
        process.user = Some(user);
    }
    let most = controller.config.maximum_health_check_timeout;
    if let Some(check) = fields.object("health_check") {
        let check = take_check(&mut fields, check, process.health(), most, false);
        process.set_health(&check);
    }
    if let Some(check) = fields.object("readiness_health_check") {
        let check = take_check(&mut fields, check, process.readiness(), most, true);
        process.set_readiness(&check);
    }
    let metadata = fields.metadata();
    fields.finish()?;
    let own = Metadata::read(&process.labels, &process.annotations);
    let own = own.merge(&metadata).map_err(ApiError::unprocessable_all)?;
    process.labels = json_text(&own.labels);
    process.annotations = json_text(&own.annotations);
    processes::update(&mut tx, &mut process).await?;
    let data = json!({"process_guid": process.guid, "process_type": process.r#type});
    apps::record_app(&mut tx, "audit.app.process.update", &caller.party(), &app, &data).await?;
    let shown = show_one(controller, &mut tx, &process, &app).await?;
    tx.commit().await?;
    Ok(Json(shown))
}

fn take_check(
    outer: &mut Fields,
    mut fields: Fields,
    old: HealthCheck,
    most: i64,
    readiness: bool,
) -> HealthCheck {
    let mut check = match fields.string("type") {
        None => old,
        Some(kind) if kind == old.kind => old,
        Some(kind) if ["port", "http", "process"].contains(&&*kind) => {
            HealthCheck { timeout: old.timeout, ..HealthCheck::of_kind(&kind) }
        }
        Some(_) => {
            fields.fault("Health check type must be \"port\", \"process\", or \"http\"");
            old
        }
    };
    if let Some(mut data) = fields.object("data") {
        if !readiness && let Some(timeout) = data.integer("timeout", 1) {
            if timeout > most {
                data.fault(format!("Health check timeout must be less than or equal to {most}"));
            }
            check.timeout = Some(timeout);
        }
        if let Some(timeout) = data.integer("invocation_timeout", 1) {
            check.invocation_timeout = Some(timeout);
        }
        if let Some(interval) = data.integer("interval", 1) {
            check.interval = Some(interval);
        }
        if let Some(endpoint) = data.string("endpoint") {
            if !endpoint.starts_with('/') {
                data.fault("Health check endpoint must be a valid URI path");
            }
            check.endpoint = Some(endpoint);
        }
        fields.absorb(data);
    }
    outer.absorb(fields);
    check
}

/// `POST /v3/processes/:guid/actions/scale`.
pub(crate) async fn scale(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let mut tx = controller.store.begin().await?;
    let found = access(&mut tx, &caller, &guid).await?;
    scale_found(&controller, tx, &caller, found, fields).await
}

/// `POST /v3/apps/:guid/processes/:type/actions/scale`.
pub(crate) async fn scale_of_app(
    State(controller): App,
    caller: Caller,
    Path((guid, kind)): Path<(String, String)>,
    fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let mut tx = controller.store.begin().await?;
    let found = access_by_type(&mut tx, &caller, &guid, &kind).await?;
    scale_found(&controller, tx, &caller, found, fields).await
}

/// Scaled sizes of a process; what is absent stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Scale {
    pub instances: Option<i64>,
    pub memory_mb: Option<i64>,
    pub disk_mb: Option<i64>,
    pub log_rate: Option<i64>,
}

impl Scale {
    /// Applies it. True if what runs has to be replaced.
    pub fn apply(&self, process: &mut Process) -> bool {
        let before = (process.memory_mb, process.disk_mb, process.log_rate);
        process.instances = self.instances.unwrap_or(process.instances);
        process.memory_mb = self.memory_mb.unwrap_or(process.memory_mb);
        process.disk_mb = self.disk_mb.unwrap_or(process.disk_mb);
        process.log_rate = self.log_rate.unwrap_or(process.log_rate);
        before != (process.memory_mb, process.disk_mb, process.log_rate)
    }
}

async fn scale_found(
    controller: &CloudController,
    mut tx: sqlx::Transaction<'static, sqlx::Sqlite>,
    caller: &Caller,
    (mut process, app, space): (Process, AppRow, SpaceAccess),
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    space.require_developer()?;
    flags::require(&mut tx, caller, "app_scaling").await?;
    let scale = Scale {
        instances: fields.integer("instances", 0),
        memory_mb: fields.integer("memory_in_mb", 1),
        disk_mb: fields.integer("disk_in_mb", 1),
        log_rate: fields.integer("log_rate_limit_in_bytes_per_second", -1),
    };
    let most = controller.config.maximum_app_disk_in_mb;
    if scale.disk_mb.is_some_and(|disk| disk > most) {
        fields.fault(format!("Disk in mb is too large, maximum is {most}"));
    }
    fields.finish()?;
    let old = process.process_guid();
    let mut gone = Vec::new();
    if scale.apply(&mut process) && app.started() {
        process.renew();
        gone.push(old);
    }
    processes::update(&mut tx, &mut process).await?;
    let data = json!({"process_guid": process.guid, "process_type": process.r#type, "request": {
        "instances": scale.instances, "memory_in_mb": scale.memory_mb, "disk_in_mb": scale.disk_mb,
    }});
    apps::record_app(&mut tx, "audit.app.process.scale", &caller.party(), &app, &data).await?;
    let shown = show_one(controller, &mut tx, &process, &app).await?;
    tx.commit().await?;
    app_actions::settle(controller, &app.guid, gone).await;
    Ok((StatusCode::ACCEPTED, Json(shown)))
}

fn show_sidecar(sidecar: &Sidecar) -> Value {
    json!({
        "guid": sidecar.guid,
        "created_at": time::show(sidecar.created_at),
        "updated_at": time::show(sidecar.updated_at),
        "name": sidecar.name,
        "command": sidecar.command,
        "process_types": sidecar.process_types(),
        "memory_in_mb": sidecar.memory_mb,
        "origin": sidecar.origin,
        "relationships": {"app": to_one(Some(&sidecar.app_guid))},
    })
}

async fn sidecar_page(
    controller: &CloudController,
    path: &str,
    raw: Option<&str>,
    app_guid: &str,
    kind: Option<&str>,
) -> Answer {
    let query = Query::parse(raw);
    query.allow(&[])?;
    let mut select = Select::from("sidecars");
    select.only("sidecars.app_guid = ?", [app_guid]);
    if let Some(kind) = kind {
        select.only(
            "EXISTS (SELECT 1 FROM json_each(sidecars.process_types) WHERE value = ?)",
            [kind],
        );
    }
    super::list(controller, path, &query, &select, show_sidecar).await
}

/// `GET /v3/processes/:guid/sidecars`.
pub(crate) async fn sidecars(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (process, ..) = access(&mut conn, &caller, &guid).await?;
    drop(conn);
    let path = format!("/v3/processes/{guid}/sidecars");
    let kind = Some(&*process.r#type);
    sidecar_page(&controller, &path, raw.as_deref(), &process.app_guid, kind).await
}

/// `GET /v3/apps/:guid/sidecars`.
pub(crate) async fn sidecars_of_app(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    apps::access(&mut conn, &caller, &guid).await?;
    drop(conn);
    let path = format!("/v3/apps/{guid}/sidecars");
    sidecar_page(&controller, &path, raw.as_deref(), &guid, None).await
}
