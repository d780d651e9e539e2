//! Requests as the original's client writes them: which headers, and in what order.

use crate::http::target;

/// A handle, process id or property key as a path's segment. Escaped is what the original escapes,
/// and what would not arrive as it is: `/`, `%` and `+`.
pub(super) fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if "$&,:;=@!'()*[]".contains(character) {
            escaped.push(character);
        } else {
            escaped.push_str(&target::encode(character.encode_utf8(&mut [0; 4])));
        }
    }
    escaped
}

/// What a request's body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    /// None at all.
    Absent,
    /// So many bytes.
    Known(usize),
    /// Chunks.
    Chunked,
}

/// A request but for its body.
#[derive(Debug)]
pub(super) struct Request {
    /// Garden's name of the call, for errors.
    pub(super) call: &'static str,
    pub(super) method: &'static str,
    pub(super) target: String,
    pub(super) content_type: Option<&'static str>,
    pub(super) length: Length,
    /// JSON; archives are streamed instead.
    pub(super) body: Vec<u8>,
}

const JSON: Option<&str> = Some("application/json");

impl Request {
    fn without_body(call: &'static str, method: &'static str, target: String) -> Self {
        let (length, body) = (Length::Absent, Vec::new());
        Self { call, method, target, content_type: None, length, body }
    }

    fn with_body(call: &'static str, method: &'static str, target: String, body: Vec<u8>) -> Self {
        let length = Length::Known(body.len());
        Self { call, method, target, content_type: JSON, length, body }
    }

    pub(super) fn get(call: &'static str, target: String) -> Self {
        Self::without_body(call, "GET", target)
    }

    pub(super) fn delete(call: &'static str, target: String) -> Self {
        Self::without_body(call, "DELETE", target)
    }

    pub(super) fn put(call: &'static str, target: String, body: Vec<u8>) -> Self {
        Self::with_body(call, "PUT", target, body)
    }

    pub(super) fn post(call: &'static str, target: String, body: Vec<u8>) -> Self {
        Self::with_body(call, "POST", target, body)
    }

    /// For an output's connection, which announces JSON and sends none.
    pub(super) fn stream(call: &'static str, target: String) -> Self {
        Self { content_type: JSON, ..Self::get(call, target) }
    }

    /// The same for sending an archive.
    pub(super) fn into_upload(self, length: Length) -> Self {
        let (call, method) = ("StreamIn", "PUT");
        Self { call, method, content_type: Some("application/x-tar"), length, ..self }
    }

    /// With pairs after the path, which come sorted by key.
    pub(super) fn with_query<'a>(
        mut self,
        pairs: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Self {
        let escape = |text: &str| target::encode(text).replace("%20", "+");
        for (at, (key, value)) in pairs.into_iter().enumerate() {
            self.target.push(if at == 0 { '?' } else { '&' });
            self.target.push_str(&format!("{}={}", escape(key), escape(value)));
        }
        self
    }

    /// The head, up to and with the empty line. Hijacked connections are not announced to close,
    /// and nothing on them could be compressed.
    pub(super) fn head(&self, request_id: Option<&str>, hijack: bool) -> String {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: api\r\nUser-Agent: Go-http-client/1.1\r\n",
            self.method, self.target
        );
        match self.length {
            Length::Absent => {}
            Length::Known(length) => head.push_str(&format!("Content-Length: {length}\r\n")),
            Length::Chunked => head.push_str("Transfer-Encoding: chunked\r\n"),
        }
        if let Some(content_type) = self.content_type {
            head.push_str(&format!("Content-Type: {content_type}\r\n"));
        }
        if let Some(id) = request_id {
            head.push_str(&format!("X-Vcap-Request-Id: {id}\r\n"));
        }
        if !hijack {
            head.push_str("Accept-Encoding: gzip\r\nConnection: close\r\n");
        }
        head.push_str("\r\n");
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_the_originals() {
        let upload = Request::get("StreamOut", "/containers/box/files".into())
            .with_query([("destination", "/a b"), ("user", "")])
            .into_upload(Length::Chunked);
        assert_eq!(
            upload.head(None, false),
            "PUT /containers/box/files?destination=%2Fa+b&user= HTTP/1.1\r\nHost: api\r\n\
             User-Agent: Go-http-client/1.1\r\nTransfer-Encoding: chunked\r\n\
             Content-Type: application/x-tar\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n"
        );
        let run = Request::post("Run", "/containers/box/processes".into(), b"{}\n".to_vec());
        assert_eq!(
            run.head(Some("trace-1"), true),
            "POST /containers/box/processes HTTP/1.1\r\nHost: api\r\n\
             User-Agent: Go-http-client/1.1\r\nContent-Length: 3\r\n\
             Content-Type: application/json\r\nX-Vcap-Request-Id: trace-1\r\n\r\n"
        );
    }

    #[test]
    fn segments_arrive_as_they_are() {
        assert_eq!(segment("odd.key:with-dash"), "odd.key:with-dash");
        assert_eq!(segment("a b/c%d+e?fü"), "a%20b%2Fc%25d%2Be%3Ff%C3%BC");
        for text in ["a/b", "100%", "a+b", "$&,:;=@!'()*[]", "\r\nX: y", "#"] {
            assert_eq!(target::decode(&segment(text)).as_deref(), Some(text));
        }
    }
}
