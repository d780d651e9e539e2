//! What one side of a connection said, cut into HTTP messages and what follows a hijack.

/// A request as far as answers depend on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: String,
    /// The path, with its query.
    pub target: String,
}

/// What a connection becomes after a successful answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hijack {
    /// Run and Attach: JSON frames in both directions.
    Control,
    /// Stdout and Stderr: output until the end.
    Stream,
}

/// A head and what belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Offset of the head among all that was sent.
    pub offset: usize,
    /// The first line.
    pub start: String,
    /// The other lines in order.
    pub headers: Vec<(String, String)>,
    /// The body, freed of its framing.
    pub body: Vec<u8>,
    /// Framed in chunks.
    pub chunked: bool,
    /// Nothing is missing.
    pub complete: bool,
}

/// Bytes behind a hijack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Raw {
    /// Their kind.
    pub hijack: Hijack,
    /// Offset of the first.
    pub offset: usize,
    /// All of them.
    pub bytes: Vec<u8>,
}

/// All that one side sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spoken {
    /// Messages in order.
    pub messages: Vec<Message>,
    /// What followed a hijack.
    pub raw: Option<Raw>,
    /// Bytes at the end that are no message.
    pub rest: Vec<u8>,
}

impl Message {
    /// The value of a header, by its name as it is usually written.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(known, _)| known.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    /// An answer's status; zero if there is none.
    pub fn status(&self) -> u16 {
        self.start.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
    }
}

impl Request {
    fn of(message: &Message) -> Self {
        let mut words = message.start.split(' ');
        let mut word = || words.next().unwrap_or_default().to_owned();
        Self { method: word(), target: word() }
    }

    /// What a successful answer makes of the connection.
    pub fn hijack(&self) -> Option<Hijack> {
        let path = self.target.split('?').next().unwrap_or_default();
        let parts: Vec<_> = path.trim_matches('/').split('/').collect();
        match (self.method.as_str(), parts.as_slice()) {
            ("POST", ["containers", _, "processes"])
            | ("GET", ["containers", _, "processes", _]) => Some(Hijack::Control),
            ("GET", ["containers", _, "processes", _, "attaches", _, "stdout" | "stderr"]) => {
                Some(Hijack::Stream)
            }
            _ => None,
        }
    }
}

/// Cuts what a client sent. What follows a hijack request is taken as frames, so this is right for
/// connections whose hijack succeeded, and for those where nothing followed.
pub fn requests(bytes: &[u8]) -> Spoken {
    let mut spoken = Spoken::default();
    let mut at = 0;
    while at < bytes.len() {
        let Some(message) = message(bytes, at, &mut |message| {
            if message.header("Transfer-Encoding").is_some() {
                return Framing::Chunks;
            }
            let length = message.header("Content-Length").and_then(|text| text.parse().ok());
            Framing::Length(length.unwrap_or(0))
        }) else {
            break;
        };
        let (message, end) = message;
        at = end;
        let hijack = Request::of(&message).hijack();
        let complete = message.complete;
        spoken.messages.push(message);
        if let (Some(hijack), true) = (hijack, complete) {
            // Another request on the connection of a failed call is a request, not a frame.
            if !bytes[at..].starts_with(b"{") && spells_request(&bytes[at..]) {
                continue;
            }
            spoken.raw = Some(Raw { hijack, offset: at, bytes: bytes[at..].to_vec() });
            return spoken;
        }
    }
    spoken.rest = bytes[at..].to_vec();
    spoken
}

fn spells_request(bytes: &[u8]) -> bool {
    ["GET ", "POST ", "PUT ", "DELETE "].iter().any(|method| bytes.starts_with(method.as_bytes()))
}

/// Cuts what a server sent in answer to these requests. `closed` says that nothing follows.
pub fn answers(requests: &[Message], bytes: &[u8], closed: bool) -> Spoken {
    let mut spoken = Spoken::default();
    let mut at = 0;
    let mut requests = requests.iter().map(Request::of);
    let mut request = requests.next();
    while at < bytes.len() {
        let hijack = request.as_ref().and_then(Request::hijack);
        let head_only = request.as_ref().is_some_and(|request| request.method == "HEAD");
        let mut hijacked = false;
        let cut = message(bytes, at, &mut |message| {
            let status = message.status();
            if (200..300).contains(&status) && hijack.is_some() {
                hijacked = true;
                return Framing::Length(0);
            }
            if head_only || status < 200 || status == 204 {
                return Framing::Length(0);
            }
            if message.header("Transfer-Encoding").is_some() {
                return Framing::Chunks;
            }
            match message.header("Content-Length").and_then(|text| text.parse().ok()) {
                Some(length) => Framing::Length(length),
                None => Framing::Close(closed),
            }
        });
        let Some((message, end)) = cut else { break };
        at = end;
        let interim = message.status() < 200;
        spoken.messages.push(message);
        if hijacked {
            let hijack = hijack.unwrap_or(Hijack::Stream);
            spoken.raw = Some(Raw { hijack, offset: at, bytes: bytes[at..].to_vec() });
            return spoken;
        }
        if !interim {
            request = requests.next();
        }
    }
    spoken.rest = bytes[at..].to_vec();
    spoken
}

enum Framing {
    Length(usize),
    Chunks,
    /// Until the end of the stream, which has come or not.
    Close(bool),
}

/// Cuts one message that begins at `at`; also where it ends. `None` without a whole head.
fn message(
    bytes: &[u8],
    at: usize,
    framing: &mut dyn FnMut(&Message) -> Framing,
) -> Option<(Message, usize)> {
    let rest = &bytes[at..];
    let crlf = find(rest, b"\r\n\r\n").map(|end| (end, 4));
    let bare = find(rest, b"\n\n").map(|end| (end, 2));
    let (end, separator) = match (crlf, bare) {
        (Some(crlf), Some(bare)) => crlf.min(bare),
        (crlf, bare) => crlf.or(bare)?,
    };
    let head = String::from_utf8_lossy(&rest[..end]).into_owned();
    let mut lines = head.lines();
    let start = lines.next().unwrap_or_default().to_owned();
    let headers = lines
        .map(|line| {
            let (name, value) = line.split_once(':').unwrap_or((line, ""));
            (name.to_owned(), value.trim().to_owned())
        })
        .collect();
    let mut message =
        Message { offset: at, start, headers, body: Vec::new(), chunked: false, complete: true };
    let body = &rest[end + separator..];
    let used = match framing(&message) {
        Framing::Length(length) => {
            message.complete = body.len() >= length;
            message.body = body[..length.min(body.len())].to_vec();
            message.body.len()
        }
        Framing::Close(closed) => {
            message.complete = closed;
            message.body = body.to_vec();
            body.len()
        }
        Framing::Chunks => {
            message.chunked = true;
            let (decoded, used) = chunks(body);
            message.complete = used.is_some();
            message.body = decoded;
            used.unwrap_or(body.len())
        }
    };
    Some((message, at + end + separator + used))
}

/// The bytes in the chunks, and how long the framing is if its end is there.
fn chunks(bytes: &[u8]) -> (Vec<u8>, Option<usize>) {
    let mut decoded = Vec::new();
    let mut at = 0;
    while let Some(end) = find(&bytes[at..], b"\r\n") {
        let line = String::from_utf8_lossy(&bytes[at..at + end]).into_owned();
        let digits = line.split(';').next().unwrap_or_default().trim();
        let Ok(length) = usize::from_str_radix(digits, 16) else { break };
        at += end + 2;
        if length == 0 {
            // Trailers are a head without a first line.
            let trailers = &bytes[at..];
            let end = if trailers.starts_with(b"\r\n") {
                Some(2)
            } else {
                find(trailers, b"\r\n\r\n").map(|end| end + 4)
            };
            return (decoded, end.map(|end| at + end));
        }
        let Some(data) = bytes.get(at..at + length) else {
            decoded.extend_from_slice(&bytes[at..]);
            break;
        };
        decoded.extend_from_slice(data);
        at = (at + length + 2).min(bytes.len());
    }
    (decoded, None)
}

/// Where a text begins.
pub fn find(bytes: &[u8], text: &[u8]) -> Option<usize> {
    bytes.windows(text.len()).position(|window| window == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hijacked_connection_is_a_head_and_raw_bytes() {
        let asked = requests(
            b"POST /containers/a/processes HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}{\"x\":1}\n",
        );
        assert_eq!(asked.messages[0].body, b"{}");
        assert_eq!(asked.raw.as_ref().unwrap().bytes, b"{\"x\":1}\n");
        let answer = b"HTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n{\"a\":1}\n{";
        let answered = answers(&asked.messages, answer, false);
        assert_eq!(answered.messages[0].status(), 201);
        assert_eq!(answered.raw.unwrap().bytes, b"{\"a\":1}\n{");
    }

    #[test]
    fn plain_answers_follow_each_other() {
        let asked =
            requests(b"HEAD /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\nGET /c HTTP/1.1\r\n\r\n");
        let answer = b"HTTP/1.1 405 No\r\nContent-Length: 19\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nxyz";
        let answered = answers(&asked.messages, answer, false);
        let bodies: Vec<_> =
            answered.messages.iter().map(|m| (m.body.as_slice(), m.complete)).collect();
        assert_eq!(bodies, [(&b""[..], true), (b"abcde", true), (b"xyz", false)]);
    }
}
