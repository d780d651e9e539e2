//! Apps.

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::StatusCode;
use serde_json::{Map, Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, action, find, flags, link, orgs::show_org, spaces::show_space, to_one};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::{Caller, SpaceAccess};
use crate::error::{ApiError, is_taken};
use crate::job::{self, Work};
use crate::metadata::Metadata;
use crate::page::{self, Paging};
use crate::query::Query;
use crate::store::apps::{self, App as Row, NewApp};
use crate::store::buildpacks;
use crate::store::events::{Party, Place, record};
use crate::store::orgs::{Org, Space};
use crate::store::select::{Select, by_guid};
use crate::store::{json_text, processes, settings};
use crate::time;

pub(crate) fn show_app(controller: &CloudController, app: &Row) -> Value {
    let guid = &app.guid;
    let path = format!("/v3/apps/{guid}");
    let lifecycle = match &*app.lifecycle {
        "docker" => json!({"type": "docker", "data": {}}),
        kind => json!({
            "type": kind,
            "data": {"buildpacks": app.buildpacks(), "stack": app.stack},
        }),
    };
    json!({
        "guid": guid,
        "created_at": time::show(app.created_at),
        "updated_at": time::show(app.updated_at),
        "name": app.name,
        "state": app.state,
        "lifecycle": lifecycle,
        "relationships": {
            "space": to_one(Some(&app.space_guid)),
            "current_droplet": to_one(app.droplet_guid.as_deref()),
        },
        "metadata": app.metadata().show(),
        "links": {
            "self": link(controller, &path),
            "environment_variables": link(controller, &format!("{path}/environment_variables")),
            "space": link(controller, &format!("/v3/spaces/{}", app.space_guid)),
            "processes": link(controller, &format!("{path}/processes")),
            "packages": link(controller, &format!("{path}/packages")),
            "current_droplet": link(controller, &format!("{path}/droplets/current")),
            "droplets": link(controller, &format!("{path}/droplets")),
            "tasks": link(controller, &format!("{path}/tasks")),
            "start": action(controller, &format!("{path}/actions/start")),
            "stop": action(controller, &format!("{path}/actions/stop")),
            "clear_buildpack_cache":
                action(controller, &format!("{path}/actions/clear_buildpack_cache")),
            "revisions": link(controller, &format!("{path}/revisions")),
            "deployed_revisions": link(controller, &format!("{path}/revisions/deployed")),
            "features": link(controller, &format!("{path}/features")),
        },
    })
}

/// An app that the caller sees, and what they may do in its space.
pub(crate) async fn access(
    conn: &mut SqliteConnection,
    caller: &Caller,
    guid: &str,
) -> Result<(Row, SpaceAccess), ApiError> {
    let app: Row = find(conn, "apps", "App", guid, |select| {
        caller.only_visible_spaces(select, "apps.space_guid");
    })
    .await?;
    let access = caller.space(conn, &app.space_guid).await?;
    Ok((app, access))
}

/// Records something that happened to an app.
pub(crate) async fn record_app(
    conn: &mut SqliteConnection,
    kind: &str,
    actor: &Party,
    app: &Row,
    data: &Value,
) -> Result<(), sqlx::Error> {
    let target = Party::new("app", &app.guid, &app.name);
    let place = Place { space_guid: Some(&app.space_guid), org_guid: None };
    record(conn, kind, actor, &target, place, data).await
}

async fn page_of(
    controller: &CloudController,
    path: &str,
    query: &Query,
    mut select: Select,
) -> Answer {
    query.allow(&["names", "space_guids", "organization_guids", "stacks", "lifecycle_type"])?;
    let include = query.include(&["space", "org", "space.organization", "organization"])?;
    select.filter(query, "names", "apps.name");
    select.filter(query, "space_guids", "apps.space_guid");
    select.filter(query, "stacks", "apps.stack");
    select.filter(query, "lifecycle_type", "apps.lifecycle").common_filters(query)?;
    if let Some(orgs) = query.list("organization_guids") {
        let mut spaces = Select::from("spaces");
        spaces.any("spaces.org_guid", &orgs);
        select.within("apps.space_guid", "guid", &spaces);
    }
    select.labels(query)?.order(query, &["name", "state"])?;
    let paging = Paging::of(query)?;
    let mut conn = controller.store.read().await?;
    let (found, total) = select.page::<Row>(&mut conn, paging).await?;
    let included = included(controller, &mut conn, &found, &include).await?;
    let shown = found.iter().map(|app| show_app(controller, app)).collect();
    Ok(Json(page::document(&controller.url(path), query, paging, total, shown, included)))
}

async fn included(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    found: &[Row],
    include: &[String],
) -> Result<Option<Value>, ApiError> {
    if include.is_empty() {
        return Ok(None);
    }
    let mut guids: Vec<String> = found.iter().map(|app| app.space_guid.clone()).collect();
    guids.sort_unstable();
    guids.dedup();
    let mut select = Select::from("spaces");
    let spaces: Vec<Space> = select.any("spaces.guid", &guids).all(conn).await?;
    let mut org_guids: Vec<String> = spaces.iter().map(|space| space.org_guid.clone()).collect();
    org_guids.sort_unstable();
    org_guids.dedup();
    let mut select = Select::from("organizations");
    let orgs: Vec<Org> = select.any("organizations.guid", &org_guids).all(conn).await?;
    let mut included = json!({});
    if include.iter().any(|name| name.starts_with("space")) {
        let suspended =
            |space: &Space| orgs.iter().any(|org| org.guid == space.org_guid && org.suspended);
        let shown = spaces.iter().map(|space| show_space(controller, space, suspended(space)));
        included["spaces"] = shown.collect();
    }
    if include.iter().any(|name| name != "space") {
        included["organizations"] = orgs.iter().map(|org| show_org(controller, org)).collect();
    }
    Ok(Some(included))
}

/// `GET /v3/apps`.
pub(crate) async fn list(
    State(controller): App,
    caller: Caller,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut select = Select::from("apps");
    caller.only_visible_spaces(&mut select, "apps.space_guid");
    page_of(&controller, "/v3/apps", &Query::parse(raw.as_deref()), select).await
}

/// `GET /v3/stacks/:guid/apps`.
pub(crate) async fn of_stack(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let stack: settings::Stack = find(&mut conn, "stacks", "Stack", &guid, |_| ()).await?;
    drop(conn);
    let mut select = Select::from("apps");
    caller.only_visible_spaces(&mut select, "apps.space_guid");
    select.only("apps.stack = ?", [&*stack.name]);
    page_of(&controller, &format!("/v3/stacks/{guid}/apps"), &Query::parse(raw.as_deref()), select)
        .await
}

/// `GET /v3/apps/:guid`.
pub(crate) async fn show(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    let include = query.include(&["space", "org", "space.organization", "organization"])?;
    let mut conn = controller.store.read().await?;
    let (app, _) = access(&mut conn, &caller, &guid).await?;
    let mut shown = show_app(&controller, &app);
    let found = [app];
    if let Some(included) = included(&controller, &mut conn, &found, &include).await? {
        shown["included"] = included;
    }
    Ok(Json(shown))
}

/// `lifecycle` of a request: type, buildpacks and stack, each as far as it is given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lifecycle {
    pub kind: Option<String>,
    pub buildpacks: Option<Vec<String>>,
    pub stack: Option<Option<String>>,
}

/// Takes `lifecycle` out of a body.
pub(crate) fn take_lifecycle(fields: &mut Fields) -> Lifecycle {
    let mut lifecycle = Lifecycle::default();
    let Some(mut object) = fields.object("lifecycle") else { return lifecycle };
    let kind = object.required("type");
    match &*kind {
        "buildpack" | "docker" => {}
        "cnb" => object.fault("Lifecycle type: cnb is not served yet"),
        "" => {}
        _ => object.fault("Lifecycle type is not included in the list: buildpack, cnb, docker"),
    }
    lifecycle.kind = Some(kind);
    if let Some(mut data) = object.object("data") {
        match data.take("buildpacks") {
            None => {}
            Some(Value::Null) => lifecycle.buildpacks = Some(Vec::new()),
            Some(value) => match serde_json::from_value(value) {
                Ok(list) => lifecycle.buildpacks = Some(list),
                Err(_) => data.fault("Buildpacks can only contain strings"),
            },
        }
        match data.take("stack") {
            None => {}
            Some(Value::Null) => lifecycle.stack = Some(None),
            Some(Value::String(stack)) => lifecycle.stack = Some(Some(stack)),
            Some(_) => data.fault("Stack must be a string"),
        }
        data.take("credentials");
        object.absorb(data);
    }
    fields.absorb(object);
    lifecycle
}

/// What is wrong with a choice of buildpacks and stack.
pub(crate) async fn lifecycle_faults(
    conn: &mut SqliteConnection,
    chosen: &[String],
    stack: Option<&str>,
) -> Result<Vec<String>, sqlx::Error> {
    let mut faults = Vec::new();
    if let Some(stack) = stack
        && settings::stack(conn, stack).await?.is_none()
    {
        faults.push("Stack must be an existing stack".to_owned());
    }
    let installed = buildpacks::all(conn).await?;
    for name in chosen {
        let known = installed.iter().any(|buildpack| buildpack.name == *name);
        if !known && !is_git_address(name) {
            faults.push(format!(
                "Buildpack: \"{name}\" must be an existing admin buildpack or a valid git URI"
            ));
        }
    }
    Ok(faults)
}

pub(crate) fn is_git_address(text: &str) -> bool {
    ["http://", "https://", "git://", "ssh://"].iter().any(|scheme| text.starts_with(scheme))
        || (text.contains('@') && text.contains(':'))
}

/// `POST /v3/apps`.
pub(crate) async fn create(
    State(controller): App,
    caller: Caller,
    mut fields: Fields,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let name = fields.required("name");
    let change = fields.metadata();
    let lifecycle = take_lifecycle(&mut fields);
    let given = fields.take("environment_variables").filter(|vars| !vars.is_null());
    let mut space_guid = None;
    if let Some(mut relationships) = fields.object("relationships") {
        space_guid = relationships.guid("space");
        fields.absorb(relationships);
    }
    if space_guid.is_none() {
        fields.fault("Relationships 'relationships' must include space");
    }
    fields.finish()?;
    let metadata = Metadata::default().merge(&change).map_err(ApiError::unprocessable_all)?;
    let mut env = Map::new();
    if let Some(given) = given {
        flags::merge_variables(&mut env, &given)?;
    }
    let space_guid = space_guid.unwrap_or_default();
    let mut tx = controller.store.begin().await?;
    let space = caller.space(&mut tx, &space_guid).await.map_err(|err| match err.status {
        StatusCode::NOT_FOUND => ApiError::unprocessable(
            "Invalid space. Ensure that the space exists and you have access to it.",
        ),
        _ => err,
    })?;
    space.require_developer()?;
    let kind = lifecycle.kind.unwrap_or_else(|| "buildpack".into());
    if kind == "docker" {
        flags::require(&mut tx, &caller, "diego_docker").await?;
    }
    let chosen = lifecycle.buildpacks.unwrap_or_default();
    let stack = lifecycle.stack.flatten();
    let faults = lifecycle_faults(&mut tx, &chosen, stack.as_deref()).await?;
    if !faults.is_empty() {
        return Err(ApiError::unprocessable(faults.join(", ")));
    }
    let stack = match &*kind {
        "docker" => None,
        _ => Some(stack.unwrap_or_else(|| controller.config.default_stack().to_owned())),
    };
    let new =
        NewApp { name, space_guid, lifecycle: kind, buildpacks: chosen, stack, env, metadata };
    let app = insert(&controller, &mut tx, &caller.party(), &new).await?;
    tx.commit().await?;
    controller.logs.api(&app.guid, format!("Created app with guid {}", app.guid));
    Ok((StatusCode::CREATED, Json(show_app(&controller, &app))))
}

/// Adds an app with its `web` process.
pub(crate) async fn insert(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    actor: &Party,
    new: &NewApp,
) -> Result<Row, ApiError> {
    let guid = apps::insert(conn, new).await.map_err(|err| name_taken(err, &new.name))?;
    processes::insert(conn, &guid, "web", &controller.config).await?;
    let app: Option<Row> = by_guid(conn, "apps", &guid).await?;
    let app = app.ok_or_else(|| ApiError::not_found("App"))?;
    let data = json!({"request": {"name": new.name}});
    record_app(conn, "audit.app.create", actor, &app, &data).await?;
    Ok(app)
}

pub(crate) fn name_taken(err: sqlx::Error, name: &str) -> ApiError {
    match is_taken(&err) {
        true => ApiError::unprocessable(format!("App with the name '{name}' already exists.")),
        false => err.into(),
    }
}

/// `PATCH /v3/apps/:guid`.
pub(crate) async fn update(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let name = fields.string("name");
    let change = fields.metadata();
    let lifecycle = take_lifecycle(&mut fields);
    if name.as_ref().is_some_and(|name| name.trim().is_empty()) {
        fields.fault("Name can't be blank");
    }
    fields.finish()?;
    let mut tx = controller.store.begin().await?;
    let (mut app, space) = access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    if lifecycle.kind.as_ref().is_some_and(|kind| *kind != app.lifecycle) {
        return Err(ApiError::unprocessable("Lifecycle type cannot be changed"));
    }
    let chosen = lifecycle.buildpacks.unwrap_or_else(|| app.buildpacks());
    let stack = lifecycle.stack.unwrap_or_else(|| app.stack.clone());
    let faults = lifecycle_faults(&mut tx, &chosen, stack.as_deref()).await?;
    if !faults.is_empty() {
        return Err(ApiError::unprocessable(faults.join(", ")));
    }
    app.buildpacks = json_text(&chosen);
    app.stack = stack;
    let metadata = app.metadata().merge(&change).map_err(ApiError::unprocessable_all)?;
    app.labels = json_text(&metadata.labels);
    app.annotations = json_text(&metadata.annotations);
    let renamed = name.is_some_and(|name| std::mem::replace(&mut app.name, name.clone()) != name);
    apps::update(&mut tx, &app).await.map_err(|err| name_taken(err, &app.name))?;
    if renamed {
        // The name is in the environment and in the tags of what runs.
        for mut process in processes::of_app(&mut tx, &guid).await? {
            processes::update(&mut tx, &mut process).await?;
        }
    }
    let data = json!({"request": {"name": app.name}});
    record_app(&mut tx, "audit.app.update", &caller.party(), &app, &data).await?;
    let app: Option<Row> = by_guid(&mut tx, "apps", &guid).await?;
    let app = app.ok_or_else(|| ApiError::not_found("App"))?;
    tx.commit().await?;
    controller.logs.api(&guid, format!("Updated app with guid {guid}"));
    Ok(Json(show_app(&controller, &app)))
}

/// `DELETE /v3/apps/:guid`.
pub(crate) async fn remove(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Result<Response, ApiError> {
    let mut tx = controller.store.begin().await?;
    let (_, space) = access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    job::accept(&controller, tx, Work::DeleteApp { guid }, caller.party()).await
}

/// Names, descriptions, defaults.
const FEATURES: [(&str, &str, bool); 2] = [
    ("ssh", "Enable SSHing into the app.", true),
    ("revisions", "Enable versioning of an application", true),
];

fn show_feature(app: &Row, (name, description, default): (&str, &str, bool)) -> Value {
    json!({"name": name, "description": description, "enabled": app.feature(name, default)})
}

/// `GET /v3/apps/:guid/features`.
pub(crate) async fn features(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    RawQuery(raw): RawQuery,
) -> Answer {
    let query = Query::parse(raw.as_deref());
    let mut conn = controller.store.read().await?;
    let (app, _) = access(&mut conn, &caller, &guid).await?;
    let shown: Vec<Value> = FEATURES.iter().map(|known| show_feature(&app, *known)).collect();
    let total = i64::try_from(shown.len()).unwrap_or(i64::MAX);
    let address = controller.url(&format!("/v3/apps/{guid}/features"));
    Ok(Json(page::document(&address, &query, Paging::of(&query)?, total, shown, None)))
}

fn known_feature(name: &str) -> Result<(&'static str, &'static str, bool), ApiError> {
    let found = FEATURES.iter().find(|(known, ..)| *known == name);
    found.copied().ok_or_else(|| ApiError::not_found("Feature"))
}

/// `GET /v3/apps/:guid/features/:name`.
pub(crate) async fn feature(
    State(controller): App,
    caller: Caller,
    Path((guid, name)): Path<(String, String)>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (app, _) = access(&mut conn, &caller, &guid).await?;
    Ok(Json(show_feature(&app, known_feature(&name)?)))
}

/// `PATCH /v3/apps/:guid/features/:name`.
pub(crate) async fn set_feature(
    State(controller): App,
    caller: Caller,
    Path((guid, name)): Path<(String, String)>,
    mut fields: Fields,
) -> Answer {
    let enabled = fields.flag("enabled");
    if enabled.is_none() {
        fields.fault("Enabled must be a boolean");
    }
    fields.finish()?;
    let known = known_feature(&name)?;
    let mut tx = controller.store.begin().await?;
    let (mut app, space) = access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    let mut features: Map<String, Value> = serde_json::from_str(&app.features).unwrap_or_default();
    features.insert(known.0.into(), enabled.unwrap_or_default().into());
    app.features = json_text(&features);
    apps::update(&mut tx, &app).await?;
    tx.commit().await?;
    Ok(Json(show_feature(&app, known)))
}

/// `GET /v3/apps/:guid/ssh_enabled`.
pub(crate) async fn ssh_enabled(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (app, space) = access(&mut conn, &caller, &guid).await?;
    let reason = if controller.config.links.app_ssh.is_empty() {
        "Disabled globally"
    } else if !space.space.allow_ssh {
        "Disabled for space"
    } else if !app.feature("ssh", true) {
        "Disabled for app"
    } else {
        ""
    };
    Ok(Json(json!({"enabled": reason.is_empty(), "reason": reason})))
}

/// `GET /v3/apps/:guid/permissions`: what the caller may read.
pub(crate) async fn permissions(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (_, space) = access(&mut conn, &caller, &guid).await?;
    let sensitive = space.require_secrets().is_ok();
    Ok(Json(json!({"read_basic_data": true, "read_sensitive_data": sensitive})))
}
