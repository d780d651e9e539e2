//! A network plugin: `<program> <extra arguments> --action A --handle H`, JSON in and JSON out, as the
//! original has it (guardian, `netplugin/external_networker.go`).
//!
//! The container's namespace holds nothing but its loopback until `up` has been answered. A record
//! says that `up` is going to be asked before it is, so `down` follows in any case: when the create
//! fails, when the container is destroyed, and by the next daemon if this one is killed. It must
//! bear to be asked twice, and for what was never up.

use std::ffi::OsStr;
use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use garden_api::go_json::{self, Scanned};
use garden_api::{ContainerSpec, NetIn, NetInResponse, NetOutRule, PortMapping, Properties};
use garden_cgroup::Hierarchy;
use garden_networker::{NameServers, external_address, host_resolver, hosts, resolv_conf};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::built_in::told;
use super::{Connection, HOST_RESOLVERS, MAPPED_PORTS};
use crate::config::{NetworkConfig, PluginConfig};
use crate::container::Container;
use crate::error::Error;
use crate::plugin::{Plugin, Request};
use crate::pool::Unit;

/// The plugin hears of properties with this prefix, without it, and of [`LOG_CONFIG`].
const PREFIX: &str = "network.";
const LOG_CONFIG: &str = "log_config";
const CONTAINER_IP: &str = "garden.network.container-ip";
const CONTAINER_IPV6: &str = "garden.network.container-ipv6";
const EXTERNAL_IP: &str = "garden.network.external-ip";

/// What a record says of a network that is the plugin's.
pub(super) fn state() -> Value {
    json!("plugin")
}

/// The network of a plugin's.
#[derive(Debug)]
pub struct External {
    plugin: Plugin,
    address: Ipv4Addr,
    name_servers: NameServers,
    host_resolver: String,
    additional_hosts: Vec<String>,
}

#[derive(Serialize)]
struct UpInputs<'a> {
    #[serde(rename = "Pid")]
    pid: i32,
    #[serde(rename = "Properties")]
    properties: Properties,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    netout_rules: &'a [NetOutRule],
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    netin: &'a [NetIn],
}

#[derive(Deserialize, Default)]
#[serde(default, rename = "netplugin.UpOutputs")]
struct UpOutputs {
    #[serde(rename = "Properties")]
    properties: Properties,
    dns_servers: Option<Vec<String>>,
    search_domains: Option<Vec<String>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct NetInInputs<'a> {
    #[serde(rename = "HostIP")]
    host_ip: Ipv4Addr,
    host_port: u32,
    #[serde(rename = "ContainerIP")]
    container_ip: &'a str,
    container_port: u32,
}

#[derive(Serialize)]
struct NetOutInputs<'a> {
    container_ip: &'a str,
    netout_rule: &'a NetOutRule,
}

#[derive(Serialize)]
struct BulkNetOutInputs<'a> {
    container_ip: &'a str,
    netout_rules: &'a [NetOutRule],
}

impl External {
    pub(super) fn start(
        network: &NetworkConfig,
        plugin: &PluginConfig,
        hierarchy: &Hierarchy,
    ) -> Result<Self, Error> {
        if !network.deny.is_empty() || network.allow_host_access {
            tracing::warn!(
                "what containers may reach is the network plugin's to decide; flags are not"
            );
        }
        Ok(Self {
            plugin: Plugin::new("network", plugin, hierarchy)?,
            address: external_address(network.external_ip).map_err(told)?,
            name_servers: NameServers {
                configured: network.dns_servers.clone(),
                additional: network.additional_dns_servers.clone(),
                ..NameServers::default()
            },
            host_resolver: host_resolver(&HOST_RESOLVERS.map(PathBuf::from)),
            additional_hosts: network.additional_hosts.clone(),
        })
    }

    pub(super) fn connect(&self, spec: &ContainerSpec, unit: &Unit) -> Result<Connection, Error> {
        let handle = spec.handle.as_str();
        let inputs = UpInputs {
            pid: unit.init.pid,
            properties: told_properties(&spec.properties),
            netout_rules: &spec.net_out,
            netin: &spec.net_in,
        };
        let outputs: UpOutputs = self.ask("up", handle, &inputs)?.unwrap_or_default();
        let mut properties = Properties::from([(EXTERNAL_IP.into(), self.address.to_string())]);
        properties.extend(outputs.properties);
        let address = |key: &str| match properties.get(key).map(String::as_str) {
            None | Some("") => Ok(None),
            Some(text) => parsed_address(text).map(Some),
        };
        let addresses = [address(CONTAINER_IP)?, address(CONTAINER_IPV6)?];
        let addresses: Vec<IpAddr> = addresses.into_iter().flatten().collect();
        let ports = match properties.get(MAPPED_PORTS) {
            Some(text) => decoded::<Vec<PortMapping>>(text.as_bytes())?,
            None => Vec::new(),
        };
        let servers = |servers: Vec<String>| servers.iter().map(|ip| parsed_address(ip)).collect();
        let name_servers = NameServers {
            plugin: outputs.dns_servers.map(servers).transpose()?,
            plugin_search: outputs.search_domains,
            ..self.name_servers.clone()
        };
        Ok(Connection {
            ports,
            hosts: hosts(handle, &addresses, &self.additional_hosts),
            resolv_conf: resolv_conf(&name_servers, &self.host_resolver, None),
            properties,
            state: state(),
        })
    }

    pub(super) fn net_in(
        &self,
        container: &Container,
        host_port: u32,
        container_port: u32,
    ) -> Result<(u32, u32), Error> {
        let container_ip = &address_of(container)?;
        let inputs = NetInInputs { host_ip: self.address, host_port, container_ip, container_port };
        let outputs: Option<NetInResponse> = self.ask("net-in", &container.handle, &inputs)?;
        let outputs = outputs.unwrap_or_default();
        Ok((outputs.host_port, outputs.container_port))
    }

    pub(super) fn net_out(&self, container: &Container, rule: &NetOutRule) -> Result<(), Error> {
        let container_ip = &address_of(container)?;
        self.tell("net-out", &container.handle, &NetOutInputs { container_ip, netout_rule: rule })
    }

    pub(super) fn bulk_net_out(
        &self,
        container: &Container,
        rules: &[NetOutRule],
    ) -> Result<(), Error> {
        let container_ip = &address_of(container)?;
        let inputs = BulkNetOutInputs { container_ip, netout_rules: rules };
        self.tell("bulk-net-out", &container.handle, &inputs)
    }

    pub(super) fn destroy(&self, handle: &str) -> Result<(), Error> {
        self.tell("down", handle, &Value::Null)
    }

    /// Runs the plugin; `None` if it had nothing to say.
    fn ask<T: for<'de> Deserialize<'de>>(
        &self,
        action: &str,
        handle: &str,
        inputs: &impl Serialize,
    ) -> Result<Option<T>, Error> {
        let answer = self.run(action, handle, inputs)?;
        if answer.is_empty() { Ok(None) } else { decoded(&answer).map(Some) }
    }

    /// The same, without interest in an answer.
    fn tell(&self, action: &str, handle: &str, inputs: &impl Serialize) -> Result<(), Error> {
        self.run(action, handle, inputs).map(drop)
    }

    fn run(&self, action: &str, handle: &str, inputs: &impl Serialize) -> Result<Vec<u8>, Error> {
        let arguments = ["--action", action, "--handle", handle].map(OsStr::new);
        let input = &go_json::encode_compact(inputs);
        let request = Request { action, handle, arguments: &arguments, input };
        self.plugin.run(&request).map_err(|failure| {
            Error::Plain(format!(
                "external networker encountered an error running '{action}' action: {failure}"
            ))
        })
    }
}

fn told_properties(properties: &Properties) -> Properties {
    let told = |(key, value): (&String, &String)| {
        let key = match key.strip_prefix(PREFIX) {
            Some(key) => key,
            None if key == LOG_CONFIG => key,
            None => return None,
        };
        Some((key.to_owned(), value.clone()))
    };
    properties.iter().filter_map(told).collect()
}

/// In the original's words, its newline included.
fn address_of(container: &Container) -> Result<String, Error> {
    container
        .look(|record| record.properties.get(CONTAINER_IP).cloned())
        .ok_or_else(|| Error::Plain(format!("cannot find container [{}]\n", container.handle)))
}

fn parsed_address(text: &str) -> Result<IpAddr, Error> {
    text.parse().map_err(|_| {
        Error::Plain(format!("the external networker answered {text:?}, which is no IP address"))
    })
}

/// The whole of an answer, which is one JSON value.
fn decoded<T: for<'de> Deserialize<'de>>(answer: &[u8]) -> Result<T, Error> {
    let refused =
        |why: &str| Error::Plain(format!("unmarshaling result from external networker: {why}"));
    let length = match go_json::scan(answer, true) {
        Ok(Scanned::Value { length, .. }) => length,
        Ok(Scanned::Blank | Scanned::Partial) => {
            return Err(refused("unexpected end of JSON input"));
        }
        Err(error) => return Err(refused(&error.to_string())),
    };
    if let Some(more) = answer[length..].iter().find(|byte| !byte.is_ascii_whitespace()) {
        let more = char::from(*more);
        return Err(refused(&format!("invalid character {more:?} after top-level value")));
    }
    go_json::decode(answer).map_err(|error| refused(&error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_one_value_whatever_the_case_of_its_keys() {
        let read = |text: &str| decoded::<UpOutputs>(text.as_bytes());
        let outputs = read(
            "{\"properties\":{\"garden.network.container-ip\":\"10.255.1.2\"},\"dns_servers\":[]}\n",
        )
        .unwrap();
        assert_eq!(outputs.properties[CONTAINER_IP], "10.255.1.2");
        assert_eq!((outputs.dns_servers, outputs.search_domains), (Some(Vec::new()), None));
        for (text, why) in [
            ("{", "unexpected end of JSON input"),
            (" \n", "unexpected end of JSON input"),
            ("{} x", "invalid character 'x' after top-level value"),
            ("oops", "invalid character 'o' looking for beginning of value"),
            ("[]", "json: cannot unmarshal array into Go value of type netplugin.UpOutputs"),
        ] {
            let said = read(text).err().unwrap().to_string();
            assert_eq!(said, format!("unmarshaling result from external networker: {why}"));
        }
    }

    #[test]
    fn a_plugin_hears_of_what_concerns_the_network() {
        let properties = [("network.app_id", "a"), ("log_config", "{}"), ("executor:owner", "x")];
        let properties = properties.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let inputs = UpInputs {
            pid: 7,
            properties: told_properties(&properties),
            netout_rules: &[],
            netin: &[NetIn { host_port: 0, container_port: 8080 }],
        };
        assert_eq!(
            String::from_utf8(go_json::encode_compact(&inputs)).unwrap(),
            "{\"Pid\":7,\"Properties\":{\"app_id\":\"a\",\"log_config\":\"{}\"},\
             \"netin\":[{\"host_port\":0,\"container_port\":8080}]}"
        );
    }
}
