//! How values are written on the command line.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use garden_api::{
    BindMount, BindMountMode, IcmpControl, IpRange, NetOutRule, PortRange, Protocol, ResourceLimits,
};

/// `KEY=VALUE`
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("not of the form KEY=VALUE".into()),
    }
}

/// An environment variable as the process will have it.
pub fn variable(text: &str) -> Result<String, String> {
    pair(text).map(|_| text.to_owned())
}

/// `HOST:CONTAINER`, either may be 0.
pub fn ports(text: &str) -> Result<(u32, u32), String> {
    let port = |text: &str| text.parse::<u16>().ok().map(u32::from);
    text.split_once(':')
        .and_then(|(host, container)| Some((port(host)?, port(container)?)))
        .ok_or_else(|| "not of the form HOST:CONTAINER, each a number up to 65535".into())
}

/// Bytes: a number, or one with K, M, G or T, which are powers of 1024.
pub fn bytes(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.as_bytes().last() {
        Some(b'K' | b'k') => (&text[..text.len() - 1], 10),
        Some(b'M' | b'm') => (&text[..text.len() - 1], 20),
        Some(b'G' | b'g') => (&text[..text.len() - 1], 30),
        Some(b'T' | b't') => (&text[..text.len() - 1], 40),
        _ => (text, 0),
    };
    let number: u64 = digits.parse().map_err(|_| "not a number of bytes like 65536, 64M or 1G")?;
    number.checked_mul(1 << shift).ok_or_else(|| "more bytes than can be counted".into())
}

/// `SOURCE:DESTINATION` or `SOURCE:DESTINATION:rw`, absolute paths.
pub fn bind_mount(text: &str) -> Result<BindMount, String> {
    let parts: Vec<_> = text.split(':').collect();
    let (source, destination, mode) = match parts.as_slice() {
        [source, destination] | [source, destination, "ro"] => {
            (source, destination, BindMountMode::ReadOnly)
        }
        [source, destination, "rw"] => (source, destination, BindMountMode::ReadWrite),
        _ => return Err("not of the form SOURCE:DESTINATION or SOURCE:DESTINATION:rw".into()),
    };
    if !source.starts_with('/') || !destination.starts_with('/') {
        return Err("both paths must begin with a slash".into());
    }
    let (src_path, dst_path) = ((*source).to_owned(), (*destination).to_owned());
    Ok(BindMount { src_path, dst_path, mode, ..BindMount::default() })
}

/// A rule of NetOut: parts with commas between, each `KEY=VALUE` or `log`.
pub fn rule(text: &str) -> Result<NetOutRule, String> {
    let mut rule = NetOutRule::default();
    for part in text.split(',') {
        match part.split_once('=') {
            None if part == "log" => rule.log = true,
            Some(("protocol", name)) => rule.protocol = protocol(name)?,
            Some(("network", range)) => rule.networks.push(network(range)?),
            Some(("port", range)) => rule.ports.push(port_range(range)?),
            Some(("icmp", code)) => rule.icmps = Some(icmp(code)?),
            _ => {
                return Err(format!(
                    "{part:?} is none of protocol=all|tcp|udp|icmp|icmpv6, network=ADDRESS, \
                     network=FIRST-LAST, network=ADDRESS/BITS, port=NUMBER, port=FIRST-LAST, \
                     icmp=TYPE, icmp=TYPE/CODE, log"
                ));
            }
        }
    }
    Ok(rule)
}

fn protocol(name: &str) -> Result<Protocol, String> {
    Ok(match name {
        "all" => Protocol::All,
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "icmp" => Protocol::Icmp,
        "icmpv6" => Protocol::Icmpv6,
        _ => return Err(format!("{name:?} is none of all, tcp, udp, icmp, icmpv6")),
    })
}

fn network(text: &str) -> Result<IpRange, String> {
    let address = |text: &str| -> Result<IpAddr, String> {
        text.parse().map_err(|_| format!("{text:?} is no IP address"))
    };
    if let Some((first, last)) = text.split_once('-') {
        return Ok(IpRange { start: Some(address(first)?), end: Some(address(last)?) });
    }
    let Some((base, bits)) = text.split_once('/') else {
        return Ok(IpRange { start: Some(address(text)?), end: None });
    };
    let bits: u32 = bits.parse().map_err(|_| format!("{bits:?} is no prefix length"))?;
    let too_long = || format!("a prefix of {bits} bits is longer than the address");
    let (start, end) = match address(base)? {
        IpAddr::V4(base) => {
            let host = u32::MAX.checked_shr(bits).unwrap_or(0);
            (bits <= 32).then_some(()).ok_or_else(too_long)?;
            let start = u32::from(base) & !host;
            (Ipv4Addr::from(start).into(), Ipv4Addr::from(start | host).into())
        }
        IpAddr::V6(base) => {
            let host = u128::MAX.checked_shr(bits).unwrap_or(0);
            (bits <= 128).then_some(()).ok_or_else(too_long)?;
            let start = u128::from(base) & !host;
            (Ipv6Addr::from(start).into(), Ipv6Addr::from(start | host).into())
        }
    };
    Ok(IpRange { start: Some(start), end: Some(end) })
}

fn port_range(text: &str) -> Result<PortRange, String> {
    let (start, end) = text.split_once('-').unwrap_or((text, text));
    let port = |text: &str| text.parse().map_err(|_| format!("{text:?} is no port"));
    Ok(PortRange { start: port(start)?, end: port(end)? })
}

fn icmp(text: &str) -> Result<IcmpControl, String> {
    let number = |text: &str| text.parse().map_err(|_| format!("{text:?} is no ICMP type or code"));
    let (icmp_type, code) = match text.split_once('/') {
        Some((icmp_type, code)) => (icmp_type, Some(number(code)?)),
        None => (text, None),
    };
    Ok(IcmpControl { icmp_type: number(icmp_type)?, code })
}

/// A resource limit's name and value, setrlimit(2).
pub fn rlimit(text: &str) -> Result<(String, u64), String> {
    let (name, value) = pair(text)?;
    let value = if value == "unlimited" {
        u64::MAX
    } else {
        value.parse().map_err(|_| format!("{value:?} is neither a number nor unlimited"))?
    };
    limit(&mut ResourceLimits::default(), &name).ok_or_else(|| {
        format!(
            "{name:?} is none of as, core, cpu, data, fsize, locks, memlock, msgqueue, nice, \
             nofile, nproc, rss, rtprio, sigpending, stack"
        )
    })?;
    Ok((name, value))
}

/// Limits by name; the last of several equal names counts.
pub fn resource_limits(pairs: Vec<(String, u64)>) -> ResourceLimits {
    let mut limits = ResourceLimits::default();
    for (name, value) in pairs {
        if let Some(limit) = limit(&mut limits, &name) {
            *limit = Some(value);
        }
    }
    limits
}

fn limit<'a>(limits: &'a mut ResourceLimits, name: &str) -> Option<&'a mut Option<u64>> {
    Some(match name {
        "as" => &mut limits.address_space,
        "core" => &mut limits.core,
        "cpu" => &mut limits.cpu,
        "data" => &mut limits.data,
        "fsize" => &mut limits.fsize,
        "locks" => &mut limits.locks,
        "memlock" => &mut limits.memlock,
        "msgqueue" => &mut limits.msgqueue,
        "nice" => &mut limits.nice,
        "nofile" => &mut limits.nofile,
        "nproc" => &mut limits.nproc,
        "rss" => &mut limits.rss,
        "rtprio" => &mut limits.rtprio,
        "sigpending" => &mut limits.sigpending,
        "stack" => &mut limits.stack,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use garden_api::go_json::encode_compact;

    use super::*;

    fn told(text: &str) -> Result<String, String> {
        rule(text).map(|rule| String::from_utf8(encode_compact(&rule)).unwrap())
    }

    #[test]
    fn rules_become_the_wires() {
        let table = [
            ("log", r#"{"log":true}"#),
            (
                "protocol=tcp,network=10.1.2.3/8,port=80,port=90-99",
                r#"{"protocol":1,"networks":[{"start":"10.0.0.0","end":"10.255.255.255"}],"ports":[{"start":80,"end":80},{"start":90,"end":99}]}"#,
            ),
            (
                "network=1.1.1.1,network=1.1.1.2-1.1.1.9",
                r#"{"networks":[{"start":"1.1.1.1"},{"start":"1.1.1.2","end":"1.1.1.9"}]}"#,
            ),
            (
                "network=2001:db8::/32",
                r#"{"networks":[{"start":"2001:db8::","end":"2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"}]}"#,
            ),
            ("network=0.0.0.0/0", r#"{"networks":[{"start":"0.0.0.0","end":"255.255.255.255"}]}"#),
            ("network=1.2.3.4/32", r#"{"networks":[{"start":"1.2.3.4","end":"1.2.3.4"}]}"#),
            ("protocol=icmp,icmp=0/3", r#"{"protocol":3,"icmps":{"code":3}}"#),
        ];
        for (text, wanted) in table {
            assert_eq!(told(text).unwrap(), wanted, "{text}");
        }
        for bad in ["", "tcp", "port=x", "network=1.2.3.4/33", "network=::/129", "icmp=256"] {
            told(bad).unwrap_err();
        }
    }

    #[test]
    fn numbers_keep_their_bounds() {
        assert_eq!(bytes("64M"), Ok(64 << 20));
        assert_eq!(bytes("0"), Ok(0));
        for bad in ["", "M", "64MB", "-1", "99999999T", "1.5G"] {
            bytes(bad).unwrap_err();
        }
        assert_eq!(ports("0:8080"), Ok((0, 8080)));
        for bad in ["8080", "65536:1", ":", "a:b"] {
            ports(bad).unwrap_err();
        }
        assert_eq!(rlimit("nofile=unlimited"), Ok(("nofile".into(), u64::MAX)));
        assert_eq!(resource_limits(vec![("as".into(), 1)]).address_space, Some(1));
        rlimit("files=1").unwrap_err();
    }

    #[test]
    fn bind_mounts_are_read_only_unless_said_otherwise() {
        assert_eq!(bind_mount("/a:/b").unwrap().mode, BindMountMode::ReadOnly);
        assert_eq!(bind_mount("/a:/b:rw").unwrap().mode, BindMountMode::ReadWrite);
        for bad in ["/a", "a:/b", "/a:b", "/a:/b:rx", "/a:/b:rw:"] {
            bind_mount(bad).unwrap_err();
        }
    }
}
