//! What a container's `/etc/hosts` and `/etc/resolv.conf` say.

use std::net::{IpAddr, Ipv4Addr};

/// A host name is the handle, or its last 49 characters (Garden reference).
const LONGEST_HOST_NAME: usize = 49;

/// Where a container's name servers come from; the first that says something wins.
#[derive(Clone, Debug, Default)]
pub struct NameServers {
    /// What a network plugin answered, if it did; none at all is an answer.
    pub plugin: Option<Vec<IpAddr>>,
    /// Search domains of a network plugin, if it named some; they replace the host's `search` line.
    pub plugin_search: Option<Vec<String>>,
    /// The operator's `--dns-server`s.
    pub configured: Vec<IpAddr>,
    /// The operator's `--additional-dns-server`s, appended to the configured or the host's.
    pub additional: Vec<IpAddr>,
}

/// The content of `/etc/resolv.conf`. `host_file` is the host's own, of which comments, loopback
/// name servers and nonsense are dropped. When it names nothing but loopback, the container asks
/// `gateway`, the host's address on its network.
#[must_use]
pub fn resolv_conf(servers: &NameServers, host_file: &str, gateway: Option<Ipv4Addr>) -> String {
    let mut lines = Vec::new();
    let mut name = |server: &IpAddr| lines.push(format!("nameserver {server}"));
    let mut others = Vec::new();
    if let Some(plugin) = &servers.plugin {
        plugin.iter().for_each(&mut name);
    } else if servers.configured.is_empty() {
        let host = HostFile::parse(host_file);
        others = host.others;
        if host.servers.is_empty() && host.loopback.is_some() {
            gateway.iter().for_each(|gateway| name(&IpAddr::V4(*gateway)));
        }
        host.servers.iter().chain(&servers.additional).for_each(&mut name);
    } else {
        servers.configured.iter().chain(&servers.additional).for_each(&mut name);
    }
    if let Some(search) = &servers.plugin_search {
        others.retain(|line| !line.starts_with("search") && !line.starts_with("domain"));
        if !search.is_empty() {
            others.push(format!("search {}", search.join(" ")));
        }
    }
    lines.extend(others);
    lines.iter().map(|line| format!("{line}\n")).collect()
}

/// Whether a resolver configuration names a server that others than the host itself can ask.
pub(crate) fn names_servers(host_file: &str) -> bool {
    !HostFile::parse(host_file).servers.is_empty()
}

/// The host's own server on its loopback, where [`resolv_conf`] sends containers to the gateway.
pub(crate) fn loopback_server(servers: &NameServers, host_file: &str) -> Option<Ipv4Addr> {
    let host = HostFile::parse(host_file);
    let asked = servers.plugin.is_none() && servers.configured.is_empty();
    host.loopback.filter(|_| asked && host.servers.is_empty())
}

struct HostFile {
    servers: Vec<IpAddr>,
    /// The first IPv4 one.
    loopback: Option<Ipv4Addr>,
    others: Vec<String>,
}

impl HostFile {
    fn parse(text: &str) -> Self {
        let mut file = Self { servers: Vec::new(), loopback: None, others: Vec::new() };
        for line in text.lines() {
            let mut words = line.split_whitespace();
            match (words.next(), words.next()) {
                (Some("nameserver"), Some(server)) => match server.parse::<IpAddr>() {
                    Ok(IpAddr::V4(server)) if server.is_loopback() => {
                        file.loopback = file.loopback.or(Some(server));
                    }
                    Ok(server) if server.is_loopback() => {}
                    Ok(server) => file.servers.push(server),
                    Err(_) => {}
                },
                (Some("search" | "domain" | "options" | "sortlist"), Some(_)) => {
                    file.others.push(line.split_whitespace().collect::<Vec<_>>().join(" "));
                }
                _ => {}
            }
        }
        file
    }
}

/// The host name of a container: its handle's last 49 characters.
#[must_use]
pub fn host_name(handle: &str) -> &str {
    let start = handle.char_indices().rev().nth(LONGEST_HOST_NAME - 1).map_or(0, |(at, _)| at);
    &handle[start..]
}

/// The content of `/etc/hosts`: localhost, the container's addresses under its host name, the
/// operator's lines.
#[must_use]
pub fn hosts(handle: &str, addresses: &[IpAddr], additional_lines: &[String]) -> String {
    let mut text = String::from("127.0.0.1 localhost\n");
    if addresses.iter().any(IpAddr::is_ipv6) {
        text.push_str("::1 localhost\n");
    }
    for address in addresses {
        text.push_str(&format!("{address} {}\n", host_name(handle)));
    }
    for line in additional_lines {
        text.push_str(line);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    const GATEWAY: Option<Ipv4Addr> = Some(Ipv4Addr::new(10, 254, 0, 1));

    #[test]
    fn the_hosts_own_servers_without_loopback() {
        let host = "# made by hand\nnameserver 127.0.0.53\nnameserver 192.0.2.53\n\
                    options  edns0\nsearch example.com\nnameserver nonsense\n";
        let servers = NameServers { additional: vec![ip("192.0.2.54")], ..Default::default() };
        assert_eq!(
            resolv_conf(&servers, host, GATEWAY),
            "nameserver 192.0.2.53\nnameserver 192.0.2.54\noptions edns0\nsearch example.com\n"
        );
    }

    #[test]
    fn only_loopback_means_the_gateway() {
        let none = NameServers::default();
        assert_eq!(
            resolv_conf(&none, "nameserver 127.0.0.53\n", GATEWAY),
            "nameserver 10.254.0.1\n"
        );
        assert_eq!(resolv_conf(&none, "", GATEWAY), "");
    }

    #[test]
    fn the_operator_and_the_plugin_come_first() {
        let mut servers = NameServers {
            configured: vec![ip("192.0.2.1")],
            additional: vec![ip("192.0.2.2")],
            ..Default::default()
        };
        let host = "nameserver 192.0.2.53\nsearch example.com\n";
        assert_eq!(
            resolv_conf(&servers, host, GATEWAY),
            "nameserver 192.0.2.1\nnameserver 192.0.2.2\n"
        );
        servers.plugin = Some(vec![ip("169.254.0.2")]);
        servers.plugin_search = Some(vec!["apps.internal".into(), "svc".into()]);
        assert_eq!(
            resolv_conf(&servers, host, GATEWAY),
            "nameserver 169.254.0.2\nsearch apps.internal svc\n"
        );
        (servers.plugin, servers.plugin_search) = (Some(Vec::new()), None);
        assert_eq!(resolv_conf(&servers, host, GATEWAY), "");
    }

    #[test]
    fn plugin_search_replaces_the_hosts() {
        let servers = NameServers { plugin_search: Some(vec!["a".into()]), ..Default::default() };
        assert_eq!(
            resolv_conf(&servers, "nameserver 192.0.2.53\nsearch example.com\n", GATEWAY),
            "nameserver 192.0.2.53\nsearch a\n"
        );
    }

    #[test]
    fn host_names_are_the_last_49_characters() {
        assert_eq!(host_name("box"), "box");
        let long = format!("{}{}", "a".repeat(10), "b".repeat(49));
        assert_eq!(host_name(&long), "b".repeat(49));
        assert_eq!(
            hosts("box", &[ip("10.254.0.2"), ip("fd00::2")], &["1.2.3.4 db".into()]),
            "127.0.0.1 localhost\n::1 localhost\n10.254.0.2 box\nfd00::2 box\n1.2.3.4 db\n"
        );
    }
}
