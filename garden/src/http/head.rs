//! Heads of requests and responses.

use super::body::Body;
use super::target::Target;
use super::wire::Wire;

/// A request's head, at most; as much as the original takes.
pub const LONGEST_REQUEST_HEAD: usize = (1 << 20) + 4096;
const LONGEST_RESPONSE_HEAD: usize = 64 * 1024;
const MOST_HEADERS: usize = 256;

/// A request that is not understood; answered in plain text, and the connection is closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadRequest(pub &'static str);

impl BadRequest {
    /// The number that its text begins with.
    pub fn status(&self) -> u16 {
        self.0.split(' ').next().and_then(|number| number.parse().ok()).unwrap_or(400)
    }
}

const BAD: BadRequest = BadRequest("400 Bad Request");
const TOO_LARGE: BadRequest = BadRequest("431 Request Header Fields Too Large");

/// What a request is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// As it was sent.
    pub method: String,
    /// What is asked for.
    pub target: Target,
    /// HTTP/1.0, which knows no chunks.
    pub old: bool,
    /// The connection may serve another request.
    pub keep_alive: bool,
    /// The connection header asked for the opposite of the version's custom, and is answered.
    pub says_connection: bool,
    /// The client waits for `100 Continue`.
    pub expects_continue: bool,
    /// How the body is framed.
    pub body: Body,
    /// The body says it is a form, of either kind.
    pub is_form: bool,
    /// `X-Vcap-Request-Id`.
    pub request_id: Option<String>,
    /// `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
}

/// A head, or why there is none.
#[derive(Debug)]
pub enum Received<T> {
    /// It came.
    Head(T),
    /// The peer closed before it sent anything.
    Closed,
    /// It is not understood.
    Bad(BadRequest),
}

impl RequestHead {
    /// Reads a request's head. An I/O error or an end in the middle is `Err`.
    pub async fn read(wire: &mut Wire) -> std::io::Result<Received<Self>> {
        let mut searched = 0;
        loop {
            if let Some(end) = end_of_head(wire.ahead(), &mut searched) {
                if end > LONGEST_REQUEST_HEAD {
                    return Ok(Received::Bad(TOO_LARGE));
                }
                let parsed = Self::parse(&wire.ahead()[..end]);
                if parsed.is_ok() {
                    wire.consume(end);
                }
                return Ok(parsed.map_or_else(Received::Bad, Received::Head));
            }
            if wire.ahead().len() > LONGEST_REQUEST_HEAD {
                return Ok(Received::Bad(TOO_LARGE));
            }
            if !wire.fill().await? {
                return if wire.ahead().is_empty() {
                    Ok(Received::Closed)
                } else {
                    Err(std::io::ErrorKind::UnexpectedEof.into())
                };
            }
        }
    }

    fn new(method: &str, target: Target, old: bool) -> Self {
        Self {
            method: method.to_owned(),
            target,
            old,
            keep_alive: !old,
            says_connection: false,
            expects_continue: false,
            body: Body::Done,
            is_form: false,
            request_id: None,
            traceparent: None,
        }
    }

    /// Of which trace the request is, in hexadecimal digits. As lager does, a request's id counts if
    /// it is 128 bits, hyphens aside; other platforms send a `traceparent`.
    pub fn trace_id(&self) -> Option<String> {
        let hex = |text: &str, longest: usize| {
            let fits = (1..=longest).contains(&text.len());
            (fits && text.bytes().all(|byte| byte.is_ascii_hexdigit()))
                .then(|| text.to_ascii_lowercase())
        };
        let id = self.request_id.as_deref().and_then(|id| hex(&id.replace('-', ""), 32));
        let id =
            id.map(|id| if id.len() <= 16 { format!("{id:0>16}") } else { format!("{id:0>32}") });
        id.or_else(|| {
            let trace = self.traceparent.as_deref()?.split('-').nth(1)?;
            hex(trace, 32)
                .filter(|trace| trace.len() == 32 && trace.bytes().any(|digit| digit != b'0'))
        })
    }

    fn parse(bytes: &[u8]) -> Result<Self, BadRequest> {
        if bytes.starts_with(b"\r") || bytes.starts_with(b"\n") {
            return Err(BAD);
        }
        // What a client of HTTP/2 tries first; to the original it is a request like any other.
        if bytes.starts_with(b"PRI * HTTP/2.0\r\n") {
            let preface = Self::new("PRI", Target::parse("*").ok_or(BAD)?, false);
            return Ok(Self { keep_alive: false, says_connection: true, ..preface });
        }
        let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
        let mut request = httparse::Request::new(&mut headers);
        match request.parse(bytes) {
            Ok(httparse::Status::Complete(_)) => {}
            Ok(httparse::Status::Partial) => return Err(BAD),
            Err(httparse::Error::TooManyHeaders) => return Err(TOO_LARGE),
            Err(httparse::Error::Version) if is_http(bytes) => {
                return Err(BadRequest(
                    "505 HTTP Version Not Supported: unsupported protocol version",
                ));
            }
            Err(httparse::Error::HeaderName) if !has_line_without_colon(bytes) => {
                return Err(BadRequest("400 Bad Request: invalid header name"));
            }
            Err(_) => return Err(BAD),
        }
        let (Some(method), Some(target)) = (request.method, request.path) else { return Err(BAD) };
        let old = request.version == Some(0);
        let mut head = Self::new(method, Target::parse(target).ok_or(BAD)?, old);
        let mut hosts = 0;
        let (mut length, mut chunked) = (None, false);
        for header in request.headers.iter() {
            let value = std::str::from_utf8(header.value).unwrap_or_default().trim();
            let is = |name: &str| header.name.eq_ignore_ascii_case(name);
            if is("host") {
                hosts += 1;
            } else if is("connection") {
                head.connection(value);
            } else if is("content-length") {
                let digits = !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit());
                let parsed: u64 = value.parse().ok().filter(|_| digits).ok_or(BAD)?;
                if length.replace(parsed).is_some_and(|other| other != parsed) {
                    return Err(BAD);
                }
            } else if is("transfer-encoding") {
                if chunked || !value.eq_ignore_ascii_case("chunked") {
                    return Err(BadRequest("501 Not Implemented: unsupported transfer encoding"));
                }
                chunked = true;
            } else if is("content-type") {
                let kind = value.split(';').next().unwrap_or_default().trim();
                head.is_form = kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
                    || kind.eq_ignore_ascii_case("multipart/form-data");
            } else if is("expect") {
                head.expects_continue = value.eq_ignore_ascii_case("100-continue");
            } else if is("x-vcap-request-id") {
                head.request_id = Some(value.to_owned()).filter(|id| !id.is_empty());
            } else if is("traceparent") {
                head.traceparent = Some(value.to_owned());
            }
        }
        if hosts == 0 && !old {
            return Err(BadRequest("400 Bad Request: missing required Host header"));
        }
        if hosts > 1 || (chunked && old) {
            return Err(BAD);
        }
        // Both framings together are how requests are smuggled. As in the original the chunks count,
        // but nothing that follows on such a connection is believed (RFC 9112, section 6.3).
        if chunked && length.is_some() {
            head.keep_alive = false;
        }
        head.body = if chunked {
            Body::Chunked(None)
        } else {
            length.filter(|length| *length > 0).map_or(Body::Done, Body::Length)
        };
        Ok(head)
    }

    fn connection(&mut self, value: &str) {
        for option in value.split(',').map(str::trim) {
            if option.eq_ignore_ascii_case("close") {
                self.keep_alive = false;
                self.says_connection = !self.old;
            } else if option.eq_ignore_ascii_case("keep-alive") && self.old {
                self.keep_alive = true;
                self.says_connection = true;
            }
        }
    }
}

/// What a server answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// Status code.
    pub status: u16,
    /// How the body is framed; what a hijacked connection says of it is not true.
    pub body: Body,
}

impl ResponseHead {
    /// Reads a response's head; interim ones are passed over.
    pub async fn read(wire: &mut Wire) -> std::io::Result<Self> {
        let broken =
            |what: &'static str| std::io::Error::new(std::io::ErrorKind::InvalidData, what);
        let mut searched = 0;
        loop {
            let Some(end) = end_of_head(wire.ahead(), &mut searched) else {
                if wire.ahead().len() > LONGEST_RESPONSE_HEAD {
                    return Err(broken("the response's head is too long"));
                }
                if !wire.fill().await? {
                    return Err(std::io::ErrorKind::UnexpectedEof.into());
                }
                continue;
            };
            let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
            let mut response = httparse::Response::new(&mut headers);
            let parsed = response.parse(&wire.ahead()[..end]);
            let (Ok(httparse::Status::Complete(_)), Some(status)) = (parsed, response.code) else {
                return Err(broken("the response is no HTTP"));
            };
            let value = |name: &str| {
                let found = response.headers.iter().find(|h| h.name.eq_ignore_ascii_case(name));
                found.and_then(|header| std::str::from_utf8(header.value).ok()).map(str::trim)
            };
            let chunked =
                value("transfer-encoding").is_some_and(|text| text.eq_ignore_ascii_case("chunked"));
            let body = if chunked {
                Body::Chunked(None)
            } else {
                match value("content-length") {
                    Some(text) => Body::Length(
                        text.parse().map_err(|_| broken("the response's length is no number"))?,
                    ),
                    None => Body::UntilClose,
                }
            };
            wire.consume(end);
            searched = 0;
            if status >= 200 {
                return Ok(Self { status, body });
            }
        }
    }
}

/// Where a head ends: behind the first empty line, or behind one at the very beginning. Lines up to
/// `searched` have been seen before, so that a head that comes byte by byte costs no more than one
/// that comes at once.
fn end_of_head(bytes: &[u8], searched: &mut usize) -> Option<usize> {
    while let Some(length) = bytes[*searched..].iter().position(|byte| *byte == b'\n') {
        let line = &bytes[*searched..*searched + length];
        *searched += length + 1;
        if line.is_empty() || line == b"\r" {
            return Some(*searched);
        }
    }
    None
}

fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    bytes.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii_end)
}

fn is_http(bytes: &[u8]) -> bool {
    // Everything behind the second space, as the original cuts a request line.
    let version = lines(bytes).next().and_then(|line| line.splitn(3, |byte| *byte == b' ').nth(2));
    matches!(version, Some([b'H', b'T', b'T', b'P', b'/', major, b'.', minor])
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

fn has_line_without_colon(bytes: &[u8]) -> bool {
    lines(bytes).skip(1).any(|line| !line.is_empty() && !line.contains(&b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> &'static str {
        RequestHead::parse(text.as_bytes()).unwrap_err().0
    }

    #[test]
    fn heads_are_refused_in_the_originals_words() {
        for (head, words) in [
            ("GET /ping HTTP/1.1\r\n\r\n", "400 Bad Request: missing required Host header"),
            ("GET /ping HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "400 Bad Request"),
            ("GET\r\n\r\n", "400 Bad Request"),
            ("GET /ping\r\n\r\n", "400 Bad Request"),
            (
                "GET /ping HTTP/3.7\r\nHost: api\r\n\r\n",
                "505 HTTP Version Not Supported: unsupported protocol version",
            ),
            (
                "GET /ping HTTP/1.1\r\nHost: api\r\nBad Header: x\r\n\r\n",
                "400 Bad Request: invalid header name",
            ),
            ("GET /ping HTTP/1.1\r\nHost: api\r\nNoColon\r\n\r\n", "400 Bad Request"),
            ("\r\n", "400 Bad Request"),
            ("GET /b%zz HTTP/1.1\r\nHost: api\r\n\r\n", "400 Bad Request"),
            ("GET /a b HTTP/1.1\r\nHost: api\r\n\r\n", "400 Bad Request"),
        ] {
            assert_eq!(refusal(head), words, "{head:?}");
        }
    }

    #[test]
    fn a_trace_is_known_by_the_requests_id_or_by_a_traceparent() {
        let trace = |headers: &str| {
            let head = format!("GET /ping HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
            RequestHead::parse(head.as_bytes()).unwrap().trace_id()
        };
        let id = "X-Vcap-Request-Id: 7F461654-74D1-1EE5-8367-77D85DF2CDAB";
        let parent = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let (by_id, by_parent) =
            ("7f46165474d11ee5836777d85df2cdab", "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(trace(id).unwrap(), by_id);
        assert_eq!(trace(parent).unwrap(), by_parent);
        assert_eq!(trace(&format!("{parent}\r\n{id}")).unwrap(), by_id);
        assert_eq!(trace(&format!("{parent}\r\nX-Vcap-Request-Id: no id")).unwrap(), by_parent);
        assert_eq!(trace("X-Vcap-Request-Id: abc").unwrap(), "0000000000000abc");
        for none in ["X-Other: 1", "traceparent: 00-0000", "X-Vcap-Request-Id: x"] {
            assert_eq!(trace(none), None, "{none}");
        }
        let zeros = "0".repeat(32);
        assert_eq!(trace(&format!("traceparent: 00-{zeros}-b7ad6b7169203331-01")), None);
    }

    #[test]
    fn smuggled_framings_are_refused() {
        for headers in
            ["Content-Length: 3\r\nContent-Length: 4", "Content-Length: +3", "Content-Length: 3, 3"]
        {
            let head = format!("PUT /x HTTP/1.1\r\nHost: a\r\n{headers}\r\n\r\n");
            assert_eq!(refusal(&head), "400 Bad Request", "{headers}");
        }
        assert!(
            refusal("PUT /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n")
                .starts_with("501")
        );
    }

    #[test]
    fn chunks_win_over_a_length_and_end_the_connection() {
        let head = b"PUT /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n";
        let head = RequestHead::parse(head).unwrap();
        assert_eq!((head.body, head.keep_alive), (Body::Chunked(None), false));
    }

    #[test]
    fn bare_line_feeds_and_old_versions_are_read() {
        let head =
            RequestHead::parse(b"GET /ping HTTP/1.1\nHost: api\nConnection: close\n\n").unwrap();
        assert!(!head.keep_alive && head.says_connection);
        let head = RequestHead::parse(b"GET /ping HTTP/1.0\r\n\r\n").unwrap();
        assert!(head.old && !head.keep_alive && !head.says_connection);
    }
}
