//! The read API over HTTP: the original's gateway, and with [`Access`] its cf-auth-proxy before it.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, Method, StatusCode, header};
use serde_json::{Value, json};

use crate::access::{Access, Sources};
use crate::following::follow;
use crate::json;
use crate::query::{Query, unescape};
use crate::selection::Selection;
use crate::server::LogCache;

/// The release whose API is served. Clients take an older one's answers for those of another API.
const VERSION: &str = "3.2.12";
/// Nanoseconds by which the walk of a cf CLI is moved into the past.
const SHIFT: i64 = 2_100_000_000;

#[derive(Clone, Debug)]
struct Api {
    cache: LogCache,
    access: Option<Arc<Access>>,
}

/// Without `access` everybody may read everything.
pub(crate) fn routes(cache: LogCache, access: Option<Arc<Access>>) -> Router {
    Router::new().fallback(answer).with_state(Api { cache, access })
}

/// What is asked for.
enum Asked {
    Info,
    Meta,
    /// The source, still escaped.
    Read(String),
}

impl Asked {
    fn of(path: &str) -> Option<Self> {
        match path.strip_prefix("/api/v1/")? {
            "info" => Some(Self::Info),
            "meta" => Some(Self::Meta),
            "read" => Some(Self::Read(String::new())),
            other => other.strip_prefix("read/").map(|source| Self::Read(source.to_owned())),
        }
    }
}

async fn answer(State(api): State<Api>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let Some(asked) = Asked::of(head.uri.path()) else { return api.no_such_path() };
    let query = head.uri.query().unwrap_or_default();
    let is_get = head.method == Method::GET;
    match asked {
        Asked::Info => info(&api.cache),
        Asked::Meta => api.meta(is_get, query, &head.headers).await,
        Asked::Read(source) => api.read(is_get, &source, query, &head.headers).await,
    }
}

impl Api {
    fn no_such_path(&self) -> Response {
        match self.access {
            // Go's own answer, since the proxy knows no such path.
            Some(_) => Response::builder()
                .status(StatusCode::NOT_FOUND)
                .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
                .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
                .body(Body::from("404 page not found\n"))
                .unwrap_or_default(),
            None => refusal(5, "Not Found"),
        }
    }

    async fn meta(&self, is_get: bool, query: &str, headers: &HeaderMap) -> Response {
        let sources = match &self.access {
            None => None,
            Some(access) => match access.reader(headers).await {
                None => return hidden(),
                Some(reader) => Some(access.sources(&reader).await),
            },
        };
        if !is_get {
            return refusal(12, "Method Not Allowed");
        }
        if let Err(what) = Query::parse(query).and_then(|query| query.meta()) {
            return refusal(3, &what);
        }
        let mut meta = self.cache.store().meta();
        match sources {
            None => document(StatusCode::OK, "application/json", &json::meta(&meta)),
            Some(sources) => {
                if matches!(sources, Sources::These(_)) {
                    meta.retain(|id, _| sources.contains(id));
                }
                let shown = json::public_meta(&meta);
                document(StatusCode::OK, "text/plain; charset=utf-8", &shown)
            }
        }
    }

    async fn read(&self, is_get: bool, source: &str, query: &str, headers: &HeaderMap) -> Response {
        let Ok(source_id) = unescape(source, false) else {
            return refusal(3, "the source id is not encoded as a path is");
        };
        if let Some(access) = &self.access {
            if source_id.is_empty() {
                return self.no_such_path();
            }
            let Some(reader) = access.reader(headers).await else { return hidden() };
            if !access.allows(&reader, &source_id).await {
                return hidden();
            }
        }
        if !is_get {
            return refusal(12, "Method Not Allowed");
        }
        let request = match Query::parse(query).and_then(|query| query.read(source_id)) {
            Ok(request) => request,
            Err(what) => return refusal(3, &what),
        };
        let mut selection = match Selection::of(&request) {
            Ok(selection) => selection,
            Err(bad) => return refusal(2, &bad.to_string()),
        };
        let is_cf = headers
            .get(header::USER_AGENT)
            .is_some_and(|agent| agent.as_bytes().starts_with(b"cf/"));
        let walks = !selection.descending || selection.limit == 1;
        let (entries, shift) = if is_cf && walks {
            // The CLI holds back what is younger than two seconds by its clock, and gives it up when
            // its command ends. What it sees of a walk is therefore older by more than that.
            selection.start = later(selection.start);
            selection.end = selection.end.map(later);
            let (store, source_id) = (self.cache.store(), &request.source_id);
            let entries = match selection.end {
                Some(_) => store.walk(source_id, &selection),
                None => tokio::select! {
                    entries = follow(store, source_id, &selection) => entries,
                    () = self.cache.stopped() => Vec::new(),
                },
            };
            (entries, SHIFT)
        } else {
            (self.cache.store().read(&request.source_id, &selection), 0)
        };
        document(StatusCode::OK, "application/json", &json::envelopes(&entries, shift))
    }
}

fn info(cache: &LogCache) -> Response {
    let uptime = cache.started().elapsed().as_secs().to_string();
    let shown = json!({"version": VERSION, "vm_uptime": uptime});
    document(StatusCode::OK, "text/plain; charset=utf-8", &shown)
}

/// The time in the store that a walk means.
fn later(at: i64) -> i64 {
    if at > 0 { at.saturating_add(SHIFT) } else { at }
}

/// What a reader gets who may not know whether there is something.
fn hidden() -> Response {
    let mut answer = Response::new(Body::empty());
    *answer.status_mut() = StatusCode::NOT_FOUND;
    answer
}

/// A refusal with a code of gRPC.
fn refusal(code: u8, message: &str) -> Response {
    let status = match code {
        3 => StatusCode::BAD_REQUEST,
        5 => StatusCode::NOT_FOUND,
        12 => StatusCode::NOT_IMPLEMENTED,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    document(status, "application/json", &json!({"code": code, "message": message, "details": []}))
}

fn document(status: StatusCode, kind: &'static str, body: &Value) -> Response {
    let builder = Response::builder().status(status).header(header::CONTENT_TYPE, kind);
    builder.body(Body::from(format!("{body}\n"))).unwrap_or_default()
}
