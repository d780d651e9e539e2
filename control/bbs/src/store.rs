//! The board on disk, and the image of it in memory.
//!
//! A change is made in the image first, under a lock, and put into the writer's queue under the
//! same lock, so that disk and image see changes in one order. The writer commits whatever is
//! queued as one transaction: a sync serves all calls that wait for it. Only then the changes'
//! events are published and their calls answered, so nothing is acknowledged or told that a crash
//! could take back. A call that changes nothing is answered when everything before it is durable,
//! since it may rest on a change of another call.
//!
//! When a transaction fails the image is ahead of the disk. Then every queued call fails, and the
//! image is read anew before the next call is served.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bbs_models::actual_lrp::Presence;
use bbs_models::error::Type;
use bbs_models::{ActualLRP, Error, Event, Message, Task};
use bytes::Bytes;
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteConnection, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Connection, Row, SqlitePool};
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::desired::Desired;
use crate::events::Hubs;
use crate::image::{Image, Write};
use crate::rows::Slot;

/// Calls that one transaction serves.
const AT_ONCE: usize = 1000;

/// Between the first two tries to read the board anew; each pause is twice the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// After the longest pause the database is taken for lost.
const LAST_PAUSE: Duration = Duration::from_secs(10);

/// What a call changes.
#[derive(Debug, Default)]
pub struct Change {
    /// Records, in order.
    pub writes: Vec<Write>,
    /// What subscribers are told once the records are durable.
    pub events: Vec<Event>,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("the board's database: cannot {action}")]
pub struct StoreError {
    action: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

fn cannot<E: Into<Box<dyn std::error::Error + Send + Sync>>>(
    action: &'static str,
) -> impl FnOnce(E) -> StoreError {
    move |source| StoreError { action, source: source.into() }
}

/// The board's records. Clones share them.
#[derive(Clone, Debug)]
pub struct Store {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    /// `None` while it is read anew.
    image: Option<Image>,
    queue: mpsc::UnboundedSender<Queued>,
}

#[derive(Debug)]
struct Queued {
    change: Change,
    done: oneshot::Sender<bool>,
}

/// Makes the changes durable; runs until told to stop, and then until its queue is empty.
#[derive(Debug)]
pub struct Writer {
    pool: SqlitePool,
    state: Arc<Mutex<State>>,
    queue: mpsc::UnboundedReceiver<Queued>,
    hubs: Arc<Hubs>,
}

impl Store {
    /// Opens the database at `path`, made if there is none, and reads the board into memory. The
    /// writer is to be run by the caller; before that no change is answered.
    pub async fn open(path: &Path, hubs: Arc<Hubs>) -> Result<(Self, Writer), StoreError> {
        private::database(path).map_err(cannot("make its file"))?;
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(Duration::from_secs(10));
        // Everything is read from memory, so the writer's connection is the only one.
        let pool = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options)
            .await
            .map_err(cannot("open it"))?;
        sqlx::migrate!().run(&pool).await.map_err(cannot("bring its tables up to date"))?;
        let image = read(&pool).await?;
        let (sender, queue) = mpsc::unbounded_channel();
        let state = Arc::new(Mutex::new(State { image: Some(image), queue: sender }));
        let writer = Writer { pool, state: state.clone(), queue, hubs };
        Ok((Self { state }, writer))
    }

    /// Reads what the board holds. Encode afterwards: everybody waits meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&Image) -> T) -> Result<T, Error> {
        let state = lock(&self.state);
        state.image.as_ref().map(look).ok_or_else(|| Type::UnknownError.into())
    }

    /// Decides on a change by what the board holds, makes it, and returns once it is durable and
    /// its events are published.
    pub async fn change<T>(
        &self,
        decide: impl FnOnce(&Image) -> Result<(Change, T), Error>,
    ) -> Result<T, Error> {
        let (answer, durable) = {
            let mut state = lock(&self.state);
            let image = state.image.as_mut().ok_or(Type::UnknownError)?;
            let (change, answer) = decide(image)?;
            for write in &change.writes {
                image.apply(write.clone());
            }
            let (done, durable) = oneshot::channel();
            // A writer that has ended drops `done`, which is an error below.
            let _ = state.queue.send(Queued { change, done });
            (answer, durable)
        };
        match durable.await {
            Ok(true) => Ok(answer),
            _ => Err(Type::UnknownError.into()),
        }
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Writer {
    /// Commits changes as they come. Ends before it is told to when the database is lost.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut batch = Vec::new();
        loop {
            tokio::select! {
                biased;
                taken = self.queue.recv_many(&mut batch, AT_ONCE) => if taken == 0 { break },
                () = stop.cancelled(), if self.queue.is_empty() => break,
            }
            if self.commit(&mut batch).await.is_err() {
                break;
            }
        }
        self.pool.close().await;
    }

    async fn commit(&mut self, batch: &mut Vec<Queued>) -> Result<(), StoreError> {
        match transact(&self.pool, batch).await {
            Ok(()) => {
                for Queued { change, done } in batch.drain(..) {
                    for event in change.events {
                        self.hubs.publish(event);
                    }
                    // Nobody waits when the client has gone.
                    let _ = done.send(true);
                }
                Ok(())
            }
            Err(error) => {
                tracing::error!(%error, calls = batch.len(), "the board's database refuses a change");
                self.recover(batch).await
            }
        }
    }

    /// Fails everything that rests on what is not durable, and reads the board anew.
    async fn recover(&mut self, batch: &mut Vec<Queued>) -> Result<(), StoreError> {
        lock(&self.state).image = None;
        // No call gets into the queue from here on.
        while let Ok(queued) = self.queue.try_recv() {
            batch.push(queued);
        }
        for queued in batch.drain(..) {
            let _ = queued.done.send(false);
        }
        let mut pause = FIRST_PAUSE;
        loop {
            match read(&self.pool).await {
                Ok(image) => {
                    lock(&self.state).image = Some(image);
                    return Ok(());
                }
                Err(error) => {
                    tracing::error!(error = ?error, "the board cannot be read");
                    if pause > LAST_PAUSE {
                        return Err(error);
                    }
                    tokio::time::sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }
}

async fn transact(pool: &SqlitePool, batch: &[Queued]) -> Result<(), sqlx::Error> {
    if batch.iter().all(|queued| queued.change.writes.is_empty()) {
        return Ok(());
    }
    let mut connection = pool.acquire().await?;
    let mut transaction = connection.begin().await?;
    for queued in batch {
        for write in &queued.change.writes {
            execute(&mut transaction, write).await?;
        }
    }
    transaction.commit().await
}

async fn execute(connection: &mut SqliteConnection, write: &Write) -> Result<(), sqlx::Error> {
    let query = match write {
        Write::Domain(domain, Some(end)) => {
            sqlx::query("INSERT OR REPLACE INTO domains (domain, expire_time) VALUES (?, ?)")
                .bind(domain.to_string())
                .bind(end)
        }
        Write::Domain(domain, None) => {
            sqlx::query("DELETE FROM domains WHERE domain = ?").bind(domain.to_string())
        }
        Write::Desired(guid, Some(lrp)) => {
            sqlx::query("INSERT OR REPLACE INTO desired_lrps (process_guid, record) VALUES (?, ?)")
                .bind(guid.to_string())
                .bind(lrp.encoded().to_vec())
        }
        Write::Desired(guid, None) => {
            sqlx::query("DELETE FROM desired_lrps WHERE process_guid = ?").bind(guid.to_string())
        }
        Write::Actual(slot, presence, Some(row)) => sqlx::query(
            "INSERT OR REPLACE INTO actual_lrps (process_guid, instance_index, presence, record) \
             VALUES (?, ?, ?, ?)",
        )
        .bind(slot.process_guid.to_string())
        .bind(slot.index)
        .bind(*presence as i32)
        .bind(row.encode_to_vec()),
        Write::Actual(slot, presence, None) => sqlx::query(
            "DELETE FROM actual_lrps \
             WHERE process_guid = ? AND instance_index = ? AND presence = ?",
        )
        .bind(slot.process_guid.to_string())
        .bind(slot.index)
        .bind(*presence as i32),
        Write::Task(guid, Some(task)) => {
            sqlx::query("INSERT OR REPLACE INTO tasks (guid, record) VALUES (?, ?)")
                .bind(guid.to_string())
                .bind(task.encode_to_vec())
        }
        Write::Task(guid, None) => {
            sqlx::query("DELETE FROM tasks WHERE guid = ?").bind(guid.to_string())
        }
    };
    query.execute(connection).await.map(drop)
}

async fn read(pool: &SqlitePool) -> Result<Image, StoreError> {
    let mut image = Image::default();
    let all = |sql: &'static str| sqlx::query(sql).fetch_all(pool);
    for row in
        all("SELECT domain, expire_time FROM domains").await.map_err(cannot("read its domains"))?
    {
        let domain: String = row.get(0);
        image.apply(Write::Domain(domain.into(), Some(row.get(1))));
    }
    for row in
        all("SELECT record FROM desired_lrps").await.map_err(cannot("read its desired LRPs"))?
    {
        let record = Bytes::from(row.get::<Vec<u8>, _>(0));
        let lrp = Desired::decode(record).map_err(cannot("understand a desired LRP"))?;
        image.apply(Write::Desired(lrp.process_guid.clone(), Some(lrp.into())));
    }
    for row in
        all("SELECT record FROM actual_lrps").await.map_err(cannot("read its actual LRPs"))?
    {
        let lrp = ActualLRP::decode_from_slice(row.get::<&[u8], _>(0))
            .map_err(cannot("understand an actual LRP"))?;
        let slot = Slot::new(&lrp.actual_lrp_key.process_guid, lrp.actual_lrp_key.index);
        let presence = lrp.presence.as_known().unwrap_or(Presence::ORDINARY);
        image.apply(Write::Actual(slot, presence, Some(lrp.into())));
    }
    for row in all("SELECT record FROM tasks").await.map_err(cannot("read its tasks"))? {
        let task =
            Task::decode_from_slice(row.get::<&[u8], _>(0)).map_err(cannot("understand a task"))?;
        image.apply(Write::Task(task.task_guid.as_str().into(), Some(task.into())));
    }
    Ok(image)
}
