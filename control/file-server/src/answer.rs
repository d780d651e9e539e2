//! From a request to an answer.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimePrinter;
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _};
use tokio_util::io::ReaderStream;

use crate::conditions::{Wanted, wanted};
use crate::directory::{Directory, Found, Missing};

const PREFIX: &str = "/v1/static/";
/// Bytes that are read at once.
const PIECE: usize = 64 << 10;

/// Answers with what the directory has.
pub(crate) async fn answer(State(directory): State<Arc<Directory>>, request: Request) -> Response {
    let (head, _) = request.into_parts();
    let path = percent_encoding::percent_decode_str(head.uri.path()).decode_utf8();
    let Some(path) = path.ok().and_then(|path| Some(path.strip_prefix(PREFIX)?.to_owned())) else {
        return refuse(StatusCode::NOT_FOUND, "404 page not found");
    };
    if ![Method::GET, Method::HEAD].contains(&head.method) {
        return refuse(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed");
    }
    if path.split('/').any(|name| name == "..") {
        return refuse(StatusCode::BAD_REQUEST, "invalid URL path");
    }
    let found = tokio::task::spawn_blocking(move || {
        let found = directory.find(&path);
        if let Err(Missing::Unreadable(error)) = &found {
            tracing::error!(%error, path, "a file cannot be served");
        }
        found
    });
    match found.await {
        Ok(Ok(found)) => send(found, &head.headers, head.method == Method::HEAD).await,
        Ok(Err(Missing::Nothing)) => refuse(StatusCode::NOT_FOUND, "404 page not found"),
        Ok(Err(Missing::Directory)) => {
            refuse(StatusCode::UNAUTHORIZED, "Unauthorized to list the directory")
        }
        Ok(Err(Missing::Unreadable(_))) | Err(_) => {
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error")
        }
    }
}

async fn send(found: Found, asked: &HeaderMap, head_only: bool) -> Response {
    let Found { file, size, modified, digest } = found;
    let etag = format!("\"{digest}\"");
    let modified = Timestamp::try_from(modified).unwrap_or_default();
    let wanted = wanted(asked, &etag, modified.as_second(), size);
    let mut answer = Response::new(Body::empty());
    let headers = answer.headers_mut();
    let mut put = |name, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    };
    put(header::ETAG, etag);
    put(header::ACCEPT_RANGES, "bytes".into());
    if let Ok(date) = DateTimePrinter::new().timestamp_to_rfc9110_string(&modified) {
        put(header::LAST_MODIFIED, date);
    }
    let (status, part) = match wanted {
        Wanted::All => (StatusCode::OK, 0..size),
        Wanted::Part(part) => {
            put(header::CONTENT_RANGE, format!("bytes {}-{}/{size}", part.start, part.end - 1));
            (StatusCode::PARTIAL_CONTENT, part)
        }
        Wanted::Unchanged => {
            *answer.status_mut() = StatusCode::NOT_MODIFIED;
            return answer;
        }
        Wanted::Failed => {
            *answer.status_mut() = StatusCode::PRECONDITION_FAILED;
            return answer;
        }
        Wanted::Beyond => {
            let mut answer =
                refuse(StatusCode::RANGE_NOT_SATISFIABLE, "invalid range: failed to overlap");
            let range = HeaderValue::try_from(format!("bytes */{size}"));
            answer.headers_mut().extend(range.map(|range| (header::CONTENT_RANGE, range)));
            return answer;
        }
    };
    put(header::CONTENT_TYPE, "application/octet-stream".into());
    put(header::CONTENT_LENGTH, (part.end - part.start).to_string());
    *answer.status_mut() = status;
    if !head_only {
        let mut file = tokio::fs::File::from_std(file);
        if let Err(error) = file.seek(std::io::SeekFrom::Start(part.start)).await {
            tracing::error!(%error, "a file cannot be served");
            return refuse(StatusCode::INTERNAL_SERVER_ERROR, "500 Internal Server Error");
        }
        let bytes = ReaderStream::with_capacity(file.take(part.end - part.start), PIECE);
        *answer.body_mut() = Body::from_stream(bytes);
    }
    answer
}

/// As Go says it.
fn refuse(status: StatusCode, text: &str) -> Response {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
        .header(header::X_CONTENT_TYPE_OPTIONS, "nosniff")
        .body(Body::from(format!("{text}\n")))
        .unwrap_or_default()
}
