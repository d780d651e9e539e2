//! What an operator decides about the network, and what the host makes of it.

use std::fs;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::path::PathBuf;

use crate::cidr::Ipv4Network;
use crate::error::Error;
use crate::link::{self, Uplink};
use crate::resolver::{self, NameServers};
use crate::socket::{Protocol, Socket};

pub(super) const LARGEST_MTU: u32 = 1500;
/// What a veth link may have, and IPv4 needs.
pub(crate) const MTUS: RangeInclusive<u32> = 68..=65535;

/// What an operator decides.
#[derive(Clone, Debug)]
pub struct Settings {
    /// One to four letters or digits, in the names of the table and of links.
    pub tag: String,
    /// Pool of /30s.
    pub pool: Ipv4Network,
    /// Destinations that need a NetOut rule.
    pub deny: Vec<Ipv4Network>,
    /// Containers may open connections to the host.
    pub allow_host_access: bool,
    /// First port of the pool.
    pub port_pool_start: u16,
    /// Ports in the pool.
    pub port_pool_size: u16,
    /// The host's address; that of the default route when absent.
    pub external_ip: Option<Ipv4Addr>,
    /// Of links; that of the external interface, at most 1500, when absent.
    pub mtu: Option<u32>,
    /// Name servers.
    pub name_servers: NameServers,
    /// The host's resolver configurations; the first that names a server others can ask counts.
    pub host_resolvers: Vec<PathBuf>,
    /// Lines of every container's `/etc/hosts`.
    pub additional_hosts: Vec<String>,
    /// Where old values of sysctls and the head of the port queue are remembered. Made if absent.
    pub memory: PathBuf,
}

/// The host's address as others see it: `configured`, or that of the default route. Without either
/// it is 127.0.0.1.
pub fn external_address(configured: Option<Ipv4Addr>) -> Result<Ipv4Addr, Error> {
    let mut route = Socket::open(Protocol::Route).map_err(Error::io("open a netlink socket"))?;
    uplink(&mut route, configured).map(|uplink| uplink.address)
}

/// The host's way out. Without one, ports are mapped on 127.0.0.1 alone.
pub(super) fn uplink(route: &mut Socket, configured: Option<Ipv4Addr>) -> Result<Uplink, Error> {
    let failed = || Error::io("find the host's external interface");
    let nowhere = |address| Uplink { address, mtu: LARGEST_MTU };
    if let Some(address) = configured {
        let found = link::uplink_of(route, address).map_err(failed())?;
        return Ok(found.unwrap_or(nowhere(address)));
    }
    let found = link::default_uplink(route).map_err(failed())?;
    Ok(found.unwrap_or_else(|| {
        tracing::warn!("no default route: containers' ports are reached by 127.0.0.1 only");
        nowhere(Ipv4Addr::LOCALHOST)
    }))
}

/// The content of the first of these resolver configurations that names a server which others than
/// the host can ask, else of the first.
#[must_use]
pub fn host_resolver(files: &[PathBuf]) -> String {
    let texts: Vec<_> =
        files.iter().map(|file| fs::read_to_string(file).unwrap_or_default()).collect();
    let useful = texts.iter().find(|text| resolver::names_servers(text));
    useful.or(texts.first()).cloned().unwrap_or_default()
}
