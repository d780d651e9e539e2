//! The resources on disk.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqliteLockingMode, SqlitePool, SqlitePoolOptions,
    SqliteSynchronous,
};
use sqlx::{Row, query};

use crate::error::Error;
use crate::table::{Entry, Kind, Ttl};

/// A database of one connection.
#[derive(Debug)]
pub(crate) struct Store {
    pool: SqlitePool,
}

impl Store {
    /// Opens or makes the database. The file is held by one process at a time, since two servers
    /// over one file would grant the same lock twice.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        private::database(path)
            .map_err(|source| Error::Database { path: path.into(), source: source.into() })?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .locking_mode(SqliteLockingMode::Exclusive)
            .synchronous(SqliteSynchronous::Full)
            // A predecessor that is being killed lets go at once.
            .busy_timeout(Duration::from_secs(5));
        let path = || PathBuf::from(path);
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options)
            .await
            .map_err(|source| Error::Database { path: path(), source })?;
        sqlx::migrate!()
            .run(&pool)
            .await
            .map_err(|source| Error::Migration { path: path(), source })?;
        Ok(Self { pool })
    }

    pub(crate) async fn load(&self) -> sqlx::Result<Vec<(String, Entry)>> {
        let rows = query("SELECT key, owner, value, type_code, ttl_seconds FROM locks")
            .fetch_all(&self.pool)
            .await?;
        let mut entries = Vec::with_capacity(rows.len());
        for row in rows {
            let kind = Kind::from_code(row.try_get("type_code")?);
            let ttl = Ttl::from_seconds(row.try_get("ttl_seconds")?);
            let (Ok(kind), Ok(ttl)) = (kind, ttl) else {
                return Err(sqlx::Error::Decode("a lock of no known type or time".into()));
            };
            let (owner, value) = (row.try_get("owner")?, row.try_get("value")?);
            entries.push((row.try_get("key")?, Entry { owner, value, kind, ttl }));
        }
        Ok(entries)
    }

    pub(crate) async fn put(&self, key: &str, entry: &Entry) -> sqlx::Result<()> {
        query(
            "INSERT OR REPLACE INTO locks (key, owner, value, type_code, ttl_seconds)
             VALUES (?, ?, ?, ?, ?)",
        )
        .bind(key)
        .bind(&entry.owner)
        .bind(&entry.value)
        .bind(i32::from(entry.kind.code()))
        .bind(entry.ttl.seconds())
        .execute(&self.pool)
        .await?;
        Ok(())
    }

    pub(crate) async fn remove(&self, key: &str) -> sqlx::Result<()> {
        query("DELETE FROM locks WHERE key = ?").bind(key).execute(&self.pool).await?;
        Ok(())
    }

    pub(crate) async fn close(&self) {
        self.pool.close().await;
    }
}
