//! Responses that the router itself gives.

use std::time::SystemTime;

use crate::fields::Fields;
use crate::head::{Refused, Version};

/// A response in place of an app's.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) fields: Fields,
    pub(crate) body: String,
}

impl Refusal {
    /// `error` is the value of `X-Cf-RouterError`, `text` follows status and reason in the body.
    pub(crate) fn new(status: u16, error: &str, text: &str) -> Self {
        let mut fields = Fields::default();
        fields.add("Content-Type", "text/plain; charset=utf-8");
        fields.add("X-Cf-Routererror", error.replace(|char: char| char.is_control(), " "));
        fields.add("X-Content-Type-Options", "nosniff");
        Self { status, fields, body: format!("{status} {text}\n") }
    }

    pub(crate) fn uncached(mut self) -> Self {
        self.fields.set("Cache-Control", "no-cache, no-store");
        self
    }

    pub(crate) fn cached_briefly(mut self) -> Self {
        self.fields.set("Cache-Control", "public,max-age=2");
        self
    }

    /// Neither a body nor what says of which kind it is.
    pub(crate) fn bare(status: u16, error: Option<&'static str>) -> Self {
        let mut fields = Fields::default();
        if let Some(error) = error {
            fields.add("X-Cf-Routererror", error);
        }
        Self { status, fields, body: String::new() }
    }

    pub(crate) fn unknown_route(host: &str) -> Self {
        let text = format!("Not Found: Requested route ('{host}') does not exist.");
        Self::new(404, "unknown_route", &text).uncached()
    }

    pub(crate) fn no_endpoints(host: &str) -> Self {
        let text =
            format!("Service Unavailable: Requested route ('{host}') has no available endpoints.");
        Self::new(503, "no_endpoints", &text).cached_briefly()
    }

    pub(crate) fn connection_limit(host: &str) -> Self {
        let text = format!(
            "Service Unavailable: Requested route ('{host}') has reached the connection limit."
        );
        Self::new(503, "Connection Limit Reached", &text)
    }

    pub(crate) fn error(&self) -> String {
        let error = self.fields.get("X-Cf-Routererror");
        error.map(|error| String::from_utf8_lossy(error).into_owned()).unwrap_or_default()
    }

    /// `closes` is said to clients that would expect the connection to stay.
    pub(crate) fn write(mut self, version: Version, closes: bool, head_only: bool) -> Vec<u8> {
        let mut out = begin(version, self.status);
        self.fields.write(&mut out);
        out.extend_from_slice(format!("Date: {}\r\n", date()).as_bytes());
        out.extend_from_slice(format!("Content-Length: {}\r\n", self.body.len()).as_bytes());
        if closes && version == Version::Http11 {
            out.extend_from_slice(b"Connection: close\r\n");
        }
        out.extend_from_slice(b"\r\n");
        if !head_only {
            out.extend_from_slice(self.body.as_bytes());
        }
        out
    }
}

impl Refused {
    pub(crate) fn write(&self) -> Vec<u8> {
        let Self { status, body } = self;
        format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\n\
             Connection: close\r\n\r\n{body}"
        )
        .into_bytes()
    }
}

/// A status line. The reason is the standard's, whatever the app said.
pub(crate) fn begin(version: Version, status: u16) -> Vec<u8> {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|code| code.canonical_reason());
    let reason = match (status, reason) {
        (413, _) => "Request Entity Too Large".to_owned(),
        (416, _) => "Requested Range Not Satisfiable".to_owned(),
        (418, _) => "I'm a teapot".to_owned(),
        (203, _) => "Non-Authoritative Information".to_owned(),
        (_, Some(reason)) => reason.to_owned(),
        (_, None) => format!("status code {status}"),
    };
    let mut out = Vec::with_capacity(512);
    out.extend_from_slice(format!("{} {status} {reason}\r\n", version.text()).as_bytes());
    out
}

/// The value of a `Date` of now.
pub(crate) fn date() -> String {
    let now = jiff::Timestamp::try_from(SystemTime::now()).unwrap_or_default();
    now.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}
