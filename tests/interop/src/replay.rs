//! Plays the client's side of a recording against a server.

use std::collections::BTreeMap;
use std::net::Shutdown;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

use crate::comparison::{Difference, Replayed};
use crate::connection::{Connection, Received, progress};
use crate::message::{self, find};
use crate::recording::{Event, Recording, Side, What};
use crate::rig::Rig;
use crate::vary::{UUID, uuids};

/// How long an answer may take beyond the time it took when it was recorded.
const PATIENCE: Duration = Duration::from_secs(15);
/// The same, once one has not come: the rest is for the report only.
const IMPATIENCE: Duration = Duration::from_millis(500);
/// How long a close is waited for before going on; the last ones have [`PATIENCE`].
const CLOSE_PATIENCE: Duration = Duration::from_secs(2);

struct Replay<'a> {
    recording: &'a Recording,
    rig: &'a mut Rig,
    socket: PathBuf,
    connections: BTreeMap<usize, Connection>,
    /// Recorded uuids and tokens, and ours.
    names: BTreeMap<Vec<u8>, Vec<u8>>,
    tokens: BTreeMap<Vec<u8>, Vec<u8>>,
    patience: Duration,
    /// When the last thing happened, and when it did in the recording.
    last: (Instant, u64),
    /// That was an answer, whose coming has not been waited for.
    answered: bool,
    /// Connections of the setup, open until the end.
    background: Vec<Connection>,
}

/// Sets up, replays and compares.
pub fn replay(recording: &Recording, rig: &mut Rig) -> anyhow::Result<Vec<Difference>> {
    let socket = rig.socket();
    let mut replay = Replay {
        recording,
        rig,
        socket,
        connections: BTreeMap::new(),
        names: BTreeMap::new(),
        tokens: BTreeMap::new(),
        patience: PATIENCE,
        last: (Instant::now(), 0),
        answered: false,
        background: Vec::new(),
    };
    replay.set_up()?;
    for (index, event) in recording.events.iter().enumerate() {
        replay.play(index, event).with_context(|| format!("line {}", event.line))?;
    }
    replay.finish();
    Ok(replay.differences())
}

impl Replay<'_> {
    fn set_up(&mut self) -> anyhow::Result<()> {
        for call in &self.recording.head.setup {
            for (function, arguments) in call {
                self.prepare(function, arguments)
                    .with_context(|| format!("setup: {function} {arguments}"))?;
            }
        }
        if self.recording.head.scenario == "run-on-stopped-init" {
            self.rig.order("kill init")?;
        }
        Ok(())
    }

    fn prepare(&mut self, function: &str, arguments: &Value) -> anyhow::Result<()> {
        // All setups make this container; only some of their calls name it.
        let handle = arguments["handle"].as_str().unwrap_or("box");
        match function {
            "Create" => self.ask("POST", "/containers", "application/json", &json_body(arguments)),
            "Run" => {
                let path = format!("/containers/{handle}/processes");
                let mut connection = Connection::open(&self.socket)?;
                connection.send(&request(
                    "POST",
                    &path,
                    "application/json",
                    &json_body(&arguments["spec"]),
                ));
                let started = connection.wait(Instant::now() + PATIENCE, |received| {
                    received.closed || find(&received.bytes, b"}\n").is_some()
                });
                let answer = String::from_utf8_lossy(&connection.look().bytes).into_owned();
                ensure!(started && answer.contains(" 201 "), "{answer}");
                // One that does not sleep had ended before the script went on.
                if !arguments["spec"].to_string().contains("sleep") {
                    let ended = connection.wait(Instant::now() + PATIENCE, |got| got.closed);
                    ensure!(ended, "it does not end");
                }
                self.background.push(connection);
                Ok(())
            }
            "StreamIn" => {
                let text = |name: &str| arguments[name].as_str().unwrap_or_default().to_owned();
                let path = format!(
                    "/containers/{handle}/files?user={}&destination={}",
                    text("user"),
                    text("path")
                );
                let archive = archive(&arguments["files"])?;
                self.ask("PUT", &path, "application/x-tar", &archive)
            }
            // Done where the script says that it has been done.
            "SetProperty" => Ok(()),
            other => bail!("unknown call {other}"),
        }
    }

    fn ask(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> anyhow::Result<()> {
        let mut connection = Connection::open(&self.socket)?;
        connection.send(&request(method, path, kind, body));
        let ended = connection.wait(Instant::now() + PATIENCE, |received| received.closed);
        let answer = String::from_utf8_lossy(&connection.look().bytes).into_owned();
        ensure!(ended && answer.starts_with("HTTP/1.1 200 "), "{method} {path}: {answer}");
        Ok(())
    }

    fn play(&mut self, index: usize, event: &Event) -> anyhow::Result<()> {
        match &event.what {
            What::Open { c } => {
                self.come_to(index, event);
                self.slow_down(*c)?;
                self.connections.insert(*c, Connection::open(&self.socket)?);
            }
            What::Data { c, from: Side::Client, bytes } => {
                self.come_to(index, event);
                let bytes = self.substitute(bytes);
                self.connections.get_mut(c).context("no connection")?.send(&bytes);
            }
            What::HalfClose { c, by: Side::Client } => {
                self.come_to(index, event);
                self.connections[c].shutdown(Shutdown::Write);
            }
            What::Close { c, by: Side::Client } => {
                self.come_to(index, event);
                // What comes now is nobody's.
                self.connections[c].shutdown(Shutdown::Both);
            }
            What::Close { c, by: Side::Server } => {
                if let Some(connection) = self.connections.get(c) {
                    let patience = CLOSE_PATIENCE.min(self.patience);
                    connection.wait(Instant::now() + patience, |received| received.closed);
                }
                self.go_on(*c)?;
            }
            What::Note(note) => {
                self.come_to(index, event);
                self.obey(note)?;
            }
            _ => {}
        }
        match event.what {
            What::Data { from: Side::Server, .. } => {
                (self.answered, self.last.1) = (true, event.ms)
            }
            What::Call { .. } | What::Return { .. } | What::StillOpen { .. } => {}
            _ => (self.answered, self.last) = (false, (Instant::now(), event.ms)),
        }
        Ok(())
    }

    /// The original takes a quarter of a second to destroy a container, and half as long to create
    /// one. Ours is done before a second client can ask, unless it is held.
    fn slow_down(&self, c: usize) -> anyhow::Result<()> {
        match (self.meanwhile(), c) {
            (Some((step, _)), 1) => self.rig.hold(step),
            _ => Ok(()),
        }
    }

    fn go_on(&self, c: usize) -> anyhow::Result<()> {
        match self.meanwhile() {
            Some((step, last)) if c == last => {
                let answered = |received: &Received| received.closed;
                self.connections[&c].wait(Instant::now() + self.patience, answered);
                self.rig.let_go(step)
            }
            _ => Ok(()),
        }
    }

    /// Where the first connection's call is held, and the last connection that asks meanwhile.
    fn meanwhile(&self) -> Option<(&'static str, usize)> {
        match self.recording.head.scenario.as_str() {
            "destroy-concurrent" => Some(("destroy/entered", 2)),
            "list-during-create" => Some(("create/image-ready", 5)),
            _ => None,
        }
    }

    /// What a script did to the server when it remarked this.
    fn obey(&mut self, note: &str) -> anyhow::Result<()> {
        match note {
            "SIGKILL to the supervisor (1 found)" => self.rig.order("kill keeper"),
            "SIGTERM to the server; an idle keep-alive connection is open too" => {
                self.rig.order("down")
            }
            "server started again" => self.rig.order("up"),
            "garden.network.interface is set now" => {
                for handle in ["box", "box2"] {
                    let path = format!("/containers/{handle}/properties/garden.network.interface");
                    self.ask("PUT", &path, "application/json", b"{\"value\":\"eth0\"}")?;
                }
                Ok(())
            }
            // Others tell of the time that passes or of what the next call shows.
            _ => Ok(()),
        }
    }

    /// Waits for all that the server had sent before this event, and for the client's own pause.
    fn come_to(&mut self, index: usize, event: &Event) {
        let pause = Duration::from_millis(event.ms.saturating_sub(self.last.1));
        let deadline = Instant::now() + self.patience + pause;
        for (c, connection) in &self.connections {
            let asked = self.recording.sent(*c, Side::Client, index);
            let requests = message::requests(&asked).messages;
            let recorded = self.recording.sent(*c, Side::Server, index);
            if recorded.is_empty() {
                continue;
            }
            let wanted = progress(&message::answers(&requests, &recorded, false));
            let came = connection.wait(deadline, |received| {
                received.closed
                    || progress(&message::answers(&requests, &received.bytes, false)) >= wanted
            });
            if !came {
                self.patience = IMPATIENCE;
            }
            let received = connection.look();
            learn(&mut self.names, &uuid_texts(&recorded), &uuid_texts(&received.bytes));
            learn(&mut self.tokens, &token_texts(&recorded), &token_texts(&received.bytes));
        }
        let since = if self.answered { Instant::now() } else { self.last.0 };
        if let Some(left) = (since + pause).checked_duration_since(Instant::now()) {
            std::thread::sleep(left);
        }
    }

    fn substitute(&self, bytes: &[u8]) -> Vec<u8> {
        let mut all = bytes.to_vec();
        for start in uuids(bytes) {
            if let Some(ours) = self.names.get(&bytes[start..start + UUID]) {
                all[start..start + UUID].copy_from_slice(ours);
            }
        }
        const BEFORE: &[u8] = b"/attaches/";
        if let Some(at) = find(&all, BEFORE) {
            let start = at + BEFORE.len();
            let end = start + all[start..].iter().take_while(|byte| **byte != b'/').count();
            if let Some(ours) = self.tokens.get(&all[start..end]) {
                all.splice(start..end, ours.iter().copied());
            }
        }
        all
    }

    /// Waits for all data and closes.
    fn finish(&mut self) {
        let events = self.recording.events.len();
        for (c, connection) in &self.connections {
            let asked = self.recording.sent(*c, Side::Client, events);
            let requests = message::requests(&asked).messages;
            let recorded = self.recording.sent(*c, Side::Server, events);
            let wanted = progress(&message::answers(&requests, &recorded, true));
            let closes = self.recording.end(*c) == Some(true);
            let came = connection.wait(Instant::now() + self.patience, |received| {
                received.closed
                    || (!closes
                        && progress(&message::answers(&requests, &received.bytes, false)) >= wanted)
            });
            if !came {
                self.patience = IMPATIENCE;
            }
        }
    }

    fn differences(&self) -> Vec<Difference> {
        let mut all = Vec::new();
        let mut left: Vec<_> = self.connections.keys().copied().collect();
        while let Some(c) = (!left.is_empty()).then(|| left.remove(0)) {
            let Some(twin) = left.iter().position(|other| self.are_twins(c, *other)) else {
                all.extend(self.compare(c, c));
                continue;
            };
            // Which of two equal requests made at one time is served first is nobody's promise.
            let twin = left.remove(twin);
            let straight = [self.compare(c, c), self.compare(twin, twin)].concat();
            let crossed = [self.compare(c, twin), self.compare(twin, c)].concat();
            all.extend(if crossed.len() < straight.len() { crossed } else { straight });
        }
        all
    }

    /// Both asked the same before either was answered.
    fn are_twins(&self, one: usize, other: usize) -> bool {
        let positions = |c: usize, side: Side| {
            let said = move |(_, event): &(usize, &Event)| matches!(&event.what, What::Data { c: on, from, .. } if (*on, *from) == (c, side));
            self.recording
                .events
                .iter()
                .enumerate()
                .filter(said)
                .map(|(index, _)| index)
                .collect::<Vec<_>>()
        };
        let asked = |c| self.connections[&c].sent.as_slice();
        let last_question =
            positions(one, Side::Client).last().max(positions(other, Side::Client).last()).copied();
        let first_answer = positions(one, Side::Server)
            .first()
            .min(positions(other, Side::Server).first())
            .copied();
        asked(one) == asked(other) && first_answer.is_some() && last_question < first_answer
    }

    fn compare(&self, recorded: usize, ours: usize) -> Vec<Difference> {
        let connection = &self.connections[&ours];
        let received = connection.look();
        let replayed = Replayed {
            connection: recorded,
            asked: &connection.sent,
            sent: &received.bytes,
            closed: received.closed,
        };
        replayed.as_server(self.recording)
    }
}

impl Drop for Replay<'_> {
    fn drop(&mut self) {
        for connection in self.connections.values().chain(&self.background) {
            connection.shutdown(Shutdown::Both);
        }
    }
}

fn learn(known: &mut BTreeMap<Vec<u8>, Vec<u8>>, recorded: &[Vec<u8>], ours: &[Vec<u8>]) {
    for (recorded, ours) in recorded.iter().zip(ours) {
        known.insert(recorded.clone(), ours.clone());
    }
}

fn uuid_texts(bytes: &[u8]) -> Vec<Vec<u8>> {
    uuids(bytes).into_iter().map(|start| bytes[start..start + UUID].to_vec()).collect()
}

fn token_texts(bytes: &[u8]) -> Vec<Vec<u8>> {
    const BEFORE: &[u8] = b"\"stream_id\":\"";
    let Some(at) = find(bytes, BEFORE) else { return Vec::new() };
    let rest = &bytes[at + BEFORE.len()..];
    vec![rest.iter().copied().take_while(|byte| *byte != b'"').collect()]
}

fn json_body(value: &Value) -> Vec<u8> {
    format!("{value}\n").into_bytes()
}

fn request(method: &str, path: &str, kind: &str, body: &[u8]) -> Vec<u8> {
    let close = if path.ends_with("/processes") { "" } else { "Connection: close\r\n" };
    let head = format!(
        "{method} {path} HTTP/1.1\r\nHost: api\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n{close}\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// An archive of these files, by tar(1).
fn archive(files: &Value) -> anyhow::Result<Vec<u8>> {
    let directory = tempfile::tempdir()?;
    let files = files
        .as_object()
        .cloned()
        .unwrap_or_else(|| json!({}).as_object().cloned().unwrap_or_default());
    for (name, content) in &files {
        let path = directory.path().join(name);
        std::fs::create_dir_all(path.parent().context("no parent")?)?;
        std::fs::write(&path, content.as_str().unwrap_or_default())?;
    }
    let packed = std::process::Command::new("tar")
        .args(["--owner=0", "--group=0", "--sort=name", "-C"])
        .arg(directory.path())
        .arg("-c")
        .args(files.keys())
        .output()?;
    ensure!(packed.status.success(), "tar: {}", String::from_utf8_lossy(&packed.stderr));
    Ok(packed.stdout)
}
