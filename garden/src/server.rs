//! Garden's HTTP API on a socket.
//!
//! ```text
//! listener ──> connection ──route──> calls     one call on the gardener, a JSON answer
//!                  │                 files     archives in and out
//!                  ├── run, attach ─> hijack   frames both ways until the process ends
//!                  └── stdout, stderr streams  raw output of an attach, found by its token
//! ```
//!
//! A connection is one task, and stays one when it is hijacked. What the gardener does blocks, so it
//! runs on threads for that; archives go through a pipe, since a client decides how long they take.

mod calls;
mod connection;
mod debug;
mod files;
mod hijack;
mod listener;
mod pace;
mod reply;
mod route;
mod streams;
mod tokens;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::JoinSet;
use tracing::Span;

pub use debug::{DebugListener, SetVerbosity, Verbosity};
pub use listener::Listener;
pub(crate) use route::names as route_names;

use crate::error::Error;
use crate::gardener::Gardener;
use crate::http::Wire;
use tokens::Tokens;

/// After a stop, calls that are under way may take so long.
const STOP_PATIENCE: Duration = Duration::from_secs(30);
/// How long accepting pauses when there are no descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What an operator decides about the server.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// How long a request's head may take from its first byte to its last.
    pub head_patience: Duration,
    /// How long a connection may be idle between requests. The official client leaves connections
    /// of failed calls open for ever.
    pub idle_patience: Duration,
    /// How long a client may take for the body of a request or to read an answer, and for each 128 KiB
    /// of an archive in either direction.
    pub body_patience: Duration,
    /// Connections at once that carry requests; further ones wait to be accepted, and idle ones are
    /// closed meanwhile.
    pub connections: usize,
    /// Connections at once that belong to a process, of Run, Attach, Stdout and Stderr; further calls
    /// are refused. They do not count among `connections`.
    pub hijacked: usize,
}

impl Default for Settings {
    fn default() -> Self {
        let descriptors = most_descriptors();
        Self {
            head_patience: Duration::from_secs(60),
            idle_patience: Duration::from_secs(120),
            body_patience: Duration::from_secs(120),
            connections: descriptors / 10,
            hijacked: descriptors / 5 * 2,
        }
    }
}

/// Descriptors that this process may have; a tenth is enough for requests, two fifths are for
/// clients of processes, and the rest for containers.
fn most_descriptors() -> usize {
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX).min(40960)
}

/// What all connections share.
#[derive(Debug)]
struct Shared {
    gardener: Arc<Gardener>,
    tokens: Arc<Tokens>,
    settings: Settings,
    stop: watch::Receiver<bool>,
    /// Room for connections that belong to processes.
    hijacked: Arc<Semaphore>,
    /// Connections wait to be accepted until others end.
    crowded: watch::Sender<bool>,
    sessions: AtomicU64,
}

impl Shared {
    /// Makes a blocking call on a thread that may block.
    async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Arc<Gardener>) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (gardener, span) = (Arc::clone(&self.gardener), Span::current());
        let called = tokio::task::spawn_blocking(move || span.in_scope(|| call(&gardener))).await;
        called.unwrap_or_else(|_| Err(Error::Plain("the server failed in this call".into())))
    }

    /// Writes what a client must read in time.
    async fn write(&self, wire: &mut Wire, bytes: &[u8]) -> io::Result<()> {
        let written = tokio::time::timeout(self.settings.body_patience, wire.write(bytes)).await;
        written.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Waits until the server is to stop.
    async fn stopped(&self) {
        // A sender that is gone will not stop us any more, but nor does anybody want us to serve.
        let _ = self.stop.clone().wait_for(|stop| *stop).await;
    }

    /// Waits until connections wait for others to end.
    async fn crowded(&self) {
        let _ = self.crowded.subscribe().wait_for(|crowded| *crowded).await;
    }

    /// A place for a connection that is to belong to a process.
    fn hijack(&self) -> Result<OwnedSemaphorePermit, Error> {
        Arc::clone(&self.hijacked).try_acquire_owned().map_err(|_| {
            let most = self.settings.hijacked;
            tracing::warn!(most, "a client is refused: too many connections belong to processes");
            Error::ServiceUnavailable(format!(
                "{most} connections belong to processes already, and there may be no more of them"
            ))
        })
    }

    /// A number that tells a request apart in the log.
    fn session(&self) -> u64 {
        self.sessions.fetch_add(1, Ordering::Relaxed) + 1
    }

    fn is_stopping(&self) -> bool {
        *self.stop.borrow()
    }
}

/// Serves until `stop` is true. Then it accepts no more, closes idle connections, lets go of
/// processes' clients without a final frame, and waits for calls that are under way.
pub async fn serve(
    listener: Listener,
    gardener: Arc<Gardener>,
    settings: Settings,
    stop: watch::Receiver<bool>,
) {
    // Clients are let go only after the gardener knows why, or their going would end the input of
    // their processes.
    let (stopper, stopping) = watch::channel(false);
    let told = Arc::clone(&gardener);
    let mut asked = stop;
    let ordered = tokio::spawn(async move {
        let _ = asked.wait_for(|stop| *stop).await;
        if let Err(error) = tokio::task::spawn_blocking(move || told.keep_streams()).await {
            tracing::error!(%error, "processes' streams are not kept");
        }
        stopper.send_replace(true);
        stopper.closed().await;
    });
    let shared = Arc::new(Shared {
        gardener,
        tokens: Arc::default(),
        settings,
        stop: stopping,
        hijacked: Arc::new(Semaphore::new(settings.hijacked)),
        crowded: watch::Sender::new(false),
        sessions: AtomicU64::new(0),
    });
    let mut connections = JoinSet::new();
    accept(&listener, &shared, &mut connections).await;
    drop(listener);
    let finished = tokio::time::timeout(STOP_PATIENCE, async {
        while let Some(ended) = connections.join_next().await {
            note_end(ended);
        }
    });
    if finished.await.is_err() {
        tracing::warn!(left = connections.len(), "calls do not end; leaving them");
    }
    ordered.abort();
}

async fn accept(listener: &Listener, shared: &Arc<Shared>, connections: &mut JoinSet<()>) {
    let room = Arc::new(Semaphore::new(shared.settings.connections));
    let mut warned = false;
    loop {
        let admitted = async {
            let place = match Arc::clone(&room).try_acquire_owned() {
                Ok(place) => place,
                Err(_) => {
                    if !shared.crowded.send_replace(true) {
                        let most = shared.settings.connections;
                        tracing::warn!(most, "no more connections are accepted until some end");
                    }
                    // It is never closed.
                    let Ok(place) = Arc::clone(&room).acquire_owned().await else {
                        return std::future::pending().await;
                    };
                    place
                }
            };
            shared.crowded.send_replace(false);
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = shared.stopped() => return,
            Some(ended) = connections.join_next() => {
                note_end(ended);
                continue;
            }
            admitted = admitted => admitted,
        };
        match accepted {
            Ok(wire) => {
                warned = false;
                let shared = Arc::clone(shared);
                connections.spawn(async move {
                    connection::serve(&shared, wire, place).await;
                });
            }
            Err(error) => {
                // No descriptors or no memory; a connection that is gone already is no reason to say
                // anything. Either way clients that wait are served later.
                if !std::mem::replace(&mut warned, true) {
                    tracing::warn!(%error, "cannot accept connections for a moment");
                }
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn note_end(ended: Result<(), tokio::task::JoinError>) {
    if let Err(error) = ended {
        tracing::error!(%error, "a connection's task failed");
    }
}
