//! What is said of each request once it is over.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

/// Where the access log goes. It is called from many tasks and must not wait.
pub trait AccessLog: Send + Sync {
    /// Takes what is said of one request.
    fn log(&self, record: Record);
}

/// One request and its response. As text it is the original's line.
#[derive(Clone, Debug)]
pub struct Record {
    /// When its head was there.
    pub started: SystemTime,
    /// When all was sent, since then.
    pub took: Duration,
    /// How much of that was at endpoints.
    pub backend_took: Duration,
    /// As the client wrote it.
    pub host: String,
    /// `GET`, …
    pub method: String,
    /// Path and query.
    pub uri: String,
    /// `HTTP/1.1`, …
    pub protocol: &'static str,
    /// As it was sent, 499 for a client that left before.
    pub status: u16,
    /// Bytes of the request's body.
    pub request_bytes: u64,
    /// Bytes of the response's body.
    pub response_bytes: u64,
    /// `Referer`; not always UTF-8.
    pub referer: Vec<u8>,
    /// `User-Agent`; not always UTF-8.
    pub user_agent: Vec<u8>,
    /// The client's address.
    pub client: String,
    /// The endpoint's address.
    pub backend: String,
    /// As the endpoint got it.
    pub forwarded_for: Vec<u8>,
    /// As the endpoint got it.
    pub forwarded_proto: Vec<u8>,
    /// `X-Vcap-Request-Id`.
    pub request_id: String,
    /// Source of the app's logs.
    pub app_id: String,
    /// The instance's index.
    pub app_index: String,
    /// The instance's guid.
    pub instance_id: String,
    /// Tags of the endpoint's registration.
    pub tags: BTreeMap<String, String>,
    /// Attempts that failed, if they are to be in the line.
    pub failed_attempts: Option<usize>,
    /// `X-Cf-RouterError`.
    pub router_error: String,
    /// Names and values of the headers that are logged besides.
    pub extra: Vec<(String, Vec<u8>)>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let started = jiff::Timestamp::try_from(self.started).unwrap_or_default();
        write!(f, "{} - [{started:.9}] ", self.host)?;
        write!(
            f,
            "{}",
            Quoted(format!("{} {} {}", self.method, self.uri, self.protocol).as_bytes())
        )?;
        write!(f, " {} {} {}", self.status, self.request_bytes, self.response_bytes)?;
        write!(f, " {} {}", Quoted(&self.referer), Quoted(&self.user_agent))?;
        write!(f, " {} {}", Quoted(self.client.as_bytes()), Quoted(self.backend.as_bytes()))?;
        write!(f, " x_forwarded_for:{}", Quoted(&self.forwarded_for))?;
        write!(f, " x_forwarded_proto:{}", Quoted(&self.forwarded_proto))?;
        write!(f, " vcap_request_id:{}", Quoted(self.request_id.as_bytes()))?;
        write!(f, " response_time:{:.6}", self.took.as_secs_f64())?;
        let router_took = self.took.saturating_sub(self.backend_took);
        write!(f, " gorouter_time:{:.6}", router_took.as_secs_f64())?;
        write!(f, " app_id:{}", Quoted(self.app_id.as_bytes()))?;
        write!(f, " app_index:{}", Quoted(self.app_index.as_bytes()))?;
        write!(f, " instance_id:{}", Quoted(self.instance_id.as_bytes()))?;
        if let Some(failed) = self.failed_attempts {
            write!(f, " failed_attempts:{failed}")?;
        }
        write!(f, " x_cf_routererror:{}", Quoted(self.router_error.as_bytes()))?;
        for (name, value) in &self.extra {
            write!(f, " {name}:{}", Quoted(value))?;
        }
        Ok(())
    }
}

/// In quotes as Go writes them; a hyphen for nothing.
struct Quoted<'a>(&'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("\"-\"");
        }
        f.write_str("\"")?;
        for chunk in self.0.utf8_chunks() {
            let quoted = crate::head::quoted(chunk.valid());
            f.write_str(&quoted[1..quoted.len() - 1])?;
            for byte in chunk.invalid() {
                write!(f, "\\x{byte:02x}")?;
            }
        }
        f.write_str("\"")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_quoted() {
        for (value, quoted) in [
            (&b""[..], r#""-""#),
            (b"a\"b\\c\td \xe9", r#""a\"b\\c\td \xe9""#),
            ("é\u{1}".as_bytes(), r#""é\x01""#),
        ] {
            assert_eq!(Quoted(value).to_string(), quoted);
        }
    }
}
