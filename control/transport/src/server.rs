//! Answering on one listener.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Buf;
use http::{Request, Response};
use hyper::body::{Body, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_util::sync::CancellationToken;
use tower::{Service, ServiceExt};

use crate::error::BoxError;
use crate::listener::Listener;
use crate::stream::Stream;

/// After accept(2) failed for want of descriptors or memory.
const PAUSE: Duration = Duration::from_millis(100);

/// What a client may make a server hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections at once; more wait in the socket's queue.
    pub connections: usize,
    /// Bytes of one request's head.
    pub head: usize,
    /// For the TLS handshake.
    pub handshake: Duration,
    /// For a connection without a request, counted to the end of the next head. Longer than
    /// clients keep idle connections, the originals' for 90 s: a request must not meet a
    /// connection that is being closed.
    pub idle: Duration,
    /// For requests under way when the server is told to stop; then they are cut off.
    pub grace: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            head: 64 * 1024,
            handshake: Duration::from_secs(10),
            idle: Duration::from_secs(120),
            grace: Duration::from_secs(10),
        }
    }
}

/// Whom a request comes from: an extension of every request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// `None` on a unix socket.
    pub address: Option<SocketAddr>,
}

/// A listener with its limits.
#[derive(Debug)]
pub struct Server {
    listener: Listener,
    limits: Limits,
}

impl Server {
    /// With the default limits.
    pub fn new(listener: Listener) -> Self {
        Self { listener, limits: Limits::default() }
    }

    /// With other limits.
    pub fn with_limits(self, limits: Limits) -> Self {
        Self { limits, ..self }
    }

    /// Answers with `service`, HTTP/1.1 or HTTP/2 as the client wishes, until told to stop. Then
    /// accepts no more, lets the requests under way end for as long as [`Limits::grace`], and
    /// closes the listener. A service with endless answers must end them by the same token. An
    /// axum `Router` and tonic's `Routes` are services.
    pub async fn serve<S, B>(self, service: S, stop: CancellationToken)
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + Sync + 'static,
        S::Error: Into<BoxError>,
        S::Future: Send,
        B: Body + Send + 'static,
        B::Data: Buf + Send,
        B::Error: Into<BoxError>,
    {
        let Self { listener, limits } = self;
        let room = Arc::new(Semaphore::new(limits.connections));
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => break,
                Some(_) = connections.join_next() => continue,
                accepted = accept(&listener, &room) => accepted,
            };
            let (stream, peer, place) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            let tls = listener.identity().map(|identity| identity.server_config().into());
            let (service, stop) = (service.clone(), stop.clone());
            connections.spawn(async move {
                let _place = place;
                if let Err(error) = connection(stream, peer, tls, limits, service, &stop).await {
                    tracing::debug!(?peer, error, "a connection failed");
                }
            });
        }
        let ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limits.grace, ended).await.is_err() {
            tracing::warn!(left = connections.len(), "connections are cut off");
            connections.shutdown().await;
        }
    }
}

type Place = tokio::sync::OwnedSemaphorePermit;

async fn accept(
    listener: &Listener,
    room: &Arc<Semaphore>,
) -> io::Result<(Stream, Option<SocketAddr>, Place)> {
    let place = room.clone().acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    Ok((stream, peer, place))
}

async fn connection<S, B>(
    stream: Stream,
    address: Option<SocketAddr>,
    tls: Option<TlsAcceptor>,
    limits: Limits,
    service: S,
    stop: &CancellationToken,
) -> Result<(), String>
where
    S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    let stream = match (stream, tls) {
        (Stream::Tcp(stream), Some(tls)) => tokio::select! {
            () = stop.cancelled() => return Ok(()),
            shaken = tokio::time::timeout(limits.handshake, tls.accept(stream)) => {
                let stream = shaken
                    .map_err(|_| "the TLS handshake took too long".to_owned())?
                    .map_err(|error| format!("TLS handshake: {error}"))?;
                Stream::Tls(Box::new(TlsStream::Server(stream)))
            }
        },
        (stream, _) => stream,
    };

    let spoken = Arc::new(AtomicBool::new(false));
    let heard = spoken.clone();
    let answering = service_fn(move |mut request: Request<Incoming>| {
        heard.store(true, Ordering::Relaxed);
        request.extensions_mut().insert(Peer { address });
        service.clone().oneshot(request)
    });
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    protocol
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle)
        .max_buf_size(limits.head);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits.head).unwrap_or(u32::MAX))
        .keep_alive_interval(limits.idle / 2)
        .keep_alive_timeout(limits.idle / 2);
    let connection = protocol.serve_connection_with_upgrades(TokioIo::new(stream), answering);
    tokio::pin!(connection);

    // hyper bounds a head and the time between two, but not the time until a client's first bytes
    // tell which protocol it speaks.
    let silent = tokio::time::sleep(limits.idle);
    tokio::pin!(silent);
    let mut waiting = true;
    loop {
        tokio::select! {
            ended = connection.as_mut() => return ended.map_err(|error| error.to_string()),
            () = &mut silent, if waiting => {
                waiting = false;
                if !spoken.load(Ordering::Relaxed) {
                    return Err("there was no request".into());
                }
            }
            () = stop.cancelled() => break,
        }
    }
    connection.as_mut().graceful_shutdown();
    connection.await.map_err(|error| error.to_string())
}
