//! Tasks and the requests about them.

use super::metric_tags::MetricTags;
use super::{MAXIMUM_ANNOTATION, Problems, Validate, has_scheme, images, is_guid, volumes};
use crate::generated::models::{
    CompleteTaskRequest, DesireTaskRequest, FailTaskRequest, RejectTaskRequest, StartTaskRequest,
    TaskByGuidRequest, TaskDefinition, TaskGuidRequest, TasksRequest,
};

impl Validate for TaskDefinition {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(!has_scheme(&self.root_fs), "rootfs");
        match self.action.as_option() {
            None => problems.say("invalid action type"),
            Some(action) => problems.within("action", action),
        }
        problems.invalid_if(self.memory_mb < 0, "memory_mb");
        problems.invalid_if(self.disk_mb < 0, "disk_mb");
        problems.invalid_if(self.log_rate_limit.bytes_per_second < -1, "log_rate_limit");
        problems.invalid_if(self.max_pids < 0, "max_pids");
        problems.invalid_if(self.annotation.len() > MAXIMUM_ANNOTATION, "annotation");
        for rule in &self.egress_rules {
            problems.within("egress_rules", rule);
        }
        images::check_credentials(&self.image_username, &self.image_password, problems);
        for dependency in &self.cached_dependencies {
            problems.within("cached_dependency", dependency);
        }
        images::check_layers(&self.image_layers, &self.legacy_download_user, problems);
        for mount in &self.volume_mounts {
            mount.check(problems);
        }
        if !self.metric_tags.is_empty() {
            let tags = MetricTags { tags: &self.metric_tags, metrics_guid: "" };
            problems.within("metric_tags", &tags);
        }
        let large = volumes::are_too_large(&self.volume_mounted_files);
        problems.invalid_if(large, "volumeMountedFiles");
    }
}

impl Validate for DesireTaskRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(!is_guid(&self.task_guid), "task_guid");
        problems.invalid_if(self.domain.is_empty(), "domain");
        match self.task_definition.as_option() {
            None => problems.invalid("task_definition"),
            Some(definition) => definition.check(problems),
        }
    }
}

impl Validate for StartTaskRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(!is_guid(&self.task_guid), "task_guid");
        problems.invalid_if(self.cell_id.is_empty(), "cell_id");
    }
}

impl Validate for FailTaskRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.task_guid.is_empty(), "task_guid");
        problems.invalid_if(self.failure_reason.is_empty(), "failure_reason");
    }
}

impl Validate for RejectTaskRequest {
    /// The original names the field as its fail request does.
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.task_guid.is_empty(), "task_guid");
        problems.invalid_if(self.rejection_reason.is_empty(), "failure_reason");
    }
}

impl Validate for TaskGuidRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.task_guid.is_empty(), "task_guid");
    }
}

impl Validate for CompleteTaskRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.task_guid.is_empty(), "task_guid");
        problems.invalid_if(self.cell_id.is_empty(), "cell_id");
    }
}

impl Validate for TaskByGuidRequest {
    fn check(&self, problems: &mut Problems) {
        problems.invalid_if(self.task_guid.is_empty(), "task_guid");
    }
}

impl Validate for TasksRequest {
    fn check(&self, _: &mut Problems) {}
}
