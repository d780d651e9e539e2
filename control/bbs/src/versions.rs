//! Records in the forms that older clients understand.
//!
//! Clients of revision 2 do not know image layers: shared ones become cached dependencies, exclusive
//! ones downloads before everything else. Clients of the unrevised event streams do not know cached
//! dependencies either, nor actions that only tell how it goes, and read times in units of their own.

use bbs_models::image_layer::{DigestAlgorithm, Type};
use bbs_models::{
    Action, CachedDependency, DesiredLRP, DownloadAction, Event, ImageLayer, ParallelAction,
    SerialAction, Task,
};

/// A desired LRP without image layers.
pub(crate) fn without_layers(mut lrp: DesiredLRP) -> DesiredLRP {
    let layers = std::mem::take(&mut lrp.image_layers);
    lrp.cached_dependencies = dependencies(&layers, lrp.cached_dependencies);
    let downloads = exclusive(&layers, &lrp.legacy_download_user);
    lrp.setup = before(downloads, lrp.setup.take()).into();
    lrp
}

/// A task without image layers.
pub(crate) fn task_without_layers(mut task: Task) -> Task {
    if let Some(definition) = task.task_definition.as_option_mut() {
        let layers = std::mem::take(&mut definition.image_layers);
        let known = std::mem::take(&mut definition.cached_dependencies);
        definition.cached_dependencies = dependencies(&layers, known);
        let downloads = exclusive(&layers, &definition.legacy_download_user);
        definition.action = before(downloads, definition.action.take()).into();
    }
    task
}

/// An event as the unrevised streams tell it.
pub(crate) fn unrevised(mut event: Event) -> Event {
    match &mut event {
        Event::DesiredLRPCreated(event) => event.desired_lrp.as_option_mut().map(plain),
        Event::DesiredLRPRemoved(event) => event.desired_lrp.as_option_mut().map(plain),
        Event::DesiredLRPChanged(event) => {
            event.before.as_option_mut().map(plain);
            event.after.as_option_mut().map(plain)
        }
        Event::TaskCreated(event) => event.task.as_option_mut().map(drop_layers),
        Event::TaskRemoved(event) => event.task.as_option_mut().map(drop_layers),
        Event::TaskChanged(event) => {
            event.before.as_option_mut().map(drop_layers);
            event.after.as_option_mut().map(drop_layers)
        }
        _ => None,
    };
    event
}

fn plain(lrp: &mut DesiredLRP) {
    *lrp = without_layers(std::mem::take(lrp));
    let cached = std::mem::take(&mut lrp.cached_dependencies);
    let downloads = cached.iter().map(|cached| download(cached, &lrp.legacy_download_user));
    lrp.setup = before(downloads.collect(), lrp.setup.take()).into();
    lrp.deprecated_start_timeout_s = u32::try_from(lrp.start_timeout_ms / 1000).unwrap_or_default();
    for action in [&mut lrp.setup, &mut lrp.action, &mut lrp.monitor] {
        action.as_option_mut().map(plain_action);
    }
}

fn drop_layers(task: &mut Task) {
    *task = task_without_layers(std::mem::take(task));
}

fn plain_action(action: &mut Action) {
    while let Some(inner) =
        action.try_action.as_option_mut().and_then(|r#try| r#try.action.take()).or_else(|| {
            action.emit_progress_action.as_option_mut().and_then(|emit| emit.action.take())
        })
    {
        *action = inner;
    }
    if let Some(timeout) = action.timeout_action.as_option_mut() {
        timeout.deprecated_timeout_ns = timeout.timeout_ms.saturating_mul(1_000_000);
        timeout.action.as_option_mut().map(plain_action);
    }
    let parallel = action.parallel_action.as_option_mut().map(|several| &mut several.actions);
    parallel.into_iter().flatten().for_each(plain_action);
    let serial = action.serial_action.as_option_mut().map(|several| &mut several.actions);
    serial.into_iter().flatten().for_each(plain_action);
    let together = action.codependent_action.as_option_mut().map(|several| &mut several.actions);
    together.into_iter().flatten().for_each(plain_action);
}

/// What shared layers become, and after it what was there.
fn dependencies(layers: &[ImageLayer], known: Vec<CachedDependency>) -> Vec<CachedDependency> {
    let shared = layers.iter().filter(|layer| layer.layer_type == Type::SHARED);
    let made = shared.map(|layer| {
        let (checksum_algorithm, cache_key) = names(layer);
        CachedDependency {
            name: layer.name.clone(),
            from: layer.url.clone(),
            to: layer.destination_path.clone(),
            cache_key,
            checksum_algorithm: checksum_algorithm.into(),
            checksum_value: layer.digest_value.clone(),
            ..Default::default()
        }
    });
    made.chain(known).collect()
}

fn exclusive(layers: &[ImageLayer], user: &str) -> Vec<DownloadAction> {
    let exclusive = layers.iter().filter(|layer| layer.layer_type == Type::EXCLUSIVE);
    let made = exclusive.map(|layer| {
        let (checksum_algorithm, cache_key) = names(layer);
        DownloadAction {
            artifact: layer.name.clone(),
            from: layer.url.clone(),
            to: layer.destination_path.clone(),
            cache_key,
            user: user.into(),
            checksum_algorithm: checksum_algorithm.into(),
            checksum_value: layer.digest_value.clone(),
            ..Default::default()
        }
    });
    made.collect()
}

/// The digest's name, and the key under which the layer is cached.
fn names(layer: &ImageLayer) -> (&'static str, String) {
    let algorithm = match layer.digest_algorithm.as_known() {
        Some(DigestAlgorithm::SHA256) => "sha256",
        Some(DigestAlgorithm::SHA512) => "sha512",
        _ => return ("", layer.url.clone()),
    };
    (algorithm, format!("{algorithm}:{}", layer.digest_value))
}

/// Checksums of cached dependencies were not told to the oldest clients.
fn download(cached: &CachedDependency, user: &str) -> DownloadAction {
    DownloadAction {
        artifact: cached.name.clone(),
        from: cached.from.clone(),
        to: cached.to.clone(),
        cache_key: cached.cache_key.clone(),
        log_source: cached.log_source.clone(),
        user: user.into(),
        ..Default::default()
    }
}

/// An action that downloads first, all at once.
fn before(downloads: Vec<DownloadAction>, then: Option<Action>) -> Option<Action> {
    if downloads.is_empty() {
        return then;
    }
    let one = |download: DownloadAction| Action {
        download_action: download.into(),
        ..Default::default()
    };
    let parallel =
        ParallelAction { actions: downloads.into_iter().map(one).collect(), ..Default::default() };
    let downloads = Action { parallel_action: parallel.into(), ..Default::default() };
    match then {
        None => Some(downloads),
        Some(then) => {
            let serial = SerialAction { actions: vec![downloads, then], ..Default::default() };
            Some(Action { serial_action: serial.into(), ..Default::default() })
        }
    }
}
