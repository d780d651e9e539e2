//! A board from its configuration: lock, cells, restart, stop.

use std::path::Path;
use std::time::Duration;

use bbs::{Config, Listeners, ServeError};
use bbs_client::Client;
use bbs_models::{
    Action, ActualLRPsRequest, DesiredLRP, Event, MetricTagValue, ProtoRoutes, RunAction,
};
use locket::models::TypeCode;
use locket::{Lock, Presence, Timing};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use transport::{Address, Listener};

const PATIENCE: Duration = Duration::from_secs(60);

struct Locket {
    address: Address,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn locket(place: &Path) -> Locket {
    let address = Address::Unix(place.join("locket.sock"));
    let server = locket::Server::open(&place.join("locket.sqlite")).await.unwrap();
    let listener = Listener::bind(&address, None).await.unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(listener, stop.clone()));
    Locket { address, stop, task }
}

impl Locket {
    fn client(&self) -> locket::Client {
        locket::Client::new(&self.address, None).unwrap()
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

fn config(place: &Path, name: &str, locket: &Locket) -> Config {
    let json = serde_json::json!({
        "listen_address": format!("unix:{}/{name}.sock", place.display()),
        "database_driver": "sqlite3",
        "database_connection_string": place.join("bbs.sqlite"),
        "locket_address": locket.address.to_string(),
        "auctioneer_address": format!("unix:{}/auctioneer.sock", place.display()),
        "lock_retry_interval": "1s",
        "lock_ttl": "5s",
        "converge_repeat_interval": "500ms",
        "encryption_keys": { "a key that is not read here": "" },
    });
    serde_json::from_value(json).unwrap()
}

struct Board {
    client: Client,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

fn start(config: Config) -> Board {
    let client = Client::new(config.listen_address.parse().unwrap(), None).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(bbs::serve(config, Listeners::default(), stop.clone()));
    Board { client, stop, task }
}

impl Board {
    async fn serves(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !matches!(self.client.ping().await, Ok(true)) {
            assert!(Instant::now() < deadline && !self.task.is_finished(), "it does not serve");
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
    }
}

fn process(guid: &str, instances: i32) -> DesiredLRP {
    let run = RunAction { path: "/app".into(), user: "vcap".into(), ..Default::default() };
    let tag = MetricTagValue { r#static: guid.into(), ..Default::default() };
    DesiredLRP {
        process_guid: guid.into(),
        domain: "cf-apps".into(),
        root_fs: "preloaded:cflinuxfs4".into(),
        instances,
        action: Action { run_action: run.into(), ..Default::default() }.into(),
        metric_tags: [("source_id".to_owned(), tag)].into(),
        routes: ProtoRoutes::default().into(),
        ..Default::default()
    }
}

#[tokio::test]
async fn what_is_desired_survives_the_board() {
    let place = tempfile::tempdir().unwrap();
    let locket = locket(place.path()).await;
    let board = start(config(place.path(), "bbs", &locket));
    board.serves().await;
    let mut events = board.client.instance_events("").await.unwrap();
    board.client.desire_lrp(process("p", 2)).await.unwrap();
    let Some(Event::DesiredLRPCreated(event)) = events.next().await.unwrap() else {
        panic!("another event");
    };
    assert_eq!(event.desired_lrp.process_guid, "p");
    board.stop().await;

    let board = start(config(place.path(), "bbs", &locket));
    board.serves().await;
    assert_eq!(board.client.desired_lrp("p").await.unwrap().instances, 2);
    let rows = board.client.actual_lrps(ActualLRPsRequest::default()).await.unwrap();
    assert_eq!(rows.len(), 2);
    board.stop().await;
    locket.stop().await;
}

#[tokio::test]
async fn one_board_at_a_time_serves() {
    let place = tempfile::tempdir().unwrap();
    let locket = locket(place.path()).await;
    let first = start(config(place.path(), "first", &locket));
    first.serves().await;
    let second = start(config(place.path(), "second", &locket));
    let waiting = second.client.answering_within(Some(Duration::from_millis(100)));
    assert!(waiting.ping().await.is_err() && !second.task.is_finished());
    // One that is told to stop while it waits does.
    let third = start(config(place.path(), "third", &locket));
    third.stop().await;

    first.stop().await;
    second.serves().await;
    second.stop().await;
    locket.stop().await;
}

#[tokio::test]
async fn a_board_that_loses_its_lock_ends() {
    let place = tempfile::tempdir().unwrap();
    let locket = locket(place.path()).await;
    let mut config = config(place.path(), "bbs", &locket);
    config.uuid = "a-board".into();
    let board = start(config);
    board.serves().await;
    // Its owner's name is used to let go, and another owner takes the lock.
    let client = locket.client();
    let held = client.fetch("bbs", None).await.unwrap();
    assert_eq!((held.owner.as_str(), held.type_code), ("a-board", TypeCode::Lock.into()));
    client.release(held, None).await.unwrap();
    let _other = Lock::new(client, "bbs", "another", Timing::LOCK).acquire().await;
    let ended = tokio::time::timeout(PATIENCE, board.task).await.unwrap().unwrap();
    assert!(matches!(ended, Err(ServeError::Lost(_))), "{ended:?}");
    locket.stop().await;
}

#[tokio::test]
async fn cells_are_the_presences() {
    let place = tempfile::tempdir().unwrap();
    let locket = locket(place.path()).await;
    let board = start(config(place.path(), "bbs", &locket));
    board.serves().await;
    assert!(board.client.cells().await.unwrap().is_empty());
    let value = r#"{"cell_id":"cell-1","rep_address":"http://10.0.0.1:1800","zone":"z1",
        "capacity":{"memory_mb":4096,"disk_mb":1,"containers":249},
        "rootfs_provider_list":[{"name":"preloaded","properties":["cflinuxfs4"]},{"name":"docker"}],
        "placement_tags":null,"rep_url":"https://cell-1:1801","a_newer_key":1}"#;
    let timing = Timing::PRESENCE;
    let presence = Presence::keep(locket.client(), "cell-1", "rep", value, timing);
    let broken = Presence::keep(locket.client(), "cell-2", "rep", "{", timing);
    presence.known().await;
    broken.known().await;
    let cells = board.client.cells().await.unwrap();
    let [cell] = cells.as_slice() else { panic!("{cells:?}") };
    assert_eq!((cell.cell_id.as_str(), cell.zone.as_str()), ("cell-1", "z1"));
    assert_eq!(cell.capacity.containers, 249);
    assert_eq!(cell.rootfs_providers[0].properties, ["cflinuxfs4"]);
    assert_eq!(cell.rootfs_providers[1].name, "docker");
    board.stop().await;
    locket.stop().await;
}

#[tokio::test]
async fn a_configuration_that_cannot_work_says_why() {
    let place = tempfile::tempdir().unwrap();
    let locket = locket(place.path()).await;
    for (key, break_it) in [
        ("locket_address", (|config| config.locket_address.clear()) as fn(&mut Config)),
        ("database_driver", |config| config.database_driver = "mysql".into()),
        ("auctioneer_address", |config| config.auctioneer_address = "nowhere:x".into()),
        ("rep_client_cert", |config| config.rep_client_cert = "/nothing".into()),
        ("listen_address", |config| config.listen_address = "unix:/dev/null".into()),
    ] {
        let mut config = config(place.path(), "bbs", &locket);
        break_it(&mut config);
        let served = bbs::serve(config, Listeners::default(), CancellationToken::new());
        let error = tokio::time::timeout(PATIENCE, served).await.unwrap().unwrap_err();
        let ServeError::Config(error) = error else { panic!("{error:?}") };
        assert!(error.to_string().contains(key), "{error}");
    }
    assert!(serde_json::from_str::<Config>(r#"{"lock_ttl":"15"}"#).is_err());
    locket.stop().await;
}
