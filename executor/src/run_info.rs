//! What a container is to run. It is kept as a property of the container at Garden, so that a new
//! executor can take the container up again.

use std::collections::BTreeMap;

use bbs_models::{
    Action, CachedDependency, CheckDefinition, EnvironmentVariable, File, Message, MetricTagValue,
    SecurityGroupRule, Sidecar,
};
use serde::{Deserialize, Serialize};

/// Whose logs, and under which name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogConfig {
    /// The source id, an app's guid; empty: its logs are wanted by nobody.
    pub guid: String,
    /// The instance's index.
    pub index: i32,
    /// The source type where an action names none; empty: `LOG`.
    pub source_name: String,
    /// Added to every envelope.
    pub tags: BTreeMap<String, String>,
}

/// A container to be run, from a desired LRP or a task.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RunInfo {
    /// The image for Garden: a path, or a URI with a scheme of its own.
    pub rootfs: String,
    /// For the image's registry; empty for none.
    pub image_username: String,
    /// For the image's registry.
    pub image_password: String,
    /// As the tenant asked for.
    pub privileged: bool,
    /// Hundredths of the cell's most CPU shares.
    pub cpu_weight: u32,
    /// Ports that are mapped.
    pub ports: Vec<u32>,
    /// Variables of every process in it.
    #[serde(with = "messages")]
    pub env: Vec<EnvironmentVariable>,
    /// Run first, to its end.
    #[serde(with = "message")]
    pub setup: Option<Action>,
    /// What it is for.
    #[serde(with = "message")]
    pub action: Option<Action>,
    /// A probe of the older kind, run again and again.
    #[serde(with = "message")]
    pub monitor: Option<Action>,
    /// Probes of the newer kind.
    #[serde(with = "message")]
    pub check_definition: Option<CheckDefinition>,
    /// Processes beside the action.
    #[serde(with = "messages")]
    pub sidecars: Vec<Sidecar>,
    /// How long it may take to become healthy, milliseconds; 0: for ever.
    pub start_timeout_ms: u64,
    /// What it may reach.
    #[serde(with = "messages")]
    pub egress_rules: Vec<SecurityGroupRule>,
    /// Read-only directories, fetched once per cell.
    #[serde(with = "messages")]
    pub cached_dependencies: Vec<CachedDependency>,
    /// Mounted read-only at `/etc/cf-service-bindings`.
    #[serde(with = "messages")]
    pub volume_mounted_files: Vec<File>,
    /// Properties for the network plugin.
    pub network_properties: BTreeMap<String, String>,
    /// Its logs.
    pub log: LogConfig,
    /// Bytes per second that it may log: -1 is no limit, 0 is nothing.
    pub log_rate_limit: i64,
    /// Tags of its metrics.
    pub metric_tags: BTreeMap<String, String>,
    /// Organizational units of its certificate.
    pub organizational_units: Vec<String>,
    /// Names by which others in the platform reach it.
    pub internal_routes: Vec<String>,
    /// A file whose content is the task's result; empty: none.
    pub result_file: String,
    /// For a path of trusted certificates inside; empty: not wanted.
    pub trusted_system_certificates_path: String,
    /// Environment that only instances of LRPs get.
    pub instance: Option<Instance>,
}

/// Which instance of an LRP it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its guid.
    pub guid: String,
    /// Its index.
    pub index: i32,
}

/// Metric tags with what only the instance knows filled in.
pub fn resolve_tags(
    tags: &BTreeMap<String, MetricTagValue>,
    instance: &Instance,
) -> BTreeMap<String, String> {
    use bbs_models::metric_tag_value::DynamicValue;
    tags.iter()
        .map(|(name, value)| {
            let text = if value.dynamic == DynamicValue::INDEX {
                instance.index.to_string()
            } else if value.dynamic == DynamicValue::INSTANCE_GUID {
                instance.guid.clone()
            } else {
                value.r#static.clone()
            };
            (name.clone(), text)
        })
        .collect()
}

/// A protobuf message in JSON: base64 of its encoding, so that unknown fields survive here too.
mod message {
    use base64::Engine as _;
    use base64::prelude::BASE64_STANDARD;
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::Message;

    pub(super) fn encode(message: &impl Message) -> String {
        BASE64_STANDARD.encode(message.encode_to_vec())
    }

    pub(super) fn decode<M: Message>(text: &str) -> Result<M, String> {
        let bytes = BASE64_STANDARD.decode(text).map_err(|error| error.to_string())?;
        M::decode_from_slice(&bytes).map_err(|error| error.to_string())
    }

    pub(super) fn serialize<M: Message, S: Serializer>(
        message: &Option<M>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        message.as_ref().map(encode).serialize(serializer)
    }

    pub(super) fn deserialize<'de, M: Message, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<M>, D::Error> {
        let text = Option::<String>::deserialize(deserializer)?;
        text.map(|text| decode(&text).map_err(D::Error::custom)).transpose()
    }
}

mod messages {
    use serde::de::Error as _;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::{Message, message};

    pub(super) fn serialize<M: Message, S: Serializer>(
        messages: &[M],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        messages.iter().map(message::encode).collect::<Vec<_>>().serialize(serializer)
    }

    pub(super) fn deserialize<'de, M: Message, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<M>, D::Error> {
        let texts = Vec::<String>::deserialize(deserializer)?;
        texts.iter().map(|text| message::decode(text).map_err(D::Error::custom)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use bbs_models::{Action, EnvironmentVariable, MetricTagValue, RunAction, metric_tag_value};

    use super::{Instance, RunInfo, resolve_tags};

    #[test]
    fn survives_being_written_down() {
        let run = RunInfo {
            rootfs: "/stacks/base".into(),
            ports: vec![8080],
            env: vec![EnvironmentVariable {
                name: "A".into(),
                value: "b".into(),
                ..Default::default()
            }],
            action: Some(Action {
                run_action: RunAction { path: "/bin/true".into(), ..Default::default() }.into(),
                ..Default::default()
            }),
            instance: Some(Instance { guid: "ig".into(), index: 3 }),
            ..RunInfo::default()
        };
        let text = serde_json::to_string(&run).unwrap();
        assert_eq!(serde_json::from_str::<RunInfo>(&text).unwrap(), run);
        // An older record lacks fields that are newer.
        assert_eq!(serde_json::from_str::<RunInfo>("{}").unwrap(), RunInfo::default());
    }

    #[test]
    fn dynamic_tags_are_the_instances() {
        let tag = |value, dynamic: metric_tag_value::DynamicValue| MetricTagValue {
            r#static: String::from(value),
            dynamic: dynamic.into(),
            ..Default::default()
        };
        use metric_tag_value::DynamicValue::{DynamicValueInvalid, INDEX, INSTANCE_GUID};
        let tags = BTreeMap::from([
            ("source_id".into(), tag("app", DynamicValueInvalid)),
            ("instance_id".into(), tag("", INDEX)),
            ("process_instance_id".into(), tag("", INSTANCE_GUID)),
        ]);
        let resolved = resolve_tags(&tags, &Instance { guid: "ig".into(), index: 2 });
        assert_eq!(resolved["source_id"], "app");
        assert_eq!(resolved["instance_id"], "2");
        assert_eq!(resolved["process_instance_id"], "ig");
    }
}
