//! Starting, stopping and restarting apps, and choosing what they run.

use axum::Json;
use axum::extract::{Path, State};
use serde_json::{Value, json};
use sqlx::SqliteConnection;

use super::{Answer, App, apps, link};
use crate::CloudController;
use crate::body::Fields;
use crate::caller::Caller;
use crate::error::ApiError;
use crate::running;
use crate::store::apps::{self as rows, App as Row};
use crate::store::events::Party;
use crate::store::packages::Droplet;
use crate::store::processes::{self, NewSidecar};
use crate::store::select::by_guid;

/// `POST /v3/apps/:guid/actions/start`.
pub(crate) async fn start(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    act(controller, caller, guid, Action::Start).await
}

/// `POST /v3/apps/:guid/actions/stop`.
pub(crate) async fn stop(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    act(controller, caller, guid, Action::Stop).await
}

/// `POST /v3/apps/:guid/actions/restart`.
pub(crate) async fn restart(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    act(controller, caller, guid, Action::Restart).await
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Start,
    Stop,
    Restart,
}

impl Action {
    fn event(self) -> &'static str {
        match self {
            Self::Start => "audit.app.start",
            Self::Stop => "audit.app.stop",
            Self::Restart => "audit.app.restart",
        }
    }

    fn state(self) -> &'static str {
        if self == Self::Stop { "STOPPED" } else { "STARTED" }
    }
}

async fn act(controller: CloudController, caller: Caller, guid: String, action: Action) -> Answer {
    let mut tx = controller.store.begin().await?;
    let (mut app, space) = apps::access(&mut tx, &caller, &guid).await?;
    space.require_supporter()?;
    if action != Action::Stop && app.droplet_guid.is_none() {
        return Err(ApiError::unprocessable("Assign a droplet before starting this app."));
    }
    let was_started = app.started();
    app.state = action.state().into();
    rows::update(&mut tx, &app).await?;
    // What runs now has an older version and goes; so clients that look at the instances see those
    // of this start only.
    let mut gone = Vec::new();
    let renews = action == Action::Restart || (action == Action::Start && !was_started);
    for mut process in processes::of_app(&mut tx, &guid).await? {
        if renews || action == Action::Stop {
            gone.push(process.process_guid());
        }
        if renews {
            process.renew();
            processes::update(&mut tx, &mut process).await?;
        }
    }
    apps::record_app(&mut tx, action.event(), &caller.party(), &app, &json!({})).await?;
    let app: Option<Row> = by_guid(&mut tx, "apps", &guid).await?;
    let app = app.ok_or_else(|| ApiError::not_found("App"))?;
    tx.commit().await?;
    let state = app.state.clone();
    controller
        .logs
        .api(&guid, format!("Updated app with guid {guid} ({{\"state\"=>\"{state}\"}})"));
    settle(&controller, &guid, gone).await;
    Ok(Json(apps::show_app(&controller, &app)))
}

/// Carries a committed change to the runtime, also when the client has gone meanwhile.
pub(crate) async fn settle(controller: &CloudController, app_guid: &str, gone: Vec<String>) {
    let (inner, app_guid) = (controller.clone(), app_guid.to_owned());
    let done = controller.tasks.spawn(async move {
        running::settle(&inner, &app_guid, &gone).await;
    });
    if let Err(err) = done.await {
        tracing::error!(error = %err, "carrying a change to the runtime failed");
    }
}

fn show_current(controller: &CloudController, app: &Row) -> Value {
    let path = format!("/v3/apps/{}", app.guid);
    json!({
        "data": app.droplet_guid.as_ref().map(|guid| json!({"guid": guid})),
        "links": {
            "self": link(controller, &format!("{path}/relationships/current_droplet")),
            "related": link(controller, &format!("{path}/droplets/current")),
        },
    })
}

/// `GET /v3/apps/:guid/relationships/current_droplet`.
pub(crate) async fn current_droplet(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
) -> Answer {
    let mut conn = controller.store.read().await?;
    let (app, _) = apps::access(&mut conn, &caller, &guid).await?;
    if app.droplet_guid.is_none() {
        return Err(ApiError::not_found("Droplet"));
    }
    Ok(Json(show_current(&controller, &app)))
}

/// `PATCH /v3/apps/:guid/relationships/current_droplet`.
pub(crate) async fn set_current_droplet(
    State(controller): App,
    caller: Caller,
    Path(guid): Path<String>,
    mut fields: Fields,
) -> Answer {
    let data = fields.take("data").unwrap_or_default();
    fields.finish()?;
    let wanted = data["guid"].as_str().unwrap_or_default();
    let mut tx = controller.store.begin().await?;
    let (mut app, space) = apps::access(&mut tx, &caller, &guid).await?;
    space.require_developer()?;
    let unusable = || {
        ApiError::unprocessable(
            "Unable to assign current droplet. Ensure the droplet exists and belongs to this app.",
        )
    };
    let droplet: Option<Droplet> = by_guid(&mut tx, "droplets", wanted).await?;
    let droplet = droplet.filter(|droplet| droplet.app_guid == guid).ok_or_else(unusable)?;
    if droplet.state != "STAGED" {
        return Err(unusable());
    }
    let gone = assign(&controller, &mut tx, &mut app, &droplet, &caller.party()).await?;
    tx.commit().await?;
    running::stop(&controller, &gone).await;
    Ok(Json(show_current(&controller, &app)))
}

/// Makes a droplet what the app runs from its next start on, with the process types that it names.
/// Processes that are no more, by their names at the runtime.
async fn assign(
    controller: &CloudController,
    conn: &mut SqliteConnection,
    app: &mut Row,
    droplet: &Droplet,
    actor: &Party,
) -> Result<Vec<String>, ApiError> {
    app.droplet_guid = Some(droplet.guid.clone());
    rows::update(conn, app).await?;
    let types = droplet.process_types();
    let existing = processes::of_app(conn, &app.guid).await?;
    for kind in types.keys() {
        if !existing.iter().any(|process| process.r#type == *kind) {
            processes::insert(conn, &app.guid, kind, &controller.config).await?;
        }
    }
    let mut gone = Vec::new();
    for process in &existing {
        let kind = &process.r#type;
        // One that neither the droplet nor the user knows a command for cannot run.
        if kind != "web" && !types.contains_key(kind) && process.command.is_none() {
            processes::delete(conn, &process.guid).await?;
            gone.push(process.process_guid());
        }
    }
    processes::delete_sidecars(conn, &app.guid, "buildpack").await?;
    for sidecar in sidecars_of(droplet) {
        processes::put_sidecar(conn, &app.guid, &sidecar, "buildpack").await?;
    }
    let data = json!({"request": {"droplet_guid": droplet.guid}});
    apps::record_app(conn, "audit.app.droplet.mapped", actor, app, &data).await?;
    Ok(gone)
}

fn sidecars_of(droplet: &Droplet) -> Vec<NewSidecar> {
    let list: Vec<Value> = serde_json::from_str(&droplet.sidecars).unwrap_or_default();
    let sidecar = |value: &Value| {
        Some(NewSidecar {
            name: value["name"].as_str()?.to_owned(),
            command: value["command"].as_str()?.to_owned(),
            process_types: serde_json::from_value(value["process_types"].clone()).ok()?,
            memory_mb: value["memory"].as_i64(),
        })
    };
    list.iter().filter_map(sidecar).collect()
}
