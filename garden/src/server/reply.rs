//! Answers, as bytes.

use std::fmt::Write;
use std::time::SystemTime;

use garden_api::{ErrorKind, WireError, go_json};
use serde::Serialize;

use crate::error::Error;
use crate::http::date::http_date;
use crate::http::{BadRequest, RequestHead};

/// Bodies beyond this are sent as a chunk, as the original does.
const LONGEST_PLAIN: usize = 2048;

/// An answer with its whole body.
#[derive(Debug)]
pub(super) struct Reply {
    pub status: u16,
    content: Content,
    body: Vec<u8>,
    /// Why it is a refusal, for the log.
    pub error: Option<String>,
}

#[derive(Debug)]
enum Content {
    Json,
    Text { allow: Option<String> },
    Nothing,
}

impl Reply {
    fn of(status: u16, content: Content, body: Vec<u8>) -> Self {
        Self { status, content, body, error: None }
    }

    pub(super) fn json(value: &(impl Serialize + ?Sized)) -> Self {
        Self::of(200, Content::Json, go_json::encode(value))
    }

    /// What success without a value answers.
    pub(super) fn done() -> Self {
        Self::of(200, Content::Json, b"{}\n".to_vec())
    }

    pub(super) fn nowhere() -> Self {
        Self::of(404, Content::Text { allow: None }, b"404 page not found\n".to_vec())
    }

    pub(super) fn other_methods(allow: String) -> Self {
        Self::of(405, Content::Text { allow: Some(allow) }, b"Method Not Allowed\n".to_vec())
    }

    /// `OPTIONS *` asks for nothing.
    pub(super) fn nothing() -> Self {
        Self::of(200, Content::Nothing, Vec::new())
    }

    /// A body that is beyond all sense; the original has no limit, and so no words for it.
    pub(super) fn too_large(most: usize) -> Self {
        let error = Error::Plain(format!("the request's body is larger than {most} bytes"));
        Self { status: 413, ..Self::failure(&error) }
    }

    /// The one place where errors become statuses and the protocol's types.
    pub(super) fn failure(error: &Error) -> Self {
        let wire = wire_error(error);
        let status = match wire.kind {
            ErrorKind::ContainerNotFound | ErrorKind::ProcessNotFound => 404,
            _ => 500,
        };
        let error = Some(wire.message.clone());
        Self { error, ..Self::of(status, Content::Json, go_json::encode(&wire)) }
    }

    /// The whole answer to a request. Without chunks (HTTP/1.0), a long body ends with the
    /// connection: see [`Self::ends_connection`].
    pub(super) fn bytes(&self, to: &RequestHead) -> Vec<u8> {
        let mut head = status_line(to, self.status);
        let date = http_date(SystemTime::now());
        let connection = if self.ends_connection(to) && to.old { "" } else { connection(to) };
        let length = self.body.len();
        // Formatting into a string cannot fail.
        let _ = match &self.content {
            Content::Nothing => {
                write!(head, "Content-Length: 0\r\nDate: {date}\r\n{connection}\r\n")
            }
            Content::Text { allow } => {
                if let Some(allow) = allow {
                    let _ = write!(head, "Allow: {allow}\r\n");
                }
                write!(
                    head,
                    "Content-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\n\
                     Date: {date}\r\nContent-Length: {length}\r\n{connection}\r\n"
                )
            }
            Content::Json if length <= LONGEST_PLAIN => write!(
                head,
                "Content-Type: application/json\r\nDate: {date}\r\n\
                 Content-Length: {length}\r\n{connection}\r\n"
            ),
            Content::Json => write!(
                head,
                "Content-Type: application/json\r\nDate: {date}\r\n{connection}{}\r\n",
                chunked(to)
            ),
        };
        let mut bytes = head.into_bytes();
        let is_chunked = matches!(self.content, Content::Json) && length > LONGEST_PLAIN && !to.old;
        if to.method == "HEAD" {
        } else if is_chunked {
            bytes.extend_from_slice(format!("{length:x}\r\n").as_bytes());
            bytes.extend_from_slice(&self.body);
            bytes.extend_from_slice(b"\r\n0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// The body's end is the connection's.
    pub(super) fn ends_connection(&self, to: &RequestHead) -> bool {
        !to.keep_alive || (to.old && self.body.len() > LONGEST_PLAIN)
    }
}

/// An error as the protocol has it.
pub(super) fn wire_error(error: &Error) -> WireError {
    let mut wire = WireError { message: error.to_string(), ..WireError::default() };
    match error {
        Error::ContainerNotFound(handle) => {
            wire.kind = ErrorKind::ContainerNotFound;
            wire.handle.clone_from(handle);
        }
        Error::ProcessNotFound(id) => {
            wire.kind = ErrorKind::ProcessNotFound;
            wire.process_id.clone_from(id);
        }
        Error::ExecutableNotFound(_) => wire.kind = ErrorKind::ExecutableNotFound,
        Error::ServiceUnavailable(_) => wire.kind = ErrorKind::ServiceUnavailable,
        Error::Unrecoverable(_) => wire.kind = ErrorKind::Unrecoverable,
        Error::Plain(_) => {}
    }
    wire
}

/// One handle's error in a bulk answer, which the original leaves without a type.
pub(super) fn bulk_error(error: &Error) -> WireError {
    WireError { message: error.to_string(), ..WireError::default() }
}

/// The answer to what is no request; the connection is closed after it.
pub(super) fn refusal(bad: BadRequest) -> Vec<u8> {
    format!(
        "HTTP/1.1 {0}\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n{0}",
        bad.0
    )
    .into_bytes()
}

/// The head of a hijacked call. It announces chunks and lies: raw bytes follow, which is what the
/// official client wants.
pub(super) fn hijack_head(to: &RequestHead, status: u16, content: &str) -> String {
    let date = http_date(SystemTime::now());
    let (line, connection, chunked) = (status_line(to, status), connection(to), chunked(to));
    format!("{line}{content}Date: {date}\r\n{connection}{chunked}\r\n")
}

/// The head of an archive, whose bytes follow in chunks, or bare for HTTP/1.0.
pub(super) fn archive_head(to: &RequestHead) -> String {
    let date = http_date(SystemTime::now());
    let connection = if to.old { "" } else { connection(to) };
    let (line, chunked) = (status_line(to, 200), chunked(to));
    format!(
        "{line}Date: {date}\r\nContent-Type: application/octet-stream\r\n{connection}{chunked}\r\n"
    )
}

/// Content type of the hijacked calls that have one.
pub(super) const JSON: &str = "Content-Type: application/json\r\n";

fn status_line(to: &RequestHead, status: u16) -> String {
    let reason = match status {
        200 => "OK",
        201 => "Created",
        404 => "Not Found",
        405 => "Method Not Allowed",
        413 => "Request Entity Too Large",
        _ => "Internal Server Error",
    };
    format!("HTTP/1.{} {status} {reason}\r\n", u8::from(!to.old))
}

fn connection(to: &RequestHead) -> &'static str {
    match (to.says_connection, to.keep_alive) {
        (false, _) => "",
        (true, true) => "Connection: keep-alive\r\n",
        (true, false) => "Connection: close\r\n",
    }
}

fn chunked(to: &RequestHead) -> &'static str {
    if to.old { "" } else { "Transfer-Encoding: chunked\r\n" }
}
