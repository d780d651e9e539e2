//! `cf apps`, `cf app`, `cf scale`, `cf delete`.

use reqwest::Method;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::arguments::Scale;
use crate::client::{Client, escape};
use crate::error::Error;
use crate::{push, say, summary};

/// An app, as far as it is read.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct App {
    pub guid: String,
    pub name: String,
    #[serde(default)]
    pub state: String,
}

/// The app of this name in the targeted space.
pub(crate) async fn find(client: &mut Client, name: &str) -> Result<App, Error> {
    look_up(client, name).await?.ok_or_else(|| Error::said(format!("App '{name}' not found.")))
}

async fn look_up(client: &mut Client, name: &str) -> Result<Option<App>, Error> {
    let space = client.space()?;
    let path = format!("/v3/apps?names={}&space_guids={}", escape(name), space.guid);
    Ok(client.list(&path).await?.into_iter().next())
}

/// `cf apps`.
pub(crate) async fn list(client: &mut Client) -> Result<(), Error> {
    println!("Getting apps in {}...\n", client.place()?);
    let space = client.space()?.guid;
    let path = format!("/v3/apps?space_guids={space}&order_by=name&per_page=5000");
    let apps: Vec<App> = client.list(&path).await?;
    if apps.is_empty() {
        println!("No apps found");
        return Ok(());
    }
    let mut rows =
        vec![["name", "requested state", "processes", "routes"].map(String::from).to_vec()];
    for app in apps {
        let mut counts = Vec::new();
        for process in summary::processes(client, &app.guid).await? {
            let stats = summary::stats(client, &process.guid).await?;
            counts.push(format!("{}:{}", process.kind, summary::count(&stats)));
        }
        let routes = summary::routes(client, &app.guid).await?.join(", ");
        rows.push(vec![app.name, app.state.to_lowercase(), counts.join(", "), routes]);
    }
    say::table(&rows, "");
    Ok(())
}

/// `cf app`.
pub(crate) async fn show(client: &mut Client, name: &str) -> Result<(), Error> {
    println!("Showing health and status for app {name} in {}...\n", client.place()?);
    let app = find(client, name).await?;
    summary::say(client, &app, false).await
}

/// `cf scale`.
pub(crate) async fn scale(client: &mut Client, flags: Scale) -> Result<(), Error> {
    let (name, place) = (&flags.name, client.place()?);
    let mut wanted = json!({});
    if let Some(instances) = flags.instances {
        wanted["instances"] = json!(instances);
    }
    for (key, size) in [("memory_in_mb", &flags.memory), ("disk_in_mb", &flags.disk)] {
        if let Some(size) = size {
            wanted[key] = json!(say::mebibytes(size)?);
        }
    }
    let app = find(client, name).await?;
    if wanted.as_object().is_some_and(serde_json::Map::is_empty) {
        println!("Showing current scale of app {name} in {place}...\n");
        return summary::say(client, &app, false).await;
    }
    println!("Scaling app {name} in {place}...\n");
    let restarts = flags.memory.is_some() || flags.disk.is_some();
    if restarts && !flags.force {
        println!("This will cause the app to restart.");
        if !say::confirm(&format!("Really scale {name}?"))? {
            println!("Scaling cancelled");
            return Ok(());
        }
    }
    let path = format!("/v3/apps/{}/processes/{}/actions/scale", app.guid, escape(&flags.process));
    client.post(&path, &wanted).await?;
    if restarts && app.state == "STARTED" {
        println!("Stopping app {name} in {place}...\n");
        client.post(&format!("/v3/apps/{}/actions/stop", app.guid), &Value::Null).await?;
        println!("Starting app {name} in {place}...\n");
        client.post(&format!("/v3/apps/{}/actions/start", app.guid), &Value::Null).await?;
    }
    if app.state == "STARTED" {
        push::wait_for_start(client, &app).await?;
    }
    summary::say(client, &app, false).await
}

/// `cf delete`.
pub(crate) async fn delete(
    client: &mut Client,
    name: &str,
    force: bool,
    routes: bool,
) -> Result<(), Error> {
    #[derive(Deserialize)]
    struct Route {
        guid: String,
    }
    let place = client.place()?;
    if !force && !say::confirm(&format!("Really delete the app {name}?"))? {
        println!("Delete cancelled");
        return Ok(());
    }
    println!("Deleting app {name} in {place}...");
    let Some(app) = look_up(client, name).await? else {
        eprintln!("App '{name}' does not exist.");
        println!("OK");
        return Ok(());
    };
    let mut paths = vec![format!("/v3/apps/{}", app.guid)];
    if routes {
        let mapped: Vec<Route> = client.list(&format!("/v3/apps/{}/routes", app.guid)).await?;
        paths.extend(mapped.into_iter().map(|route| format!("/v3/routes/{}", route.guid)));
    }
    for path in paths {
        match client.change(Method::DELETE, &path, &Value::Null).await {
            Ok((_, job)) => client.wait_for(job).await?,
            // Somebody else was quicker.
            Err(error) if error.status() == Some(404) => {}
            Err(error) => return Err(error),
        }
    }
    println!("OK");
    Ok(())
}
