//! The table and the disk together: what a caller is told has been done is on disk.

use std::path::Path;

use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;

use crate::error::Error;
use crate::models::Resource;
use crate::store::Store;
use crate::table::{Entry, Kind, Refusal, Table};

/// All resources of a server.
#[derive(Debug)]
pub(crate) struct Locks {
    store: Store,
    /// Held over writing to disk, so that both tell the same.
    table: Mutex<Table>,
    changed: Notify,
}

/// Why a change was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("the lock cannot be written: {0}")]
    Disk(#[from] sqlx::Error),
}

impl Locks {
    /// What a killed server left gets the whole of its time again.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        let store = Store::open(path).await?;
        let unread = |source| Error::Database { path: path.to_owned(), source };
        let entries = store.load().await.map_err(unread)?;
        let (mut table, now) = (Table::default(), Instant::now());
        for (key, entry) in entries {
            table.put(key, entry, now);
        }
        Ok(Self { store, table: Mutex::new(table), changed: Notify::new() })
    }

    pub(crate) async fn lock(&self, key: String, entry: Entry) -> Result<(), Failure> {
        let mut table = self.table.lock().await;
        let changes = table.lock_changes(&key, &entry)?;
        if changes {
            self.store.put(&key, &entry).await?;
            tracing::info!(key, owner = entry.owner, kind = entry.kind.name(), "locked");
        }
        table.put(key, entry, Instant::now());
        if changes {
            self.changed.notify_one();
        }
        Ok(())
    }

    pub(crate) async fn release(&self, key: &str, owner: &str) -> Result<(), Failure> {
        let mut table = self.table.lock().await;
        if table.release_changes(key, owner)? {
            self.store.remove(key).await?;
            table.remove(key);
            tracing::info!(key, owner, "released");
        }
        Ok(())
    }

    pub(crate) async fn fetch(&self, key: &str) -> Result<Resource, Refusal> {
        self.table.lock().await.fetch(key)
    }

    pub(crate) async fn fetch_all(&self, kind: Kind) -> Vec<Resource> {
        self.table.lock().await.fetch_all(kind)
    }

    /// Lets resources end at their time, for ever.
    pub(crate) async fn expire(&self) -> std::convert::Infallible {
        loop {
            let next = {
                let mut table = self.table.lock().await;
                for (key, entry) in table.expire(Instant::now()) {
                    let kind = entry.kind.name();
                    tracing::info!(key, owner = entry.owner, kind, "ended, as it was not renewed");
                    // A row that stays returns with the next start, for one more time to live.
                    if let Err(error) = self.store.remove(&key).await {
                        tracing::warn!(key, %error, "an ended lock stays on disk");
                    }
                }
                table.next_deadline()
            };
            let due = async {
                match next {
                    Some(next) => tokio::time::sleep_until(next).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = due => {}
                () = self.changed.notified() => {}
            }
        }
    }

    pub(crate) async fn close(&self) {
        self.store.close().await;
    }
}
