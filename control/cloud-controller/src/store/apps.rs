//! Apps, and the spaces and orgs around them.

use serde_json::{Map, Value};
use sqlx::{FromRow, SqliteConnection};

use super::{json_text, new_guid};
use crate::metadata::Metadata;
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct App {
    pub guid: String,
    pub name: String,
    pub space_guid: String,
    /// `STOPPED` or `STARTED`.
    pub state: String,
    /// `buildpack` or `docker`.
    pub lifecycle: String,
    /// A JSON list of names and addresses.
    pub buildpacks: String,
    pub stack: Option<String>,
    /// A JSON object.
    pub env: String,
    /// What runs.
    pub droplet_guid: Option<String>,
    /// A JSON object of those that differ from the defaults.
    pub features: String,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

impl App {
    pub fn started(&self) -> bool {
        self.state == "STARTED"
    }

    pub fn buildpacks(&self) -> Vec<String> {
        serde_json::from_str(&self.buildpacks).unwrap_or_default()
    }

    pub fn env(&self) -> Map<String, Value> {
        serde_json::from_str(&self.env).unwrap_or_default()
    }

    pub fn feature(&self, name: &str, default: bool) -> bool {
        let features: Map<String, Value> = serde_json::from_str(&self.features).unwrap_or_default();
        features.get(name).and_then(Value::as_bool).unwrap_or(default)
    }

    pub fn metadata(&self) -> Metadata {
        Metadata::read(&self.labels, &self.annotations)
    }
}

/// What a new app is made of.
#[derive(Clone, Debug)]
pub(crate) struct NewApp {
    pub name: String,
    pub space_guid: String,
    pub lifecycle: String,
    pub buildpacks: Vec<String>,
    pub stack: Option<String>,
    pub env: Map<String, Value>,
    pub metadata: Metadata,
}

/// Fails with a unique violation if the space has an app of that name.
pub(crate) async fn insert(
    conn: &mut SqliteConnection,
    app: &NewApp,
) -> Result<String, sqlx::Error> {
    let (guid, now) = (new_guid(), time::now());
    sqlx::query(
        "INSERT INTO apps (guid, name, space_guid, lifecycle, buildpacks, stack, env, labels, \
         annotations, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&guid)
    .bind(&app.name)
    .bind(&app.space_guid)
    .bind(&app.lifecycle)
    .bind(json_text(&app.buildpacks))
    .bind(&app.stack)
    .bind(json_text(&app.env))
    .bind(json_text(&app.metadata.labels))
    .bind(json_text(&app.metadata.annotations))
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(guid)
}

/// Writes everything that can change but the guid and the space.
pub(crate) async fn update(conn: &mut SqliteConnection, app: &App) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE apps SET name = ?, state = ?, lifecycle = ?, buildpacks = ?, stack = ?, env = ?, \
         droplet_guid = ?, features = ?, labels = ?, annotations = ?, updated_at = ? \
         WHERE guid = ?",
    )
    .bind(&app.name)
    .bind(&app.state)
    .bind(&app.lifecycle)
    .bind(&app.buildpacks)
    .bind(&app.stack)
    .bind(&app.env)
    .bind(&app.droplet_guid)
    .bind(&app.features)
    .bind(&app.labels)
    .bind(&app.annotations)
    .bind(time::now())
    .bind(&app.guid)
    .execute(conn)
    .await?;
    Ok(())
}

/// Processes, packages, builds, droplets and destinations go with it.
pub(crate) async fn delete(conn: &mut SqliteConnection, guid: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM apps WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

pub(crate) async fn of_space(
    conn: &mut SqliteConnection,
    space_guid: &str,
) -> Result<Vec<App>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM apps WHERE space_guid = ? ORDER BY id")
        .bind(space_guid)
        .fetch_all(conn)
        .await
}

pub(crate) async fn by_name(
    conn: &mut SqliteConnection,
    space_guid: &str,
    name: &str,
) -> Result<Option<App>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM apps WHERE space_guid = ? AND name = ?")
        .bind(space_guid)
        .bind(name)
        .fetch_optional(conn)
        .await
}
