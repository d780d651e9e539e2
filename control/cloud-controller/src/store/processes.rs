//! Processes of apps: what runs how often and how large; and their sidecars.

use serde::{Deserialize, Serialize};
use sqlx::{FromRow, SqliteConnection};

use super::{json_text, new_guid};
use crate::config::Config;
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Process {
    pub guid: String,
    pub app_guid: String,
    pub r#type: String,
    /// Overrides the droplet's.
    pub command: Option<String>,
    pub user: Option<String>,
    pub instances: i64,
    pub memory_mb: i64,
    pub disk_mb: i64,
    /// Bytes a second, -1 for no limit.
    pub log_rate: i64,
    /// Changes whenever running instances have to be replaced.
    pub version: String,
    /// A JSON `HealthCheck`.
    pub health: String,
    /// The same for readiness.
    pub readiness: String,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

/// How it is found out whether an instance is well, or ready. Times are in seconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HealthCheck {
    /// `port`, `http` or `process`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Time to become healthy; not for readiness.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation_timeout: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    /// Path, for `http`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
}

impl HealthCheck {
    pub fn of_kind(kind: &str) -> Self {
        let kind = kind.to_owned();
        Self { kind, timeout: None, invocation_timeout: None, interval: None, endpoint: None }
    }
}

impl Process {
    /// Its name at Diego: both parts are guids.
    pub fn process_guid(&self) -> String {
        format!("{}-{}", self.guid, self.version)
    }

    pub fn health(&self) -> HealthCheck {
        serde_json::from_str(&self.health).unwrap_or_else(|_| HealthCheck::of_kind("port"))
    }

    pub fn readiness(&self) -> HealthCheck {
        serde_json::from_str(&self.readiness).unwrap_or_else(|_| HealthCheck::of_kind("process"))
    }

    pub fn set_health(&mut self, check: &HealthCheck) {
        self.health = json_text(check);
    }

    pub fn set_readiness(&mut self, check: &HealthCheck) {
        self.readiness = json_text(check);
    }

    /// Running instances are no longer what is wanted.
    pub fn renew(&mut self) {
        self.version = new_guid();
    }
}

/// Adds a process with the defaults: one instance of `web`, none of other types.
pub(crate) async fn insert(
    conn: &mut SqliteConnection,
    app_guid: &str,
    kind: &str,
    config: &Config,
) -> Result<Process, sqlx::Error> {
    let now = time::now();
    // The first `web` process has its app's guid, as in the original: tools rely on it.
    let guid = if kind == "web" { app_guid.to_owned() } else { new_guid() };
    let health = if kind == "web" { "port" } else { "process" };
    let process = Process {
        guid,
        app_guid: app_guid.to_owned(),
        r#type: kind.to_owned(),
        command: None,
        user: None,
        instances: i64::from(kind == "web"),
        memory_mb: config.default_app_memory,
        disk_mb: config.default_app_disk_in_mb,
        log_rate: config.default_app_log_rate_limit_in_bytes_per_second,
        version: new_guid(),
        health: json_text(&HealthCheck::of_kind(health)),
        readiness: json_text(&HealthCheck::of_kind("process")),
        labels: "{}".into(),
        annotations: "{}".into(),
        created_at: now,
        updated_at: now,
    };
    sqlx::query(
        "INSERT INTO processes (guid, app_guid, type, instances, memory_mb, disk_mb, log_rate, \
         version, health, readiness, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&process.guid)
    .bind(app_guid)
    .bind(kind)
    .bind(process.instances)
    .bind(process.memory_mb)
    .bind(process.disk_mb)
    .bind(process.log_rate)
    .bind(&process.version)
    .bind(&process.health)
    .bind(&process.readiness)
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(process)
}

/// Writes everything that can change, and sets `updated_at`, by which Diego's copy is compared.
pub(crate) async fn update(
    conn: &mut SqliteConnection,
    process: &mut Process,
) -> Result<(), sqlx::Error> {
    process.updated_at = time::now().max(process.updated_at + 1);
    sqlx::query(
        "UPDATE processes SET command = ?, user = ?, instances = ?, memory_mb = ?, disk_mb = ?, \
         log_rate = ?, version = ?, health = ?, readiness = ?, labels = ?, annotations = ?, \
         updated_at = ? WHERE guid = ?",
    )
    .bind(&process.command)
    .bind(&process.user)
    .bind(process.instances)
    .bind(process.memory_mb)
    .bind(process.disk_mb)
    .bind(process.log_rate)
    .bind(&process.version)
    .bind(&process.health)
    .bind(&process.readiness)
    .bind(&process.labels)
    .bind(&process.annotations)
    .bind(process.updated_at)
    .bind(&process.guid)
    .execute(conn)
    .await?;
    Ok(())
}

/// Processes of an app, `web` first.
pub(crate) async fn of_app(
    conn: &mut SqliteConnection,
    app_guid: &str,
) -> Result<Vec<Process>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM processes WHERE app_guid = ? ORDER BY type <> 'web', id")
        .bind(app_guid)
        .fetch_all(conn)
        .await
}

pub(crate) async fn by_type(
    conn: &mut SqliteConnection,
    app_guid: &str,
    kind: &str,
) -> Result<Option<Process>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM processes WHERE app_guid = ? AND type = ?")
        .bind(app_guid)
        .bind(kind)
        .fetch_optional(conn)
        .await
}

/// Processes that Diego is to know: those of started apps with a droplet.
pub(crate) async fn to_run(conn: &mut SqliteConnection) -> Result<Vec<Process>, sqlx::Error> {
    sqlx::query_as(
        "SELECT processes.* FROM processes JOIN apps ON apps.guid = processes.app_guid \
         WHERE apps.state = 'STARTED' AND apps.droplet_guid IS NOT NULL \
         AND processes.instances > 0 ORDER BY processes.id",
    )
    .fetch_all(conn)
    .await
}

pub(crate) async fn delete(conn: &mut SqliteConnection, guid: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM processes WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Sidecar {
    pub guid: String,
    pub app_guid: String,
    pub name: String,
    pub command: String,
    /// A JSON list.
    pub process_types: String,
    pub memory_mb: Option<i64>,
    /// `user` or `buildpack`.
    pub origin: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

impl Sidecar {
    pub fn process_types(&self) -> Vec<String> {
        serde_json::from_str(&self.process_types).unwrap_or_default()
    }
}

/// What a sidecar is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NewSidecar {
    pub name: String,
    pub command: String,
    pub process_types: Vec<String>,
    pub memory_mb: Option<i64>,
}

pub(crate) async fn sidecars(
    conn: &mut SqliteConnection,
    app_guid: &str,
) -> Result<Vec<Sidecar>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM sidecars WHERE app_guid = ? ORDER BY id")
        .bind(app_guid)
        .fetch_all(conn)
        .await
}

/// Adds a sidecar or replaces the one of that name.
pub(crate) async fn put_sidecar(
    conn: &mut SqliteConnection,
    app_guid: &str,
    sidecar: &NewSidecar,
    origin: &str,
) -> Result<(), sqlx::Error> {
    let now = time::now();
    sqlx::query(
        "INSERT INTO sidecars (guid, app_guid, name, command, process_types, memory_mb, origin, \
         created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) \
         ON CONFLICT (app_guid, name) DO UPDATE SET command = excluded.command, \
         process_types = excluded.process_types, memory_mb = excluded.memory_mb, \
         origin = excluded.origin, updated_at = excluded.updated_at",
    )
    .bind(new_guid())
    .bind(app_guid)
    .bind(&sidecar.name)
    .bind(&sidecar.command)
    .bind(json_text(&sidecar.process_types))
    .bind(sidecar.memory_mb)
    .bind(origin)
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}

pub(crate) async fn delete_sidecars(
    conn: &mut SqliteConnection,
    app_guid: &str,
    origin: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM sidecars WHERE app_guid = ? AND origin = ?")
        .bind(app_guid)
        .bind(origin)
        .execute(conn)
        .await?;
    Ok(())
}
