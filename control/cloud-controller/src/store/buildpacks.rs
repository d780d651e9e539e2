//! Buildpacks that an administrator has installed.

use sqlx::{FromRow, SqliteConnection};

use super::new_guid;
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Buildpack {
    pub guid: String,
    pub name: String,
    pub stack: Option<String>,
    /// From 1, without gaps.
    pub position: i64,
    pub enabled: bool,
    pub locked: bool,
    pub filename: Option<String>,
    /// Of the uploaded file.
    pub sha256: Option<String>,
    pub labels: String,
    pub annotations: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

impl Buildpack {
    /// Key of its file in the blobstore, and its name for the builder.
    pub fn key(&self) -> Option<String> {
        self.sha256.as_ref().map(|sha256| format!("{}_{sha256}", self.guid))
    }
}

pub(crate) async fn all(conn: &mut SqliteConnection) -> Result<Vec<Buildpack>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM buildpacks ORDER BY position, id").fetch_all(conn).await
}

/// Adds a buildpack at a position, or at the end.
pub(crate) async fn insert(
    conn: &mut SqliteConnection,
    name: &str,
    stack: Option<&str>,
    position: Option<i64>,
    enabled: bool,
    locked: bool,
) -> Result<String, sqlx::Error> {
    let (guid, now) = (new_guid(), time::now());
    sqlx::query(
        "INSERT INTO buildpacks (guid, name, stack, position, enabled, locked, created_at, \
         updated_at) VALUES (?, ?, ?, (SELECT count(*) + 1 FROM buildpacks), ?, ?, ?, ?)",
    )
    .bind(&guid)
    .bind(name)
    .bind(stack)
    .bind(enabled)
    .bind(locked)
    .bind(now)
    .bind(now)
    .execute(&mut *conn)
    .await?;
    if let Some(position) = position {
        move_to(conn, &guid, position).await?;
    }
    Ok(guid)
}

pub(crate) async fn update(
    conn: &mut SqliteConnection,
    buildpack: &Buildpack,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "UPDATE buildpacks SET name = ?, stack = ?, enabled = ?, locked = ?, filename = ?, \
         sha256 = ?, updated_at = ? WHERE guid = ?",
    )
    .bind(&buildpack.name)
    .bind(&buildpack.stack)
    .bind(buildpack.enabled)
    .bind(buildpack.locked)
    .bind(&buildpack.filename)
    .bind(&buildpack.sha256)
    .bind(time::now())
    .bind(&buildpack.guid)
    .execute(conn)
    .await?;
    Ok(())
}

/// Moves a buildpack; one beyond the end becomes the last.
pub(crate) async fn move_to(
    conn: &mut SqliteConnection,
    guid: &str,
    position: i64,
) -> Result<(), sqlx::Error> {
    let mut order: Vec<String> =
        all(conn).await?.into_iter().map(|buildpack| buildpack.guid).collect();
    order.retain(|other| other != guid);
    let index = usize::try_from(position.max(1) - 1).unwrap_or(usize::MAX).min(order.len());
    order.insert(index, guid.to_owned());
    number(conn, &order).await
}

/// The others close up.
pub(crate) async fn delete(conn: &mut SqliteConnection, guid: &str) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM buildpacks WHERE guid = ?").bind(guid).execute(&mut *conn).await?;
    let order: Vec<String> = all(conn).await?.into_iter().map(|buildpack| buildpack.guid).collect();
    number(conn, &order).await
}

async fn number(conn: &mut SqliteConnection, order: &[String]) -> Result<(), sqlx::Error> {
    for (position, guid) in (1i64..).zip(order) {
        sqlx::query("UPDATE buildpacks SET position = ? WHERE guid = ?")
            .bind(position)
            .bind(guid)
            .execute(&mut *conn)
            .await?;
    }
    Ok(())
}
