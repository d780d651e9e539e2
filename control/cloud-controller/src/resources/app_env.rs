//! The environment of an app: what the user sets, and what the platform adds.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};

use super::{Answer, App, apps, flags, link};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::env;
use crate::error::ApiError;
use crate::running;
use crate::store::apps::{self as rows, App as Row};
use crate::store::{json_text, routes};

/// `GET /v3/apps/:guid/env`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (app, space) = apps::access(&mut conn, &caller, &guid).await?;
    space.require_secrets()?;
    for flag in ["env_var_visibility", "space_developer_env_var_visibility"] {
        flags::require(&mut conn, &caller, flag).await?;
    }
    let place = running::place(&mut conn, &app).await?;
    let place = place.ok_or_else(|| ApiError::not_found("App"))?;
    let mappings = routes::mappings(&mut conn, &guid, "web").await?;
    let home = running::home(&controller.config, &place);
    let mut vcap = env::vcap_application(&home, None, &env::uris(&mappings), None);
    vcap.insert("users".into(), Value::Null);
    Ok(Json(json!({
        "staging_env_json": running::environment_group(&mut conn, "staging").await?,
        "running_env_json": running::environment_group(&mut conn, "running").await?,
        "environment_variables": app.env(),
        "system_env_json": {"VCAP_SERVICES": {}},
        "application_env_json": {"VCAP_APPLICATION": vcap},
    })))
}

fn show_variables(controller: &CloudController, app: &Row) -> Value {
    let path = format!("/v3/apps/{}", app.guid);
    json!({
        "var": app.env(),
        "links": {
            "self": link(controller, &format!("{path}/environment_variables")),
            "app": link(controller, &path),
        },
    })
}

/// `GET /v3/apps/:guid/environment_variables`.
pub(crate) async fn variables(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (app, space) = apps::access(&mut conn, &caller, &guid).await?;
    space.require_secrets()?;
    flags::require(&mut conn, &caller, "space_developer_env_var_visibility").await?;
    Ok(Json(show_variables(&controller, &app)))
}

/// `PATCH /v3/apps/:guid/environment_variables`: takes effect when the app is started again.
pub(crate) async fn set_variables(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let change = fields.take("var").unwrap_or(Value::Null);
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let (mut app, space) = apps::access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    let mut vars = app.env();
    flags::merge_variables(&mut vars, &change)?;
    app.env = json_text(&vars);
    rows::update(&mut tx, &app).await?;
    let data = json!({"request": {"environment_variables": "[PRIVATE DATA HIDDEN]"}});
    apps::record_app(&mut tx, "audit.app.update", &caller.party(), &app, &data).await?;
    tx.commit().await?;
    controller.logs.api(
        &guid,
        format!(
            "Updated app with guid {guid} ({{\"environment_json\"=>\"[PRIVATE DATA HIDDEN]\"}})"
        ),
    );
    Ok(Json(show_variables(&controller, &app)))
}
