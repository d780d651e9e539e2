//! Buildpacks that an administrator installs.

use std::io::Read;

use axum::Json;
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use blobstore::{Bucket, Key};
use http::StatusCode;
use serde_json::{Value, json};
use zip::ZipArchive;

use super::{Answer, App, action, find, link, list as list_of};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::deletion;
use crate::error::{ApiError, is_taken};
use crate::job::{self, Work};
use crate::metadata::Metadata;
use crate::multipart::{self, Limits};
use crate::query::Query;
use crate::store::buildpacks::{self as rows, Buildpack};
use crate::store::events::{Party, Place, record};
use crate::store::select::{Select, by_guid};
use crate::store::{set_metadata, settings};
use crate::time;

fn show_buildpack(controller: &CloudController, buildpack: &Buildpack) -> Value {
    let guid = &buildpack.guid;
    let path = format!("/v3/buildpacks/{guid}");
    let state = if buildpack.sha256.is_some() { "READY" } else { "AWAITING_UPLOAD" };
    json!({
        "guid": guid,
        "created_at": time::show(buildpack.created_at),
        "updated_at": time::show(buildpack.updated_at),
        "name": buildpack.name,
        "stack": buildpack.stack,
        "state": state,
        "filename": buildpack.filename,
        "position": buildpack.position,
        "lifecycle": "buildpack",
        "enabled": buildpack.enabled,
        "locked": buildpack.locked,
        "metadata": Metadata::read(&buildpack.labels, &buildpack.annotations).show(),
        "links": {
            "self": link(controller, &path),
            "upload": action(controller, &format!("{path}/upload")),
        },
    })
}

/// `GET /v3/buildpacks`: by position, which is the order in which they are asked.
pub(crate) async fn list(State(controller): App, _: Caller, RawQuery(raw): RawQuery) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&["names", "stacks", "lifecycle"])?;
    let mut select = Select::from("buildpacks");
    select.filter(&query, "names", "buildpacks.name");
    if let Some(stacks) = query.list("stacks") {
        let marks = vec!["?"; stacks.len()].join(", ");
        select.only(format!("coalesce(buildpacks.stack, '') IN ({marks})"), stacks);
    }
    if query.get("lifecycle").is_some_and(|kind| kind != "buildpack") {
        select.only("FALSE", [""; 0]);
    }
    select.common_filters(&query)?.labels(&query)?;
    select.default_order("buildpacks.position, buildpacks.id");
    select.order(&query, &["position", "name"])?;
    list_of(&controller, "/v3/buildpacks", &query, &select, |one| show_buildpack(&controller, one))
        .await
}

/// `GET /v3/buildpacks/:guid`.
pub(crate) async fn show(State(controller): App, _: Caller, Path(guid): Path<String>) -> Answer {
    let mut conn = controller.store.read().await?;
    let buildpack = find(&mut conn, "buildpacks", "Buildpack", &guid, |_| ()).await?;
    Ok(Json(show_buildpack(&controller, &buildpack)))
}

fn taken(err: sqlx::Error, name: &str, stack: Option<&str>) -> ApiError {
    match (is_taken(&err), stack) {
        (true, Some(stack)) => ApiError::unprocessable(format!(
            "Buildpack with name '{name}', stack '{stack}' and lifecycle 'buildpack' already exists"
        )),
        (true, None) => ApiError::unprocessable(format!(
            "Buildpack with name '{name}' and an unassigned stack already exists"
        )),
        (false, _) => err.into(),
    }
}

/// `POST /v3/buildpacks`.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let name = fields.required("name");
    let stack = fields.string("stack");
    let position = fields.integer("position", 1);
    let enabled = fields.flag("enabled").unwrap_or(true);
    let locked = fields.flag("locked").unwrap_or(false);
    let change = fields.metadata();
    if fields.string("lifecycle").is_some_and(|kind| kind != "buildpack") {
        fields.fault("Lifecycle must be buildpack: cnb is not served yet");
    }
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if !name.is_empty() && (name.len() > 250 || !name.chars().all(word)) {
        fields.fault("Name can only contain alphanumeric characters, underscores and hyphens");
    }
    fields.finish()?;
    caller.require_admin()?;
    let metadata = Metadata::default().merge(&change).map_err(ApiError::unprocessable_all)?;
    let mut tx = controller.store.begin().await?;
    check_stack(&mut tx, stack.as_deref()).await?;
    let guid = rows::insert(&mut tx, &name, stack.as_deref(), position, enabled, locked).await;
    let guid = guid.map_err(|err| taken(err, &name, stack.as_deref()))?;
    set_metadata(&mut tx, "buildpacks", &guid, &metadata).await?;
    let target = Party::new("buildpack", &guid, &name);
    let data = json!({"request": {"name": name}});
    let place = Place::default();
    record(&mut tx, "audit.buildpack.create", &caller.party(), &target, place, &data).await?;
    let buildpack = find(&mut tx, "buildpacks", "Buildpack", &guid, |_| ()).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(show_buildpack(&controller, &buildpack))))
}

async fn check_stack(
    conn: &mut sqlx::SqliteConnection,
    stack: Option<&str>,
) -> Result<(), ApiError> {
    match stack {
        Some(stack) if settings::stack(conn, stack).await?.is_none() => {
            Err(ApiError::unprocessable(format!("Stack '{stack}' does not exist")))
        }
        _ => Ok(()),
    }
}

/// `PATCH /v3/buildpacks/:guid`.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let name = fields.string("name");
    let stack = fields.string("stack");
    let position = fields.integer("position", 1);
    let enabled = fields.flag("enabled");
    let locked = fields.flag("locked");
    let change = fields.metadata();
    fields.finish()?;
    caller.require_admin()?;
    let mut tx = controller.store.begin().await?;
    let mut buildpack: Buildpack = find(&mut tx, "buildpacks", "Buildpack", &guid, |_| ()).await?;
    check_stack(&mut tx, stack.as_deref()).await?;
    if stack.is_some() && buildpack.stack.is_some() && stack != buildpack.stack {
        return Err(ApiError::unprocessable("Buildpack stack cannot be changed"));
    }
    let metadata = Metadata::read(&buildpack.labels, &buildpack.annotations);
    let metadata = metadata.merge(&change).map_err(ApiError::unprocessable_all)?;
    buildpack.name = name.unwrap_or(buildpack.name);
    buildpack.stack = stack.or(buildpack.stack);
    buildpack.enabled = enabled.unwrap_or(buildpack.enabled);
    buildpack.locked = locked.unwrap_or(buildpack.locked);
    let done = rows::update(&mut tx, &buildpack).await;
    done.map_err(|err| taken(err, &buildpack.name, buildpack.stack.as_deref()))?;
    if let Some(position) = position {
        rows::move_to(&mut tx, &guid, position).await?;
    }
    set_metadata(&mut tx, "buildpacks", &guid, &metadata).await?;
    let target = Party::new("buildpack", &guid, &buildpack.name);
    let place = Place::default();
    record(&mut tx, "audit.buildpack.update", &caller.party(), &target, place, &json!({})).await?;
    let buildpack = find(&mut tx, "buildpacks", "Buildpack", &guid, |_| ()).await?;
    tx.commit().await?;
    Ok(Json(show_buildpack(&controller, &buildpack)))
}

/// `DELETE /v3/buildpacks/:guid`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    let _: Buildpack = find(&mut tx, "buildpacks", "Buildpack", &guid, |_| ()).await?;
    caller.require_admin()?;
    job::accept(&controller, tx, Work::DeleteBuildpack { guid }, caller.party()).await
}

/// `POST /v3/buildpacks/:guid/upload`.
pub(crate) async fn upload(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let mut conn = controller.store.read().await?;
    let buildpack: Buildpack = find(&mut conn, "buildpacks", "Buildpack", &guid, |_| ()).await?;
    drop(conn);
    caller.require_admin()?;
    if buildpack.locked {
        return Err(ApiError::unprocessable("Buildpack is locked"));
    }
    let (head, body) = request.into_parts();
    let limits = Limits { files: controller.config.packages.max_package_size, memory: 1 << 20 };
    let parts = multipart::read(&head.headers, body, &controller.spool(), limits).await?;
    let found = multipart::file(parts, "bits");
    let (filename, file) =
        found.ok_or_else(|| ApiError::unprocessable("Upload must include bits"))?;
    if !filename.to_ascii_lowercase().ends_with(".zip") {
        return Err(ApiError::unprocessable(format!("{filename} is not a zip")));
    }
    let reader = file.reopen()?;
    let own_stack = tokio::task::spawn_blocking(move || stack_of(reader))
        .await
        .map_err(|err| ApiError::unknown(&err))??;
    if let (Some(own), Some(set)) = (&own_stack, &buildpack.stack)
        && own != set
    {
        return Err(ApiError::unprocessable(format!(
            "Uploaded buildpack stack ({own}) does not match {set}"
        )));
    }
    let digests = keep(&controller, &guid, file.path()).await?;
    let mut tx = controller.store.begin().await?;
    check_stack(&mut tx, own_stack.as_deref()).await?;
    let mut now: Buildpack = find(&mut tx, "buildpacks", "Buildpack", &guid, |_| ()).await?;
    let old = now.key();
    now.stack = own_stack.or(now.stack);
    now.filename = Some(filename);
    now.sha256 = Some(digests.sha256);
    let done = rows::update(&mut tx, &now).await;
    done.map_err(|err| taken(err, &now.name, now.stack.as_deref()))?;
    let target = Party::new("buildpack", &guid, &now.name);
    let place = Place::default();
    record(&mut tx, "audit.buildpack.upload", &caller.party(), &target, place, &json!({})).await?;
    let fresh: Option<Buildpack> = by_guid(&mut tx, "buildpacks", &guid).await?;
    let work = Work::UploadBuildpack { guid };
    let mut answer = job::accept(&controller, tx, work, caller.party()).await?;
    if old.is_some() && old != now.key() {
        deletion::drop_blob(&controller, Bucket::Buildpacks, old).await;
    }
    if let Some(fresh) = fresh {
        let shown = show_buildpack(&controller, &fresh).to_string();
        answer
            .headers_mut()
            .insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
        *answer.body_mut() = shown.into();
    }
    Ok(answer)
}

/// Keeps the file under the name that it gets from its own digest.
async fn keep(
    controller: &CloudController,
    guid: &str,
    file: &std::path::Path,
) -> Result<blobstore::Digests, ApiError> {
    let missing = || ApiError::not_found("Buildpack");
    let first = Key::new(Bucket::Buildpacks, &format!("{guid}_upload")).ok_or_else(missing)?;
    let digests = controller.blobs.put_file(&first, file).await?;
    let name = format!("{guid}_{}", digests.sha256);
    let key = Key::new(Bucket::Buildpacks, &name).ok_or_else(missing)?;
    controller.blobs.copy(&first, &key).await?;
    controller.blobs.delete(&first).await?;
    Ok(digests)
}

/// The stack that a buildpack names in its `manifest.yml`.
fn stack_of(file: std::fs::File) -> Result<Option<String>, ApiError> {
    let no_zip =
        |_| ApiError::unprocessable("Buildpack upload failed: the file is not a valid zip");
    let mut archive = ZipArchive::new(file).map_err(no_zip)?;
    let Ok(entry) = archive.by_name("manifest.yml") else { return Ok(None) };
    let mut text = String::new();
    let mut limited = Read::take(entry, 1 << 20);
    if limited.read_to_string(&mut text).is_err() {
        return Ok(None);
    }
    let manifest: Value = serde_saphyr::from_str(&text).unwrap_or_default();
    Ok(manifest["stack"].as_str().map(str::to_owned))
}
