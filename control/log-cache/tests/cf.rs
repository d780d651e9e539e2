//! What the cf CLI asks for `cf logs`, as recorded.

mod rig;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::poll;
use http::{Request, StatusCode};
use log_cache::{LogCache, Store, v2};
use rig::json_of;
use serde_json::Value;
use uaa::Peer;

const APP: &str = "11111111-aaaa-4bbb-8ccc-000000000001";
const FIRST: i64 = 1_700_000_000_000_000_000;

/// Cases in which the stand-in did what this log-cache never does, or what is said of it elsewhere.
const LEFT_OUT: [(&str, &str); 9] = [
    ("logs-follow-empty", "the answer waits for a first line: tests/live.rs"),
    ("logs-recent-info-404", "the stand-in's fault"),
    ("logs-recent-version-1", "the stand-in's fault"),
    ("logs-recent-404", "the stand-in's fault"),
    ("logs-recent-401", "the stand-in's fault"),
    ("logs-recent-429", "the stand-in's fault"),
    ("logs-recent-unknown-field", "the stand-in's fault"),
    ("logs-recent-number-timestamp", "the stand-in's fault"),
    ("logs-follow-500-always", "the stand-in's fault"),
];

/// Requests to a log-cache and their answers, by the case's name.
fn cases() -> Vec<(String, Vec<Value>)> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/recordings/cf-logs.jsonl");
    let mut cases: Vec<(String, Vec<Value>)> = Vec::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        match (line["case"].as_str(), cases.last_mut()) {
            (Some(name), _) => cases.push((name.to_owned(), Vec::new())),
            (None, Some((_, requests))) if line["to"] == "LC" => requests.push(line),
            _ => {}
        }
    }
    cases
}

fn batch(answer: &Value) -> &[Value] {
    answer["envelopes"]["batch"].as_array().map_or(&[], |batch| batch)
}

/// The envelope that was recorded.
fn envelope(recorded: &Value, timestamp: i64) -> v2::Envelope {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let payload = BASE64_STANDARD.decode(text(&recorded["log"]["payload"])).unwrap();
    let is_error = recorded["log"]["type"] == "ERR";
    let log = v2::Log { payload: payload.into(), r#type: is_error.into() };
    let tags = recorded["tags"].as_object().unwrap().iter();
    v2::Envelope {
        timestamp,
        source_id: APP.into(),
        instance_id: text(&recorded["instance_id"]),
        tags: tags.map(|(name, value)| (name.clone(), text(value))).collect(),
        message: Some(v2::envelope::Message::Log(log)),
        ..v2::Envelope::default()
    }
}

async fn ask(peer: &Peer, path: &str) -> Value {
    let request = Request::get(path).header("user-agent", "cf/8.18.4 (go1.26.8; amd64 linux)");
    let answer = peer.send(request.body(Bytes::new()).unwrap()).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK, "{path}");
    json_of(answer.body())
}

#[tokio::test]
async fn the_cli_gets_what_it_was_seen_to_need() {
    let mut played = 0;
    for (name, requests) in cases() {
        if LEFT_OUT.iter().any(|(left_out, _)| *left_out == name) {
            continue;
        }
        let cache = LogCache::new(Store::default());
        // What is shown first is the newest.
        let stored = requests.iter().map(|line| batch(&line["answer"])).max_by_key(|all| all.len());
        for (recorded, timestamp) in stored.unwrap_or_default().iter().rev().zip(FIRST..) {
            cache.store().add([envelope(recorded, timestamp)]);
        }
        let peer = Peer::local(cache.routes(None));
        let mut last = 0_i64;
        for line in &requests {
            let (_, path) = line["request"].as_str().unwrap().split_once(' ').unwrap();
            let path = path.replace("{{app1}}", APP).replace("{{ns}}", &(last + 1).to_string());
            let mut answer = Box::pin(ask(&peer, &path));
            let shown = batch(&line["answer"]);
            if path.contains("/read/") && shown.is_empty() {
                // Nothing was written for as long as the recording lasted.
                assert!(poll!(&mut answer).is_pending(), "{name}: {path}");
                continue;
            }
            let answer = answer.await;
            if path.ends_with("/info") {
                assert!(answer["version"].as_str().unwrap().starts_with("3."), "{name}: {answer}");
                continue;
            }
            let own = batch(&answer);
            assert_eq!(own.len(), shown.len(), "{name}: {answer}");
            for (own, recorded) in own.iter().zip(shown) {
                for field in ["instance_id", "tags", "log"] {
                    let mut expected = recorded[field].clone();
                    // Left out where the CLI took an absent one for the same.
                    if field == "log" && expected["type"].is_null() {
                        expected["type"] = "OUT".into();
                    }
                    assert_eq!(own[field], expected, "{name}: {path}");
                }
                let time = own["timestamp"].as_str().unwrap();
                last = last.max(time.parse().unwrap());
            }
        }
        played += 1;
    }
    assert_eq!(played + LEFT_OUT.len(), cases().len());
}
