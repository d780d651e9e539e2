//! What the original Locket answered, ours must answer; what original clients send, ours must send.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http_body_util::BodyExt;
use locket::models::locket_server::{Locket, LocketServer};
use locket::models::{self, FetchAllResponse, TypeCode};
use locket::{Client, Lock, Presence, Server, Timing};
use prost::Message;
use serde::Deserialize;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};
use transport::{Address, Listener, Protocol, Timeouts};

const PATIENCE: Duration = Duration::from_secs(30);

#[derive(Deserialize)]
struct Flow {
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
struct Exchange {
    n: u32,
    step: String,
    from: String,
    request: Half,
    response: Half,
}

#[derive(Deserialize)]
struct Half {
    headers: Vec<String>,
    #[serde(default)]
    trailers: Vec<String>,
    #[serde(default)]
    grpc_prefix: String,
    #[serde(default)]
    body_base64: String,
}

impl Half {
    fn header(&self, name: &str) -> Option<&str> {
        let all = self.headers.iter().chain(&self.trailers);
        all.filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name).map(|(_, v)| v)
    }

    fn message(&self) -> Vec<u8> {
        STANDARD.decode(&self.body_base64).unwrap()
    }

    fn frame(&self) -> Vec<u8> {
        let digit = |at: usize| u8::from_str_radix(&self.grpc_prefix[at..at + 2], 16).unwrap();
        let mut frame: Vec<u8> = (0..self.grpc_prefix.len()).step_by(2).map(digit).collect();
        frame.extend(self.message());
        frame
    }
}

fn recorded(name: &str) -> Flow {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings").join(name);
    serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

struct Running {
    address: Address,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    _place: tempfile::TempDir,
}

async fn serve() -> Running {
    let place = tempfile::tempdir().unwrap();
    let server = Server::open(&place.path().join("locket.sqlite")).await.unwrap();
    let listener = Listener::bind(&"http://127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let address = listener.address().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(server.serve(listener, stop.clone()));
    Running { address, stop, task, _place: place }
}

impl Running {
    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(PATIENCE, self.task).await.unwrap().unwrap();
    }
}

struct Answer {
    status: String,
    message: String,
    frame: Vec<u8>,
}

/// Sends a recorded request's bytes.
async fn ask(client: &transport::Client, request: &Half) -> Answer {
    let request = http::Request::post(request.header(":path").unwrap())
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(transport::full(request.frame()))
        .unwrap();
    let answer = client.send(request).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/grpc");
    let mut headers = answer.headers().clone();
    let body = answer.into_body().collect().await.unwrap();
    if let Some(trailers) = body.trailers() {
        headers.extend(trailers.clone());
    }
    let text =
        |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    Answer {
        status: text("grpc-status"),
        message: text("grpc-message"),
        frame: body.to_bytes().to_vec(),
    }
}

#[tokio::test]
async fn recorded_calls_get_the_recorded_answers() {
    for flow in ["direct-calls", "bbs-takes-its-lock", "component-startup", "component-stop"] {
        let server = serve().await;
        let client = transport::Client::with_protocol(
            server.address.clone(),
            None,
            Timeouts::default(),
            Protocol::Http2,
        )
        .unwrap();
        let exchanges = recorded(&format!("{flow}.yaml")).exchanges;
        assert!(!exchanges.is_empty());
        for Exchange { n, step, request, response, .. } in exchanges {
            let mut answer = ask(&client, &request).await;
            if step.ends_with("s later") {
                // It was held for one second; poll instead of trusting a sleep.
                let deadline = Instant::now() + PATIENCE;
                while answer.status == "0" {
                    assert!(Instant::now() < deadline, "{flow} {n}: still there");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    answer = ask(&client, &request).await;
                }
            }
            let place = format!("{flow} {n}: {step}");
            assert_eq!(Some(&*answer.status), response.header("grpc-status"), "{place}");
            assert_eq!(Some(&*answer.message), response.header("grpc-message"), "{place}");
            if request.header(":path") == Some("/models.Locket/FetchAll") && answer.status == "0" {
                // The order is not fixed.
                let all = |bytes: &[u8]| -> HashSet<Vec<u8>> {
                    let answer = FetchAllResponse::decode(bytes).unwrap();
                    answer.resources.iter().map(Message::encode_to_vec).collect()
                };
                assert_eq!(all(&answer.frame[5..]), all(&response.message()), "{place}");
            } else {
                assert_eq!(answer.frame, response.frame(), "{place}");
            }
        }
        drop(client);
        server.stop().await;
    }
}

#[tokio::test]
async fn a_request_without_a_resource_is_an_invalid_argument() {
    let server = serve().await;
    let mut grpc = models::locket_client::LocketClient::new(
        tonic::transport::Endpoint::from_shared(server.address.to_string())
            .unwrap()
            .connect()
            .await
            .unwrap(),
    );
    let request = models::LockRequest { resource: None, ttl_in_seconds: 15 };
    let status = grpc.lock(request).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    assert_eq!(status.message(), "invalid-resource");
    let status = grpc.release(models::ReleaseRequest { resource: None }).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::InvalidArgument);
    drop(grpc);
    server.stop().await;
}

/// Grants everything and remembers what was sent.
#[derive(Default)]
struct Notebook {
    locks: Mutex<Vec<Sent<models::LockRequest>>>,
    releases: Mutex<Vec<Sent<models::ReleaseRequest>>>,
}

struct Sent<T> {
    uuid: String,
    timeout: Option<String>,
    message: T,
}

impl<T> From<Request<T>> for Sent<T> {
    fn from(request: Request<T>) -> Self {
        let text = |name| request.metadata().get(name).map(|v| v.to_str().unwrap().to_owned());
        let (uuid, timeout) = (text("uuid").unwrap_or_default(), text("grpc-timeout"));
        Self { uuid, timeout, message: request.into_inner() }
    }
}

#[tonic::async_trait]
impl Locket for &'static Notebook {
    async fn lock(
        &self,
        request: Request<models::LockRequest>,
    ) -> Result<Response<models::LockResponse>, Status> {
        self.locks.lock().unwrap().push(request.into());
        Ok(Response::new(models::LockResponse {}))
    }

    async fn release(
        &self,
        request: Request<models::ReleaseRequest>,
    ) -> Result<Response<models::ReleaseResponse>, Status> {
        self.releases.lock().unwrap().push(request.into());
        Ok(Response::new(models::ReleaseResponse {}))
    }

    async fn fetch(
        &self,
        _: Request<models::FetchRequest>,
    ) -> Result<Response<models::FetchResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn fetch_all(
        &self,
        _: Request<models::FetchAllRequest>,
    ) -> Result<Response<FetchAllResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

#[tokio::test]
async fn our_locks_and_presences_send_what_the_originals_send() {
    let notebook: &'static Notebook = Box::leak(Box::default());
    let listener = Listener::bind(&"http://127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let address = listener.address().unwrap();
    let stop = CancellationToken::new();
    let routes = tonic::service::Routes::new(LocketServer::new(notebook));
    let task = tokio::spawn(transport::Server::new(listener).serve(routes, stop.clone()));
    let client = Client::new(&address, None).unwrap();

    let startup = recorded("component-startup.yaml").exchanges;
    let first = |from: &str| {
        let found = startup.iter().find(|exchange| exchange.from == from).unwrap();
        models::LockRequest::decode(&*found.request.message()).unwrap()
    };
    let stopped = recorded("component-stop.yaml").exchanges;
    let farewell = |from: &str| {
        let found = stopped.iter().find(|exchange| exchange.from == from).unwrap();
        models::ReleaseRequest::decode(&*found.request.message()).unwrap()
    };
    let (lock, presence) = (first("bbs"), first("rep-cell-z1-0"));

    let fast = Timing { interval: Duration::from_millis(20), ..Timing::LOCK };
    let wanted = lock.resource.clone().unwrap();
    let held = Lock::new(client.clone(), &wanted.key, &wanted.owner, fast).acquire().await;
    wait_for(|| notebook.locks.lock().unwrap().len() >= 3).await;
    held.release().await;
    {
        let sent = notebook.locks.lock().unwrap();
        assert!(sent.iter().all(|sent| sent.message == lock));
        // The first one has no deadline, the renewals have.
        assert_eq!(sent[0].timeout, None);
        assert!(sent[1..].iter().all(|sent| sent.timeout.is_some()));
        let fresh: HashSet<_> = sent.iter().map(|sent| &sent.uuid).collect();
        assert_eq!(fresh.len(), sent.len());
        let released = notebook.releases.lock().unwrap();
        assert_eq!(released[0].message, farewell("bbs"));
    }
    notebook.locks.lock().unwrap().clear();

    let told = presence.resource.clone().unwrap();
    let kept = Presence::keep(client, &told.key, &told.owner, &told.value, Timing::PRESENCE);
    tokio::time::timeout(PATIENCE, kept.known()).await.unwrap();
    kept.withdraw().await;
    assert_eq!(notebook.locks.lock().unwrap()[0].message, presence);
    let taken_back = notebook.releases.lock().unwrap()[1].message.clone().resource.unwrap();
    assert_eq!(taken_back.type_code(), TypeCode::Presence);
    assert_eq!((taken_back.key, taken_back.owner), (told.key, told.owner));

    stop.cancel();
    task.await.unwrap();
}

async fn wait_for(mut reached: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !reached() {
        assert!(Instant::now() < deadline);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
