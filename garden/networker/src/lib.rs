//! Garden's built-in networker: subnets, ports, veth pairs, nftables rules, all by netlink.

#![forbid(unsafe_code)]

mod cidr;
mod egress;
mod ports;
mod resolver;
mod subnets;

pub use cidr::{InvalidCidr, Ipv4Network};
pub use egress::{Egress, EgressError, IcmpType, Traffic};
pub use ports::{DEFAULT_SIZE, DEFAULT_START, PortError, PortPool};
pub use resolver::{NameServers, host_name, hosts, resolv_conf};
pub use subnets::{Lease, Request, SubnetError, Subnets};
