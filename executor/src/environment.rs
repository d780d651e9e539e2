//! The environment of containers and of their processes (diego.md 10.6).

use bbs_models::EnvironmentVariable;
use serde::Serialize;

use crate::container::{Network, PortMapping};
use crate::run_info::{Instance, RunInfo};

/// The container's own variables, as Garden wants them: `NAME=value`.
pub(crate) fn of_container(run: &RunInfo, more: &[(String, String)]) -> Vec<String> {
    let mut environment = Vec::new();
    if let Some(Instance { guid, index }) = &run.instance {
        for (name, value) in [
            ("INSTANCE_GUID", guid.clone()),
            ("INSTANCE_INDEX", index.to_string()),
            ("CF_INSTANCE_GUID", guid.clone()),
            ("CF_INSTANCE_INDEX", index.to_string()),
        ] {
            environment.push(format!("{name}={value}"));
        }
    }
    environment.extend(pairs(&run.env));
    environment.extend(more.iter().map(|(name, value)| format!("{name}={value}")));
    environment
}

/// A Run action's own variables, and where the container answers.
pub(crate) fn of_process(own: &[EnvironmentVariable], network: &Network) -> Vec<String> {
    let mut environment: Vec<String> = pairs(own).collect();
    let mut set = |name: &str, value: &str| environment.push(format!("{name}={value}"));
    set("CF_INSTANCE_IP", &network.external_ip);
    set("CF_INSTANCE_INTERNAL_IP", &network.internal_ip);
    if !network.internal_ipv6.is_empty() {
        set("CF_INSTANCE_INTERNAL_IPV6", &network.internal_ipv6);
    }
    match network.ports.first() {
        Some(first) => {
            if first.host_port != 0 {
                let port = first.host_port;
                set("CF_INSTANCE_PORT", &port.to_string());
                set("CF_INSTANCE_ADDR", &format!("{}:{port}", network.external_ip));
            }
        }
        None => {
            set("CF_INSTANCE_PORT", "");
            set("CF_INSTANCE_ADDR", "");
        }
    }
    set("CF_INSTANCE_PORTS", &ports(&network.ports));
    environment
}

/// `CF_INSTANCE_PORTS`: what is not mapped is left out.
fn ports(mappings: &[PortMapping]) -> String {
    #[derive(Serialize)]
    struct Port {
        #[serde(skip_serializing_if = "is_zero")]
        external: u32,
        internal: u32,
        #[serde(skip_serializing_if = "is_zero")]
        external_tls_proxy: u32,
        #[serde(skip_serializing_if = "is_zero")]
        internal_tls_proxy: u32,
    }
    let ports: Vec<Port> = mappings
        .iter()
        .map(|mapping| Port {
            external: mapping.host_port,
            internal: mapping.container_port,
            external_tls_proxy: mapping.host_tls_proxy_port,
            internal_tls_proxy: mapping.container_tls_proxy_port,
        })
        .collect();
    serde_json::to_string(&ports).expect("numbers are always JSON")
}

#[allow(clippy::trivially_copy_pass_by_ref)] // What serde calls it with.
fn is_zero(number: &u32) -> bool {
    *number == 0
}

fn pairs(variables: &[EnvironmentVariable]) -> impl Iterator<Item = String> {
    variables.iter().map(|variable| format!("{}={}", variable.name, variable.value))
}

#[cfg(test)]
mod tests {
    use bbs_models::EnvironmentVariable;

    use super::{of_container, of_process};
    use crate::container::{Network, PortMapping};
    use crate::run_info::{Instance, RunInfo};

    fn variable(name: &str, value: &str) -> EnvironmentVariable {
        EnvironmentVariable { name: name.into(), value: value.into(), ..Default::default() }
    }

    #[test]
    fn instances_know_who_they_are() {
        let run = RunInfo {
            env: vec![variable("A", "b")],
            instance: Some(Instance { guid: "ig".into(), index: 2 }),
            ..RunInfo::default()
        };
        let more = [("CF_INSTANCE_CERT".to_owned(), "/c".to_owned())];
        assert_eq!(
            of_container(&run, &more),
            [
                "INSTANCE_GUID=ig",
                "INSTANCE_INDEX=2",
                "CF_INSTANCE_GUID=ig",
                "CF_INSTANCE_INDEX=2",
                "A=b",
                "CF_INSTANCE_CERT=/c"
            ]
        );
        assert_eq!(of_container(&RunInfo { instance: None, ..run }, &[]), ["A=b"]);
    }

    #[test]
    fn processes_know_where_they_answer() {
        let network = Network {
            external_ip: "192.168.0.5".into(),
            internal_ip: "10.254.0.6".into(),
            internal_ipv6: String::new(),
            ports: vec![PortMapping {
                container_port: 8080,
                host_port: 61001,
                ..Default::default()
            }],
        };
        assert_eq!(
            of_process(&[variable("X", "")], &network),
            [
                "X=",
                "CF_INSTANCE_IP=192.168.0.5",
                "CF_INSTANCE_INTERNAL_IP=10.254.0.6",
                "CF_INSTANCE_PORT=61001",
                "CF_INSTANCE_ADDR=192.168.0.5:61001",
                r#"CF_INSTANCE_PORTS=[{"external":61001,"internal":8080}]"#
            ]
        );
        let none = Network { ports: Vec::new(), internal_ipv6: "fd00::6".into(), ..network };
        assert_eq!(
            of_process(&[], &none)[2..],
            [
                "CF_INSTANCE_INTERNAL_IPV6=fd00::6",
                "CF_INSTANCE_PORT=",
                "CF_INSTANCE_ADDR=",
                "CF_INSTANCE_PORTS=[]"
            ]
        );
    }
}
