//! Plays the server's side of a recording, while our client makes the calls that the original's
//! client made.
//!
//! ```text
//! recording ──calls──> Program ──> garden::client ──socket──> Stage ──> what the client sent
//!     │                   └──> outcomes                         ^
//!     └──── what the server sent, once the client has come as far ┘
//! ```

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use bloomery_garden::client::{Address, Client};
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use crate::call::{Call, Feed, Outcome, Program, Upload, input};
use crate::comparison::{Difference, Replayed};
use crate::connection::{Connection, progress};
use crate::message::{self, Message, find};
use crate::recording::{Event, Recording, Side, What};

/// How long our client may take to send something or to return.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same, once it has taken longer: the rest is for the report only.
const IMPATIENCE: Duration = Duration::from_millis(500);
/// What the recorder wrote for the socket's path.
const RECORDED_SOCKET: &str = "/run/garden.sock";
const PAUSE: Duration = Duration::from_millis(1);

/// A call that has been made.
#[derive(Debug)]
struct Made {
    function: String,
    running: JoinHandle<anyhow::Result<Outcome>>,
    outcome: Option<Outcome>,
}

/// What the original's client returned, not yet compared.
#[derive(Debug)]
struct Expected {
    line: usize,
    function: String,
    outcome: Outcome,
}

/// Input of the process on a connection.
#[derive(Debug)]
struct Fed {
    /// `None` once it has ended.
    sender: Option<UnboundedSender<Vec<u8>>>,
    pieces: usize,
}

struct Stage<'a> {
    recording: &'a Recording,
    runtime: &'a Handle,
    listener: UnixListener,
    /// The listener's path.
    socket: String,
    program: Program,
    /// Connections of the original's client; the others are a script's, made by hand.
    originals: Vec<usize>,
    /// Not yet known for one of the recorded.
    arrivals: Vec<Connection>,
    connections: BTreeMap<usize, Connection>,
    fed: BTreeMap<usize, Fed>,
    made: Vec<Made>,
    expected: Vec<Expected>,
    differences: Vec<Difference>,
    patience: Duration,
}

/// Plays and compares. `None` if the original's client has no part in the recording.
pub fn play(recording: &Recording, runtime: &Handle) -> anyhow::Result<Option<Vec<Difference>>> {
    if !recording.events.iter().any(|event| matches!(event.what, What::Call { .. })) {
        return Ok(None);
    }
    let place = tempfile::Builder::new().prefix("interop-").tempdir()?;
    let socket = place.path().join("garden.sock");
    let listener = UnixListener::bind(&socket)?;
    listener.set_nonblocking(true)?;
    let mut stage = Stage {
        recording,
        runtime,
        listener,
        socket: socket.display().to_string(),
        program: Program::new(Client::new(Address::Unix(socket))),
        originals: originals(recording),
        arrivals: Vec::new(),
        connections: BTreeMap::new(),
        fed: BTreeMap::new(),
        made: Vec::new(),
        expected: Vec::new(),
        differences: Vec::new(),
        patience: PATIENCE,
    };
    for (index, event) in recording.events.iter().enumerate() {
        stage.follow(index, event).with_context(|| format!("line {}", event.line))?;
    }
    stage.settle()?;
    ensure!(stage.made.is_empty(), "calls that the original's client did not return from");
    stage.compare()?;
    Ok(Some(std::mem::take(&mut stage.differences)))
}

/// The library names itself in every request.
fn originals(recording: &Recording) -> Vec<usize> {
    let mut all = recording.connections();
    all.retain(|c| {
        let sent = recording.sent(*c, Side::Client, recording.events.len());
        let requests = message::requests(&sent).messages;
        requests.first().and_then(|first| first.header("User-Agent")) == Some("Go-http-client/1.1")
    });
    all
}

/// The first line of what has come, if it is whole.
fn first_line(bytes: &[u8]) -> Option<&[u8]> {
    find(bytes, b"\r\n").map(|end| &bytes[..end])
}

impl Stage<'_> {
    fn follow(&mut self, index: usize, event: &Event) -> anyhow::Result<()> {
        match &event.what {
            What::Call { function, args } => {
                self.settle()?;
                self.call(index, function, args)?;
            }
            What::Return { function, value, error } => {
                let mut value = value.clone().unwrap_or_default();
                if error.is_some() && value.is_object() {
                    // Go returns a status beside the error, which means nothing.
                    value.as_object_mut().map(|value| value.remove("exit_status"));
                } else if error.is_none() && matches!(function.as_str(), "Metrics" | "BulkMetrics")
                {
                    value = self.answered(index)?;
                } else if error.is_none() && function == "Properties" && value.is_null() {
                    // Go's nil, which has no properties either.
                    value = json!({});
                }
                let error = error.clone().map(|(text, kind)| (kind, text));
                let outcome = Outcome { value, error };
                let (line, function) = (event.line, function.clone());
                self.expected.push(Expected { line, function, outcome });
            }
            What::Open { c } if self.originals.contains(c) => self.claim(*c)?,
            What::Data { c, from: Side::Client, .. } if self.connections.contains_key(c) => {
                self.feed(*c, index)?;
                self.come_to(*c, index + 1);
            }
            What::Data { c, from: Side::Server, bytes } => {
                if let Some(connection) = self.connections.get_mut(c) {
                    connection.send(bytes);
                }
            }
            What::Close { c, by: Side::Server } => {
                if let Some(connection) = self.connections.get(c) {
                    connection.shutdown(Shutdown::Both);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// The connection that a call opens first.
    fn opened_after(&self, index: usize) -> Option<usize> {
        self.recording.events[index..].iter().find_map(|event| match event.what {
            What::Open { c } if self.originals.contains(&c) => Some(c),
            _ => None,
        })
    }

    fn asked(&self, c: usize) -> Vec<u8> {
        self.recording.sent(c, Side::Client, self.recording.events.len())
    }

    fn call(&mut self, index: usize, function: &str, args: &Value) -> anyhow::Result<()> {
        let opens = !matches!(function, "Wait" | "Signal" | "SetTTY");
        let c = self.opened_after(index).filter(|_| opens);
        let request = c.and_then(|c| message::requests(&self.asked(c)).messages.into_iter().next());
        let mut program = self.program.clone();
        if let Some(id) = request.as_ref().and_then(|asked| asked.header("X-Vcap-Request-Id")) {
            program.client = program.client.with_request_id(id);
        }
        let upload = match (function, request) {
            ("StreamIn", Some(Message { body, chunked, complete, .. })) => {
                ensure!(complete, "the recorded archive is cut");
                Some(if chunked { Upload::Reader(body) } else { Upload::Whole(body) })
            }
            _ => None,
        };
        let input = match args["io"]["stdin"].as_str() {
            None | Some("none") => None,
            Some(kind) => Some(self.open_input(c.context("no connection")?, kind)?),
        };
        let (function, args) = (function.to_owned(), args.clone());
        let call = Call { function: function.clone(), args, input, upload };
        let running = self.runtime.spawn(program.make(call));
        self.made.push(Made { function, running, outcome: None });
        Ok(())
    }

    /// A pipe gets its input when it was written, anything else has it from the start.
    fn open_input(&mut self, c: usize, kind: &str) -> anyhow::Result<Feed> {
        let (sender, feed) = Feed::new();
        let mut fed = Fed { sender: Some(sender), pieces: 0 };
        if !kind.starts_with("a pipe") {
            let raw = message::requests(&self.asked(c)).raw.context("no process")?;
            let (pieces, ends) = input(&raw.bytes)?;
            fed.give(&[pieces.concat()], ends)?;
            fed.pieces = usize::MAX;
        }
        self.fed.insert(c, fed);
        Ok(feed)
    }

    fn feed(&mut self, c: usize, index: usize) -> anyhow::Result<()> {
        let Some(fed) = self.fed.get_mut(&c).filter(|fed| fed.pieces < usize::MAX) else {
            return Ok(());
        };
        let so_far = self.recording.sent(c, Side::Client, index + 1);
        let Some(raw) = message::requests(&so_far).raw else { return Ok(()) };
        let (pieces, ends) = input(&raw.bytes)?;
        let new = pieces.get(fed.pieces..).unwrap_or_default().to_vec();
        fed.pieces = pieces.len();
        fed.give(&new, ends)
    }

    /// Takes in what our client has opened.
    fn accept(&mut self) -> anyhow::Result<()> {
        while let Ok((stream, _)) = self.listener.accept() {
            self.arrivals.push(Connection::over(stream)?);
        }
        Ok(())
    }

    /// Waits for our client's connection that is the recorded `c`. One call opens its connections in
    /// order; while there are several, the one that asks the same is meant.
    fn claim(&mut self, c: usize) -> anyhow::Result<()> {
        let wanted = first_line(&self.asked(c)).map(<[u8]>::to_vec);
        let running = self.made.iter().filter(|made| made.outcome.is_none()).count();
        let deadline = Instant::now() + self.patience;
        loop {
            self.accept()?;
            let found = self.arrivals.iter().position(|arrival| {
                let received = arrival.look();
                let line = first_line(&received.bytes);
                line.is_some() && (running == 1 || line == wanted.as_deref())
            });
            if let Some(found) = found {
                self.connections.insert(c, self.arrivals.remove(found));
                return Ok(());
            }
            if Instant::now() > deadline {
                self.patience = IMPATIENCE;
                return Ok(());
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Waits until our client has sent on `c` what the original's had in so many events.
    fn come_to(&mut self, c: usize, events: usize) {
        let recorded = self.recording.sent(c, Side::Client, events);
        let wanted = progress(&message::requests(&recorded));
        let came = self.connections[&c].wait(Instant::now() + self.patience, |received| {
            received.closed || progress(&message::requests(&received.bytes)) >= wanted
        });
        if !came {
            self.patience = IMPATIENCE;
        }
    }

    /// The JSON body of the last call's answer.
    fn answered(&self, index: usize) -> anyhow::Result<Value> {
        let opened =
            self.recording.events[..index].iter().rev().find_map(|event| match event.what {
                What::Open { c } => Some(c),
                _ => None,
            });
        let c = opened.context("no connection")?;
        let requests = message::requests(&self.asked(c)).messages;
        let answer = self.recording.sent(c, Side::Server, index);
        let answers = message::answers(&requests, &answer, true).messages;
        Ok(serde_json::from_slice(&answers.first().context("no answer")?.body)?)
    }

    /// Waits for what should have returned by now, and compares it. Which of two calls of one
    /// function returns first is nobody's promise.
    fn settle(&mut self) -> anyhow::Result<()> {
        for Expected { line, function, outcome } in std::mem::take(&mut self.expected) {
            let deadline = Instant::now() + self.patience;
            let (index, ours) = loop {
                self.hear_of_returns()?;
                for made in &mut self.made {
                    if let Some(ours) = &mut made.outcome {
                        ours.shorten_as(&outcome);
                    }
                }
                let of_function =
                    || self.made.iter().enumerate().filter(|(_, m)| m.function == function);
                let (first, _) = of_function().next().context("returns without a call")?;
                let same = of_function().find(|(_, made)| made.outcome.as_ref() == Some(&outcome));
                if let Some((index, _)) = same {
                    break (index, Some(outcome.clone()));
                }
                let returned = of_function().find(|(_, made)| made.outcome.is_some());
                let all = of_function().all(|(_, made)| made.outcome.is_some());
                if all || Instant::now() > deadline {
                    break returned
                        .map_or((first, None), |(index, made)| (index, made.outcome.clone()));
                }
                std::thread::sleep(PAUSE);
            };
            if ours.is_none() {
                self.patience = IMPATIENCE;
            }
            self.made.remove(index).running.abort();
            if ours.as_ref() != Some(&outcome) {
                self.differences.push(Difference {
                    line,
                    what: format!("return of {function}"),
                    expected: outcome.to_string(),
                    ours: ours.map_or("<nothing>".into(), |ours| ours.to_string()),
                });
            }
        }
        Ok(())
    }

    fn hear_of_returns(&mut self) -> anyhow::Result<()> {
        for made in &mut self.made {
            if made.outcome.is_none() && made.running.is_finished() {
                let mut outcome = self.runtime.block_on(&mut made.running)??;
                if let Some((_, text)) = &mut outcome.error {
                    *text = text.replace(&self.socket, RECORDED_SOCKET);
                }
                made.outcome = Some(outcome);
            }
        }
        Ok(())
    }

    fn compare(&mut self) -> anyhow::Result<()> {
        self.accept()?;
        for c in &self.originals {
            let Some(connection) = self.connections.get(c) else {
                self.differences.push(Difference {
                    line: self.recording.line_of(*c, Side::Client, 0).unwrap_or(1),
                    what: format!("connection {c}"),
                    expected: "open".into(),
                    ours: "<nothing>".into(),
                });
                continue;
            };
            let received = connection.look();
            let replayed = Replayed {
                connection: *c,
                asked: &connection.sent,
                sent: &received.bytes,
                closed: received.closed,
            };
            self.differences.extend(replayed.as_client(self.recording));
        }
        for arrival in &self.arrivals {
            self.differences.push(Difference {
                line: self.recording.events.last().map_or(1, |event| event.line),
                what: "one more connection".into(),
                expected: "<nothing>".into(),
                ours: String::from_utf8_lossy(&arrival.look().bytes).into_owned(),
            });
        }
        Ok(())
    }
}

impl Drop for Stage<'_> {
    fn drop(&mut self) {
        self.made.iter().for_each(|made| made.running.abort());
        for connection in self.connections.values().chain(&self.arrivals) {
            connection.shutdown(Shutdown::Both);
        }
    }
}

impl Fed {
    fn give(&mut self, pieces: &[Vec<u8>], ends: bool) -> anyhow::Result<()> {
        if let Some(sender) = &self.sender {
            for piece in pieces.iter().filter(|piece| !piece.is_empty()) {
                sender.send(piece.clone())?;
            }
        }
        if ends {
            self.sender = None;
        }
        Ok(())
    }
}
