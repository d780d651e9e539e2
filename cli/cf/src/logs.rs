//! Log lines.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use serde::Deserialize;

use crate::apps;
use crate::client::{Client, read};
use crate::error::Error;

/// Between two looks for new lines.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Failures in a row after which a log is followed no longer.
const PATIENCE: u32 = 5;
/// The beginning of time, as the cf CLI asks for it.
const BEGINNING: i64 = -6_795_364_578_871_345_152;

#[derive(Deserialize)]
struct Answer {
    envelopes: Envelopes,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Envelopes {
    batch: Vec<Envelope>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Envelope {
    timestamp: String,
    instance_id: String,
    tags: std::collections::BTreeMap<String, String>,
    log: Option<Log>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Log {
    payload: String,
    r#type: String,
}

impl Envelope {
    /// Nanoseconds since the epoch.
    fn time(&self) -> i64 {
        self.timestamp.parse().unwrap_or(0)
    }

    fn source_type(&self) -> &str {
        self.tags.get("source_type").map_or("", |kind| kind)
    }

    fn say(&self) {
        let Some(log) = &self.log else { return };
        let payload = BASE64_STANDARD.decode(&log.payload).unwrap_or_default();
        let time = Timestamp::from_nanosecond(self.time().into()).unwrap_or_default();
        let time = time.strftime("%Y-%m-%dT%H:%M:%S%.2f+0000");
        let kind = if log.r#type == "ERR" { "ERR" } else { "OUT" };
        for line in String::from_utf8_lossy(&payload).split('\n') {
            println!("   {time} [{}/{}] {kind} {line}", self.source_type(), self.instance_id);
        }
    }
}

async fn lines(client: &mut Client, app: &str, query: &str) -> Result<Vec<Envelope>, Error> {
    let path = format!("/api/v1/read/{app}?{query}");
    let answer = client.get_logs(&path).await.map_err(|error| match error.status() {
        Some(status) => Error::said(format!(
            "Failed to retrieve logs from Log Cache: unexpected status code {status}"
        )),
        None => error,
    })?;
    let answer: Answer = read(answer, &path)?;
    Ok(answer.envelopes.batch)
}

/// An app's log from some time on.
#[derive(Debug)]
pub(crate) struct Tail {
    app: String,
    next: i64,
}

impl Tail {
    /// What comes after the newest line.
    pub async fn from_now(client: &mut Client, app: &str) -> Result<Self, Error> {
        let query = format!("descending=true&limit=1&start_time={BEGINNING}");
        let newest = lines(client, app, &query).await?;
        let next = newest.first().map_or(1, |line| line.time() + 1);
        Ok(Self { app: app.into(), next })
    }

    /// Prints what is new, of one source type or of all.
    pub async fn say_new(&mut self, client: &mut Client, only: Option<&str>) -> Result<(), Error> {
        loop {
            let query = format!("envelope_types=LOG&limit=1000&start_time={}", self.next);
            let lines = lines(client, &self.app, &query).await?;
            let Some(last) = lines.last() else { return Ok(()) };
            self.next = last.time() + 1;
            let wanted = |line: &&Envelope| only.is_none_or(|only| line.source_type() == only);
            lines.iter().filter(wanted).for_each(Envelope::say);
        }
    }
}

/// `cf logs`.
pub(crate) async fn show(client: &mut Client, name: &str, recent: bool) -> Result<(), Error> {
    println!("Retrieving logs for app {name} in {}...\n", client.place()?);
    let app = apps::find(client, name).await?;
    if recent {
        let query = format!("descending=true&envelope_types=LOG&limit=1000&start_time={BEGINNING}");
        lines(client, &app.guid, &query).await?.iter().rev().for_each(Envelope::say);
        return Ok(());
    }
    let mut tail = Tail::from_now(client, &app.guid).await?;
    // The last second is shown, too.
    tail.next = (tail.next - 1_000_000_001).max(1);
    let mut failures = 0;
    loop {
        match tail.say_new(client, None).await {
            Ok(()) => failures = 0,
            Err(error) if failures + 1 == PATIENCE => return Err(error),
            Err(error) => {
                failures += 1;
                eprintln!("{error}");
            }
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
