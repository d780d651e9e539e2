//! Desired LRPs and the requests about them.

use super::metric_tags::MetricTags;
use super::{
    MAXIMUM_ANNOTATION, MAXIMUM_ROUTES, Problems, Validate, has_scheme, images, is_guid, volumes,
};
use crate::generated::models::{
    DesireLRPRequest, DesiredLRP, DesiredLRPByProcessGuidRequest, DesiredLRPUpdate,
    DesiredLRPsRequest, ProtoRoutes, RemoveDesiredLRPRequest, Sidecar, UpdateDesiredLRPRequest,
};

impl Validate for DesiredLRP {
    /// The original checks its record in two parts, so that some problems are named twice.
    fn check(&self, problems: &mut Problems) {
        self.check_schedule(problems);
        self.check_run(problems);
    }
}

impl DesiredLRP {
    fn check_schedule(&self, problems: &mut Problems) {
        problems.invalid_if(self.domain.is_empty(), "domain");
        problems.invalid_if(self.root_fs.is_empty(), "rootfs");
        problems.invalid_if(!has_scheme(&self.root_fs), "rootfs");
        problems.invalid_if(self.instances < 0, "instances");
        problems.invalid_if(self.memory_mb < 0, "memory_mb");
        problems.invalid_if(self.disk_mb < 0, "disk_mb");
        problems.invalid_if(self.has_wrong_log_rate(), "log_rate_limit_bytes_per_second");
        problems.invalid_if(self.annotation.len() > MAXIMUM_ANNOTATION, "annotation");
        problems.invalid_if(self.max_pids < 0, "max_pids");
        problems.invalid_if(are_too_large(&self.routes), "routes");
        if self.metric_tags.is_empty() {
            problems.invalid("metric_tags");
        } else {
            let tags = MetricTags { tags: &self.metric_tags, metrics_guid: &self.metrics_guid };
            problems.within("metric_tags", &tags);
        }
        let large = volumes::are_too_large(&self.volume_mounted_files);
        problems.invalid_if(large, "volumeMountedFiles");
    }

    fn check_run(&self, problems: &mut Problems) {
        problems.invalid_if(self.domain.is_empty(), "domain");
        problems.invalid_if(!is_guid(&self.process_guid), "process_guid");
        if let Some(setup) = self.setup.as_option() {
            problems.within("setup", setup);
        }
        match self.action.as_option() {
            None => problems.say("invalid action type"),
            Some(action) => problems.within("action", action),
        }
        if let Some(monitor) = self.monitor.as_option() {
            problems.within("monitor", monitor);
        }
        for rule in &self.egress_rules {
            problems.within("egress_rules", rule);
        }
        for dependency in &self.cached_dependencies {
            problems.within("cached_dependency", dependency);
        }
        for mount in &self.volume_mounts {
            mount.check(problems);
        }
        images::check_credentials(&self.image_username, &self.image_password, problems);
        if let Some(definition) = self.check_definition.as_option() {
            problems.within("check_definition", definition);
        }
        images::check_layers(&self.image_layers, &self.legacy_download_user, problems);
        for sidecar in &self.sidecars {
            problems.within("sidecars", sidecar);
        }
        problems.invalid_if(self.has_wrong_log_rate(), "log_rate_limit");
        let large = volumes::are_too_large(&self.volume_mounted_files);
        problems.invalid_if(large, "volumeMountedFiles");
    }

    /// -1 means no limit.
    fn has_wrong_log_rate(&self) -> bool {
        self.log_rate_limit.bytes_per_second < -1
    }
}

fn are_too_large(routes: &ProtoRoutes) -> bool {
    routes.routes.values().map(Vec::len).sum::<usize>() > MAXIMUM_ROUTES
}

impl Validate for Sidecar {
    fn check(&self, problems: &mut Problems) {
        match self.action.as_option() {
            None => problems.say("invalid action type"),
            Some(action) => problems.within("action", action),
        }
        problems.invalid_if(self.memory_mb < 0, "memory_mb");
        problems.invalid_if(self.disk_mb < 0, "disk_mb");
    }
}

impl Validate for DesiredLRPUpdate {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.instances.is_some_and(|count| count < 0), "instances");
        let annotation = self.annotation.as_ref();
        problems.invalid_if(annotation.is_some_and(|a| a.len() > MAXIMUM_ANNOTATION), "annotation");
        problems.invalid_if(are_too_large(&self.routes), "routes");
        if !self.metric_tags.is_empty() {
            let tags = MetricTags { tags: &self.metric_tags, metrics_guid: "" };
            problems.within("metric_tags", &tags);
        }
        let (user, password) = (self.image_username.is_some(), self.image_password.is_some());
        problems.invalid_if(!user && password, "image_username");
        problems.invalid_if(user && !password, "image_password");
    }
}

impl Validate for DesireLRPRequest {
    fn check(&self, problems: &mut Problems) {
        match self.desired_lrp.as_option() {
            None => problems.invalid("desired_lrp"),
            Some(lrp) => lrp.check(problems),
        }
    }
}

impl Validate for UpdateDesiredLRPRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.process_guid.is_empty(), "process_guid");
        self.update.check(problems);
    }
}

impl Validate for RemoveDesiredLRPRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.process_guid.is_empty(), "process_guid");
    }
}

impl Validate for DesiredLRPByProcessGuidRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.process_guid.is_empty(), "process_guid");
    }
}

impl Validate for DesiredLRPsRequest {
    fn check(&self, _: &mut Problems) {}
}
