//! The bus within one process.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, watch};

use crate::connection::Connection;
use crate::{Message, WAITING, subject};

#[derive(Clone, Debug)]
pub(crate) struct Local(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    subscribers: RwLock<Vec<Subscriber>>,
    next: AtomicU64,
    lost: AtomicU64,
    connection: watch::Sender<Connection>,
}

#[derive(Debug)]
struct Subscriber {
    number: u64,
    pattern: String,
    messages: mpsc::Sender<Message>,
}

#[derive(Debug)]
pub(crate) struct Subscription {
    number: u64,
    messages: mpsc::Receiver<Message>,
    bus: Local,
}

impl Default for Local {
    fn default() -> Self {
        Self(Arc::new(Shared {
            subscribers: RwLock::default(),
            next: AtomicU64::default(),
            lost: AtomicU64::default(),
            connection: watch::Sender::new(Connection { up: true, times: 1 }),
        }))
    }
}

impl Local {
    pub(crate) fn subscribe(&self, pattern: &str) -> Subscription {
        self.subscribe_within(pattern, WAITING)
    }

    fn subscribe_within(&self, pattern: &str, waiting: usize) -> Subscription {
        let (sender, messages) = mpsc::channel(waiting);
        let number = self.0.next.fetch_add(1, Ordering::Relaxed);
        self.0.subscribers.write().unwrap_or_else(PoisonError::into_inner).push(Subscriber {
            number,
            pattern: pattern.to_owned(),
            messages: sender,
        });
        Subscription { number, messages, bus: self.clone() }
    }

    pub(crate) fn publish(&self, message: &Message) {
        let subscribers = self.0.subscribers.read().unwrap_or_else(PoisonError::into_inner);
        for subscriber in subscribers.iter() {
            if !subject::matches(&subscriber.pattern, &message.subject) {
                continue;
            }
            if let Err(TrySendError::Full(_)) = subscriber.messages.try_send(message.clone()) {
                // Said for the 1st, 2nd, 4th, 8th: a flood of messages is no flood of lines.
                let lost = self.0.lost.fetch_add(1, Ordering::Relaxed) + 1;
                if lost.is_power_of_two() {
                    tracing::warn!(subject = subscriber.pattern, lost, "a subscriber is too slow");
                }
            }
        }
    }

    pub(crate) fn connection(&self) -> watch::Receiver<Connection> {
        self.0.connection.subscribe()
    }

    pub(crate) fn lost(&self) -> u64 {
        self.0.lost.load(Ordering::Relaxed)
    }
}

impl Subscription {
    pub(crate) async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let subscribers = &self.bus.0.subscribers;
        subscribers
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|subscriber| subscriber.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(subject: &str) -> Message {
        Message { subject: subject.into(), reply: None, payload: "x".into() }
    }

    #[tokio::test]
    async fn a_slow_subscriber_loses_messages_and_others_do_not() {
        let bus = Local::default();
        let mut slow = bus.subscribe_within("a", 2);
        let mut quick = bus.subscribe("a");
        for _ in 0..5 {
            bus.publish(&message("a"));
        }
        assert_eq!(bus.lost(), 3);
        for _ in 0..5 {
            quick.next().await.unwrap();
        }
        slow.next().await.unwrap();
        slow.next().await.unwrap();
        bus.publish(&message("a"));
        slow.next().await.unwrap();
        assert_eq!(bus.lost(), 3);
    }

    #[tokio::test]
    async fn nothing_is_kept_for_those_who_have_gone() {
        let bus = Local::default();
        let first = bus.subscribe("a");
        let second = bus.subscribe("a");
        drop(first);
        assert_eq!(bus.0.subscribers.read().unwrap().len(), 1);
        drop(second);
        bus.publish(&message("a"));
        assert_eq!((bus.0.subscribers.read().unwrap().len(), bus.lost()), (0, 0));
    }
}
