//! From a package to a droplet: what the runtime is asked to do, and what its answer means.

use std::time::Duration;

use blobstore::Bucket;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sqlx::SqliteConnection;

use crate::CloudController;
use crate::config::Config;
use crate::deletion;
use crate::env;
use crate::error::ApiError;
use crate::recipe::{BuildpackRecipe, Download, StagingRecipe};
use crate::resources::apps::is_git_address;
use crate::running::{egress, environment_group, home, place};
use crate::store::apps::App;
use crate::store::packages::{self, Build, Package};
use crate::store::select::by_guid;
use crate::store::{buildpacks, routes, settings};
use crate::time;

/// Between two looks for builds whose end nobody told.
const SWEEP_EVERY: Duration = Duration::from_secs(30);

/// What the runtime must know to stage a build; `None` if its app or package is gone.
pub(crate) async fn recipe(
    conn: &mut SqliteConnection,
    config: &Config,
    build: &Build,
    cache: bool,
) -> Result<Option<StagingRecipe>, sqlx::Error> {
    let Some(app) = by_guid::<App>(conn, "apps", &build.app_guid).await? else { return Ok(None) };
    let Some(package) = by_guid::<Package>(conn, "packages", &build.package_guid).await? else {
        return Ok(None);
    };
    let Some(place) = place(conn, &app).await? else { return Ok(None) };
    let stack = build.stack.clone().unwrap_or_else(|| config.default_stack().to_owned());
    let rootfs = match settings::stack(conn, &stack).await? {
        Some(known) => known.build_rootfs,
        None => stack.clone(),
    };
    let chosen = build.buildpacks();
    let internal = &config.internal_url;
    let installed = buildpacks::all(conn).await?;
    let mut usable = Vec::new();
    let fits = |buildpack: &buildpacks::Buildpack| {
        buildpack.enabled && buildpack.stack.as_ref().is_none_or(|own| *own == stack)
    };
    let admin = |buildpack: &buildpacks::Buildpack| {
        Some(BuildpackRecipe::Admin {
            key: buildpack.key()?,
            name: buildpack.name.clone(),
            file: Download {
                url: format!("{internal}/internal/v2/buildpacks/{}/download", buildpack.guid),
                sha256: buildpack.sha256.clone(),
            },
        })
    };
    if chosen.is_empty() {
        usable.extend(installed.iter().filter(|one| fits(one)).filter_map(admin));
    }
    for name in &chosen {
        let known = installed.iter().find(|one| one.name == *name && fits(one));
        match known.and_then(admin) {
            Some(found) => usable.push(found),
            None if is_git_address(name) => usable.push(BuildpackRecipe::Url(name.clone())),
            None => {}
        }
    }
    let mappings = routes::mappings(conn, &app.guid, "web").await?;
    let home = home(config, &place);
    let limits = Some((build.memory_mb, build.disk_mb));
    let vcap = env::vcap_application(&home, limits, &env::uris(&mappings), None);
    let group = environment_group(conn, "staging").await?;
    let environment = env::staging(&group, &app.env(), &vcap, build.memory_mb, &stack);
    let (build_guid, app_guid) = (&build.guid, &app.guid);
    Ok(Some(StagingRecipe {
        build_guid: build_guid.clone(),
        rootfs,
        package: Download {
            url: with_auth(config, &format!("/staging/packages/{}", package.guid)),
            sha256: package.sha256.clone(),
        },
        cache: cache.then(|| Download {
            url: with_auth(
                config,
                &format!("/staging/v3/buildpack_cache/{stack}/{app_guid}/download"),
            ),
            sha256: None,
        }),
        buildpacks: usable,
        skip_detect: !chosen.is_empty(),
        environment,
        memory_mb: build.memory_mb,
        disk_mb: build.disk_mb,
        log_rate: build.log_rate,
        timeout: config.staging.timeout_in_seconds,
        file_descriptors: config.staging.minimum_staging_file_descriptor_limit,
        egress: egress(conn, "staging").await?,
        droplet_upload: with_auth(config, &format!("/v1/droplet/{build_guid}")),
        cache_upload: with_auth(config, &format!("/v1/build_artifacts/{app_guid}?stack={stack}")),
        completion: with_auth(
            config,
            &format!("/internal/v3/staging/{build_guid}/build_completed?start=false"),
        ),
        stack,
        place,
    }))
}

/// An internal address with the name and password that it asks for.
fn with_auth(config: &Config, path: &str) -> String {
    let auth = &config.staging.auth;
    let encode = |text: &str| {
        percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
    };
    match config.internal_url.split_once("://") {
        Some((scheme, rest)) if !auth.user.is_empty() => {
            format!("{scheme}://{}:{}@{rest}{path}", encode(&auth.user), encode(&auth.password.0))
        }
        _ => format!("{}{path}", config.internal_url),
    }
}

/// What the runtime tells at the end of a staging task.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Completion {
    #[serde(default)]
    pub failed: bool,
    #[serde(default)]
    pub failure_reason: String,
    /// The builder's `result.json`, as a text.
    #[serde(default)]
    pub result: String,
}

/// What the builder made.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct Staged {
    pub lifecycle_metadata: LifecycleMetadata,
    pub process_types: Map<String, Value>,
    pub execution_metadata: String,
    pub sidecars: Vec<Value>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct LifecycleMetadata {
    pub buildpack_key: String,
    pub detected_buildpack: String,
    pub buildpacks: Vec<UsedBuildpack>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct UsedBuildpack {
    pub key: String,
    pub name: String,
    pub version: String,
}

/// Reads a completion: what was made, or the build's error.
pub(crate) fn read(completion: &Completion, has_command: bool) -> Result<Staged, String> {
    if completion.failed {
        return Err(failure(&completion.failure_reason));
    }
    let staged: Staged = serde_json::from_str(&completion.result)
        .map_err(|_| "StagerError - Malformed message from Diego stager".to_owned())?;
    if staged.process_types.is_empty() && !has_command {
        return Err("StagingError - Start command not specified".into());
    }
    Ok(staged)
}

/// The error of a build from a task's failure, by the exit code at its end or by its first words.
fn failure(reason: &str) -> String {
    let code: String = reason.chars().rev().take_while(char::is_ascii_digit).collect();
    let code: String = code.chars().rev().collect();
    let (id, text) = match &*code {
        "222" => (
            "NoAppDetectedError",
            "An app was not successfully detected by any available buildpack",
        ),
        "223" => ("BuildpackCompileFailed", "App staging failed in the buildpack compile phase"),
        "224" => ("BuildpackReleaseFailed", "App staging failed in the buildpack release phase"),
        _ if reason.starts_with("insufficient resources") => {
            ("InsufficientResources", "Insufficient resources")
        }
        _ if reason.contains("found no compatible cell") => {
            ("NoCompatibleCell", "Found no compatible cell")
        }
        _ if reason.starts_with("unable to communicate to compatible cells") => {
            ("CellCommunicationError", "Unable to communicate to compatible cells")
        }
        _ => ("StagingError", "Staging error: staging failed"),
    };
    format!("{id} - {text}")
}

/// `buildpacks` of a droplet, with the names by which an administrator knows them.
async fn used(conn: &mut SqliteConnection, staged: &Staged) -> Result<Value, sqlx::Error> {
    let installed = buildpacks::all(conn).await?;
    let metadata = &staged.lifecycle_metadata;
    let last = metadata.buildpacks.len().saturating_sub(1);
    let shown = metadata.buildpacks.iter().enumerate().map(|(index, one)| {
        let known = installed.iter().find(|known| known.key().as_ref() == Some(&one.key));
        // Only the last one detects.
        let detected = (index == last).then_some(&metadata.detected_buildpack);
        json!({
            "name": known.map_or(&one.key, |known| &known.name),
            "detect_output": detected.filter(|text| !text.is_empty()).unwrap_or(&one.name),
            "buildpack_name": one.name,
            "version": one.version,
        })
    });
    Ok(shown.collect())
}

/// Ends a build by what the runtime tells. A second completion, or one that comes too late, changes
/// nothing.
pub(crate) async fn complete(
    controller: &CloudController,
    build_guid: &str,
    completion: &Completion,
) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    let build: Option<Build> = by_guid(&mut tx, "builds", build_guid).await?;
    let build = build.ok_or_else(|| ApiError::not_found("Build"))?;
    let command: Option<String> = sqlx::query_scalar(
        "SELECT command FROM processes WHERE app_guid = ? AND type = 'web' AND command IS NOT NULL",
    )
    .bind(&build.app_guid)
    .fetch_optional(&mut *tx)
    .await?;
    let uploaded: Option<String> =
        sqlx::query_scalar("SELECT sha256 FROM droplets WHERE guid = ? AND sha256 IS NOT NULL")
            .bind(&build.droplet_guid)
            .fetch_optional(&mut *tx)
            .await?;
    let staged = read(completion, command.is_some());
    let staged = match staged {
        Ok(_) if uploaded.is_none() => {
            Err("StagingError - Staging error: the droplet was not uploaded".to_owned())
        }
        other => other,
    };
    let error = staged.as_ref().err().cloned();
    if !packages::end_build(&mut tx, build_guid, error.as_deref()).await? {
        return Ok(());
    }
    let mut expired = Vec::new();
    match &staged {
        Ok(staged) => {
            let used = used(&mut tx, staged).await?;
            let mut types = staged.process_types.clone();
            if types.is_empty()
                && let Some(command) = command
            {
                types.insert("web".into(), command.into());
            }
            let droplet = &build.droplet_guid;
            let sidecars = json!(staged.sidecars);
            let metadata = &staged.execution_metadata;
            packages::droplet_staged(&mut tx, droplet, &used, metadata, &types, &sidecars).await?;
            let most = controller.config.packages.max_staged_droplets_stored;
            expired = packages::expire_droplets(&mut tx, &build.app_guid, most).await?;
        }
        Err(error) => packages::droplet_failed(&mut tx, &build.droplet_guid, error).await?,
    }
    tx.commit().await?;
    controller.waiting.changed(build_guid);
    if let Some(error) = &error {
        controller.logs.api(&build.app_guid, format!("Failed to stage build: {error}"));
    }
    for droplet in expired {
        deletion::drop_blob(controller, Bucket::Droplets, droplet.key()).await;
    }
    Ok(())
}

/// Hands a build to the runtime. What it refuses has failed.
pub(crate) async fn begin(controller: &CloudController, build: &Build) -> Result<(), ApiError> {
    let cache_key = blobstore::Key::new(
        Bucket::BuildpackCache,
        &format!("{}/{}", build.app_guid, build.stack.as_deref().unwrap_or_default()),
    );
    let cache = match cache_key {
        Some(key) => controller.blobs.size(&key).await?.is_some(),
        None => false,
    };
    let mut conn = controller.store.read().await?;
    let recipe = recipe(&mut conn, &controller.config, build, cache).await?;
    drop(conn);
    let Some(recipe) = recipe else { return Ok(()) };
    if let Err(err) = controller.runtime.stage(&recipe).await {
        tracing::warn!(build = %build.guid, error = %err, "staging cannot begin");
        fail(controller, build, "StagerUnavailable - Stager is unavailable").await?;
    }
    Ok(())
}

async fn fail(controller: &CloudController, build: &Build, error: &str) -> Result<(), ApiError> {
    let mut tx = controller.store.begin().await?;
    if packages::end_build(&mut tx, &build.guid, Some(error)).await? {
        packages::droplet_failed(&mut tx, &build.droplet_guid, error).await?;
    }
    tx.commit().await?;
    controller.waiting.changed(&build.guid);
    Ok(())
}

/// Fails builds that take too long, and those that the runtime does not know: a crash of ours may
/// have come between writing a build down and handing it over.
pub(crate) async fn sweep(controller: &CloudController) -> Result<(), ApiError> {
    let mut conn = controller.store.read().await?;
    let builds = packages::staging_builds(&mut conn).await?;
    drop(conn);
    if builds.is_empty() {
        return Ok(());
    }
    let known = controller.runtime.staging().await;
    let limit = i64::from(controller.config.staging.timeout_in_seconds) * 1_000_000;
    for build in builds {
        let age = time::now() - build.updated_at;
        // A completion may be on its way to us while the runtime has forgotten the task.
        let lost =
            age > 60_000_000 && known.as_ref().is_ok_and(|known| !known.contains(&build.guid));
        if age > limit || lost {
            fail(controller, &build, "StagingTimeExpired - Staging time expired").await?;
            if let Err(err) = controller.runtime.cancel(&build.guid).await {
                tracing::debug!(build = %build.guid, error = %err, "nothing to cancel");
            }
        }
    }
    Ok(())
}

/// Sweeps until the controller stops.
pub(crate) async fn sweep_loop(controller: CloudController) {
    let mut clock = tokio::time::interval(SWEEP_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = clock.tick() => {}
            () = controller.stop.cancelled() => return,
        }
        if let Err(err) = sweep(&controller).await {
            tracing::warn!(error = %err, "cannot look after builds");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_have_the_words_that_clients_know() {
        for (reason, id) in [
            ("Exited with status 222", "NoAppDetectedError"),
            ("Exited with status 223", "BuildpackCompileFailed"),
            ("Exited with status 224", "BuildpackReleaseFailed"),
            ("Exited with status 225", "StagingError"),
            ("insufficient resources: memory", "InsufficientResources"),
            ("found no compatible cell", "NoCompatibleCell"),
            ("unable to communicate to compatible cells", "CellCommunicationError"),
            ("", "StagingError"),
        ] {
            assert!(failure(reason).starts_with(&format!("{id} - ")), "{reason}");
        }
        let text = failure("staging failed: Exited with status 222");
        assert_eq!(
            text,
            "NoAppDetectedError - An app was not successfully detected by any available buildpack"
        );
    }

    #[test]
    fn a_result_needs_a_command_from_somewhere() {
        let completion = |result: &str| Completion {
            failed: false,
            failure_reason: String::new(),
            result: result.into(),
        };
        let staged = r#"{"process_types":{"web":"run"},"lifecycle_type":"buildpack",
            "lifecycle_metadata":{"detected_buildpack":"x","buildpack_key":"k",
            "buildpacks":[{"key":"k","name":"n","version":"1"}]},"execution_metadata":""}"#;
        let staged = read(&completion(staged), false).unwrap();
        assert_eq!(staged.process_types["web"], "run");
        assert_eq!(staged.lifecycle_metadata.buildpacks[0].version, "1");
        assert!(read(&completion(r#"{"process_types":{}}"#), false).is_err());
        assert!(read(&completion(r#"{"process_types":{}}"#), true).is_ok());
        let malformed = read(&completion("nonsense"), true).unwrap_err();
        assert!(malformed.contains("Malformed message from Diego stager"));
    }
}
