//! Manifests: applied, compared, and made of what is.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use serde_json::{Value, json};

use super::{App, apps};
use crate::caller::Caller;
use crate::error::ApiError;
use crate::job::{self, Work};
use crate::manifest::{apply as application, current, diff, document};
use crate::store::apps as rows;

/// Refuses bodies of another type, as the original does.
fn require_yaml(headers: &HeaderMap) -> Result<(), ApiError> {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default().trim();
    let yaml = ["application/x-yaml", "application/yaml", "text/yaml", "text/x-yaml"];
    match yaml.iter().any(|known| kind.eq_ignore_ascii_case(known)) {
        true => Ok(()),
        false => Err(ApiError::bad_request("Content-Type must be yaml")),
    }
}

/// `POST /v3/spaces/:guid/actions/apply_manifest`: apps that do not exist are made before the answer,
/// so that clients find them; all else is a job's.
pub(crate) async fn apply(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    headers: HeaderMap,
    yaml: String,
) -> Result<Response, ApiError> {
    require_yaml(&headers)?;
    let apps = document::parse(&yaml).map_err(ApiError::unprocessable_all)?;
    let mut tx = controller.store.begin().await?;
    let space = caller.space(&mut tx, &guid).await?;
    space.require_developer()?;
    let faults = application::faults(&mut tx, &apps).await?;
    if !faults.is_empty() {
        return Err(ApiError::unprocessable_all(faults));
    }
    for app in &apps {
        if app.lifecycle.kind.as_deref() == Some("docker") {
            super::flags::require(&mut tx, &caller, "diego_docker").await?;
        }
        application::ensure(&controller, &mut tx, &guid, app, &caller.party()).await?;
    }
    let work = Work::ApplyManifest { space_guid: guid, yaml };
    job::accept(&controller, tx, work, caller.party()).await
}

/// `POST /v3/spaces/:guid/manifest_diff`.
pub(crate) async fn diff(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    headers: HeaderMap,
    yaml: String,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    require_yaml(&headers)?;
    document::parse(&yaml).map_err(ApiError::unprocessable_all)?;
    let given = document::read(&yaml).map_err(ApiError::unprocessable_all)?;
    let mut conn = controller.store.read().await?;
    caller.space(&mut conn, &guid).await?.require_developer()?;
    let mut changes = Vec::new();
    let entries = document::applications(&given).map_err(ApiError::unprocessable_all)?;
    for (index, entry) in entries.iter().enumerate() {
        let name = entry["name"].as_str().unwrap_or_default();
        let is = match rows::by_name(&mut conn, &guid, name).await? {
            Some(app) => Some(current::of(&mut conn, &app).await?),
            None => None,
        };
        changes.extend(diff::entry(index, entry, is.as_ref()));
    }
    Ok((StatusCode::CREATED, Json(json!({"diff": changes}))))
}

/// `GET /v3/apps/:guid/manifest`.
pub(crate) async fn of_app(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut conn = controller.store.read().await?;
    let (app, space) = apps::access(&mut conn, &caller, &guid).await?;
    space.require_secrets()?;
    let entry = current::of(&mut conn, &app).await?;
    let yaml = serde_saphyr::to_string(&json!({"applications": [entry]}))
        .map_err(|err| ApiError::unknown(&err))?;
    Response::builder()
        .header(header::CONTENT_TYPE, "application/x-yaml")
        .body(yaml.into())
        .map_err(|err| ApiError::unknown(&err))
}
