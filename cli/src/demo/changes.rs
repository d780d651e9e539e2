//! What a Garden changes on its host, found by looking before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::{fmt, fs};

use anyhow::Context;

use crate::say::say;

/// Every setting of IPv4 is looked at: the one that a daemon sets changes others with it (ip-sysctl,
/// `ip_forward`), each interface's among them.
const SYSCTLS: &str = "/proc/sys";
const LOOKED_AT: &str = "net/ipv4";

/// A look at what is shared with everybody on this host.
#[derive(Debug)]
pub struct Host {
    values: BTreeMap<Thing, String>,
}

/// What can differ.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Thing {
    Sysctl(String),
    Link(String),
    Cgroup(String),
    /// By its family and its name.
    Table(String),
}

impl fmt::Display for Thing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sysctl(name) => write!(f, "sysctl {name}"),
            Self::Link(name) => write!(f, "link {name}"),
            Self::Cgroup(name) => write!(f, "cgroup {name}"),
            Self::Table(name) => write!(f, "nftables table {name}"),
        }
    }
}

impl Host {
    /// Looks now.
    pub fn look() -> anyhow::Result<Self> {
        let mut values = BTreeMap::new();
        look_at_sysctls(LOOKED_AT, &mut values)?;
        let mut there = |thing| values.insert(thing, String::new());
        for link in names_in("/sys/class/net")? {
            there(Thing::Link(link));
        }
        for cgroup in names_in("/sys/fs/cgroup")? {
            if cgroup.starts_with("bloomery") {
                there(Thing::Cgroup(cgroup));
            }
        }
        for table in garden_networker::table_names()? {
            there(Thing::Table(table));
        }
        Ok(Self { values })
    }

    /// Prints every difference between then and now, a line each.
    pub fn print_changes(&self) -> anyhow::Result<()> {
        let lines = self.differences(&Self::look()?);
        if lines.is_empty() {
            say!("  nothing differs from before");
        }
        for line in lines {
            say!("  {line}");
        }
        Ok(())
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let things: BTreeSet<_> = self.values.keys().chain(now.values.keys()).collect();
        let difference = |thing: &Thing| match (self.values.get(thing), now.values.get(thing)) {
            (Some(before), Some(after)) if before != after => {
                Some(format!("{thing} = {after} (was {before})"))
            }
            // Nobody makes or removes a setting: it comes and goes with its link.
            (None, Some(_)) | (Some(_), None) if matches!(thing, Thing::Sysctl(_)) => None,
            (None, Some(_)) => Some(format!("{thing} (new)")),
            (Some(_), None) => Some(format!("{thing} (gone)")),
            _ => None,
        };
        things.into_iter().filter_map(difference).collect()
    }
}

/// Looks at a setting, or at all that are below it.
fn look_at_sysctls(path: &str, values: &mut BTreeMap<Thing, String>) -> anyhow::Result<()> {
    let file = Path::new(SYSCTLS).join(path);
    if file.is_dir() {
        for name in names_in(&file)? {
            look_at_sysctls(&format!("{path}/{name}"), values)?;
        }
    } else if let Ok(value) = fs::read_to_string(&file) {
        // Those that cannot be read are there to be written only.
        let words: Vec<_> = value.split_whitespace().collect();
        values.insert(Thing::Sysctl(sysctl_name(path)), words.join(" "));
    }
    Ok(())
}

/// As sysctl(8) takes it: with slashes where an interface's name has dots.
fn sysctl_name(path: &str) -> String {
    if path.contains('.') { path.to_owned() } else { path.replace('/', ".") }
}

/// Names in a directory; none if it has gone meanwhile.
fn names_in(directory: impl AsRef<Path>) -> anyhow::Result<Vec<String>> {
    let directory = directory.as_ref();
    let entries = match fs::read_dir(directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(|| format!("cannot list {}", directory.display()))?,
    };
    Ok(entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_in_both_directions() {
        let host = |link: &str, forwarding: &str| {
            let sysctl = |name: &str, value: &str| (Thing::Sysctl(name.into()), value.to_owned());
            let values = [
                sysctl("net.ipv4.ip_forward", forwarding),
                sysctl("net.ipv4.tcp_sack", "1"),
                sysctl(&format!("net.ipv4.conf.{link}.forwarding"), forwarding),
                (Thing::Link(link.into()), String::new()),
            ];
            Host { values: values.into() }
        };
        assert_eq!(
            host("x", "0").differences(&host("y", "1")),
            ["sysctl net.ipv4.ip_forward = 1 (was 0)", "link x (gone)", "link y (new)"]
        );
    }

    #[test]
    fn settings_have_the_names_that_sysctl_takes() {
        assert_eq!(sysctl_name("net/ipv4/ip_forward"), "net.ipv4.ip_forward");
        let of_interface = "net/ipv4/conf/eth0.100/forwarding";
        assert_eq!(sysctl_name(of_interface), of_interface);
    }

    #[test]
    fn a_look_finds_what_is_there() {
        let host = Host::look().unwrap();
        let sysctl = |name: &str| host.values.get(&Thing::Sysctl(name.into()));
        let forwarding = fs::read_to_string("/proc/sys/net/ipv4/conf/all/forwarding").unwrap();
        assert_eq!(sysctl("net.ipv4.conf.all.forwarding").unwrap(), forwarding.trim());
        assert!(host.values.contains_key(&Thing::Link("lo".into())));
    }
}
