//! A container as Garden is asked for it (diego.md 10.2): everything is in the create call.

use std::collections::BTreeMap;
use std::path::PathBuf;

use garden_api::{
    BindMount, ContainerSpec, CpuLimits, DiskLimitScope, DiskLimits, ImageRef, Limits,
    MemoryLimits, NetIn, PidLimits,
};
use serde::Serialize;

use crate::container::{Container, Network, PortMapping};
use crate::egress::{self, BadRule};
use crate::environment;
use crate::health;
use crate::run_info::{LogConfig, RunInfo};

/// The property that names a container's owner.
pub const OWNER: &str = "executor:owner";

/// The property with what an executor needs to take the container up again: a
/// [`Record`](crate::record::Record).
pub const RECORD: &str = "executor:record";

/// The property of containers that are checked from inside: they have the helper's directory.
pub(crate) const CHECKED_INSIDE: &str = "executor:checked-inside";

const MIB: u64 = 1 << 20;

/// What is the same for all containers of a cell.
#[derive(Clone, Debug)]
pub struct CellLimits {
    /// Files a container may have.
    pub inodes: u64,
    /// CPU shares of a container whose weight is 100.
    pub max_cpu_shares: u32,
    /// Give the container a CPU weight, its memory in MiB, as well.
    pub set_cpu_weight: bool,
}

impl Default for CellLimits {
    fn default() -> Self {
        Self { inodes: 200_000, max_cpu_shares: 1024, set_cpu_weight: false }
    }
}

/// Asks for `container`, which belongs to `owner`, with `mounts` and with `more` variables beside its
/// own; `record` is what its [`RECORD`] property gets.
pub(crate) fn container(
    container: &Container,
    run: &RunInfo,
    cell: &CellLimits,
    owner: &str,
    extra: Extra,
) -> Result<ContainerSpec, BadRule> {
    let resource = &container.resource;
    let size = |mib: i32| u64::try_from(mib).unwrap_or(0) * MIB;
    let weight = |shares: u32| u64::from(shares) * u64::from(run.cpu_weight) / 100;
    let mut properties = BTreeMap::from([
        (OWNER.to_owned(), owner.to_owned()),
        (RECORD.to_owned(), extra.record),
        ("log_config".to_owned(), log_config(&run.log)),
    ]);
    if extra.checks == health::From::Container {
        properties.insert(CHECKED_INSIDE.to_owned(), "true".to_owned());
    }
    for (key, value) in &run.network_properties {
        properties.insert(format!("network.{key}"), value.clone());
    }
    Ok(ContainerSpec {
        handle: container.guid.clone(),
        privileged: run.privileged,
        image: ImageRef {
            uri: run.rootfs.clone(),
            username: run.image_username.clone(),
            password: run.image_password.clone(),
        },
        env: environment::of_container(run, &extra.environment),
        bind_mounts: extra.mounts.into_iter().map(Mount::into_garden).collect(),
        limits: Limits {
            memory: MemoryLimits { limit_in_bytes: size(resource.memory_mb) },
            disk: DiskLimits {
                byte_hard: size(resource.disk_mb),
                inode_hard: cell.inodes,
                scope: DiskLimitScope::Total,
                ..DiskLimits::default()
            },
            cpu: CpuLimits {
                limit_in_shares: weight(cell.max_cpu_shares),
                weight: if cell.set_cpu_weight {
                    u64::try_from(resource.memory_mb).unwrap_or(0)
                } else {
                    0
                },
            },
            pid: PidLimits { max: u64::try_from(resource.max_pids).unwrap_or(0) },
            ..Limits::default()
        },
        net_in: run
            .ports
            .iter()
            .map(|&port| NetIn { host_port: 0, container_port: port })
            .collect(),
        net_out: egress::net_out(&run.egress_rules)?,
        properties,
        ..ContainerSpec::default()
    })
}

/// What is fetched or made for one container before it is asked for.
#[derive(Debug)]
pub(crate) struct Extra {
    pub(crate) record: String,
    pub(crate) mounts: Vec<Mount>,
    pub(crate) environment: Vec<(String, String)>,
    pub(crate) checks: health::From,
}

/// A directory of the cell, read-only in the container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) from: PathBuf,
    pub(crate) to: String,
}

impl Mount {
    fn into_garden(self) -> BindMount {
        BindMount {
            src_path: self.from.to_string_lossy().into_owned(),
            dst_path: self.to,
            ..BindMount::default()
        }
    }
}

fn log_config(log: &LogConfig) -> String {
    #[derive(Serialize)]
    struct Written<'a> {
        guid: &'a str,
        index: i32,
        source_name: &'a str,
        tags: &'a BTreeMap<String, String>,
    }
    let LogConfig { guid, index, source_name, tags } = log;
    serde_json::to_string(&Written { guid, index: *index, source_name, tags })
        .expect("texts and numbers are always JSON")
}

/// Where the container answers, by what Garden says of it. `ports` are the app's, in the order in
/// which it asked for them; a port that Garden has not mapped has no host port.
pub(crate) fn network(info: &garden_api::ContainerInfo, ports: &[u32]) -> Network {
    let mapped = info.mapped_ports.as_deref().unwrap_or_default();
    let host_port = |port: u32| {
        mapped
            .iter()
            .find(|mapping| mapping.container_port == port)
            .map_or(0, |mapping| mapping.host_port)
    };
    Network {
        external_ip: info.external_ip.clone(),
        internal_ip: info.container_ip.clone(),
        internal_ipv6: info.container_ipv6.clone(),
        ports: ports
            .iter()
            .map(|&port| PortMapping {
                container_port: port,
                host_port: host_port(port),
                ..PortMapping::default()
            })
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use garden_api::{ContainerInfo, NetIn, PortMapping};

    use super::{CellLimits, Extra, Mount, container, network};
    use crate::container::{Container, Resource};
    use crate::health::From;
    use crate::run_info::{LogConfig, RunInfo};

    #[test]
    fn everything_is_in_the_create_call() {
        let run = RunInfo {
            rootfs: "/stacks/base".into(),
            cpu_weight: 50,
            ports: vec![8080, 2222],
            network_properties: BTreeMap::from([("app_id".into(), "app".into())]),
            log: LogConfig {
                guid: "app".into(),
                index: 1,
                source_name: "CELL".into(),
                tags: BTreeMap::from([("a".into(), "b".into())]),
            },
            ..RunInfo::default()
        };
        let resource = Resource { memory_mb: 64, disk_mb: 128, max_pids: 100 };
        let reserved = Container::reserved("ig".into(), BTreeMap::new(), resource);
        let extra = Extra {
            record: "{}".into(),
            mounts: vec![Mount { from: "/cache/x".into(), to: "/tmp/lifecycle".into() }],
            environment: Vec::new(),
            checks: From::Cell,
        };
        let spec = container(&reserved, &run, &CellLimits::default(), "executor", extra).unwrap();
        assert_eq!(spec.handle, "ig");
        assert_eq!(spec.image.uri, "/stacks/base");
        assert_eq!(spec.limits.memory.limit_in_bytes, 64 << 20);
        assert_eq!(spec.limits.disk.byte_hard, 128 << 20);
        assert_eq!(spec.limits.disk.inode_hard, 200_000);
        assert_eq!(spec.limits.cpu.limit_in_shares, 512);
        assert_eq!(spec.limits.cpu.weight, 0);
        assert_eq!(spec.limits.pid.max, 100);
        assert_eq!(spec.net_in[1], NetIn { host_port: 0, container_port: 2222 });
        assert_eq!(spec.bind_mounts[0].dst_path, "/tmp/lifecycle");
        let property = |key: &str| spec.properties[key].as_str();
        assert_eq!(property("executor:owner"), "executor");
        assert_eq!(property("network.app_id"), "app");
        assert_eq!(
            property("log_config"),
            r#"{"guid":"app","index":1,"source_name":"CELL","tags":{"a":"b"}}"#
        );
    }

    #[test]
    fn ports_keep_the_order_they_were_asked_in() {
        let info = ContainerInfo {
            external_ip: "1.2.3.4".into(),
            container_ip: "10.0.0.2".into(),
            mapped_ports: Some(vec![
                PortMapping { host_port: 61002, container_port: 2222 },
                PortMapping { host_port: 61001, container_port: 8080 },
            ]),
            ..ContainerInfo::default()
        };
        let network = network(&info, &[8080, 2222, 9]);
        let host: Vec<u32> = network.ports.iter().map(|port| port.host_port).collect();
        assert_eq!(host, [61001, 61002, 0]);
    }
}
