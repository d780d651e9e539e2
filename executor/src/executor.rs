//! The executor: containers from their reservation to their destruction.
//!
//! ```text
//! reserve ─> reserved ─run─> initializing: files fetched, directories made
//!                                 └─> created: Garden has it ─> running ─> completed ─delete─> gone
//! ```
//!
//! A container's record lies at Garden, as a property. So killing an executor does nothing to
//! containers: the next one [finds](Executor::start) them, follows their processes, and tells its
//! owner of them as if nothing had been.

mod adoption;
mod creation;
mod table;
mod upkeep;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bloomery_garden::client::{Client, Error as GardenError};
use garden_api::{BulkEntry, ContainerInfo, ContainerSpec, Metrics};
use tokio::sync::{Semaphore, broadcast, watch};
use tokio_util::sync::CancellationToken;

use crate::absence::{self, Absence};
use crate::cache::Cache;
use crate::capacity::{Capacity, Insufficient, Resources};
use crate::container::{Completion, Container, Guid, Resource, State};
use crate::fetch::{self, Transfers};
use crate::health::{self, Helper};
use crate::identity::{self, Authority};
use crate::logs::{Sink, Streamer};
use crate::run_info::RunInfo;
use crate::spec::CellLimits;
use crate::steps::{Untaken, go_duration, take_file};

use table::Table;

const MIB: u64 = 1 << 20;

/// In the data directory: what is mounted into single containers, such as services' passwords.
const FILES: &str = "files";

/// Events that a slow owner may be behind; beyond that it is told that it has missed some, and must
/// list.
const EVENTS: usize = 1024;

/// A cell's settings.
#[derive(Clone, Debug)]
pub struct Config {
    /// The cell's name, for what users read.
    pub cell_id: String,
    /// The value of the property by which containers at Garden are known as ours.
    pub owner: String,
    /// For downloads, credentials and files on their way.
    pub data: PathBuf,
    /// MiB to hand out; none: what Garden has.
    pub memory_mb: Option<i64>,
    /// MiB to hand out; none: what Garden has, less the downloads' share.
    pub disk_mb: Option<i64>,
    /// Limits that are the same for all containers.
    pub limits: CellLimits,
    /// How apps are checked.
    pub health: health::Settings,
    /// Between TERM and KILL.
    pub graceful_shutdown: Duration,
    /// Bytes of downloads that are kept.
    pub cache_bytes: u64,
    /// Downloads at a time, and uploads.
    pub transfers: usize,
    /// Containers that are made at a time, and that are destroyed.
    pub creations: usize,
    /// How long a reserved container waits for what it is to run.
    pub reservation: Duration,
    /// Between comparisons with Garden.
    pub reaping: Duration,
    /// Between checks that Garden can run something.
    pub garden_check: Duration,
    /// The image for that check; none: Garden is only asked whether it is there.
    pub garden_check_rootfs: Option<String>,
    /// The program for checks from inside; none: they are made from the cell, whatever Garden is.
    pub helper: Option<Helper>,
    /// A directory of certificates for containers that ask for it.
    pub trusted_certificates: Option<PathBuf>,
}

impl Config {
    /// The original's defaults (diego.md 16) for a cell with this name and data directory.
    pub fn new(cell_id: &str, data: PathBuf) -> Self {
        Self {
            cell_id: cell_id.to_owned(),
            owner: "executor".into(),
            data,
            memory_mb: None,
            disk_mb: None,
            limits: CellLimits::default(),
            health: health::Settings::default(),
            graceful_shutdown: Duration::from_secs(10),
            cache_bytes: 10_000_000_000,
            transfers: 5,
            creations: 32,
            reservation: Duration::from_secs(60),
            reaping: Duration::from_secs(60),
            garden_check: Duration::from_secs(600),
            garden_check_rootfs: None,
            helper: None,
            trusted_certificates: None,
        }
    }
}

/// Something that an owner asked for and cannot have.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no such container.
    #[error("container {0} does not exist")]
    NotFound(Guid),
    /// A container of this guid is there already.
    #[error("container {0} exists already")]
    Exists(Guid),
    /// The cell has not enough left.
    #[error(transparent)]
    Insufficient(#[from] Insufficient),
    /// It is not in a state in which this can be done.
    #[error("container {guid} is {state:?}")]
    State {
        /// Whose.
        guid: Guid,
        /// What it is in.
        state: State,
    },
    /// The cell's own files.
    #[error(transparent)]
    Files(#[from] fetch::Error),
    /// Garden.
    #[error("{attempt} at Garden")]
    Garden {
        /// What was attempted.
        attempt: String,
        /// What Garden said.
        source: GardenError,
    },
}

impl Error {
    fn garden(attempt: impl Into<String>) -> impl FnOnce(GardenError) -> Self {
        let attempt = attempt.into();
        move |source| Self::Garden { attempt, source }
    }
}

/// What an owner is told, as it happens. The container itself is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// It has been reserved.
    Reserved(Guid),
    /// It has become healthy, or it has changed whether it wants requests.
    Running(Guid),
    /// It is completed.
    Complete(Guid),
}

/// A container to be reserved.
#[derive(Clone, Debug, Default)]
pub struct Reservation {
    /// Its guid.
    pub guid: Guid,
    /// What its owner writes on it.
    pub tags: BTreeMap<String, String>,
    /// What it takes.
    pub resource: Resource,
}

/// The executor. Clones are the same one.
#[derive(Clone)]
pub struct Executor(Arc<Inner>);

impl std::fmt::Debug for Executor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Executor").field("cell", &self.0.config.cell_id).finish_non_exhaustive()
    }
}

struct Inner {
    config: Config,
    garden: Client,
    sink: Arc<dyn Sink>,
    cache: Cache,
    transfers: Transfers,
    authority: Option<Authority>,
    /// What is mounted for checks from inside, if new containers are checked so.
    helper: Option<PathBuf>,
    uploads: Arc<Semaphore>,
    creations: Semaphore,
    deletions: Semaphore,
    table: Mutex<Table>,
    events: broadcast::Sender<Event>,
    garden_health: watch::Sender<Result<(), String>>,
    /// Ends the executor's tasks, and no container.
    stop: CancellationToken,
}

impl Executor {
    /// Waits for Garden, takes up the containers that are there, and begins. When `stop` is
    /// cancelled the executor lets go of everything and leaves all containers as they are.
    pub async fn start(
        config: Config,
        garden: Client,
        transfers: Transfers,
        authority: Option<Authority>,
        sink: Arc<dyn Sink>,
        stop: CancellationToken,
    ) -> Result<Self, Error> {
        let cache = Cache::open(
            config.data.join("downloads"),
            config.cache_bytes,
            config.transfers,
            transfers.clone(),
        )?;
        let scratch = config.data.join("scratch");
        // What is on its way is of no use to a later executor.
        let _ = std::fs::remove_dir_all(&scratch);
        for closed in [scratch, config.data.join(FILES)] {
            private::directory(&closed)
                .map_err(fetch::Error::file("making the directory", &closed))?;
        }
        await_garden(&garden, &stop).await?;
        let total = total(&config, &garden).await?;
        let helper = helper(&config, &garden).await?;
        let inner = Inner {
            uploads: Arc::new(Semaphore::new(config.transfers)),
            creations: Semaphore::new(config.creations),
            deletions: Semaphore::new(config.creations),
            table: Mutex::new(Table::new(Capacity::new(total))),
            events: broadcast::Sender::new(EVENTS),
            garden_health: watch::Sender::new(Ok(())),
            config,
            garden,
            sink,
            cache,
            transfers,
            authority,
            helper,
            stop,
        };
        let executor = Self(Arc::new(inner));
        executor.adopt().await?;
        executor.begin_upkeep();
        Ok(executor)
    }

    /// All that the cell has to hand out.
    pub fn total(&self) -> Resources {
        self.table().capacity.total()
    }

    /// What is left of it.
    pub fn remaining(&self) -> Resources {
        self.table().capacity.remaining()
    }

    /// Every container.
    pub fn containers(&self) -> Vec<Container> {
        self.table().entries.values().map(|entry| entry.container.clone()).collect()
    }

    /// One container.
    pub fn container(&self, guid: &str) -> Result<Container, Error> {
        Ok(self.table().get(guid)?.container.clone())
    }

    /// Tells what happens from now on.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.0.events.subscribe()
    }

    /// Whether Garden has passed its last check; else why not.
    pub fn garden_health(&self) -> watch::Receiver<Result<(), String>> {
        self.0.garden_health.subscribe()
    }

    /// Takes what the container needs.
    pub fn reserve(&self, reservation: Reservation) -> Result<(), Error> {
        let Reservation { guid, tags, resource } = reservation;
        {
            let mut table = self.table();
            if table.entries.contains_key(&guid) {
                return Err(Error::Exists(guid));
            }
            table.capacity.reserve(&guid, &resource)?;
            table.insert(Container::reserved(guid.clone(), tags, resource));
        }
        self.tell(Event::Reserved(guid));
        Ok(())
    }

    /// Lets a reserved container begin. Its further life is told by events.
    pub fn run(&self, guid: &str, run: RunInfo) -> Result<(), Error> {
        {
            let mut table = self.table();
            let entry = table.get_mut(guid)?;
            if entry.container.state != State::Reserved {
                let state = entry.container.state;
                return Err(Error::State { guid: guid.to_owned(), state });
            }
            entry.container.run = Some(Arc::new(run));
            entry.container.state = State::Initializing;
        }
        let (executor, guid) = (self.clone(), guid.to_owned());
        tokio::spawn(async move { executor.live(guid, None).await });
        Ok(())
    }

    /// Asks a container's processes to end. Returns at once.
    pub fn stop(&self, guid: &str) -> Result<(), Error> {
        let unbegun = {
            let mut table = self.table();
            let entry = table.get_mut(guid)?;
            entry.container.stopped = true;
            entry.stop.cancel();
            entry.container.state == State::Reserved
        };
        if unbegun {
            self.complete(
                guid,
                Completion {
                    failed: true,
                    failure_reason: "stopped-before-running".into(),
                    retryable: false,
                },
            );
        }
        Ok(())
    }

    /// Destroys a container, whatever it does. What it took is free again when this has succeeded; it
    /// may be called again when it has not.
    pub async fn delete(&self, guid: &str) -> Result<(), Error> {
        let log = {
            let mut table = self.table();
            let entry = table.get_mut(guid)?;
            entry.container.stopped = true;
            entry.stop.cancel();
            entry.log(&self.0)
        };
        let cell = &self.0.config.cell_id;
        let say = |text: String| log.as_ref().map(|log| log.platform("", false, &text));
        say(format!("Cell {cell} destroying container for instance {guid}"));
        let slot = self.0.deletions.acquire().await;
        self.0.destroy(guid).await.map_err(Error::garden(format!("destroying {guid}")))?;
        drop(slot);
        say(format!("Cell {cell} successfully destroyed container for instance {guid}"));
        self.forget(guid);
        Ok(())
    }

    /// Gives a container other names in the platform, and other tags.
    pub fn update(
        &self,
        guid: &str,
        internal_routes: Option<Vec<String>>,
        metric_tags: Option<BTreeMap<String, String>>,
    ) -> Result<(), Error> {
        let mut table = self.table();
        let entry = table.get_mut(guid)?;
        let Some(run) = &mut entry.container.run else {
            let state = entry.container.state;
            return Err(Error::State { guid: guid.to_owned(), state });
        };
        let run = Arc::make_mut(run);
        if let Some(routes) = internal_routes {
            run.internal_routes = routes;
        }
        if let Some(tags) = metric_tags {
            run.metric_tags = tags;
        }
        drop(table);
        let (executor, guid) = (self.clone(), guid.to_owned());
        tokio::spawn(async move { executor.rewrite_record(&guid).await });
        Ok(())
    }

    /// A file of a container, of at most `limit` bytes; more is an error.
    pub async fn file(&self, guid: &str, path: &str, limit: usize) -> Result<Vec<u8>, Error> {
        let scratch = tempfile::NamedTempFile::new_in(self.0.config.data.join("scratch"))
            .map_err(fetch::Error::file("making a file in", &self.0.config.data))?;
        match take_file(&self.0.garden, guid, "root", path, scratch.path()).await {
            Ok(_) => {}
            Err(Untaken::Garden(error)) => {
                return Err(Error::garden(format!("reading {path} of {guid}"))(error));
            }
            Err(Untaken::Archive { source, .. }) => {
                return Err(
                    fetch::Error::file("reading", std::path::Path::new(path))(source).into()
                );
            }
        }
        let bytes =
            std::fs::read(scratch.path()).map_err(fetch::Error::file("reading", scratch.path()))?;
        if bytes.len() > limit {
            let source = std::io::Error::other(format!("it has more than {limit} bytes"));
            return Err(fetch::Error::file("reading", std::path::Path::new(path))(source).into());
        }
        Ok(bytes)
    }

    /// What Garden measures of the containers that run.
    pub async fn metrics(&self) -> Result<BTreeMap<Guid, Metrics>, Error> {
        let guids: Vec<Guid> = {
            let table = self.table();
            let running = |state| matches!(state, State::Created | State::Running);
            let entries = table.entries.iter();
            entries
                .filter(|(_, entry)| running(entry.container.state))
                .map(|(guid, _)| guid.clone())
                .collect()
        };
        if guids.is_empty() {
            return Ok(BTreeMap::new());
        }
        let measured =
            self.0.garden.bulk_metrics(&guids).await.map_err(Error::garden("measuring"))?;
        Ok(measured
            .0
            .into_iter()
            .filter_map(|(guid, entry)| match entry {
                BulkEntry::Value(metrics) => Some((guid, metrics)),
                BulkEntry::Failed(_) => None,
            })
            .collect())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.table.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, event: Event) {
        // Nobody may be listening.
        let _ = self.0.events.send(event);
    }

    /// Moves a container on, unless it has ended meanwhile. Tells whether it did.
    fn advance(&self, guid: &str, next: State, change: impl FnOnce(&mut Container)) -> bool {
        let mut table = self.table();
        let Ok(entry) = table.get_mut(guid) else { return false };
        if !entry.container.state.may_become(next) {
            return false;
        }
        entry.container.state = next;
        change(&mut entry.container);
        true
    }

    fn complete(&self, guid: &str, completion: Completion) {
        let completion =
            Completion { failure_reason: shortened(completion.failure_reason), ..completion };
        if self.advance(guid, State::Completed, |container| container.completion = Some(completion))
        {
            self.tell(Event::Complete(guid.to_owned()));
        }
    }

    /// The last of a container that Garden has destroyed.
    fn forget(&self, guid: &str) {
        let entry = {
            let mut table = self.table();
            table.capacity.release(guid);
            table.entries.remove(guid)
        };
        if entry.is_some() {
            if let Some(authority) = &self.0.authority {
                authority.forget(guid);
            }
            let _ = std::fs::remove_dir_all(self.0.files_directory(guid));
        }
    }
}

impl Inner {
    /// Has Garden destroy a container; one that it does not know, or destroys already, is no error.
    async fn destroy(&self, guid: &str) -> Result<(), GardenError> {
        let absence = Absence::new(guid, absence::OF_CALLS);
        match absence.answer(|| self.garden.destroy(guid)).await {
            Err(GardenError::ContainerNotFound(_)) => Ok(()),
            Err(error) if error.to_string().contains("already being destroyed") => Ok(()),
            destroyed => destroyed,
        }
    }

    /// Has Garden make a container. Whether an interrupted call has done so is not known: what may be
    /// there of it is destroyed first.
    async fn create(&self, spec: &ContainerSpec) -> Result<ContainerInfo, GardenError> {
        let guid = spec.handle.as_str();
        let mut absence = Absence::new(guid, absence::OF_CALLS);
        loop {
            let made = async {
                self.garden.create(spec).await?;
                self.garden.info(guid).await
            };
            match made.await {
                Err(error) => absence.bear(error).await?,
                made => return made,
            }
            self.destroy(guid).await?;
        }
    }

    /// From where new containers are checked.
    fn checks(&self) -> health::From {
        if self.helper.is_some() { health::From::Container } else { health::From::Cell }
    }

    /// For files that are mounted into one container.
    fn files_directory(&self, guid: &str) -> PathBuf {
        self.config.data.join(FILES).join(guid)
    }

    fn streamer(&self, run: &RunInfo) -> Streamer {
        Streamer::new(run.log.clone(), run.log_rate_limit, Arc::clone(&self.sink))
    }

    fn issue_identity(&self, guid: &str, run: &RunInfo, ip: &str) -> Result<(), identity::Error> {
        let Some(authority) = &self.authority else { return Ok(()) };
        authority.issue(&identity::Subject {
            guid: guid.to_owned(),
            address: ip.parse::<IpAddr>().ok(),
            organizational_units: run.organizational_units.clone(),
        })
    }
}

/// Failure reasons are stored and shown: 10,000 characters, the middle cut (diego.md 10.3).
fn shortened(reason: String) -> String {
    const MOST: usize = 10_000;
    const MARK: &str = "…";
    let characters = reason.chars().count();
    if characters <= MOST {
        return reason;
    }
    let half = (MOST - 1) / 2;
    let start: String = reason.chars().take(half).collect();
    let end: String = reason.chars().skip(characters - half).collect();
    start + MARK + &end
}

/// Garden may start after the cell does.
async fn await_garden(garden: &Client, stop: &CancellationToken) -> Result<(), Error> {
    const ASKED: Duration = Duration::from_millis(200);
    let begun = tokio::time::Instant::now();
    let mut told = Duration::ZERO;
    while let Err(error) = garden.ping().await {
        if begun.elapsed() >= told {
            told += Duration::from_secs(10);
            let waited = go_duration(Duration::from_secs(begun.elapsed().as_secs()));
            tracing::warn!(garden = %garden.address(), waited, %error, "waiting for Garden");
        }
        tokio::select! {
            () = tokio::time::sleep(ASKED) => {}
            () = stop.cancelled() => return Err(Error::garden("waiting for it")(error)),
        }
    }
    Ok(())
}

/// What the cell hands out: as it is told, or as much as Garden has. One container is kept for the
/// check of Garden itself.
async fn total(config: &Config, garden: &Client) -> Result<Resources, Error> {
    let capacity = garden.capacity().await.map_err(Error::garden("asking for the capacity"))?;
    let mib = |bytes: u64| i64::try_from(bytes / MIB).unwrap_or(i64::MAX);
    let disk = capacity.disk_in_bytes.saturating_sub(config.cache_bytes);
    Ok(Resources {
        memory_mb: config.memory_mb.unwrap_or_else(|| mib(capacity.memory_in_bytes)),
        disk_mb: config.disk_mb.unwrap_or_else(|| mib(disk)),
        containers: i64::try_from(capacity.max_containers).unwrap_or(i64::MAX) - 1,
    })
}

/// The directory with the helper, if containers are to be checked from inside.
async fn helper(config: &Config, garden: &Client) -> Result<Option<PathBuf>, Error> {
    let from = match config.health.from {
        Some(from) => from,
        None if garden.is_own().await.map_err(Error::garden("asking for its name"))? => {
            health::From::Cell
        }
        None => health::From::Container,
    };
    match (from, &config.helper) {
        (health::From::Cell, _) => Ok(None),
        (health::From::Container, Some(helper)) => {
            Ok(Some(helper.put(config.data.join("healthcheck"))?))
        }
        (health::From::Container, None) => {
            tracing::warn!(
                "there is no program for checks from inside: they are made from the cell"
            );
            Ok(None)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::shortened;

    #[test]
    fn long_reasons_keep_their_ends() {
        assert_eq!(shortened("short".into()), "short");
        let long = format!("begin{}end", "é".repeat(20_000));
        let cut = shortened(long);
        assert_eq!(cut.chars().count(), 9_999);
        assert!(cut.starts_with("begin") && cut.ends_with("end"));
    }
}
