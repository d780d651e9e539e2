//! Users and the roles that they have in orgs and spaces.

use sqlx::{FromRow, SqliteConnection};

use super::new_guid;
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct User {
    pub guid: String,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Role {
    pub guid: String,
    pub r#type: String,
    pub user_guid: String,
    pub org_guid: Option<String>,
    pub space_guid: Option<String>,
    pub created_at: Micros,
    pub updated_at: Micros,
}

/// Whether there is such a user.
pub(crate) async fn is_user(conn: &mut SqliteConnection, guid: &str) -> Result<bool, sqlx::Error> {
    let found: Option<i64> = sqlx::query_scalar("SELECT 1 FROM users WHERE guid = ?")
        .bind(guid)
        .fetch_optional(conn)
        .await?;
    Ok(found.is_some())
}

/// Adds a user that is not known yet. Whether it was new.
pub(crate) async fn ensure_user(
    conn: &mut SqliteConnection,
    guid: &str,
) -> Result<bool, sqlx::Error> {
    let now = time::now();
    let done = sqlx::query(
        "INSERT INTO users (guid, created_at, updated_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(guid)
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The user's roles go too.
pub(crate) async fn delete_user(
    conn: &mut SqliteConnection,
    guid: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM users WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

/// Fails with a unique violation if the user has that role there.
pub(crate) async fn insert_role(
    conn: &mut SqliteConnection,
    kind: &str,
    user_guid: &str,
    org_guid: Option<&str>,
    space_guid: Option<&str>,
) -> Result<String, sqlx::Error> {
    let (guid, now) = (new_guid(), time::now());
    sqlx::query(
        "INSERT INTO roles (guid, type, user_guid, org_guid, space_guid, created_at, updated_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(&guid)
    .bind(kind)
    .bind(user_guid)
    .bind(org_guid)
    .bind(space_guid)
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(guid)
}

pub(crate) async fn delete_role(
    conn: &mut SqliteConnection,
    guid: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM roles WHERE guid = ?").bind(guid).execute(conn).await?;
    Ok(())
}

/// Types of the roles that a user has in an org itself.
pub(crate) async fn in_org(
    conn: &mut SqliteConnection,
    user_guid: &str,
    org_guid: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT type FROM roles WHERE user_guid = ? AND org_guid = ?")
        .bind(user_guid)
        .bind(org_guid)
        .fetch_all(conn)
        .await
}

/// Types of the roles that a user has in a space itself.
pub(crate) async fn in_space(
    conn: &mut SqliteConnection,
    user_guid: &str,
    space_guid: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar("SELECT type FROM roles WHERE user_guid = ? AND space_guid = ?")
        .bind(user_guid)
        .bind(space_guid)
        .fetch_all(conn)
        .await
}

/// Whether the user has any role in the org's spaces.
pub(crate) async fn has_space_roles(
    conn: &mut SqliteConnection,
    user_guid: &str,
    org_guid: &str,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM roles JOIN spaces ON spaces.guid = roles.space_guid \
         WHERE roles.user_guid = ? AND spaces.org_guid = ?)",
    )
    .bind(user_guid)
    .bind(org_guid)
    .fetch_one(conn)
    .await
}
