//! One endpoint of one route, and its connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::config::Balancing;
use crate::message::Message;
use crate::wire::Wire;

/// How long an endpoint that failed is passed over.
const PASSED_OVER: Duration = Duration::from_secs(30);
/// How long a connection waits for another request.
const IDLE: Duration = Duration::from_secs(90);

#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) said: Said,
    refreshed: Mutex<Instant>,
    failed: Mutex<Option<Instant>>,
    pub(crate) connections: Arc<Connections>,
}

/// What its registrar says of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Said {
    /// `HOST:PORT`, which is what it is known by.
    pub(crate) address: String,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) tls: bool,
    pub(crate) app: String,
    pub(crate) instance_id: String,
    pub(crate) instance_index: String,
    pub(crate) server_cert_domain_san: String,
    pub(crate) protocol: String,
    pub(crate) route_service_url: String,
    pub(crate) isolation_segment: String,
    pub(crate) availability_zone: String,
    pub(crate) stale_after: Duration,
    /// The same in seconds, as it is told; a negative one is as short as none.
    pub(crate) ttl: i64,
    pub(crate) load_balancing: String,
    pub(crate) tags: Option<BTreeMap<String, String>>,
}

/// The connections to an endpoint. They outlive its registration's changes.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    idle: Mutex<Vec<(Wire, Instant)>>,
    under_way: AtomicUsize,
}

/// One request at an endpoint, while it lasts.
#[derive(Debug)]
pub(crate) struct UnderWay(Arc<Connections>);

impl Said {
    pub(crate) fn new(message: &Message, stale_threshold: Duration) -> Self {
        let tls = message.tls_port != 0;
        let port = if tls { message.tls_port } else { message.port };
        let protocol = match message.protocol.as_str() {
            "" => "http1",
            protocol => protocol,
        };
        let longest = i64::try_from(stale_threshold.as_secs()).unwrap_or(i64::MAX);
        let ttl = match message.stale_threshold {
            0 => longest,
            own => own.min(longest),
        };
        let stale_after = Duration::from_secs(ttl.max(0).unsigned_abs());
        Self {
            address: format!("{}:{port}", message.host),
            host: message.host.clone(),
            port,
            tls,
            app: message.app.clone(),
            instance_id: message.instance_id.clone(),
            instance_index: message.instance_index.clone(),
            server_cert_domain_san: message.server_cert_domain_san.clone(),
            protocol: protocol.to_owned(),
            route_service_url: message.route_service_url.clone(),
            isolation_segment: message.isolation_segment.clone(),
            availability_zone: message.availability_zone.clone(),
            stale_after,
            ttl,
            load_balancing: message.load_balancing.clone(),
            tags: message.tags.clone(),
        }
    }

    pub(crate) fn balancing(&self) -> Option<Balancing> {
        Balancing::named(&self.load_balancing)
    }

    /// Its instance, or where it is if that is unknown.
    pub(crate) fn id(&self) -> &str {
        if self.instance_id.is_empty() { &self.address } else { &self.instance_id }
    }

    pub(crate) fn tag(&self, name: &str) -> &str {
        self.tags.as_ref().and_then(|tags| tags.get(name)).map_or("", String::as_str)
    }
}

impl Endpoint {
    pub(crate) fn new(said: Said) -> Self {
        Self::with_connections(said, Arc::default())
    }

    /// The same endpoint with something else said of it. Connections stay if they lead to the same.
    pub(crate) fn changed(&self, said: Said) -> Self {
        let was = &self.said;
        let same = was.tls == said.tls && was.server_cert_domain_san == said.server_cert_domain_san;
        let connections = if same { self.connections.clone() } else { Arc::default() };
        Self::with_connections(said, connections)
    }

    fn with_connections(said: Said, connections: Arc<Connections>) -> Self {
        Self { said, refreshed: Mutex::new(Instant::now()), failed: Mutex::default(), connections }
    }

    pub(crate) fn refresh(&self) {
        *lock(&self.refreshed) = Instant::now();
    }

    /// Those with TLS prove who they are with each connection, so they never are.
    pub(crate) fn is_stale(&self) -> bool {
        !self.said.tls && lock(&self.refreshed).elapsed() > self.said.stale_after
    }

    pub(crate) fn has_failed(&self) -> bool {
        lock(&self.failed).is_some_and(|at| at.elapsed() < PASSED_OVER)
    }

    pub(crate) fn set_failed(&self, failed: bool) {
        *lock(&self.failed) = failed.then(Instant::now);
    }

    pub(crate) fn begin(&self) -> UnderWay {
        self.connections.under_way.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.connections.clone())
    }
}

impl Connections {
    pub(crate) fn under_way(&self) -> usize {
        self.under_way.load(Ordering::Relaxed)
    }

    /// The connection that was used last and is still good.
    pub(crate) async fn take(&self) -> Option<Wire> {
        loop {
            let (mut wire, since) = lock(&self.idle).pop()?;
            if since.elapsed() < IDLE && wire.is_quiet().await {
                return Some(wire);
            }
        }
    }

    /// Keeps a connection for the next request, if there are fewer than `most`.
    pub(crate) fn put(&self, wire: Wire, most: usize) {
        let mut idle = lock(&self.idle);
        if idle.len() < most {
            idle.push((wire, Instant::now()));
        }
    }

    /// Closes those that waited too long or were closed by the endpoint; tells how many are left.
    pub(crate) async fn sweep(&self) -> usize {
        let waiting = std::mem::take(&mut *lock(&self.idle));
        let mut good = Vec::new();
        for (mut wire, since) in waiting {
            if since.elapsed() < IDLE && wire.is_quiet().await {
                good.push((wire, since));
            }
        }
        let mut idle = lock(&self.idle);
        good.append(&mut idle);
        *idle = good;
        idle.len()
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
