//! One connection: requests one after the other, until it is closed or hijacked.

use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use tracing::{Instrument, Span, field};

use super::reply::{self, Reply};
use super::route::{Call, MALFORMED, Route, route};
use super::{Shared, calls, files, hijack, streams};
use crate::http::head::Received;
use crate::http::{BadRequest, Body, RequestHead, Wire};
use crate::meters::METERS;

/// What is read of a body that nobody wanted, to keep its connection.
const MOST_DISCARDED: usize = 256 * 1024;
/// How long the rest of a body may take, and a client to close its side after we have closed ours.
const LAST_PATIENCE: Duration = Duration::from_millis(500);
/// How long a connection may be idle while others wait to be accepted.
const CROWDED_PATIENCE: Duration = Duration::from_secs(1);

enum Next {
    Request(Box<RequestHead>),
    Refused(BadRequest),
    End,
}

/// What becomes of a connection after a call.
enum After {
    /// Another request may follow.
    Keep,
    Close,
}

/// Serves a connection. Its `place` among those that carry requests is free once it is hijacked.
pub(super) async fn serve(shared: &Shared, mut wire: Wire, place: OwnedSemaphorePermit) {
    let mut place = Some(place);
    loop {
        let head = match next(shared, &mut wire).await {
            Next::Request(head) => head,
            Next::Refused(bad) => {
                METERS.requests.count(MALFORMED, bad.status());
                if shared.write(&mut wire, &reply::refusal(bad)).await.is_ok() {
                    close(wire).await;
                }
                return;
            }
            Next::End => return,
        };
        let found = route(&head.method, &head.target.path);
        let span = span(shared.session(), &head, &found);
        let exchanged = exchange(shared, wire, *head, found, &mut place).instrument(span).await;
        match exchanged {
            Some(kept) => wire = kept,
            None => return,
        }
    }
}

/// What all that is logged about a request has in common. The trace is that of whoever asks.
fn span(session: u64, head: &RequestHead, found: &Route) -> Span {
    let span = tracing::info_span!(
        "request",
        session,
        route = found.pattern(),
        handle = field::Empty,
        "trace-id" = field::Empty,
        "span-id" = field::Empty
    );
    if let Route::Call { handle, .. } = found
        && !handle.is_empty()
    {
        span.record("handle", handle.as_str());
    }
    if let Some(trace) = head.trace_id() {
        span.record("trace-id", trace.as_str());
        let own = uuid::Uuid::new_v4().as_u64_pair().1;
        span.record("span-id", format!("{own:016x}").as_str());
    }
    span
}

/// Serves one request; the wire, if another one may follow.
async fn exchange(
    shared: &Shared,
    mut wire: Wire,
    mut head: RequestHead,
    found: Route,
    place: &mut Option<OwnedSemaphorePermit>,
) -> Option<Wire> {
    let (begun, _risen) = (Instant::now(), METERS.requests_under_way.rise());
    let (number, event) = (found.number(), found.event());
    let answered = |head: &RequestHead, status: u16| {
        METERS.requests.count(number, status);
        log(head, status, begun);
    };
    let said = match found {
        Route::Call { call: Call::Plain(call), handle, item, .. } => {
            calls::answer(shared, &mut wire, &mut head, call, handle, item).await
        }
        Route::Call { call: Call::StreamIn, handle, .. } => {
            files::stream_in(shared, &mut wire, &mut head, handle).await
        }
        Route::Call { call: Call::StreamOut, handle, .. } => {
            match files::stream_out(shared, &head, handle).await {
                Ok(archive) => {
                    answered(&head, 200);
                    // The connection's end is how a client learns that this was not all.
                    files::send(shared, &mut wire, &head, archive).await.ok()?;
                    if head.keep_alive && !head.old {
                        return Some(wire);
                    }
                    close(wire).await;
                    return None;
                }
                Err(reply) => reply,
            }
        }
        Route::Call { call: Call::Run, handle, .. } => {
            match hijack::run(shared, &mut wire, &mut head, handle).await {
                Ok(attached) => {
                    drop(place.take());
                    answered(&head, 201);
                    hijack::converse(shared, wire, &head, attached).await;
                    return None;
                }
                Err(reply) => reply,
            }
        }
        Route::Call { call: Call::Attach, handle, item, .. } => {
            match hijack::attach(shared, &mut wire, &mut head, handle, item).await {
                Ok(attached) => {
                    drop(place.take());
                    answered(&head, 200);
                    hijack::converse(shared, wire, &head, attached).await;
                    return None;
                }
                Err(reply) => reply,
            }
        }
        Route::Call { call: Call::Output(stream), item, .. } => match shared.hijack() {
            Ok(_seat) => {
                drop(place.take());
                answered(&head, 200);
                streams::serve(shared, wire, &head, &item, stream).await;
                return None;
            }
            Err(error) => Reply::failure(&error),
        },
        Route::OtherMethods(allow) => Reply::other_methods(allow),
        Route::Nowhere if head.method == "OPTIONS" && head.target.path == "*" => Reply::nothing(),
        Route::Nowhere => Reply::nowhere(),
    };
    answered(&head, said.status);
    let took = begun.elapsed();
    let sent = send(shared, &mut wire, &mut head, &said).await;
    // Nobody waits for the log.
    match (&said.error, event) {
        (Some(error), _) => tracing::info!(error, status = said.status, ?took, "failed"),
        (None, Some(event)) => tracing::info!(?took, "{event}"),
        (None, None) => {}
    }
    match sent {
        Ok(After::Keep) => Some(wire),
        Ok(After::Close) => {
            close(wire).await;
            None
        }
        Err(_) => None,
    }
}

fn log(head: &RequestHead, status: u16, begun: Instant) {
    let (method, path, request) = (&head.method, &head.target.path, &head.request_id);
    let request = request.as_deref().unwrap_or_default();
    tracing::debug!(method, path, status, request, took = ?begun.elapsed(), "answered");
}

async fn next(shared: &Shared, wire: &mut Wire) -> Next {
    let begun = async {
        if wire.ahead().is_empty() {
            let others_wait = async {
                tokio::time::sleep(CROWDED_PATIENCE).await;
                shared.crowded().await;
            };
            let filled = tokio::select! {
                biased;
                filled = wire.fill() => matches!(filled, Ok(true)),
                () = tokio::time::sleep(shared.settings.idle_patience) => false,
                () = others_wait => false,
            };
            if !filled {
                return Next::End;
            }
        }
        match tokio::time::timeout(shared.settings.head_patience, RequestHead::read(wire)).await {
            Ok(Ok(Received::Head(head))) => Next::Request(Box::new(head)),
            Ok(Ok(Received::Bad(bad))) => Next::Refused(bad),
            Ok(Ok(Received::Closed) | Err(_)) | Err(_) => Next::End,
        }
    };
    tokio::select! {
        biased;
        next = begun => next,
        () = shared.stopped() => Next::End,
    }
}

async fn send(
    shared: &Shared,
    wire: &mut Wire,
    head: &mut RequestHead,
    said: &Reply,
) -> std::io::Result<After> {
    let bytes = said.bytes(head);
    shared.write(wire, &bytes).await?;
    let keep = !said.ends_connection(head) && !shared.is_stopping() && discard(wire, head).await;
    Ok(if keep { After::Keep } else { After::Close })
}

/// Reads the rest of a body, within reason; whether that was all of it. A reading that was given up
/// in the middle of a line fails here.
async fn discard(wire: &mut Wire, head: &mut RequestHead) -> bool {
    if head.body == Body::Done {
        return true;
    }
    if head.expects_continue {
        return false;
    }
    let all = tokio::time::timeout(LAST_PATIENCE, async {
        let mut left = MOST_DISCARDED;
        loop {
            match head.body.next(wire).await {
                Ok(Some(piece)) if piece.len() <= left => left -= piece.len(),
                Ok(None) => return true,
                Ok(Some(_)) | Err(_) => return false,
            }
        }
    });
    all.await.unwrap_or(false)
}

/// Closes our side first and reads on for a moment: bytes that nobody has read would turn the end
/// into a reset, and the client would lose our last words.
pub(super) async fn close(mut wire: Wire) {
    if wire.finish().await.is_err() {
        return;
    }
    let _ = tokio::time::timeout(LAST_PATIENCE, async {
        while let Ok(true) = wire.fill().await {
            let length = wire.ahead().len();
            wire.consume(length);
        }
    })
    .await;
}
