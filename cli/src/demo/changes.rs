//! What a Garden changes on its host, found by looking before and after.

use std::collections::BTreeMap;
use std::fs;
use std::process::Command;

/// A look at what is shared with everybody on this host.
#[derive(Debug)]
pub struct Host {
    values: BTreeMap<String, String>,
}

const SYSCTLS: [&str; 4] = [
    "net/ipv4/ip_forward",
    "net/ipv4/conf/all/route_localnet",
    "net/ipv4/conf/all/rp_filter",
    "net/ipv4/conf/default/rp_filter",
];

impl Host {
    /// Looks now.
    pub fn look() -> Self {
        let mut values = BTreeMap::new();
        for name in SYSCTLS {
            if let Ok(value) = fs::read_to_string(format!("/proc/sys/{name}")) {
                values.insert(name.replace('/', "."), value.trim().to_owned());
            }
        }
        for link in names_in("/sys/class/net") {
            values.insert(format!("link {link}"), "there".into());
        }
        for slot in
            names_in("/sys/fs/cgroup").into_iter().filter(|name| name.starts_with("bloomery"))
        {
            values.insert(format!("cgroup {slot}"), "there".into());
        }
        for table in tables() {
            values.insert(format!("nftables {table}"), "there".into());
        }
        Self { values }
    }

    /// Prints every difference between then and now, a line each.
    pub fn print_changes(&self) {
        let now = Self::look();
        let lines = self.differences(&now);
        if lines.is_empty() {
            println!("  nothing differs from before");
        }
        for line in lines {
            println!("  {line}");
        }
    }

    fn differences(&self, now: &Self) -> Vec<String> {
        let names: std::collections::BTreeSet<_> =
            self.values.keys().chain(now.values.keys()).collect();
        let difference = |name: &&String| match (self.values.get(*name), now.values.get(*name)) {
            (Some(before), Some(after)) if before != after => {
                Some(format!("{name} = {after} (was {before})"))
            }
            (None, Some(_)) => Some(format!("{name} (new)")),
            (Some(_), None) => Some(format!("{name} (gone)")),
            _ => None,
        };
        names.iter().filter_map(difference).collect()
    }
}

fn names_in(directory: &str) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

/// Tables by nft(8), where it is installed: only for this list.
fn tables() -> Vec<String> {
    let listed = Command::new("nft").args(["list", "tables"]).output();
    let text = listed.map(|output| output.stdout).unwrap_or_default();
    String::from_utf8_lossy(&text).lines().map(|line| line.trim().to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_told_in_both_directions() {
        let host = |pairs: &[(&str, &str)]| Host {
            values: pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        };
        let before = host(&[("a", "0"), ("link x", "there"), ("same", "1")]);
        let after = host(&[("a", "1"), ("link y", "there"), ("same", "1")]);
        assert_eq!(before.differences(&after), ["a = 1 (was 0)", "link x (gone)", "link y (new)"]);
    }
}
