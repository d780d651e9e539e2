//! Who listens, and the streams they get.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbs_models::{ActualLRPGroup, Event};
use bytes::Bytes;
use hyper::body::Frame;
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::versions;

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
    /// Desired LRPs, and instances in groups, as the oldest clients know them.
    Groups {
        /// Only this cell's, if it is not empty.
        cell_id: String,
    },
    /// Tasks.
    Tasks,
}

/// In which form records are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revision {
    /// As they are.
    Current,
    /// As the unrevised streams tell them.
    Unrevised,
}

/// The subscribers of one board.
#[derive(Debug, Default)]
pub struct Hubs {
    subscribers: Mutex<Vec<Subscriber>>,
}

#[derive(Debug)]
struct Subscriber {
    topic: Topic,
    revision: Revision,
    sender: mpsc::Sender<Arc<Told>>,
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
        let (mut current, mut unrevised) = (None, None);
        subscribers.retain(|Subscriber { topic, revision, sender }| {
            if !topic.concerns(&event) {
                return !sender.is_closed();
            }
            let told = match revision {
                Revision::Current => current.get_or_insert_with(|| told(&event)),
                Revision::Unrevised => {
                    unrevised.get_or_insert_with(|| told(&versions::unrevised(event.clone())))
                }
            };
            sender.try_send(told.clone()).is_ok()
        });
    }

    /// A stream of what happens from now on, which ends when `stop` is cancelled.
    pub fn subscribe(
        &self,
        topic: Topic,
        revision: Revision,
        stop: CancellationToken,
    ) -> EventStream {
        let (sender, queue) = mpsc::channel(QUEUE);
        let mut subscribers = self.subscribers.lock().unwrap_or_else(PoisonError::into_inner);
        subscribers.push(Subscriber { topic, revision, sender });
        EventStream { queue, stop: Box::pin(stop.cancelled_owned()), id: 0 }
    }
}

fn told(event: &Event) -> Arc<Told> {
    Arc::new(Told { kind: event.kind().name(), data: STANDARD.encode(event.encode()) })
}

impl Topic {
    fn concerns(&self, event: &Event) -> bool {
        match (self, event) {
            (Self::Tasks, _) => matches!(
                event,
                Event::TaskCreated(_) | Event::TaskChanged(_) | Event::TaskRemoved(_)
            ),
            (_, Event::TaskCreated(_) | Event::TaskChanged(_) | Event::TaskRemoved(_)) => false,
            (
                _,
                Event::DesiredLRPCreated(_)
                | Event::DesiredLRPChanged(_)
                | Event::DesiredLRPRemoved(_),
            ) => true,
            (
                Self::Instances { cell_id } | Self::Groups { cell_id },
                Event::ActualLRPCrashed(it),
            ) => is_on(cell_id, &it.actual_lrp_instance_key.cell_id),
            (Self::Instances { cell_id }, Event::ActualLRPInstanceCreated(it)) => {
                is_on(cell_id, &it.actual_lrp.actual_lrp_instance_key.cell_id)
            }
            (Self::Instances { cell_id }, Event::ActualLRPInstanceChanged(it)) => {
                is_on(cell_id, &it.actual_lrp_instance_key.cell_id)
            }
            (Self::Instances { cell_id }, Event::ActualLRPInstanceRemoved(it)) => {
                is_on(cell_id, &it.actual_lrp.actual_lrp_instance_key.cell_id)
            }
            (Self::Groups { cell_id }, Event::ActualLRPGroupCreated(it)) => {
                has_on(cell_id, &it.actual_lrp_group)
            }
            (Self::Groups { cell_id }, Event::ActualLRPGroupChanged(it)) => {
                has_on(cell_id, &it.before) || has_on(cell_id, &it.after)
            }
            (Self::Groups { cell_id }, Event::ActualLRPGroupRemoved(it)) => {
                has_on(cell_id, &it.actual_lrp_group)
            }
            (Self::Instances { .. } | Self::Groups { .. }, _) => false,
        }
    }
}

fn is_on(wanted: &str, cell_id: &str) -> bool {
    wanted.is_empty() || wanted == cell_id
}

fn has_on(wanted: &str, group: &ActualLRPGroup) -> bool {
    [&*group.instance, &*group.evacuating]
        .iter()
        .any(|row| is_on(wanted, &row.actual_lrp_instance_key.cell_id))
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
