//! Routes for cells, the BBS and the log services.

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use blobstore::{Bucket, Key};
use futures_util::TryStreamExt;
use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;
use serde_json::json;

use super::{App, apps, packages::send_blob};
use crate::CloudController;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::query::Query;
use crate::staging::{self, Completion};
use crate::store::buildpacks::Buildpack;
use crate::store::events::{Party, Place, record};
use crate::store::packages::{self, Build, Droplet, Package};
use crate::store::processes::Process;
use crate::store::select::by_guid;

/// `POST /internal/v3/staging/:build/build_completed`.
pub(crate) async fn build_completed(
    State(controller): App,
    Path(build): Path<String>,
    headers: HeaderMap,
    body: Result<Json<Completion>, axum::extract::rejection::JsonRejection>,
) -> Result<StatusCode, ApiError> {
    require_password(&controller, &headers)?;
    let malformed = body.is_err();
    let completion = match body {
        Ok(Json(completion)) => completion,
        // The build must not stay STAGING for ever because of it.
        Err(_) => Completion { failed: false, failure_reason: String::new(), result: "?".into() },
    };
    staging::complete(&controller, &build, &completion).await?;
    match malformed {
        true => Err(ApiError::message_parse("the completion of a staging task")),
        false => Ok(StatusCode::OK),
    }
}

/// `POST /v1/droplet/:build`, as of the original's uploader: the droplet as the body.
pub(crate) async fn upload_droplet(
    State(controller): App,
    Path(build): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    require_password(&controller, &headers)?;
    let missing = || ApiError::not_found("Build");
    let mut conn = controller.store.read().await?;
    let build: Build = by_guid(&mut conn, "builds", &build).await?.ok_or_else(missing)?;
    drop(conn);
    if build.state != "STAGING" {
        return Err(ApiError::unprocessable("The build has ended"));
    }
    let droplet = &build.droplet_guid;
    // The name holds the digest, which is known at the end only.
    let first = Key::new(Bucket::Droplets, &format!("{droplet}/upload")).ok_or_else(missing)?;
    let bytes = body.into_data_stream().map_err(std::io::Error::other);
    let digests = controller.blobs.put(&first, bytes).await.map_err(broken)?;
    let name = format!("{droplet}/{}", digests.sha256);
    let key = Key::new(Bucket::Droplets, &name).ok_or_else(missing)?;
    controller.blobs.copy(&first, &key).await?;
    controller.blobs.delete(&first).await?;
    let mut tx = controller.store.begin().await?;
    if !packages::droplet_uploaded(&mut tx, droplet, &digests.sha256).await? {
        return Err(missing());
    }
    tx.commit().await?;
    Ok(StatusCode::CREATED)
}

/// An upload that broke off is the sender's to repeat; a store that fails is our fault.
fn broken(err: blobstore::Error) -> ApiError {
    match err {
        blobstore::Error::Peer { .. } => ApiError::bad_request("The upload broke off"),
        err => err.into(),
    }
}

/// `POST /v1/build_artifacts/:app`: what buildpacks keep for the next staging.
pub(crate) async fn upload_cache(
    State(controller): App,
    Path(app): Path<String>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Result<StatusCode, ApiError> {
    require_password(&controller, &headers)?;
    let query = Query::parse(raw.as_deref());
    let stack = query.get("stack").unwrap_or_else(|| controller.config.default_stack());
    let mut conn = controller.store.read().await?;
    let known: Option<crate::store::apps::App> = by_guid(&mut conn, "apps", &app).await?;
    drop(conn);
    let key = known.and_then(|_| Key::new(Bucket::BuildpackCache, &format!("{app}/{stack}")));
    let key = key.ok_or_else(|| ApiError::not_found("App"))?;
    let bytes = body.into_data_stream().map_err(std::io::Error::other);
    controller.blobs.put(&key, bytes).await.map_err(broken)?;
    Ok(StatusCode::OK)
}

/// Downloads hold the users' code, and uploads become it: whoever comes with one or for one shows the
/// cells' name and password, which the addresses have that we give out.
fn require_password(controller: &CloudController, headers: &HeaderMap) -> Result<(), ApiError> {
    let auth = &controller.config.staging.auth;
    let given = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Basic "))
        .and_then(|encoded| STANDARD.decode(encoded.trim()).ok());
    let wanted = format!("{}:{}", auth.user, auth.password.0);
    match given {
        Some(given) if !auth.user.is_empty() && same(&given, wanted.as_bytes()) => Ok(()),
        _ => Err(ApiError::not_authenticated()),
    }
}

/// Compares without telling by its time where the two differ.
fn same(left: &[u8], right: &[u8]) -> bool {
    let differs = left.iter().zip(right).fold(0, |differs, (a, b)| differs | (a ^ b));
    left.len() == right.len() && differs == 0
}

/// `GET /staging/packages/:guid`.
pub(crate) async fn download_package(
    State(controller): App,
    Path(guid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    require_password(&controller, &headers)?;
    let mut conn = controller.store.read().await?;
    let package: Option<Package> = by_guid(&mut conn, "packages", &guid).await?;
    drop(conn);
    let key = package.and_then(|package| Key::new(Bucket::Packages, &package.guid));
    let key = key.ok_or_else(|| ApiError::not_found("Package"))?;
    send_blob(&controller, &key, "application/zip", "Package").await
}

async fn send_droplet(
    controller: &CloudController,
    droplet: Option<Droplet>,
) -> Result<Response, ApiError> {
    let key = droplet.and_then(|droplet| droplet.key());
    let key = key.and_then(|key| Key::new(Bucket::Droplets, &key));
    let key = key.ok_or_else(|| ApiError::not_found("Droplet"))?;
    send_blob(controller, &key, "application/octet-stream", "Droplet").await
}

/// `GET /staging/v3/droplets/:guid/download`.
pub(crate) async fn download_droplet(
    State(controller): App,
    Path(guid): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    require_password(&controller, &headers)?;
    let mut conn = controller.store.read().await?;
    let droplet: Option<Droplet> = by_guid(&mut conn, "droplets", &guid).await?;
    drop(conn);
    send_droplet(&controller, droplet).await
}

/// `GET /internal/v4/droplets/:app/:checksum/download`: the checksum is what only cells know that run
/// the app.
pub(crate) async fn download_app_droplet(
    State(controller): App,
    Path((app, checksum)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let mut conn = controller.store.read().await?;
    let droplet: Option<Droplet> =
        sqlx::query_as("SELECT * FROM droplets WHERE app_guid = ? AND sha256 = ? ORDER BY id DESC")
            .bind(&app)
            .bind(&checksum)
            .fetch_optional(&mut *conn)
            .await?;
    drop(conn);
    send_droplet(&controller, droplet).await
}

/// `GET /staging/v3/buildpack_cache/:stack/:app/download`.
pub(crate) async fn download_cache(
    State(controller): App,
    Path((stack, app)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    require_password(&controller, &headers)?;
    let key = Key::new(Bucket::BuildpackCache, &format!("{app}/{stack}"));
    let key = key.ok_or_else(|| ApiError::not_found("Buildpack cache"))?;
    send_blob(&controller, &key, "application/octet-stream", "Buildpack cache").await
}

/// `GET /internal/v2/buildpacks/:guid/download`.
pub(crate) async fn download_buildpack(
    State(controller): App,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut conn = controller.store.read().await?;
    let buildpack: Option<Buildpack> = by_guid(&mut conn, "buildpacks", &guid).await?;
    drop(conn);
    let key = buildpack.and_then(|buildpack| buildpack.key());
    let key = key.and_then(|key| Key::new(Bucket::Buildpacks, &key));
    let key = key.ok_or_else(|| ApiError::not_found("Buildpack"))?;
    send_blob(&controller, &key, "application/zip", "Buildpack").await
}

/// A crash, as the original's watcher of the BBS reports it.
#[derive(Debug, Deserialize)]
pub(crate) struct Crash {
    #[serde(default)]
    pub instance: String,
    #[serde(default)]
    pub index: u32,
    #[serde(default)]
    pub cell_id: String,
    #[serde(default)]
    pub reason: String,
    #[serde(default)]
    pub exit_description: String,
    #[serde(default)]
    pub crash_count: i64,
    #[serde(default)]
    pub crash_timestamp: i64,
}

/// `POST /internal/v4/apps/:process/crashed`.
pub(crate) async fn crashed(
    State(controller): App,
    Path(process): Path<String>,
    headers: HeaderMap,
    Json(crash): Json<Crash>,
) -> Result<Response, ApiError> {
    require_password(&controller, &headers)?;
    record_crash(&controller, &process, &crash).await?;
    Ok(StatusCode::OK.into_response())
}

/// Records the crash of an instance. One of an older version of the process is of no interest: it has
/// been replaced.
pub(crate) async fn record_crash(
    controller: &CloudController,
    process_guid: &str,
    crash: &Crash,
) -> Result<(), ApiError> {
    // Two guids with a hyphen between them.
    let (guid, version) = match (process_guid.get(..36), process_guid.get(37..)) {
        (Some(guid), Some(version)) => (guid, version),
        _ => return Err(ApiError::not_found("Process")),
    };
    let mut tx = controller.store.begin().await?;
    let process: Option<Process> = by_guid(&mut tx, "processes", guid).await?;
    let process = process.filter(|process| process.version == version);
    let process = process.ok_or_else(|| ApiError::not_found("Process"))?;
    let data = json!({
        "instance": crash.instance,
        "index": crash.index,
        "cell_id": crash.cell_id,
        "reason": crash.reason,
        "exit_description": crash.exit_description,
        "crash_count": crash.crash_count,
        "crash_timestamp": crash.crash_timestamp,
    });
    let app: Option<crate::store::apps::App> = by_guid(&mut tx, "apps", &process.app_guid).await?;
    let app = app.ok_or_else(|| ApiError::not_found("App"))?;
    let actor = Party::new("process", guid, &process.r#type);
    let target = Party::new("app", &app.guid, &app.name);
    let place = Place { space_guid: Some(&app.space_guid), org_guid: None };
    for kind in ["audit.app.process.crash", "app.crash"] {
        record(&mut tx, kind, &actor, &target, place, &data).await?;
    }
    tx.commit().await?;
    let kind = &process.r#type;
    controller.logs.api(&app.guid, format!("Process has crashed with type: \"{kind}\""));
    controller
        .logs
        .api(&app.guid, format!("App instance exited with guid {} payload: {data}", app.guid));
    Ok(())
}

/// `GET /internal/v4/log_access/:app`: whether the caller may read an app's logs.
pub(crate) async fn log_access(
    State(controller): App,
    caller: Caller,
    Path(app): Path<String>,
) -> Result<StatusCode, ApiError> {
    let mut conn = controller.store.read().await?;
    apps::access(&mut conn, &caller, &app).await?;
    Ok(StatusCode::OK)
}
