//! Builds: packages being staged.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use http::StatusCode;
use serde_json::{Value, json};

use super::{Answer, App, apps, find, jobs::HOLD, link, packages as package, to_one};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::error::{ApiError, is_taken};
use crate::metadata::Metadata;
use crate::query::Query;
use crate::staging;
use crate::store::packages::{self as rows, Build, Droplet};
use crate::store::processes;
use crate::store::select::{Select, by_guid};
use crate::store::{json_text, new_guid, set_metadata};
use crate::time;

/// How long after its end a build is told to have ended: the CLI shows no line of a log that it has not
/// read when it gets to know that.
const LINGER: Duration = Duration::from_millis(250);

fn show_build(controller: &CloudController, build: &Build) -> Value {
    let guid = &build.guid;
    let creator: Value = serde_json::from_str(&build.creator).unwrap_or_default();
    let lifecycle = match &*build.lifecycle {
        "docker" => json!({"type": "docker", "data": {}}),
        kind => json!({
            "type": kind,
            "data": {"buildpacks": build.buildpacks(), "stack": build.stack},
        }),
    };
    let mut links = json!({
        "self": link(controller, &format!("/v3/builds/{guid}")),
        "app": link(controller, &format!("/v3/apps/{}", build.app_guid)),
    });
    let mut droplet = Value::Null;
    if build.state == "STAGED" {
        droplet = json!({"guid": build.droplet_guid});
        links["droplet"] = link(controller, &format!("/v3/droplets/{}", build.droplet_guid));
    }
    json!({
        "guid": guid,
        "created_at": time::show(build.created_at),
        "updated_at": time::show(build.updated_at),
        "state": build.state,
        "staging_memory_in_mb": build.memory_mb,
        "staging_disk_in_mb": build.disk_mb,
        "staging_log_rate_limit_bytes_per_second": build.log_rate,
        "error": build.error,
        "lifecycle": lifecycle,
        "package": {"guid": build.package_guid},
        "droplet": droplet,
        "relationships": {"app": to_one(Some(&build.app_guid))},
        "metadata": Metadata::read(&build.labels, &build.annotations).show(),
        "links": links,
        "created_by": creator,
    })
}

async fn page_of(
    controller: &CloudController,
    path: &str,
    query: &Query,
    mut select: Select,
) -> Answer {
    query.allow(&["states", "app_guids", "package_guids"])?;
    select.filter(query, "states", "builds.state");
    select.filter(query, "package_guids", "builds.package_guid").common_filters(query)?;
    package::filter_by_app(query, &mut select, "builds");
    select.labels(query)?.order(query, &[])?;
    super::list(controller, path, query, &select, |build| show_build(controller, build)).await
}

/// `GET /v3/builds`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut select = Select::from("builds");
    package::of_visible_apps(&caller, &mut select, "builds");
    page_of(&controller, "/v3/builds", &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/apps/:guid/builds`.
pub(crate) async fn of_app(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    apps::access(&mut conn, &caller, &guid).await?;
    drop(conn);
    let mut select = Select::from("builds");
    select.only("builds.app_guid = ?", [&*guid]);
    let path = format!("/v3/apps/{guid}/builds");
    page_of(&controller, &path, &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/builds/:guid`: held until the build has ended, and its log has been read.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let build = controller.waiting.hold(&guid, HOLD, &controller.stop, || async {
        let mut conn = controller.store.read().await?;
        let build: Build = find(&mut conn, "builds", "Build", &guid, |select| {
            package::of_visible_apps(&caller, select, "builds");
        })
        .await?;
        let ended = build.state != "STAGING";
        Ok::<_, ApiError>((build, ended))
    });
    let build = build.await?;
    let since_end =
        u64::try_from(time::now() - build.updated_at).map_or(LINGER, Duration::from_micros);
    if build.state != "STAGING" && since_end < LINGER {
        tokio::time::sleep(LINGER.saturating_sub(since_end)).await;
    }
    Ok(Json(show_build(&controller, &build)))
}

/// `POST /v3/builds`.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let package_guid =
        fields.take("package").and_then(|package| package["guid"].as_str().map(str::to_owned));
    let lifecycle = apps::take_lifecycle(&mut fields);
    let memory = fields.integer("staging_memory_in_mb", 1);
    let disk = fields.integer("staging_disk_in_mb", 1);
    let log_rate = fields.integer("staging_log_rate_limit_bytes_per_second", -1);
    let change = fields.metadata();
    if package_guid.is_none() {
        fields.fault("Package guid must be a string");
    }
    fields.finish()?;
    let metadata = Metadata::default().merge(&change).map_err(ApiError::unprocessable_all)?;
    let mut tx = controller.store.begin().await?;
    let found = package::access(&mut tx, &caller, &package_guid.unwrap_or_default()).await;
    let (package, app, space) = found.map_err(|err| match err.status {
        StatusCode::NOT_FOUND => ApiError::unprocessable(
            "Unable to use package. Ensure that the package exists and you have access to it.",
        ),
        _ => err,
    })?;
    space.require_developer()?;
    if package.state != "READY" {
        return Err(ApiError::bad_request(
            "Bad request: Cannot stage package whose state is not ready.",
        ));
    }
    if app.lifecycle == "docker" {
        return Err(ApiError::unprocessable("Staging of images is not served yet."));
    }
    let chosen = lifecycle.buildpacks.unwrap_or_else(|| app.buildpacks());
    let stack = lifecycle.stack.flatten().or_else(|| app.stack.clone());
    let faults = apps::lifecycle_faults(&mut tx, &chosen, stack.as_deref()).await?;
    if !faults.is_empty() {
        return Err(ApiError::unprocessable(faults.join(", ")));
    }
    let web = processes::by_type(&mut tx, &app.guid, "web").await?;
    let limits = &controller.config.staging;
    let least_memory = web.as_ref().map_or(0, |web| web.memory_mb);
    let least_disk = web.as_ref().map_or(0, |web| web.disk_mb);
    let now = time::now();
    let (guid, droplet_guid) = (new_guid(), new_guid());
    let creator = json!({"guid": caller.guid, "name": caller.name, "email": caller.email});
    let build = Build {
        guid: guid.clone(),
        app_guid: app.guid.clone(),
        package_guid: package.guid.clone(),
        droplet_guid: droplet_guid.clone(),
        state: "STAGING".into(),
        error: None,
        lifecycle: app.lifecycle.clone(),
        buildpacks: json_text(&chosen),
        stack: stack.clone(),
        memory_mb: memory.unwrap_or(least_memory.max(limits.minimum_staging_memory_mb)),
        disk_mb: disk.unwrap_or(least_disk.max(limits.minimum_staging_disk_mb)),
        log_rate: log_rate.unwrap_or(web.map_or(-1, |web| web.log_rate)),
        creator: creator.to_string(),
        labels: json_text(&metadata.labels),
        annotations: json_text(&metadata.annotations),
        created_at: now,
        updated_at: now,
    };
    rows::insert_build(&mut tx, &build).await.map_err(|err| match is_taken(&err) {
        true => ApiError::staging_in_progress(),
        false => err.into(),
    })?;
    let droplet = Droplet {
        guid: droplet_guid,
        app_guid: app.guid.clone(),
        package_guid: Some(package.guid.clone()),
        state: "STAGING".into(),
        error: None,
        lifecycle: app.lifecycle.clone(),
        stack,
        image: None,
        buildpacks: "[]".into(),
        execution_metadata: String::new(),
        process_types: "{}".into(),
        sidecars: "[]".into(),
        sha256: None,
        labels: "{}".into(),
        annotations: "{}".into(),
        created_at: now,
        updated_at: now,
    };
    rows::insert_droplet(&mut tx, &droplet).await?;
    let data = json!({"build_guid": guid, "package_guid": package.guid});
    apps::record_app(&mut tx, "audit.app.build.create", &caller.party(), &app, &data).await?;
    tx.commit().await?;
    controller.logs.api(&app.guid, format!("Creating build for app with guid {}", app.guid));
    let inner = controller.clone();
    let begun = controller.tasks.spawn(async move {
        let begun = staging::begin(&inner, &build).await;
        begun.map(|()| build)
    });
    let build = begun.await.map_err(|err| ApiError::unknown(&err))??;
    Ok((StatusCode::CREATED, Json(show_build(&controller, &build))))
}

/// `PATCH /v3/builds/:guid`: labels and annotations.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let change = fields.metadata();
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let build: Build = find(&mut tx, "builds", "Build", &guid, |select| {
        package::of_visible_apps(&caller, select, "builds");
    })
    .await?;
    let (_, space) = apps::access(&mut tx, &caller, &build.app_guid).await?;
    space.require_developer()?;
    let metadata = Metadata::read(&build.labels, &build.annotations);
    let metadata = metadata.merge(&change).map_err(ApiError::unprocessable_all)?;
    set_metadata(&mut tx, "builds", &guid, &metadata).await?;
    let build: Option<Build> = by_guid(&mut tx, "builds", &guid).await?;
    let build = build.ok_or_else(|| ApiError::not_found("Build"))?;
    tx.commit().await?;
    Ok(Json(show_build(&controller, &build)))
}
