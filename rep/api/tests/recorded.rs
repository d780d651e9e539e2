//! Every body that the originals' auctioneer, BBS and rep exchanged reads into our types, and is
//! written again as it was.

use std::path::Path;

use rep_api::{
    CellState, ContainerMetricsCollection, EvacuateResponse, List, LrpStartRequest, LrpState,
    LrpUpdate, Task, Work,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize)]
struct Flow {
    flow: String,
    exchanges: Vec<Exchange>,
}

#[derive(Deserialize)]
struct Exchange {
    n: u32,
    from: String,
    to: String,
    request: Half,
    response: Half,
}

#[derive(Deserialize)]
struct Half {
    #[serde(default)]
    line: String,
    #[serde(default)]
    body_text: String,
}

/// Reads and writes a body. Bodies of the originals must be the same byte for byte.
fn again<T: DeserializeOwned + Serialize>(body: &str, place: &str) -> T {
    let read: T = serde_json::from_str(body).unwrap_or_else(|error| panic!("{place}: {error}"));
    assert_eq!(serde_json::to_string(&read).unwrap(), body.trim_end(), "{place}");
    read
}

#[derive(Default)]
struct Seen {
    states: Vec<CellState>,
    works: Vec<Work>,
    updates: Vec<LrpUpdate>,
    requests: Vec<LrpStartRequest>,
    tasks: Vec<Task>,
    metrics: usize,
    evacuations: usize,
}

fn all_recordings() -> Seen {
    let mut seen = Seen::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/recordings");
    for file in std::fs::read_dir(folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        let flow: Flow = serde_saphyr::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
        for exchange in &flow.exchanges {
            see(&mut seen, &flow.flow, exchange);
        }
    }
    seen
}

fn see(seen: &mut Seen, flow: &str, exchange: &Exchange) {
    let Exchange { n, from, to, request, response } = exchange;
    let place = format!("{flow} {n}");
    let (asked, answered) = (request.body_text.as_str(), response.body_text.as_str());
    let mut words = request.line.split(' ');
    let (method, path) = (words.next().unwrap(), words.next().unwrap_or_default());
    let accepted = ["HTTP/1.1 200", "HTTP/1.1 202", "HTTP/1.1 503"];
    if !accepted.iter().any(|status| response.line.starts_with(status)) {
        return;
    }
    // What testers wrote by hand leaves out keys.
    let original = from != "client";
    match (method, path) {
        ("GET", "/state") => seen.states.push(again(answered, &place)),
        // A rep that cannot read its metrics answers with nothing.
        ("GET", "/container_metrics") if answered.is_empty() => {}
        ("GET", "/container_metrics") => {
            again::<ContainerMetricsCollection>(answered, &place);
            seen.metrics += 1;
        }
        ("POST", "/work") => {
            let work =
                if original { again(asked, &place) } else { serde_json::from_str(asked).unwrap() };
            seen.works.push(work);
            seen.works.push(again(answered, &place));
        }
        ("POST", "/evacuate") if to.starts_with("rep") => {
            again::<EvacuateResponse>(answered, &place);
            seen.evacuations += 1;
        }
        ("PUT", path) if path.contains("/lrps/") => seen.updates.push(again(asked, &place)),
        ("POST", "/v1/lrps") if original => {
            seen.requests.extend(again::<List<LrpStartRequest>>(asked, &place));
        }
        ("POST", "/v1/tasks") if original => {
            seen.tasks.extend(again::<List<Task>>(asked, &place));
        }
        ("POST", "/v1/lrps") => {
            serde_json::from_str::<List<LrpStartRequest>>(asked).unwrap();
        }
        ("POST", "/v1/tasks") => {
            serde_json::from_str::<List<Task>>(asked).unwrap();
        }
        _ => {}
    }
}

#[test]
fn recorded_bodies_are_read_and_written_again() {
    let seen = all_recordings();
    // That each kind was met at all.
    assert!(seen.states.len() > 30, "{}", seen.states.len());
    assert!(seen.works.len() > 20, "{}", seen.works.len());
    assert!(seen.updates.len() > 2, "{}", seen.updates.len());
    assert!(seen.requests.len() > 8, "{}", seen.requests.len());
    assert!(seen.tasks.len() > 3, "{}", seen.tasks.len());
    assert!(seen.metrics > 0 && seen.evacuations > 0);

    let states = |wanted: &LrpState| {
        seen.states.iter().flat_map(|cell| &cell.lrps).any(|lrp| lrp.state == *wanted)
    };
    assert!(states(&LrpState::Running) && states(&LrpState::Claimed));
    assert!(seen.states.iter().any(|cell| cell.evacuating));
    assert!(seen.updates.iter().any(|update| update.internal_routes.is_none()));
    assert!(seen.updates.iter().any(|update| update.metric_tags.is_none()));
}

#[test]
fn null_and_empty_and_missing_are_read_and_kept_apart() {
    for body in [
        r#"{"LRPs":null,"Tasks":null}"#,
        r#"{"LRPs":[],"Tasks":null,"cell_id":"c"}"#,
        r#"{"LRPs":null,"Tasks":[]}"#,
    ] {
        assert!(again::<Work>(body, body).lrps.is_empty());
    }
    let missing: Work = serde_json::from_str("{}").unwrap();
    assert_eq!(serde_json::to_string(&missing).unwrap(), r#"{"LRPs":null,"Tasks":null}"#);
    let unknown: Work = serde_json::from_str(r#"{"LRPs":[{"later":1}],"more":{}}"#).unwrap();
    assert_eq!(unknown.lrps.len(), 1);
}

#[test]
fn metrics_are_written_as_the_original_writes_them() {
    let body = concat!(
        r#"{"cell_id":"c","lrps":[{"instance_guid":"i","process_guid":"p","index":1,"#,
        r#""metric_guid":"m","cpu_usage_fraction":0.25,"disk_usage_bytes":1,"#,
        r#""disk_quota_bytes":2,"memory_usage_bytes":3,"memory_quota_bytes":4,"rx_bytes":5,"#,
        r#""tx_bytes":6}],"tasks":[{"task_guid":"t","metric_guid":"","cpu_usage_fraction":0.0,"#,
        r#""disk_usage_bytes":0,"disk_quota_bytes":0,"memory_usage_bytes":0,"#,
        r#""memory_quota_bytes":0}]}"#,
    );
    let read = again::<ContainerMetricsCollection>(body, "metrics");
    assert_eq!(read.lrps[0].metrics.rx_bytes, Some(5));
    assert_eq!(read.tasks[0].metrics.rx_bytes, None);
    let value: Value = serde_json::from_str(body).unwrap();
    assert_eq!(serde_json::to_value(read).unwrap(), value);
}
