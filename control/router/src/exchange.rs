//! One attempt: a request sent to an endpoint and its response to the client, both streamed at once.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncWriteExt as _, WriteHalf};
use tokio::sync::Notify;
use tokio::time::Instant;
use transport::Stream;

use crate::body::{Decoder, Found, Framing, begin_chunk, end_chunks};
use crate::dial::Dialed;
use crate::endpoint::Said;
use crate::failure::{Failure, ends};
use crate::fields::{Fields, write_field};
use crate::head::{self, Response, Version};
use crate::refusal::{Refusal, begin, date};
use crate::wire::{Reading, Wire, send};

/// What is gathered before it is sent.
const PIECE: usize = 8 << 10;
/// What a client may send ahead of the response to its request.
const AHEAD: usize = 64 << 10;
/// How long an endpoint may be silent before the router itself tells the client to go on.
const EXPECTATION: Duration = Duration::from_secs(1);

/// A request as it goes to endpoints.
#[derive(Debug)]
pub(crate) struct Forward {
    pub(crate) method: Bytes,
    pub(crate) target: Bytes,
    pub(crate) host: Bytes,
    pub(crate) user_agent: Option<Bytes>,
    /// Without what names the endpoint.
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    pub(crate) trailer: Option<Bytes>,
    /// The protocol that the client wants instead.
    pub(crate) upgrade: Option<Bytes>,
    /// The client waits for 100 (Continue) before it sends its body.
    pub(crate) expects: bool,
    pub(crate) version: Version,
    pub(crate) keep_alive: bool,
    pub(crate) deadline: Option<Instant>,
    pub(crate) limits: Limits,
}

/// Of a response's head.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) bytes: usize,
    pub(crate) fields: usize,
}

/// How a response ended.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    /// Of the body.
    pub(crate) bytes: u64,
    pub(crate) router_error: String,
    /// The client did not get all of it.
    pub(crate) is_cut: bool,
    /// The connection can be used for the client's next request.
    pub(crate) client_stays: bool,
    /// The connection can be used for another request.
    pub(crate) endpoint_stays: bool,
}

/// How far a request's body is.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    begun: AtomicBool,
    done: AtomicBool,
    changed: Notify,
}

impl Progress {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Whether any of it may have been taken from the client.
    pub(crate) fn has_begun(&self) -> bool {
        self.begun.load(Ordering::Relaxed)
    }

    pub(crate) fn finish(&self) {
        self.done.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_done(&self) -> bool {
        self.done.load(Ordering::Relaxed)
    }
}

/// Keeps a body back until it is asked for.
#[derive(Debug)]
struct Gate {
    open: AtomicBool,
    changed: Notify,
}

impl Gate {
    fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.changed.notify_one();
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    async fn opened(&self) {
        while !self.is_open() {
            self.changed.notified().await;
        }
    }
}

impl Forward {
    fn write(&self, said: &Said, closes: bool, last: bool) -> Vec<u8> {
        let mut out = Vec::with_capacity(1024);
        for part in [&self.method[..], b" ", &self.target, b" HTTP/1.1\r\n"] {
            out.extend_from_slice(part);
        }
        write_field(&mut out, b"Host", &self.host);
        if let Some(agent) = &self.user_agent {
            write_field(&mut out, b"User-Agent", agent);
        }
        match self.framing {
            Framing::Length(0) if !matches!(&self.method[..], b"POST" | b"PUT" | b"PATCH") => {}
            Framing::Length(length) => {
                write_field(&mut out, b"Content-Length", length.to_string().as_bytes());
            }
            Framing::Chunked | Framing::UntilClose => {
                write_field(&mut out, b"Transfer-Encoding", b"chunked");
                if let Some(trailer) = &self.trailer {
                    write_field(&mut out, b"Trailer", trailer);
                }
            }
        }
        let mut fields = self.fields.clone();
        fields.set("X-Cf-Applicationid", said.app.clone());
        fields.set("X-Cf-Instanceid", said.id().to_owned());
        fields.set("X-Cf-Instanceindex", said.instance_index.clone());
        if let Some(protocol) = &self.upgrade {
            fields.set("Connection", "Upgrade");
            fields.set("Upgrade", protocol.clone());
        } else if closes {
            fields.set("Connection", "close");
        }
        fields.write(&mut out);
        if last {
            write_field(&mut out, b"Connection", b"close");
        }
        out.extend_from_slice(b"\r\n");
        out
    }
}

/// How an attempt treats its connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Manner {
    /// Say that the connection ends because the client expects to be asked for its body.
    pub(crate) closes: bool,
    /// Say that it ends because none is kept.
    pub(crate) last: bool,
}

/// Sends a request and passes the response on. `decorate` changes the response's fields before. An error
/// means that the client has not got anything.
pub(crate) async fn attempt(
    forward: &Forward,
    said: &Said,
    manner: Manner,
    client: &mut Wire,
    dialed: &mut Dialed,
    (body, progress): (&mut Decoder, &Progress),
    decorate: impl Fn(&mut Response),
) -> Result<Answered, Failure> {
    let endpoint = &mut dialed.wire;
    let ends = ends(endpoint);
    let deadline = forward.deadline;
    let head = forward.write(said, manner.closes, manner.last);
    match within(deadline, endpoint.send(&head)).await {
        Some(Ok(())) => {}
        Some(Err(error)) => return Err(Failure::broken(&ends, &error)),
        None => return Err(Failure::timeout()),
    }

    let gate = Gate { open: AtomicBool::new(!forward.expects), changed: Notify::new() };
    let (reading, writing) = (&mut client.reading, &mut endpoint.writing);
    let mut upload = Box::pin(upload(forward, reading, body, writing, progress, &gate));
    let received = receive(forward, &mut endpoint.reading, &mut client.writing, &gate, &ends);
    let mut response = tokio::select! {
        biased;
        response = received => response?,
        failure = &mut upload => return Err(failure),
        () = expired(deadline) => return Err(Failure::timeout()),
    };

    if response.status <= 101 {
        drop(upload);
        if response.status < 100 {
            let mut refusal = Refusal::bare(502, Some("unknown_failure"));
            response.fields = std::mem::take(&mut refusal.fields);
            decorate(&mut response);
            refusal.fields = response.fields;
            return refuse(forward, client, refusal).await;
        }
        let agreed = response.fields.get("Upgrade").zip(forward.upgrade.as_ref());
        let agreed = agreed.filter(|(given, wanted)| given.eq_ignore_ascii_case(wanted));
        let agreed = agreed.map(|(given, _)| given.clone());
        return switch(forward, client, endpoint, response, agreed, decorate).await;
    }
    let head_only = &forward.method[..] == b"HEAD";
    let trailer = response.fields.get("Trailer").cloned();
    response.fields.strip_hop_by_hop(&[]);
    decorate(&mut response);
    let framing = if head_only { Framing::Length(0) } else { response.framing };
    let chunked = framing == Framing::Chunked
        || framing == Framing::UntilClose && forward.version == Version::Http11;
    let is_known =
        chunked && forward.version == Version::Http11 || matches!(framing, Framing::Length(_));
    // A body that was not asked for will not come, or will be taken for a request.
    let mut stays = forward.keep_alive && is_known && (progress.is_done() || gate.is_open());
    let chunked = chunked && forward.version == Version::Http11;

    let mut out = begin(forward.version, response.status);
    if let Some(trailer) = trailer.filter(|_| chunked) {
        response.fields.add("Trailer", trailer);
    }
    let has_date = response.fields.get("Date").is_some();
    response.fields.write(&mut out);
    if !has_date {
        write_field(&mut out, b"Date", date().as_bytes());
    }
    match (forward.version, stays) {
        (Version::Http11, false) => write_field(&mut out, b"Connection", b"close"),
        (Version::Http10, true) => write_field(&mut out, b"Connection", b"keep-alive"),
        _ => {}
    }
    if chunked {
        write_field(&mut out, b"Transfer-Encoding", b"chunked");
    }
    out.extend_from_slice(b"\r\n");

    let mut download = Decoder::new(framing);
    let count = AtomicU64::new(0);
    let to_client = &mut client.writing;
    let coding = if chunked { Coding::Whole } else { Coding::None };
    let pumped = pump(&mut endpoint.reading, &mut download, to_client, coding, &count, out);
    let passed = tokio::select! {
        biased;
        passed = pumped => passed.is_ok(),
        _ = &mut upload => false,
        () = expired(deadline) => false,
    };
    if passed && stays && !progress.is_done() {
        // The app has answered early; the next request is behind the rest of this one's body.
        stays = tokio::select! {
            () = progress.changed.notified() => progress.is_done(),
            _ = &mut upload => false,
            () = expired(deadline) => false,
        };
    }
    let endpoint_stays = passed
        && response.keep_alive
        && framing != Framing::UntilClose
        && progress.is_done()
        && endpoint.reading.bytes.is_empty();
    Ok(Answered {
        status: response.status,
        bytes: count.into_inner(),
        router_error: router_error(&response.fields),
        is_cut: !passed,
        client_stays: stays && passed,
        endpoint_stays,
    })
}

/// The other protocol's bytes, in both directions, until both have ended.
async fn switch(
    forward: &Forward,
    client: &mut Wire,
    endpoint: &mut Wire,
    mut response: Response,
    agreed: Option<Bytes>,
    decorate: impl Fn(&mut Response),
) -> Result<Answered, Failure> {
    let Some(protocol) = agreed else {
        return refuse(forward, client, Refusal::bare(502, None)).await;
    };
    response.fields.strip_hop_by_hop(&[]);
    decorate(&mut response);
    response.fields.set("Connection", "Upgrade");
    response.fields.set("Upgrade", protocol);
    let mut out = begin(Version::Http11, 101);
    response.fields.write(&mut out);
    out.extend_from_slice(b"\r\n");
    let _ = client.send(&out).await;
    let _ = tokio::try_join!(
        pass_on(&mut client.reading, &mut endpoint.writing),
        pass_on(&mut endpoint.reading, &mut client.writing),
    );
    Ok(Answered {
        status: 101,
        bytes: 0,
        router_error: router_error(&response.fields),
        is_cut: false,
        client_stays: false,
        endpoint_stays: false,
    })
}

/// Until its end, which is passed on too.
async fn pass_on(from: &mut Reading, to: &mut WriteHalf<Stream>) -> io::Result<()> {
    loop {
        if !from.bytes.is_empty() {
            let bytes = from.bytes.split();
            send(to, &bytes).await?;
        }
        if from.fill().await? == 0 {
            return to.shutdown().await;
        }
    }
}

/// An answer in place of one that cannot be passed on.
async fn refuse(
    forward: &Forward,
    client: &mut Wire,
    refusal: Refusal,
) -> Result<Answered, Failure> {
    let (status, router_error) = (refusal.status, refusal.error());
    let out = refusal.write(forward.version, !forward.keep_alive, false);
    let is_cut = client.send(&out).await.is_err();
    Ok(Answered {
        status,
        bytes: 0,
        router_error,
        is_cut,
        client_stays: forward.keep_alive && !is_cut,
        endpoint_stays: false,
    })
}

fn router_error(fields: &Fields) -> String {
    let error = fields.get("X-Cf-Routererror");
    error.map(|error| String::from_utf8_lossy(error).into_owned()).unwrap_or_default()
}

/// Sends the request's body, and then waits for the client to leave: it only returns when the request
/// has come to nothing.
async fn upload(
    forward: &Forward,
    client: &mut Reading,
    body: &mut Decoder,
    endpoint: &mut WriteHalf<Stream>,
    progress: &Progress,
    gate: &Gate,
) -> Failure {
    if !body.is_done() {
        gate.opened().await;
        progress.begun.store(true, Ordering::Relaxed);
        // Trailers stay here, as on the original: an app might take them for fields.
        let coding =
            if forward.framing == Framing::Chunked { Coding::Chunks } else { Coding::None };
        match pump(client, body, endpoint, coding, &progress.bytes, Vec::new()).await {
            Ok(()) => progress.finish(),
            Err(Stopped::Source) => return Failure::client_gone(),
            Err(Stopped::Body(text)) => return Failure::body(text),
            // Its response, or the lack of one, tells more.
            Err(Stopped::Sink) => {}
        }
    } else {
        progress.finish();
    }
    progress.changed.notify_one();
    while client.bytes.len() < AHEAD {
        if !matches!(client.fill().await, Ok(1..)) {
            return Failure::client_gone();
        }
    }
    std::future::pending().await
}

/// How a body is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Coding {
    None,
    /// In chunks.
    Chunks,
    /// In chunks, with the trailers that came.
    Whole,
}

/// Why a body was not passed on.
enum Stopped {
    Source,
    Body(&'static str),
    Sink,
}

/// Passes a body on, behind the bytes of `out`. What is there goes at once; nothing is held back.
async fn pump(
    from: &mut Reading,
    body: &mut Decoder,
    to: &mut WriteHalf<Stream>,
    coding: Coding,
    count: &AtomicU64,
    mut out: Vec<u8>,
) -> Result<(), Stopped> {
    let chunked = coding != Coding::None;
    let mut none = Fields::default();
    let mut pieces: Vec<Bytes> = Vec::new();
    loop {
        let bad = match body.take(&mut from.bytes) {
            Ok(Found::Data(data)) => {
                count.fetch_add(data.len() as u64, Ordering::Relaxed);
                pieces.push(data);
                continue;
            }
            Ok(Found::Nothing | Found::End) => None,
            Err(text) => Some(text),
        };
        let gathered = pieces.iter().map(Bytes::len).sum::<usize>();
        if gathered > 0 && chunked {
            begin_chunk(&mut out, gathered);
        }
        for piece in pieces.drain(..) {
            if !chunked && piece.len() >= PIECE {
                send(to, &out).await.map_err(|_| Stopped::Sink)?;
                out.clear();
                send(to, &piece).await.map_err(|_| Stopped::Sink)?;
            } else {
                out.extend_from_slice(&piece);
            }
        }
        if gathered > 0 && chunked {
            out.extend_from_slice(b"\r\n");
        }
        let ended = body.is_done();
        if ended && chunked {
            let trailers = if coding == Coding::Whole { body.trailers() } else { &mut none };
            end_chunks(&mut out, trailers);
        }
        if !out.is_empty() {
            send(to, &out).await.map_err(|_| Stopped::Sink)?;
            out.clear();
        }
        if ended {
            return Ok(());
        }
        if let Some(text) = bad {
            return Err(Stopped::Body(text));
        }
        match from.fill().await {
            Ok(1..) => {}
            Ok(0) if body.ends_by_close() => {
                if chunked {
                    end_chunks(&mut out, &mut none);
                    send(to, &out).await.map_err(|_| Stopped::Sink)?;
                }
                return Ok(());
            }
            Ok(0) | Err(_) => return Err(Stopped::Source),
        }
    }
}

/// The head of the response, once it is there. What is said before is passed on.
async fn receive(
    forward: &Forward,
    endpoint: &mut Reading,
    client: &mut WriteHalf<Stream>,
    gate: &Gate,
    ends: &str,
) -> Result<Response, Failure> {
    let client_gone = |_| Failure::client_gone();
    let silent = tokio::time::sleep(EXPECTATION);
    tokio::pin!(silent);
    loop {
        let mut seen = 0;
        let end = loop {
            if let Some(end) = head::end(&endpoint.bytes, seen) {
                break end;
            }
            seen = endpoint.bytes.len();
            if seen > forward.limits.bytes {
                return Err(Failure::response(too_long(forward.limits.bytes)));
            }
            let filled = tokio::select! {
                filled = endpoint.fill() => filled,
                () = &mut silent, if !gate.is_open() => {
                    gate.open();
                    send(client, b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(client_gone)?;
                    continue;
                }
            };
            match filled {
                Ok(1..) => {}
                Ok(0) if endpoint.bytes.is_empty() => return Err(Failure::closed()),
                Ok(0) => {
                    let mut head = endpoint.bytes.split();
                    head.extend_from_slice(b"\r\n\r\n");
                    return Err(Failure::response(head::response(head).err().unwrap_or_else(
                        || {
                            "net/http: HTTP/1.x transport connection broken: unexpected EOF"
                                .to_owned()
                        },
                    )));
                }
                Err(error) => return Err(Failure::broken(ends, &error)),
            }
        };
        if end > forward.limits.bytes {
            return Err(Failure::response(too_long(forward.limits.bytes)));
        }
        let head = endpoint.bytes.split_to(end);
        let mut response = head::response(head).map_err(Failure::response)?;
        if forward.limits.fields > 0 && response.fields.len() > forward.limits.fields {
            return Err(Failure::response("Too many response headers"));
        }
        match response.status {
            100 if !gate.is_open() => {
                send(client, b"HTTP/1.1 100 Continue\r\n\r\n").await.map_err(client_gone)?;
                gate.open();
            }
            100 => {}
            102..=199 if forward.version == Version::Http11 => {
                response.fields.strip_hop_by_hop(&[]);
                let mut out = begin(Version::Http11, response.status);
                response.fields.write(&mut out);
                out.extend_from_slice(b"\r\n");
                send(client, &out).await.map_err(client_gone)?;
            }
            102..=199 => {}
            _ => return Ok(response),
        }
    }
}

fn too_long(limit: usize) -> String {
    format!(
        "net/http: HTTP/1.x transport connection broken: \
         net/http: server response headers exceeded {limit} bytes; aborted"
    )
}

async fn expired(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

async fn within<T>(deadline: Option<Instant>, future: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        value = future => Some(value),
        () = expired(deadline) => None,
    }
}
