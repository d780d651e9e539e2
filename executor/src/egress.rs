//! Security group rules as Garden's NetOut rules.

use std::net::IpAddr;

use bbs_models::SecurityGroupRule;
use garden_api::{IcmpControl, IpRange, NetOutRule, PortRange, Protocol};

/// A rule that names no network or port that there can be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("security group rule for {protocol:?}: {what}")]
pub struct BadRule {
    protocol: String,
    what: String,
}

/// One NetOut rule for each destination of each rule, in order.
pub fn net_out(rules: &[SecurityGroupRule]) -> Result<Vec<NetOutRule>, BadRule> {
    let mut out = Vec::new();
    for rule in rules {
        let bad = |what: String| BadRule { protocol: rule.protocol.clone(), what };
        let protocol = match rule.protocol.as_str() {
            "all" => Protocol::All,
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "icmp" => Protocol::Icmp,
            "icmpv6" => Protocol::Icmpv6,
            _ => return Err(bad("no such protocol".into())),
        };
        let ports = ports(rule).map_err(bad)?;
        let icmps = icmp(rule).map_err(bad)?;
        // A destination may itself be a list (diego.md 3.4).
        let destinations = rule.destinations.iter().flat_map(|list| list.split(','));
        for destination in destinations.map(str::trim).filter(|text| !text.is_empty()) {
            let range = range(destination)
                .ok_or_else(|| bad(format!("{destination:?} is no address, network or range")))?;
            out.push(NetOutRule {
                protocol,
                networks: vec![range],
                ports: ports.clone(),
                icmps,
                log: rule.log,
            });
        }
    }
    Ok(out)
}

fn ports(rule: &SecurityGroupRule) -> Result<Vec<PortRange>, String> {
    let port = |number: u32| u16::try_from(number).map_err(|_| format!("{number} is no port"));
    let mut ports = Vec::new();
    for &number in &rule.ports {
        let number = port(number)?;
        ports.push(PortRange { start: number, end: number });
    }
    if rule.port_range.is_set() {
        ports.push(PortRange {
            start: port(rule.port_range.start)?,
            end: port(rule.port_range.end)?,
        });
    }
    Ok(ports)
}

fn icmp(rule: &SecurityGroupRule) -> Result<Option<IcmpControl>, String> {
    if !rule.icmp_info.is_set() {
        return Ok(None);
    }
    let info = &rule.icmp_info;
    // -1 is every code. Garden's rule has no word for every type; -1 is what it has always been
    // given, which is 255 there.
    let byte = |number: i32| u8::try_from(number & 0xff).map_err(|error| error.to_string());
    let code = if info.code == -1 { None } else { Some(byte(info.code)?) };
    Ok(Some(IcmpControl { icmp_type: byte(info.r#type)?, code }))
}

/// `a`, `a/n` or `a-b`.
fn range(text: &str) -> Option<IpRange> {
    if let Some((start, end)) = text.split_once('-') {
        let (start, end): (IpAddr, IpAddr) = (start.trim().parse().ok()?, end.trim().parse().ok()?);
        return (start.is_ipv4() == end.is_ipv4() && start <= end)
            .then_some(IpRange { start: Some(start), end: Some(end) });
    }
    if let Some((address, length)) = text.split_once('/') {
        let address: IpAddr = address.parse().ok()?;
        let length: u32 = length.parse().ok()?;
        return network(address, length);
    }
    let address: IpAddr = text.parse().ok()?;
    Some(IpRange { start: Some(address), end: Some(address) })
}

fn network(address: IpAddr, length: u32) -> Option<IpRange> {
    let (start, end) = match address {
        IpAddr::V4(address) => {
            let host = u32::MAX.checked_shr(length).unwrap_or(0);
            let bits = u32::from(address);
            (length <= 32)
                .then(|| (IpAddr::V4((bits & !host).into()), IpAddr::V4((bits | host).into())))
        }
        IpAddr::V6(address) => {
            let host = u128::MAX.checked_shr(length).unwrap_or(0);
            let bits = u128::from(address);
            (length <= 128)
                .then(|| (IpAddr::V6((bits & !host).into()), IpAddr::V6((bits | host).into())))
        }
    }?;
    Some(IpRange { start: Some(start), end: Some(end) })
}

#[cfg(test)]
mod tests {
    use bbs_models::{ICMPInfo, PortRange as ModelRange, SecurityGroupRule};
    use garden_api::{IcmpControl, PortRange, Protocol};

    use super::{net_out, range};

    fn text(destination: &str) -> Option<String> {
        let range = range(destination)?;
        Some(format!("{}-{}", range.start?, range.end?))
    }

    #[test]
    fn destinations_become_ranges() {
        assert_eq!(text("10.0.0.1").unwrap(), "10.0.0.1-10.0.0.1");
        assert_eq!(text("10.0.0.7/30").unwrap(), "10.0.0.4-10.0.0.7");
        assert_eq!(text("0.0.0.0/0").unwrap(), "0.0.0.0-255.255.255.255");
        assert_eq!(text("10.0.0.1-10.0.0.9").unwrap(), "10.0.0.1-10.0.0.9");
        assert_eq!(text("fd00::/127").unwrap(), "fd00::-fd00::1");
        for wrong in ["", "ten", "10.0.0.0/33", "10.0.0.9-10.0.0.1", "10.0.0.1-::1", "1.2.3.4/x"] {
            assert_eq!(text(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn each_destination_has_a_rule_of_its_own() {
        let rule = SecurityGroupRule {
            protocol: "tcp".into(),
            destinations: vec!["10.0.0.0/8, 192.168.0.1".into(), "172.16.0.0/12".into()],
            ports: vec![80, 443],
            log: true,
            ..Default::default()
        };
        let rules = net_out(&[rule]).unwrap();
        assert_eq!(rules.len(), 3);
        for rule in &rules {
            assert_eq!(rule.protocol, Protocol::Tcp);
            assert_eq!(
                rule.ports,
                [PortRange { start: 80, end: 80 }, PortRange { start: 443, end: 443 }]
            );
            assert!(rule.log);
        }
    }

    #[test]
    fn icmp_and_ranges_are_carried_over() {
        let ping = SecurityGroupRule {
            protocol: "icmp".into(),
            destinations: vec!["0.0.0.0/0".into()],
            icmp_info: ICMPInfo { r#type: 8, code: -1, ..Default::default() }.into(),
            ..Default::default()
        };
        assert_eq!(
            net_out(&[ping]).unwrap()[0].icmps,
            Some(IcmpControl { icmp_type: 8, code: None })
        );
        let range = SecurityGroupRule {
            protocol: "udp".into(),
            destinations: vec!["0.0.0.0/0".into()],
            port_range: ModelRange { start: 1, end: 65535, ..Default::default() }.into(),
            ..Default::default()
        };
        assert_eq!(
            net_out(std::slice::from_ref(&range)).unwrap()[0].ports,
            [PortRange { start: 1, end: 65535 }]
        );
        let beyond = SecurityGroupRule {
            port_range: ModelRange { start: 1, end: 65536, ..Default::default() }.into(),
            ..range
        };
        assert_eq!(
            net_out(&[beyond]).unwrap_err().to_string(),
            "security group rule for \"udp\": 65536 is no port"
        );
    }
}
