//! Heads of HTTP/1 messages: reading them as strictly as the original, and refusing what others might
//! read in another way.

use bytes::{Bytes, BytesMut};

use crate::body::Framing;
use crate::fields::{Fields, canonicalize, is_token};

/// The version of a message; later minor versions are read as 1.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    Http10,
    Http11,
}

impl Version {
    pub(crate) fn text(self) -> &'static str {
        match self {
            Self::Http10 => "HTTP/1.0",
            Self::Http11 => "HTTP/1.1",
        }
    }
}

/// A request's head.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Bytes,
    /// As it came.
    pub(crate) target: Bytes,
    /// The part of the target that is path and query; empty where it has none.
    pub(crate) path: Bytes,
    /// From the target if that names one.
    pub(crate) host: Bytes,
    pub(crate) version: Version,
    /// Without `Host`, `Content-Length` and `Transfer-Encoding`.
    pub(crate) fields: Fields,
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
    /// Bytes of the head.
    pub(crate) length: usize,
}

/// A request that is answered by the server itself and is not routed: status line without version, and
/// body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    pub(crate) status: &'static str,
    pub(crate) body: &'static str,
}

pub(crate) const BAD: Refused = refused("400 Bad Request");

pub(crate) const TOO_LARGE: Refused = refused("431 Request Header Fields Too Large");

const fn refused(status: &'static str) -> Refused {
    Refused { status, body: status }
}

/// A response's head.
#[derive(Clone, Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// Without `Transfer-Encoding`.
    pub(crate) fields: Fields,
    /// Of a response to any method but HEAD.
    pub(crate) framing: Framing,
    pub(crate) keep_alive: bool,
}

/// Where the head at the start of `bytes` ends, behind its empty line. What was looked at before, up
/// to `seen`, is not looked at again.
pub(crate) fn end(bytes: &[u8], seen: usize) -> Option<usize> {
    let mut from = seen.saturating_sub(3);
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == b'\n') {
        let next = from + at + 1;
        match bytes[next..] {
            [b'\n', ..] => return Some(next + 1),
            [b'\r', b'\n', ..] => return Some(next + 2),
            _ => from = next,
        }
    }
    None
}

/// Whether it can be the first line of a request.
pub(crate) fn is_request_line(line: &[u8]) -> bool {
    line.splitn(3, |byte| *byte == b' ').nth(2).is_some_and(|version| version.starts_with(b"HTTP/"))
}

/// Reads a request's head, all of it.
pub(crate) fn request(head: BytesMut) -> Result<Request, Refused> {
    let length = head.len();
    let (line, mut rest) = line(head).ok_or(BAD)?;
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let (Some(method), Some(target), Some(version)) = (parts.next(), parts.next(), parts.next())
    else {
        return Err(BAD);
    };
    let (method, target) = (line.slice_ref(method), line.slice_ref(target));
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(refused("505 HTTP Version Not Supported: unsupported protocol version"));
        }
        _ => return Err(BAD),
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err(BAD);
    }
    let (authority, path) = split_target(&method, &target).ok_or(BAD)?;

    let mut fields = Fields::default();
    loop {
        match field(&mut rest) {
            Ok(Some((name, value))) => fields.push(name, value),
            Ok(None) => break,
            Err(line) => {
                return Err(match line.iter().position(|byte| *byte == b':') {
                    Some(colon) if is_token_with_spaces(&line[..colon]) => {
                        refused("400 Bad Request: invalid header name")
                    }
                    _ => BAD,
                });
            }
        }
    }

    let host = match (fields.get("Host").cloned(), fields.all("Host").nth(1)) {
        (_, Some(_)) => return Err(BAD),
        (Some(host), None) if !is_host(&host) => {
            return Err(refused("400 Bad Request: malformed Host header"));
        }
        (None, None) if version == Version::Http11 => {
            return Err(refused("400 Bad Request: missing required Host header"));
        }
        (host, None) => authority.or(host).unwrap_or_default(),
    };
    let framing = request_framing(&fields, version)?;
    let keep_alive = match version {
        Version::Http11 => !fields.lists("Connection", "close"),
        Version::Http10 => {
            fields.lists("Connection", "keep-alive") && !fields.lists("Connection", "close")
        }
    };
    for name in ["Host", "Content-Length", "Transfer-Encoding"] {
        fields.remove(name);
    }
    Ok(Request { method, target, path, host, version, fields, framing, keep_alive, length })
}

fn request_framing(fields: &Fields, version: Version) -> Result<Framing, Refused> {
    let length = content_length(fields).map_err(|_| BAD)?;
    let mut codings = fields.all("Transfer-Encoding");
    match (codings.next(), codings.next()) {
        // HTTP/1.0 has no transfer codings; its connection is closed after the response.
        (Some(_), _) if version == Version::Http10 => Ok(Framing::Length(0)),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => match length {
            None => Ok(Framing::Chunked),
            // Two readers of this may see two different ends (RFC 9112, 6.3).
            Some(_) => Err(BAD),
        },
        (Some(_), _) => {
            Err(Refused { status: "501 Not Implemented", body: "Unsupported transfer encoding" })
        }
        (None, _) => Ok(Framing::Length(length.unwrap_or(0))),
    }
}

/// The authority that the target names, and its path with the query.
fn split_target(method: &Bytes, target: &Bytes) -> Option<(Option<Bytes>, Bytes)> {
    let is_control = |byte: &u8| *byte < b' ' || *byte == 0x7f;
    if target.is_empty() || target.iter().any(is_control) {
        return None;
    }
    if method == "CONNECT" && target[0] != b'/' {
        return is_host(target).then(|| (Some(target.clone()), Bytes::new()));
    }
    let path = if target[0] == b'/' || &target[..] == b"*" {
        return has_good_escapes(target).then(|| (None, target.clone()));
    } else {
        let colon = target.windows(3).position(|piece| piece == b"://")?;
        let scheme = &target[..colon];
        if scheme.is_empty() || !scheme.iter().all(u8::is_ascii_alphanumeric) {
            return None;
        }
        colon + 3
    };
    let ends = |byte: &u8| matches!(byte, b'/' | b'?');
    let end = target[path..].iter().position(ends).map_or(target.len(), |at| path + at);
    let authority = target.slice(path..end);
    // User and password are no part of the host.
    let user = authority.iter().rposition(|byte| *byte == b'@').map_or(0, |at| at + 1);
    let host = authority.slice(user..);
    let path = target.slice(end..);
    (is_host(&host) && has_good_escapes(&path)).then_some((Some(host), path))
}

/// Whether each `%` of the path, not of the query, has its two digits.
fn has_good_escapes(target: &[u8]) -> bool {
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    path.iter().enumerate().all(|(at, byte)| {
        *byte != b'%'
            || path.get(at + 1..at + 3).is_some_and(|two| two.iter().all(u8::is_ascii_hexdigit))
    })
}

fn is_host(host: &[u8]) -> bool {
    host.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!$%&'()*+,-.:;=[]_~".contains(byte))
}

fn is_token_with_spaces(name: &[u8]) -> bool {
    name.contains(&b' ')
        && name[0] != b' '
        && name.iter().all(|byte| is_token(*byte) || *byte == b' ')
}

/// Reads a response's head, all of it. What is wrong is told in the original's words.
pub(crate) fn response(head: BytesMut) -> Result<Response, String> {
    let (line, mut rest) = line(head).ok_or_else(|| "malformed HTTP response".to_owned())?;
    let text = || String::from_utf8_lossy(&line).into_owned();
    let Some(space) = line.iter().position(|byte| *byte == b' ') else {
        return Err(broken(&format!("malformed HTTP response {}", quoted(&text()))));
    };
    let (version, status) = (&line[..space], line[space + 1..].trim_ascii_start());
    let code = status.split(|byte| *byte == b' ').next().unwrap_or_default();
    let status = match code {
        [b'0'..=b'9', b'0'..=b'9', b'0'..=b'9'] => {
            code.iter().fold(0, |sum, digit| sum * 10 + u16::from(digit - b'0'))
        }
        _ => {
            let code = String::from_utf8_lossy(code);
            return Err(broken(&format!("malformed HTTP status code {}", quoted(&code))));
        }
    };
    let [b'H', b'T', b'T', b'P', b'/', major @ b'0'..=b'9', b'.', minor @ b'0'..=b'9'] = *version
    else {
        let version = String::from_utf8_lossy(version);
        return Err(broken(&format!("malformed HTTP version {}", quoted(&version))));
    };

    let mut fields = Fields::default();
    loop {
        match field(&mut rest) {
            Ok(Some((name, value))) => fields.push(name, value),
            Ok(None) => break,
            Err(line) => {
                let what = if line.contains(&b':') { " line:" } else { ": missing colon:" };
                let line = String::from_utf8_lossy(&line).into_owned();
                return Err(broken(&format!("malformed MIME header{what} {}", quoted(&line))));
            }
        }
    }

    let length = content_length(&fields).map_err(|error| broken(&error))?;
    if fields.all("Transfer-Encoding").nth(1).is_some() {
        return Err(broken("too many transfer encodings"));
    }
    let coding = fields.get("Transfer-Encoding").cloned();
    let newer = major > b'1' || major == b'1' && minor > b'0';
    let framing = match coding {
        _ if matches!(status, 100..=199 | 204 | 304) => Framing::Length(0),
        Some(coding) if coding.eq_ignore_ascii_case(b"chunked") && newer => Framing::Chunked,
        Some(coding) if newer => {
            let coding = String::from_utf8_lossy(&coding).into_owned();
            return Err(broken(&format!("unsupported transfer encoding: {}", quoted(&coding))));
        }
        _ => length.map_or(Framing::UntilClose, Framing::Length),
    };
    let mut keep_alive = if newer {
        !fields.lists("Connection", "close")
    } else {
        fields.lists("Connection", "keep-alive")
    };
    if framing == Framing::Chunked && length.is_some() {
        fields.remove("Content-Length");
        keep_alive = false;
    }
    if matches!(status, 100..=199 | 204 | 304) {
        // A body that must not be there would be read as the next response.
        keep_alive &= status == 304 || length.unwrap_or(0) == 0;
        if status != 101 {
            fields.remove("Content-Length");
        }
    }
    fields.remove("Transfer-Encoding");
    Ok(Response { status, fields, framing, keep_alive })
}

fn broken(what: &str) -> String {
    format!("net/http: HTTP/1.x transport connection broken: {what}")
}

/// A text in quotes, as Go writes it.
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for char in text.chars() {
        match char {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            '\n' => out.push_str("\\n"),
            char if char.is_control() => out.push_str(&format!("\\x{:02x}", u32::from(char))),
            char => out.push(char),
        }
    }
    out.push('"');
    out
}

fn content_length(fields: &Fields) -> Result<Option<u64>, String> {
    let mut lengths = fields.all("Content-Length");
    let Some(first) = lengths.next() else { return Ok(None) };
    if lengths.any(|other| other != first) {
        let all: Vec<String> = fields
            .all("Content-Length")
            .map(|value| quoted(&String::from_utf8_lossy(value)))
            .collect();
        let all = all.join(" ");
        return Err(format!(
            "http: message cannot contain multiple Content-Length headers; got [{all}]"
        ));
    }
    let digits = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
    let number = std::str::from_utf8(first).ok().filter(|_| digits);
    match number.and_then(|number| number.parse::<i64>().ok()) {
        Some(length) => Ok(Some(length.unsigned_abs())),
        None => Err(format!("bad Content-Length {}", quoted(&String::from_utf8_lossy(first)))),
    }
}

/// The first line of `head` without its end, and what follows.
fn line(mut head: BytesMut) -> Option<(Bytes, BytesMut)> {
    let newline = head.iter().position(|byte| *byte == b'\n')?;
    let mut line = head.split_to(newline + 1).freeze();
    line.truncate(newline - usize::from(newline > 0 && line[newline - 1] == b'\r'));
    Some((line, head))
}

/// Takes the next field; none at the empty line. An error is the line that is no field.
fn field(rest: &mut BytesMut) -> Result<Option<(Bytes, Bytes)>, Bytes> {
    // A line that begins with a space continues the one before it (RFC 9112, 5.2).
    let mut newline = 0;
    let mut folded = false;
    loop {
        let Some(at) = rest[newline..].iter().position(|byte| *byte == b'\n') else {
            return Ok(None);
        };
        newline += at + 1;
        match rest.get(newline) {
            Some(b' ' | b'\t') if newline > 2 => folded = true,
            _ => break,
        }
    }
    let mut line = rest.split_to(newline);
    line.truncate(newline - 1);
    if line.last() == Some(&b'\r') {
        line.truncate(line.len() - 1);
    }
    if line.is_empty() {
        return Ok(None);
    }
    if folded {
        line = unfold(&line);
    }
    let bad = |line: BytesMut| Err(line.freeze());
    let Some(colon) = line.iter().position(|byte| *byte == b':') else { return bad(line) };
    let is_visible = |byte: &u8| matches!(byte, b'\t' | b' '..=0x7e | 0x80..);
    if matches!(line[0], b' ' | b'\t')
        || !line[colon + 1..].iter().all(is_visible)
        || canonicalize(&mut line[..colon]).is_none()
    {
        return bad(line);
    }
    let line = line.freeze();
    let value = line.slice_ref(line[colon + 1..].trim_ascii());
    Ok(Some((line.slice(..colon), value)))
}

fn unfold(line: &[u8]) -> BytesMut {
    let mut joined = BytesMut::with_capacity(line.len());
    for part in line.split(|byte| *byte == b'\n') {
        if !joined.is_empty() {
            joined.extend_from_slice(b" ");
        }
        joined.extend_from_slice(part.trim_ascii());
    }
    joined
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Result<Request, Refused> {
        request(BytesMut::from(text))
    }

    #[test]
    fn heads_end_with_an_empty_line() {
        assert_eq!(end(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nrest", 0), Some(27));
        assert_eq!(end(b"GET / HTTP/1.1\nHost: a\n\nrest", 0), Some(24));
        assert_eq!(end(b"GET / HTTP/1.1\r\nHost: a\r\n\r", 0), None);
        let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for seen in 0..head.len() {
            assert_eq!(end(head, seen), Some(27), "{seen}");
        }
    }

    #[test]
    fn targets_name_host_and_path() {
        for (target, host, path) in [
            ("/a?b", "h", "/a?b"),
            ("//a", "h", "//a"),
            ("*", "h", "*"),
            ("http://app.example.com", "app.example.com", ""),
            ("http://u:p@app:80/x?y", "app:80", "/x?y"),
            ("https://app?x", "app", "?x"),
        ] {
            let read = read(&format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n")).unwrap();
            assert_eq!((&read.host[..], &read.path[..]), (host.as_bytes(), path.as_bytes()));
        }
        for bad in ["x", "?x", "/%zz", "/a%2", "", "http:/x", "://x", "/\u{1}"] {
            assert!(read(&format!("GET {bad} HTTP/1.1\r\nHost: h\r\n\r\n")).is_err(), "{bad}");
        }
    }

    #[test]
    fn two_ends_of_a_body_are_refused() {
        let read = |fields: &str| {
            read(&format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).map(|head| head.framing)
        };
        assert_eq!(read("Transfer-Encoding: Chunked\r\n"), Ok(Framing::Chunked));
        assert_eq!(read("Content-Length: 4\r\nContent-Length: 4\r\n"), Ok(Framing::Length(4)));
        assert_eq!(read("Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"), Err(BAD));
        assert!(read("Transfer-Encoding: chunked, chunked\r\n").is_err());
        assert!(read("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n").is_err());
        for length in ["4, 4", "+4", "-1", "0x4", "", "99999999999999999999"] {
            assert_eq!(read(&format!("Content-Length: {length}\r\n")), Err(BAD), "{length}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Some(end) = end(&bytes, 0) {
                let _ = request(BytesMut::from(&bytes[..end]));
                let _ = response(BytesMut::from(&bytes[..end]));
            }
        }

        #[test]
        fn fields_come_out_as_they_went_in(
            values in proptest::collection::vec("[!-~]([ -~]{0,20}[!-~])?", 0..10)
        ) {
            let lines: String = values.iter().map(|value| format!("x-a: {value}\r\n")).collect();
            let head = read(&format!("GET / HTTP/1.1\r\nHost: h\r\n{lines}\r\n")).unwrap();
            let read: Vec<&[u8]> = head.fields.all("X-A").map(|value| &value[..]).collect();
            let given: Vec<&[u8]> = values.iter().map(|value| value.as_bytes()).collect();
            prop_assert_eq!(read, given);
        }
    }
}
