//! The bus through NATS servers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_nats::{ConnectOptions, Event, ServerAddr, Subscriber};
use bytes::Bytes;
use futures_util::StreamExt as _;
use rustls::ClientConfig;
use tokio::sync::watch;

use crate::connection::Connection;
use crate::{Error, Message, WAITING};

/// For a publication that has to wait for the server.
const PATIENCE: Duration = Duration::from_secs(10);
/// Between attempts to connect, the longest.
const PAUSE: Duration = Duration::from_secs(2);

/// NATS servers of one cluster.
#[derive(Clone, Default)]
pub struct Servers {
    /// `HOST:PORT` or `nats://HOST:PORT`.
    pub addresses: Vec<String>,
    /// User and password.
    pub login: Option<(String, String)>,
    /// TLS is spoken, with what this says of certificates.
    pub tls: Option<Arc<ClientConfig>>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers")
            .field("addresses", &self.addresses)
            .field("user", &self.login.as_ref().map(|(user, _)| user))
            .field("tls", &self.tls.is_some())
            .finish()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Client {
    nats: async_nats::Client,
    connection: watch::Receiver<Connection>,
    lost: Arc<AtomicU64>,
}

impl Client {
    pub(crate) async fn connect(servers: Servers) -> Result<Self, Error> {
        let addresses = servers
            .addresses
            .iter()
            .map(|address| {
                address
                    .parse::<ServerAddr>()
                    .map_err(|source| Error::Server { address: address.clone(), source })
            })
            .collect::<Result<Vec<_>, _>>()?;
        let (sender, connection) = watch::channel(Connection::default());
        let lost = Arc::new(AtomicU64::default());
        let counted = lost.clone();
        let mut options = ConnectOptions::new()
            .retry_on_initial_connect()
            .subscription_capacity(WAITING)
            .reconnect_delay_callback(|attempts| {
                PAUSE.min(Duration::from_millis(50) * u32::try_from(attempts).unwrap_or(u32::MAX))
            })
            .event_callback(move |event| {
                match &event {
                    Event::Connected => sender.send_modify(|connection| {
                        *connection = Connection { up: true, times: connection.times + 1 };
                    }),
                    Event::Disconnected | Event::Closed => {
                        sender.send_modify(|connection| connection.up = false);
                    }
                    Event::SlowConsumer(_) => {
                        let lost = counted.fetch_add(1, Ordering::Relaxed) + 1;
                        if lost.is_power_of_two() {
                            tracing::warn!(lost, "a subscriber is too slow");
                        }
                    }
                    _ => {}
                }
                if !matches!(event, Event::SlowConsumer(_)) {
                    tracing::info!(%event, "the NATS connection");
                }
                std::future::ready(())
            });
        if let Some((user, password)) = servers.login {
            options = options.user_and_password(user, password);
        }
        if let Some(tls) = servers.tls {
            options = options.require_tls(true).tls_client_config((*tls).clone());
        }
        let nats = options.connect(addresses).await.map_err(|error| Error::Nats {
            action: format!("connect to one of {}", servers.addresses.join(", ")),
            source: error.into(),
        })?;
        Ok(Self { nats, connection, lost })
    }

    pub(crate) async fn publish(
        &self,
        subject: &str,
        reply: Option<&str>,
        payload: Bytes,
    ) -> Result<(), Error> {
        let failed = |source| Error::Nats { action: format!("publish on {subject}"), source };
        let subject = subject.to_owned();
        let published = async {
            match reply {
                Some(reply) => {
                    self.nats.publish_with_reply(subject, reply.to_owned(), payload).await
                }
                None => self.nats.publish(subject, payload).await,
            }
        };
        match tokio::time::timeout(PATIENCE, published).await {
            Ok(result) => result.map_err(|error| failed(error.into())),
            Err(elapsed) => Err(failed(elapsed.into())),
        }
    }

    pub(crate) async fn subscribe(&self, subject: &str) -> Result<Subscriber, Error> {
        let failed = |source| Error::Nats { action: format!("subscribe to {subject}"), source };
        match tokio::time::timeout(PATIENCE, self.nats.subscribe(subject.to_owned())).await {
            Ok(result) => result.map_err(|error| failed(error.into())),
            Err(elapsed) => Err(failed(elapsed.into())),
        }
    }

    pub(crate) fn connection(&self) -> watch::Receiver<Connection> {
        self.connection.clone()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }
}

/// The next message. What the server itself says on a subject, as that nobody has subscribed to a
/// request's, is none.
pub(crate) async fn next(subscriber: &mut Subscriber) -> Option<Message> {
    loop {
        let message = subscriber.next().await?;
        if message.status.is_none() {
            return Some(Message {
                subject: message.subject.to_string(),
                reply: message.reply.map(|reply| reply.to_string()),
                payload: message.payload,
            });
        }
    }
}
