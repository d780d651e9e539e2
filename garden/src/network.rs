//! Containers' network, as the gardener sees it: the built-in one, or an operator's plugin.

mod built_in;
mod external;

use std::collections::HashSet;
use std::os::fd::BorrowedFd;

use garden_api::{ContainerSpec, NetOutRule, PortMapping, Properties};
use garden_cgroup::Hierarchy;
use serde_json::Value;

use crate::config::Config;
use crate::container::Container;
use crate::error::Error;
use crate::pool::Unit;
use built_in::BuiltIn;
pub use built_in::settings;
use external::External;

/// Property with a container's ports, as JSON.
pub const MAPPED_PORTS: &str = "garden.network.mapped-ports";

/// Where systemd-resolved puts itself before the name servers, it names them in a file of its own;
/// its socket on the loopback hears no containers.
const HOST_RESOLVERS: [&str; 2] = ["/etc/resolv.conf", "/run/systemd/resolve/resolv.conf"];

/// What a container has once it is connected.
#[derive(Debug)]
pub struct Connection {
    /// Properties that tell its addresses and more.
    pub properties: Properties,
    /// In the order they were asked for.
    pub ports: Vec<PortMapping>,
    /// Content of `/etc/hosts`.
    pub hosts: String,
    /// Content of `/etc/resolv.conf`.
    pub resolv_conf: String,
    /// What must be remembered.
    pub state: Value,
}

/// Who connects containers.
#[derive(Debug)]
pub enum Network {
    /// The daemon itself.
    BuiltIn(Box<BuiltIn>),
    /// A plugin.
    External(Box<External>),
}
use Network::{BuiltIn as Own, External as Plugin};

/// Whether a record's network was asked of a plugin, or is going to be.
pub fn is_external(state: &Value) -> bool {
    *state == external::state()
}

/// Ports as a property has them.
pub fn mapped_ports(ports: &[PortMapping]) -> String {
    serde_json::to_string(ports).unwrap_or_default()
}

impl Network {
    /// Starts it.
    pub fn start(config: &Config, hierarchy: &Hierarchy) -> Result<Self, Error> {
        match &config.network_plugin {
            Some(plugin) => External::start(&config.network, plugin, hierarchy)
                .map(|external| Plugin(Box::new(external))),
            None => BuiltIn::start(config).map(|built_in| Own(Box::new(built_in))),
        }
    }

    /// How many containers it can connect.
    pub fn capacity(&self) -> u64 {
        match self {
            Own(network) => network.capacity(),
            // Whatever its limit is, it does not say.
            Plugin(_) => u64::MAX,
        }
    }

    /// What a container's record says of the network from its first moment on: whoever finds it
    /// unfinished must know whom to tell.
    pub fn promised(&self) -> Value {
        match self {
            Own(_) => Value::Null,
            Plugin(_) => external::state(),
        }
    }

    /// Makes a network namespace ready for whatever container it is going to be; `number` is never
    /// used twice.
    pub fn plumb(&self, namespace: BorrowedFd<'_>, number: u32) -> Result<(), Error> {
        match self {
            Own(network) => network.plumb(namespace, number),
            // It is told of containers, and this is none yet.
            Plugin(_) => Ok(()),
        }
    }

    /// Takes away what was made ahead for a namespace that is about to go.
    pub fn unplumb(&self, number: u32) {
        if let Own(network) = self {
            network.unplumb(number);
        }
    }

    /// Connects a container, whose process 1 is parked. After an error it is to be destroyed.
    pub fn connect(&self, spec: &ContainerSpec, unit: &Unit) -> Result<Connection, Error> {
        match self {
            Own(network) => network.connect(spec, unit),
            Plugin(network) => network.connect(spec, unit),
        }
    }

    /// Maps a port of the host, 0 to choose one, to one of the container, 0 for the same.
    pub fn net_in(
        &self,
        container: &Container,
        host: u32,
        inside: u32,
    ) -> Result<(u32, u32), Error> {
        match self {
            Own(network) => network.net_in(&container.handle, host, inside),
            Plugin(network) => network.net_in(container, host, inside),
        }
    }

    /// Allows traffic out of the container.
    pub fn net_out(&self, container: &Container, rule: &NetOutRule) -> Result<(), Error> {
        match self {
            Own(network) => network.net_out(&container.handle, std::slice::from_ref(rule)),
            Plugin(network) => network.net_out(container, rule),
        }
    }

    /// The same for several rules, of which all or none apply.
    pub fn bulk_net_out(&self, container: &Container, rules: &[NetOutRule]) -> Result<(), Error> {
        match self {
            Own(network) => network.net_out(&container.handle, rules),
            Plugin(network) => network.bulk_net_out(container, rules),
        }
    }

    /// Takes a mapping back that has just been made.
    pub fn take_net_in_back(&self, handle: &str, ports: (u32, u32)) {
        match self {
            Own(network) => network.take_net_in_back(handle, ports),
            Plugin(_) => {
                tracing::warn!(
                    handle,
                    ?ports,
                    "a port that nobody was told of is mapped till the end"
                );
            }
        }
    }

    /// Takes rules back that have just been made.
    pub fn take_net_out_back(&self, handle: &str, rules: &[NetOutRule]) {
        match self {
            Own(network) => network.take_net_out_back(handle, rules),
            Plugin(_) => {
                tracing::warn!(handle, "traffic stays allowed though the call has failed");
            }
        }
    }

    /// What must be remembered now.
    pub fn state(&self, container: &Container) -> Value {
        match self {
            Own(network) => network.state(&container.handle),
            Plugin(_) => external::state(),
        }
    }

    /// Takes a container's network up again.
    pub fn restore(&self, handle: &str, state: &Value) -> Result<(), Error> {
        match self {
            Own(network) => network.restore(handle, state),
            // It remembers by itself.
            Plugin(_) => Ok(()),
        }
    }

    /// Takes a container's network down, whatever of it there is.
    pub fn destroy(&self, handle: &str) -> Result<(), Error> {
        match self {
            Own(network) => network.destroy(handle),
            Plugin(network) => network.destroy(handle),
        }
    }

    /// Removes what the daemon has made on the host.
    pub fn raze(&self) -> Result<(), Error> {
        match self {
            Own(network) => network.raze(),
            Plugin(_) => Ok(()),
        }
    }

    /// Makes the kernel's rules those of the restored containers, and removes the network of all
    /// that are not among `handles`.
    pub fn remove_strays(&self, handles: &HashSet<&str>) -> Result<(), Error> {
        match self {
            Own(network) => network.remove_strays(handles),
            Plugin(_) => Ok(()),
        }
    }
}
