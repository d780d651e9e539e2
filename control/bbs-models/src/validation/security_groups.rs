//! Egress rules.

use std::net::IpAddr;

use super::{Problems, Validate};
use crate::generated::models::SecurityGroupRule;

impl Validate for SecurityGroupRule {
    fn check(&self, problems: &mut Problems) {
        match self.protocol.as_str() {
            "tcp" | "udp" => {
                problems.invalid_if(self.icmp_info.is_set(), "icmp_info");
                self.check_ports(problems);
            }
            "icmp" => self.check_icmp("icmp_info", problems),
            "icmpv6" => self.check_icmp("icmpv6_info", problems),
            "all" => {
                problems.invalid_if(self.port_range.is_set(), "port_range");
                problems.invalid_if(!self.ports.is_empty(), "ports");
                problems.invalid_if(self.icmp_info.is_set(), "icmp_info");
            }
            _ => problems.invalid("protocol"),
        }
        self.check_destinations(problems);
    }
}

impl SecurityGroupRule {
    fn check_ports(&self, problems: &mut Problems) {
        match (self.ports.is_empty(), self.port_range.as_option()) {
            (true, None) => problems.say("Missing required field: ports or port_range"),
            (false, Some(_)) => problems.say("Invalid: ports and port_range provided"),
            (true, Some(range)) => {
                let (start, end) = (range.start, range.end);
                problems.invalid_if(start < 1 || start > end || end > 65535, "port_range");
            }
            (false, None) => {
                let wrong = self.ports.iter().any(|port| !(1..=65535).contains(port));
                problems.invalid_if(wrong, "ports");
            }
        }
    }

    fn check_icmp(&self, info: &str, problems: &mut Problems) {
        problems.invalid_if(self.port_range.is_set(), "port_range");
        problems.invalid_if(!self.ports.is_empty(), "ports");
        problems.invalid_if(self.icmp_info.is_unset(), info);
    }

    fn check_destinations(&self, problems: &mut Problems) {
        if self.destinations.is_empty() {
            problems.invalid("destinations [ Must have at least 1 destination ]");
        }
        // One destination may itself be a list.
        for destination in self.destinations.iter().flat_map(|list| list.split(',')) {
            if let Err(reason) = check_destination(destination) {
                problems.invalid(&format!("destinations [ {reason} ]"));
            }
        }
    }
}

/// An address, `ADDRESS/BITS` or `FIRST-LAST`.
fn check_destination(destination: &str) -> Result<(), &'static str> {
    let address = |text: &str| text.parse::<IpAddr>().ok();
    if let Some((network, bits)) = destination.split_once('/') {
        let most = match address(network) {
            Some(IpAddr::V4(_)) => 32,
            Some(IpAddr::V6(_)) => 128,
            None => return Err("Invalid CIDR"),
        };
        return match bits.parse::<u8>() {
            Ok(bits) if bits <= most => Ok(()),
            _ => Err("Invalid CIDR"),
        };
    }
    match destination.split_once('-') {
        None => address(destination).map(drop).ok_or("Invalid IP"),
        Some((first, last)) => match (address(first), address(last)) {
            (Some(first), Some(last)) if first.is_ipv4() == last.is_ipv4() && first <= last => {
                Ok(())
            }
            _ => Err("Invalid IP Range"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::check_destination;

    #[test]
    fn destinations_are_addresses_networks_and_ranges() {
        for good in ["1.2.3.4", "::1", "10.0.0.0/8", "::/0", "1.1.1.1-1.1.1.9", "fd00::1-fd00::2"] {
            assert_eq!(check_destination(good), Ok(()), "{good}");
        }
        for bad in ["", "x", "1.2.3", "1.2.3.4/33", "1.1.1.9-1.1.1.1", "1.1.1.1-::1", "a/8", "1-2"]
        {
            assert!(check_destination(bad).is_err(), "{bad}");
        }
    }
}
