//! How an app is.

use serde::Deserialize;
use serde_json::Value;

use crate::apps::App;
use crate::client::{Client, read};
use crate::error::Error;
use crate::say;

/// A process, as far as it is read.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Process {
    pub guid: String,
    #[serde(rename = "type")]
    pub kind: String,
    pub instances: u64,
    memory_in_mb: u64,
    #[serde(default)]
    command: Option<String>,
}

/// An instance, as far as it is read.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Instance {
    pub index: u32,
    pub state: String,
    #[serde(default)]
    uptime: i64,
    #[serde(default)]
    routable: Option<bool>,
    #[serde(default)]
    pub details: Option<String>,
    #[serde(default)]
    mem_quota: u64,
    #[serde(default)]
    disk_quota: u64,
    #[serde(default)]
    log_rate_limit: i64,
    #[serde(default)]
    usage: Option<Usage>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Usage {
    cpu_entitlement: Option<f64>,
    mem: u64,
    disk: u64,
    log_rate: u64,
}

/// The processes of an app.
pub(crate) async fn processes(client: &mut Client, app: &str) -> Result<Vec<Process>, Error> {
    client.list(&format!("/v3/apps/{app}/processes")).await
}

/// The instances of a process. None where the process has gone.
pub(crate) async fn stats(client: &mut Client, process: &str) -> Result<Vec<Instance>, Error> {
    let path = format!("/v3/processes/{process}/stats");
    match client.get(&path).await {
        Err(error) if error.status() == Some(404) => Ok(Vec::new()),
        answer => {
            let found = answer?.get_mut("resources").map(Value::take);
            read(found.unwrap_or_default(), &path)
        }
    }
}

/// `1/2`.
pub(crate) fn count(stats: &[Instance]) -> String {
    let running = stats.iter().filter(|instance| instance.state == "RUNNING").count();
    format!("{running}/{}", stats.len())
}

/// The URLs of an app.
pub(crate) async fn routes(client: &mut Client, app: &str) -> Result<Vec<String>, Error> {
    #[derive(Deserialize)]
    struct Route {
        url: String,
    }
    let routes: Vec<Route> = client.list(&format!("/v3/apps/{app}/routes")).await?;
    Ok(routes.into_iter().map(|route| route.url).collect())
}

/// Prints all there is to say of an app.
pub(crate) async fn say(client: &mut Client, app: &App, commands: bool) -> Result<(), Error> {
    let seen = client.get(&format!("/v3/apps/{}", app.guid)).await?;
    let droplet = match client.get(&format!("/v3/apps/{}/droplets/current", app.guid)).await {
        Err(error) if error.status() == Some(404) => Value::Null,
        answer => answer?,
    };
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    say::fields(&[
        ("name", app.name.clone()),
        ("requested state", text(&seen["state"]).to_lowercase()),
        ("routes", routes(client, &app.guid).await?.join(", ")),
        ("last uploaded", say::date(&text(&droplet["created_at"]))),
        ("stack", text(&droplet["stack"])),
        ("buildpacks", String::new()),
    ]);
    let buildpacks = droplet["buildpacks"].as_array().cloned().unwrap_or_default();
    if !buildpacks.is_empty() {
        let head = ["name", "version", "detect output", "buildpack name"].map(String::from);
        let mut rows = vec![head.to_vec()];
        rows.extend(buildpacks.iter().map(|buildpack| {
            ["name", "version", "detect_output", "buildpack_name"]
                .map(|key| text(&buildpack[key]))
                .to_vec()
        }));
        say::table(&rows, "\t");
    }
    for process in processes(client, &app.guid).await? {
        say_process(client, process, commands).await?;
    }
    Ok(())
}

async fn say_process(client: &mut Client, process: Process, commands: bool) -> Result<(), Error> {
    let stats = stats(client, &process.guid).await?;
    println!();
    let mut fields = vec![
        ("type", process.kind.clone()),
        ("sidecars", String::new()),
        ("instances", count(&stats)),
        ("memory usage", format!("{}M", process.memory_in_mb)),
    ];
    if commands {
        // Lists do not show it: it may hold secrets.
        let whole = client.get(&format!("/v3/processes/{}", process.guid)).await?;
        let command = whole["command"].as_str().map(ToOwned::to_owned).or(process.command);
        fields.extend(command.map(|command| ("start command", command)));
    }
    say::fields(&fields);
    if stats.is_empty() {
        println!("There are no running instances of this process.");
        return Ok(());
    }
    let head =
        ["", "state", "since", "cpu entitlement", "memory", "disk", "logging", "details", "ready"];
    let mut rows = vec![head.map(String::from).to_vec()];
    rows.extend(stats.iter().map(|instance| {
        let usage = instance.usage.clone().unwrap_or_default();
        let of = |used, quota| format!("{} of {}", say::size(used), say::size(quota));
        let log_limit = match u64::try_from(instance.log_rate_limit) {
            Ok(limit) => format!("{}/s", say::size(limit)),
            Err(_) => "unlimited".into(),
        };
        vec![
            format!("#{}", instance.index),
            instance.state.to_lowercase(),
            say::since(instance.uptime),
            usage.cpu_entitlement.map_or_else(String::new, |part| format!("{:.1}%", part * 100.0)),
            of(usage.mem, instance.mem_quota),
            of(usage.disk, instance.disk_quota),
            format!("{}/s of {log_limit}", say::size(usage.log_rate)),
            instance.details.clone().unwrap_or_default(),
            instance.routable.map_or_else(String::new, |ready| ready.to_string()),
        ]
    }));
    say::table(&rows, "");
    Ok(())
}
