//! Routes, and the apps that they lead to.

use serde_json::{Map, Value};
use sqlx::{FromRow, SqliteConnection};

use super::{json_text, new_guid};
use crate::metadata::Metadata;
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Route {
    pub guid: String,
    pub space_guid: String,
    pub domain_guid: String,
    /// Empty, a label, labels, or `*`.
    pub host: String,
    /// Empty or begins with a slash.
    pub path: String,
    /// A JSON object.
    pub options: String,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

impl Route {
    pub fn options(&self) -> Map<String, Value> {
        serde_json::from_str(&self.options).unwrap_or_default()
    }

    /// Without a scheme.
    pub fn url(&self, domain: &str) -> String {
        let dot = if self.host.is_empty() { "" } else { "." };
        format!("{}{dot}{domain}{}", self.host, self.path)
    }
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Destination {
    pub guid: String,
    pub app_guid: String,
    pub process_type: String,
    pub port: i64,
    /// `http1` or `http2`.
    pub protocol: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

/// Fails with a unique violation if the route exists, in whatever space.
pub(crate) async fn insert(
    conn: &mut SqliteConnection,
    space_guid: &str,
    domain_guid: &str,
    host: &str,
    path: &str,
    options: &Map<String, Value>,
    metadata: &Metadata,
) -> Result<String, sqlx::Error> {
    let (guid, now) = (new_guid(), time::now());
    sqlx::query(
        "INSERT INTO routes (guid, space_guid, domain_guid, host, path, options, labels, \
         annotations, created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&guid)
    .bind(space_guid)
    .bind(domain_guid)
    .bind(host.to_ascii_lowercase())
    .bind(path)
    .bind(json_text(options))
    .bind(json_text(&metadata.labels))
    .bind(json_text(&metadata.annotations))
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(guid)
}

pub(crate) async fn set_options(
    conn: &mut SqliteConnection,
    guid: &str,
    options: &Map<String, Value>,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE routes SET options = ?, updated_at = ? WHERE guid = ?")
        .bind(json_text(options))
        .bind(time::now())
        .bind(guid)
        .execute(conn)
        .await?;
    Ok(())
}

pub(crate) async fn find(
    conn: &mut SqliteConnection,
    domain_guid: &str,
    host: &str,
    path: &str,
) -> Result<Option<Route>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM routes WHERE domain_guid = ? AND host = ? AND path = ?")
        .bind(domain_guid)
        .bind(host)
        .bind(path)
        .fetch_optional(conn)
        .await
}

/// Its destinations go with it.
pub(crate) async fn delete(conn: &mut SqliteConnection, guid: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM routes WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

/// Routes of a space that lead nowhere. Whatever is deleted is returned.
pub(crate) async fn delete_unmapped(
    conn: &mut SqliteConnection,
    space_guid: &str,
) -> Result<Vec<Route>, sqlx::Error> {
    sqlx::query_as(
        "DELETE FROM routes WHERE space_guid = ? AND NOT EXISTS \
         (SELECT 1 FROM destinations WHERE route_guid = routes.guid) RETURNING *",
    )
    .bind(space_guid)
    .fetch_all(conn)
    .await
}

pub(crate) async fn destinations(
    conn: &mut SqliteConnection,
    route_guid: &str,
) -> Result<Vec<Destination>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM destinations WHERE route_guid = ? ORDER BY id")
        .bind(route_guid)
        .fetch_all(conn)
        .await
}

/// Maps a route to a process type of an app. False if it is mapped there already.
pub(crate) async fn map(
    conn: &mut SqliteConnection,
    route_guid: &str,
    app_guid: &str,
    process_type: &str,
    port: i64,
    protocol: &str,
) -> Result<bool, sqlx::Error> {
    let now = time::now();
    let done = sqlx::query(
        "INSERT INTO destinations (guid, route_guid, app_guid, process_type, port, protocol, \
         created_at, updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(new_guid())
    .bind(route_guid)
    .bind(app_guid)
    .bind(process_type)
    .bind(port)
    .bind(protocol)
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

pub(crate) async fn unmap(
    conn: &mut SqliteConnection,
    destination_guid: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM destinations WHERE guid = ?")
        .bind(destination_guid)
        .execute(conn)
        .await?;
    Ok(())
}

/// Routes that lead to an app, oldest first.
pub(crate) async fn of_app(
    conn: &mut SqliteConnection,
    app_guid: &str,
) -> Result<Vec<Route>, sqlx::Error> {
    sqlx::query_as(
        "SELECT * FROM routes WHERE guid IN \
         (SELECT route_guid FROM destinations WHERE app_guid = ?) ORDER BY id",
    )
    .bind(app_guid)
    .fetch_all(conn)
    .await
}

/// What leads to one process type of an app, with the names of the domains.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Mapping {
    pub host: String,
    pub path: String,
    pub domain: String,
    pub internal: bool,
    pub options: String,
    pub port: i64,
    pub protocol: String,
}

impl Mapping {
    pub fn url(&self) -> String {
        let dot = if self.host.is_empty() { "" } else { "." };
        format!("{}{dot}{}{}", self.host, self.domain, self.path)
    }
}

pub(crate) async fn mappings(
    conn: &mut SqliteConnection,
    app_guid: &str,
    process_type: &str,
) -> Result<Vec<Mapping>, sqlx::Error> {
    sqlx::query_as(
        "SELECT routes.host, routes.path, domains.name AS domain, domains.internal, \
         routes.options, destinations.port, destinations.protocol FROM destinations \
         JOIN routes ON routes.guid = destinations.route_guid \
         JOIN domains ON domains.guid = routes.domain_guid \
         WHERE destinations.app_guid = ? AND destinations.process_type = ? \
         ORDER BY destinations.id",
    )
    .bind(app_guid)
    .bind(process_type)
    .fetch_all(conn)
    .await
}

pub(crate) async fn set_protocol(
    conn: &mut SqliteConnection,
    route_guid: &str,
    app_guid: &str,
    process_type: &str,
    protocol: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE destinations SET protocol = ?, updated_at = ? \
         WHERE route_guid = ? AND app_guid = ? AND process_type = ?",
    )
    .bind(protocol)
    .bind(time::now())
    .bind(route_guid)
    .bind(app_guid)
    .bind(process_type)
    .execute(conn)
    .await?;
    Ok(())
}
