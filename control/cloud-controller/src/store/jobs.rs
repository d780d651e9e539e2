//! Work that goes on after its request is answered.

use sqlx::{FromRow, SqliteConnection};

use super::{json_text, new_guid};
use crate::error::Detail;
use crate::time::{self, Micros};

#[derive(Clone, Debug, FromRow)]
pub(crate) struct Job {
    pub guid: String,
    pub operation: String,
    /// What is to be done, as JSON: a job under way at a crash is done again.
    pub work: String,
    pub resource_type: String,
    pub resource_guid: String,
    /// `PROCESSING`, `COMPLETE` or `FAILED`.
    pub state: String,
    pub errors: String,
    pub warnings: String,
    pub created_at: Micros,
    pub updated_at: Micros,
}

pub(crate) async fn insert(
    conn: &mut SqliteConnection,
    operation: &str,
    work: &impl serde::Serialize,
    resource_type: &str,
    resource_guid: &str,
) -> Result<String, sqlx::Error> {
    let (guid, now) = (new_guid(), time::now());
    sqlx::query(
        "INSERT INTO jobs (guid, operation, work, resource_type, resource_guid, state, \
         created_at, updated_at) VALUES (?, ?, ?, ?, ?, 'PROCESSING', ?, ?)",
    )
    .bind(&guid)
    .bind(operation)
    .bind(json_text(work))
    .bind(resource_type)
    .bind(resource_guid)
    .bind(now)
    .bind(now)
    .execute(conn)
    .await?;
    Ok(guid)
}

/// Ends a job: completed without errors, failed with them.
pub(crate) async fn finish(
    conn: &mut SqliteConnection,
    guid: &str,
    errors: &[Detail],
    warnings: &[String],
) -> Result<(), sqlx::Error> {
    let state = if errors.is_empty() { "COMPLETE" } else { "FAILED" };
    let warnings: Vec<_> =
        warnings.iter().map(|warning| serde_json::json!({"detail": warning})).collect();
    sqlx::query(
        "UPDATE jobs SET state = ?, errors = ?, warnings = ?, updated_at = ? WHERE guid = ?",
    )
    .bind(state)
    .bind(json_text(&errors))
    .bind(json_text(&warnings))
    .bind(time::now())
    .bind(guid)
    .execute(conn)
    .await?;
    Ok(())
}

/// Jobs that a crash interrupted, oldest first.
pub(crate) async fn unfinished(conn: &mut SqliteConnection) -> Result<Vec<Job>, sqlx::Error> {
    sqlx::query_as("SELECT * FROM jobs WHERE state = 'PROCESSING' ORDER BY id")
        .fetch_all(conn)
        .await
}

/// Forgets finished jobs that are older.
pub(crate) async fn prune(conn: &mut SqliteConnection, before: Micros) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM jobs WHERE state <> 'PROCESSING' AND created_at < ?")
        .bind(before)
        .execute(conn)
        .await?;
    Ok(())
}
