//! Our board, our auctioneer and Locket together, from their configurations: what is desired gets to
//! the cells.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bbs_client::Client;
use bbs_models::{
    Action, ActualLRP, ActualLRPsRequest, DesiredLRP, MetricTagValue, RunAction, TaskDefinition,
    state,
};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use locket::{Presence, Timing};
use rep_api::{CellState, Resources, RootFsProvider, Work};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use transport::{Address, Listener, Server};

const PATIENCE: Duration = Duration::from_secs(60);

/// A cell that claims what it is given, as a rep does.
#[derive(Clone)]
struct Cell {
    state: Arc<Mutex<CellState>>,
    bbs: Client,
}

impl Cell {
    async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        if request.uri().path() != "/work" {
            let state = serde_json::to_vec(&*self.state.lock().unwrap()).unwrap();
            return Ok(Response::new(Full::new(state.into())));
        }
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let work: Work = serde_json::from_slice(&body).unwrap();
        let id = self.state.lock().unwrap().cell_id.clone();
        assert_eq!(work.cell_id, id);
        for lrp in work.lrps.iter() {
            let instance = bbs_models::ActualLRPInstanceKey::new(
                format!("{}-{}", lrp.process_guid, lrp.index),
                &id,
            );
            self.bbs.claim_actual_lrp(&lrp.process_guid, lrp.index, instance).await.unwrap();
            self.state.lock().unwrap().lrps.push(lrp.clone());
        }
        for task in work.tasks.iter() {
            // It may have it already: convergence asks again for what waits.
            self.bbs.start_task(&task.task_guid, &id).await.unwrap();
        }
        Ok(Response::new(Full::new(serde_json::to_vec(&Work::default()).unwrap().into())))
    }
}

fn action() -> Action {
    let run = RunAction { path: "/app".into(), user: "vcap".into(), ..Default::default() };
    Action { run_action: run.into(), ..Default::default() }
}

fn process(guid: &str, instances: i32, root_fs: &str) -> DesiredLRP {
    let tag = MetricTagValue { r#static: guid.into(), ..Default::default() };
    DesiredLRP {
        process_guid: guid.into(),
        domain: "cf-apps".into(),
        root_fs: root_fs.into(),
        instances,
        action: action().into(),
        metric_tags: [("source_id".to_owned(), tag)].into(),
        ..Default::default()
    }
}

async fn until(bbs: &Client, guid: &str, enough: impl Fn(&[ActualLRP]) -> bool) -> Vec<ActualLRP> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let filter = ActualLRPsRequest { process_guid: guid.into(), ..Default::default() };
        let rows = bbs.actual_lrps(filter).await.unwrap();
        if enough(&rows) {
            return rows;
        }
        assert!(Instant::now() < deadline, "{rows:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_is_desired_gets_to_the_cells() {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| Address::Unix(place.path().join(name));
    let stop = CancellationToken::new();
    let server = locket::Server::open(&place.path().join("locket.sqlite")).await.unwrap();
    let listener = Listener::bind(&at("locket"), None).await.unwrap();
    tokio::spawn(server.serve(listener, stop.clone()));
    let locket = locket::Client::new(&at("locket"), None).unwrap();

    let addresses = serde_json::json!({
        "locket_address": at("locket").to_string(),
        "bbs_address": at("bbs").to_string(),
        "auctioneer_address": at("auctioneer").to_string(),
        "database_connection_string": place.path().join("bbs.sqlite"),
        "converge_repeat_interval": "200ms",
    });
    let config = |listen: &str| {
        let mut config = addresses.clone();
        config["listen_address"] = at(listen).to_string().into();
        config
    };
    let board = tokio::spawn(bbs::serve(
        serde_json::from_value(config("bbs")).unwrap(),
        bbs::Listeners::default(),
        stop.clone(),
    ));
    let auctioneer = tokio::spawn(auctioneer::serve(
        serde_json::from_value(config("auctioneer")).unwrap(),
        auctioneer::Listeners::default(),
        stop.clone(),
    ));
    let bbs = Client::new(at("bbs"), None).unwrap();
    let deadline = Instant::now() + PATIENCE;
    while !matches!(bbs.ping().await, Ok(true)) {
        assert!(Instant::now() < deadline && !board.is_finished() && !auctioneer.is_finished());
    }

    let mut presences = Vec::new();
    for (id, zone) in [("cell-a", "z1"), ("cell-b", "z2")] {
        let resources = Resources { memory_mb: 1024, disk_mb: 1024, containers: 10 };
        let cell = Cell {
            state: Arc::new(Mutex::new(CellState {
                cell_id: id.into(),
                zone: zone.into(),
                root_fs_providers: [("docker".to_owned(), RootFsProvider::Arbitrary)].into(),
                available_resources: resources,
                total_resources: resources,
                ..CellState::default()
            })),
            bbs: bbs.clone(),
        };
        let listener = Listener::bind(&at(id), None).await.unwrap();
        let answering = service_fn(move |request| cell.clone().answer(request));
        tokio::spawn(Server::new(listener).serve(answering, stop.clone()));
        let value = serde_json::json!({ "cell_id": id, "rep_url": at(id).to_string() });
        let timing = Timing::PRESENCE;
        let presence = Presence::keep(locket.clone(), id, "rep", &value.to_string(), timing);
        presence.known().await;
        presences.push(presence);
    }

    // A request that the auctioneer was not there for, convergence would make again after 30 s;
    // tasks at every pass.
    let task = TaskDefinition {
        root_fs: "docker:///x".into(),
        action: action().into(),
        ..Default::default()
    };
    bbs.desire_task("t", "cf-tasks", task).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while bbs.task("t").await.unwrap().state != bbs_models::task::State::Running {
        assert!(Instant::now() < deadline, "the task does not run");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    bbs.desire_lrp(process("web", 4, "docker:///x")).await.unwrap();
    let claimed = |rows: &[ActualLRP]| rows.iter().all(|row| row.state == state::CLAIMED);
    let rows = until(&bbs, "web", |rows| rows.len() == 4 && claimed(rows)).await;
    for cell in ["cell-a", "cell-b"] {
        let on = rows.iter().filter(|row| row.actual_lrp_instance_key.cell_id == cell).count();
        assert_eq!(on, 2, "{cell}");
    }
    bbs.desire_lrp(process("odd", 1, "preloaded:windows")).await.unwrap();
    let failed = |rows: &[ActualLRP]| rows.iter().all(|row| !row.placement_error.is_empty());
    let rows = until(&bbs, "odd", failed).await;
    assert_eq!(rows[0].placement_error, "found no compatible cell for required rootfs");

    // A cell that vanishes is replaced by the other: its instances are suspect until then.
    presences.remove(1).withdraw().await;
    let moved = |rows: &[ActualLRP]| {
        let on = |row: &&ActualLRP| row.actual_lrp_instance_key.cell_id == "cell-a";
        rows.iter().filter(on).count() == 4
    };
    until(&bbs, "web", moved).await;

    stop.cancel();
    tokio::time::timeout(PATIENCE, board).await.unwrap().unwrap().unwrap();
    tokio::time::timeout(PATIENCE, auctioneer).await.unwrap().unwrap().unwrap();
}
