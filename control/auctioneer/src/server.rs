//! An auctioneer that serves: from the lock to the last auction.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodFilter, MethodRouter, on};
use http::header::{ALLOW, CONTENT_TYPE, X_CONTENT_TYPE_OPTIONS};
use http::{HeaderMap, StatusCode};
use locket::{Lock, Lost, Timing};
use rep_client::Fleet;
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::configured::ConfigError;
use transport::{Server, Timeouts, TraceId};

use crate::auction::Auctions;
use crate::config::Config;
use crate::queue::Queue;

/// The lock of which only one auctioneer at a time is the holder.
const LOCK: &str = "auctioneer";
/// Bytes of a request: convergence asks for everything that waits at once.
const REQUEST: usize = 64 * 1024 * 1024;
/// For the auction under way when the auctioneer is told to stop.
const FAREWELL: Duration = Duration::from_secs(10);

/// Sockets that the caller has bound; what is missing is bound as configured. A port opens only
/// when the lock is held, a caller's is answered only then.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For the BBS's requests.
    pub api: Option<TcpListener>,
}

/// Why an auctioneer cannot serve, or not any longer. Whoever runs it starts it again.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is wrong.
    #[error("the auctioneer's configuration")]
    Config(#[from] ConfigError),
    /// A client of Locket cannot be made.
    #[error("the auctioneer has no client of Locket")]
    Locket(#[source] transport::Error),
    /// A client of the BBS cannot be made.
    #[error("the auctioneer has no client of the BBS")]
    Bbs(#[source] bbs_client::Error),
    /// Another auctioneer may be active.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// A part of the auctioneer has ended without being told to.
    #[error("a part of the auctioneer has ended")]
    Ended,
}

/// Waits for the lock, then serves until told to stop; the lock is then free for another. What is
/// asked for and not placed by then the BBS asks for again.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    let auctions = auctions(&config)?;
    let (address, identity) = config.locket()?;
    let locket = locket::Client::new(&address, identity).map_err(ServeError::Locket)?;
    let timing = Timing { ttl: config.lock_ttl, interval: config.lock_retry_interval };
    let lock = Lock::new(locket, LOCK, &locket::owner_named(&config.uuid), timing);
    let Some(mut held) = lock.acquire_unless(&stop).await else { return Ok(()) };

    let listener = config.listener(listeners.api).await?;
    tracing::info!(address = config.listen_address, "the auctioneer serves");
    // Whatever ends this function ends all of it: tasks are aborted with the set.
    let mut running = JoinSet::new();
    running.spawn(Server::new(listener).serve(routes(auctions.queue.clone()), stop.clone()));
    running.spawn(auctions.run(stop.clone()));
    tokio::select! {
        // Parts end by the same word: that is no failure of theirs.
        biased;
        () = stop.cancelled() => {}
        _ = running.join_next() => return Err(ServeError::Ended),
        lost = held.lost() => return Err(lost.into()),
    }
    let ended = async { while running.join_next().await.is_some() {} };
    if tokio::time::timeout(FAREWELL, ended).await.is_err() {
        tracing::warn!("an auction is cut off");
        running.shutdown().await;
    }
    held.release().await;
    tracing::info!("the auctioneer has stopped");
    Ok(())
}

fn auctions(config: &Config) -> Result<Auctions, ServeError> {
    let (address, identity) = config.bbs()?;
    let bbs = bbs_client::Client::new(address, identity)
        .map_err(ServeError::Bbs)?
        .answering_within(Some(config.communication_timeout));
    let reps = config.rep_identity()?;
    let fleet = |answer| {
        let timeouts = Timeouts { answer: Some(answer), connect: answer };
        Arc::new(Fleet::new(reps.clone(), timeouts))
    };
    Ok(Auctions {
        bbs,
        states: fleet(config.cell_state_timeout),
        fleet: fleet(config.communication_timeout),
        queue: Arc::default(),
        weights: config.weights(),
        workers: config.auction_runner_workers.max(1),
    })
}

fn routes(queue: Arc<Queue>) -> Router {
    Router::new()
        .route("/v1/lrps", post_only(on(MethodFilter::POST, ask_lrps)))
        .route("/v1/tasks", post_only(on(MethodFilter::POST, ask_tasks)))
        .fallback(|| async { text(StatusCode::NOT_FOUND, "404 page not found\n") })
        .layer(DefaultBodyLimit::max(REQUEST))
        .with_state(queue)
}

fn post_only(route: MethodRouter<Arc<Queue>>) -> MethodRouter<Arc<Queue>> {
    route.fallback(|| async {
        let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "Method Not Allowed\n");
        answer.headers_mut().insert(ALLOW, http::HeaderValue::from_static("POST"));
        answer
    })
}

async fn ask_lrps(State(queue): State<Arc<Queue>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(read(&body).map(|requests| queue.ask_lrps(requests, &TraceId::of(&headers))))
}

async fn ask_tasks(State(queue): State<Arc<Queue>>, headers: HeaderMap, body: Bytes) -> Response {
    answer(read(&body).map(|tasks| queue.ask_tasks(tasks, &TraceId::of(&headers))))
}

/// A list, or `null`, which is an empty one.
fn read<T: DeserializeOwned>(body: &[u8]) -> serde_json::Result<Vec<T>> {
    serde_json::from_slice::<Option<Vec<T>>>(body).map(Option::unwrap_or_default)
}

fn answer(asked: serde_json::Result<()>) -> Response {
    let (status, body) = match asked {
        Ok(()) => (StatusCode::ACCEPTED, "{}".to_owned()),
        Err(error) => {
            let body = serde_json::json!({ "error": error.to_string() });
            (StatusCode::BAD_REQUEST, body.to_string())
        }
    };
    (status, [(CONTENT_TYPE, "application/json")], body).into_response()
}

fn text(status: StatusCode, text: &'static str) -> Response {
    let headers =
        [(CONTENT_TYPE, "text/plain; charset=utf-8"), (X_CONTENT_TYPE_OPTIONS, "nosniff")];
    (status, headers, text).into_response()
}
