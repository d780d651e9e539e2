//! Calls to a rep that keeps what it is told, over a real socket.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri};
use rep_api::{CellState, InternalRoute, LrpUpdate, Work};
use rep_client::{Error, Fleet, RepClient};
use tokio_util::sync::CancellationToken;
use transport::{Address, Listener, Server, Timeouts, TraceId};

/// A rep of the kind the test asks for, with a list of what it was told.
#[derive(Clone, Default)]
struct Rep {
    told: Arc<Mutex<Vec<String>>>,
    /// As reps were before tags.
    old: bool,
    unhealthy: bool,
}

async fn answer(
    State(rep): State<Rep>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, String) {
    let body = String::from_utf8(body.to_vec()).unwrap();
    let trace = TraceId::of(&headers);
    rep.told.lock().unwrap().push(format!("{method} {uri} {trace} {body}"));
    let state = serde_json::to_string(&CellState { cell_id: "c".into(), ..CellState::default() });
    let accepted = StatusCode::ACCEPTED;
    match (method.as_str(), uri.path()) {
        ("GET", "/state") if rep.unhealthy => (StatusCode::SERVICE_UNAVAILABLE, state.unwrap()),
        ("GET", "/state") => (StatusCode::OK, state.unwrap() + "\n"),
        ("GET", "/container_metrics") => {
            (StatusCode::OK, r#"{"cell_id":"c","lrps":[],"tasks":[]}"#.into())
        }
        ("POST", "/work") => (StatusCode::OK, r#"{"LRPs":null,"Tasks":null}"#.into()),
        ("POST", "/v1/lrps/p/instances/i/stop" | "/v1/tasks/t%2Fx/cancel") => {
            (accepted, String::new())
        }
        ("PUT", "/v2/lrps/p/instances/i") if rep.old => {
            (StatusCode::NOT_FOUND, "404 page not found\n".into())
        }
        ("PUT", "/v1/lrps/p/instances/i" | "/v2/lrps/p/instances/i") => (accepted, String::new()),
        _ => (StatusCode::INTERNAL_SERVER_ERROR, String::new()),
    }
}

struct Running {
    rep: Rep,
    address: Address,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

async fn serve(rep: Rep) -> Running {
    let listener = Listener::bind(&"http://127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let address = listener.address().unwrap();
    let stop = CancellationToken::new();
    let routes = Router::new().fallback(answer).with_state(rep.clone());
    let task = tokio::spawn(Server::new(listener).serve(routes, stop.clone()));
    Running { rep, address, stop, task }
}

impl Running {
    fn client(&self) -> RepClient {
        RepClient::new(self.address.clone(), None, Timeouts::default()).unwrap()
    }

    async fn stop(self) -> Vec<String> {
        self.stop.cancel();
        self.task.await.unwrap();
        Arc::into_inner(self.rep.told).map(|told| told.into_inner().unwrap()).unwrap_or_default()
    }
}

fn update() -> LrpUpdate {
    LrpUpdate {
        instance_guid: "i".into(),
        process_guid: "p".into(),
        index: 1,
        domain: "d".into(),
        internal_routes: Some(vec![InternalRoute { hostname: "a.apps.internal".into() }]),
        metric_tags: Some(BTreeMap::from([("a".into(), "b".into())])),
    }
}

#[tokio::test]
async fn each_call_is_the_originals() {
    let running = serve(Rep::default()).await;
    let (rep, trace) = (running.client(), TraceId::from("abc"));
    assert_eq!(rep.state(&trace).await.unwrap().cell_id, "c");
    assert_eq!(rep.container_metrics(&trace).await.unwrap().cell_id, "c");
    let work = Work { cell_id: "c".into(), ..Work::default() };
    assert_eq!(rep.perform(&TraceId::default(), &work).await.unwrap(), Work::default());
    rep.stop_lrp(&trace, "p", "i").await.unwrap();
    rep.update_lrp(&trace, &update()).await.unwrap();
    rep.cancel_task(&trace, "t/x").await.unwrap();
    drop(rep);
    let told = running.rep.told.clone();
    running.stop().await;
    let update = concat!(
        r#"{"instance_guid":"i","process_guid":"p","index":1,"domain":"d","#,
        r#""internal_routes":[{"hostname":"a.apps.internal"}],"metric_tags":{"a":"b"}}"#,
    );
    assert_eq!(
        *told.lock().unwrap(),
        [
            "GET /state abc ",
            "GET /container_metrics abc ",
            r#"POST /work  {"LRPs":null,"Tasks":null,"cell_id":"c"}"#,
            "POST /v1/lrps/p/instances/i/stop abc ",
            &format!("PUT /v2/lrps/p/instances/i abc {update}"),
            "POST /v1/tasks/t%2Fx/cancel abc ",
        ]
    );
}

#[tokio::test]
async fn old_reps_are_told_the_old_way() {
    let running = serve(Rep { old: true, ..Rep::default() }).await;
    running.client().update_lrp(&TraceId::default(), &update()).await.unwrap();
    let told = running.rep.told.clone();
    running.stop().await;
    let told = told.lock().unwrap();
    assert!(told[0].starts_with("PUT /v2/") && told[1].starts_with("PUT /v1/"), "{told:?}");
}

#[tokio::test]
async fn refusals_and_foreign_answers_are_errors() {
    let running = serve(Rep { unhealthy: true, ..Rep::default() }).await;
    let (rep, trace) = (running.client(), TraceId::default());
    let error = rep.state(&trace).await.unwrap_err();
    let expected =
        format!("GET /state at {}: the rep answers 503 Service Unavailable", running.address);
    assert_eq!(error.to_string(), expected);
    let error = rep.stop_lrp(&trace, "p", "unknown").await.unwrap_err();
    assert!(
        matches!(error, Error::Status { status: StatusCode::INTERNAL_SERVER_ERROR, .. }),
        "{error:?}"
    );
    running.stop().await;

    let other = Router::new().fallback(|| async { "hello" });
    let listener = Listener::bind(&"http://127.0.0.1:0".parse().unwrap(), None).await.unwrap();
    let address = listener.address().unwrap();
    let stop = CancellationToken::new();
    let task = tokio::spawn(Server::new(listener).serve(other, stop.clone()));
    let rep = RepClient::new(address.clone(), None, Timeouts::default()).unwrap();
    let error = rep.state(&trace).await.unwrap_err();
    assert_eq!(error.to_string(), format!("GET /state at {address}: the answer is not the rep's"));
    stop.cancel();
    task.await.unwrap();
}

#[tokio::test]
async fn a_fleet_makes_each_client_once_and_prefers_urls() {
    let fleet = Fleet::new(None, Timeouts::default());
    fleet.rep("c", "http://127.0.0.1:1801", "http://10.0.0.1:1800").unwrap();
    fleet.rep("d", "", "http://10.0.0.1:1800").unwrap();
    let known = Mutex::new(Vec::new());
    fleet.keep_only(|address| {
        known.lock().unwrap().push(address.to_string());
        true
    });
    let mut known = known.into_inner().unwrap();
    known.sort();
    assert_eq!(known, ["http://10.0.0.1:1800", "http://127.0.0.1:1801"]);
    let error = fleet.rep("e", "nowhere", "").unwrap_err();
    assert_eq!(error.to_string(), "cell e has no usable address");
    // TLS needs an identity.
    assert!(fleet.rep("f", "https://127.0.0.1:1801", "").is_err());
}
