//! Bringing envelopes to a log-cache, in this process or elsewhere.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use prost::Message as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use transport::{Address, Connector, Identity, Protocol};

use crate::envelope::Origin;
use crate::messages::loggregator::v2::{
    Envelope, EnvelopeBatch, envelope::Message, ingress_client::IngressClient,
};
use crate::store::Store;

/// Envelopes that wait.
const WAITING: usize = 20_000;
/// Bytes of those.
const WAITING_BYTES: usize = 32 << 20;
/// Envelopes of one call; the original's clients send no more.
const BATCH: usize = 100;
/// Bytes of one call, unless a single envelope has more: gRPC servers in Go take 4 MiB.
const BATCH_BYTES: usize = 2 << 20;
/// Sources whose losses are counted one by one.
const LOSERS: usize = 1000;

const CONNECT: Duration = Duration::from_secs(10);
/// For a call.
const ANSWER: Duration = Duration::from_secs(10);
/// After a call that failed, doubled each time up to the second.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// For what still waits when the process is told to stop.
const FAREWELL: Duration = Duration::from_secs(3);

/// Takes envelopes and never waits. Clones share one way.
#[derive(Clone, Debug)]
pub struct Ingress(Way);

#[derive(Clone, Debug)]
enum Way {
    Nowhere,
    Local(Store),
    Remote(Arc<Queue>),
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    envelopes: VecDeque<Envelope>,
    bytes: usize,
    /// Lines that were dropped, by whose they were, until their app's log says so.
    lost: BTreeMap<(String, String), u64>,
    dropped: u64,
}

/// Sends what an [`Ingress`] has taken.
#[derive(Debug)]
#[must_use = "nothing is sent without"]
pub struct Delivery {
    queue: Arc<Queue>,
    server: IngressClient<Channel>,
}

/// A connection for a gRPC service, made when it is needed. `name`: whom the server's certificate names,
/// if not its host.
pub(crate) fn channel(
    service: &str,
    address: &Address,
    identity: Option<Identity>,
    name: Option<&str>,
) -> Result<Channel, transport::Error> {
    let connector = Connector::new(address.clone(), identity, Protocol::Http2, CONNECT)?;
    let connector = match name {
        Some(name) => connector.expecting(name),
        None => connector,
    };
    let scheme = if matches!(address, Address::Https { .. }) { "https" } else { "http" };
    let origin = format!("{scheme}://{}", address.authority()).parse().map_err(
        |error: http::uri::InvalidUri| transport::Error::Request {
            call: service.into(),
            address: address.clone(),
            source: error.into(),
        },
    )?;
    // The scheme of the endpoint's own address would make tonic look for TLS settings; the
    // connector brings TLS itself.
    Ok(Endpoint::from_static("http://log-cache")
        .origin(origin)
        .connect_with_connector_lazy(connector))
}

impl Ingress {
    /// To nobody.
    pub fn nowhere() -> Self {
        Self(Way::Nowhere)
    }

    /// Straight into a store.
    pub fn local(store: Store) -> Self {
        Self(Way::Local(store))
    }

    /// To a server of `loggregator.v2.Ingress`: a log-cache of ours or a Loggregator agent. What is
    /// taken waits, within bounds, until the [`Delivery`] has brought it there; when too much waits,
    /// the newest is dropped and counted, and the log that misses lines is told so.
    ///
    /// Must be called inside a tokio runtime. An `https` address without an identity is an error.
    pub fn remote(
        address: &Address,
        identity: Option<Identity>,
    ) -> Result<(Self, Delivery), transport::Error> {
        channel("Ingress", address, identity, None).map(Self::through)
    }

    /// To this machine's Loggregator agent, whose certificate names `metron`. Otherwise as
    /// [`Ingress::remote`].
    pub fn agent(
        port: u16,
        identity: Option<Identity>,
    ) -> Result<(Self, Delivery), transport::Error> {
        let address = Address::Https { host: "127.0.0.1".into(), port };
        channel("Ingress", &address, identity, Some("metron")).map(Self::through)
    }

    fn through(channel: Channel) -> (Self, Delivery) {
        let queue = Arc::new(Queue::default());
        let delivery = Delivery { queue: queue.clone(), server: IngressClient::new(channel) };
        (Self(Way::Remote(queue)), delivery)
    }

    /// Takes one envelope.
    pub fn send(&self, envelope: Envelope) {
        match &self.0 {
            Way::Nowhere => {}
            Way::Local(store) => store.add([envelope]),
            Way::Remote(queue) => queue.put(envelope),
        }
    }

    /// How many envelopes were dropped since the start because too many waited.
    pub fn dropped(&self) -> u64 {
        match &self.0 {
            Way::Nowhere | Way::Local(_) => 0,
            Way::Remote(queue) => queue.waiting().dropped,
        }
    }
}

impl Queue {
    fn put(&self, envelope: Envelope) {
        let mut waiting = self.waiting();
        let size = envelope.encoded_len();
        if waiting.envelopes.len() >= WAITING || waiting.bytes + size > WAITING_BYTES {
            waiting.lose(&envelope);
            return;
        }
        waiting.bytes += size;
        waiting.envelopes.push_back(envelope);
        drop(waiting);
        self.filled.notify_one();
    }

    fn take(&self) -> Vec<Envelope> {
        let mut waiting = self.waiting();
        let mut batch = Vec::new();
        let mut bytes = 0;
        while let Some(next) = waiting.envelopes.front() {
            let size = next.encoded_len();
            if batch.len() == BATCH || !batch.is_empty() && bytes + size > BATCH_BYTES {
                return batch;
            }
            bytes += size;
            waiting.bytes -= size;
            batch.extend(waiting.envelopes.pop_front());
        }
        // Behind the lines that were kept, which came before those that were dropped.
        while batch.len() < BATCH {
            let Some(((source_id, instance_id), lines)) = waiting.lost.pop_first() else { break };
            let origin = Origin { source_id, instance_id, ..Origin::default() };
            let text = format!("{lines} lines were lost: they came faster than they could be sent");
            batch.push(Envelope::line(origin, "LGR", true, text));
        }
        batch
    }

    fn is_empty(&self) -> bool {
        let waiting = self.waiting();
        waiting.envelopes.is_empty() && waiting.lost.is_empty()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn lose(&mut self, envelope: &Envelope) {
        self.dropped += 1;
        if matches!(envelope.message, Some(Message::Log(_))) {
            let whose = (envelope.source_id.clone(), envelope.instance_id.clone());
            if self.lost.len() < LOSERS || self.lost.contains_key(&whose) {
                *self.lost.entry(whose).or_default() += 1;
            }
        }
    }
}

impl Delivery {
    /// Sends until told to stop, and then what still waits, for a few seconds at most.
    pub async fn deliver(self, stop: CancellationToken) {
        let Self { queue, mut server } = self;
        let mut deadline = None;
        loop {
            let batch = queue.take();
            if batch.is_empty() {
                tokio::select! {
                    () = queue.filled.notified() => continue,
                    () = stop.cancelled() => if queue.is_empty() { return } else { continue },
                }
            }
            let mut pause = PAUSES.0;
            loop {
                let mut request = Request::new(EnvelopeBatch { batch: batch.clone() });
                request.set_timeout(ANSWER);
                let status = match tokio::time::timeout(ANSWER, server.send(request)).await {
                    Ok(Ok(_)) => break,
                    Ok(Err(status)) => status,
                    Err(_) => tonic::Status::deadline_exceeded("no answer"),
                };
                if matches!(status.code(), Code::InvalidArgument | Code::OutOfRange) {
                    // Nobody will ever take these.
                    tracing::error!(%status, lines = batch.len(), "envelopes are refused");
                    let mut waiting = queue.waiting();
                    batch.iter().for_each(|envelope| waiting.lose(envelope));
                    break;
                }
                tracing::warn!(%status, "envelopes cannot be sent, trying again");
                if stop.is_cancelled() {
                    let until = *deadline.get_or_insert(tokio::time::Instant::now() + FAREWELL);
                    if tokio::time::Instant::now() >= until {
                        let left = batch.len() + queue.waiting().envelopes.len();
                        tracing::error!(left, "envelopes were never sent");
                        return;
                    }
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = stop.cancelled(), if deadline.is_none() && !stop.is_cancelled() => {}
                }
                pause = (pause * 2).min(PAUSES.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_is_bounded_and_losses_are_told_to_whom_they_concern() {
        let queue = Queue::default();
        let line = |source: &str, text: &str| {
            let origin = Origin { source_id: source.into(), ..Origin::default() };
            Envelope::line(origin, "APP", false, text.to_owned())
        };
        for n in 0..WAITING {
            queue.put(line("a", &n.to_string()));
        }
        for _ in 0..7 {
            queue.put(line("b", "lost"));
        }
        assert_eq!(queue.waiting().dropped, 7);
        let mut taken = Vec::new();
        loop {
            let batch = queue.take();
            assert!(batch.len() <= BATCH);
            if batch.is_empty() {
                break;
            }
            taken.extend(batch);
        }
        assert_eq!(queue.waiting().bytes, 0);
        assert_eq!(taken.len(), WAITING + 1);
        let last = taken.last().unwrap();
        let Some(Message::Log(log)) = &last.message else { panic!("no line") };
        assert_eq!((&*last.source_id, &last.tags["source_type"][..]), ("b", "LGR"));
        assert!(log.payload.starts_with(b"7 lines were lost"));
    }

    #[test]
    fn a_batch_stays_below_what_servers_take() {
        let queue = Queue::default();
        let big = "x".repeat(61_440);
        for _ in 0..BATCH {
            queue.put(Envelope::line(Origin::default(), "APP", false, big.clone()));
        }
        let sizes = std::iter::from_fn(|| Some(queue.take()).filter(|batch| !batch.is_empty()));
        let sizes: Vec<usize> = sizes.map(|batch| EnvelopeBatch { batch }.encoded_len()).collect();
        assert!(sizes.len() > 1 && sizes.iter().all(|size| *size < 4 << 20), "{sizes:?}");
    }
}
