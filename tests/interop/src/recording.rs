//! One recorded scenario, as its file has it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::{Context, bail};
use serde::Deserialize;
use serde_json::Value;

/// A scenario.
#[derive(Debug)]
pub struct Recording {
    /// The first line.
    pub head: Head,
    /// The other lines in order.
    pub events: Vec<Event>,
}

/// What a file begins with.
#[derive(Debug, Deserialize)]
pub struct Head {
    /// Name, that of the file too.
    pub scenario: String,
    /// Flags of the server where they are not the default.
    #[serde(default)]
    pub server_flags: String,
    /// Calls made before, in order.
    #[serde(default)]
    pub setup: Vec<BTreeMap<String, Value>>,
    /// What differs from run to run.
    #[serde(default)]
    pub vary: BTreeMap<String, Vec<String>>,
}

/// A side of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Who asks.
    Client,
    /// Who answers.
    Server,
}

/// One line of a recording.
#[derive(Debug)]
pub struct Event {
    /// Its line in the file, from 1.
    pub line: usize,
    /// Milliseconds since the start of the scenario.
    pub ms: u64,
    /// What happened.
    pub what: What,
}

/// What can happen.
#[derive(Debug)]
pub enum What {
    /// The client opened connection `c`.
    Open {
        /// Its number.
        c: usize,
    },
    /// A side sent bytes on connection `c`.
    Data {
        /// The connection.
        c: usize,
        /// Who sent them.
        from: Side,
        /// What was sent.
        bytes: Vec<u8>,
    },
    /// A side said that it sends no more on `c`.
    HalfClose {
        /// The connection.
        c: usize,
        /// Who.
        by: Side,
    },
    /// A side closed `c`.
    Close {
        /// The connection.
        c: usize,
        /// Who.
        by: Side,
    },
    /// `c` was open at the end.
    StillOpen {
        /// The connection.
        c: usize,
    },
    /// The program called the client library.
    Call {
        /// The library's name for it.
        function: String,
        /// As the recorder wrote them.
        args: Value,
    },
    /// The library returned.
    Return {
        /// The library's name for it.
        function: String,
        /// What it gave.
        value: Option<Value>,
        /// Text and Go type of its error.
        error: Option<(String, String)>,
    },
    /// The script's remark.
    Note(String),
}

#[derive(Deserialize)]
struct Line {
    ms: u64,
    ev: String,
    c: Option<usize>,
    dir: Option<String>,
    by: Option<String>,
    text: Option<String>,
    b64: Option<String>,
    parts: Option<Vec<Part>>,
    #[serde(rename = "fn")]
    function: Option<String>,
    args: Option<Value>,
    value: Option<Value>,
    error: Option<String>,
    error_type: Option<String>,
    note: Option<String>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Part {
    Text { text: String },
    Base64 { b64: String },
    Run { byte: u8, times: usize },
}

/// Where the recordings are.
pub fn directory() -> PathBuf {
    let own =
        env::var_os("CARGO_MANIFEST_DIR").map_or(env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    own.join("recordings")
}

/// All recordings, by name.
pub fn all() -> anyhow::Result<Vec<Recording>> {
    let directory = directory();
    let mut paths = Vec::new();
    for entry in fs::read_dir(&directory).with_context(|| format!("{}", directory.display()))? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            paths.push(path);
        }
    }
    paths.sort();
    paths.iter().map(|path| Recording::read(path)).collect()
}

impl Recording {
    /// Reads one file.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("{}", path.display()))?;
        let mut lines = text.lines();
        let head = lines.next().context("empty recording")?;
        let head = serde_json::from_str(head).with_context(|| format!("{}:1", path.display()))?;
        let events = lines
            .enumerate()
            .map(|(index, line)| {
                let line_number = index + 2;
                event(line_number, line)
                    .with_context(|| format!("{}:{line_number}", path.display()))
            })
            .collect::<anyhow::Result<Vec<_>>>()?;
        Ok(Self { head, events })
    }

    /// The numbers of all connections.
    pub fn connections(&self) -> Vec<usize> {
        let opened = |event: &Event| match event.what {
            What::Open { c } => Some(c),
            _ => None,
        };
        self.events.iter().filter_map(opened).collect()
    }

    /// All that a side sent on a connection in the first `events` events.
    pub fn sent(&self, connection: usize, side: Side, events: usize) -> Vec<u8> {
        let mut all = Vec::new();
        for event in &self.events[..events] {
            if let What::Data { c, from, bytes } = &event.what
                && (*c, *from) == (connection, side)
            {
                all.extend_from_slice(bytes);
            }
        }
        all
    }

    /// Whether the server closed a connection; `None` where the client did first.
    pub fn end(&self, connection: usize) -> Option<bool> {
        self.last(connection)
            .map(|event| matches!(event.what, What::Close { by: Side::Server, .. }))
    }

    /// The line that tells how a connection ended.
    pub fn line_of_end(&self, connection: usize) -> usize {
        self.last(connection).map_or(1, |event| event.line)
    }

    /// The first event of a connection that tells of its end on the server's side.
    fn last(&self, connection: usize) -> Option<&Event> {
        let first = self.events.iter().find(|event| match event.what {
            What::Close { c, .. } | What::StillOpen { c } => c == connection,
            _ => false,
        })?;
        (!matches!(first.what, What::Close { by: Side::Client, .. })).then_some(first)
    }

    /// The line that holds the byte at `offset` of what a side sent on a connection, or the last one.
    pub fn line_of(&self, connection: usize, side: Side, offset: usize) -> Option<usize> {
        let (mut end, mut line) = (0, None);
        for event in &self.events {
            if let What::Data { c, from, bytes } = &event.what
                && (*c, *from) == (connection, side)
            {
                end += bytes.len();
                line = Some(event.line);
                if end > offset {
                    break;
                }
            }
        }
        line
    }
}

fn event(line_number: usize, text: &str) -> anyhow::Result<Event> {
    let line: Line = serde_json::from_str(text)?;
    let connection = line.c.context("no connection");
    let side = |name: Option<&str>| match name {
        Some("client" | "client>server") => Ok(Side::Client),
        Some("server" | "server>client") => Ok(Side::Server),
        other => bail!("no side: {other:?}"),
    };
    let what = match line.ev.as_str() {
        "open" => What::Open { c: connection? },
        "data" => What::Data {
            c: connection?,
            from: side(line.dir.as_deref())?,
            bytes: bytes(line.text, line.b64, line.parts)?,
        },
        "half-close" => What::HalfClose { c: connection?, by: side(line.by.as_deref())? },
        "close" => What::Close { c: connection?, by: side(line.by.as_deref())? },
        "still-open" => What::StillOpen { c: connection? },
        "call" => What::Call {
            function: line.function.context("no function")?,
            args: line.args.unwrap_or_default(),
        },
        "return" => What::Return {
            function: line.function.context("no function")?,
            value: line.value,
            error: line.error.map(|error| (error, line.error_type.unwrap_or_default())),
        },
        "note" => What::Note(line.note.unwrap_or_default()),
        other => bail!("unknown event {other}"),
    };
    Ok(Event { line: line_number, ms: line.ms, what })
}

fn bytes(
    text: Option<String>,
    b64: Option<String>,
    parts: Option<Vec<Part>>,
) -> anyhow::Result<Vec<u8>> {
    match (text, b64, parts) {
        (Some(text), None, None) => Ok(text.into_bytes()),
        (None, Some(b64), None) => base64(&b64),
        (None, None, Some(parts)) => {
            let mut all = Vec::new();
            for part in parts {
                match part {
                    Part::Text { text } => all.extend_from_slice(text.as_bytes()),
                    Part::Base64 { b64 } => all.extend(base64(&b64)?),
                    Part::Run { byte, times } => all.extend(std::iter::repeat_n(byte, times)),
                }
            }
            Ok(all)
        }
        _ => bail!("data has exactly one of text, b64 and parts"),
    }
}

/// RFC 4648, section 4.
fn base64(text: &str) -> anyhow::Result<Vec<u8>> {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut all = Vec::new();
    for group in text.as_bytes().chunks(4) {
        let digits: Vec<_> = group.iter().copied().take_while(|byte| *byte != b'=').collect();
        let mut bits = 0_u32;
        for digit in &digits {
            let value = DIGITS.iter().position(|known| known == digit).context("no base64")?;
            bits = bits << 6 | u32::try_from(value)?;
        }
        bits <<= 6 * (4 - digits.len());
        all.extend_from_slice(&bits.to_be_bytes()[1..digits.len()]);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_joined() {
        let line = r#"{"ms":7,"c":2,"ev":"data","dir":"server>client","parts":[{"text":"a"},{"b64":"AP8="},{"byte":120,"times":3},{"b64":"AAEC"}]}"#;
        let event = event(9, line).unwrap();
        assert_eq!((event.line, event.ms), (9, 7));
        let What::Data { c: 2, from: Side::Server, bytes } = event.what else { panic!() };
        assert_eq!(bytes, b"a\0\xffxxx\0\x01\x02");
    }

    #[test]
    fn every_recording_is_read() {
        let all = all().unwrap();
        assert_eq!(all.len(), 145);
        for recording in all {
            assert!(!recording.connections().is_empty(), "{}", recording.head.scenario);
        }
    }
}
