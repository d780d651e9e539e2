//! Organizations, their quotas, and spaces.

use sqlx::{FromRow, SqliteConnection};

use super::{json_text, new_guid};
use crate::metadata::Metadata;
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Org {
    pub guid: String,
    pub name: String,
    pub suspended: bool,
    pub quota_guid: String,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Space {
    pub guid: String,
    pub name: String,
    pub org_guid: String,
    pub allow_ssh: bool,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

/// `limits` is a JSON text in the shape of the API.
#[derive(Clone, Debug, FromRow)]
pub(crate) struct Quota {
    pub guid: String,
    pub name: String,
    pub limits: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

pub(crate) async fn insert_org(
    conn: &mut SqliteConnection,
    name: &str,
    suspended: bool,
    metadata: &Metadata,
) -> Result<String, sqlx::Error> {
    let (guid, now) = (new_guid(), time::now());
    sqlx::query(
        "INSERT INTO organizations (guid, name, suspended, quota_guid, labels, annotations, \
         created_at, updated_at) VALUES (?, ?, ?, \
         (SELECT guid FROM organization_quotas ORDER BY id LIMIT 1), ?, ?, ?, ?)",
    )
    .bind(&guid)
    .bind(name)
    .bind(suspended)
    .bind(json_text(&metadata.labels))
    .bind(json_text(&metadata.annotations))
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(guid)
}

pub(crate) async fn update_org(
    conn: &mut SqliteConnection,
    guid: &str,
    name: &str,
    suspended: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE organizations SET name = ?, suspended = ?, updated_at = ? WHERE guid = ?")
        .bind(name)
        .bind(suspended)
        .bind(time::now())
        .bind(guid)
        .execute(conn)
        .await?;
    Ok(())
}

/// Its spaces must be gone. Private domains go with it.
pub(crate) async fn delete_org(conn: &mut SqliteConnection, guid: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM domains WHERE org_guid = ?").bind(guid).execute(&mut *conn).await?;
    sqlx::query("DELETE FROM organizations WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

pub(crate) async fn insert_space(
    conn: &mut SqliteConnection,
    name: &str,
    org_guid: &str,
    metadata: &Metadata,
) -> Result<String, sqlx::Error> {
    let (guid, now) = (new_guid(), time::now());
    sqlx::query(
        "INSERT INTO spaces (guid, name, org_guid, labels, annotations, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&guid)
    .bind(name)
    .bind(org_guid)
    .bind(json_text(&metadata.labels))
    .bind(json_text(&metadata.annotations))
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(guid)
}

pub(crate) async fn update_space(
    conn: &mut SqliteConnection,
    guid: &str,
    name: &str,
    allow_ssh: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE spaces SET name = ?, allow_ssh = ?, updated_at = ? WHERE guid = ?")
        .bind(name)
        .bind(allow_ssh)
        .bind(time::now())
        .bind(guid)
        .execute(conn)
        .await?;
    Ok(())
}

/// Its apps must be gone. Routes and roles go with it.
pub(crate) async fn delete_space(
    conn: &mut SqliteConnection,
    guid: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM routes WHERE space_guid = ?").bind(guid).execute(&mut *conn).await?;
    sqlx::query("DELETE FROM spaces WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

pub(crate) async fn spaces_of_org(
    conn: &mut SqliteConnection,
    org_guid: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT guid FROM spaces WHERE org_guid = ? ORDER BY id")
        .bind(org_guid)
        .fetch_all(conn)
        .await
}

/// Adds the quota if there is none of that name.
pub(crate) async fn seed_quota(
    conn: &mut SqliteConnection,
    name: &str,
    limits: &serde_json::Value,
) -> Result<(), sqlx::Error> {
    let now = time::now();
    sqlx::query(
        "INSERT INTO organization_quotas (guid, name, limits, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(new_guid())
    .bind(name)
    .bind(json_text(limits))
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}
