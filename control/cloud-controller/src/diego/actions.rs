//! Actions, and the parts that running and staging have in common.

use std::collections::BTreeMap;

use bbs_models::{
    Action, CachedDependency, CertificateProperties, DownloadAction, EnvironmentVariable,
    MetricTagValue, Network, PortRange, ResourceLimits, RunAction, SecurityGroupRule, UploadAction,
};
use serde_json::Value;

use super::Installation;
use crate::recipe::{Download, Place};

/// The user that apps and builders run as.
pub(super) const USER: &str = "vcap";

pub(super) fn run(action: RunAction) -> Action {
    Action { run_action: action.into(), ..Action::default() }
}

pub(super) fn download(action: DownloadAction) -> Action {
    Action { download_action: action.into(), ..Action::default() }
}

pub(super) fn upload(action: UploadAction) -> Action {
    Action { upload_action: action.into(), ..Action::default() }
}

pub(super) fn limits(files: u64) -> ResourceLimits {
    ResourceLimits { nofile: Some(files), ..ResourceLimits::default() }
}

pub(super) fn environment(vars: &[(String, String)]) -> Vec<EnvironmentVariable> {
    let variable = |(name, value): &(String, String)| EnvironmentVariable {
        name: name.clone(),
        value: value.clone(),
        ..EnvironmentVariable::default()
    };
    vars.iter().map(variable).collect()
}

/// A download of a file whose digest may be known.
pub(super) fn fetch(file: &Download, to: &str, cache_key: &str, artifact: &str) -> DownloadAction {
    let checked = file.sha256.is_some();
    DownloadAction {
        artifact: artifact.into(),
        from: file.url.clone(),
        to: to.into(),
        cache_key: cache_key.into(),
        user: USER.into(),
        checksum_algorithm: if checked { "sha256".into() } else { String::new() },
        checksum_value: file.sha256.clone().unwrap_or_default(),
        ..DownloadAction::default()
    }
}

/// The programs that every container needs.
pub(super) fn lifecycle(installation: &Installation, stack: &str) -> CachedDependency {
    CachedDependency {
        from: installation.lifecycle_bundle.clone(),
        to: "/tmp/lifecycle".into(),
        cache_key: format!("buildpack-{stack}-lifecycle"),
        ..CachedDependency::default()
    }
}

/// 100 for 8 GiB and more, proportional below, at least that of 128 MiB.
pub(super) fn cpu_weight(memory_mb: i64) -> u32 {
    u32::try_from(100 * memory_mb.clamp(128, 8192) / 8192).unwrap_or(100)
}

pub(super) fn certificate(place: &Place) -> CertificateProperties {
    CertificateProperties {
        organizational_unit: vec![
            format!("organization:{}", place.org_guid),
            format!("space:{}", place.space_guid),
            format!("app:{}", place.app_guid),
        ],
        ..CertificateProperties::default()
    }
}

/// `workload` is `app`, `staging` or `task`.
pub(super) fn network(place: &Place, workload: &str, ports: &[u16]) -> Network {
    let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
    let properties = [
        ("policy_group_id", place.app_guid.clone()),
        ("app_id", place.app_guid.clone()),
        ("space_id", place.space_guid.clone()),
        ("org_id", place.org_guid.clone()),
        ("ports", ports.join(",")),
        ("container_workload", workload.to_owned()),
    ];
    let properties = properties.into_iter().filter(|(_, value)| !value.is_empty());
    Network {
        properties: properties.map(|(name, value)| (name.to_owned(), value)).collect(),
        ..Network::default()
    }
}

pub(super) fn tag(value: &str) -> MetricTagValue {
    MetricTagValue { r#static: value.into(), ..MetricTagValue::default() }
}

/// Tags of an app's metrics and logs.
pub(super) fn tags(place: &Place) -> BTreeMap<String, MetricTagValue> {
    let all = [
        ("source_id", &place.app_guid),
        ("organization_id", &place.org_guid),
        ("organization_name", &place.org_name),
        ("space_id", &place.space_guid),
        ("space_name", &place.space_name),
        ("app_id", &place.app_guid),
        ("app_name", &place.app_name),
    ];
    // The BBS refuses a tag without a value.
    let named = all.into_iter().filter(|(_, value)| !value.is_empty());
    named.map(|(name, value)| (name.to_owned(), tag(value))).collect()
}

/// Rules of security groups, as the API shows them. A rule that cannot be understood allows nothing.
pub(super) fn egress(rules: &[Value]) -> Vec<SecurityGroupRule> {
    rules.iter().filter_map(rule).collect()
}

fn rule(rule: &Value) -> Option<SecurityGroupRule> {
    let destinations = rule["destination"].as_str()?.split(',');
    let mut converted = SecurityGroupRule {
        protocol: rule["protocol"].as_str()?.to_owned(),
        destinations: destinations.map(|one| one.trim().to_owned()).collect(),
        log: rule["log"].as_bool().unwrap_or(false),
        ..SecurityGroupRule::default()
    };
    if let Some(ports) = rule["ports"].as_str() {
        match ports.split_once('-') {
            Some((start, end)) => {
                converted.port_range = PortRange {
                    start: start.trim().parse().ok()?,
                    end: end.trim().parse().ok()?,
                    ..PortRange::default()
                }
                .into();
            }
            None => {
                let ports: Result<Vec<u32>, _> =
                    ports.split(',').map(|port| port.trim().parse()).collect();
                converted.ports = ports.ok()?;
            }
        }
    }
    if converted.protocol == "icmp" {
        let number = |name: &str| rule[name].as_i64().and_then(|number| i32::try_from(number).ok());
        converted.icmp_info = bbs_models::ICMPInfo {
            r#type: number("type").unwrap_or(-1),
            code: number("code").unwrap_or(-1),
            ..bbs_models::ICMPInfo::default()
        }
        .into();
    }
    Some(converted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_keep_their_ports() {
        let rules = egress(&[
            json!({"protocol": "tcp", "destination": "10.0.0.0/8,11.0.0.1", "ports": "80, 443"}),
            json!({"protocol": "udp", "destination": "0.0.0.0/0", "ports": "1-100"}),
            json!({"protocol": "icmp", "destination": "0.0.0.0/0", "type": 8, "code": 0}),
            json!({"protocol": "tcp", "destination": "0.0.0.0/0", "ports": "many"}),
        ]);
        assert_eq!(rules.len(), 3, "what is not understood allows nothing");
        assert_eq!(rules[0].destinations, ["10.0.0.0/8", "11.0.0.1"]);
        assert_eq!(rules[0].ports, [80, 443]);
        assert_eq!((rules[1].port_range.start, rules[1].port_range.end), (1, 100));
        assert_eq!((rules[2].icmp_info.r#type, rules[2].icmp_info.code), (8, 0));
    }

    #[test]
    fn the_weight_follows_memory_within_bounds() {
        let weights: Vec<u32> = [1, 128, 1024, 8192, 100_000].into_iter().map(cpu_weight).collect();
        assert_eq!(weights, [1, 1, 12, 100, 100]);
    }
}
