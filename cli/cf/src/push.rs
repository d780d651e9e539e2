//! `cf push`.

use std::convert::Infallible;
use std::time::Duration;

use reqwest::{Method, header};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::apps::{self, App};
use crate::arguments::Push;
use crate::client::{Client, pause};
use crate::error::Error;
use crate::files::Files;
use crate::logs::{self, Tail};
use crate::manifest::{Manifest, Wanted};
use crate::upload::upload;
use crate::{say, summary};

/// How long staging may take.
const STAGING: Duration = Duration::from_secs(15 * 60);
/// For what staging has said last.
const LAST_LOOK: Duration = Duration::from_millis(500);
/// How long an app may take to start.
const STARTUP: Duration = Duration::from_secs(5 * 60);

/// Makes or changes apps, stages and starts them.
pub(crate) async fn push(client: &mut Client, flags: Push) -> Result<(), Error> {
    let mut steps = Steps::new();
    let (place, space) = (client.place()?, client.space()?);
    let directory = std::env::current_dir().map_err(|error| Error::said(error.to_string()))?;
    for size in flags.memory.iter().chain(&flags.disk) {
        say::mebibytes(size)?;
    }
    let manifest = Manifest::of(&flags, &directory)?;
    let wanted = manifest.apps(&flags, &directory);
    let names: Vec<&str> = wanted.iter().map(|app| &*app.name).collect();
    let apps = if names.len() > 1 { "apps" } else { "app" };
    println!("Pushing {apps} {} to {}...", names.join(", "), place.replacen(" in ", " ", 1));

    let text = manifest.text()?;
    if let Some(file) = &manifest.file {
        println!("Applying manifest file {}...\n", file.display());
        println!("Updating with these attributes...\n  ---");
        text.lines().for_each(|line| println!("  {line}"));
    }
    let path = format!("/v3/spaces/{}/actions/apply_manifest", space.guid);
    let request = client.request(Method::POST, &path).await?;
    let request = request.header(header::CONTENT_TYPE, "application/x-yaml").body(text);
    let (_, job) = client.finish(request, &Method::POST, &path).await?;
    client.wait_for(job).await?;
    if manifest.file.is_some() {
        println!("Manifest applied");
    }
    steps.end("manifest");
    for app in &wanted {
        push_one(client, app, flags.no_start, &mut steps).await?;
    }
    println!("\n{}", steps.took());
    Ok(())
}

/// How long the steps of a push have taken, in their order.
struct Steps {
    started: Instant,
    last: Instant,
    ended: Vec<(&'static str, Duration)>,
}

impl Steps {
    fn new() -> Self {
        let now = Instant::now();
        Self { started: now, last: now, ended: Vec::new() }
    }

    /// What was done since the step before. Those of several apps are added up.
    fn end(&mut self, step: &'static str) {
        let took = self.last.elapsed();
        self.last += took;
        match self.ended.iter_mut().find(|(name, _)| *name == step) {
            Some((_, before)) => *before += took,
            None => self.ended.push((step, took)),
        }
    }

    fn took(&self) -> String {
        let steps: Vec<_> = self
            .ended
            .iter()
            .map(|(step, took)| format!("{step} {:.2}", took.as_secs_f64()))
            .collect();
        format!("Took {:.2} s: {}", self.started.elapsed().as_secs_f64(), steps.join(", "))
    }
}

async fn push_one(
    client: &mut Client,
    wanted: &Wanted,
    no_start: bool,
    steps: &mut Steps,
) -> Result<(), Error> {
    let app = apps::find(client, &wanted.name).await?;
    println!("Packaging files to upload...");
    let path = wanted.path.clone();
    let files = tokio::task::spawn_blocking(move || Files::of(&path));
    let files =
        files.await.map_err(|panic| Error::said(format!("reading the files: {panic}")))??;
    println!("Uploading files...");
    let package = upload(client, &app, files).await?;
    steps.end("upload");
    if no_start {
        if app.state == "STARTED" {
            client.post(&format!("/v3/apps/{}/actions/stop", app.guid), &Value::Null).await?;
        }
        println!();
        return summary::say(client, &app, true).await;
    }

    println!("\nStaging app and tracing logs...");
    let droplet = stage(client, &app, &package).await?;
    steps.end("staging");
    let path = format!("/v3/apps/{}/relationships/current_droplet", app.guid);
    client.change(Method::PATCH, &path, &json!({"data": {"guid": droplet}})).await?;
    println!("\nWaiting for app {} to start...\n", app.name);
    client.post(&format!("/v3/apps/{}/actions/restart", app.guid), &Value::Null).await?;
    let started = wait_for_start(client, &app).await;
    steps.end("start");
    if started.is_ok() {
        println!();
    }
    summary::say(client, &app, true).await?;
    started
}

/// Stages a package and prints what staging says. Returns the droplet's guid.
async fn stage(client: &mut Client, app: &App, package: &str) -> Result<String, Error> {
    // Without its log staging is still worth something.
    let mut tail =
        Tail::from_now(client, &app.guid).await.inspect_err(|error| eprintln!("{error}"));
    let build = client.post("/v3/builds", &json!({"package": {"guid": package}})).await?;
    let path = format!("/v3/builds/{}", build["guid"].as_str().unwrap_or_default());
    let limit = || {
        let name = &app.name;
        Error::said(format!("Error staging application {name}: timed out after 15 minute(s)"))
    };
    // Answers about a build may be held until it ends, so its log is read beside them.
    let mut beside = client.clone();
    let ended = tokio::select! {
        ended = tokio::time::timeout(STAGING, build_end(client, &path)) => ended,
        never = follow(&mut beside, tail.as_mut().ok()) => match never {},
    };
    if let Ok(tail) = &mut tail {
        // Lines that are there come at once; a server may hold the answer while there are none.
        let said = tokio::time::timeout(LAST_LOOK, tail.say_new(client, Some("STG"))).await;
        said.unwrap_or(Ok(())).unwrap_or_else(|error| eprintln!("{error}"));
    }
    ended.unwrap_or_else(|_| Err(limit()))
}

/// The droplet of a build, once it is there.
async fn build_end(client: &mut Client, path: &str) -> Result<String, Error> {
    loop {
        let seen = client.get(path).await?;
        match seen["state"].as_str() {
            Some("STAGED") => {
                return Ok(seen["droplet"]["guid"].as_str().unwrap_or_default().to_owned());
            }
            Some("FAILED") => {
                return Err(Error::said(seen["error"].as_str().unwrap_or_default()));
            }
            _ => pause().await,
        }
    }
}

/// Prints what staging says, until it is no longer asked to.
async fn follow(client: &mut Client, tail: Option<&mut Tail>) -> Infallible {
    if let Some(tail) = tail {
        // The first failure is enough to hear of; the last look will tell whether it lasts.
        while tail.say_new(client, Some("STG")).await.is_ok() {
            tokio::time::sleep(logs::LOOK_EVERY).await;
        }
    }
    std::future::pending().await
}

/// Waits until an instance of each process runs.
pub(crate) async fn wait_for_start(client: &mut Client, app: &App) -> Result<(), Error> {
    eprintln!("Instances starting...");
    let deadline = Instant::now() + STARTUP;
    for process in summary::processes(client, &app.guid).await? {
        if process.instances == 0 {
            continue;
        }
        loop {
            let stats = summary::stats(client, &process.guid).await?;
            let is = |state| move |instance: &summary::Instance| instance.state == state;
            if stats.is_empty() || stats.iter().any(is("RUNNING")) {
                break;
            }
            if stats.iter().all(is("CRASHED")) {
                return Err(Error::said(format!(
                    "Start unsuccessful\n\nTIP: use 'cf logs {} --recent' for more information",
                    app.name
                )));
            }
            if Instant::now() > deadline {
                return Err(Error::said(
                    "Start app timeout\n\nTIP: Application must be listening on the right port. \
                     Instead of hard coding the port, use the $PORT environment variable.",
                ));
            }
            pause().await;
        }
    }
    Ok(())
}
