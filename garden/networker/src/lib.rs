//! Garden's built-in networker: subnets, ports, veth pairs, nftables rules, all by netlink.

#![forbid(unsafe_code)]

mod cidr;
mod egress;
mod error;
mod firewall;
mod link;
mod message;
mod namespace;
mod networker;
mod nftables;
mod obstacle;
mod offset;
mod pair;
mod ports;
mod ranges;
mod reaper;
mod resolver;
mod rule;
mod socket;
mod subnets;
mod survey;
mod sysctl;

pub use cidr::{InvalidCidr, Ipv4Network};
pub use egress::{Egress, EgressError, IcmpType, Traffic};
pub use error::Error;
pub use networker::{Addresses, Networker, Settings, external_address, host_resolver};
pub use nftables::table_names;
pub use obstacle::Obstacle;
pub use pair::{End, Pair};
pub use ports::{DEFAULT_SIZE, DEFAULT_START, PortError, PortPool};
pub use resolver::{NameServers, host_name, hosts, resolv_conf};
pub use subnets::{Lease, Request, SubnetError, Subnets};
pub use survey::{has_uplink, obstacles, overlaps, rehearse};
