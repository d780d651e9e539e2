//! The recorded calls to the original BBS, made to ours in their order: it must answer the same, tell
//! the same events, and ask the auctioneer, the reps and the receivers of callbacks the same.
//!
//! Not compared are what differs from run to run (times, epochs), the order of lists, and the trace
//! header of requests that follow. Different on purpose:
//!
//! * the size line of an event's chunk has no semicolon: it is an empty chunk extension;
//! * requests of which the recording has no body (over 9,000 bytes) are left out;
//! * where no names inside are desired, convergence says so to the rep of an instance that has some
//!   (`[]`); the original says nothing at every pass (`null`);
//! * a task that convergence gives up is told to who waits for it at once, not a pass later.

mod converging;
mod messages;

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbs::{Config, Listeners, ServeError};
use bbs_models::{CellPresence, CellsResponse, DesireTaskRequest, Message};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use locket::models::{Resource, TypeCode};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use transport::{Address, Client, Listener, Server, Timeouts};

const PATIENCE: Duration = Duration::from_secs(60);
/// Exchanges that are different on purpose: the call by process guids came after these builds, and a
/// task that was given up is gone sooner.
const OTHERWISE: [(&str, u32); 2] = [("bbs/actual-lifecycle", 23), ("bbs/convergence", 69)];
/// The receiver of callbacks in the recordings.
const CALLBACK: &str = "127.0.0.1:9991";

#[derive(Deserialize)]
struct Flow {
    flow: String,
    exchanges: Vec<Exchange>,
}

#[derive(Clone, Deserialize)]
struct Exchange {
    n: u32,
    #[serde(default)]
    step: String,
    from: String,
    to: String,
    request: Half,
    response: Half,
}

#[derive(Clone, Deserialize)]
struct Half {
    line: String,
    #[serde(default)]
    headers: Vec<String>,
    #[serde(default)]
    body_text: String,
    #[serde(default)]
    body_base64: String,
    body_omitted: Option<Value>,
    message: Option<String>,
    events: Option<Vec<Chunk>>,
}

#[derive(Clone, Deserialize)]
struct Chunk {
    text: Option<String>,
}

impl Half {
    fn body(&self) -> Vec<u8> {
        match self.body_text.is_empty() {
            true => STANDARD.decode(&self.body_base64).unwrap(),
            false => self.body_text.clone().into_bytes(),
        }
    }

    /// A request's path, an answer's status.
    fn second(&self) -> &str {
        self.line.split(' ').nth(1).unwrap()
    }

    fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.headers.iter().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// By peer and path, in the order in which they were given.
type Answers = BTreeMap<(String, String), VecDeque<(u16, Vec<u8>)>>;

/// Those around the board, who answer as they did and keep what they hear.
#[derive(Clone, Default)]
struct Peers {
    answers: Arc<Mutex<Answers>>,
    heard: Arc<Mutex<Vec<String>>>,
}

impl Peers {
    fn of<'a>(exchanges: impl Iterator<Item = &'a Exchange>) -> Self {
        let peers = Self::default();
        let mut answers = peers.answers.lock().unwrap();
        for Exchange { to, request, response, .. } in exchanges.filter(|e| e.from == "bbs") {
            let place = answers.entry((to.clone(), request.second().to_owned())).or_default();
            place.push_back((response.second().parse().unwrap(), response.body()));
        }
        drop(answers);
        peers
    }

    async fn serve(&self, name: &str, address: &Address, stop: &CancellationToken) -> Address {
        let (peers, name) = (self.clone(), name.to_owned());
        let listener = Listener::bind(address, None).await.unwrap();
        let address = listener.address().unwrap();
        let answering = service_fn(move |request| {
            let (peers, name) = (peers.clone(), name.clone());
            async move { Ok::<_, Infallible>(peers.answer(name, request).await) }
        });
        tokio::spawn(Server::new(listener).serve(answering, stop.clone()));
        address
    }

    async fn answer(&self, name: String, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        let line = format!("{} {}", head.method, head.uri.path());
        self.heard.lock().unwrap().push(told(&name, &line, &body));
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.entry((name, head.uri.path().to_owned())).or_default();
        let (status, body) = match answers.len() {
            0 => (202, b"{}".to_vec()),
            1 => answers[0].clone(),
            _ => answers.pop_front().unwrap(),
        };
        Response::builder().status(status).body(Full::new(body.into())).unwrap()
    }

    fn count(&self, wanted: &str) -> usize {
        self.heard.lock().unwrap().iter().filter(|heard| *heard == wanted).count()
    }
}

/// A request to a peer without what differs from run to run.
fn told(name: &str, line: &str, body: &[u8]) -> String {
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        return format!("{name} {line} {}", String::from_utf8_lossy(body));
    };
    let items = match &mut value {
        Value::Array(items) => items.as_mut_slice(),
        other => std::slice::from_mut(other),
    };
    for item in items.iter_mut() {
        if let Some(created) = item.get_mut("created_at") {
            *created = json!(1);
        }
        if let Some(Value::Array(indices)) = item.get_mut("indices") {
            indices.sort_by_key(Value::to_string);
        }
        if let Some(routes) = item.get_mut("internal_routes")
            && routes.as_array().is_some_and(Vec::is_empty)
        {
            *routes = Value::Null;
        }
        if let Some(Value::Object(tags)) = item.get_mut("metric_tags") {
            tags.sort_keys();
        }
    }
    items.sort_by_key(Value::to_string);
    format!("{name} {line} {value}")
}

struct Board {
    client: Client,
    callback: String,
    locket: locket::Client,
    peers: Peers,
    place: tempfile::TempDir,
    stop: CancellationToken,
    others: CancellationToken,
    task: JoinHandle<Result<(), ServeError>>,
}

async fn start(peers: Peers, converging: &Value) -> Board {
    let place = tempfile::tempdir().unwrap();
    let at = |name: &str| Address::Unix(place.path().join(name));
    let others = CancellationToken::new();
    let server = locket::Server::open(&place.path().join("locket.sqlite")).await.unwrap();
    let listener = Listener::bind(&at("locket"), None).await.unwrap();
    tokio::spawn(server.serve(listener, others.clone()));
    peers.serve("auctioneer", &at("auctioneer"), &others).await;
    for cell in ["cell-z1-0", "cell-z2-0"] {
        peers.serve(&format!("rep {cell}"), &at(cell), &others).await;
    }
    let any: Address = "http://127.0.0.1:0".parse().unwrap();
    let callback = peers.serve("callback", &any, &others).await.authority();

    let mut config = json!({
        "listen_address": at("bbs").to_string(),
        "health_address": at("health").to_string(),
        "database_connection_string": place.path().join("bbs.sqlite"),
        "locket_address": at("locket").to_string(),
        "auctioneer_address": at("auctioneer").to_string(),
    });
    for (name, value) in converging.as_object().unwrap() {
        config[name] = value.clone();
    }
    let config: Config = serde_json::from_value(config).unwrap();
    let client = Client::new(at("bbs"), None, Timeouts::default()).unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(bbs::serve(config, Listeners::default(), stop.clone()));
    let deadline = Instant::now() + PATIENCE;
    while client.fetch(Request::new(transport::empty()), 1 << 10).await.is_err() {
        assert!(Instant::now() < deadline && !task.is_finished(), "it does not serve");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let locket = locket::Client::new(&at("locket"), None).unwrap();
    Board { client, callback, locket, peers, place, stop, others, task }
}

impl Board {
    /// Registers a cell as its presence in the recordings says, at an address of ours.
    async fn register(&self, cell: &bbs_models::CellPresence) {
        let url = Address::Unix(self.place.path().join(&cell.cell_id)).to_string();
        let providers: Vec<_> = cell
            .rootfs_providers
            .iter()
            .map(|provider| json!({ "name": provider.name, "properties": provider.properties }))
            .collect();
        let capacity = &cell.capacity;
        let value = json!({
            "cell_id": cell.cell_id,
            "rep_address": cell.rep_address,
            "zone": cell.zone,
            "capacity": {
                "memory_mb": capacity.memory_mb,
                "disk_mb": capacity.disk_mb,
                "containers": capacity.containers,
            },
            "rootfs_provider_list": providers,
            "placement_tags": cell.placement_tags,
            "optional_placement_tags": cell.optional_placement_tags,
            "rep_url": url,
            "annotations": cell.annotations,
        });
        let resource = Resource {
            key: cell.cell_id.clone(),
            owner: "a-rep".into(),
            value: value.to_string(),
            r#type: "presence".into(),
            type_code: TypeCode::Presence.into(),
        };
        self.locket.lock(resource, PATIENCE * 10, None).await.unwrap();
    }

    fn request(&self, request: &Half) -> Request<transport::Body> {
        let (method, path) = request.line.split_once(' ').unwrap();
        let path = path.split(' ').next().unwrap();
        let mut body = request.body();
        if path == "/v1/tasks/desire.r2"
            && let Ok(mut desire) = DesireTaskRequest::decode_from_slice(&body)
            && desire.task_definition.completion_callback_url.contains(CALLBACK)
        {
            let definition = desire.task_definition.get_or_insert_default();
            let url = &mut definition.completion_callback_url;
            *url = url.replace(CALLBACK, &self.callback);
            body = desire.encode_to_vec();
        }
        let mut made = Request::builder().method(method).uri(path);
        for name in ["content-type", "x-vcap-request-id"] {
            if let Some(value) = request.header(name) {
                made = made.header(name, value);
            }
        }
        made.body(transport::full(body)).unwrap()
    }

    /// What is different in an answer from the recorded one, if anything is.
    async fn compare(&self, exchange: &Exchange) -> Result<(), String> {
        let Exchange { request, response, .. } = exchange;
        let answer = self.client.fetch(self.request(request), 64 << 20).await.unwrap();
        if answer.status().as_str() != response.second() {
            return Err(format!("{} instead of {}", answer.status(), response.line));
        }
        for name in ["content-type", "allow", "x-content-type-options"] {
            let value = answer.headers().get(name).map(|value| value.to_str().unwrap());
            if value != response.header(name) {
                return Err(format!("{name}: {value:?} instead of {:?}", response.header(name)));
            }
        }
        let wanted = response.body();
        let (got, wanted) = match &response.message {
            _ if answer.body().as_ref() == wanted => return Ok(()),
            Some(message) => (
                messages::plain(message, answer.body(), &self.callback, CALLBACK),
                messages::plain(message, &wanted, CALLBACK, CALLBACK),
            ),
            None => (format!("{:?}", answer.body()), format!("{:?}", Bytes::from(wanted))),
        };
        if got == wanted { Ok(()) } else { Err(difference(&got, &wanted)) }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap().unwrap();
        self.others.cancel();
    }
}

/// A stream under way, and what the recorded one told.
struct Stream {
    name: String,
    /// Events that are not recorded come first.
    skip: usize,
    /// They come in no order.
    mixed: bool,
    told: Arc<Mutex<String>>,
    reading: JoinHandle<()>,
    wanted: Vec<String>,
}

async fn listen(board: &Board, exchange: &Exchange, mixed: bool) -> Stream {
    let answer = board.client.send(board.request(&exchange.request)).await.unwrap();
    for name in ["content-type", "cache-control"] {
        let value = answer.headers()[name].to_str().unwrap();
        assert_eq!(Some(value), exchange.response.header(name), "{}", exchange.step);
    }
    let mut body = answer.into_body();
    let told = Arc::new(Mutex::new(String::new()));
    let text = told.clone();
    let reading = tokio::spawn(async move {
        while let Some(frame) = body.frame().await {
            // A stream ends in order when the board is stopped.
            if let Ok(data) = frame.unwrap().into_data() {
                text.lock().unwrap().push_str(std::str::from_utf8(&data).unwrap());
            }
        }
    });
    let chunks = exchange.response.events.as_ref().unwrap();
    let wanted = chunks.iter().filter_map(|chunk| chunk.text.as_ref());
    let number = |event: &String| event.lines().next()?.strip_prefix("id: ")?.parse().ok();
    let skip = wanted.clone().next().and_then(number).unwrap_or_default();
    let wanted = wanted.map(|event| messages::event(event, CALLBACK, CALLBACK)).collect();
    let name = format!("{} ({})", exchange.request.line, exchange.n);
    Stream { name, skip, mixed, told, reading, wanted }
}

impl Stream {
    /// What is different, once all is told or the stream has ended.
    async fn compare(self, callback: &str) -> Result<usize, String> {
        let count = || self.told.lock().unwrap().matches("\n\n").count();
        let deadline = Instant::now() + Duration::from_secs(10);
        while count() < self.skip + self.wanted.len() && !self.reading.is_finished() {
            if Instant::now() > deadline {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.reading.abort();
        if let Err(error) = self.reading.await {
            assert!(error.is_cancelled(), "{}: {error}", self.name);
        }
        let told = self.told.lock().unwrap();
        let numbered = |(at, event): (usize, &str)| {
            assert!(event.starts_with(&format!("id: {at}\n")), "{event}");
            messages::event(event, callback, CALLBACK)
        };
        let told = told.split_inclusive("\n\n").enumerate().skip(self.skip).map(numbered).collect();
        let order = if self.mixed { sorted } else { ordered };
        let (told, wanted) = (order(told), order(self.wanted));
        if told == wanted {
            return Ok(told.len());
        }
        let first = told.iter().zip(&wanted).position(|(told, wanted)| told != wanted);
        let at = first.unwrap_or(told.len().min(wanted.len()));
        let [got, wanted] = [told.get(at), wanted.get(at)].map(|event| format!("{event:?}"));
        Err(format!("{}: event {at}: {}", self.name, difference(&got, &wanted)))
    }
}

fn recorded(file: &str) -> Flow {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(file);
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

/// Flows that were recorded one after the other on one board.
struct Play<'a> {
    files: &'a [&'a str],
    /// Settings of the board's convergence.
    converging: Value,
    /// Before the first exchange.
    pause: Duration,
    /// For what follows from a call, or is to be repaired.
    patience: Duration,
    /// Cells that register before the first exchange of a step.
    registers: &'a [(&'a str, &'a [&'a str])],
    /// Events come in no order.
    mixed: bool,
}

/// Plays flows. Returns what is different, and how much was compared.
async fn play(play: &Play<'_>) -> (Vec<String>, usize) {
    let Play { files, converging, pause, patience, registers, mixed } = play;
    let mut exchanges = Vec::new();
    for Flow { flow, exchanges: more } in files.iter().map(|file| recorded(file)) {
        exchanges.extend(more.into_iter().map(|exchange| (flow.clone(), exchange)));
    }
    let board = start(Peers::of(exchanges.iter().map(|(_, exchange)| exchange)), converging).await;
    tokio::time::sleep(*pause).await;
    let mut registers = registers.iter().peekable();
    let about_cells = |exchange: &Exchange| exchange.request.second() == "/v1/cells/list.r1";

    let (mut differences, mut streams, mut compared) = (Vec::new(), Vec::new(), 0);
    let mut followed: BTreeMap<String, usize> = BTreeMap::new();
    let (callback, mut playing) = (board.callback.clone(), "");
    for (flow, exchange) in &exchanges {
        if playing != flow {
            compare(&mut streams, &callback, &mut differences, &mut compared).await;
            playing = flow;
        }
        let Exchange { n, step, from, to, request, response } = exchange;
        let place = format!("{flow} {n} ({step})");
        if let Some((_, cells)) = registers.next_if(|(at, _)| at == step) {
            for cell in *cells {
                let cell_id = (*cell).to_owned();
                board.register(&CellPresence { cell_id, ..Default::default() }).await;
            }
        }
        if OTHERWISE.contains(&(flow.as_str(), *n)) {
            continue;
        }
        if from == "bbs" {
            let line = request.line.rsplit_once(' ').unwrap().0;
            let wanted = told(to, line, &request.body());
            let count = followed.entry(wanted.clone()).or_default();
            *count += 1;
            // Where something is missing, what follows from it is not waited for.
            let patience = if differences.is_empty() { *patience } else { Duration::ZERO };
            let deadline = Instant::now() + patience;
            while board.peers.count(&wanted) < *count && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if board.peers.count(&wanted) < *count {
                differences.push(format!("{place}: is not asked: {wanted}"));
            }
        } else if to == "bbs-health" {
            let address = Address::Unix(board.place.path().join("health"));
            let health = Client::new(address, None, Timeouts::default()).unwrap();
            let answer = health.fetch(board.request(request), 1 << 10).await.unwrap();
            assert!(answer.status() == 200 && answer.body().is_empty());
        } else if request.body_omitted.is_some() {
            continue;
        } else if response.events.is_some() {
            streams.push(listen(&board, exchange, *mixed).await);
        } else {
            if about_cells(exchange) {
                for cell in CellsResponse::decode_from_slice(&response.body()).unwrap().cells {
                    board.register(&cell).await;
                }
            }
            // What follows from the call before may still be under way.
            let reads = ["/list", "/get"].iter().any(|call| request.second().contains(call));
            let deadline = Instant::now() + Duration::from_secs(if reads { 5 } else { 0 });
            let mut result = board.compare(exchange).await;
            while result.is_err() && Instant::now() < deadline {
                tokio::time::sleep(Duration::from_millis(50)).await;
                result = board.compare(exchange).await;
            }
            if let Err(difference) = result {
                differences.push(format!("{place}: {difference}"));
            }
        }
        compared += 1;
    }
    let heard = board.peers.heard.lock().unwrap().clone();
    for (unasked, count) in heard.iter().fold(BTreeMap::new(), |mut counts, heard| {
        *counts.entry(heard.clone()).or_insert(0) += 1;
        counts
    }) {
        if followed.get(&unasked).copied().unwrap_or_default() < count {
            differences.push(format!("is asked without need: {unasked}"));
        }
    }
    board.stop().await;
    compare(&mut streams, &callback, &mut differences, &mut compared).await;
    (differences, compared)
}

/// Ends streams with the flow they belong to.
async fn compare(
    streams: &mut Vec<Stream>,
    callback: &str,
    differences: &mut Vec<String>,
    compared: &mut usize,
) {
    for stream in streams.drain(..) {
        match stream.compare(callback).await {
            Ok(events) => *compared += events,
            Err(difference) => differences.push(difference),
        }
    }
}

/// Instances that are created at once are told in no order.
fn ordered(mut events: Vec<String>) -> Vec<String> {
    let is_created = |event: &String| {
        event.starts_with("ActualLRPInstanceCreated") || event.starts_with("ActualLRPGroupCreated")
    };
    for together in events.chunk_by_mut(|one, other| is_created(one) && is_created(other)) {
        together.sort();
    }
    events
}

/// What is done at once is told in no order.
fn sorted(mut events: Vec<String>) -> Vec<String> {
    events.sort();
    events
}

/// Two texts from where they differ.
fn difference(got: &str, wanted: &str) -> String {
    let same = got.bytes().zip(wanted.bytes()).take_while(|(one, other)| one == other).count();
    let from = same.saturating_sub(150);
    let part = |text: &str| {
        String::from_utf8_lossy(&text.as_bytes()[from..text.len().min(same + 250)]).into_owned()
    };
    format!("{}\ninstead of\n{}", part(got), part(wanted))
}

async fn play_all(files: &[&str], least: usize) {
    let calls = Play {
        files,
        converging: json!({ "converge_repeat_interval": "1h" }),
        pause: Duration::ZERO,
        patience: Duration::from_secs(5),
        registers: &[],
        mixed: false,
    };
    expect_the_same(&calls, least).await;
}

async fn expect_the_same(flows: &Play<'_>, least: usize) {
    let (differences, compared) = play(flows).await;
    println!("{compared} exchanges and events");
    assert!(differences.is_empty(), "{} differ:\n{}", differences.len(), differences.join("\n\n"));
    assert!(compared >= least, "only {compared} compared");
}

#[tokio::test]
async fn the_calls_of_2024() {
    let files = [
        "ping-cells-domains.yaml",
        "desire-full.yaml",
        "desire-minimal.yaml",
        "desire-zero-instances.yaml",
        "desired-lists.yaml",
        "update-desired.yaml",
        "remove-desired.yaml",
        "desired-validation.yaml",
        "http-errors.yaml",
        "health.yaml",
        "actual-lifecycle.yaml",
        "actual-groups-deprecated.yaml",
        "evacuation.yaml",
        "task-full.yaml",
        "task-lists.yaml",
        "task-manual-lifecycle.yaml",
        "task-cancel-fail-reject.yaml",
        "task-callback-unavailable.yaml",
        "task-validation.yaml",
        "events-lrp-instances.yaml",
        "events-tasks.yaml",
        "events-deprecated-r0.yaml",
    ];
    play_all(&files, 530).await;
}

#[tokio::test]
async fn the_calls_of_2026() {
    let files = [
        "2026/cells.yaml",
        "2026/desired.yaml",
        "2026/actual.yaml",
        "2026/evacuation-recreate.yaml",
        "2026/task.yaml",
    ];
    play_all(&files, 55).await;
}
