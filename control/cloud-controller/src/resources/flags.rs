//! Feature flags and environment variable groups: what an administrator sets for all.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde_json::{Map, Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, link};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::env;
use crate::error::ApiError;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::store::events::{Party, Place, record};
use crate::store::settings::{self, Flag};
use crate::time;

/// Names and defaults.
const FLAGS: [(&str, bool); 19] = [
    ("app_bits_upload", true),
    ("app_scaling", true),
    ("diego_cnb", false),
    ("diego_docker", false),
    ("env_var_visibility", true),
    ("hash_based_routing", false),
    ("hide_marketplace_from_unauthenticated_users", false),
    ("private_domain_creation", true),
    ("resource_matching", true),
    ("route_creation", true),
    ("route_sharing", false),
    ("service_instance_creation", true),
    ("service_instance_sharing", false),
    ("set_roles_by_username", true),
    ("space_developer_env_var_visibility", true),
    ("space_scoped_private_broker_creation", true),
    ("task_creation", true),
    ("unset_roles_by_username", true),
    ("user_org_creation", false),
];

/// Whether a feature is on.
pub(crate) async fn enabled(conn: &mut SqliteConnection, name: &str) -> Result<bool, sqlx::Error> {
    let default = FLAGS.iter().find(|(known, _)| *known == name).is_some_and(|(_, on)| *on);
    Ok(settings::flag(conn, name).await?.map_or(default, |flag| flag.enabled))
}

/// Refuses callers other than administrators while a feature is off.
pub(crate) async fn require(
    conn: &mut SqliteConnection,
    caller: &Caller,
    name: &str,
) -> Result<(), ApiError> {
    if caller.is_admin() || enabled(conn, name).await? {
        return Ok(());
    }
    let message = settings::flag(conn, name).await?.and_then(|flag| flag.message);
    Err(ApiError::feature_disabled(match message {
        Some(message) => format!("Feature Disabled: {message}"),
        None => format!("Feature Disabled: {name}"),
    }))
}

fn show_flag(controller: &CloudController, name: &str, on: bool, set: Option<&Flag>) -> Value {
    json!({
        "name": name,
        "enabled": set.map_or(on, |flag| flag.enabled),
        "updated_at": set.map(|flag| time::show(flag.updated_at)),
        "custom_error_message": set.and_then(|flag| flag.message.as_ref()),
        "links": {"self": link(controller, &format!("/v3/feature_flags/{name}"))},
    })
}

/// `GET /v3/feature_flags`.
pub(crate) async fn list(State(controller): App, _: Caller, RawQuery(raw): RawQuery) -> Answer {
    let query = Query::parse(raw.as_deref());
    query.allow(&[])?;
    let paging = Paging::of(&query)?;
    let mut conn = controller.store.read().await?;
    let set = settings::flags(&mut conn).await?;
    let shown: Vec<Value> = FLAGS
        .iter()
        .map(|(name, on)| {
            show_flag(&controller, name, *on, set.iter().find(|flag| flag.name == *name))
        })
        .collect();
    let total = i64::try_from(shown.len()).unwrap_or(i64::MAX);
    let offset = usize::try_from(paging.offset()).unwrap_or(usize::MAX);
    let count = usize::try_from(paging.per_page).unwrap_or(usize::MAX);
    let shown = shown.into_iter().skip(offset).take(count).collect();
    let address = controller.url("/v3/feature_flags");
    Ok(Json(page::document(&address, &query, paging, total, shown, None)))
}

fn known(name: &str) -> Result<(&'static str, bool), ApiError> {
    let found = FLAGS.iter().find(|(known, _)| *known == name);
    found.copied().ok_or_else(|| ApiError::not_found("Feature flag"))
}

/// `GET /v3/feature_flags/:name`.
pub(crate) async fn show(State(controller): App, _: Caller, Path(name): Path<String>) -> Answer {
    let (name, on) = known(&name)?;
    let mut conn = controller.store.read().await?;
    let set = settings::flag(&mut conn, name).await?;
    Ok(Json(show_flag(&controller, name, on, set.as_ref())))
}

/// `PATCH /v3/feature_flags/:name`.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(name): Path<String>,
    mut fields: Fields,
) -> Answer {
    let enabled = fields.flag("enabled");
    let message = fields.string("custom_error_message");
    fields.finish()?;
    caller.require_admin()?;
    let (name, on) = known(&name)?;
    let mut tx = controller.store.begin().await?;
    let old = settings::flag(&mut tx, name).await?;
    let enabled = enabled.unwrap_or(old.as_ref().map_or(on, |flag| flag.enabled));
    let message = message.or(old.and_then(|flag| flag.message));
    settings::set_flag(&mut tx, name, enabled, message.as_deref()).await?;
    let target = Party::new("feature_flag", "", name);
    let data = json!({"request": {"enabled": enabled}});
    let place = Place::default();
    record(&mut tx, "audit.feature_flag.update", &caller.party(), &target, place, &data).await?;
    let set = settings::flag(&mut tx, name).await?;
    tx.commit().await?;
    Ok(Json(show_flag(&controller, name, on, set.as_ref())))
}

fn show_group(
    controller: &CloudController,
    name: &str,
    vars: &Map<String, Value>,
    set: Option<i64>,
) -> Value {
    json!({
        "updated_at": set.map(time::show),
        "name": name,
        "var": vars,
        "links": {
            "self": link(controller, &format!("/v3/environment_variable_groups/{name}")),
        },
    })
}

async fn read_group(
    conn: &mut SqliteConnection,
    name: &str,
) -> Result<(Map<String, Value>, Option<i64>), ApiError> {
    if !["running", "staging"].contains(&name) {
        return Err(ApiError::not_found("Environment variable group"));
    }
    let found = settings::environment_group(conn, name).await?;
    Ok(match found {
        Some((vars, when)) => (serde_json::from_str(&vars).unwrap_or_default(), Some(when)),
        None => (Map::new(), None),
    })
}

/// `GET /v3/environment_variable_groups/:name`.
pub(crate) async fn group(State(controller): App, _: Caller, Path(name): Path<String>) -> Answer {
    let mut conn = controller.store.read().await?;
    let (vars, set) = read_group(&mut conn, &name).await?;
    Ok(Json(show_group(&controller, &name, &vars, set)))
}

/// `PATCH /v3/environment_variable_groups/:name`.
pub(crate) async fn update_group(
    State(controller): App,
    caller: Caller,
    Path(name): Path<String>,
    mut fields: Fields,
) -> Answer {
    let change = fields.take("var").unwrap_or(Value::Null);
    fields.finish()?;
    caller.require_admin()?;
    let mut tx = controller.store.begin().await?;
    let (mut vars, _) = read_group(&mut tx, &name).await?;
    merge_variables(&mut vars, &change)?;
    settings::set_environment_group(&mut tx, &name, &vars).await?;
    let (vars, set) = read_group(&mut tx, &name).await?;
    tx.commit().await?;
    Ok(Json(show_group(&controller, &name, &vars, set)))
}

/// Merges `var` of a request in; `null` deletes.
pub(crate) fn merge_variables(
    vars: &mut Map<String, Value>,
    change: &Value,
) -> Result<(), ApiError> {
    let change =
        change.as_object().ok_or_else(|| ApiError::unprocessable("Var must be an object"))?;
    let mut faults = Vec::new();
    for (name, value) in change {
        if let Some(fault) = env::fault(name) {
            faults.push(format!("Var {fault}"));
            continue;
        }
        match value {
            Value::Null => drop(vars.shift_remove(name)),
            Value::String(text) => {
                vars.insert(name.clone(), text.clone().into());
            }
            // The original keeps other values as the text of their JSON.
            other => {
                vars.insert(name.clone(), other.to_string().into());
            }
        }
    }
    if faults.is_empty() { Ok(()) } else { Err(ApiError::unprocessable(faults.join(", "))) }
}
