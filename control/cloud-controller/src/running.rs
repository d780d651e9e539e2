//! Keeps the runtime in agreement with the database, one app at a time and all of them every 30 s.
//!
//! The database is the truth. A change is committed first and then carried to the runtime; when that
//! does not answer, the change is not lost, since the next sync compares everything.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::{Map, Value};
use sqlx::SqliteConnection;

use crate::CloudController;
use crate::config::Config;
use crate::env::{self, Home, ProcessPart};
use crate::recipe::{Check, Download, Place, RouteRecipe, RunRecipe, SidecarRecipe};
use crate::runtime::RuntimeError;
use crate::store::apps::App;
use crate::store::orgs::{Org, Space};
use crate::store::packages::Droplet;
use crate::store::processes::{HealthCheck, Process};
use crate::store::select::by_guid;
use crate::store::settings::SecurityGroup;
use crate::store::{processes, routes, settings};

/// Port that apps listen on.
pub(crate) const APP_PORT: u16 = 8080;
/// Between two comparisons of everything.
const SYNC_EVERY: Duration = Duration::from_secs(30);

/// Brings the runtime to what the database wants of an app. `gone` are processes, by their names at
/// the runtime, that are wanted no longer. What fails is logged and left to the next sync.
pub(crate) async fn settle(controller: &CloudController, app_guid: &str, gone: &[String]) {
    let recipes = async {
        let mut conn = controller.store.read().await?;
        let mut recipes = Vec::new();
        for process in processes::of_app(&mut conn, app_guid).await? {
            recipes.push((
                process.process_guid(),
                recipe(&mut conn, &controller.config, &process).await?,
            ));
        }
        Ok::<_, sqlx::Error>(recipes)
    };
    let recipes = match recipes.await {
        Ok(recipes) => recipes,
        Err(err) => {
            tracing::error!(app = app_guid, error = %err, "cannot read what an app should run");
            return;
        }
    };
    for (process_guid, recipe) in recipes {
        match recipe {
            Some(recipe) => run(controller, &recipe).await,
            None => stop(controller, &[process_guid]).await,
        }
    }
    stop(controller, gone).await;
}

async fn run(controller: &CloudController, recipe: &RunRecipe) {
    let done: Result<(), RuntimeError> = async {
        if !controller.runtime.update(recipe).await? {
            controller.runtime.desire(recipe).await?;
        }
        Ok(())
    }
    .await;
    if let Err(err) = done {
        tracing::warn!(process = %recipe.process_guid, error = %err, "left to the next sync");
    }
}

/// Wants these no longer, by their names at the runtime.
pub(crate) async fn stop(controller: &CloudController, gone: &[String]) {
    for process_guid in gone {
        if let Err(err) = controller.runtime.stop(process_guid).await {
            tracing::warn!(process = %process_guid, error = %err, "left to the next sync");
        }
    }
}

/// What the runtime must know to run a process; `None` if it is not to run.
pub(crate) async fn recipe(
    conn: &mut SqliteConnection,
    config: &Config,
    process: &Process,
) -> Result<Option<RunRecipe>, sqlx::Error> {
    let Some(app) = by_guid::<App>(conn, "apps", &process.app_guid).await? else { return Ok(None) };
    let Some(droplet_guid) = app.droplet_guid.clone().filter(|_| app.started()) else {
        return Ok(None);
    };
    if process.instances < 1 {
        return Ok(None);
    }
    let Some(droplet) = by_guid::<Droplet>(conn, "droplets", &droplet_guid).await? else {
        return Ok(None);
    };
    let Some(place) = place(conn, &app).await? else { return Ok(None) };
    let mappings = routes::mappings(conn, &app.guid, &process.r#type).await?;
    let group = environment_group(conn, "running").await?;
    let stack = droplet.stack.clone().unwrap_or_else(|| config.default_stack().to_owned());
    let rootfs = match settings::stack(conn, &stack).await? {
        Some(known) => known.run_rootfs,
        None => stack.clone(),
    };
    let home = home(config, &place);
    let part =
        ProcessPart { guid: &process.guid, kind: &process.r#type, version: &process.version };
    let limits = Some((process.memory_mb, process.disk_mb));
    let vcap = env::vcap_application(&home, limits, &env::uris(&mappings), Some(part));
    // The original gives every process type of an app a port if routes lead to it.
    let ports = match process.r#type == "web" || !mappings.is_empty() {
        true => vec![APP_PORT],
        false => Vec::new(),
    };
    let env = env::running(&group, &app.env(), &vcap, process.memory_mb, ports.first().copied());
    let droplet_command = droplet.process_types();
    let droplet_command = droplet_command.get(&process.r#type).and_then(Value::as_str);
    let command = process.command.as_deref().or(droplet_command).unwrap_or_default().to_owned();
    let sidecars = processes::sidecars(conn, &app.guid).await?;
    let (health, readiness) = (process.health(), process.readiness());
    let recipe = RunRecipe {
        process_guid: process.process_guid(),
        guid: process.guid.clone(),
        kind: process.r#type.clone(),
        rootfs,
        stack,
        command,
        execution_metadata: droplet.execution_metadata.clone(),
        user: process.user.clone().unwrap_or_else(|| "vcap".into()),
        droplet: Download {
            url: format!(
                "{}/internal/v2/droplets/{}/{}/download",
                config.internal_url,
                app.guid,
                droplet.sha256.as_deref().unwrap_or_default()
            ),
            sha256: droplet.sha256.clone(),
        },
        sidecars: sidecars
            .into_iter()
            .filter(|sidecar| sidecar.process_types().contains(&process.r#type))
            .map(|sidecar| SidecarRecipe {
                name: sidecar.name,
                command: sidecar.command,
                memory_mb: sidecar.memory_mb,
            })
            .collect(),
        environment: env,
        instances: u32::try_from(process.instances).unwrap_or(u32::MAX),
        memory_mb: process.memory_mb,
        disk_mb: process.disk_mb,
        log_rate: process.log_rate,
        start_timeout: health.timeout.unwrap_or(config.default_health_check_timeout),
        health: check(health),
        readiness: check(readiness),
        routes: mappings
            .iter()
            .map(|mapping| RouteRecipe {
                url: mapping.url(),
                port: u16::try_from(mapping.port).unwrap_or(APP_PORT),
                protocol: mapping.protocol.clone(),
                internal: mapping.internal,
                options: serde_json::from_str(&mapping.options).unwrap_or_default(),
            })
            .collect(),
        ports,
        egress: egress(conn, "running").await?,
        annotation: annotation(process.updated_at),
        place,
    };
    Ok(Some(recipe))
}

fn check(check: HealthCheck) -> Check {
    let HealthCheck { kind, endpoint, invocation_timeout, interval, .. } = check;
    Check { kind, endpoint, invocation_timeout, interval }
}

/// Seconds since the epoch with their fraction, as the original writes them.
fn annotation(updated_at: i64) -> String {
    format!("{}.{:06}", updated_at / 1_000_000, updated_at % 1_000_000)
}

/// Names around an app; `None` if it has just been deleted.
pub(crate) async fn place(
    conn: &mut SqliteConnection,
    app: &App,
) -> Result<Option<Place>, sqlx::Error> {
    let Some(space) = by_guid::<Space>(conn, "spaces", &app.space_guid).await? else {
        return Ok(None);
    };
    let Some(org) = by_guid::<Org>(conn, "organizations", &space.org_guid).await? else {
        return Ok(None);
    };
    Ok(Some(Place {
        app_guid: app.guid.clone(),
        app_name: app.name.clone(),
        space_guid: space.guid,
        space_name: space.name,
        org_guid: org.guid,
        org_name: org.name,
    }))
}

pub(crate) fn home<'a>(config: &Config, place: &'a Place) -> Home<'a> {
    Home {
        cf_api: config.url(""),
        app_guid: &place.app_guid,
        app_name: &place.app_name,
        space_guid: &place.space_guid,
        space_name: &place.space_name,
        org_guid: &place.org_guid,
        org_name: &place.org_name,
    }
}

/// The variables of an environment group.
pub(crate) async fn environment_group(
    conn: &mut SqliteConnection,
    name: &str,
) -> Result<Map<String, Value>, sqlx::Error> {
    let vars = settings::environment_group(conn, name).await?;
    Ok(vars.and_then(|(vars, _)| serde_json::from_str(&vars).ok()).unwrap_or_default())
}

/// Rules of all groups that apply to all apps, for `running` or `staging`.
pub(crate) async fn egress(
    conn: &mut SqliteConnection,
    phase: &str,
) -> Result<Vec<Value>, sqlx::Error> {
    let all: Vec<SecurityGroup> =
        sqlx::query_as("SELECT * FROM security_groups ORDER BY id").fetch_all(conn).await?;
    let applies = |group: &SecurityGroup| match phase {
        "staging" => group.staging,
        _ => group.running,
    };
    let rules = all.iter().filter(|group| applies(group));
    Ok(rules
        .flat_map(|group| serde_json::from_str::<Vec<Value>>(&group.rules).unwrap_or_default())
        .collect())
}

/// Compares everything with the runtime until the controller stops.
pub(crate) async fn sync_loop(controller: CloudController) {
    let mut clock = tokio::time::interval(SYNC_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = controller.stop.cancelled() => return,
        }
        if let Err(err) = sync(&controller).await {
            tracing::warn!(error = %err, "cannot compare the runtime with the database");
        }
    }
}

/// Why a comparison was given up.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SyncError {
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
    #[error("{0} processes could not be brought into agreement")]
    Incomplete(usize),
}

/// One comparison: desires what is missing, updates what is older, stops what nobody wants. Only when
/// all of it succeeded is the runtime told that what it knows is complete.
pub(crate) async fn sync(controller: &CloudController) -> Result<(), SyncError> {
    // The runtime is read first: what is desired after this moment is not taken for a stray below,
    // since it is not on the list.
    let known = controller.runtime.desired().await?;
    let mut known: HashMap<String, String> =
        known.into_iter().map(|desired| (desired.process_guid, desired.annotation)).collect();
    let mut conn = controller.store.read().await?;
    let wanted = processes::to_run(&mut conn).await?;
    let mut failed = 0;
    for process in &wanted {
        let Some(recipe) = recipe(&mut conn, &controller.config, process).await? else { continue };
        let done = match known.remove(&recipe.process_guid) {
            Some(annotation) if annotation == recipe.annotation => Ok(()),
            Some(_) => controller.runtime.update(&recipe).await.map(drop),
            None => controller.runtime.desire(&recipe).await,
        };
        if let Err(err) = done {
            tracing::warn!(process = %recipe.process_guid, error = %err, "cannot be synced");
            failed += 1;
        }
    }
    drop(conn);
    for stray in known.keys() {
        if still_wanted(controller, stray).await? {
            continue;
        }
        if let Err(err) = controller.runtime.stop(stray).await {
            tracing::warn!(process = %stray, error = %err, "a stray cannot be stopped");
            failed += 1;
        }
    }
    if failed > 0 {
        return Err(SyncError::Incomplete(failed));
    }
    controller.runtime.bump_freshness().await?;
    Ok(())
}

/// Looks once more before something is stopped: it may have been started meanwhile.
async fn still_wanted(
    controller: &CloudController,
    process_guid: &str,
) -> Result<bool, sqlx::Error> {
    let mut conn = controller.store.read().await?;
    let wanted = processes::to_run(&mut conn).await?;
    Ok(wanted.iter().any(|process| process.process_guid() == process_guid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_annotation_is_a_time_with_a_fraction() {
        assert_eq!(annotation(1_795_219_200_000_042), "1795219200.000042");
    }
}
