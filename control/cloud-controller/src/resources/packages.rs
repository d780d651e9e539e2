//! Packages: an app's files, uploaded.

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{Path, RawQuery, Request, State};
use axum::response::Response;
use blobstore::{Bucket, Key};
use http::{StatusCode, header};
use serde::Deserialize;
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, action, apps, find, flags, jobs::HOLD, link, to_one};
use crate::CloudController;
use crate::bits::{self, Resource};
use crate::body::Fields;
use crate::caller::{Caller, SpaceAccess};
use crate::deletion;
use crate::error::ApiError;
use crate::job::{self, Work};
use crate::metadata::Metadata;
use crate::multipart::{self, Content, Limits};
use crate::query::Query;
use crate::store::apps::App as AppRow;
use crate::store::packages::{self as rows, Package};
use crate::store::select::{Select, by_guid};
use crate::store::set_metadata;
use crate::time;

/// The most that a list of matched files may take, in bytes.
const LIST_LIMIT: usize = 32 << 20;

pub(crate) fn show_package(controller: &CloudController, package: &Package) -> Value {
    let guid = &package.guid;
    let path = format!("/v3/packages/{guid}");
    let mut links = json!({"self": link(controller, &path)});
    let data = match &package.image {
        Some(image) => json!({"image": image, "username": null, "password": null}),
        None => {
            links["upload"] = action(controller, &format!("{path}/upload"));
            links["download"] = json!({
                "href": controller.url(&format!("{path}/download")),
                "method": "GET",
            });
            json!({
                "error": package.error,
                "checksum": {"type": "sha256", "value": package.sha256},
            })
        }
    };
    links["app"] = link(controller, &format!("/v3/apps/{}", package.app_guid));
    json!({
        "guid": guid,
        "created_at": time::show(package.created_at),
        "updated_at": time::show(package.updated_at),
        "type": package.r#type,
        "state": package.state,
        "data": data,
        "relationships": {"app": to_one(Some(&package.app_guid))},
        "metadata": Metadata::read(&package.labels, &package.annotations).show(),
        "links": links,
    })
}

/// Keeps rows of `table` that belong to apps that the caller sees.
pub(crate) fn of_visible_apps(caller: &Caller, select: &mut Select, table: &str) {
    let mut apps = Select::from("apps");
    caller.only_visible_spaces(&mut apps, "apps.space_guid");
    select.within(&format!("{table}.app_guid"), "guid", &apps);
}

/// `app_guids`, `space_guids` and `organization_guids` of what belongs to apps.
pub(crate) fn filter_by_app(query: &Query, select: &mut Select, table: &str) {
    let column = format!("{table}.app_guid");
    select.filter(query, "app_guids", &column);
    if let Some(spaces) = query.list("space_guids") {
        let mut apps = Select::from("apps");
        apps.any("apps.space_guid", &spaces);
        select.within(&column, "guid", &apps);
    }
    if let Some(orgs) = query.list("organization_guids") {
        let mut spaces = Select::from("spaces");
        spaces.any("spaces.org_guid", &orgs);
        let mut apps = Select::from("apps");
        apps.within("apps.space_guid", "guid", &spaces);
        select.within(&column, "guid", &apps);
    }
}

async fn page_of(
    controller: &CloudController,
    path: &str,
    query: &Query,
    mut select: Select,
) -> Answer {
    query.allow(&["states", "types", "app_guids", "space_guids", "organization_guids"])?;
    select.filter(query, "states", "packages.state");
    select.filter(query, "types", "packages.type").common_filters(query)?;
    filter_by_app(query, &mut select, "packages");
    select.labels(query)?.order(query, &[])?;
    super::list(controller, path, query, &select, |package| show_package(controller, package)).await
}

/// `GET /v3/packages`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut select = Select::from("packages");
    of_visible_apps(&caller, &mut select, "packages");
    page_of(&controller, "/v3/packages", &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/apps/:guid/packages`.
pub(crate) async fn of_app(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    apps::access(&mut conn, &caller, &guid).await?;
    drop(conn);
    let mut select = Select::from("packages");
    select.only("packages.app_guid = ?", [&*guid]);
    let path = format!("/v3/apps/{guid}/packages");
    page_of(&controller, &path, &Query::parse(raw.as_deref()), select).await
}

/// A package whose app the caller sees.
pub(crate) async fn access(
    conn: &mut SqliteConnection,
    caller: &Caller,
    guid: &str,
) -> Result<(Package, AppRow, SpaceAccess), ApiError> {
    let package: Package = find(conn, "packages", "Package", guid, |select| {
        of_visible_apps(caller, select, "packages");
    })
    .await?;
    let (app, space) = apps::access(conn, caller, &package.app_guid).await?;
    Ok((package, app, space))
}

/// `GET /v3/packages/:guid`: held while an upload is processed.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let package = controller.waiting.hold(&guid, HOLD, &controller.stop, || async {
        let mut conn = controller.store.read().await?;
        let (package, ..) = access(&mut conn, &caller, &guid).await?;
        let done = !["PROCESSING_UPLOAD", "COPYING"].contains(&&*package.state);
        Ok::<_, ApiError>((package, done))
    });
    Ok(Json(show_package(&controller, &package.await?)))
}

/// `POST /v3/packages`: to be uploaded, an image, or with `source_guid` a copy.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let query = Query::parse(raw.as_deref());
    let source = query.get("source_guid").map(str::to_owned);
    let kind = fields.string("type");
    let change = fields.metadata();
    let mut image = None;
    if let Some(mut data) = fields.object("data") {
        if kind.as_deref() == Some("docker") {
            image = Some(data.required("image"));
            if data.string("username").is_some() | data.string("password").is_some() {
                data.fault("Credentials of images are not served yet");
            }
        }
        fields.absorb(data);
    }
    let mut app_guid = None;
    if let Some(mut relationships) = fields.object("relationships") {
        app_guid = relationships.guid("app");
        fields.absorb(relationships);
    }
    match kind.as_deref() {
        Some("bits") => {}
        Some("docker") if image.is_none() => fields.fault("Data must have an image"),
        Some("docker") => {}
        None if source.is_some() => {}
        _ => fields.fault("Type must be one of 'bits, docker'"),
    }
    if app_guid.is_none() {
        fields.fault("Relationships must include an app");
    }
    fields.finish()?;
    let metadata = Metadata::default().merge(&change).map_err(ApiError::unprocessable_all)?;
    let app_guid = app_guid.unwrap_or_default();
    let mut tx = controller.store.begin().await?;
    let found = apps::access(&mut tx, &caller, &app_guid).await;
    let (app, space) = found.map_err(|err| match err.status {
        StatusCode::NOT_FOUND => {
            ApiError::unprocessable("App is invalid. Ensure it exists and you have access to it.")
        }
        _ => err,
    })?;
    space.require_developer()?;
    let from = match &source {
        None => None,
        Some(source) => {
            let (from, _, space) =
                access(&mut tx, &caller, source).await.map_err(|err| match err.status {
                    StatusCode::NOT_FOUND => ApiError::unprocessable(
                        "Source package is invalid. Ensure it exists and you have access to it.",
                    ),
                    _ => err,
                })?;
            space.require_developer()?;
            if from.state != "READY" {
                return Err(ApiError::unprocessable("The source package is not ready"));
            }
            Some(from)
        }
    };
    let image = image.or_else(|| from.as_ref().and_then(|from| from.image.clone()));
    if (app.lifecycle == "docker") != image.is_some() {
        let wanted = if app.lifecycle == "docker" { "Docker" } else { "bits" };
        return Err(ApiError::unprocessable(format!(
            "Cannot create {} package for a {} app.",
            if wanted == "Docker" { "bits" } else { "Docker" },
            if wanted == "Docker" { "Docker" } else { "Buildpack" }
        )));
    }
    let guid = rows::insert_package(&mut tx, &app_guid, image.as_deref(), &metadata).await?;
    let data = json!({"package_guid": guid, "request": {"type": kind, "source_guid": source}});
    apps::record_app(&mut tx, "audit.app.package.create", &caller.party(), &app, &data).await?;
    if let Some(from) = from.filter(|from| from.image.is_none()) {
        // The copy is made before it is acknowledged. Should it fail, there is no package.
        let (old, new) = (blob_key(&from.guid)?, blob_key(&guid)?);
        if !controller.blobs.copy(&old, &new).await? {
            return Err(ApiError::unprocessable("The files of the source package are gone"));
        }
        let digests = blobstore::Digests {
            size: 0,
            sha1: from.sha1.unwrap_or_default(),
            sha256: from.sha256.unwrap_or_default(),
        };
        rows::package_ready(&mut tx, &guid, &digests).await?;
    }
    let package: Option<Package> = by_guid(&mut tx, "packages", &guid).await?;
    let package = package.ok_or_else(|| ApiError::not_found("Package"))?;
    tx.commit().await?;
    controller.logs.api(&app_guid, format!("Created package with guid {guid}"));
    Ok((StatusCode::CREATED, Json(show_package(&controller, &package))))
}

pub(crate) fn blob_key(guid: &str) -> Result<Key, ApiError> {
    Key::new(Bucket::Packages, guid).ok_or_else(|| ApiError::not_found("Package"))
}

/// `PATCH /v3/packages/:guid`: labels and annotations.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let change = fields.metadata();
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let (package, _, space) = access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    let metadata = Metadata::read(&package.labels, &package.annotations);
    let metadata = metadata.merge(&change).map_err(ApiError::unprocessable_all)?;
    set_metadata(&mut tx, "packages", &guid, &metadata).await?;
    let (package, ..) = access(&mut tx, &caller, &guid).await?;
    tx.commit().await?;
    Ok(Json(show_package(&controller, &package)))
}

/// `DELETE /v3/packages/:guid`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    let (.., space) = access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    job::accept(&controller, tx, Work::DeletePackage { guid }, caller.party()).await
}

/// `POST /v3/packages/:guid/upload`: the answer says READY, which spares clients a look.
pub(crate) async fn upload(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    request: Request,
) -> Answer {
    let mut tx = controller.store.begin().await?;
    let (package, app, space) = access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    flags::require(&mut tx, &caller, "app_bits_upload").await?;
    if package.r#type != "bits" {
        return Err(ApiError::unprocessable("Package type must be bits."));
    }
    if !rows::move_package(&mut tx, &guid, "AWAITING_UPLOAD", "PROCESSING_UPLOAD", None).await? {
        return Err(ApiError::bad_request(
            "Bits may be uploaded only once. Create a new package to upload different bits.",
        ));
    }
    let data = json!({"package_guid": guid});
    apps::record_app(&mut tx, "audit.app.package.upload", &caller.party(), &app, &data).await?;
    tx.commit().await?;
    // What the upload was is settled even if the client goes away in the middle.
    let (inner, package_guid) = (controller.clone(), guid.clone());
    let received = receive(&controller, &guid, request).await;
    let settled = controller.tasks.spawn(async move {
        let settled = settle(&inner, &package_guid, &app.guid, received).await;
        inner.waiting.changed(&package_guid);
        settled
    });
    settled.await.map_err(|err| ApiError::unknown(&err))??;
    let mut conn = controller.store.read().await?;
    let (package, ..) = access(&mut conn, &caller, &guid).await?;
    Ok(Json(show_package(&controller, &package)))
}

/// A package that is left PROCESSING_UPLOAD when its request is dropped would stay so.
struct Abandoned<'a> {
    controller: &'a CloudController,
    guid: &'a str,
    armed: bool,
}

impl Drop for Abandoned<'_> {
    fn drop(&mut self) {
        if !self.armed {
            return;
        }
        let (controller, guid) = (self.controller.clone(), self.guid.to_owned());
        let tasks = controller.tasks.clone();
        tasks.spawn(async move {
            if let Err(err) = reopen(&controller, &guid).await {
                tracing::error!(package = %guid, error = %err, "cannot reopen a package");
            }
        });
    }
}

/// The client may try again.
async fn reopen(controller: &CloudController, guid: &str) -> Result<(), sqlx::Error> {
    let mut tx = controller.store.begin().await?;
    rows::move_package(&mut tx, guid, "PROCESSING_UPLOAD", "AWAITING_UPLOAD", None).await?;
    tx.commit().await?;
    controller.waiting.changed(guid);
    Ok(())
}

type Received = (Option<tempfile::NamedTempFile>, Vec<Resource>);

async fn receive(
    controller: &CloudController,
    guid: &str,
    request: Request,
) -> Result<Received, ApiError> {
    let mut abandoned = Abandoned { controller, guid, armed: true };
    let (head, body) = request.into_parts();
    let limits = Limits { files: controller.config.packages.max_package_size, memory: LIST_LIMIT };
    let parts = multipart::read(&head.headers, body, &controller.spool(), limits).await;
    abandoned.armed = false;
    let (mut bits, mut matched) = (None, Vec::new());
    for part in parts? {
        match (&*part.name, part.content) {
            ("bits", Content::File(file)) => bits = Some(file),
            ("resources", Content::Memory(list)) => matched = read_resources(&list)?,
            _ => {}
        }
    }
    if bits.is_none() && matched.is_empty() {
        return Err(ApiError::unprocessable("Upload must include either resources or bits"));
    }
    Ok((bits, matched))
}

/// A list of files, in either of the two spellings that clients use.
fn read_resources(list: &Bytes) -> Result<Vec<Resource>, ApiError> {
    #[derive(Deserialize)]
    struct Old {
        sha1: String,
        size: u64,
        #[serde(rename = "fn")]
        path: Option<String>,
        mode: Option<String>,
    }
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        New(Resource),
        Old(Old),
    }
    let bad = |err| ApiError::unprocessable(format!("Resources is not a list of files: {err}"));
    if list.iter().all(u8::is_ascii_whitespace) {
        return Ok(Vec::new());
    }
    let list: Vec<Either> = serde_json::from_slice(list).map_err(bad)?;
    Ok(list
        .into_iter()
        .map(|either| match either {
            Either::New(resource) => resource,
            Either::Old(old) => Resource {
                path: old.path,
                mode: old.mode,
                checksum: bits::Checksum { value: old.sha1 },
                size_in_bytes: old.size,
            },
        })
        .collect())
}

/// Puts the package together and keeps it. An upload that broke off may be tried again; one that is
/// no package has failed.
async fn settle(
    controller: &CloudController,
    guid: &str,
    app_guid: &str,
    received: Result<Received, ApiError>,
) -> Result<(), ApiError> {
    let kept = async {
        let (bits, matched) = received?;
        let whole = bits::assemble(&controller.blobs, &controller.spool(), bits, matched).await?;
        Ok::<_, ApiError>(controller.blobs.put_file(&blob_key(guid)?, whole.path()).await?)
    }
    .await;
    match kept {
        Ok(digests) => {
            let mut tx = controller.store.begin().await?;
            rows::package_ready(&mut tx, guid, &digests).await?;
            let most = controller.config.packages.max_valid_packages_stored;
            let expired = rows::expire_packages(&mut tx, app_guid, most).await?;
            tx.commit().await?;
            let (inner, key) = (controller.clone(), blob_key(guid)?);
            controller.tasks.spawn(async move {
                for old in expired {
                    deletion::drop_blob(&inner, Bucket::Packages, Some(old)).await;
                }
                let pool = inner.config.resource_pool.clone();
                bits::pool(inner.blobs.clone(), pool, &inner.spool(), key).await;
            });
            Ok(())
        }
        Err(err) => {
            let mut tx = controller.store.begin().await?;
            match err.status {
                StatusCode::UNPROCESSABLE_ENTITY => {
                    let reason = err.to_string();
                    rows::move_package(&mut tx, guid, "PROCESSING_UPLOAD", "FAILED", Some(&reason))
                        .await?
                }
                _ => {
                    rows::move_package(&mut tx, guid, "PROCESSING_UPLOAD", "AWAITING_UPLOAD", None)
                        .await?
                }
            };
            tx.commit().await?;
            Err(err)
        }
    }
}

/// `GET /v3/packages/:guid/download`.
pub(crate) async fn download(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut conn = controller.store.read().await?;
    let (package, _, space) = access(&mut conn, &caller, &guid).await?;
    space.require_developer()?;
    if package.state != "READY" || package.r#type != "bits" {
        return Err(ApiError::unprocessable("Package has no bits to download."));
    }
    drop(conn);
    send_blob(&controller, &blob_key(&guid)?, "application/zip", "Package").await
}

/// The contents of a blob as an answer.
pub(crate) async fn send_blob(
    controller: &CloudController,
    key: &Key,
    content_type: &str,
    kind: &str,
) -> Result<Response, ApiError> {
    let blob = controller.blobs.get(key).await?.ok_or_else(|| ApiError::not_found(kind))?;
    Response::builder()
        .header(header::CONTENT_TYPE, content_type)
        .header(header::CONTENT_LENGTH, blob.size)
        .body(Body::from_stream(blob.bytes))
        .map_err(|err| ApiError::unknown(&err))
}

/// `POST /v3/resource_matches`: which of the files are known, so that they need not be sent.
pub(crate) async fn resource_matches(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let listed = fields.take("resources").unwrap_or_default();
    fields.finish()?;
    let bad = |err| ApiError::unprocessable(format!("Resources is invalid: {err}"));
    let listed: Vec<Resource> = serde_json::from_value(listed).map_err(bad)?;
    if listed.is_empty() {
        return Err(ApiError::unprocessable("Resources must have at least 1 resource"));
    }
    let mut conn = controller.store.read().await?;
    let on = flags::enabled(&mut conn, "resource_matching").await?;
    drop(conn);
    drop(caller);
    let known = match on {
        true => bits::known(&controller.blobs, &controller.config.resource_pool, listed).await?,
        false => Vec::new(),
    };
    Ok((StatusCode::CREATED, Json(json!({"resources": known}))))
}
