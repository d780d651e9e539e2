//! Port forwarding and allowed destinations.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use crate::spelling::{ip_text, is_default, wire_integer};

/// A port to forward, as asked for at Create: zeros are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.NetIn")]
pub struct NetIn {
    /// Zero: one from the pool.
    pub host_port: u32,
    /// Zero: the host port's number.
    pub container_port: u32,
}

/// Body of NetIn.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "transport.NetInRequest")]
pub struct NetInRequest {
    /// Repeats the path's handle; not looked at.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub handle: String,
    /// Zero: one from the pool.
    #[serde(skip_serializing_if = "is_default")]
    pub host_port: u32,
    /// Zero: the host port's number.
    #[serde(skip_serializing_if = "is_default")]
    pub container_port: u32,
}

/// Answer to NetIn: the ports in effect.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "transport.NetInResponse")]
pub struct NetInResponse {
    /// On the host.
    #[serde(skip_serializing_if = "is_default")]
    pub host_port: u32,
    /// Inside.
    #[serde(skip_serializing_if = "is_default")]
    pub container_port: u32,
}

/// Destinations that are allowed: every combination of one of `networks` and one of `ports`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.NetOutRule")]
pub struct NetOutRule {
    /// All protocols unless said otherwise.
    #[serde(skip_serializing_if = "is_default")]
    pub protocol: Protocol,
    /// Empty: everywhere.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub networks: Vec<IpRange>,
    /// Empty: all ports. Only with TCP and UDP.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<PortRange>,
    /// Only with ICMP.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub icmps: Option<IcmpControl>,
    /// Log new connections that this rule allows.
    #[serde(skip_serializing_if = "is_default")]
    pub log: bool,
}

wire_integer! {
    /// The protocol of a [`NetOutRule`].
    #[derive(Default)]
    Protocol: u8 as "garden.Protocol" {
        /// Every protocol, the default.
        #[default]
        All = 0,
        /// TCP.
        Tcp = 1,
        /// UDP.
        Udp = 2,
        /// ICMP.
        Icmp = 3,
        /// ICMPv6.
        Icmpv6 = 4,
    }
}

/// Addresses from `start` to `end`, both included; if one is absent, the other alone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.IPRange")]
pub struct IpRange {
    /// First address.
    #[serde(with = "ip_text", skip_serializing_if = "Option::is_none")]
    pub start: Option<IpAddr>,
    /// Last address.
    #[serde(with = "ip_text", skip_serializing_if = "Option::is_none")]
    pub end: Option<IpAddr>,
}

/// Ports from `start` to `end`, both included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.PortRange")]
pub struct PortRange {
    /// First port.
    #[serde(skip_serializing_if = "is_default")]
    pub start: u16,
    /// Last port.
    #[serde(skip_serializing_if = "is_default")]
    pub end: u16,
}

/// An ICMP type, and a code unless any will do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename = "garden.ICMPControl")]
pub struct IcmpControl {
    /// ICMP type.
    #[serde(rename = "type", skip_serializing_if = "is_default")]
    pub icmp_type: u8,
    /// Absent: any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<u8>,
}
