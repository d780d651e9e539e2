//! The platform's state in SQLite: orgs, spaces, apps and all that belongs to them.
//!
//! One connection writes, others read beside it. What is committed is on disk. Functions take a
//! connection, so that a caller puts several into one transaction; a caller that holds the writer
//! never asks for it again.

pub(crate) mod apps;
pub(crate) mod buildpacks;
pub(crate) mod domains;
pub(crate) mod events;
pub(crate) mod jobs;
pub(crate) mod orgs;
pub(crate) mod packages;
pub(crate) mod processes;
pub(crate) mod roles;
pub(crate) mod routes;
pub(crate) mod select;
pub(crate) mod settings;

use std::path::Path;
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{AssertSqlSafe, Sqlite, SqliteConnection, Transaction};

use crate::metadata::Metadata;
use crate::time;

/// Connections that only read.
const READERS: u32 = 3;

/// Why a database cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// It cannot be opened, or seeding it failed.
    #[error("Cloud Controller's database cannot be used")]
    Database(#[from] sqlx::Error),
    /// It is of a newer version, or a migration failed.
    #[error("Cloud Controller's database cannot be brought up to date")]
    Migration(#[from] sqlx::migrate::MigrateError),
    /// The data directory cannot be used.
    #[error("cannot make the data directory {dir}")]
    Directory {
        /// The directory.
        dir: String,
        /// Why.
        source: std::io::Error,
    },
}

/// The database.
#[derive(Clone, Debug)]
pub(crate) struct Store {
    writer: SqlitePool,
    readers: SqlitePool,
}

impl Store {
    pub async fn open(file: &Path) -> Result<Self, OpenError> {
        let options = SqliteConnectOptions::new()
            .filename(file)
            .create_if_missing(true)
            .foreign_keys(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        let pool = |most| SqlitePoolOptions::new().max_connections(most);
        let writer = pool(1).connect_with(options.clone()).await?;
        sqlx::migrate!().run(&writer).await?;
        let readers = pool(READERS).connect_with(options.pragma("query_only", "ON")).await?;
        Ok(Self { writer, readers })
    }

    /// A connection to read with.
    pub async fn read(&self) -> Result<sqlx::pool::PoolConnection<Sqlite>, sqlx::Error> {
        self.readers.acquire().await
    }

    /// Waits for the writer. What is not committed is rolled back when it is dropped.
    pub async fn begin(&self) -> Result<Transaction<'static, Sqlite>, sqlx::Error> {
        self.writer.begin_with("BEGIN IMMEDIATE").await
    }

    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

/// A new guid: a random UUID in its long form, which SSH and router patterns expect.
pub(crate) fn new_guid() -> String {
    uuid::Uuid::new_v4().to_string()
}

/// Replaces labels and annotations of the row `guid` of `table`.
pub(crate) async fn set_metadata(
    conn: &mut SqliteConnection,
    table: &'static str,
    guid: &str,
    metadata: &Metadata,
) -> Result<(), sqlx::Error> {
    let sql =
        format!("UPDATE {table} SET labels = ?, annotations = ?, updated_at = ? WHERE guid = ?");
    sqlx::query(AssertSqlSafe(sql))
        .bind(json_text(&metadata.labels))
        .bind(json_text(&metadata.annotations))
        .bind(time::now())
        .bind(guid)
        .execute(conn)
        .await?;
    Ok(())
}

/// A value as the text of a JSON column.
pub(crate) fn json_text(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "null".into())
}
