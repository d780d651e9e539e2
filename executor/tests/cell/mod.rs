//! A cell without a rep: a Garden, an executor in a runtime on the same host, and what they ran.

#![allow(dead_code, reason = "each test program uses a part of it")]

pub mod files;
pub mod foreign;
mod vouching;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bbs_models::{Action, Check, CheckDefinition, HTTPCheck, RunAction, TCPCheck};
use bloomery_garden::client::{Address, Client};
use executor::{
    Completion, Config, Container, Executor, Instance, Log, LogConfig, Reservation, Resource,
    RunInfo, Sink, State, Transfers,
};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

use crate::plot::{self, Plot};

pub struct Cell {
    executor: Option<(Executor, CancellationToken)>,
    pub runtime: Runtime,
    kept: Arc<Kept>,
    data: tempfile::TempDir,
    settings: Settings,
    garden: Address,
    pub plot: Plot,
}

/// What differs from cell to cell.
pub struct Settings {
    /// Changes of the executor's settings.
    pub adjust: fn(&mut Config),
    /// How long instances' certificates are valid, if they have any.
    pub validity: Option<Duration>,
    /// What Garden runs for archives, if the test has any.
    pub program: Option<&'static str>,
    /// Whether Garden is one that tells nothing of its own.
    pub foreign: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { adjust: |_| {}, validity: None, program: None, foreign: false }
    }
}

#[derive(Default)]
struct Kept(Mutex<Vec<Log>>);

impl Sink for Kept {
    fn log(&self, log: Log) {
        self.0.lock().unwrap().push(log);
    }

    fn count(&self, _: &LogConfig, _: &'static str) {}
}

impl Cell {
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let mut plot = Plot::with(|config| {
            if let Some(program) = settings.program {
                config.own_program = program.into();
            }
        });
        plot.serve();
        // Threads that are made here are on the plot's host, and reach its containers.
        let runtime = plot.host.inside(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
        });
        let (runtime, data) = (runtime.unwrap(), tempfile::tempdir().unwrap());
        let mut garden = plot.socket();
        if settings.foreign {
            garden = data.path().join("foreign.sock");
            foreign::relay(&runtime, &garden, plot.socket());
        }
        let mut cell = Self {
            executor: None,
            runtime,
            kept: Arc::default(),
            data,
            settings,
            garden: Address::Unix(garden),
            plot,
        };
        cell.start();
        cell
    }

    pub fn start(&mut self) {
        let stop = CancellationToken::new();
        let mut config = Config {
            memory_mb: Some(1024),
            disk_mb: Some(1024),
            graceful_shutdown: Duration::from_secs(2),
            ..Config::new("cell-1", self.data.path().join("executor"))
        };
        (self.settings.adjust)(&mut config);
        let authority = self.settings.validity.map(|validity| self.authority(validity));
        let garden = Client::new(self.garden.clone());
        let transfers = Transfers::new(None);
        let kept = self.kept.clone();
        let started = Executor::start(config, garden, transfers, authority, kept, stop.clone());
        let executor = self.runtime.block_on(started).unwrap();
        self.executor = Some((executor, stop));
    }

    /// The executor ends as by a kill: nobody is told, nothing is tidied up.
    pub fn abandon(&mut self) {
        let (executor, stop) = self.executor.take().unwrap();
        stop.cancel();
        drop(executor);
    }

    pub fn executor(&self) -> &Executor {
        &self.executor.as_ref().unwrap().0
    }

    pub fn begin(&self, guid: &str, run: RunInfo) {
        let _runtime = self.runtime.enter();
        let reservation = Reservation {
            guid: guid.into(),
            tags: BTreeMap::from([("lifecycle".into(), "lrp".into())]),
            resource: Resource { memory_mb: 64, disk_mb: 64, max_pids: 0 },
        };
        self.executor().reserve(reservation).unwrap();
        self.executor().run(guid, run).unwrap();
    }

    pub fn stop(&self, guid: &str) {
        self.executor().stop(guid).unwrap();
    }

    pub fn until(&self, guid: &str, what: &str, so: impl Fn(&Container) -> bool) -> Container {
        let mut found = None;
        plot::wait_until(what, || {
            let Ok(container) = self.executor().container(guid) else { return false };
            let is_so = so(&container);
            assert!(
                is_so || container.state != State::Completed,
                "{guid} is to be {what}: {:?}",
                container.completion
            );
            found = Some(container);
            is_so
        });
        found.unwrap()
    }

    pub fn until_completed(&self, guid: &str) -> Completion {
        let is_completed = |container: &Container| container.state == State::Completed;
        self.until(guid, "completed", is_completed).completion.unwrap()
    }

    pub fn delete(&self, guid: &str) {
        self.runtime.block_on(self.executor().delete(guid)).unwrap();
    }

    pub fn logs(&self) -> Vec<Log> {
        self.kept.0.lock().unwrap().clone()
    }

    pub fn clear_logs(&self) {
        self.kept.0.lock().unwrap().clear();
    }

    pub fn lines(&self, source: &str) -> Vec<String> {
        let of_source = self.logs().into_iter().filter(|log| log.source_type == source);
        of_source.map(|log| String::from_utf8_lossy(&log.message).into_owned()).collect()
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        if let Some((_, stop)) = self.executor.take() {
            stop.cancel();
        }
    }
}

pub fn sh(source: &str, script: &str) -> Action {
    let run = RunAction {
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        user: "root".into(),
        log_source: source.into(),
        ..Default::default()
    };
    Action { run_action: run.into(), ..Default::default() }
}

/// An instance with a log, whose image is Garden's default.
pub fn instance(guid: &str, action: Action) -> RunInfo {
    RunInfo {
        action: Some(action),
        cpu_weight: 100,
        log: LogConfig { guid: "app".into(), source_name: "CELL".into(), ..LogConfig::default() },
        log_rate_limit: -1,
        instance: Some(Instance { guid: guid.into(), index: 0 }),
        ..RunInfo::default()
    }
}

pub fn tcp_check(port: u32) -> CheckDefinition {
    checks(vec![tcp(port)])
}

pub fn checks(checks: Vec<Check>) -> CheckDefinition {
    CheckDefinition { checks, log_source: "HEALTH".into(), ..Default::default() }
}

pub fn tcp(port: u32) -> Check {
    let check = TCPCheck { port, interval_ms: INTERVAL, ..Default::default() };
    Check { tcp_check: check.into(), ..Default::default() }
}

pub fn http(port: u32, path: &str) -> Check {
    let (path, interval_ms) = (path.into(), INTERVAL);
    let check = HTTPCheck { port, path, interval_ms, ..Default::default() };
    Check { http_check: check.into(), ..Default::default() }
}

/// Between checks of a healthy app, in milliseconds.
const INTERVAL: u64 = 50;
