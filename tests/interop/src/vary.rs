//! Makes equal what differs from run to run, and nothing else.
//!
//! | name | what |
//! |---|---|
//! | (always) | the `Date` header; `Content-Length` where it is the body's length; the order of headers, and of methods in `Allow` |
//! | (always) | JSON goes in chunks beyond 2 KiB and with a length below: compared as right or wrong, since other rules change the length |
//! | (always) | memory and disk sizes of a capacity, which are the machine's |
//! | (always) | properties `kawasaki.*`, which are the original networker's own |
//! | `uuid` | generated handles and process ids, and where in a list they are |
//! | `stream_id` | tokens in the first frame and in `/attaches/N/` |
//! | `metrics` | all numbers of a metrics object |
//! | `tar` | times and checksums in archives, see [`crate::archive`] |
//! | `ls_date` | dates as ls prints them |
//!
//! Addresses, ports and paths are the same here as they were when recorded, so they are compared.
//!
//! One more rule: an error text that begins with another program's name (`runc …:`, `nstar: …`,
//! `iptables: …`, the image plugin's) counts by status and type only.

use std::collections::BTreeMap;

use crate::archive;
use crate::message::{Hijack, Message, Raw, find};

/// Longest JSON body that has a `Content-Length`.
const UNCHUNKED: usize = 2048;
const SOMEBODY: &str = "<another program's words>";

/// What a recording says of itself.
#[derive(Clone, Debug, Default)]
pub struct Vary {
    names: Vec<String>,
}

impl Vary {
    /// From the head's `vary`.
    pub fn new(vary: &BTreeMap<String, Vec<String>>) -> Self {
        Self { names: vary.keys().cloned().collect() }
    }

    fn has(&self, name: &str) -> bool {
        self.names.iter().any(|known| known == name)
    }

    /// An answer or a request as one text. `words` says that error texts do not count.
    pub fn message(&self, message: &Message, words: bool) -> Vec<u8> {
        let mut headers: Vec<_> =
            message.headers.iter().map(|(name, value)| self.header(message, name, value)).collect();
        headers.sort();
        let start = self.text(message.start.as_bytes());
        let mut all = start;
        for header in headers {
            all.extend_from_slice(format!("\n{header}").as_bytes());
        }
        all.extend_from_slice(b"\n\n");
        all.extend(self.body(message, words));
        if !message.complete {
            all.extend_from_slice(b"<and no end>");
        }
        all
    }

    fn header(&self, message: &Message, name: &str, value: &str) -> String {
        let json = message.header("Content-Type") == Some("application/json");
        let length = message.body.len();
        let framed_well = json && (length > UNCHUNKED) == message.chunked;
        match name {
            "Date" if is_date(value) => "Date: <date>".into(),
            "Content-Length" if framed_well && value == length.to_string() => "<framed>".into(),
            "Transfer-Encoding"
                if framed_well && value == "chunked" && message.start.starts_with("HTTP") =>
            {
                "<framed>".into()
            }
            "Content-Length" if length > 0 && value == length.to_string() => {
                "Content-Length: <right>".into()
            }
            "Allow" => {
                let mut methods: Vec<_> = value.split(", ").collect();
                methods.sort_unstable();
                format!("Allow: {}", methods.join(", "))
            }
            _ => format!("{name}: {value}"),
        }
    }

    fn body(&self, message: &Message, words: bool) -> Vec<u8> {
        if self.has("tar") && message.header("Content-Type") == Some("application/octet-stream") {
            return archive::listing(&message.body);
        }
        let mut body = without_kawasaki(&message.body);
        if words {
            body = without_words(&body);
        }
        if self.has("metrics") && find(&body, b"\"MemoryStat\"").is_some() {
            body = numbers(&body, |_| true);
        }
        if find(&body, b"\"max_containers\"").is_some() {
            body = numbers(&body, |key| key.ends_with("_in_bytes"));
        }
        let text = self.text(&body);
        if self.has("uuid") { sorted_handles(&text) } else { text }
    }

    /// What followed a hijack as one text.
    pub fn raw(&self, raw: &Raw) -> Vec<u8> {
        let text = self.text(&raw.bytes);
        if raw.hijack == Hijack::Control && self.has("stream_id") {
            return token(&text, b"\"stream_id\":\"", b'"');
        }
        text
    }

    fn text(&self, bytes: &[u8]) -> Vec<u8> {
        let mut all = bytes.to_vec();
        if self.has("uuid") {
            for start in uuids(&all) {
                all[start..start + UUID].copy_from_slice(b"uuuuuuuu-uuuu-uuuu-uuuu-uuuuuuuuuuuu");
            }
        }
        if self.has("ls_date") {
            blank_ls_dates(&mut all);
        }
        if self.has("stream_id") {
            all = token(&all, b"/attaches/", b'/');
        }
        all
    }
}

/// Whether an error in this body is told in another program's words.
pub fn foreign(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    text.split("\"Message\":\"").skip(1).any(|message| {
        let message = message.split("\",\"Handle\"").next().unwrap_or_default();
        // What the original says of a program that it ran and that said nothing.
        if message.starts_with("exit status ") {
            return true;
        }
        ["runc ", "runc:", "runC ", "nstar: ", "iptables: ", "running image plugin "]
            .iter()
            .any(|name| message.contains(name))
    })
}

/// IMF-fixdate, RFC 9110 section 5.6.7.
fn is_date(value: &str) -> bool {
    let shape: String = value
        .chars()
        .map(|char| match char {
            'A'..='Z' => 'A',
            'a'..='z' => 'a',
            '0'..='9' => '0',
            other => other,
        })
        .collect();
    shape == "Aaa, 00 Aaa 0000 00:00:00 AAA" && value.ends_with(" GMT")
}

/// Length of a UUID's text.
pub const UUID: usize = 36;

/// Where UUIDs begin.
pub fn uuids(bytes: &[u8]) -> Vec<usize> {
    let is_uuid = |window: &[u8]| {
        window.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(byte),
        })
    };
    let starts = bytes.windows(UUID).enumerate();
    starts.filter(|(_, window)| is_uuid(window)).map(|(start, _)| start).collect()
}

fn token(bytes: &[u8], before: &[u8], after: u8) -> Vec<u8> {
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some(at) = find(rest, before) {
        let (head, tail) = rest.split_at(at + before.len());
        all.extend_from_slice(head);
        let digits = tail.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if digits > 0 && tail.get(digits) == Some(&after) {
            all.push(b'N');
            rest = &tail[digits..];
        } else {
            rest = tail;
        }
    }
    all.extend_from_slice(rest);
    all
}

/// Replaces numbers behind keys by `N`.
fn numbers(bytes: &[u8], wanted: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut all = Vec::new();
    let mut at = 0;
    let mut key = 0..0;
    while at < bytes.len() {
        let byte = bytes[at];
        all.push(byte);
        at += 1;
        if byte == b'"' {
            let end = string_end(bytes, at);
            key = at..end;
            all.extend_from_slice(&bytes[at..(end + 1).min(bytes.len())]);
            at = end + 1;
        } else if byte == b':' {
            let digits = bytes[at..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            if digits > 0 && wanted(&String::from_utf8_lossy(&bytes[key.clone()])) {
                all.push(b'N');
                at += digits;
            }
        }
    }
    all
}

/// Where the JSON string that begins at `at` ends.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at.min(bytes.len())
}

/// Handles come sorted, so a generated one may be anywhere.
fn sorted_handles(text: &[u8]) -> Vec<u8> {
    const BEFORE: &[u8] = b"{\"Handles\":[";
    const AFTER: &[u8] = b"]}\n";
    let Some(list) = text.strip_prefix(BEFORE).and_then(|rest| rest.strip_suffix(AFTER)) else {
        return text.to_vec();
    };
    let mut handles: Vec<_> = list.split(|byte| *byte == b',').collect();
    handles.sort_unstable();
    [BEFORE, &handles.join(&b','), AFTER].concat()
}

fn without_kawasaki(bytes: &[u8]) -> Vec<u8> {
    let mut all = bytes.to_vec();
    while let Some(start) = find(&all, b"\"kawasaki.") {
        let key_end = string_end(&all, start + 1);
        if !all[key_end..].starts_with(b"\":\"") {
            break;
        }
        let mut end = string_end(&all, key_end + 3) + 1;
        let mut start = start;
        if all.get(end) == Some(&b',') {
            end += 1;
        } else if all[start - 1] == b',' {
            start -= 1;
        }
        all.drain(start..end);
    }
    all
}

fn without_words(bytes: &[u8]) -> Vec<u8> {
    const BEFORE: &[u8] = b"\"Message\":\"";
    let mut all = Vec::new();
    let mut rest = bytes;
    while let Some(at) = find(rest, BEFORE) {
        all.extend_from_slice(&rest[..at + BEFORE.len()]);
        all.extend_from_slice(SOMEBODY.as_bytes());
        rest = &rest[string_end(rest, at + BEFORE.len())..];
    }
    all.extend_from_slice(rest);
    all
}

/// `Nov 22 09:11` and the like.
fn blank_ls_dates(bytes: &mut [u8]) {
    const LENGTH: usize = 12;
    let shape = |window: &[u8]| {
        window.iter().enumerate().all(|(at, byte)| match at {
            0 => byte.is_ascii_uppercase(),
            1 | 2 => byte.is_ascii_lowercase(),
            3 | 6 => *byte == b' ',
            4 => *byte == b' ' || byte.is_ascii_digit(),
            9 => *byte == b':',
            _ => byte.is_ascii_digit(),
        })
    };
    for start in 0..bytes.len().saturating_sub(LENGTH - 1) {
        if shape(&bytes[start..start + LENGTH]) {
            bytes[start..start + LENGTH].copy_from_slice(b"Mon DD hh:mm");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vary(names: &[&str]) -> Vary {
        Vary { names: names.iter().map(|name| (*name).to_owned()).collect() }
    }

    #[test]
    fn only_what_is_named_is_made_equal() {
        let text = b"GET /a/attaches/17/x Nov 22 09:11 187cd38c-d9ff-41eb-4d06-bc94b8894c7c";
        assert_eq!(vary(&[]).text(text), text);
        assert_eq!(
            vary(&["uuid", "ls_date", "stream_id"]).text(text),
            b"GET /a/attaches/N/x Mon DD hh:mm uuuuuuuu-uuuu-uuuu-uuuu-uuuuuuuuuuuu"
        );
    }

    #[test]
    fn kawasaki_is_nobodys_business() {
        let body = br#"{"P":{"a":"b","kawasaki.x":"1,\"","kawasaki.y":"2"},"M":[]}"#;
        assert_eq!(without_kawasaki(body), br#"{"P":{"a":"b"},"M":[]}"#);
        let body = br#"{"P":{"kawasaki.x":"1","l":"b"}}"#;
        assert_eq!(without_kawasaki(body), br#"{"P":{"l":"b"}}"#);
    }

    #[test]
    fn other_programs_words_are_told_from_the_servers() {
        let error = |text: &str| format!(r#"{{"Type":"","Message":"{text}","Handle":""}}"#);
        assert!(foreign(error("runc exec: exit status 255").as_bytes()));
        assert!(!foreign(error("port pool is exhausted").as_bytes()));
        assert_eq!(
            without_words(error("runc \\\"a\\\": b").as_bytes()),
            error(SOMEBODY).as_bytes()
        );
    }

    #[test]
    fn numbers_go_by_key() {
        let body = br#"{"a_in_bytes":12,"max":3}"#;
        assert_eq!(numbers(body, |key| key.ends_with("_in_bytes")), br#"{"a_in_bytes":N,"max":3}"#);
    }
}
