//! Domains, shared by all orgs or private to one.

use sqlx::{FromRow, SqliteConnection};

use super::{json_text, new_guid};
use crate::metadata::Metadata;
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Domain {
    pub guid: String,
    pub name: String,
    pub internal: bool,
    /// The owning org; shared by all if absent.
    pub org_guid: Option<String>,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

pub(crate) async fn insert(
    conn: &mut SqliteConnection,
    name: &str,
    internal: bool,
    org_guid: Option<&str>,
    metadata: &Metadata,
) -> Result<String, sqlx::Error> {
    let (guid, now) = (new_guid(), time::now());
    sqlx::query(
        "INSERT INTO domains (guid, name, internal, org_guid, labels, annotations, created_at, \
         updated_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&guid)
    .bind(name)
    .bind(internal)
    .bind(org_guid)
    .bind(json_text(&metadata.labels))
    .bind(json_text(&metadata.annotations))
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(guid)
}

/// Its routes go too.
pub(crate) async fn delete(conn: &mut SqliteConnection, guid: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM routes WHERE domain_guid = ?").bind(guid).execute(&mut *conn).await?;
    sqlx::query("DELETE FROM domains WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

pub(crate) async fn shares(
    conn: &mut SqliteConnection,
    guid: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT org_guid FROM domain_shares WHERE domain_guid = ? ORDER BY org_guid")
        .bind(guid)
        .fetch_all(conn)
        .await
}

pub(crate) async fn share(
    conn: &mut SqliteConnection,
    guid: &str,
    org_guid: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("INSERT OR IGNORE INTO domain_shares (domain_guid, org_guid) VALUES (?, ?)")
        .bind(guid)
        .bind(org_guid)
        .execute(conn)
        .await?;
    Ok(())
}

/// Whether there is a domain of this name, of whomever.
pub(crate) async fn exists(conn: &mut SqliteConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM domains WHERE lower(name) = lower(?))")
        .bind(name)
        .fetch_one(conn)
        .await
}

/// Domains that an org may use, in the order in which the default one is chosen: its own, then those
/// shared by all, by age.
pub(crate) async fn usable_by(
    conn: &mut SqliteConnection,
    org_guid: &str,
) -> Result<Vec<Domain>, sqlx::Error> {
    sqlx::query_as(
        "SELECT * FROM domains WHERE org_guid IS NULL OR org_guid = ? OR guid IN \
         (SELECT domain_guid FROM domain_shares WHERE org_guid = ?) \
         ORDER BY org_guid IS NULL, id",
    )
    .bind(org_guid)
    .bind(org_guid)
    .fetch_all(conn)
    .await
}
