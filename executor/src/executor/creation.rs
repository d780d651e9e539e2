//! From initializing to completed: one task for each container.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bbs_models::CachedDependency;
use bloomery_garden::client::Error as GardenError;
use futures_util::future::try_join_all;
use tokio_util::sync::CancellationToken;

use super::{Event, Executor};
use crate::cache::{Kept, Wanted};
use crate::container::{Completion, Guid, Network, State};
use crate::fetch::Checksum;
use crate::health::{self, Checks, Health, Helpers};
use crate::identity;
use crate::life::{self, Sign};
use crate::logs::Streamer;
use crate::record::{RUNNING, Record};
use crate::run_info::RunInfo;
use crate::spec::{self, Extra, Mount};
use crate::steps::{Failure, Progress, Steps, chain};

/// Where files that are given with an LRP are mounted.
const SERVICE_BINDINGS: &str = "/etc/cf-service-bindings";

/// A container that was found at Garden.
#[derive(Debug)]
pub(super) struct Resumed {
    pub(super) network: Network,
    pub(super) progress: Progress,
    pub(super) was_healthy: bool,
    /// From where it is checked.
    pub(super) checks: health::From,
}

/// A container that cannot be made.
#[derive(Debug)]
struct Unmade(String);

impl Executor {
    /// Lives a container to its end, and completes it.
    pub(super) async fn live(self, guid: Guid, resumed: Option<Resumed>) {
        let Some((run, stop)) = self.begun(&guid) else { return };
        let log = self.0.streamer(&run);
        let is_resumed = resumed.is_some();
        let begun = match resumed {
            Some(resumed) => Ok(resumed),
            None => self.make(&guid, &run, &log, &stop).await,
        };
        let resumed = match begun {
            Ok(resumed) => resumed,
            Err(Unmade(failure_reason)) => {
                let failed = true;
                return self.complete(
                    &guid,
                    if stop.is_cancelled() {
                        let failure_reason = "stopped-before-running".into();
                        Completion { failed, failure_reason, retryable: false }
                    } else {
                        Completion { failed, failure_reason, retryable: true }
                    },
                );
            }
        };
        let address = resumed.network.internal_ip.clone();
        let rotation = self.rotate_identity(&guid, &run, &address, is_resumed);
        let outcome = tokio::select! {
            outcome = self.process(&guid, &run, log, resumed, &stop) => outcome,
            () = rotation => unreachable!("certificates are renewed for ever"),
            // Its processes live on: the next executor follows them.
            () = self.0.stop.cancelled() => return,
        };
        let failure_reason = match outcome {
            Ok(()) => None,
            // Who asked for the end is not told that it failed.
            Err(Failure::Cancelled) => None,
            Err(Failure::Failed(reason)) => Some(reason),
        };
        self.complete(
            &guid,
            Completion {
                failed: failure_reason.is_some(),
                failure_reason: failure_reason.unwrap_or_default(),
                retryable: false,
            },
        );
    }

    fn begun(&self, guid: &str) -> Option<(Arc<RunInfo>, CancellationToken)> {
        let table = self.table();
        let entry = table.get(guid).ok()?;
        Some((Arc::clone(entry.container.run.as_ref()?), entry.stop.clone()))
    }

    /// Makes the container at Garden, with all that is mounted into it.
    async fn make(
        &self,
        guid: &str,
        run: &RunInfo,
        log: &Streamer,
        stop: &CancellationToken,
    ) -> Result<Resumed, Unmade> {
        let making = self.make_uncancelled(guid, run, log);
        tokio::select! {
            made = making => made,
            () = stop.cancelled() => Err(Unmade(String::new())),
        }
    }

    async fn make_uncancelled(
        &self,
        guid: &str,
        run: &RunInfo,
        log: &Streamer,
    ) -> Result<Resumed, Unmade> {
        let (dependencies, mut mounts) = self.dependencies(run, log).await?;
        let mut environment = Vec::new();
        self.directories(guid, run, &mut mounts, &mut environment)?;
        let Ok(container) = self.container(guid) else { return Err(Unmade(String::new())) };
        let record = Record {
            tags: container.tags.clone(),
            resource: container.resource.clone(),
            run: run.clone(),
        };
        let record = serde_json::to_string(&record)
            .map_err(|error| Unmade(format!("failed to create container: {error}")))?;
        let config = &self.0.config;
        let cell = &config.cell_id;
        let extra = Extra { record, mounts, environment, checks: self.0.checks() };
        let spec = spec::container(&container, run, &config.limits, &config.owner, extra)
            .map_err(|error| Unmade(format!("failed to create container: {error}")))?;

        log.platform("", false, &format!("Cell {cell} creating container for instance {guid}"));
        let created = async {
            let _slot = self.0.creations.acquire().await;
            self.0.create(&spec).await
        };
        let info = created.await.map_err(|error: GardenError| {
            let cause = chain(&error);
            let text =
                format!("Cell {cell} failed to create container for instance {guid}: {cause}");
            log.platform("", true, &text);
            Unmade(format!("failed to create container: {cause}"))
        })?;
        let text = format!("Cell {cell} successfully created container for instance {guid}");
        log.platform("", false, &text);

        let network = spec::network(&info, &run.ports);
        self.0
            .issue_identity(guid, run, &network.internal_ip)
            .map_err(|error| Unmade(format!("failed to create container: {}", chain(&error))))?;
        {
            let mut table = self.table();
            let entry = table.get_mut(guid).map_err(|_| Unmade(String::new()))?;
            entry.mounted = dependencies;
        }
        self.advance(guid, State::Created, |container| container.network = Some(network.clone()));
        let (progress, checks) = (Progress::default(), self.0.checks());
        Ok(Resumed { network, progress, was_healthy: false, checks })
    }

    /// Fetches what is mounted into the container, all at once.
    async fn dependencies(
        &self,
        run: &RunInfo,
        log: &Streamer,
    ) -> Result<(Vec<Kept>, Vec<Mount>), Unmade> {
        let fetches: Vec<_> = run
            .cached_dependencies
            .iter()
            .map(|dependency| self.dependency(dependency, log))
            .collect();
        let kept = try_join_all(fetches).await?;
        let mounts = kept
            .iter()
            .zip(&run.cached_dependencies)
            .map(|(kept, dependency)| Mount {
                from: kept.path().to_owned(),
                to: dependency.to.clone(),
            })
            .collect();
        Ok((kept, mounts))
    }

    async fn dependency(
        &self,
        dependency: &CachedDependency,
        log: &Streamer,
    ) -> Result<Kept, Unmade> {
        let say = |text: &str| {
            if !dependency.name.is_empty() {
                log.platform(&dependency.log_source, false, text);
            }
        };
        say(&format!("Downloading {}...", dependency.name));
        let key = [&dependency.cache_key, &dependency.from];
        let wanted = Wanted {
            url: &dependency.from,
            key: key.into_iter().find(|key| !key.is_empty()).map_or("", String::as_str),
            checksum: Checksum::new(&dependency.checksum_algorithm, &dependency.checksum_value),
        };
        let kept = self.0.cache.files(&wanted).await.map_err(|error| {
            tracing::info!(url = dependency.from, error = chain(&error), "download failed");
            say(&format!("Failed to download {}: {}", dependency.name, chain(&error)));
            Unmade("failed to download cached artifacts".into())
        })?;
        say(&format!("Downloaded {}", dependency.name));
        Ok(kept)
    }

    /// The directories of this machine that the container gets.
    fn directories(
        &self,
        guid: &str,
        run: &RunInfo,
        mounts: &mut Vec<Mount>,
        environment: &mut Vec<(String, String)>,
    ) -> Result<(), Unmade> {
        let config = &self.0.config;
        let mut mount = |from: &Path, to: &str| {
            mounts.push(Mount { from: from.to_owned(), to: to.to_owned() });
        };
        if let Some(directory) = &config.trusted_certificates
            && !run.trusted_system_certificates_path.is_empty()
        {
            mount(directory, &run.trusted_system_certificates_path);
            let path = run.trusted_system_certificates_path.clone();
            environment.push(("CF_SYSTEM_CERT_PATH".into(), path));
        }
        if let Some(authority) = &self.0.authority {
            let directory = authority.directory(guid).map_err(|error| {
                tracing::error!(guid, error = chain(&error), "no directory for credentials");
                Unmade("failed to create credentials directory".into())
            })?;
            mount(&directory, identity::INSIDE);
            for (name, file) in
                [("CF_INSTANCE_CERT", "instance.crt"), ("CF_INSTANCE_KEY", "instance.key")]
            {
                environment.push((name.into(), format!("{}/{file}", identity::INSIDE)));
            }
        }
        if !run.volume_mounted_files.is_empty() {
            let directory = self.0.files_directory(guid);
            write_files(&directory, &run.volume_mounted_files).map_err(|error| {
                tracing::error!(guid, error, "the files to be mounted cannot be written");
                Unmade("failed to create volume mounted files".into())
            })?;
            mount(&directory, SERVICE_BINDINGS);
        }
        if let Some(directory) = &self.0.helper {
            mount(directory, health::INSIDE);
        }
        Ok(())
    }

    /// Runs what the container is for.
    async fn process(
        &self,
        guid: &str,
        run: &RunInfo,
        log: Streamer,
        resumed: Resumed,
        stop: &CancellationToken,
    ) -> Result<(), Failure> {
        let config = &self.0.config;
        let steps = Steps {
            garden: self.0.garden.clone(),
            handle: guid.to_owned(),
            network: resumed.network,
            log,
            cache: self.0.cache.clone(),
            transfers: self.0.transfers.clone(),
            uploads: Arc::clone(&self.0.uploads),
            scratch: config.data.join("scratch"),
            grace: config.graceful_shutdown,
            resumed: resumed.progress.is_begun() || resumed.was_healthy,
            progress: resumed.progress.into(),
            recording: tokio::sync::Mutex::default(),
        };
        let health = Health {
            steps: &steps,
            checks: Checks::of(run.check_definition.as_ref(), run.monitor.as_ref()),
            from: resumed.checks,
            helpers: Helpers::default(),
            settings: config.health,
            start_timeout: Duration::from_millis(run.start_timeout_ms),
        };
        let announce = |sign| self.announce(guid, sign);
        life::live(&steps, run, &health, resumed.was_healthy, announce, stop).await
    }

    fn announce(&self, guid: &str, sign: Sign) {
        match sign {
            Sign::Healthy => {
                if self.advance(guid, State::Running, |_| {}) {
                    let (garden, handle) = (self.0.garden.clone(), guid.to_owned());
                    tokio::spawn(async move {
                        // Else it is checked once more after a restart.
                        let _ = garden.set_property(&handle, RUNNING, "true").await;
                    });
                    self.tell(Event::Running(guid.to_owned()));
                }
            }
            Sign::Routable(routable) => {
                let is_running = {
                    let mut table = self.table();
                    let Ok(entry) = table.get_mut(guid) else { return };
                    entry.container.routable = routable;
                    entry.container.state == State::Running
                };
                if is_running {
                    self.tell(Event::Running(guid.to_owned()));
                }
            }
        }
    }

    /// Renews the container's certificate in time. Never returns. `is_old`: how old it is is not known.
    async fn rotate_identity(&self, guid: &str, run: &RunInfo, ip: &str, is_old: bool) {
        const AGAIN: Duration = Duration::from_secs(60);
        let Some(authority) = &self.0.authority else { return std::future::pending().await };
        let mut pause = if is_old { Duration::ZERO } else { authority.rotation() };
        loop {
            tokio::time::sleep(pause).await;
            pause = match self.0.issue_identity(guid, run, ip) {
                Ok(()) => authority.rotation(),
                Err(error) => {
                    let error = chain(&error);
                    tracing::error!(guid, error, "the certificate of an instance is not renewed");
                    AGAIN
                }
            };
        }
    }

    /// Writes a container's record again after it has changed.
    pub(super) async fn rewrite_record(&self, guid: &str) {
        let Ok(container) = self.container(guid) else { return };
        let Some(run) = container.run else { return };
        let record = Record {
            tags: container.tags,
            resource: container.resource,
            run: Arc::unwrap_or_clone(run),
        };
        let Ok(json) = serde_json::to_string(&record) else { return };
        if let Err(error) = self.0.garden.set_property(guid, spec::RECORD, &json).await {
            tracing::warn!(guid, %error, "an update of a container is not recorded at Garden");
        }
    }
}

fn write_files(directory: &Path, files: &[bbs_models::File]) -> Result<(), String> {
    use std::path::Component;
    let _ = std::fs::remove_dir_all(directory);
    for file in files {
        let relative = Path::new(&file.path);
        // Whoever desires an LRP must not write elsewhere on the cell.
        if relative
            .components()
            .any(|part| !matches!(part, Component::Normal(_) | Component::CurDir))
        {
            return Err(format!("{:?} is no path below {SERVICE_BINDINGS}", file.path));
        }
        let path = directory.join(relative);
        let parent = path.parent().unwrap_or(directory);
        std::fs::create_dir_all(parent)
            .and_then(|()| std::fs::write(&path, &file.content))
            .map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(())
}
