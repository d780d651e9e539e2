//! A platform of one cell: a Garden, a BBS, a Locket and a rep, on a host of their own.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bbs_models::{
    Action, ActualLRP, ActualLRPsRequest, DesiredLRP, MetricTagValue, RunAction, Task,
    TaskDefinition,
};
use executor::{Log, LogConfig, Sink, Usage};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use rep::{Config, Listeners};
use rep_api::{Lrp, PlacementConstraint, Resource, Work};
use rep_client::RepClient;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use transport::{Address, Client, Listener, Server, Timeouts, TraceId};

use crate::plot::{self, Plot};

pub const CELL: &str = "cell-1";

pub struct Platform {
    rep: Option<(JoinHandle<Result<(), rep::Error>>, CancellationToken)>,
    pub config: Config,
    pub kept: Arc<Kept>,
    /// Paths of the calls that reach the BBS, from whomever.
    pub calls: Arc<Mutex<Vec<String>>>,
    /// The same once they are answered.
    answered: Arc<Mutex<Vec<String>>>,
    stop: CancellationToken,
    pub runtime: Runtime,
    place: tempfile::TempDir,
    pub plot: Plot,
}

#[derive(Default)]
pub struct Kept {
    logs: Mutex<Vec<Log>>,
    usages: Mutex<Vec<Usage>>,
}

impl Sink for Kept {
    fn log(&self, log: Log) {
        self.logs.lock().unwrap().push(log);
    }

    fn count(&self, _: &LogConfig, _: &'static str) {}

    fn usage(&self, usage: Usage) {
        self.usages.lock().unwrap().push(usage);
    }
}

impl Platform {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    pub fn with(adjust: impl FnOnce(&mut Config)) -> Self {
        Self::on(Plot::with(|garden| garden.max_containers = 250), adjust)
    }

    pub fn on(mut plot: Plot, adjust: impl FnOnce(&mut Config)) -> Self {
        plot.serve();
        // Threads that are made here are on the plot's host, and reach its containers.
        let runtime = plot.host.inside(|| {
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()
        });
        let place = tempfile::tempdir().unwrap();
        let unix = |name: &str| format!("unix:{}", place.path().join(name).display());
        let image = plot.config.default_rootfs.clone().unwrap();
        let mut config = Config {
            cell_id: CELL.into(),
            zone: "z1".into(),
            preloaded_root_fs: [("cflinuxfs4".to_owned(), image.display().to_string())].into(),
            listen_addr: unix("admin.sock"),
            listen_addr_securable: unix("rep.sock"),
            bbs_address: unix("bbs.sock"),
            locket_address: unix("locket.sock"),
            garden_addr: plot.socket().display().to_string(),
            cache_path: place.path().join("cell"),
            memory_mb: Some(4096),
            disk_mb: Some(19526),
            polling_interval: Duration::from_secs(1),
            evacuation_polling_interval: Duration::from_millis(300),
            graceful_shutdown_interval: Duration::from_secs(2),
            // What is measured is measured because it is young.
            container_metrics_report_interval: Duration::from_secs(3600),
            ..Config::default()
        };
        adjust(&mut config);
        let mut platform = Self {
            rep: None,
            config,
            kept: Arc::default(),
            calls: Arc::default(),
            answered: Arc::default(),
            stop: CancellationToken::new(),
            runtime: runtime.unwrap(),
            place,
            plot,
        };
        platform.serve_locket();
        platform.serve_bbs();
        platform.start_rep();
        platform
    }

    fn address(&self, name: &str) -> Address {
        Address::Unix(self.path(name))
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// The board, and before it who writes down what it is asked.
    fn serve_bbs(&self) {
        let unix = |name: &str| self.address(name).to_string();
        let config = bbs::Config {
            listen_address: unix("board.sock"),
            database_connection_string: self.path("bbs.db"),
            locket_address: unix("locket.sock"),
            auctioneer_address: unix("auctioneer.sock"),
            converge_repeat_interval: Duration::from_secs(3600),
            ..bbs::Config::default()
        };
        let (stop, calls) = (self.stop.clone(), Arc::clone(&self.calls));
        let answered = Arc::clone(&self.answered);
        self.runtime.block_on(async {
            tokio::spawn(bbs::serve(config, bbs::Listeners::default(), stop.clone()));
            let board = Client::new(self.address("board.sock"), None, Timeouts::default()).unwrap();
            let service = service_fn(move |request: Request<Incoming>| {
                let path = request.uri().path().to_owned();
                calls.lock().unwrap().push(path.clone());
                let (board, answered) = (board.clone(), Arc::clone(&answered));
                async move {
                    let answer = pass_on(board, request).await;
                    answered.lock().unwrap().push(path);
                    answer
                }
            });
            let listener = Listener::bind(&self.address("bbs.sock"), None).await.unwrap();
            tokio::spawn(Server::new(listener).serve(service, stop));
        });
        plot::wait_until("the board serves", || {
            self.runtime.block_on(self.bbs().ping()).is_ok_and(|available| available)
        });
        self.calls.lock().unwrap().clear();
    }

    /// Has somebody hold auctions; without, the test gives the work itself.
    pub fn serve_auctioneer(&self) {
        let config = auctioneer::Config {
            listen_address: self.address("auctioneer.sock").to_string(),
            bbs_address: self.address("board.sock").to_string(),
            locket_address: self.address("locket.sock").to_string(),
            ..auctioneer::Config::default()
        };
        let listeners = auctioneer::Listeners::default();
        self.runtime.spawn(auctioneer::serve(config, listeners, self.stop.clone()));
    }

    fn serve_locket(&self) {
        let stop = self.stop.clone();
        self.runtime.block_on(async {
            let server = locket::Server::open(&self.path("locket.db")).await.unwrap();
            let listener = Listener::bind(&self.address("locket.sock"), None).await.unwrap();
            tokio::spawn(server.serve(listener, stop));
        });
    }

    /// Waits until it answers.
    pub fn start_rep(&mut self) {
        let stop = CancellationToken::new();
        let listeners = Listeners::default();
        let serving = rep::serve(self.config.clone(), listeners, self.kept.clone(), stop.clone());
        self.rep = Some((self.runtime.spawn(serving), stop));
        plot::wait_until("the rep answers", || {
            let (client, serving) = (self.client(), &self.rep.as_ref().unwrap().0);
            assert!(!serving.is_finished());
            self.runtime.block_on(client.state(&TraceId::default())).is_ok()
        });
    }

    /// Waits for the comparison that a rep begins with, before anything else is asked of the board.
    pub fn until_compared(&self) {
        plot::wait_until("the rep has compared", || {
            let answered = self.answered.lock().unwrap();
            ["/v1/actual_lrps/list", "/v1/tasks/list.r3"]
                .iter()
                .all(|list| answered.iter().any(|path| path == list))
        });
    }

    /// The rep ends as by a kill: in the middle of whatever it does.
    pub fn kill_rep(&mut self) {
        let (serving, _stop) = self.rep.take().unwrap();
        serving.abort();
        let ended = self.runtime.block_on(serving);
        assert!(ended.unwrap_err().is_cancelled());
    }

    /// The rep's own end.
    pub fn until_rep_ends(&mut self) {
        let (serving, _stop) = self.rep.take().unwrap();
        let ended = async { tokio::time::timeout(plot::PATIENCE, serving).await };
        self.runtime.block_on(ended).expect("the rep ends").unwrap().unwrap();
    }

    pub fn client(&self) -> RepClient {
        RepClient::new(self.address("rep.sock"), None, Timeouts::default()).unwrap()
    }

    /// A client of HTTP at one of the rep's addresses.
    pub fn http(&self, name: &str) -> Client {
        Client::new(self.address(name), None, Timeouts::default()).unwrap()
    }

    pub fn bbs(&self) -> bbs_client::Client {
        bbs_client::Client::new(self.address("bbs.sock"), None).unwrap()
    }

    pub fn locket(&self) -> locket::Client {
        let _runtime = self.runtime.enter();
        locket::Client::new(&self.address("locket.sock"), None).unwrap()
    }

    pub fn desire(&self, process: &str, action: Action) {
        self.desire_as(process, action, |_| {});
    }

    pub fn desire_as(&self, process: &str, action: Action, adjust: impl FnOnce(&mut DesiredLRP)) {
        let mut lrp = DesiredLRP {
            process_guid: process.into(),
            domain: "cf-apps".into(),
            root_fs: "preloaded:cflinuxfs4".into(),
            instances: 1,
            memory_mb: 64,
            disk_mb: 64,
            ports: vec![8080],
            action: action.into(),
            log_guid: "app".into(),
            log_source: "CELL".into(),
            metric_tags: source("app"),
            ..DesiredLRP::default()
        };
        adjust(&mut lrp);
        self.runtime.block_on(self.bbs().desire_lrp(lrp)).unwrap();
    }

    /// What the auctioneer would do for the first instance of a process.
    pub fn place(&self, process: &str) {
        let lrp = Lrp {
            process_guid: process.into(),
            domain: "cf-apps".into(),
            placement: on_the_stack(),
            resource: Resource { memory_mb: 64, disk_mb: 64, max_pids: 0 },
            ..Lrp::default()
        };
        self.perform(Work { lrps: vec![lrp].into(), ..Work::default() });
    }

    pub fn desire_task(&self, guid: &str, action: Action, result_file: &str) {
        self.desire_task_as(guid, action, |task| task.result_file = result_file.into());
    }

    pub fn desire_task_as(
        &self,
        guid: &str,
        action: Action,
        adjust: impl FnOnce(&mut TaskDefinition),
    ) {
        let mut definition = TaskDefinition {
            root_fs: "preloaded:cflinuxfs4".into(),
            memory_mb: 32,
            disk_mb: 64,
            action: action.into(),
            metric_tags: source("task"),
            ..TaskDefinition::default()
        };
        adjust(&mut definition);
        self.runtime.block_on(self.bbs().desire_task(guid, "cf-tasks", definition)).unwrap();
        let task = rep_api::Task {
            task_guid: guid.into(),
            domain: "cf-tasks".into(),
            placement: on_the_stack(),
            resource: Resource { memory_mb: 32, disk_mb: 64, max_pids: 0 },
            ..rep_api::Task::default()
        };
        self.perform(Work { tasks: vec![task].into(), ..Work::default() });
    }

    fn perform(&self, work: Work) {
        let work = Work { cell_id: self.config.cell_id.clone(), ..work };
        let client = self.client();
        let failed = self.runtime.block_on(client.perform(&TraceId::from("b3f1"), &work)).unwrap();
        assert!(failed.lrps.is_empty() && failed.tasks.is_empty(), "{failed:?}");
    }

    /// All rows of a process, the ordinary one first.
    pub fn rows(&self, process: &str) -> Vec<ActualLRP> {
        let filter = ActualLRPsRequest { process_guid: process.into(), ..Default::default() };
        let mut rows = self.runtime.block_on(self.bbs().actual_lrps(filter)).unwrap();
        rows.sort_by_key(|row| row.presence.to_i32());
        rows
    }

    pub fn until_row(
        &self,
        process: &str,
        what: &str,
        so: impl Fn(&ActualLRP) -> bool,
    ) -> ActualLRP {
        let mut found = None;
        plot::wait_until(what, || {
            found = self.rows(process).into_iter().next().filter(&so);
            found.is_some()
        });
        found.unwrap()
    }

    pub fn until_task(&self, guid: &str, what: &str, so: impl Fn(&Task) -> bool) -> Task {
        let mut found = None;
        plot::wait_until(what, || {
            found = self.runtime.block_on(self.bbs().task(guid)).ok().filter(&so);
            found.is_some()
        });
        found.unwrap()
    }

    pub fn until_empty(&self) {
        plot::wait_until("no containers are left", || {
            self.plot.garden().list(&Default::default()).is_empty()
        });
    }

    pub fn lines(&self, source: &str) -> Vec<String> {
        let logs = self.kept.logs.lock().unwrap();
        let of_source = logs.iter().filter(|log| log.source_type == source);
        of_source.map(|log| String::from_utf8_lossy(&log.message).into_owned()).collect()
    }

    pub fn usages(&self) -> Vec<Usage> {
        self.kept.usages.lock().unwrap().clone()
    }

    /// Calls of the rep at the BBS until now, but for lists and what the test itself asks.
    pub fn calls(&self, process: &[&str]) -> Vec<String> {
        let calls = self.calls.lock().unwrap();
        calls.iter().filter(|path| process.contains(&path.as_str())).cloned().collect()
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Some((serving, stop)) = self.rep.take() {
            stop.cancel();
            let _ = self.runtime.block_on(serving);
        }
        self.stop.cancel();
    }
}

async fn pass_on(
    board: Client,
    request: Request<Incoming>,
) -> Result<Response<transport::Body>, transport::Error> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let answer = board.fetch(Request::from_parts(head, transport::full(body)), 1 << 24).await?;
    let (head, body) = answer.into_parts();
    Ok(Response::from_parts(head, transport::full(body)))
}

fn on_the_stack() -> PlacementConstraint {
    PlacementConstraint { root_fs: "preloaded:cflinuxfs4".into(), ..Default::default() }
}

fn source(guid: &str) -> std::collections::BTreeMap<String, MetricTagValue> {
    let tag = MetricTagValue { r#static: guid.into(), ..MetricTagValue::default() };
    [("source_id".to_owned(), tag)].into()
}

pub fn sh(source: &str, script: &str) -> Action {
    let run = RunAction {
        path: "/bin/sh".into(),
        args: vec!["-c".into(), script.into()],
        user: "root".into(),
        log_source: source.into(),
        ..RunAction::default()
    };
    Action { run_action: run.into(), ..Action::default() }
}
