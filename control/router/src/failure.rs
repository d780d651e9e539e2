//! Attempts at an endpoint that came to nothing.

use std::io;

use crate::dial::in_words;
use crate::refusal::Refusal;
use crate::wire::Wire;

/// Why there is no response. Nothing of one was sent to the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Failure {
    pub(crate) kind: Kind,
    text: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// There is no connection.
    Dial,
    /// There is one, but not with whom it should be; with the status that tells it.
    Tls(u16),
    /// The endpoint closed the connection instead of answering.
    Closed,
    /// The same, but not in order.
    Reset,
    /// What it said is no response.
    Response,
    /// It took too long.
    Timeout,
    /// The client left.
    ClientGone,
    /// What the client sent is no body.
    Body,
}

impl Failure {
    pub(crate) fn dial(address: &str, why: &str) -> Self {
        Self { kind: Kind::Dial, text: format!("dial tcp {address}: {why}") }
    }

    pub(crate) fn tls(status: u16, text: String) -> Self {
        Self { kind: Kind::Tls(status), text }
    }

    pub(crate) fn closed() -> Self {
        Self { kind: Kind::Closed, text: "EOF".to_owned() }
    }

    pub(crate) fn broken(wire: &str, error: &io::Error) -> Self {
        let text = format!("read tcp {wire}: read: {}", in_words(error));
        Self { kind: Kind::Reset, text }
    }

    pub(crate) fn response(text: impl Into<String>) -> Self {
        Self { kind: Kind::Response, text: text.into() }
    }

    pub(crate) fn timeout() -> Self {
        Self { kind: Kind::Timeout, text: "context deadline exceeded".to_owned() }
    }

    pub(crate) fn client_gone() -> Self {
        Self { kind: Kind::ClientGone, text: "context canceled".to_owned() }
    }

    pub(crate) fn body(text: &str) -> Self {
        Self { kind: Kind::Body, text: text.to_owned() }
    }

    /// Whether nothing of the request can have reached an app.
    pub(crate) fn is_unreached(&self) -> bool {
        matches!(self.kind, Kind::Dial | Kind::Tls(_))
    }

    /// What the client is told.
    pub(crate) fn refusal(&self) -> Refusal {
        let error = format!("endpoint_failure ({})", self.text);
        let (status, text) = match self.kind {
            Kind::ClientGone => (499, "Request Cancelled"),
            Kind::Tls(status @ 496) => (status, "SSL Certificate Required"),
            Kind::Tls(status @ 503) => (status, "Service Unavailable"),
            Kind::Tls(status @ 525) => (status, "SSL Handshake Failed"),
            Kind::Tls(status @ 526) => (status, "Invalid SSL Certificate"),
            _ => (502, "Bad Gateway: Registered endpoint failed to handle the request."),
        };
        Refusal::new(status, &error, text)
    }
}

/// Both ends of a connection, as they are in errors.
pub(crate) fn ends(wire: &Wire) -> String {
    format!("{}->{}", wire.local, wire.peer)
}
