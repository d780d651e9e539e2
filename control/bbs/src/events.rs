//! Who listens, and the streams they get.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbs_models::Event;
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Events that may wait for one subscriber; one that is slower is dropped and must list anew.
const QUEUE: usize = 1024;

/// What a subscriber listens to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Topic {
    /// Desired LRPs, and instances: those on one cell, or all.
    Instances {
        /// Only this cell's, if it is not empty.
        cell_id: String,
    },
    /// Tasks.
    Tasks,
}

/// The subscribers of one board.
#[derive(Debug, Default)]
pub struct Hubs {
    subscribers: Mutex<Vec<(Topic, mpsc::Sender<Arc<Told>>)>>,
}

/// An event made ready once for all subscribers.
#[derive(Debug)]
struct Told {
    kind: &'static str,
    data: String,
}

impl Hubs {
    /// Tells everybody whom it concerns.
    pub fn publish(&self, event: Event) {
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        let mut told = None;
        subscribers.retain(|(topic, sender)| {
            if !topic.concerns(&event) {
                return !sender.is_closed();
            }
            let told = told.get_or_insert_with(|| {
                let data = STANDARD.encode(event.encode());
                Arc::new(Told { kind: event.kind().name(), data })
            });
            sender.try_send(told.clone()).is_ok()
        });
    }

    /// A stream of what happens from now on, which ends when `stop` is cancelled.
    pub fn subscribe(&self, topic: Topic, stop: CancellationToken) -> EventStream {
        let (sender, queue) = mpsc::channel(QUEUE);
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.push((topic, sender));
        EventStream { queue, stop: Box::pin(stop.cancelled_owned()), id: 0 }
    }
}

impl Topic {
    fn concerns(&self, event: &Event) -> bool {
        let cell = match event {
            Event::TaskCreated(_) | Event::TaskChanged(_) | Event::TaskRemoved(_) => {
                return *self == Self::Tasks;
            }
            Event::DesiredLRPCreated(_)
            | Event::DesiredLRPChanged(_)
            | Event::DesiredLRPRemoved(_) => return *self != Self::Tasks,
            Event::ActualLRPInstanceCreated(event) => &event.actual_lrp.actual_lrp_instance_key,
            Event::ActualLRPInstanceRemoved(event) => &event.actual_lrp.actual_lrp_instance_key,
            Event::ActualLRPInstanceChanged(event) => &event.actual_lrp_instance_key,
            Event::ActualLRPCrashed(event) => &event.actual_lrp_instance_key,
            Event::ActualLRPGroupCreated(_)
            | Event::ActualLRPGroupChanged(_)
            | Event::ActualLRPGroupRemoved(_) => return false,
        };
        match self {
            Self::Instances { cell_id } => cell_id.is_empty() || *cell_id == cell.cell_id,
            Self::Tasks => false,
        }
    }
}

/// The body of an event stream: each event one frame, numbered from 0.
#[derive(Debug)]
pub struct EventStream {
    queue: mpsc::Receiver<Arc<Told>>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    id: u64,
}

impl hyper::body::Body for EventStream {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let told = match self.queue.poll_recv(context) {
            Poll::Ready(Some(told)) => told,
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => return self.stop.as_mut().poll(context).map(|()| None),
        };
        let Told { kind, data } = &*told;
        let text = format!("id: {}\nevent: {kind}\ndata: {data}\n\n", self.id);
        self.id += 1;
        Poll::Ready(Some(Ok(Frame::data(text.into()))))
    }
}
