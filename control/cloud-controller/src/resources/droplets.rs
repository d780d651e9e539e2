//! Droplets: staged apps.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use blobstore::{Bucket, Key};
use serde_json::{Map, Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, apps, find, link, packages as package, to_one};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::{Caller, SpaceAccess};
use crate::error::ApiError;
use crate::job::{self, Work};
use crate::metadata::Metadata;
use crate::query::Query;
use crate::store::packages::Droplet;
use crate::store::select::{Select, by_guid};
use crate::store::set_metadata;
use crate::time;

/// What lists show in place of commands.
const HIDDEN: &str = "[PRIVATE DATA HIDDEN IN LISTS]";

/// In lists commands are hidden: they may hold secrets.
fn show_droplet(controller: &CloudController, droplet: &Droplet, in_list: bool) -> Value {
    let guid = &droplet.guid;
    let path = format!("/v3/droplets/{guid}");
    let app = format!("/v3/apps/{}", droplet.app_guid);
    let types = droplet.process_types();
    let types: Map<String, Value> = match in_list {
        true => types.into_iter().map(|(kind, _)| (kind, HIDDEN.into())).collect(),
        false => types,
    };
    let execution_metadata = if in_list { HIDDEN } else { &droplet.execution_metadata };
    let buildpacks: Value = serde_json::from_str(&droplet.buildpacks).unwrap_or_default();
    let mut links = json!({"self": link(controller, &path)});
    if let Some(package) = &droplet.package_guid {
        links["package"] = link(controller, &format!("/v3/packages/{package}"));
    }
    links["app"] = link(controller, &app);
    links["assign_current_droplet"] = json!({
        "href": controller.url(&format!("{app}/relationships/current_droplet")),
        "method": "PATCH",
    });
    if droplet.sha256.is_some() {
        links["download"] = link(controller, &format!("{path}/download"));
    }
    let checksum = droplet.sha256.as_ref().map(|sha256| json!({"type": "sha256", "value": sha256}));
    json!({
        "guid": guid,
        "created_at": time::show(droplet.created_at),
        "updated_at": time::show(droplet.updated_at),
        "state": droplet.state,
        "error": droplet.error,
        "lifecycle": {"type": droplet.lifecycle, "data": {}},
        "checksum": checksum,
        "buildpacks": buildpacks,
        "stack": droplet.stack,
        "image": droplet.image,
        "execution_metadata": execution_metadata,
        "process_types": types,
        "relationships": {"app": to_one(Some(&droplet.app_guid))},
        "metadata": Metadata::read(&droplet.labels, &droplet.annotations).show(),
        "links": links,
    })
}

async fn page_of(
    controller: &CloudController,
    path: &str,
    query: &Query,
    mut select: Select,
) -> Answer {
    query.allow(&["states", "app_guids", "space_guids", "organization_guids", "current"])?;
    select.filter(query, "states", "droplets.state").common_filters(query)?;
    package::filter_by_app(query, &mut select, "droplets");
    if query.flag("current")? == Some(true) {
        select.only("EXISTS (SELECT 1 FROM apps WHERE apps.droplet_guid = droplets.guid)", [""; 0]);
    }
    select.labels(query)?.order(query, &[])?;
    super::list(controller, path, query, &select, |one| show_droplet(controller, one, true)).await
}

/// `GET /v3/droplets`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut select = Select::from("droplets");
    package::of_visible_apps(&caller, &mut select, "droplets");
    page_of(&controller, "/v3/droplets", &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/apps/:guid/droplets`.
pub(crate) async fn of_app(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    apps::access(&mut conn, &caller, &guid).await?;
    drop(conn);
    let mut select = Select::from("droplets");
    select.only("droplets.app_guid = ?", [&*guid]);
    let path = format!("/v3/apps/{guid}/droplets");
    page_of(&controller, &path, &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/packages/:guid/droplets`.
pub(crate) async fn of_package(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    package::access(&mut conn, &caller, &guid).await?;
    drop(conn);
    let mut select = Select::from("droplets");
    select.only("droplets.package_guid = ?", [&*guid]);
    let path = format!("/v3/packages/{guid}/droplets");
    page_of(&controller, &path, &Query::parse(raw.as_deref()), select).await
}

async fn access(
    conn: &mut SqliteConnection,
    caller: &Caller,
    guid: &str,
) -> Result<(Droplet, SpaceAccess), ApiError> {
    let droplet: Droplet = find(conn, "droplets", "Droplet", guid, |select| {
        package::of_visible_apps(caller, select, "droplets");
    })
    .await?;
    let (_, space) = apps::access(conn, caller, &droplet.app_guid).await?;
    Ok((droplet, space))
}

/// `GET /v3/droplets/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (droplet, _) = access(&mut conn, &caller, &guid).await?;
    Ok(Json(show_droplet(&controller, &droplet, false)))
}

/// `GET /v3/apps/:guid/droplets/current`.
pub(crate) async fn current(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (app, _) = apps::access(&mut conn, &caller, &guid).await?;
    let missing = || ApiError::not_found("Droplet");
    let droplet = app.droplet_guid.ok_or_else(missing)?;
    let droplet: Option<Droplet> = by_guid(&mut conn, "droplets", &droplet).await?;
    Ok(Json(show_droplet(&controller, &droplet.ok_or_else(missing)?, false)))
}

/// `PATCH /v3/droplets/:guid`: labels and annotations.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let change = fields.metadata();
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let (droplet, space) = access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    let metadata = Metadata::read(&droplet.labels, &droplet.annotations);
    let metadata = metadata.merge(&change).map_err(ApiError::unprocessable_all)?;
    set_metadata(&mut tx, "droplets", &guid, &metadata).await?;
    let (droplet, _) = access(&mut tx, &caller, &guid).await?;
    tx.commit().await?;
    Ok(Json(show_droplet(&controller, &droplet, false)))
}

/// `DELETE /v3/droplets/:guid`: not while an app runs it.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    let (droplet, space) = access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    let (app, _) = apps::access(&mut tx, &caller, &droplet.app_guid).await?;
    if app.droplet_guid.as_ref() == Some(&guid) {
        return Err(ApiError::unprocessable("The droplet is currently used by its app."));
    }
    job::accept(&controller, tx, Work::DeleteDroplet { guid }, caller.party()).await
}

/// `GET /v3/droplets/:guid/download`.
pub(crate) async fn download(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut conn = controller.store.read().await?;
    let (droplet, space) = access(&mut conn, &caller, &guid).await?;
    space.require_developer()?;
    drop(conn);
    let key = droplet.key().and_then(|key| Key::new(Bucket::Droplets, &key));
    let key = key
        .filter(|_| droplet.state == "STAGED")
        .ok_or_else(|| ApiError::unprocessable("Only staged droplets can be downloaded."))?;
    package::send_blob(&controller, &key, "application/octet-stream", "Droplet").await
}
