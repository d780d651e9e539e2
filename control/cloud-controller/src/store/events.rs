//! Audit events: who did what to what.

use sqlx::{FromRow, SqliteConnection};

use super::{json_text, new_guid};
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Event {
    pub guid: String,
    pub r#type: String,
    pub actor_guid: String,
    pub actor_type: String,
    pub actor_name: String,
    pub target_guid: String,
    pub target_type: String,
    pub target_name: String,
    pub data: String,
    pub space_guid: Option<String>,
    pub org_guid: Option<String>,
    pub created_at: Micros,
    pub updated_at: Micros,
}

/// Who acts or what is acted on.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(crate) struct Party {
    pub guid: String,
    /// `user`, `app`, `space`, …
    pub kind: String,
    pub name: String,
}

impl Party {
    pub fn new(kind: &str, guid: &str, name: &str) -> Self {
        Self { guid: guid.into(), kind: kind.into(), name: name.into() }
    }
}

/// Where it happened: a space, its org, or neither.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Place<'a> {
    pub space_guid: Option<&'a str>,
    pub org_guid: Option<&'a str>,
}

pub(crate) async fn record(
    conn: &mut SqliteConnection,
    kind: &str,
    actor: &Party,
    target: &Party,
    place: Place<'_>,
    data: &serde_json::Value,
) -> Result<(), sqlx::Error> {
    let now = time::now();
    sqlx::query(
        "INSERT INTO audit_events (guid, type, actor_guid, actor_type, actor_name, target_guid, \
         target_type, target_name, data, space_guid, org_guid, created_at, updated_at) VALUES \
         (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, \
         coalesce(?, (SELECT org_guid FROM spaces WHERE guid = ?)), ?, ?)",
    )
    .bind(new_guid())
    .bind(kind)
    .bind(&actor.guid)
    .bind(&actor.kind)
    .bind(&actor.name)
    .bind(&target.guid)
    .bind(&target.kind)
    .bind(&target.name)
    .bind(json_text(data))
    .bind(place.space_guid)
    .bind(place.org_guid)
    .bind(place.space_guid)
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(())
}

/// Forgets what is older.
pub(crate) async fn prune(conn: &mut SqliteConnection, before: Micros) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM audit_events WHERE created_at < ?").bind(before).execute(conn).await?;
    Ok(())
}
