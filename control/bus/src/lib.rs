//! The messages of NATS, within one process or through NATS servers.
//!
//! A [`Bus`] publishes messages on subjects and gives them to whoever has subscribed. Who uses it
//! does not know which of the two it is: subjects, wildcards, replies and limits are NATS's
//! (<https://docs.nats.io/reference/reference-protocols/nats-protocol>). As there, nothing is kept:
//! a message goes to those who are subscribed now, and a subscriber that lies too far behind loses
//! messages, which [`Bus::lost`] counts.
//!
//! ```
//! # async fn example() -> Result<(), bus::Error> {
//! let bus = bus::Bus::local();
//! let mut starts = bus.subscribe("router.*").await?;
//! bus.publish("router.start", "{}").await?;
//! assert_eq!(starts.next().await.unwrap().subject, "router.start");
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

mod connection;
mod error;
mod local;
mod server;
mod subject;

use std::time::Duration;

use bytes::Bytes;
use tokio::sync::watch;

pub use connection::Connection;
pub use error::Error;
pub use server::Servers;

/// The most bytes of a message: a NATS server's own limit.
pub const PAYLOAD: usize = 1 << 20;

/// Messages that may wait for one subscriber, as in NATS's own client.
const WAITING: usize = 65_536;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Where it was published; without wildcards.
    pub subject: String,
    /// Where an answer is expected.
    pub reply: Option<String>,
    /// At most [`PAYLOAD`] bytes.
    pub payload: Bytes,
}

/// A bus; clones are the same one.
#[derive(Clone, Debug)]
pub struct Bus(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Local(local::Local),
    Server(server::Client),
}

/// What one subscriber is given, until it is dropped.
#[derive(Debug)]
pub struct Subscription(Given);

#[derive(Debug)]
enum Given {
    Local(local::Subscription),
    Server(async_nats::Subscriber),
}

impl Bus {
    /// A bus within this process.
    pub fn local() -> Self {
        Self(Kind::Local(local::Local::default()))
    }

    /// A bus through NATS servers, of which one is connected at a time. Returns at once and
    /// connects, now and whenever the connection is lost, until every clone is dropped.
    pub async fn connect(servers: Servers) -> Result<Self, Error> {
        Ok(Self(Kind::Server(server::Client::connect(servers).await?)))
    }

    /// Publishes, to nobody if nobody has subscribed. While no server is connected messages wait
    /// for one, up to some thousand; then publishing waits too, and fails after 10 s.
    pub async fn publish(&self, subject: &str, payload: impl Into<Bytes>) -> Result<(), Error> {
        self.send(subject, None, payload.into()).await
    }

    /// As [`Bus::publish`], and answers are expected on `reply`.
    pub async fn publish_with_reply(
        &self,
        subject: &str,
        reply: &str,
        payload: impl Into<Bytes>,
    ) -> Result<(), Error> {
        self.send(subject, Some(reply), payload.into()).await
    }

    async fn send(&self, subject: &str, reply: Option<&str>, payload: Bytes) -> Result<(), Error> {
        for named in [Some(subject), reply].into_iter().flatten() {
            if !subject::is_name(named) {
                return Err(Error::Subject { subject: named.to_owned() });
            }
        }
        if payload.len() > PAYLOAD {
            return Err(Error::TooLong { subject: subject.to_owned(), length: payload.len() });
        }
        match &self.0 {
            Kind::Local(local) => {
                local.publish(&Message {
                    subject: subject.to_owned(),
                    reply: reply.map(str::to_owned),
                    payload,
                });
                Ok(())
            }
            Kind::Server(client) => client.publish(subject, reply, payload).await,
        }
    }

    /// Subscribes to a subject, of which `*` stands for one part and `>` at the end for one or more.
    pub async fn subscribe(&self, subject: &str) -> Result<Subscription, Error> {
        if !subject::is_pattern(subject) {
            return Err(Error::Subject { subject: subject.to_owned() });
        }
        Ok(Subscription(match &self.0 {
            Kind::Local(local) => Given::Local(local.subscribe(subject)),
            Kind::Server(client) => Given::Server(client.subscribe(subject).await?),
        }))
    }

    /// Publishes and waits for the first answer.
    pub async fn request(
        &self,
        subject: &str,
        payload: impl Into<Bytes>,
        patience: Duration,
    ) -> Result<Message, Error> {
        let inbox = format!("_INBOX.{}", uuid::Uuid::new_v4().simple());
        let mut answers = self.subscribe(&inbox).await?;
        self.publish_with_reply(subject, &inbox, payload).await?;
        match tokio::time::timeout(patience, answers.next()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => Err(Error::NoAnswer { subject: subject.to_owned(), patience }),
        }
    }

    /// Whether there is a connection, and how often there has been one. Local buses always have
    /// their first.
    pub fn connection(&self) -> watch::Receiver<Connection> {
        match &self.0 {
            Kind::Local(local) => local.connection(),
            Kind::Server(client) => client.connection(),
        }
    }

    /// Messages, of all subscriptions of this bus, that their subscribers were too slow to take.
    pub fn lost(&self) -> u64 {
        match &self.0 {
            Kind::Local(local) => local.lost(),
            Kind::Server(client) => client.lost(),
        }
    }
}

impl Subscription {
    /// The next message; none when the bus has ended.
    pub async fn next(&mut self) -> Option<Message> {
        match &mut self.0 {
            Given::Local(subscription) => subscription.next().await,
            Given::Server(subscriber) => server::next(subscriber).await,
        }
    }
}
