//! What a router says on NATS when it starts and later, as the original in `nats-start.jsonl`.

#![allow(missing_docs)]

#[path = "../../bus/tests/nats/mod.rs"]
mod nats;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bus::{Bus, Subscription};
use router::{AccessLog, Config, Listeners, Record};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

const RECORDING: &str = include_str!("recordings/nats-start.jsonl");
const PATIENCE: Duration = Duration::from_secs(30);

struct NoLog;

impl AccessLog for NoLog {
    fn log(&self, _: Record) {}
}

/// The recorded text of a message, with its id, which differs.
fn recorded_start() -> (String, String) {
    let events = RECORDING.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let text = events
        .filter_map(|event| event["text"].as_str().map(str::to_owned))
        .find(|text| text.starts_with("PUB router.start "))
        .unwrap();
    with_id(text.split("\r\n").nth(1).unwrap())
}

fn with_id(text: &str) -> (String, String) {
    let value: Value = serde_json::from_str(text).unwrap();
    let id = value["id"].as_str().unwrap().to_owned();
    (text.replace(&id, "ID"), id)
}

async fn next(subscription: &mut Subscription) -> String {
    let message = timeout(PATIENCE, subscription.next()).await.expect("in time").unwrap();
    String::from_utf8(message.payload.to_vec()).unwrap()
}

/// What is answered to a request whose connection is closed then.
async fn asked(address: SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: r\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("in time").unwrap();
    answer
}

#[tokio::test]
async fn a_router_says_who_it_is_at_its_start_when_it_is_greeted_and_when_nats_is_back() {
    let head: Value = serde_json::from_str(RECORDING.lines().next().unwrap()).unwrap();
    let mut config = head["config"].clone();
    config["index"] = json!(0);
    config["ip"] = json!("192.0.2.1");
    let config: Config = serde_json::from_value(config).unwrap();
    let delay = config.start_response_delay_interval;
    let server = nats::Server::start().await;
    let mut starts = server.bus.subscribe("router.start").await.unwrap();

    let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (http, status) = (bind(), bind());
    let addresses = [&http, &status].map(|listener| listener.local_addr().unwrap());
    let listeners = Listeners { http: vec![http], status: Some(status), ..Listeners::default() };
    let (bus, stop) = (Bus::connect(server.servers()).await.unwrap(), CancellationToken::new());
    let begun = std::time::Instant::now();
    let serving = router::serve(config, listeners, bus, Arc::new(NoLog), stop.clone());
    let serving = tokio::spawn(serving);

    let said = next(&mut starts).await;
    let (recorded, _) = recorded_start();
    let (text, id) = with_id(&said);
    assert_eq!(text, recorded);
    assert!(id.starts_with("0-") && id.len() == 38, "{id}");

    // Its table is not full yet. The socket is there, so that clients wait instead of being refused.
    let early = tokio::spawn(asked(addresses[0], "/"));
    let health = asked(addresses[1], "/health").await;
    assert!(health.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{health}");

    for greeting in ["{}", "hello"] {
        let reply = server.bus.request("router.greet", greeting, PATIENCE).await.unwrap();
        assert_eq!(reply.payload, said, "{greeting}");
    }
    // Nobody is answered where nobody asks.
    let mut all = server.bus.subscribe(">").await.unwrap();
    server.bus.publish("router.greet", "{}").await.unwrap();
    server.bus.publish("router.other", "{}").await.unwrap();
    server.bus.publish("router.start", r#"{"id":"x"}"#).await.unwrap();
    server.bus.request("router.greet", "{}", PATIENCE).await.unwrap();
    let mut subjects = Vec::new();
    for _ in 0..5 {
        let message = timeout(PATIENCE, all.next()).await.expect("in time").unwrap();
        subjects.push(message.subject);
    }
    assert_eq!(subjects[..4], ["router.greet", "router.other", "router.start", "router.greet"]);
    assert_eq!(next(&mut starts).await, r#"{"id":"x"}"#);

    let answer = early.await.unwrap();
    assert!(begun.elapsed() >= delay, "answered after {:?}", begun.elapsed());
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    let health = asked(addresses[1], "/health").await;
    assert!(health.starts_with("HTTP/1.1 200 OK\r\n") && health.ends_with("ok\n"), "{health}");

    server.cut();
    assert_eq!(next(&mut starts).await, said, "registrars may have missed it");
    stop.cancel();
    timeout(PATIENCE, serving).await.expect("in time").unwrap().unwrap();
}
