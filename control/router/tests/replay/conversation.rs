//! Acts the recorded clients and back ends, event by event, and compares what the router does.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::Value;

use super::differences::DIFFERENCES;
use super::normal;
use super::stage::{Connection, Stage};

/// For what the router does at once.
const PATIENCE: Duration = Duration::from_secs(20);
/// Gaps of at least so many milliseconds are part of what a client or back end does.
const GAP: u64 = 150;
/// The first endpoint of several is chosen at random.
const TRIES: usize = 40;

enum Fault {
    /// At this event.
    OtherEndpoint(String),
    Other(String),
}

pub async fn replay(scenario: &str, recording: &str) {
    let mut last = String::new();
    for _ in 0..TRIES {
        match once(scenario, recording).await {
            Ok(()) => return,
            Err(Fault::OtherEndpoint(at)) => last = at,
            Err(Fault::Other(text)) => panic!("{scenario}: {text}"),
        }
    }
    panic!("{scenario}: the endpoints were never chosen as recorded, the last time at {last}");
}

async fn once(scenario: &str, recording: &str) -> Result<(), Fault> {
    let last_of = last_of_clients(recording);
    let mut events = recording.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let head = events.next().unwrap();
    let config = head["config"].clone();
    let changes = if config.is_object() {
        config
    } else if scenario == "retry-attempts" {
        serde_json::json!({"backends": {"max_attempts": 1},
                           "logging": {"extra_access_log_fields": ["failed_attempts"]}})
    } else {
        serde_json::json!({})
    };
    let mut play = Play {
        stage: Stage::set(&changes).await,
        connections: HashMap::new(),
        names: HashMap::new(),
        ports: HashMap::new(),
        expected: HashMap::new(),
        left_out: Vec::new(),
        waiting: Vec::new(),
    };
    let mut note = String::new();
    let mut last = 0;
    let mut result = Ok(());
    for (number, event) in events.enumerate() {
        if event["ev"] == "note" {
            event["text"].as_str().unwrap().clone_into(&mut note);
            if scenario == "nats-unregister" {
                // Each step was recorded with an empty table.
                play.stage.unregister_all().await;
            }
            if note.starts_with("first endpoint closes after reading the request")
                && note.ends_with("GET")
            {
                // The recording lacks these.
                for (port, index) in [(19003, 0), (19001, 1)] {
                    let message = serde_json::json!({
                        "host": "127.0.0.1", "port": port, "uris": ["two19003.example.com"],
                        "app": "app-1", "private_instance_id": format!("inst-{index}"),
                        "private_instance_index": index.to_string(),
                    });
                    play.stage.publish("router.register", &message.to_string()).await;
                }
            }
            if note.starts_with("instance 1 stops listening") {
                play.silence(19002).await;
            }
            continue;
        }
        let differs = DIFFERENCES
            .iter()
            .any(|(of, step, _)| *of == scenario && *step == note && event["ev"] != "nats");
        let now = event["ms"].as_u64().unwrap_or(last);
        let gap = now.saturating_sub(last);
        last = now;
        if differs {
            play.leave_out(&event);
            continue;
        }
        if gap >= GAP && is_acted(&event) {
            tokio::time::sleep(Duration::from_millis(gap)).await;
        }
        match play.act(&event).await {
            Ok(()) => {
                // A client that does not say so leaves when all is said.
                let c = event["c"].as_u64().unwrap_or_default();
                if last_of.get(&c) == Some(&number)
                    && let Some(connection) = play.connections.remove(&c)
                {
                    connection.close(false).await;
                }
            }
            Err(Fault::Other(text)) => {
                result = Err(Fault::Other(format!("{note:?}: {text}\nat {event}")));
                break;
            }
            Err(fault) => {
                result = Err(fault);
                break;
            }
        }
    }
    if result.is_ok() {
        let left = std::mem::take(&mut *play.stage.log.0.lock().unwrap());
        if !left.is_empty() {
            result = Err(Fault::Other(format!("the log has more:\n{}", left.join("\n"))));
        }
    }
    for (_, connection) in play.connections.drain() {
        connection.close(false).await;
    }
    play.stage.clear().await;
    result
}

/// The number of each client's last event, behind the head.
fn last_of_clients(recording: &str) -> HashMap<u64, usize> {
    let mut last = HashMap::new();
    let mut clients = Vec::new();
    for (number, line) in recording.lines().skip(1).enumerate() {
        let event: Value = serde_json::from_str(line).unwrap();
        let c = event["c"].as_u64().unwrap_or_default();
        if event["ev"] == "open" && event["by"] == "client" {
            clients.push(c);
        }
        if clients.contains(&c) {
            last.insert(c, number);
        }
    }
    last
}

/// Whether a client or a back end does it.
fn is_acted(event: &Value) -> bool {
    let by = event["by"].as_str().unwrap_or_default();
    let dir = event["dir"].as_str().unwrap_or_default();
    match event["ev"].as_str().unwrap() {
        "data" => !dir.starts_with("router>"),
        "open" | "close" | "half-close" => by != "router",
        _ => false,
    }
}

struct Play {
    stage: Stage,
    connections: HashMap<u64, Connection>,
    /// Of back ends, by connection.
    names: HashMap<u64, String>,
    /// Recorded ports, by name.
    ports: HashMap<String, u16>,
    /// Bytes that the router must have sent by now.
    expected: HashMap<u64, Vec<u8>>,
    left_out: Vec<u64>,
    /// Connections that the router has made and no event has spoken of yet.
    waiting: Vec<(u16, Connection)>,
}

impl Play {
    /// Clients of a step that is left out are left out for good.
    fn leave_out(&mut self, event: &Value) {
        if event["ev"] == "open" && event["by"] == "client" {
            self.left_out.push(event["c"].as_u64().unwrap());
        } else if event["ev"] == "open" {
            let name = event["to"].as_str().unwrap().to_owned();
            self.names.insert(event["c"].as_u64().unwrap(), name);
        }
    }

    async fn act(&mut self, event: &Value) -> Result<(), Fault> {
        let c = event["c"].as_u64().unwrap_or_default();
        let by = event["by"].as_str().unwrap_or_default();
        if self.left_out.contains(&c) {
            return Ok(());
        }
        match event["ev"].as_str().unwrap() {
            "nats" => {
                let subject = event["subject"].as_str().unwrap();
                let payload = String::from_utf8_lossy(&content(event)).into_owned();
                self.stage.publish(subject, &payload).await;
            }
            "open" if by == "client" => {
                let connection = self.stage.connect(event["to"].as_str().unwrap()).await;
                self.connections.insert(c, connection);
            }
            "open" => {
                self.names.insert(c, event["to"].as_str().unwrap().to_owned());
            }
            "data" => match event["dir"].as_str().unwrap() {
                "router>client" | "router>backend" => {
                    let bytes = content(event);
                    self.expected.entry(c).or_default().extend(&bytes);
                    self.compare(c, &bytes).await?;
                }
                dir => {
                    if dir == "backend>router" {
                        self.bound(c).await?;
                    }
                    if let Some(connection) = self.connections.get(&c) {
                        connection.write(&content(event)).await;
                    }
                }
            },
            "half-close" => {
                let stream = &self.connections[&c].stream;
                rustix::net::shutdown(stream, rustix::net::Shutdown::Write).unwrap();
            }
            // When the router closes connections to back ends is its own affair.
            "close" if by == "router" && !self.names.contains_key(&c) => {
                self.wait("the router does not close", |play| {
                    play.connections.get(&c).is_none_or(|open| open.seen.lock().unwrap().ended)
                })
                .await?;
            }
            "close" if by == "router" => {}
            "close" => {
                if by == "backend" {
                    self.bound(c).await?;
                }
                if let Some(connection) = self.connections.remove(&c) {
                    connection.close(event["how"] == "reset").await;
                }
                self.expected.remove(&c);
            }
            "log" => {
                if let Some(line) = event["text"].as_str() {
                    self.logged(line).await?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    async fn logged(&mut self, line: &str) -> Result<(), Fault> {
        let wanted = normal::log(line, &normal::Ports::new());
        let ports = self.stage.ports.clone();
        let mut other = false;
        let found = self
            .wait("", |play| {
                let mut lines = play.stage.log.0.lock().unwrap();
                let logged: Vec<_> =
                    lines.iter().map(|known| any_silent(&normal::log(known, &ports))).collect();
                let found = logged.iter().position(|known| *known == any_silent(&wanted));
                other = found.is_none()
                    && logged.iter().any(|known| any_attempts(known) == any_attempts(&wanted));
                found.map(|at| lines.remove(at)).is_some() || other
            })
            .await;
        found.map_err(|_| {
            let lines = self.stage.log.0.lock().unwrap();
            let lines: Vec<_> = lines.iter().map(|known| normal::log(known, &ports)).collect();
            Fault::Other(format!("the log lacks\n{wanted}\nit has\n{}", lines.join("\n")))
        })?;
        if other { Err(Fault::OtherEndpoint(wanted)) } else { Ok(()) }
    }

    /// The back end's connection is there.
    async fn bound(&mut self, c: u64) -> Result<(), Fault> {
        let start = Instant::now();
        while !self.connections.contains_key(&c) {
            self.take_accepted(c, b"");
            if start.elapsed() > PATIENCE {
                return Err(Fault::Other("the router does not connect".to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// A new connection is the recorded one if that is not there, or has had nothing to say.
    fn take_accepted(&mut self, c: u64, now: &[u8]) {
        if !self.names.contains_key(&c) {
            return;
        }
        while let Some(accepted) = self.stage.accepted() {
            self.waiting.push(accepted);
        }
        let name = self.names[&c].clone();
        let known = self.ports.get(&name).copied();
        let fits = |(port, _): &(u16, Connection)| known.is_none_or(|known| *port == known);
        if let Some(at) = self.waiting.iter().position(fits) {
            let (port, connection) = self.waiting.remove(at);
            self.ports.insert(name, port);
            self.connections.insert(c, connection);
            // What the connection before it got is no part of this one.
            self.expected.insert(c, now.to_vec());
        }
    }

    async fn compare(&mut self, c: u64, now: &[u8]) -> Result<(), Fault> {
        let start = Instant::now();
        loop {
            let ports = self.stage.ports.clone();
            let wanted = normal::bytes(&self.expected[&c], &normal::Ports::new());
            let (seen, ended) = match self.connections.get(&c) {
                Some(open) => {
                    let seen = open.seen.lock().unwrap();
                    (normal::bytes(&seen.bytes, &ports), seen.ended)
                }
                None => (String::new(), false),
            };
            if any_silent(&seen).starts_with(&any_silent(&wanted)) {
                return Ok(());
            }
            if ids(&seen).zip(ids(&wanted)).any(|(ours, recorded)| ours != recorded) {
                return Err(Fault::OtherEndpoint(format!("{c}")));
            }
            let is_late = start.elapsed() > Duration::from_millis(500);
            if is_late && self.names.contains_key(&c) && !self.waiting.is_empty() {
                return Err(Fault::OtherEndpoint(format!("{c}")));
            }
            if let Some(other) = self.elsewhere(c) {
                if self.names[&other] != self.names[&c] {
                    return Err(Fault::OtherEndpoint(format!("{c}")));
                }
                // Our router has used another connection to the same back end.
                let connection = self.connections.remove(&other).unwrap();
                self.connections.insert(c, connection);
                let mut expected = self.expected.remove(&other).unwrap_or_default();
                expected.extend(now);
                self.expected.insert(c, expected);
            }
            self.take_accepted(c, now);
            if start.elapsed() > PATIENCE || ended && start.elapsed() > Duration::from_secs(2) {
                return Err(Fault::Other(format!(
                    "the router should say\n{wanted}\nit says\n{seen}"
                )));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// Another connection to a back end that has got what this one should have.
    fn elsewhere(&self, c: u64) -> Option<u64> {
        self.names.get(&c)?;
        let others = self.names.keys().copied().filter(|other| *other != c);
        others.into_iter().find(|other| {
            let Some(open) = self.connections.get(other) else { return false };
            let seen = normal::bytes(&open.seen.lock().unwrap().bytes, &self.stage.ports);
            let expected = self.expected.get(other).map(Vec::as_slice).unwrap_or_default();
            ids(&seen).count() > ids(&normal::bytes(expected, &normal::Ports::new())).count()
        })
    }

    async fn silence(&mut self, port: u16) {
        self.stage.silence(port).await;
        let gone: Vec<u64> = self
            .names
            .iter()
            .filter(|(_, name)| self.ports.get(*name) == Some(&port))
            .map(|(c, _)| *c)
            .collect();
        for c in gone {
            if let Some(connection) = self.connections.remove(&c) {
                connection.close(false).await;
            }
        }
    }

    async fn wait(
        &mut self,
        what: &str,
        mut done: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), Fault> {
        let start = Instant::now();
        while !done(self) {
            if start.elapsed() > PATIENCE {
                return Err(Fault::Other(what.to_owned()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }
}

fn content(event: &Value) -> Vec<u8> {
    let decode = |text: &Value| {
        base64::engine::general_purpose::STANDARD.decode(text.as_str().unwrap()).unwrap()
    };
    if let Some(parts) = event["parts"].as_array() {
        return parts.iter().flat_map(content).collect();
    }
    if let Some(byte) = event["byte"].as_u64() {
        let times = usize::try_from(event["times"].as_u64().unwrap()).unwrap();
        return vec![u8::try_from(byte).unwrap(); times];
    }
    match event["text"].as_str() {
        Some(text) => text.as_bytes().to_vec(),
        None => decode(&event["b64"]),
    }
}

/// The instances that requests went to.
fn ids(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with("X-Cf-Instanceid: "))
}

/// Of several back ends that do not listen, which one was asked last is chance.
fn any_silent(text: &str) -> String {
    let mut out = text.to_owned();
    while let Some(at) = out.find("127.0.0.1:195") {
        out.replace_range(at..at + 15, "silent");
    }
    if out.contains("silent") {
        for (name, index) in (0..10).flat_map(|index| [("inst-", index), ("app_index:\"", index)]) {
            out = out.replace(&format!("{name}{index}"), name);
        }
    }
    out
}

/// Whether the endpoint that fails was asked first is chance too.
fn any_attempts(line: &str) -> String {
    let line = any_silent(line);
    match line.split_once("failed_attempts:") {
        Some((before, after)) => format!("{before}{}", after.trim_start_matches(char::is_numeric)),
        None => line,
    }
}
