//! What a container may reach: Garden's NetOut rules, checked once at the edge.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::RangeInclusive;

use garden_api::{NetOutRule, Protocol};
use serde::{Deserialize, Serialize};

/// Allowed destinations: every combination of a network and a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Egress {
    /// Which packets.
    pub traffic: Traffic,
    /// Empty: everywhere. A range whose end lies before its start holds nothing.
    pub networks: Vec<RangeInclusive<Ipv4Addr>>,
    /// Whether new connections go to the kernel's log.
    pub log: bool,
}

/// A protocol with what can be asked of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Traffic {
    /// Every protocol.
    All,
    /// TCP to these ports; none given: all.
    Tcp(Vec<RangeInclusive<u16>>),
    /// UDP to these ports; none given: all.
    Udp(Vec<RangeInclusive<u16>>),
    /// ICMP, all of it or one type.
    Icmp(Option<IcmpType>),
}

/// An ICMP type and perhaps code (RFC 792).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpType {
    /// The type.
    pub kind: u8,
    /// `None`: any.
    pub code: Option<u8>,
}

/// Why a rule is no rule. The first two texts are those of Garden's server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EgressError {
    /// Ports need TCP or UDP.
    #[error("Ports cannot be specified for Protocol {0}")]
    PortsNotApplicable(&'static str),
    /// ICMPv6 or a number without meaning.
    #[error("invalid protocol: {0}")]
    InvalidProtocol(u8),
    /// The networker speaks IPv4.
    #[error("host/network `{0}' not found")]
    NotIpv4(IpAddr),
    /// First port after the last.
    #[error("invalid portrange (min > max): {0}:{1}")]
    InvalidPorts(u16, u16),
}

impl TryFrom<&NetOutRule> for Egress {
    type Error = EgressError;

    fn try_from(rule: &NetOutRule) -> Result<Self, EgressError> {
        let traffic = match rule.protocol {
            Protocol::All | Protocol::Icmp if !rule.ports.is_empty() => {
                let name = if rule.protocol == Protocol::All { "ALL" } else { "ICMP" };
                return Err(EgressError::PortsNotApplicable(name));
            }
            Protocol::All => Traffic::All,
            Protocol::Tcp => Traffic::Tcp(ports(rule)?),
            Protocol::Udp => Traffic::Udp(ports(rule)?),
            Protocol::Icmp => Traffic::Icmp(
                rule.icmps.map(|icmp| IcmpType { kind: icmp.icmp_type, code: icmp.code }),
            ),
            Protocol::Icmpv6 | Protocol::Other(_) => {
                return Err(EgressError::InvalidProtocol(rule.protocol.number()));
            }
        };
        let networks = rule
            .networks
            .iter()
            .filter_map(|range| Some((range.start.or(range.end)?, range.end.or(range.start)?)))
            .map(|(start, end)| Ok(ipv4(start)?..=ipv4(end)?))
            .collect::<Result<_, _>>()?;
        Ok(Self { traffic, networks, log: rule.log })
    }
}

fn ports(rule: &NetOutRule) -> Result<Vec<RangeInclusive<u16>>, EgressError> {
    rule.ports
        .iter()
        .map(|range| match (range.start, range.end) {
            (start, end) if start <= end => Ok(start..=end),
            (start, end) => Err(EgressError::InvalidPorts(start, end)),
        })
        .collect()
}

fn ipv4(address: IpAddr) -> Result<Ipv4Addr, EgressError> {
    match address.to_canonical() {
        IpAddr::V4(address) => Ok(address),
        IpAddr::V6(_) => Err(EgressError::NotIpv4(address)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Result<Egress, String> {
        let rule: NetOutRule = serde_json::from_str(json).unwrap();
        Egress::try_from(&rule).map_err(|error| error.to_string())
    }

    #[test]
    fn rules_of_each_kind() {
        let rule = parse(
            r#"{"protocol":1,"networks":[{"start":"198.51.100.1"},
                {"start":"198.51.100.10","end":"198.51.100.20"},{"end":"198.51.100.30"}],
                "ports":[{"start":80,"end":90},{"start":443,"end":443}],"log":true}"#,
        )
        .unwrap();
        let address = |last| Ipv4Addr::new(198, 51, 100, last);
        assert_eq!(
            rule,
            Egress {
                traffic: Traffic::Tcp(vec![80..=90, 443..=443]),
                networks: vec![
                    address(1)..=address(1),
                    address(10)..=address(20),
                    address(30)..=address(30)
                ],
                log: true
            }
        );
        assert_eq!(
            parse(r#"{"protocol":3,"icmps":{"type":3}}"#).unwrap().traffic,
            Traffic::Icmp(Some(IcmpType { kind: 3, code: None }))
        );
        assert_eq!(parse(r#"{"protocol":3}"#).unwrap().traffic, Traffic::Icmp(None));
        assert_eq!(parse("{}").unwrap().traffic, Traffic::All);
    }

    #[test]
    fn refusals_use_gardens_words() {
        for (json, text) in [
            (r#"{"ports":[{"start":80,"end":80}]}"#, "Ports cannot be specified for Protocol ALL"),
            (
                r#"{"protocol":3,"ports":[{"start":80,"end":80}]}"#,
                "Ports cannot be specified for Protocol ICMP",
            ),
            (r#"{"protocol":9}"#, "invalid protocol: 9"),
            (r#"{"protocol":4}"#, "invalid protocol: 4"),
            (
                r#"{"protocol":1,"networks":[{"start":"2001:db8::1"}]}"#,
                "host/network `2001:db8::1' not found",
            ),
        ] {
            assert_eq!(parse(json).unwrap_err(), text);
        }
        assert!(parse(r#"{"protocol":1,"ports":[{"start":90,"end":80}]}"#).is_err());
        assert!(
            parse(r#"{"protocol":1,"networks":[{"start":"1.1.1.9","end":"1.1.1.1"}]}"#).is_ok()
        );
    }
}
