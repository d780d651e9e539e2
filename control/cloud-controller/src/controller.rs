//! One Cloud Controller: its parts, how it starts, and how it stops.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uaa::TokenVerifier;

use crate::config::Config;
use crate::logs::AppLog;
use crate::metadata::Metadata;
use crate::runtime::Runtime;
use crate::store::{OpenError, Store, domains, events, jobs, orgs, packages, settings};
use crate::usage::Metrics;
use crate::waiting::Waiting;
use crate::{running, staging, time};

/// In the data directory.
const DATABASE: &str = "cloud_controller.db";

/// What a Cloud Controller needs of the rest of the platform.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Where packages, droplets and buildpacks are kept.
    pub blobs: blobstore::Blobstore,
    /// Accepts tokens for the audience `cloud_controller`.
    pub tokens: TokenVerifier,
    /// Knows the names of users. Its client needs `scim.userids`.
    pub users: Arc<uaa::Client>,
    /// Runs apps and stages them.
    pub runtime: Arc<dyn Runtime>,
    /// Takes log lines for apps.
    pub logs: AppLog,
}

/// A Cloud Controller. A clone is the same one.
#[derive(Clone, Debug)]
pub struct CloudController {
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) blobs: blobstore::Blobstore,
    pub(crate) tokens: Arc<TokenVerifier>,
    pub(crate) users: Arc<uaa::Client>,
    pub(crate) runtime: Arc<dyn Runtime>,
    pub(crate) logs: AppLog,
    pub(crate) metrics: Metrics,
    pub(crate) waiting: Arc<Waiting>,
    /// Work that outlives its request; it is waited for at the end.
    pub(crate) tasks: TaskTracker,
    pub(crate) stop: CancellationToken,
}

impl CloudController {
    /// Opens the database, brings it up to date, adds what the configuration names and takes up
    /// jobs that a crash interrupted.
    pub async fn open(config: Config, around: Surroundings) -> Result<Self, OpenError> {
        let (data, spool) = (config.data_dir.clone(), spool_dir(&config));
        let made = tokio::task::spawn_blocking(move || {
            // Half-received uploads are of no use to anybody.
            match std::fs::remove_dir_all(&spool) {
                Err(err) if err.kind() != std::io::ErrorKind::NotFound => return Err(err),
                _ => {}
            }
            private::directory(&data)?;
            private::database(&data.join(DATABASE))?;
            std::fs::create_dir_all(&spool)
        });
        let made = made.await.unwrap_or_else(|err| Err(std::io::Error::other(err)));
        let dir = || config.data_dir.display().to_string();
        made.map_err(|source| OpenError::Directory { dir: dir(), source })?;
        let store = Store::open(&config.data_dir.join(DATABASE)).await?;
        seed(&store, &config).await?;
        let Surroundings { blobs, tokens, users, runtime, logs } = around;
        let controller = Self {
            config: Arc::new(config),
            store,
            blobs,
            tokens: Arc::new(tokens),
            users,
            runtime,
            logs,
            metrics: Metrics::default(),
            waiting: Arc::default(),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        crate::job::resume(&controller).await?;
        Ok(controller)
    }

    /// The same controller, which knows what instances use.
    pub fn with_metrics(self, metrics: Metrics) -> Self {
        Self { metrics, ..self }
    }

    /// What goes on beside requests, until the controller is closed: keeps the runtime in agreement
    /// with the database, ends builds that nobody ends, and forgets what is old.
    pub async fn run(&self) {
        tokio::join!(
            running::sync_loop(self.clone()),
            staging::sweep_loop(self.clone()),
            prune_loop(self.clone()),
        );
    }

    /// Directory for uploads under way, on the file system of the data.
    pub(crate) fn spool(&self) -> PathBuf {
        spool_dir(&self.config)
    }

    /// An absolute address of this API.
    pub(crate) fn url(&self, path: &str) -> String {
        self.config.url(path)
    }

    /// Ends held answers and waits for work under way, then closes the database. What is cut off
    /// here is taken up at the next start.
    pub async fn close(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.store.close().await;
    }
}

/// Events are kept for 31 days, jobs for 90.
async fn prune_loop(controller: CloudController) {
    const HOUR: Duration = Duration::from_secs(3600);
    const DAY: i64 = 24 * 3600 * 1_000_000;
    loop {
        let pruned = async {
            let mut tx = controller.store.begin().await?;
            events::prune(&mut tx, time::now() - 31 * DAY).await?;
            jobs::prune(&mut tx, time::now() - 90 * DAY).await?;
            tx.commit().await
        };
        if let Err(err) = pruned.await {
            tracing::warn!(error = %err, "cannot forget old events and jobs");
        }
        tokio::select! {
            () = tokio::time::sleep(HOUR) => {}
            () = controller.stop.cancelled() => return,
        }
    }
}

fn spool_dir(config: &Config) -> PathBuf {
    config.data_dir.join("spool")
}

async fn seed(store: &Store, config: &Config) -> Result<(), sqlx::Error> {
    let mut tx = store.begin().await?;
    let default_quota = json!({
        "apps": {
            "total_memory_in_mb": 102_400,
            "per_process_memory_in_mb": null,
            "total_instances": null,
            "per_app_tasks": null,
            "log_rate_limit_in_bytes_per_second": null,
        },
        "services": {
            "paid_services_allowed": true,
            "total_service_instances": null,
            "total_service_keys": null,
        },
        "routes": {"total_routes": 1000, "total_reserved_ports": 100},
        "domains": {"total_domains": null},
    });
    orgs::seed_quota(&mut tx, "default", &default_quota).await?;
    for (index, stack) in config.stacks.iter().enumerate() {
        settings::seed_stack(&mut tx, stack, index == 0).await?;
    }
    let shared = config.app_domains.iter().map(|name| (name, false));
    let internal = config.internal_domains.iter().map(|name| (name, true));
    for (name, internal) in shared.chain(internal) {
        match domains::insert(&mut tx, name, internal, None, &Metadata::default()).await {
            Err(err) if !crate::error::is_taken(&err) => return Err(err),
            _ => {}
        }
    }
    let public = json!([
        {"protocol": "all", "destination": "0.0.0.0-9.255.255.255"},
        {"protocol": "all", "destination": "11.0.0.0-169.253.255.255"},
        {"protocol": "all", "destination": "169.255.0.0-172.15.255.255"},
        {"protocol": "all", "destination": "172.32.0.0-192.167.255.255"},
        {"protocol": "all", "destination": "192.169.0.0-255.255.255.255"},
    ]);
    let dns = json!([
        {"protocol": "tcp", "destination": "0.0.0.0/0", "ports": "53"},
        {"protocol": "udp", "destination": "0.0.0.0/0", "ports": "53"},
    ]);
    settings::seed_security_group(&mut tx, "public_networks", &public).await?;
    settings::seed_security_group(&mut tx, "dns", &dns).await?;
    packages::fail_interrupted_uploads(&mut tx).await?;
    tx.commit().await
}
