//! QEMU's control socket: one JSON object per line (QMP).

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

/// Longer than any command takes, on the busiest host.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection that is ready for commands.
#[derive(Debug)]
pub struct Qmp {
    stream: BufReader<UnixStream>,
}

impl Qmp {
    pub fn new(stream: UnixStream) -> anyhow::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut qmp = Self { stream: BufReader::new(stream) };
        let greeting = qmp.line()?;
        if greeting.get("QMP").is_none() {
            bail!("QEMU greets with {greeting}");
        }
        qmp.call("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Gives a command and waits for its result.
    pub fn call(&mut self, command: &str, arguments: Value) -> anyhow::Result<Value> {
        let mut line = json!({"execute": command, "arguments": arguments}).to_string();
        line.push('\n');
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .with_context(|| format!("cannot tell QEMU to {command}"))?;
        loop {
            let mut answer = self.line().with_context(|| format!("QEMU's answer to {command}"))?;
            if let Some(result) = answer.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = answer.get("error") {
                bail!("QEMU refuses to {command}: {}", error["desc"].as_str().unwrap_or("?"));
            }
            // The rest are events.
        }
    }

    /// Repeats a query until its `status` is one that ends it.
    pub fn wait_for(&mut self, query: &str, wanted: &[&str]) -> anyhow::Result<String> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let answer = self.call(query, json!({}))?;
            let status = answer["status"].as_str().unwrap_or_default();
            if wanted.contains(&status) {
                return Ok(status.to_owned());
            }
            if status == "failed" {
                bail!("{query}: {answer}");
            }
            if Instant::now() > deadline {
                bail!("{query} says {answer} after {PATIENCE:?}, not {wanted:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    fn line(&mut self) -> anyhow::Result<Value> {
        let mut line = String::new();
        match self.stream.read_line(&mut line).context("cannot read from QEMU")? {
            0 => bail!("QEMU has closed its control socket"),
            _ => serde_json::from_str(&line).with_context(|| format!("QEMU says {line}")),
        }
    }
}
