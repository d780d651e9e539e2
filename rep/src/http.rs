//! The rep's two addresses: the network's, for auctioneer and BBS, and the cell's own, for whoever
//! drains it. Answers are those of the original, byte for byte.

use std::convert::Infallible;
use std::sync::Arc;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use percent_encoding::percent_decode_str;
use rep_api::{EvacuateResponse, LrpUpdate, Work};
use serde::Serialize;
use serde::de::DeserializeOwned;
use transport::TraceId;

use crate::operations::Rep;
use crate::sync::Operation;
use crate::usage::Measured;
use crate::work;

/// Bytes of a request: an auctioneer's largest batch is far below.
const REQUEST: usize = 16 * 1024 * 1024;

/// An answer.
pub type Answer = Response<Full<Bytes>>;

/// What the network's address answers with.
#[derive(Clone, Debug)]
pub struct Network {
    /// The cell's.
    pub rep: Arc<Rep>,
    /// The cell's.
    pub measured: Arc<Measured>,
}

/// A request's path, taken apart.
#[derive(Debug, PartialEq, Eq)]
enum Route {
    State,
    Metrics,
    Work,
    Stop { guid: String },
    Update { guid: String },
    Cancel { guid: String },
    Reset,
    Nothing,
}

impl Route {
    fn of(path: &str) -> Self {
        let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        let parts: Vec<&str> = path.split('/').skip(1).collect();
        match parts[..] {
            ["state"] => Self::State,
            ["container_metrics"] => Self::Metrics,
            ["work"] => Self::Work,
            ["v1", "lrps", _, "instances", guid, "stop"] => Self::Stop { guid: decode(guid) },
            ["v1" | "v2", "lrps", _, "instances", guid] => Self::Update { guid: decode(guid) },
            ["v1", "tasks", guid, "cancel"] => Self::Cancel { guid: decode(guid) },
            ["sim", "reset"] => Self::Reset,
            _ => Self::Nothing,
        }
    }

    fn method(&self) -> Option<Method> {
        match self {
            Self::State | Self::Metrics => Some(Method::GET),
            Self::Work | Self::Stop { .. } | Self::Cancel { .. } | Self::Reset => {
                Some(Method::POST)
            }
            Self::Update { .. } => Some(Method::PUT),
            Self::Nothing => None,
        }
    }
}

impl Network {
    /// Answers one request.
    pub async fn answer(self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let route = Route::of(request.uri().path());
        if let Some(refused) = refused(route.method(), request.method()) {
            return Ok(refused);
        }
        let trace = TraceId::of(request.headers());
        let rep = &self.rep;
        Ok(match route {
            Route::State => {
                let mut answer = json(&rep.cell.state(&rep.load()));
                if let Err(reason) = &*rep.executor.garden_health().borrow() {
                    tracing::info!(reason, "the cell is asked for its state while unhealthy");
                    *answer.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                }
                answer
            }
            Route::Metrics => json(&self.measured.collection(&rep.cell.id)),
            Route::Work => match body(request).await {
                Some(work) => self.work(work, &trace),
                None => empty(StatusCode::BAD_REQUEST),
            },
            Route::Stop { guid } => accepted(rep.executor.stop(&guid), &guid, "stop"),
            Route::Update { guid } => match body::<LrpUpdate>(request).await {
                Some(update) => {
                    let routes = update
                        .internal_routes
                        .map(|routes| routes.into_iter().map(|route| route.hostname).collect());
                    let updated = rep.executor.update(&guid, routes, update.metric_tags);
                    accepted(updated, &guid, "update")
                }
                None => empty(StatusCode::BAD_REQUEST),
            },
            Route::Cancel { guid } => {
                if rep.executor.container(&guid).is_ok() {
                    rep.enqueue(&guid, Operation::Cancel, Some(trace));
                }
                empty(StatusCode::ACCEPTED)
            }
            Route::Reset | Route::Nothing => empty(StatusCode::INTERNAL_SERVER_ERROR),
        })
    }

    fn work(&self, work: Work, trace: &TraceId) -> Answer {
        let rep = &self.rep;
        if !work.cell_id.is_empty() && work.cell_id != rep.cell.id {
            tracing::warn!(meant = work.cell_id, "work of another cell is refused");
            return empty(StatusCode::INTERNAL_SERVER_ERROR);
        }
        if rep.evacuation.has_begun() {
            return json(&work);
        }
        let taken = work::take(&rep.executor, &rep.cell.root_fses, work, trace);
        for guid in &taken.guids {
            rep.enqueue(guid, Operation::Container, Some(trace.clone()));
        }
        json(&taken.failed)
    }
}

/// What the cell's own address answers with.
#[derive(Clone, Debug)]
pub struct Admin {
    /// The cell's.
    pub rep: Arc<Rep>,
}

impl Admin {
    /// Answers one request.
    pub async fn answer(self, request: Request<Incoming>) -> Result<Answer, Infallible> {
        let method = match request.uri().path() {
            "/ping" => Some(Method::GET),
            "/evacuate" => Some(Method::POST),
            _ => None,
        };
        if let Some(refused) = refused(method.clone(), request.method()) {
            return Ok(refused);
        }
        if method == Some(Method::GET) {
            return Ok(empty(StatusCode::OK));
        }
        self.rep.evacuation.begin();
        let ping_path = "/ping".to_owned();
        let body = serde_json::to_vec(&EvacuateResponse { ping_path }).unwrap_or_default();
        let mut answer = Response::new(Full::new(Bytes::from(body)));
        *answer.status_mut() = StatusCode::ACCEPTED;
        let kind = HeaderValue::from_static("application/json");
        answer.headers_mut().insert(CONTENT_TYPE, kind);
        Ok(answer)
    }
}

/// The answer to what is not served, or not in this way.
fn refused(served: Option<Method>, asked: &Method) -> Option<Answer> {
    match served {
        None => Some(text(StatusCode::NOT_FOUND, "404 page not found\n")),
        Some(served) if served != asked => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
            if let Ok(name) = HeaderValue::from_str(served.as_str()) {
                answer.headers_mut().insert(ALLOW, name);
            }
            Some(answer)
        }
        Some(_) => None,
    }
}

async fn body<T: DeserializeOwned>(request: Request<Incoming>) -> Option<T> {
    let body = Limited::new(request.into_body(), REQUEST)
        .collect()
        .await
        .inspect_err(|error| tracing::info!(error, "a request is not readable"))
        .ok()?;
    serde_json::from_slice(&body.to_bytes())
        .inspect_err(|error| tracing::info!(%error, "a request is not readable"))
        .ok()
}

fn accepted(done: Result<(), executor::Error>, guid: &str, what: &str) -> Answer {
    match done {
        Ok(()) => empty(StatusCode::ACCEPTED),
        Err(error) => {
            tracing::info!(guid, what, %error, "a call is refused");
            empty(StatusCode::INTERNAL_SERVER_ERROR)
        }
    }
}

/// JSON with a newline, and typed as the original types it.
fn json(body: &impl Serialize) -> Answer {
    let mut bytes = serde_json::to_vec(body).unwrap_or_default();
    bytes.push(b'\n');
    let mut answer = Response::new(Full::new(bytes.into()));
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer
}

fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

fn text(status: StatusCode, text: &'static str) -> Answer {
    let mut answer = Response::new(Full::new(Bytes::from_static(text.as_bytes())));
    *answer.status_mut() = status;
    let kind = HeaderValue::from_static("text/plain; charset=utf-8");
    answer.headers_mut().insert(CONTENT_TYPE, kind);
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_taken_apart() {
        for (path, route) in [
            ("/state", Route::State),
            ("/v1/lrps/p/instances/i%20g/stop", Route::Stop { guid: "i g".into() }),
            ("/v1/lrps/p/instances/ig", Route::Update { guid: "ig".into() }),
            ("/v2/lrps/p/instances/ig", Route::Update { guid: "ig".into() }),
            ("/v3/lrps/p/instances/ig", Route::Nothing),
            ("/v1/tasks/t/cancel", Route::Cancel { guid: "t".into() }),
            ("/ping", Route::Nothing),
            ("/", Route::Nothing),
        ] {
            assert_eq!(Route::of(path), route, "{path}");
        }
    }
}
