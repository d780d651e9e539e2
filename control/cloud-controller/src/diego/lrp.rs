//! Running processes: what is wanted of Diego, and what it tells of instances.

use std::collections::BTreeMap;

use bbs_models::metric_tag_value::DynamicValue;
use bbs_models::{
    Action, ActualLRP, Check as CheckMessage, CheckDefinition, CodependentAction, DesiredLRP,
    DesiredLRPUpdate, HTTPCheck, LogRateLimit, MetricTagValue, ParallelAction, ProtoRoutes,
    RunAction, SerialAction, TCPCheck, TimeoutAction, state,
};
use serde_json::{Value, json};

use super::actions::{
    USER, certificate, cpu_weight, download, egress, environment, fetch, lifecycle, limits,
    network, run, tag, tags,
};
use super::{APPS, Installation};
use crate::env::FILE_DESCRIPTORS;
use crate::recipe::{Check, RunRecipe};
use crate::runtime::{Instance, InstancePort, InstanceState};

/// How long a look at an instance's health may take in all.
const MONITOR_TIMEOUT_MS: i64 = 600_000;

/// A process as Diego wants it.
pub fn desired_lrp(recipe: &RunRecipe, installation: &Installation) -> DesiredLRP {
    let place = &recipe.place;
    let source = format!("APP/PROC/{}", recipe.kind.to_uppercase());
    let vars = environment(&recipe.environment);
    let launch = |command: &str, source: String| {
        run(RunAction {
            path: "/tmp/lifecycle/launcher".into(),
            args: vec!["app".into(), command.into(), recipe.execution_metadata.clone()],
            env: vars.clone(),
            user: recipe.user.clone(),
            log_source: source,
            resource_limits: limits(FILE_DESCRIPTORS).into(),
            ..RunAction::default()
        })
    };
    let mut actions = vec![launch(&recipe.command, source.clone())];
    for sidecar in &recipe.sidecars {
        let source = format!("{source}/SIDECAR/{}", sidecar.name.to_uppercase());
        actions.push(launch(&sidecar.command, source));
    }
    let codependent = CodependentAction { actions, ..CodependentAction::default() };
    let cache_key = format!("droplets-{}", recipe.process_guid);
    let droplet = download(fetch(&recipe.droplet, ".", &cache_key, ""));
    let setup = SerialAction { actions: vec![droplet], ..SerialAction::default() };
    DesiredLRP {
        process_guid: recipe.process_guid.clone(),
        domain: APPS.into(),
        root_fs: format!("preloaded:{}", recipe.rootfs),
        instances: i32::try_from(recipe.instances).unwrap_or(i32::MAX),
        environment_variables: environment(&[("LANG".into(), "en_US.UTF-8".into())]),
        setup: Action { serial_action: setup.into(), ..Action::default() }.into(),
        action: Action { codependent_action: codependent.into(), ..Action::default() }.into(),
        monitor: monitor(recipe).into(),
        check_definition: checks(recipe).into(),
        start_timeout_ms: recipe.start_timeout.saturating_mul(1000),
        disk_mb: int(recipe.disk_mb),
        memory_mb: int(recipe.memory_mb),
        cpu_weight: cpu_weight(recipe.memory_mb),
        ports: recipe.ports.iter().map(|&port| port.into()).collect(),
        routes: routes(recipe).into(),
        log_source: "CELL".into(),
        log_guid: place.app_guid.clone(),
        metrics_guid: place.app_guid.clone(),
        annotation: recipe.annotation.clone(),
        egress_rules: egress(&recipe.egress),
        cached_dependencies: vec![lifecycle(installation, &recipe.stack)],
        legacy_download_user: USER.into(),
        trusted_system_certificates_path: installation.trusted_certificates.clone(),
        network: network(place, "app", &recipe.ports).into(),
        max_pids: installation.max_pids,
        certificate_properties: certificate(place).into(),
        metric_tags: metric_tags(recipe),
        log_rate_limit: LogRateLimit {
            bytes_per_second: recipe.log_rate,
            ..LogRateLimit::default()
        }
        .into(),
        ..DesiredLRP::default()
    }
}

/// What of a wanted process can change while it runs.
pub fn update(recipe: &RunRecipe) -> DesiredLRPUpdate {
    DesiredLRPUpdate {
        instances: Some(i32::try_from(recipe.instances).unwrap_or(i32::MAX)),
        routes: routes(recipe).into(),
        annotation: Some(recipe.annotation.clone()),
        metric_tags: metric_tags(recipe),
        ..DesiredLRPUpdate::default()
    }
}

fn int(number: i64) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

fn metric_tags(recipe: &RunRecipe) -> BTreeMap<String, MetricTagValue> {
    let dynamic =
        |value: DynamicValue| MetricTagValue { dynamic: value.into(), ..MetricTagValue::default() };
    let mut all = tags(&recipe.place);
    all.insert("process_id".into(), tag(&recipe.guid));
    all.insert("process_type".into(), tag(&recipe.kind));
    all.insert("process_instance_id".into(), dynamic(DynamicValue::INSTANCE_GUID));
    all.insert("instance_id".into(), dynamic(DynamicValue::INDEX));
    all
}

/// Routes as emitters read them, in JSON.
fn routes(recipe: &RunRecipe) -> ProtoRoutes {
    let http: Vec<Value> = recipe
        .routes
        .iter()
        .filter(|route| !route.internal)
        .map(|route| {
            let mut entry = json!({
                "hostnames": [route.url],
                "port": route.port,
                "route_service_url": null,
                "isolation_segment": null,
                "protocol": route.protocol,
            });
            if !route.options.is_empty() {
                entry["options"] = route.options.clone().into();
            }
            entry
        })
        .collect();
    let internal: Vec<Value> = recipe
        .routes
        .iter()
        .filter(|route| route.internal)
        .map(|route| json!({"hostname": route.url}))
        .collect();
    let routes = [("cf-router", json!(http)), ("internal-router", json!(internal))];
    ProtoRoutes {
        routes: routes
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value.to_string().into_bytes()))
            .collect(),
        ..ProtoRoutes::default()
    }
}

/// The look at an instance by a program in its container.
fn monitor(recipe: &RunRecipe) -> Option<Action> {
    let port = recipe.ports.first()?;
    if recipe.health.kind == "process" {
        return None;
    }
    let mut args = vec![format!("-port={port}")];
    if recipe.health.kind == "http" {
        args.push(format!("-uri={}", recipe.health.endpoint.as_deref().unwrap_or("/")));
    }
    if let Some(seconds) = recipe.health.invocation_timeout {
        args.push(format!("-timeout={seconds}s"));
    }
    let probe = run(RunAction {
        path: "/tmp/lifecycle/healthcheck".into(),
        args,
        user: recipe.user.clone(),
        log_source: "HEALTH".into(),
        resource_limits: limits(FILE_DESCRIPTORS).into(),
        suppress_log_output: true,
        ..RunAction::default()
    });
    let parallel = ParallelAction { actions: vec![probe], ..ParallelAction::default() };
    let parallel = Action { parallel_action: parallel.into(), ..Action::default() };
    let timeout = TimeoutAction {
        action: parallel.into(),
        timeout_ms: MONITOR_TIMEOUT_MS,
        ..TimeoutAction::default()
    };
    Some(Action { timeout_action: timeout.into(), ..Action::default() })
}

/// The same, declared: cells that can look themselves do so.
fn checks(recipe: &RunRecipe) -> Option<CheckDefinition> {
    let liveness = check(recipe, &recipe.health);
    let readiness = check(recipe, &recipe.readiness);
    if liveness.is_none() && readiness.is_none() {
        return None;
    }
    Some(CheckDefinition {
        checks: liveness.into_iter().collect(),
        readiness_checks: readiness.into_iter().collect(),
        log_source: "HEALTH".into(),
        ..CheckDefinition::default()
    })
}

fn check(recipe: &RunRecipe, check: &Check) -> Option<CheckMessage> {
    let port = u32::from(*recipe.ports.first()?);
    let millis = |seconds: Option<i64>| {
        u64::try_from(seconds.unwrap_or(0)).unwrap_or(0).saturating_mul(1000)
    };
    let (timeout, interval_ms) = (millis(check.invocation_timeout), millis(check.interval));
    match &*check.kind {
        "http" => {
            let http = HTTPCheck {
                port,
                path: check.endpoint.clone().unwrap_or_else(|| "/".into()),
                request_timeout_ms: timeout,
                interval_ms,
                ..HTTPCheck::default()
            };
            Some(CheckMessage { http_check: http.into(), ..CheckMessage::default() })
        }
        "port" => {
            let tcp =
                TCPCheck { port, connect_timeout_ms: timeout, interval_ms, ..TCPCheck::default() };
            Some(CheckMessage { tcp_check: tcp.into(), ..CheckMessage::default() })
        }
        _ => None,
    }
}

/// What Diego tells of an instance. `None` for one without an index.
pub fn instance(lrp: &ActualLRP) -> Option<Instance> {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let (state, details) = match &*lrp.state {
        state::RUNNING => (InstanceState::Running, None),
        state::CRASHED => (InstanceState::Crashed, text(&lrp.crash_reason)),
        // One that crashed and is started again says meanwhile why.
        state::CLAIMED => (InstanceState::Starting, text(&lrp.crash_reason)),
        _ if lrp.placement_error.is_empty() => (InstanceState::Starting, text(&lrp.crash_reason)),
        _ => (InstanceState::Down, text(&lrp.placement_error)),
    };
    let net = &lrp.actual_lrp_net_info;
    Some(Instance {
        index: u32::try_from(lrp.actual_lrp_key.index).ok()?,
        state,
        details,
        // A cell that does not know the field routes whatever runs.
        routable: state == InstanceState::Running && lrp.routable.unwrap_or(true),
        instance_guid: lrp.actual_lrp_instance_key.instance_guid.clone(),
        host: net.address.clone(),
        internal_ip: net.instance_address.clone(),
        ports: net
            .ports
            .iter()
            .map(|port| InstancePort {
                external: port.host_port,
                internal: port.container_port,
                external_tls_proxy: port.host_tls_proxy_port,
                internal_tls_proxy: port.container_tls_proxy_port,
            })
            .collect(),
        since: lrp.since,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recipe::{Download, Place, RouteRecipe, SidecarRecipe};
    use bbs_models::{ActualLRPKey, Validate};

    pub(crate) fn recipe() -> RunRecipe {
        let guid = "1b7d7a0a-2c0d-4c3b-9a51-111111111111";
        let check = |kind: &str| Check {
            kind: kind.into(),
            endpoint: None,
            invocation_timeout: Some(3),
            interval: None,
        };
        RunRecipe {
            process_guid: format!("{guid}-2b7d7a0a-2c0d-4c3b-9a51-222222222222"),
            guid: guid.into(),
            kind: "web".into(),
            place: Place {
                app_guid: guid.into(),
                app_name: "web1".into(),
                space_guid: "space".into(),
                space_name: "s1".into(),
                org_guid: "org".into(),
                org_name: "o1".into(),
            },
            rootfs: "cflinuxfs4".into(),
            stack: "cflinuxfs4".into(),
            command: "run".into(),
            execution_metadata: String::new(),
            user: "vcap".into(),
            droplet: Download { url: "http://cc/droplet".into(), sha256: Some("abc".into()) },
            sidecars: vec![SidecarRecipe {
                name: "agent".into(),
                command: "watch".into(),
                memory_mb: None,
            }],
            environment: vec![("A".into(), "1".into())],
            instances: 2,
            memory_mb: 64,
            disk_mb: 1024,
            log_rate: -1,
            health: check("http"),
            start_timeout: 60,
            readiness: check("process"),
            routes: vec![
                RouteRecipe {
                    url: "web1.test/p".into(),
                    port: 8080,
                    protocol: "http2".into(),
                    internal: false,
                    options: json!({"loadbalancing": "least-connection"})
                        .as_object()
                        .cloned()
                        .unwrap(),
                },
                RouteRecipe {
                    url: "web1.apps.internal".into(),
                    port: 8080,
                    protocol: "http1".into(),
                    internal: true,
                    options: serde_json::Map::new(),
                },
            ],
            ports: vec![8080],
            egress: Vec::new(),
            annotation: "1.5".into(),
        }
    }

    fn installation() -> Installation {
        Installation {
            lifecycle_bundle: "http://files/lifecycle.tgz".into(),
            trusted_certificates: "/etc/cf-system-certificates".into(),
            max_pids: 0,
        }
    }

    #[test]
    fn a_process_becomes_what_diego_accepts() {
        let lrp = desired_lrp(&recipe(), &installation());
        lrp.validate().unwrap();
        assert_eq!(
            (lrp.domain.as_str(), lrp.root_fs.as_str()),
            ("cf-apps", "preloaded:cflinuxfs4")
        );
        let actions = &lrp.action.codependent_action.actions;
        assert_eq!(actions[0].run_action.args, ["app", "run", ""]);
        assert_eq!(actions[0].run_action.log_source, "APP/PROC/WEB");
        assert_eq!(actions[1].run_action.log_source, "APP/PROC/WEB/SIDECAR/AGENT");
        let droplet = &lrp.setup.serial_action.actions[0].download_action;
        assert_eq!((droplet.to.as_str(), droplet.checksum_value.as_str()), (".", "abc"));
        assert_eq!(lrp.cached_dependencies[0].to, "/tmp/lifecycle");
        assert_eq!(lrp.start_timeout_ms, 60_000);
        assert_eq!(lrp.metric_tags["app_name"].r#static, "web1");
        assert_eq!(lrp.metric_tags["instance_id"].dynamic, DynamicValue::INDEX);
        assert_eq!(
            lrp.certificate_properties.organizational_unit[2],
            format!("app:{}", lrp.log_guid)
        );
    }

    #[test]
    fn health_is_looked_at_from_inside_and_declared() {
        let lrp = desired_lrp(&recipe(), &installation());
        let probe = &lrp.monitor.timeout_action.action.parallel_action.actions[0].run_action;
        assert_eq!(probe.args, ["-port=8080", "-uri=/", "-timeout=3s"]);
        assert_eq!(lrp.check_definition.checks[0].http_check.request_timeout_ms, 3000);
        assert!(lrp.check_definition.readiness_checks.is_empty());
        let mut worker = recipe();
        worker.ports.clear();
        let lrp = desired_lrp(&worker, &installation());
        assert!(!lrp.monitor.is_set() && !lrp.check_definition.is_set());
    }

    #[test]
    fn emitters_find_their_routes() {
        let update = update(&recipe());
        let read =
            |name: &str| -> Value { serde_json::from_slice(&update.routes.routes[name]).unwrap() };
        let http = read("cf-router");
        assert_eq!(http.as_array().unwrap().len(), 1);
        assert_eq!(http[0]["hostnames"], json!(["web1.test/p"]));
        assert_eq!(http[0]["protocol"], "http2");
        assert_eq!(http[0]["options"]["loadbalancing"], "least-connection");
        assert_eq!(read("internal-router"), json!([{"hostname": "web1.apps.internal"}]));
        assert_eq!((update.instances, update.annotation.as_deref()), (Some(2), Some("1.5")));
    }

    #[test]
    fn states_are_told_as_clients_know_them() {
        let lrp = |state: &str, error: &str, crash: &str| ActualLRP {
            actual_lrp_key: ActualLRPKey::new("p", 1, "cf-apps").into(),
            state: state.into(),
            placement_error: error.into(),
            crash_reason: crash.into(),
            ..ActualLRP::default()
        };
        let seen = |state: &str, error: &str, crash: &str| {
            let seen = instance(&lrp(state, error, crash)).unwrap();
            (seen.state, seen.details)
        };
        let crashed = ActualLRP { routable: Some(true), ..lrp("CRASHED", "", "exit 1") };
        assert!(!instance(&crashed).unwrap().routable);
        let why = |text: &str| Some(text.to_owned());
        assert_eq!(seen("RUNNING", "", "exit 1"), (InstanceState::Running, None));
        assert_eq!(seen("CRASHED", "", "exit 1"), (InstanceState::Crashed, why("exit 1")));
        let full = seen("UNCLAIMED", "no room", "exit 1");
        assert_eq!(full, (InstanceState::Down, why("no room")));
        for state in ["CLAIMED", "UNCLAIMED"] {
            assert_eq!(seen(state, "", ""), (InstanceState::Starting, None));
            assert_eq!(seen(state, "", "exit 1"), (InstanceState::Starting, why("exit 1")));
        }
    }
}
