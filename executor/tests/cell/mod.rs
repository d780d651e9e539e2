//! A cell without a rep: a Garden, an executor in a runtime on the same host, and what they ran.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bbs_models::{Action, Check, CheckDefinition, RunAction, TCPCheck};
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
    pub plot: Plot,
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
        let mut plot = Plot::new();
        plot.serve();
        // Threads that are made here are on the plot's host, and reach its containers.
        let runtime = plot.host.inside(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
        });
        let mut cell = Self {
            executor: None,
            runtime: runtime.unwrap(),
            kept: Arc::default(),
            data: tempfile::tempdir().unwrap(),
            plot,
        };
        cell.start();
        cell
    }

    pub fn start(&mut self) {
        let stop = CancellationToken::new();
        let config = Config {
            memory_mb: Some(1024),
            disk_mb: Some(1024),
            graceful_shutdown: Duration::from_secs(2),
            ..Config::new("cell-1", self.data.path().join("executor"))
        };
        let garden = Client::new(Address::Unix(self.plot.socket()));
        let transfers = Transfers::new(None);
        let kept = self.kept.clone();
        let started = Executor::start(config, garden, transfers, None, kept, stop.clone());
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
    let check = TCPCheck { port, ..Default::default() };
    CheckDefinition {
        checks: vec![Check { tcp_check: check.into(), ..Default::default() }],
        log_source: "HEALTH".into(),
        ..Default::default()
    }
}
