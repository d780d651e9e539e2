//! The recorded requests to the original auctioneer, made to ours: it must answer the same, give the
//! cells the same work, and tell the BBS the same failures.
//!
//! Different on purpose: the texts of unreadable JSON are not Go's. Where the original chose a cell by
//! chance ours may choose another.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use auctioneer::{Config, Listeners, ServeError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbs_models::{CellPresence, CellsResponse, Message};
use bytes::Bytes;
use http::{HeaderMap, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use serde::Deserialize;
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use transport::{Address, Client, Listener, Server, Timeouts};

const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
struct Flow {
    exchanges: Vec<Exchange>,
}

#[derive(Clone, Deserialize)]
struct Exchange {
    #[serde(default)]
    step: String,
    from: String,
    to: String,
    request: Half,
    response: Half,
}

#[derive(Clone, Deserialize)]
struct Half {
    #[serde(default)]
    line: String,
    headers: Vec<String>,
    #[serde(default)]
    body_text: String,
    #[serde(default)]
    body_base64: String,
}

impl Half {
    fn body(&self) -> Vec<u8> {
        match self.body_text.is_empty() {
            true => STANDARD.decode(&self.body_base64).unwrap(),
            false => self.body_text.clone().into_bytes(),
        }
    }

    fn path(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.iter().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    fn status(&self) -> u16 {
        self.path().parse().unwrap()
    }
}

fn recorded(name: &str) -> Vec<Exchange> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name);
    let flow: Flow = serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    flow.exchanges
}

/// A request to one of the auctioneer's peers.
#[derive(Clone, Debug)]
struct Heard {
    path: String,
    trace: String,
    body: Bytes,
}

/// By peer and path.
type Answers = BTreeMap<(String, String), Vec<u8>>;

/// The BBS and the reps around an auctioneer, who answer as they are told and keep what they hear.
#[derive(Clone, Default)]
struct Peers {
    answers: Arc<Mutex<Answers>>,
    heard: Arc<Mutex<Vec<Heard>>>,
}

impl Peers {
    async fn serve(&self, name: &str, address: &Address, stop: &CancellationToken) {
        let (peers, name) = (self.clone(), name.to_owned());
        let server = Server::new(Listener::bind(address, None).await.unwrap());
        let answering = service_fn(move |request| {
            let (peers, name) = (peers.clone(), name.clone());
            async move { Ok::<_, Infallible>(peers.answer(name, request).await) }
        });
        tokio::spawn(server.serve(answering, stop.clone()));
    }

    async fn answer(&self, name: String, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let path = head.uri.path().to_owned();
        let trace = trace(&head.headers);
        let body = body.collect().await.unwrap().to_bytes();
        self.heard.lock().unwrap().push(Heard { path: path.clone(), trace, body });
        let answer = self.answers.lock().unwrap().get(&(name, path)).cloned();
        Response::new(Full::new(answer.unwrap_or_default().into()))
    }

    fn tell(&self, name: &str, path: &str, body: Vec<u8>) {
        self.answers.lock().unwrap().insert((name.into(), path.into()), body);
    }

    fn heard(&self, is_it: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        self.heard.lock().unwrap().iter().filter(|heard| is_it(heard)).cloned().collect()
    }
}

fn trace(headers: &HeaderMap) -> String {
    let value = headers.get("x-vcap-request-id");
    value.map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default()
}

struct Auctioneer {
    client: Client,
    peers: Peers,
    place: tempfile::TempDir,
    stop: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
    others: CancellationToken,
}

async fn start() -> Auctioneer {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| Address::Unix(place.path().join(name));
    let others = CancellationToken::new();
    let locket = locket::Server::open(&place.path().join("locket.sqlite")).await.unwrap();
    let listener = Listener::bind(&at("locket"), None).await.unwrap();
    tokio::spawn(locket.serve(listener, others.clone()));
    let peers = Peers::default();
    peers.serve("bbs", &at("bbs"), &others).await;

    let config: Config = serde_json::from_value(serde_json::json!({
        "listen_address": at("auctioneer").to_string(),
        "bbs_address": at("bbs").to_string(),
        "locket_address": at("locket").to_string(),
        "cell_state_timeout": "10s",
        "log_level": "info",
    }))
    .unwrap();
    let client = Client::new(at("auctioneer"), None, Timeouts::default()).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(auctioneer::serve(config, Listeners::default(), stop.clone()));
    let deadline = Instant::now() + PATIENCE;
    while client.fetch(Request::new(transport::empty()), 1 << 10).await.is_err() {
        assert!(Instant::now() < deadline && !task.is_finished(), "it does not serve");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Auctioneer { client, peers, place, stop, task, others }
}

impl Auctioneer {
    /// The two cells of the recordings, at addresses of ours.
    async fn with_cells(self, exchanges: &[Exchange]) -> Self {
        let list = exchanges.iter().find(|exchange| {
            exchange.from == "auctioneer" && exchange.request.path() == "/v1/cells/list.r1"
        });
        let mut cells = CellsResponse::decode_from_slice(&list.unwrap().response.body()).unwrap();
        for CellPresence { cell_id, rep_url, .. } in &mut cells.cells {
            let address = Address::Unix(self.place.path().join(&*cell_id));
            *rep_url = address.to_string();
            self.peers.serve(&format!("rep {cell_id}"), &address, &self.others).await;
        }
        self.peers.tell("bbs", "/v1/cells/list.r1", cells.encode_to_vec());
        self
    }

    async fn ask(&self, request: &Half) -> Response<Bytes> {
        let method = request.line.split(' ').next().unwrap();
        let mut asked = Request::builder().method(method).uri(request.path());
        for name in ["content-type", "x-vcap-request-id"] {
            if let Some(value) = request.header(name) {
                asked = asked.header(name, value);
            }
        }
        let asked = asked.body(transport::full(request.body())).unwrap();
        self.client.fetch(asked, 1 << 20).await.unwrap()
    }

    async fn hear(&self, count: usize, is_it: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let heard = self.peers.heard(&is_it);
            if heard.len() >= count {
                return heard;
            }
            let all = self.peers.heard(|_| true);
            assert!(Instant::now() < deadline, "{} of {count} heard: {all:?}", heard.len());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
        self.others.cancel();
    }
}

#[tokio::test]
async fn calls_made_by_hand_are_answered_as_the_original_does() {
    let exchanges = recorded("direct-calls.yaml");
    let auctioneer = start().await.with_cells(&exchanges).await;
    for Exchange { step, request, response, .. } in
        exchanges.iter().filter(|exchange| exchange.to == "auctioneer")
    {
        let answer = auctioneer.ask(request).await;
        assert_eq!(answer.status().as_u16(), response.status(), "{step}");
        for name in ["content-type", "allow", "x-content-type-options"] {
            let value = answer.headers().get(name).map(|value| value.to_str().unwrap());
            assert_eq!(value, response.header(name), "{step}: {name}");
        }
        if answer.status() == StatusCode::BAD_REQUEST {
            let body: Value = serde_json::from_slice(answer.body()).unwrap();
            assert!(body["error"].as_str().is_some_and(|text| !text.is_empty()), "{step}");
        } else {
            assert_eq!(answer.body().as_ref(), response.body(), "{step}");
        }
    }
    // Empty requests and senseless ones are followed by an auction, which asks all cells.
    auctioneer.hear(1, |heard| heard.path == "/v1/cells/list.r1").await;
    auctioneer.hear(2, |heard| heard.path == "/state").await;
    auctioneer.stop().await;
}

/// Work's items, whichever cell has them.
fn items(bodies: impl IntoIterator<Item = Vec<u8>>) -> Vec<String> {
    let mut items = Vec::new();
    for body in bodies {
        let work: Value = serde_json::from_slice(&body).unwrap();
        assert!(work["cell_id"].is_string());
        for kind in ["LRPs", "Tasks"] {
            items.extend(work[kind].as_array().into_iter().flatten().map(Value::to_string));
        }
    }
    items.sort();
    items
}

#[tokio::test]
async fn recorded_requests_have_the_recorded_consequences() {
    for name in [
        "lrp-placement-failures.yaml",
        "task-placement-failures.yaml",
        "lrp-start.yaml",
        "task-success.yaml",
    ] {
        let exchanges = recorded(name);
        let auctioneer = start().await.with_cells(&exchanges).await;
        let mut asked = 0;
        for (at, exchange) in exchanges.iter().enumerate() {
            if exchange.to != "auctioneer" {
                continue;
            }
            asked += 1;
            let rest = &exchanges[at + 1..];
            let end = rest.iter().position(|other| other.to == "auctioneer");
            let follows: Vec<_> = rest[..end.unwrap_or(rest.len())]
                .iter()
                .filter(|other| other.from == "auctioneer" && other.step == exchange.step)
                .collect();
            for Exchange { to, request, response, .. } in &follows {
                if request.path() != "/v1/cells/list.r1" {
                    auctioneer.peers.tell(to, request.path(), response.body());
                }
            }
            let is_consequence = |path: &str| !["/v1/cells/list.r1", "/state"].contains(&path);
            let wanted: Vec<_> =
                follows.iter().filter(|other| is_consequence(other.request.path())).collect();
            assert!(!wanted.is_empty(), "{name}: {}", exchange.step);

            // What cells that were not chosen in the recording say to their work: all taken.
            for cell in ["rep cell-z1-0", "rep cell-z2-0"] {
                let all_taken = br#"{"LRPs":null,"Tasks":null}"#;
                auctioneer.peers.tell(cell, "/work", all_taken.to_vec());
            }
            auctioneer.peers.heard.lock().unwrap().clear();
            let answer = auctioneer.ask(&exchange.request).await;
            assert_eq!(answer.status().as_u16(), exchange.response.status());
            let heard = auctioneer.hear(wanted.len(), |heard| is_consequence(&heard.path)).await;
            let step = format!("{name}: {}", exchange.step);
            for (heard, wanted) in heard.iter().zip(&wanted) {
                assert_eq!(heard.path, wanted.request.path(), "{step}");
                let trace = wanted.request.header("x-vcap-request-id").unwrap_or_default();
                assert_eq!(heard.trace, trace, "{step}");
            }
            if heard[0].path == "/work" {
                assert_eq!(
                    items(heard.iter().map(|heard| heard.body.to_vec())),
                    items(wanted.iter().map(|other| other.request.body())),
                    "{step}"
                );
            } else {
                assert_eq!(heard[0].body, wanted[0].request.body(), "{step}");
            }
        }
        assert!(asked > 0);
        auctioneer.stop().await;
    }
}

#[tokio::test]
async fn what_a_cell_does_not_take_has_failed() {
    let exchanges = recorded("lrp-start.yaml");
    let auctioneer = start().await.with_cells(&exchanges).await;
    let mut request = None;
    for exchange in &exchanges {
        match exchange.request.path() {
            "/state" => {
                auctioneer.peers.tell(&exchange.to, "/state", exchange.response.body());
            }
            // The answer of a cell that takes nothing is the work itself.
            "/work" => {
                let returned = exchange.request.body();
                for cell in ["rep cell-z1-0", "rep cell-z2-0"] {
                    auctioneer.peers.tell(cell, "/work", returned.clone());
                }
            }
            "/v1/lrps" => request = Some(exchange.request.clone()),
            _ => {}
        }
    }
    auctioneer.ask(&request.unwrap()).await;
    let failed = auctioneer.hear(2, |heard| heard.path == "/v1/actual_lrps/fail").await;
    for heard in failed {
        let request = bbs_models::FailActualLRPRequest::decode_from_slice(&heard.body).unwrap();
        assert_eq!(request.actual_lrp_key.process_guid, "web");
        assert_eq!(request.error_message, "insufficient resources");
    }
    auctioneer.stop().await;
}

#[tokio::test]
async fn without_cells_everything_fails() {
    let auctioneer = start().await;
    let [lrp, task] = ["lrp-start.yaml", "task-success.yaml"].map(|name| {
        let exchanges = recorded(name);
        let request = exchanges.iter().find(|exchange| exchange.to == "auctioneer").unwrap();
        request.request.clone()
    });
    auctioneer.ask(&lrp).await;
    auctioneer.hear(2, |heard| heard.path == "/v1/actual_lrps/fail").await;
    auctioneer.ask(&task).await;
    let rejected = auctioneer.hear(1, |heard| heard.path == "/v1/tasks/reject").await;
    let request = bbs_models::RejectTaskRequest::decode_from_slice(&rejected[0].body).unwrap();
    assert_eq!(request.rejection_reason, "unable to communicate to compatible cells");
    auctioneer.stop().await;
}

#[tokio::test]
async fn one_auctioneer_at_a_time_serves() {
    let first = start().await;
    let at = |name: &str| Address::Unix(first.place.path().join(name)).to_string();
    let config: Config = serde_json::from_value(serde_json::json!({
        "listen_address": at("second"),
        "bbs_address": at("bbs"),
        "locket_address": at("locket"),
        "lock_retry_interval": "1s",
    }))
    .unwrap();
    let stop = CancellationToken::new();
    let second = tokio::spawn(auctioneer::serve(config, Listeners::default(), stop.clone()));
    let client = Client::new(at("second").parse().unwrap(), None, Timeouts::default()).unwrap();
    let ask = || client.fetch(Request::new(transport::empty()), 1 << 10);
    assert!(ask().await.is_err() && !second.is_finished());
    first.stop.cancel();
    first.task.await.unwrap().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while ask().await.is_err() {
        assert!(Instant::now() < deadline && !second.is_finished());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    second.await.unwrap().unwrap();
    first.others.cancel();
}
