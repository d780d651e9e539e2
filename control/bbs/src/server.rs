//! A board that serves: from the lock to the last answer.

use std::convert::Infallible;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Empty;
use hyper::body::Incoming;
use locket::{Lock, Lost, Timing};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::service_fn;
use transport::configured::ConfigError;
use transport::{Client, Server, Timeouts};

use crate::auctions::Auctioneer;
use crate::board::{Board, Parts};
use crate::callbacks::Callbacks;
use crate::cells::Reps;
use crate::config::Config;
use crate::convergence;
use crate::events::Hubs;
use crate::http::Api;
use crate::presences::Presences;
use crate::store::{Store, StoreError};

/// The lock of which only one board at a time is the holder.
const LOCK: &str = "bbs";
/// For what follows from calls when the board is told to stop.
const FAREWELL: Duration = Duration::from_secs(10);

/// Sockets that the caller has bound; what is missing is bound as configured. A port opens only
/// when the lock is held, a caller's is answered only then.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For the API.
    pub api: Option<TcpListener>,
    /// For the health address.
    pub health: Option<TcpListener>,
}

/// Why a board cannot serve, or not any longer. Whoever runs it starts it again.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The configuration is wrong.
    #[error("the board's configuration")]
    Config(#[from] ConfigError),
    /// A client cannot be made.
    #[error("the board has no client of {of}")]
    Client {
        /// Whom it would ask.
        of: &'static str,
        /// Why.
        source: transport::Error,
    },
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Another board may be active.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// A part of the board has ended without being told to.
    #[error("a part of the board has ended")]
    Ended,
}

/// Waits for the lock, then serves until told to stop; the lock is then free for another board.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> Result<(), ServeError> {
    // Whatever ends this function ends all of it: tasks are aborted with the set.
    let mut running = JoinSet::new();
    if let Some(health) = config.health(listeners.health).await? {
        running.spawn(Server::new(health).serve(service_fn(alive), stop.clone()));
    }
    let (address, identity) = config.locket()?;
    let locket = locket::Client::new(&address, identity).map_err(no_client("Locket"))?;
    let timing = Timing { ttl: config.lock_ttl, interval: config.lock_retry_interval };
    let lock = Lock::new(locket.clone(), LOCK, &locket::owner_named(&config.uuid), timing);
    let Some(mut held) = lock.acquire_unless(&stop).await else { return Ok(()) };

    let hubs = Arc::new(Hubs::default());
    let (store, writer) = Store::open(config.database()?, hubs.clone()).await?;
    let board = board(&config, store, locket)?;
    let listener = config.api(listeners.api).await?;
    tracing::info!(address = config.listen_address, "the board serves");

    let (api, answered) = (Api::new(board.clone(), hubs, stop.clone()), CancellationToken::new());
    let writing = running.spawn(writer.run(answered.clone()));
    let (interval, patience) = (config.converge_repeat_interval, config.patience());
    running.spawn(convergence::run(board.clone(), interval, patience, stop.clone()));
    running.spawn(Server::new(listener).serve(
        service_fn(move |request| {
            let api = api.clone();
            async move { Ok::<_, Infallible>(api.answer(request).await) }
        }),
        stop.clone(),
    ));

    tokio::select! {
        ended = until_ended(&mut running, &stop, writing.id()) => ended?,
        lost = held.lost() => return Err(lost.into()),
    }
    if tokio::time::timeout(FAREWELL, board.finish()).await.is_err() {
        tracing::warn!("what followed from calls is cut off");
    }
    answered.cancel();
    while running.join_next().await.is_some() {}
    held.release().await;
    tracing::info!("the board has stopped");
    Ok(())
}

fn no_client(of: &'static str) -> impl FnOnce(transport::Error) -> ServeError {
    move |source| ServeError::Client { of, source }
}

fn board(config: &Config, store: Store, locket: locket::Client) -> Result<Board, ServeError> {
    let cells = Arc::new(Presences::new(locket));
    let (address, identity) = config.auctioneer()?;
    let auctioneer =
        Client::new(address, identity, Timeouts::default()).map_err(no_client("the auctioneer"))?;
    Ok(Board::new(Parts {
        store,
        reps: Reps::new(cells.clone(), config.rep_identity()?),
        cells,
        auctioneer: Auctioneer::new(auctioneer),
        callbacks: Callbacks::new(config.own_identity()?, config.task_callback_workers),
        task_retries: config.max_task_retries,
    }))
}

/// Waits until the board is told to stop and all parts but the writer have done so.
async fn until_ended(
    running: &mut JoinSet<()>,
    stop: &CancellationToken,
    writer: tokio::task::Id,
) -> Result<(), ServeError> {
    while running.len() > 1 {
        match running.join_next_with_id().await {
            Some(Ok((id, ()))) if id != writer && stop.is_cancelled() => {}
            Some(Err(panic)) if panic.is_panic() => {
                tracing::error!(%panic, "a part of the board is broken");
                return Err(ServeError::Ended);
            }
            _ => return Err(ServeError::Ended),
        }
    }
    Ok(())
}

/// Any request is answered: it says that the process is there.
async fn alive(_: Request<Incoming>) -> Result<Response<Empty<Bytes>>, Infallible> {
    Ok(Response::new(Empty::new()))
}
