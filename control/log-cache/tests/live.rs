//! Logs while they are written: who follows one, and how lines get here.

mod rig;

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::poll;
use http::{Request, StatusCode};
use log_cache::{AppMetrics, Config, Ingress, Listeners, LogCache, Origin, Selection, Store, v2};
use rig::{grpc, json_of};
use tokio_util::sync::CancellationToken;
use uaa::Peer;

const APP: &str = "11111111-aaaa-4bbb-8ccc-000000000001";

fn now() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos().try_into().unwrap()
}

fn line(text: String) -> v2::Envelope {
    let origin = Origin { source_id: APP.into(), instance_id: "0".into(), ..Origin::default() };
    v2::Envelope::line(origin, "STG", false, text)
}

/// What the cf CLI does for `cf logs` and while it stages: section by section its walk.
struct Follower {
    peer: Peer,
    next: Option<i64>,
    seen: Vec<String>,
}

impl Follower {
    async fn read(&self, query: &str) -> Vec<(i64, String)> {
        let request = Request::get(format!("/api/v1/read/{APP}?{query}"))
            .header("user-agent", "cf/8.18.0 (go1.26.8; amd64 linux)")
            .body(Bytes::new());
        let answer = self.peer.send(request.unwrap()).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let answer = json_of(answer.body());
        let envelopes = answer["envelopes"]["batch"].as_array().unwrap().iter();
        let shown = envelopes.map(|envelope| {
            let payload = envelope["log"]["payload"].as_str().unwrap();
            let payload = BASE64_STANDARD.decode(payload).unwrap();
            let time = envelope["timestamp"].as_str().unwrap().parse().unwrap();
            (time, String::from_utf8(payload).unwrap())
        });
        shown.collect()
    }

    async fn poll(&mut self) {
        let Some(next) = self.next else {
            let start = "start_time=-6795364578871345152";
            let newest = self.read(&format!("descending=true&limit=1&{start}")).await;
            self.next = newest.first().map(|(time, _)| time - 1_000_000_000);
            return;
        };
        let lines = self.read(&format!("envelope_types=LOG&start_time={next}")).await;
        // It shows nothing that is younger than two seconds, and all after it neither.
        let old = lines.iter().take_while(|(time, _)| now() - time > 2_000_000_000);
        for (time, text) in old {
            self.next = Some(time + 1);
            self.seen.push(text.clone());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_gets_every_line_once_and_the_last_at_once() {
    let cache = LogCache::new(Store::default());
    let store = cache.store().clone();
    let mut follower =
        Follower { peer: Peer::local(cache.routes(None)), next: None, seen: Vec::new() };
    store.add([line("0".into())]);
    while follower.seen.is_empty() {
        follower.poll().await;
    }

    let count = 2000;
    let writer = tokio::task::spawn_blocking(move || {
        for number in 1..count {
            let mut envelope = line(number.to_string());
            // From two cells: one's lines come half a second late, now and then in the same tick.
            if number % 7 == 0 {
                envelope.timestamp -= 500_000_000;
            }
            store.add([envelope]);
            if number % 100 == 0 {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
    });
    let all = async {
        while follower.seen.len() < count {
            follower.poll().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all).await.unwrap();
    writer.await.unwrap();
    let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    assert_eq!(follower.seen, expected);
}

#[tokio::test]
async fn a_follower_s_answer_waits_for_the_next_line() {
    let stop = CancellationToken::new();
    let cache = LogCache::new(Store::default()).until(stop.clone());
    let follower = Follower { peer: Peer::local(cache.routes(None)), next: None, seen: Vec::new() };
    let mut read = Box::pin(follower.read("descending=true&limit=1&start_time=-1"));
    assert!(poll!(&mut read).is_pending());
    cache.store().add([v2::Envelope { source_id: "other".into(), ..line("b".into()) }]);
    assert!(poll!(&mut read).is_pending());
    cache.store().add([line("a".into())]);
    let seen = read.await;
    assert_eq!(seen.iter().map(|(_, text)| &**text).collect::<Vec<_>>(), ["a"]);

    // What is none of its business does not end it, nor does it last longer than the server.
    let after = format!("envelope_types=LOG&start_time={}", seen[0].0 + 1);
    let mut read = Box::pin(follower.read(&after));
    assert!(poll!(&mut read).is_pending());
    let origin = Origin { source_id: APP.into(), instance_id: "0".into(), ..Origin::default() };
    cache.store().add(v2::Envelope::app_metrics(&origin, &AppMetrics::default()));
    assert!(poll!(&mut read).is_pending());
    stop.cancel();
    assert!(read.await.is_empty());
}

#[tokio::test]
async fn other_readers_see_true_times() {
    let cache = LogCache::new(Store::default());
    let envelope = line("a".into());
    let time = envelope.timestamp;
    cache.store().add([envelope]);
    let peer = Peer::local(cache.routes(None));
    let answer = peer.get(&format!("/api/v1/read/{APP}?start_time={time}"), None).await.unwrap();
    let shown = &json_of(answer.body())["envelopes"]["batch"][0];
    assert_eq!(shown["timestamp"], time.to_string());

    // So does the CLI where it shows what has been: `cf logs --recent`.
    let follower = Follower { peer, next: None, seen: Vec::new() };
    let recent = "descending=true&envelope_types=LOG&limit=1000&start_time=-6795364578871345152";
    assert_eq!(follower.read(recent).await, [(time, "a".to_owned())]);
}

/// Polls until it holds.
async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}: not within a minute");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn all(store: &Store) -> BTreeSet<String> {
    let mut selection = Selection::default();
    selection.limit = 100_000;
    let entries = store.read(APP, &selection);
    let text = |entry: &log_cache::Entry| match &entry.envelope.message {
        Some(v2::envelope::Message::Log(log)) => String::from_utf8(log.payload.to_vec()).unwrap(),
        other => panic!("{other:?}"),
    };
    entries.iter().map(text).collect()
}

#[tokio::test]
async fn lines_wait_for_a_server_that_is_away() {
    let store = Store::default();
    let server = grpc::Server::start(&LogCache::new(store.clone())).await;
    let address = server.address.clone();
    let (ingress, delivery) = Ingress::remote(&address, None).unwrap();
    let stop = CancellationToken::new();
    let delivering = tokio::spawn(delivery.deliver(stop.clone()));

    let expected: BTreeSet<String> = (0..5000).map(|number| number.to_string()).collect();
    for number in 0..2500 {
        ingress.send(line(number.to_string()));
    }
    until("the first lines", || all(&store).len() > 100).await;
    server.stop().await;
    for number in 2500..5000 {
        ingress.send(line(number.to_string()));
    }
    let server = grpc::Server::start_at(&LogCache::new(store.clone()), &address).await;
    until("all lines", || all(&store) == expected).await;
    assert_eq!(ingress.dropped(), 0);

    // What is taken just before the end is still brought there.
    ingress.send(line("last".into()));
    stop.cancel();
    delivering.await.unwrap();
    assert!(all(&store).contains("last"));
    server.stop().await;
}

#[tokio::test]
async fn streams_of_loggregators_clients_are_taken() {
    let store = Store::default();
    let server = grpc::Server::start(&LogCache::new(store.clone())).await;
    let mut client = v2::ingress_client::IngressClient::new(server.channel());
    let batches = ["a", "b"].map(|text| v2::EnvelopeBatch { batch: vec![line(text.into())] });
    client.batch_sender(tonic_stream(batches)).await.unwrap();
    client.sender(tonic_stream([line("c".into())])).await.unwrap();
    let batch = vec![line("d".into())];
    client.send(v2::EnvelopeBatch { batch }).await.unwrap();
    assert_eq!(all(&store), ["a", "b", "c", "d"].map(String::from).into());
    server.stop().await;
}

fn tonic_stream<T: Send + 'static>(
    items: impl IntoIterator<Item = T>,
) -> impl tonic::IntoStreamingRequest<Message = T> {
    futures_util::stream::iter(items.into_iter().collect::<Vec<_>>())
}

#[tokio::test]
async fn a_configured_daemon_serves_cells_and_users() {
    let platform = rig::Platform::start().await;
    let uaa = platform.serve_uaa().await;
    let cloud_controller = platform.serve_cloud_controller().await;
    let bind = || std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let (cells, users) = (bind(), bind());
    let address =
        |socket: &std::net::TcpListener| format!("http://{}", socket.local_addr().unwrap());
    let config = serde_json::json!({
        "addr": address(&cells),
        "proxy_addr": address(&users),
        "uaa_addr": uaa.to_string(),
        "uaa_issuer": platform.issuer(),
        "capi_addr": cloud_controller.to_string(),
        "max_per_source": 1000,
    });
    let config: Config = serde_json::from_value(config).unwrap();
    let (cells_at, users_at) = (address(&cells), address(&users));
    let stop = CancellationToken::new();
    let listeners = Listeners { grpc: Some(cells), proxy: Some(users) };
    let serving = tokio::spawn(log_cache::serve(config, listeners, stop.clone()));

    let (ingress, delivery) = Ingress::remote(&cells_at.parse().unwrap(), None).unwrap();
    let delivering = tokio::spawn(delivery.deliver(stop.clone()));
    ingress.send(line("hello".into()));
    let origin = Origin { source_id: APP.into(), instance_id: "0".into(), ..Origin::default() };
    for envelope in v2::Envelope::app_metrics(&origin, &AppMetrics::default()) {
        ingress.send(envelope);
    }

    let client =
        transport::Client::new(users_at.parse().unwrap(), None, transport::Timeouts::default());
    let peer = log_cache::peer(client.unwrap());
    let path = format!("/api/v1/read/{APP}?envelope_types=LOG");
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = peer.get(&path, Some(platform.token("user token"))).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        let answer = json_of(answer.body());
        let lines = answer["envelopes"]["batch"].as_array().unwrap();
        if lines.len() == 1 {
            assert_eq!(lines[0]["log"]["payload"], BASE64_STANDARD.encode("hello"));
            break;
        }
        assert!(Instant::now() < deadline, "{answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let answer = peer.get(&path, None).await.unwrap();
    assert_eq!((answer.status(), answer.body().len()), (StatusCode::NOT_FOUND, 0));
    let answer = peer.get("/api/v1/read/other", Some(platform.token("user token"))).await.unwrap();
    assert_eq!(answer.status(), StatusCode::NOT_FOUND);

    stop.cancel();
    serving.await.unwrap().unwrap();
    delivering.await.unwrap();
    platform.stop().await;
}
