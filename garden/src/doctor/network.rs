//! Whether packets of containers would go where they are to.

use std::fs::{self, File};

use garden_networker::{Ipv4Network, has_uplink, obstacles, overlaps, rehearse};
use garden_sys::namespaces;

use super::{Fact, NO_CONTAINER, chain, number};
use crate::config::Config;
use crate::network;
use crate::plugin;

const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
const OWN_PORTS: &str = "/proc/sys/net/ipv4/ip_local_port_range";
const CONNECTIONS: &str = "/proc/sys/net/netfilter/nf_conntrack";

pub fn examine(config: &Config) -> Vec<Fact> {
    if let Some(plugin) = &config.network_plugin {
        // All that follows is of the built-in network.
        let fact = Fact::new("network", format!("by the plugin {}", plugin.program.display()));
        return vec![match plugin::usable("network", plugin) {
            Ok(()) => fact,
            Err(error) => Fact::new("network", error.to_string())
                .missing("the server does not start", "another --network-plugin, or none"),
        }];
    }
    let mut facts = vec![rehearsed(config), forwarding()];
    facts.extend(firewalls(config));
    facts.extend([pool(config), way_out(config), ports(config)]);
    facts.extend(connections());
    facts
}

/// Links, addresses, routes and rules, in namespaces that end with them.
fn rehearsed(config: &Config) -> Fact {
    let fact = |found: String| Fact::new("network", found);
    let refused = |found: String| {
        fact(found).missing(
            NO_CONTAINER,
            "a kernel with veth and nftables (CONFIG_VETH, CONFIG_NF_TABLES, NFT_NAT, NFT_MASQ, \
             NFT_LOG), its modules loaded or to be loaded",
        )
    };
    let played = || -> Result<(), String> {
        let place = tempfile::tempdir().map_err(|error| error.to_string())?;
        let mut settings = network::settings(config).map_err(|error| error.to_string())?;
        settings.memory = place.path().join("network");
        let new =
            || namespaces::network().map_err(|error| format!("no network namespace: {error}"));
        rehearse(new()?, new()?, settings).map_err(|error| chain(&error))
    };
    match played() {
        Ok(()) => fact("links, addresses and rules of a container work".into()),
        Err(error) => refused(error),
    }
}

fn forwarding() -> Fact {
    let fact = |found: String| Fact::new("forwarding", found);
    match number(FORWARDING) {
        Some(1) => fact("on".into()),
        _ => match File::options().write(true).open(FORWARDING) {
            Ok(_) => fact("off; the server will turn it on".into()),
            Err(error) => fact(format!("off, and cannot be turned on: {error}")).missing(
                "the server does not start",
                "sysctl net.ipv4.ip_forward=1 on the host itself",
            ),
        },
    }
}

fn firewalls(config: &Config) -> Vec<Fact> {
    let fact = |found: String| Fact::new("other firewalls", found);
    match obstacles(&config.tag) {
        Ok(found) if found.is_empty() => vec![fact("none that drops what is forwarded".into())],
        Ok(found) => found
            .iter()
            .map(|obstacle| {
                fact(format!("{obstacle} drops what it does not allow"))
                    .degraded("containers reach nothing beyond this host", obstacle.mend())
            })
            .collect(),
        Err(error) => vec![
            fact(chain(&error))
                .degraded("what they do is unknown", "let root list nftables' rules"),
        ],
    }
}

fn pool(config: &Config) -> Fact {
    let text = &config.network.pool;
    let fact = |found: String| Fact::new("network pool", found);
    let other = "name another --network-pool";
    let pool = match text.parse::<Ipv4Network>() {
        Ok(pool) => pool,
        Err(error) => return fact(error.to_string()).missing("the server does not start", other),
    };
    match overlaps(pool, &config.tag) {
        Ok(found) if found.is_empty() => {
            fact(format!("{text}, {} containers with those that wait", super::containers(config)))
        }
        Ok(found) => {
            let networks: Vec<_> = found.iter().map(ToString::to_string).collect();
            fact(format!("{text} overlaps the host's own {}", networks.join(", ")))
                .degraded("some of these hosts, or some containers, are not reached", other)
        }
        Err(error) => fact(chain(&error)).degraded("whether it is free is unknown", other),
    }
}

fn way_out(config: &Config) -> Fact {
    let fact = |found: String| Fact::new("way out", found);
    if let Some(address) = config.network.external_ip {
        return fact(format!("as {address}, by --external-ip"));
    }
    match has_uplink() {
        Ok(true) => fact("by the default route".into()),
        Ok(false) => fact("no default route".into()).degraded(
            "containers' ports are reached by 127.0.0.1 only",
            "start the server once the host has one, or with --external-ip",
        ),
        Err(error) => fact(chain(&error)).degraded("it is unknown", "let root list routes"),
    }
}

/// Ports for containers must not be those that the kernel gives to connections of the host.
fn ports(config: &Config) -> Fact {
    let first = config.network.port_pool_start;
    let last = first.saturating_add(config.network.port_pool_size.saturating_sub(1));
    let text = fs::read_to_string(OWN_PORTS).unwrap_or_default();
    let own: Vec<u16> =
        text.split_ascii_whitespace().filter_map(|port| port.parse().ok()).collect();
    let fact = Fact::new("ports", format!("{first} to {last} for containers"));
    match own[..] {
        [from, to] if from <= last && first <= to => fact.degraded(
            format!("a port may be taken by one of the host's own connections, {from} to {to}"),
            format!("sysctl net.ipv4.ip_local_port_range=\"{from} {}\"", first.saturating_sub(1)),
        ),
        _ => fact,
    }
}

/// The kernel's one table of connections, which all containers share.
fn connections() -> Option<Fact> {
    let count = number(&format!("{CONNECTIONS}_count"))?;
    let most = number(&format!("{CONNECTIONS}_max"))?;
    let fact = Fact::new("connections", format!("{count} of {most} are followed"));
    Some(if count > most / 10 * 9 {
        fact.degraded(
            "new connections are dropped when there are no more",
            format!("sysctl net.netfilter.nf_conntrack_max={}", most.saturating_mul(2)),
        )
    } else {
        fact
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_that_the_host_is_in_is_degraded_and_one_that_is_none_is_missing() {
        let mut config = Config::default();
        config.network.pool = "127.0.0.0/8".into();
        let lack = pool(&config).lack.unwrap();
        assert_eq!(lack.grade, super::super::Grade::Degraded);
        config.network.pool = "everywhere".into();
        assert_eq!(pool(&config).lack.unwrap().grade, super::super::Grade::Missing);
    }

    #[test]
    fn ports_of_the_hosts_own_connections_are_not_for_containers() {
        let range = fs::read_to_string(OWN_PORTS).unwrap();
        let first = range.split_ascii_whitespace().next().unwrap().parse().unwrap();
        let mut config = Config::default();
        (config.network.port_pool_start, config.network.port_pool_size) = (first, 1);
        assert!(ports(&config).lack.is_some());
        (config.network.port_pool_start, config.network.port_pool_size) = (first - 10, 10);
        assert_eq!(ports(&config).lack, None);
    }
}
