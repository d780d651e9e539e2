//! The router's side of its clients' connections.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use transport::Stream;

use crate::head::{self, Refused, TOO_LARGE};
use crate::proxy::{After, Origin, Proxy};
use crate::refusal::{Refusal, date};
use crate::wire::{Wire, prepare};

/// Clients' connections at once, of one listener; more wait in its queue.
const MOST: usize = 20_000;
/// After accept(2) failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);
/// What a head may have beyond the limit, so that it can be refused in a better way.
const SLACK: usize = 4096;

/// Takes connections until told to stop. Each is a task of `connections`.
pub(crate) async fn listen(
    proxy: Arc<Proxy>,
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    connections: TaskTracker,
    stop: CancellationToken,
) {
    let room = Arc::new(Semaphore::new(MOST));
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (stream, peer) = listener.accept().await?;
            prepare(&stream)?;
            Ok::<_, io::Error>((stream, peer, place))
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((stream, peer, place)) => {
                let (proxy, tls) = (proxy.clone(), tls.clone());
                connections.spawn(async move {
                    let _place = place;
                    if let Err(error) = serve(&proxy, stream, peer, tls).await {
                        tracing::debug!(%peer, %error, "a client's connection failed");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn serve(
    proxy: &Proxy,
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
) -> io::Result<()> {
    let local = stream.local_addr()?;
    let origin = Origin { peer, tls: tls.is_some() };
    let stream = match tls {
        None => Stream::Tcp(stream),
        Some(tls) => {
            let handshake = timeout(proxy.config.tls_handshake_timeout, tls.accept(stream));
            Stream::Tls(Box::new(TlsStream::Server(handshake.await??)))
        }
    };
    let mut wire = Wire::new(stream, peer, local);
    loop {
        let head = match next_head(proxy, &mut wire).await? {
            Some(head) => head,
            None => return Ok(()),
        };
        let after = match head {
            Err(refused) => {
                wire.send(&refused.write()).await?;
                After::Lingers
            }
            Ok(request) => match without_routing(&request) {
                Some((answer, after)) => {
                    wire.send(&answer).await?;
                    after
                }
                None => proxy.answer(request, origin, &mut wire).await,
            },
        };
        match after {
            After::Stays if wire.reading.bytes.is_empty() => wire.reading.bytes = BytesMut::new(),
            After::Stays => {}
            After::Closes => return Ok(()),
            After::Lingers => {
                wire.linger().await;
                return Ok(());
            }
        }
    }
}

/// The next request's head; nothing if the client has no more, or may have no more.
async fn next_head(
    proxy: &Proxy,
    wire: &mut Wire,
) -> io::Result<Option<Result<head::Request, Refused>>> {
    let config = &proxy.config;
    if wire.reading.bytes.is_empty() {
        let filled = tokio::select! {
            biased;
            filled = timeout(config.frontend_idle_timeout, wire.reading.fill()) => filled,
            () = proxy.draining.cancelled() => return Ok(None),
        };
        if !matches!(filled, Ok(Ok(1..))) {
            return Ok(None);
        }
    }
    let patience = match config.read_header_timeout {
        Duration::ZERO => config.frontend_idle_timeout,
        patience => patience,
    };
    let most = config.max_request_header_bytes.max(1 << 20) + SLACK;
    let read = async {
        let mut seen = 0;
        loop {
            // Nothing comes before a request.
            if matches!(wire.reading.bytes.first(), Some(b'\r' | b'\n')) {
                return Ok(Some(Err(head::BAD)));
            }
            if let Some(end) = head::end(&wire.reading.bytes, seen) {
                if end > most {
                    return Ok(Some(Err(TOO_LARGE)));
                }
                return Ok(Some(head::request(wire.reading.bytes.split_to(end))));
            }
            seen = wire.reading.bytes.len();
            if seen > most {
                return Ok(Some(Err(TOO_LARGE)));
            }
            if let Some(line) = wire.reading.bytes.iter().position(|byte| *byte == b'\n') {
                // What is no request line need not be waited for.
                if !head::is_request_line(&wire.reading.bytes[..line]) {
                    return Ok(Some(Err(head::BAD)));
                }
            }
            if wire.reading.fill().await? == 0 {
                return Ok(None);
            }
        }
    };
    timeout(patience, read).await.unwrap_or(Ok(None))
}

/// What the server itself answers: a question about itself, and an expectation that nobody meets.
fn without_routing(request: &head::Request) -> Option<(Vec<u8>, After)> {
    let expectation = request.fields.get("Expect");
    if expectation.is_some_and(|expected| !expected.eq_ignore_ascii_case(b"100-continue")) {
        let date = date();
        let answer = format!(
            "HTTP/1.1 417 Expectation Failed\r\nConnection: close\r\nDate: {date}\r\n\
             Content-Length: 0\r\n\r\n"
        );
        return Some((answer.into_bytes(), After::Lingers));
    }
    if request.method == "OPTIONS" && request.target == "*" {
        let stays = request.keep_alive && request.framing == crate::body::Framing::Length(0);
        let date = date();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nDate: {date}\r\n\r\n");
        let after = if stays { After::Stays } else { After::Lingers };
        return Some((answer.into_bytes(), after));
    }
    None
}

/// Answers on a listener of the router's own: `answer` is given a request and says what to send, and
/// whether the connection is closed for it.
pub(crate) async fn listen_for_status(
    listener: TcpListener,
    proxy: Arc<Proxy>,
    answer: fn(&Proxy, &head::Request) -> (Refusal, bool),
    stop: CancellationToken,
) {
    let tasks = TaskTracker::new();
    let room = Arc::new(Semaphore::new(64));
    loop {
        let accepted = async {
            let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
            let (stream, peer) = listener.accept().await?;
            Ok::<_, io::Error>((stream, peer, place))
        };
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = accepted => accepted,
        };
        let Ok((stream, peer, place)) = accepted else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (proxy, stop) = (proxy.clone(), stop.clone());
        tasks.spawn(async move {
            let _place = place;
            let served = async {
                let local = stream.local_addr()?;
                let mut wire = Wire::new(Stream::Tcp(stream), peer, local);
                while let Some(head) = next_head(&proxy, &mut wire).await? {
                    let request = match head {
                        Ok(request) => request,
                        Err(refused) => return wire.send(&refused.write()).await,
                    };
                    let (response, closes) = answer(&proxy, &request);
                    let head_only = request.method == "HEAD";
                    let has_body = request.framing != crate::body::Framing::Length(0);
                    wire.send(&response.write(request.version, closes, head_only)).await?;
                    if closes || !request.keep_alive || has_body {
                        break;
                    }
                }
                Ok::<(), io::Error>(())
            };
            tokio::select! {
                _ = served => {}
                () = stop.cancelled() => {}
            }
        });
    }
}
