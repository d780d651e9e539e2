//! From what the BBS wants to what the executor runs.

use std::collections::BTreeMap;

use bbs_models::image_layer::{DigestAlgorithm, MediaType, Type as LayerType};
use bbs_models::{
    Action, CachedDependency, DesiredLRP, DownloadAction, ImageLayer, LogRateLimit, MetricTagValue,
    Network, ParallelAction, SerialAction, Task, VolumeMount,
};
use executor::{Instance, LogConfig, RunInfo, resolve_tags};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use rep_api::InternalRoute;

use crate::root_fs::{self, RootFses};

/// The route group whose names others inside the platform use.
const INTERNAL_ROUTER: &str = "internal-router";

/// What this cell cannot run, though it was given the work.
#[derive(Debug, thiserror::Error)]
pub enum Unfit {
    /// It has not got the root file system.
    #[error("failed to create container: {0}")]
    RootFs(#[from] root_fs::Unknown),
    /// Volumes are not served; the original says this of a volume that it cannot mount.
    #[error("failed to mount volume: this cell has no volume driver {0:?}")]
    Volume(String),
}

/// How image layers come into a container.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Layering {
    /// They are downloaded into it.
    #[default]
    Single,
    /// The first one is laid over a preloaded root file system by Garden, where it can be.
    Two,
}

/// What turns definitions into what is run.
#[derive(Clone, Debug, Default)]
pub struct Recipes {
    /// The cell's.
    pub root_fses: RootFses,
    /// The cell's.
    pub layering: Layering,
}

impl Recipes {
    /// An instance of a process.
    pub fn lrp(&self, desired: &DesiredLRP, guid: &str, index: i32) -> Result<RunInfo, Unfit> {
        let instance = Instance { guid: guid.to_owned(), index };
        let layers = self.layers(&desired.root_fs, &desired.image_layers);
        refuse_volumes(&desired.volume_mounts)?;
        let metric_tags = resolve_tags(&desired.metric_tags, &instance);
        Ok(RunInfo {
            rootfs: self.root_fses.image(&layers.root_fs)?,
            image_username: desired.image_username.clone(),
            image_password: desired.image_password.clone(),
            privileged: desired.privileged,
            cpu_weight: desired.cpu_weight,
            ports: desired.ports.clone(),
            env: desired.environment_variables.clone(),
            setup: layers.setup(&desired.legacy_download_user, desired.setup.as_option()),
            action: desired.action.clone().into_option(),
            monitor: desired.monitor.clone().into_option(),
            check_definition: desired.check_definition.clone().into_option(),
            sidecars: desired.sidecars.clone(),
            start_timeout_ms: u64::try_from(desired.start_timeout_ms).unwrap_or(0),
            egress_rules: desired.egress_rules.clone(),
            cached_dependencies: layers.dependencies(&desired.cached_dependencies),
            volume_mounted_files: desired.volume_mounted_files.clone(),
            network_properties: properties(desired.network.as_option()),
            log: LogConfig {
                guid: desired.log_guid.clone(),
                index,
                source_name: desired.log_source.clone(),
                tags: metric_tags.clone(),
            },
            log_rate_limit: log_rate(desired.log_rate_limit.as_option()),
            metric_tags,
            organizational_units: desired.certificate_properties.organizational_unit.clone(),
            internal_routes: internal_routes(desired),
            result_file: String::new(),
            trusted_system_certificates_path: desired.trusted_system_certificates_path.clone(),
            instance: Some(instance),
        })
    }

    /// A task.
    pub fn task(&self, task: &Task) -> Result<RunInfo, Unfit> {
        let definition = &task.task_definition;
        let layers = self.layers(&definition.root_fs, &definition.image_layers);
        refuse_volumes(&definition.volume_mounts)?;
        let metric_tags = task_tags(&definition.metric_tags);
        Ok(RunInfo {
            rootfs: self.root_fses.image(&layers.root_fs)?,
            image_username: definition.image_username.clone(),
            image_password: definition.image_password.clone(),
            privileged: definition.privileged,
            cpu_weight: definition.cpu_weight,
            env: definition.environment_variables.clone(),
            setup: layers.setup(&definition.legacy_download_user, None),
            action: definition.action.clone().into_option(),
            egress_rules: definition.egress_rules.clone(),
            cached_dependencies: layers.dependencies(&definition.cached_dependencies),
            volume_mounted_files: definition.volume_mounted_files.clone(),
            network_properties: properties(definition.network.as_option()),
            log: LogConfig {
                guid: definition.log_guid.clone(),
                index: 0,
                source_name: definition.log_source.clone(),
                tags: metric_tags.clone(),
            },
            log_rate_limit: log_rate(definition.log_rate_limit.as_option()),
            metric_tags,
            organizational_units: definition.certificate_properties.organizational_unit.clone(),
            result_file: definition.result_file.clone(),
            trusted_system_certificates_path: definition.trusted_system_certificates_path.clone(),
            ..RunInfo::default()
        })
    }

    fn layers<'a>(&self, root_fs: &str, layers: &'a [ImageLayer]) -> Layers<'a> {
        let over = |layer: &ImageLayer| {
            layer.layer_type == LayerType::EXCLUSIVE
                && layer.media_type == MediaType::TGZ
                && layer.digest_algorithm == DigestAlgorithm::SHA256
        };
        let stack = root_fs.strip_prefix("preloaded:");
        match (self.layering, stack, layers.iter().position(over)) {
            (Layering::Two, Some(stack), Some(first)) => {
                let layer = &layers[first];
                let escaped = |text| utf8_percent_encode(text, NON_ALPHANUMERIC);
                let root_fs = format!(
                    "preloaded+layer:{stack}?layer={}&layer_path={}&layer_digest={}",
                    escaped(&layer.url),
                    escaped(&layer.destination_path),
                    escaped(&layer.digest_value),
                );
                let rest = layers.iter().enumerate().filter(|(place, _)| *place != first);
                Layers { root_fs, rest: rest.map(|(_, layer)| layer).collect() }
            }
            _ => Layers { root_fs: root_fs.to_owned(), rest: layers.iter().collect() },
        }
    }
}

/// A root file system, and the layers that are not part of it.
struct Layers<'a> {
    root_fs: String,
    rest: Vec<&'a ImageLayer>,
}

impl Layers<'_> {
    fn of_kind(&self, kind: LayerType) -> impl Iterator<Item = &ImageLayer> {
        self.rest.iter().copied().filter(move |layer| layer.layer_type == kind)
    }

    /// Layers that many containers share are fetched once per cell.
    fn dependencies(&self, further: &[CachedDependency]) -> Vec<CachedDependency> {
        let shared = self.of_kind(LayerType::SHARED).map(|layer| CachedDependency {
            name: layer.name.clone(),
            from: layer.url.clone(),
            to: layer.destination_path.clone(),
            cache_key: cache_key(layer),
            checksum_algorithm: algorithm(layer).into(),
            checksum_value: layer.digest_value.clone(),
            ..CachedDependency::default()
        });
        shared.chain(further.iter().cloned()).collect()
    }

    /// A container's own layers are downloaded before anything else of its setup.
    fn setup(&self, user: &str, further: Option<&Action>) -> Option<Action> {
        let downloads: Vec<Action> = self
            .of_kind(LayerType::EXCLUSIVE)
            .map(|layer| {
                let download = DownloadAction {
                    artifact: layer.name.clone(),
                    from: layer.url.clone(),
                    to: layer.destination_path.clone(),
                    cache_key: cache_key(layer),
                    user: user.to_owned(),
                    checksum_algorithm: algorithm(layer).into(),
                    checksum_value: layer.digest_value.clone(),
                    ..DownloadAction::default()
                };
                Action { download_action: download.into(), ..Action::default() }
            })
            .collect();
        if downloads.is_empty() {
            return further.cloned();
        }
        let parallel = ParallelAction { actions: downloads, ..ParallelAction::default() };
        let parallel = Action { parallel_action: parallel.into(), ..Action::default() };
        let actions = std::iter::once(parallel).chain(further.cloned()).collect();
        let serial = SerialAction { actions, ..SerialAction::default() };
        Some(Action { serial_action: serial.into(), ..Action::default() })
    }
}

fn algorithm(layer: &ImageLayer) -> &'static str {
    match layer.digest_algorithm.as_known() {
        Some(DigestAlgorithm::SHA256) => "sha256",
        Some(DigestAlgorithm::SHA512) => "sha512",
        _ => "",
    }
}

fn cache_key(layer: &ImageLayer) -> String {
    if layer.digest_value.is_empty() {
        layer.url.clone()
    } else {
        format!("{}:{}", algorithm(layer), layer.digest_value)
    }
}

fn refuse_volumes(mounts: &[VolumeMount]) -> Result<(), Unfit> {
    mounts.first().map_or(Ok(()), |mount| Err(Unfit::Volume(mount.driver.clone())))
}

fn properties(network: Option<&Network>) -> BTreeMap<String, String> {
    let all = network.map(|network| network.properties.iter());
    all.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Where nothing is said there is no limit.
fn log_rate(limit: Option<&LogRateLimit>) -> i64 {
    limit.map_or(-1, |limit| limit.bytes_per_second)
}

/// A task is no instance of anything, so only what is fixed can be told.
fn task_tags(tags: &BTreeMap<String, MetricTagValue>) -> BTreeMap<String, String> {
    let fixed = tags.iter().filter(|(_, value)| !value.r#static.is_empty());
    fixed.map(|(name, value)| (name.clone(), value.r#static.clone())).collect()
}

/// The process's names inside. Routes are for whoever reads them, so bad ones are passed over.
fn internal_routes(desired: &DesiredLRP) -> Vec<String> {
    let Some(json) = desired.routes.routes.get(INTERNAL_ROUTER) else { return Vec::new() };
    match serde_json::from_slice::<Vec<InternalRoute>>(json) {
        Ok(routes) => routes.into_iter().map(|route| route.hostname).collect(),
        Err(error) => {
            let process = &desired.process_guid;
            tracing::warn!(process, %error, "its internal routes are not readable");
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use bbs_models::metric_tag_value::DynamicValue;
    use bbs_models::{CertificateProperties, ProtoRoutes, RunAction, TaskDefinition};

    use super::*;

    fn recipes(layering: Layering) -> Recipes {
        let preloaded = [("cflinuxfs4".to_owned(), "/stacks/cflinuxfs4".to_owned())].into();
        Recipes { root_fses: RootFses { preloaded, schemes: vec!["docker".into()] }, layering }
    }

    fn run(path: &str) -> Action {
        let run = RunAction { path: path.into(), ..RunAction::default() };
        Action { run_action: run.into(), ..Action::default() }
    }

    fn layer(kind: LayerType, url: &str, digest: &str) -> ImageLayer {
        ImageLayer {
            url: url.into(),
            destination_path: "/home/vcap".into(),
            layer_type: kind.into(),
            media_type: MediaType::TGZ.into(),
            digest_algorithm: if digest.is_empty() {
                DigestAlgorithm::DigestAlgorithmInvalid.into()
            } else {
                DigestAlgorithm::SHA256.into()
            },
            digest_value: digest.into(),
            ..ImageLayer::default()
        }
    }

    fn desired() -> DesiredLRP {
        let tag = |text: &str, dynamic: DynamicValue| MetricTagValue {
            r#static: text.into(),
            dynamic: dynamic.into(),
            ..MetricTagValue::default()
        };
        DesiredLRP {
            process_guid: "web".into(),
            root_fs: "preloaded:cflinuxfs4".into(),
            log_guid: "app".into(),
            log_source: "CELL".into(),
            ports: vec![8080],
            start_timeout_ms: 60_000,
            action: run("/bin/app").into(),
            metric_tags: [
                ("source_id".to_owned(), tag("app", DynamicValue::DynamicValueInvalid)),
                ("instance_id".to_owned(), tag("", DynamicValue::INDEX)),
            ]
            .into(),
            routes: ProtoRoutes {
                routes: [(
                    "internal-router".to_owned(),
                    br#"[{"hostname":"web.apps.internal"}]"#.to_vec(),
                )]
                .into(),
                ..ProtoRoutes::default()
            }
            .into(),
            certificate_properties: CertificateProperties {
                organizational_unit: vec!["app:a".into()],
                ..CertificateProperties::default()
            }
            .into(),
            ..DesiredLRP::default()
        }
    }

    #[test]
    fn an_instance_runs_what_its_process_says() {
        let made = recipes(Layering::Single).lrp(&desired(), "ig-1", 2).unwrap();
        assert_eq!(made.rootfs, "/stacks/cflinuxfs4");
        assert_eq!(made.instance, Some(Instance { guid: "ig-1".into(), index: 2 }));
        assert_eq!(made.metric_tags["instance_id"], "2");
        assert_eq!(made.log.tags, made.metric_tags);
        assert_eq!((made.log.guid.as_str(), made.log.index), ("app", 2));
        assert_eq!(made.log_rate_limit, -1, "no limit where none is given");
        assert_eq!(made.internal_routes, ["web.apps.internal"]);
        assert_eq!(made.organizational_units, ["app:a"]);
        assert_eq!((made.setup, made.action), (None, Some(run("/bin/app"))));
    }

    #[test]
    fn what_the_cell_lacks_is_said() {
        let recipes = recipes(Layering::Single);
        let other = DesiredLRP { root_fs: "preloaded:windows".into(), ..desired() };
        let reason = recipes.lrp(&other, "ig", 0).unwrap_err().to_string();
        assert_eq!(
            reason,
            "failed to create container: this cell has no root file system \"preloaded:windows\""
        );
        let mount = VolumeMount { driver: "nfs".into(), ..VolumeMount::default() };
        let volume = DesiredLRP { volume_mounts: vec![mount], ..desired() };
        let reason = recipes.lrp(&volume, "ig", 0).unwrap_err().to_string();
        assert!(reason.starts_with("failed to mount volume"), "{reason}");
    }

    #[test]
    fn layers_are_shared_or_downloaded() {
        let layered = DesiredLRP {
            image_layers: vec![
                layer(LayerType::SHARED, "http://lifecycle", ""),
                layer(LayerType::EXCLUSIVE, "http://droplet?a=b", "abc"),
            ],
            legacy_download_user: "vcap".into(),
            setup: run("/bin/setup").into(),
            ..desired()
        };
        let single = recipes(Layering::Single).lrp(&layered, "ig", 0).unwrap();
        assert_eq!(single.cached_dependencies.len(), 1);
        assert_eq!(single.cached_dependencies[0].cache_key, "http://lifecycle");
        let setup = single.setup.unwrap();
        let steps = &setup.serial_action.actions;
        let download = &steps[0].parallel_action.actions[0].download_action;
        assert_eq!((download.cache_key.as_str(), download.user.as_str()), ("sha256:abc", "vcap"));
        assert_eq!(steps[1], run("/bin/setup"));

        let two = recipes(Layering::Two).lrp(&layered, "ig", 0).unwrap();
        assert_eq!(
            two.rootfs,
            "preloaded+layer:/stacks/cflinuxfs4?layer=http%3A%2F%2Fdroplet%3Fa%3Db\
             &layer_path=%2Fhome%2Fvcap&layer_digest=abc"
        );
        assert_eq!(two.setup, Some(run("/bin/setup")));
        assert_eq!(two.cached_dependencies.len(), 1);
    }

    #[test]
    fn a_task_has_a_result_and_no_index() {
        let task = Task {
            task_guid: "t".into(),
            task_definition: TaskDefinition {
                root_fs: "docker:///busybox".into(),
                result_file: "/tmp/result".into(),
                action: run("/bin/task").into(),
                metric_tags: desired().metric_tags,
                ..TaskDefinition::default()
            }
            .into(),
            ..Task::default()
        };
        let made = recipes(Layering::Single).task(&task).unwrap();
        assert_eq!(made.rootfs, "docker:///busybox");
        assert_eq!(made.result_file, "/tmp/result");
        assert_eq!(made.instance, None);
        assert_eq!(made.metric_tags, BTreeMap::from([("source_id".into(), "app".into())]));
    }
}
