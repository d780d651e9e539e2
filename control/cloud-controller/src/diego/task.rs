//! Staging: a task that fetches a package and buildpacks, runs the builder and sends what it made.

use bbs_models::{
    Action, CachedDependency, EmitProgressAction, LogRateLimit, ParallelAction, RunAction,
    SerialAction, TaskDefinition, TimeoutAction, TryAction, UploadAction,
};
use xxhash_rust::xxh64::xxh64;

use super::Installation;
use super::actions::{
    USER, certificate, download, egress, environment, fetch, lifecycle, limits, network, run, tags,
    upload,
};
use crate::recipe::{BuildpackRecipe, StagingRecipe};

/// Weight of staging containers.
const CPU_WEIGHT: u32 = 50;

/// A build as Diego runs it.
pub fn task_definition(recipe: &StagingRecipe, installation: &Installation) -> TaskDefinition {
    let place = &recipe.place;
    let source = "STG";
    let mut downloads = vec![download(fetch(&recipe.package, "/tmp/app", "", "app package"))];
    if let Some(cache) = &recipe.cache {
        // What was kept is only there to save time.
        let fetch = download(fetch(cache, "/tmp/cache", "", "build artifacts cache"));
        let attempt = TryAction { action: fetch.into(), ..TryAction::default() };
        downloads.push(Action { try_action: attempt.into(), ..Action::default() });
    }
    let downloads = ParallelAction { actions: downloads, ..ParallelAction::default() };
    let builder = run(RunAction {
        path: "/tmp/lifecycle/builder".into(),
        args: arguments(recipe),
        env: environment(&recipe.environment),
        user: USER.into(),
        resource_limits: limits(recipe.file_descriptors).into(),
        ..RunAction::default()
    });
    let uploads = ParallelAction {
        actions: vec![
            upload(UploadAction {
                artifact: "droplet".into(),
                from: "/tmp/droplet".into(),
                to: recipe.droplet_upload.clone(),
                user: USER.into(),
                ..UploadAction::default()
            }),
            upload(UploadAction {
                artifact: "build artifacts cache".into(),
                from: "/tmp/output-cache".into(),
                to: recipe.cache_upload.clone(),
                user: USER.into(),
                ..UploadAction::default()
            }),
        ],
        ..ParallelAction::default()
    };
    let uploads = EmitProgressAction {
        action: Action { parallel_action: uploads.into(), ..Action::default() }.into(),
        start_message: "Uploading droplet, build artifacts cache...".into(),
        success_message: "Uploading complete".into(),
        failure_message_prefix: "Uploading failed".into(),
        ..EmitProgressAction::default()
    };
    let steps = SerialAction {
        actions: vec![
            Action { parallel_action: downloads.into(), ..Action::default() },
            builder,
            Action { emit_progress_action: uploads.into(), ..Action::default() },
        ],
        ..SerialAction::default()
    };
    let whole = TimeoutAction {
        action: Action { serial_action: steps.into(), ..Action::default() }.into(),
        timeout_ms: i64::from(recipe.timeout) * 1000,
        ..TimeoutAction::default()
    };
    TaskDefinition {
        root_fs: format!("preloaded:{}", recipe.rootfs),
        environment_variables: environment(&[("LANG".into(), "en_US.UTF-8".into())]),
        action: Action { timeout_action: whole.into(), ..Action::default() }.into(),
        disk_mb: i32::try_from(recipe.disk_mb).unwrap_or(i32::MAX),
        memory_mb: i32::try_from(recipe.memory_mb).unwrap_or(i32::MAX),
        cpu_weight: CPU_WEIGHT,
        log_source: source.into(),
        log_guid: place.app_guid.clone(),
        metrics_guid: String::new(),
        result_file: "/tmp/result.json".into(),
        completion_callback_url: recipe.completion.clone(),
        annotation: r#"{"lifecycle":"buildpack"}"#.into(),
        egress_rules: egress(&recipe.egress),
        cached_dependencies: dependencies(recipe, installation),
        legacy_download_user: USER.into(),
        trusted_system_certificates_path: installation.trusted_certificates.clone(),
        network: network(place, "staging", &[]).into(),
        max_pids: installation.max_pids,
        certificate_properties: certificate(place).into(),
        metric_tags: tags(place),
        log_rate_limit: LogRateLimit {
            bytes_per_second: recipe.log_rate,
            ..LogRateLimit::default()
        }
        .into(),
        ..TaskDefinition::default()
    }
}

/// Where the builder looks for a buildpack, by the key in its order.
fn directory(key: &str) -> String {
    format!("/tmp/buildpacks/{:016x}", xxh64(key.as_bytes(), 0))
}

fn dependencies(recipe: &StagingRecipe, installation: &Installation) -> Vec<CachedDependency> {
    let mut all = vec![lifecycle(installation, &recipe.stack)];
    for buildpack in &recipe.buildpacks {
        if let BuildpackRecipe::Admin { key, name, file } = buildpack {
            all.push(CachedDependency {
                name: name.clone(),
                from: file.url.clone(),
                to: directory(key),
                cache_key: key.clone(),
                checksum_algorithm: "sha256".into(),
                checksum_value: file.sha256.clone().unwrap_or_default(),
                ..CachedDependency::default()
            });
        }
    }
    all
}

fn arguments(recipe: &StagingRecipe) -> Vec<String> {
    let order: Vec<&str> = recipe
        .buildpacks
        .iter()
        .map(|buildpack| match buildpack {
            BuildpackRecipe::Admin { key, .. } => key.as_str(),
            BuildpackRecipe::Url(url) => url.as_str(),
        })
        .collect();
    vec![
        format!("-buildpackOrder={}", order.join(",")),
        "-skipCertVerify=false".into(),
        format!("-skipDetect={}", recipe.skip_detect),
        "-buildDir=/tmp/app".into(),
        "-outputDroplet=/tmp/droplet".into(),
        "-outputMetadata=/tmp/result.json".into(),
        "-outputBuildArtifactsCache=/tmp/output-cache".into(),
        "-buildpacksDir=/tmp/buildpacks".into(),
        "-buildArtifactsCacheDir=/tmp/cache".into(),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Download, Place};
    use bbs_models::Validate;

    #[test]
    fn a_build_becomes_what_diego_accepts() {
        let file = Download { url: "http://cc/bp".into(), sha256: Some("ff".into()) };
        let recipe = StagingRecipe {
            build_guid: "build".into(),
            place: Place { app_guid: "app".into(), ..Place::default() },
            rootfs: "cflinuxfs4".into(),
            stack: "cflinuxfs4".into(),
            package: Download { url: "http://cc/package".into(), sha256: Some("aa".into()) },
            cache: Some(Download { url: "http://cc/cache".into(), sha256: None }),
            buildpacks: vec![
                BuildpackRecipe::Admin { key: "bp_ff".into(), name: "static".into(), file },
                BuildpackRecipe::Url("https://git.test/bp".into()),
            ],
            skip_detect: true,
            environment: vec![("A".into(), "1".into())],
            memory_mb: 1024,
            disk_mb: 4096,
            log_rate: -1,
            timeout: 900,
            file_descriptors: 16384,
            egress: Vec::new(),
            droplet_upload: "http://cc/v1/droplet/build".into(),
            cache_upload: "http://cc/v1/build_artifacts/app".into(),
            completion: "http://cc/completed".into(),
        };
        let installation = Installation {
            lifecycle_bundle: "http://files/lifecycle.tgz".into(),
            trusted_certificates: String::new(),
            max_pids: 0,
        };
        let task = task_definition(&recipe, &installation);
        task.validate().unwrap();
        let timeout = &task.action.timeout_action;
        assert_eq!(timeout.timeout_ms, 900_000);
        let steps = &timeout.action.serial_action.actions;
        let fetched = &steps[0].parallel_action.actions;
        assert_eq!(fetched[0].download_action.to, "/tmp/app");
        assert_eq!(fetched[1].try_action.action.download_action.to, "/tmp/cache");
        let args = &steps[1].run_action.args;
        assert_eq!(args[0], "-buildpackOrder=bp_ff,https://git.test/bp");
        assert_eq!(args[2], "-skipDetect=true");
        let sent = &steps[2].emit_progress_action.action.parallel_action.actions;
        assert_eq!(sent[0].upload_action.to, "http://cc/v1/droplet/build");
        assert_eq!(task.cached_dependencies[1].to, directory("bp_ff"));
        assert_eq!(task.cached_dependencies[1].to.len(), "/tmp/buildpacks/".len() + 16);
    }
}
