//! Streams of events.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bbs_models::{Event, EventKind, EventsByCellId, Message};
use bytes::{Buf, Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use crate::call::Client;
use crate::error::Error;

/// The pause before a stream that ended is opened again, in the original's clients.
pub const RESUBSCRIBE: Duration = Duration::from_secs(1);

/// Bytes of one event in a stream. The largest tells of two desired LRPs.
const EVENT: usize = 64 * 1024 * 1024;

/// Events as they happen. Nothing before its beginning is told, nothing is repeated.
#[derive(Debug)]
pub struct Events {
    call: &'static str,
    body: Incoming,
    read: BytesMut,
}

impl Client {
    /// Desired LRPs' events, and those of instances on a cell, or of all with an empty cell id.
    pub async fn instance_events(&self, cell_id: &str) -> Result<Events, Error> {
        let filter = EventsByCellId { cell_id: cell_id.into(), ..Default::default() };
        self.events("/v1/events/lrp_instances.r1", filter.encode_to_bytes()).await
    }

    /// Tasks' events.
    pub async fn task_events(&self) -> Result<Events, Error> {
        self.events("/v1/events/tasks.r1", Bytes::new()).await
    }

    async fn events(&self, call: &'static str, body: Bytes) -> Result<Events, Error> {
        Ok(Events { call, body: self.stream(call, body).await?, read: BytesMut::new() })
    }
}

impl Events {
    /// Waits for the next event. `None` when the BBS ends the stream in an orderly way. Events of
    /// a kind that is not known here are left out. May be dropped and called again.
    pub async fn next(&mut self) -> Result<Option<Event>, Error> {
        loop {
            while let Some(text) = self.take() {
                if let Some(event) = self.parse(&text)? {
                    return Ok(Some(event));
                }
            }
            match self.body.frame().await {
                None => return Ok(None),
                Some(Err(error)) => return Err(self.broken(error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        self.read.extend_from_slice(&data);
                    }
                }
            }
            if self.read.len() > EVENT {
                return Err(self.broken("an event does not end".into()));
            }
        }
    }

    /// The next event's lines, once its empty line is there.
    fn take(&mut self) -> Option<Bytes> {
        let end = self.read.windows(2).position(|two| two == b"\n\n")?;
        let text = self.read.split_to(end).freeze();
        self.read.advance(2);
        Some(text)
    }

    fn parse(&self, text: &[u8]) -> Result<Option<Event>, Error> {
        let (mut kind, mut data) = (&b""[..], &b""[..]);
        for line in text.split(|&byte| byte == b'\n') {
            if let Some(value) = line.strip_prefix(b"event: ") {
                kind = value;
            } else if let Some(value) = line.strip_prefix(b"data: ") {
                data = value;
            }
        }
        let name = String::from_utf8_lossy(kind);
        let Ok(kind) = name.parse::<EventKind>() else {
            tracing::debug!(call = self.call, %name, "an event of an unknown kind is left out");
            return Ok(None);
        };
        let unreadable = |error: &dyn std::fmt::Display| self.broken(format!("{kind}: {error}"));
        let bytes = STANDARD.decode(data).map_err(|error| unreadable(&error))?;
        Event::decode(kind, &bytes).map(Some).map_err(|error| unreadable(&error))
    }

    fn broken(&self, reason: String) -> Error {
        Error::Stream { call: self.call, reason }
    }
}
