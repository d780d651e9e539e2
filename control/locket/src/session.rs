//! Holding a lock, and being present: calls that are repeated for as long as a daemon lives.

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status};

use crate::client::{Client, resource};
use crate::models::{Resource, TypeCode};

/// Between two tries after a failure: soon, since a server that is back should know us.
const SOON: Duration = Duration::from_secs(1);
/// For letting go when a daemon stops.
const FAREWELL: Duration = Duration::from_secs(2);

/// How long a resource lives, and how often it is renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// Time to live, in whole seconds.
    pub ttl: Duration,
    /// Between two renewals.
    pub interval: Duration,
}

impl Timing {
    /// What the originals use for locks.
    pub const LOCK: Self = Self { ttl: Duration::from_secs(15), interval: Duration::from_secs(1) };
    /// What the originals use for presences.
    pub const PRESENCE: Self =
        Self { ttl: Duration::from_secs(15), interval: Duration::from_secs(5) };
}

/// A lock that a daemon wants: `key` is the role it fills, `owner` its own name.
#[derive(Clone, Debug)]
pub struct Lock {
    client: Client,
    resource: Resource,
    timing: Timing,
}

/// A lock that is ours. Dropping it stops the renewals without letting go, as a killed daemon does.
#[derive(Debug)]
pub struct Held {
    lock: Lock,
    renewing: AbortOnDropHandle<Lost>,
}

/// A lock is, or must be taken to be, no longer ours.
#[derive(Debug, thiserror::Error)]
#[error("the lock {key} is lost")]
pub struct Lost {
    /// The lock's key.
    pub key: String,
    /// What the last renewal failed with.
    pub source: Box<Status>,
}

impl Lock {
    /// Nothing is asked for yet.
    pub fn new(client: Client, key: &str, owner: &str, timing: Timing) -> Self {
        Self { client, resource: resource(key, owner, "", TypeCode::Lock), timing }
    }

    /// Waits until the lock is ours, through whatever failures. Then it is renewed by a task of its
    /// own.
    pub async fn acquire(self) -> Held {
        let mut told = None;
        let asked = loop {
            let asked = Instant::now();
            match self.client.lock(self.resource.clone(), self.timing.ttl, None).await {
                Ok(()) => break asked,
                Err(status) => {
                    // Once, not every second of a long wait.
                    if told != Some(status.code()) {
                        tracing::info!(key = self.resource.key, %status, "waiting for the lock");
                        told = Some(status.code());
                    }
                }
            }
            tokio::time::sleep(self.timing.interval).await;
        };
        tracing::info!(key = self.resource.key, "the lock is ours");
        let renewing = AbortOnDropHandle::new(tokio::spawn(self.clone().renew(asked)));
        Held { lock: self, renewing }
    }

    /// As [`Lock::acquire`], or nothing when its daemon is told to stop before.
    pub async fn acquire_unless(self, stop: &CancellationToken) -> Option<Held> {
        stop.run_until_cancelled(self.acquire()).await
    }

    /// Ends when the lock is someone else's, or may soon be: the server counts from when it heard
    /// us, we count from when we began to ask, so we give up before it does. A server that is away
    /// for less than that costs nothing.
    async fn renew(self, mut renewed: Instant) -> Lost {
        let Timing { ttl, interval } = self.timing;
        let mut wait = interval;
        loop {
            tokio::time::sleep(wait).await;
            let asked = Instant::now();
            let left = (renewed + ttl * 4 / 5).saturating_duration_since(asked);
            let answer = self.client.lock(self.resource.clone(), ttl, Some(left));
            // The deadline in the request binds the server; this binds us.
            let answer = tokio::time::timeout(left, answer).await.unwrap_or_else(|_| {
                Err(Status::deadline_exceeded("no renewal before the lock's time ended"))
            });
            match answer {
                Ok(()) => (renewed, wait) = (asked, interval),
                Err(status) => {
                    let key = self.resource.key.clone();
                    let taken = status.code() == Code::AlreadyExists;
                    if taken || renewed.elapsed() + interval >= ttl * 4 / 5 {
                        return Lost { key, source: Box::new(status) };
                    }
                    tracing::warn!(key, %status, "the lock is not renewed; trying again");
                    wait = interval.min(SOON);
                }
            }
        }
    }
}

impl Held {
    /// Waits until the lock is lost: what it protects must then end at once.
    pub async fn lost(&mut self) -> Lost {
        match (&mut self.renewing).await {
            Ok(lost) => lost,
            Err(ended) => Lost {
                key: self.lock.resource.key.clone(),
                source: Box::new(Status::internal(ended.to_string())),
            },
        }
    }

    /// Lets go, so that another daemon need not wait for the time to live. To be called when what
    /// the lock protects has ended.
    pub async fn release(self) {
        drop(self.renewing);
        let Lock { client, resource, .. } = self.lock;
        farewell(client, resource).await;
    }
}

/// A presence that is kept up by a task of its own, through whatever failures.
#[derive(Debug)]
pub struct Presence {
    keeping: AbortOnDropHandle<()>,
    stop: DropGuard,
    known: watch::Receiver<bool>,
}

impl Presence {
    /// Starts telling. `key` is the cell's id, `value` the JSON of its presence. A restarted cell
    /// that gives the same `owner` goes on with its predecessor's presence at once; with another
    /// owner it waits until that one ended.
    pub fn keep(client: Client, key: &str, owner: &str, value: &str, timing: Timing) -> Self {
        let resource = resource(key, owner, value, TypeCode::Presence);
        let (tell, known) = watch::channel(false);
        let stop = CancellationToken::new();
        let keeping = tokio::spawn(keep(client, resource, timing, tell, stop.clone()));
        Self { keeping: AbortOnDropHandle::new(keeping), stop: stop.drop_guard(), known }
    }

    /// Waits until the server knows of us.
    pub async fn known(&self) {
        // The sender lives as long as the task, which lives as long as we do.
        let _ = self.known.clone().wait_for(|known| *known).await;
    }

    /// Takes the presence back. Dropping it instead leaves it to end by itself.
    pub async fn withdraw(self) {
        drop(self.stop);
        let _ = self.keeping.await;
    }
}

async fn keep(
    client: Client,
    resource: Resource,
    Timing { ttl, interval }: Timing,
    tell: watch::Sender<bool>,
    stop: CancellationToken,
) {
    let mut within = None;
    loop {
        let renewal = async {
            let answer = client.lock(resource.clone(), ttl, within).await;
            let key = &resource.key;
            let wait = match answer {
                Ok(()) => {
                    if !tell.send_replace(true) {
                        tracing::info!(key, "present");
                    }
                    interval
                }
                Err(status) => {
                    if tell.send_replace(false) || within.is_none() {
                        tracing::warn!(key, %status, "the presence is not renewed; trying on");
                    }
                    interval.min(SOON)
                }
            };
            within = Some(ttl);
            tokio::time::sleep(wait).await;
        };
        tokio::select! {
            () = renewal => {}
            () = stop.cancelled() => break,
        }
    }
    farewell(client, resource).await;
}

async fn farewell(client: Client, resource: Resource) {
    let key = resource.key.clone();
    let released = client.release(resource, Some(FAREWELL));
    match tokio::time::timeout(FAREWELL, released).await {
        Ok(Ok(())) => {}
        Ok(Err(status)) => tracing::warn!(key, %status, "not released; it ends by itself"),
        Err(_) => tracing::warn!(key, "not released in time; it ends by itself"),
    }
}
