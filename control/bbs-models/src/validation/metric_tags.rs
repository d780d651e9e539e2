//! Metric tags, whose values are given or filled in per instance.

use std::collections::BTreeMap;

use super::{Problems, Validate};
use crate::generated::models::{MetricTagValue, metric_tag_value::DynamicValue};

impl Validate for MetricTagValue {
    /// Exactly one of the two.
    fn check(&self, problems: &mut Problems) {
        let dynamic = matches!(
            self.dynamic.as_known(),
            Some(DynamicValue::INDEX | DynamicValue::INSTANCE_GUID)
        );
        if dynamic != self.r#static.is_empty() {
            problems.invalid("static");
            problems.invalid("dynamic");
        }
    }
}

/// All tags of a desired LRP. With a metrics guid the tag `source_id` must be that guid.
pub(super) struct MetricTags<'a> {
    pub tags: &'a BTreeMap<String, MetricTagValue>,
    pub metrics_guid: &'a str,
}

impl Validate for MetricTags<'_> {
    fn check(&self, problems: &mut Problems) {
        for value in self.tags.values() {
            value.check(problems);
        }
        if self.metrics_guid.is_empty() {
            return;
        }
        if self.tags.get("source_id").is_none_or(|tag| tag.r#static != self.metrics_guid) {
            problems.invalid("source_id should match metrics_guid");
        }
    }
}
