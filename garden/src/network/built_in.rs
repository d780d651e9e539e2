//! The built-in network: links that are made ahead, and rules, all by netlink.

use std::collections::HashSet;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;

use garden_api::{ContainerSpec, NetOutRule, PortMapping, Properties};
use garden_networker::{Ipv4Network, NameServers, Networker, Settings};
use serde_json::Value;

use super::{Connection, HOST_RESOLVERS, MAPPED_PORTS, mapped_ports};
use crate::config::Config;
use crate::error::Error;
use crate::pool::Unit;

/// The networker, with a Garden's errors and properties.
#[derive(Debug)]
pub struct BuiltIn {
    networker: Networker,
}

pub(super) fn told(error: garden_networker::Error) -> Error {
    use garden_networker::Error as Cause;
    match &error {
        Cause::Io { .. } | Cause::State { .. } => {
            Error::because("the network is not set up", &error)
        }
        _ => Error::Plain(error.to_string()),
    }
}

/// A configuration as the networker takes it.
pub fn settings(config: &Config) -> Result<Settings, Error> {
    let network = &config.network;
    let parse = |text: &String| text.parse::<Ipv4Network>();
    let bad = |error: garden_networker::InvalidCidr| Error::Plain(error.to_string());
    Ok(Settings {
        tag: config.tag.clone(),
        pool: parse(&network.pool).map_err(bad)?,
        deny: network.deny.iter().map(parse).collect::<Result<_, _>>().map_err(bad)?,
        allow_host_access: network.allow_host_access,
        port_pool_start: network.port_pool_start,
        port_pool_size: network.port_pool_size,
        external_ip: network.external_ip,
        mtu: network.mtu,
        name_servers: NameServers {
            configured: network.dns_servers.clone(),
            additional: network.additional_dns_servers.clone(),
            ..NameServers::default()
        },
        host_resolvers: HOST_RESOLVERS.map(PathBuf::from).to_vec(),
        additional_hosts: network.additional_hosts.clone(),
        memory: config.run.join("network"),
    })
}

impl BuiltIn {
    /// Starts the networker.
    pub fn start(config: &Config) -> Result<Self, Error> {
        let networker = Networker::start(settings(config)?).map_err(told)?;
        for obstacle in networker.obstacles().map_err(told)? {
            let mend = obstacle.mend();
            tracing::warn!(
                "containers reach nothing beyond this host: {obstacle} drops what it does not allow; \
                 this lets them through: {mend}"
            );
        }
        Ok(Self { networker })
    }

    /// Subnets in the pool.
    pub fn capacity(&self) -> u64 {
        self.networker.capacity().into()
    }

    /// Gives a network namespace its link.
    pub fn plumb(&self, namespace: BorrowedFd<'_>, number: u32) -> Result<(), Error> {
        self.networker.plumb(namespace, number).map_err(told)
    }

    /// Takes an unused link away, whose namespace is about to go.
    pub fn unplumb(&self, number: u32) {
        self.networker.unplumb(number);
    }

    /// Makes a unit's link the container's, with its ports and rules.
    pub fn connect(&self, spec: &ContainerSpec, unit: &Unit) -> Result<Connection, Error> {
        let handle = spec.handle.as_str();
        let namespace = || unit.init.namespace("net").map_err(std::io::Error::other);
        self.networker.attach(handle, unit.number, &spec.network, namespace).map_err(told)?;
        let mut ports = Vec::with_capacity(spec.net_in.len());
        for port in &spec.net_in {
            let (host_port, container_port) =
                self.net_in(handle, port.host_port, port.container_port)?;
            ports.push(PortMapping { host_port, container_port });
        }
        self.net_out(handle, &spec.net_out)?;
        let mut properties = self.properties(handle);
        if !ports.is_empty() {
            properties.insert(MAPPED_PORTS.into(), mapped_ports(&ports));
        }
        Ok(Connection {
            properties,
            ports,
            hosts: self.networker.hosts(handle),
            resolv_conf: self.networker.resolv_conf(handle),
            state: self.state(handle),
        })
    }

    /// Maps a port of the host, 0 for one of the pool, to one of the container, 0 for the same.
    pub fn net_in(&self, handle: &str, host: u32, container: u32) -> Result<(u32, u32), Error> {
        let (host, container) = self.networker.net_in(handle, host, container).map_err(told)?;
        Ok((host.into(), container.into()))
    }

    /// Takes a mapping back that has just been made.
    pub fn take_net_in_back(&self, handle: &str, (host, container): (u32, u32)) {
        let narrow = |port| u16::try_from(port).unwrap_or_default();
        let taken = self.networker.take_net_in_back(handle, narrow(host), narrow(container));
        if let Err(error) = taken {
            tracing::warn!(handle, host, %error, "a port stays mapped that nobody was told of");
        }
    }

    /// Takes rules back that have just been made.
    pub fn take_net_out_back(&self, handle: &str, rules: &[NetOutRule]) {
        if let Err(error) = self.networker.take_net_out_back(handle, rules) {
            tracing::warn!(handle, %error, "traffic stays allowed though the call has failed");
        }
    }

    /// Allows traffic out of the container.
    pub fn net_out(&self, handle: &str, rules: &[NetOutRule]) -> Result<(), Error> {
        self.networker.net_out(handle, rules).map_err(told)
    }

    /// What must be remembered.
    pub fn state(&self, handle: &str) -> Value {
        self.networker.state(handle).unwrap_or_default()
    }

    /// Takes a container's network up again.
    pub fn restore(&self, handle: &str, state: &Value) -> Result<(), Error> {
        self.networker.restore(handle, state).map_err(told)
    }

    /// Properties that tell a container's addresses.
    fn properties(&self, handle: &str) -> Properties {
        let Some(addresses) = self.networker.addresses(handle) else { return Properties::new() };
        let named = [
            ("garden.network.container-ip", addresses.container),
            ("garden.network.host-ip", addresses.host),
            ("garden.network.external-ip", addresses.external),
        ];
        named.map(|(key, address)| (key.to_owned(), address.to_string())).into()
    }

    /// Takes a container's network down.
    pub fn destroy(&self, handle: &str) -> Result<(), Error> {
        self.networker.destroy(handle).map_err(told)
    }

    /// Removes what the networker has made on the host.
    pub fn raze(&self) -> Result<(), Error> {
        self.networker.raze().map_err(told)
    }

    /// Makes the kernel's rules those of the restored containers, and removes the network of all
    /// that are not among `handles`.
    pub fn remove_strays(&self, handles: &HashSet<&str>) -> Result<(), Error> {
        self.networker.settle(handles).map_err(told)
    }
}
