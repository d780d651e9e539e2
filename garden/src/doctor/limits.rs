//! How much there may be of everything that containers need.

use std::fs;

use rustix::process::{Resource, getrlimit};

use super::{Fact, bytes, containers, gardens, number};
use crate::config::Config;

/// Kept descriptors begin here, four per child, and the daemon holds five per process and three per
/// container (ARCHITECTURE.md, Supervision).
const KEPT_FROM: u64 = 1024;
/// A container with a process: eight in the daemon, and as many again for its clients.
const PER_CONTAINER: u64 = 16;
const ROOM: u64 = 1024;
/// For the daemon, its supervisor and the kernel beside containers.
const LITTLE_MEMORY: u64 = 256 << 20;

pub fn examine(config: &Config) -> Vec<Fact> {
    let mut facts = vec![descriptors(config), processes(config), namespaces(config)];
    facts.extend(memory());
    facts
}

/// Those of the server if it runs, which has them from whatever started it.
fn descriptors(config: &Config) -> Fact {
    let running = gardens::server(&config.listen).and_then(|server| {
        let limits =
            fs::read_to_string(format!("/proc/{}/limits", server.as_raw_nonzero())).ok()?;
        most_descriptors(&limits)
    });
    let whose = if running.is_some() { "the server" } else { "a process started from here" };
    let most = running.unwrap_or_else(|| getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
    let needed = KEPT_FROM + ROOM + containers(config) * PER_CONTAINER;
    let fact = Fact::new("descriptors", format!("{most} for {whose}"));
    if most < needed {
        fact.degraded(
            format!("fewer than {} containers with a process each", containers(config)),
            format!(
                "LimitNOFILE={} in the server's unit, or ulimit -Hn",
                needed.next_power_of_two()
            ),
        )
    } else {
        fact
    }
}

/// The hard limit in the text of `/proc/<pid>/limits`.
fn most_descriptors(limits: &str) -> Option<u64> {
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_ascii_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        number => number.parse().ok(),
    }
}

fn processes(config: &Config) -> Fact {
    let limit = |name: &str| number(&format!("/proc/sys/kernel/{name}")).unwrap_or(u64::MAX);
    let most = limit("pid_max").min(limit("threads-max"));
    // An app has a dozen threads at least; beside it run checks and the sidecars of the platform.
    let needed = containers(config).saturating_mul(64);
    let fact = Fact::new("processes", format!("{most} on this host"));
    if most < needed {
        fact.degraded(
            "containers together may run out of processes before their own limits",
            format!("sysctl kernel.pid_max={0} kernel.threads-max={0}", needed.next_power_of_two()),
        )
    } else {
        fact
    }
}

/// Each container has one of each kind.
fn namespaces(config: &Config) -> Fact {
    let limit = |kind: &str| {
        Some((number(&format!("/proc/sys/user/max_{kind}_namespaces"))?, kind.to_owned()))
    };
    let least =
        ["user", "mnt", "net", "pid", "ipc", "uts"].iter().filter_map(|kind| limit(kind)).min();
    let fact = |found: String| Fact::new("namespace limits", found);
    match least {
        Some((most, kind)) if most < containers(config) => {
            fact(format!("{most} {kind} namespaces")).degraded(
                format!("no more than {most} containers"),
                format!("sysctl user.max_{kind}_namespaces={}", containers(config) * 2),
            )
        }
        Some((most, kind)) => fact(format!("{most} {kind} namespaces or more of each kind")),
        None => fact("the kernel sets none".into()),
    }
}

fn memory() -> Option<Fact> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(1024)
    };
    let (available, total) = (field("MemAvailable")?, field("MemTotal")?);
    let fact = Fact::new("memory", format!("{} of {} available", bytes(available), bytes(total)));
    Some(if available < LITTLE_MEMORY {
        fact.degraded("the kernel will kill processes, containers' first", "end what is not needed")
    } else {
        fact
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hard_limit_counts() {
        let limits = "\
Limit                     Soft Limit           Hard Limit           Units
Max processes             1                    2                    processes
Max open files            1024                 524288               files
";
        assert_eq!(most_descriptors(limits), Some(524_288));
        assert_eq!(most_descriptors("Max open files unlimited unlimited files"), Some(u64::MAX));
        assert_eq!(most_descriptors(""), None);
    }

    #[test]
    fn more_containers_than_the_host_takes_are_degraded() {
        let config = Config { max_containers: 0, ..Config::default() };
        let mut many = config.clone();
        many.network.pool = "10.0.0.0/8".into();
        assert!(descriptors(&many).lack.is_some());
        let mut one = config;
        (one.max_containers, one.pool) = (1, 0);
        assert_eq!(processes(&one).lack, None);
        assert_eq!(namespaces(&one).lack, None);
    }
}
