//! What a Garden has on its host at this moment, counted from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use bloomery_garden::config::Config;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(30);

/// Numbers of everything that containers and processes leave behind when somebody forgets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    pub containers: usize,
    pub volumes: usize,
    pub cgroups: usize,
    /// Children of the supervisor, its parked ones included.
    pub processes: usize,
    /// Network namespaces of these.
    pub namespaces: usize,
    /// Kept by keeper and anchor for children.
    pub descriptors: [usize; 2],
    /// Mounts of the host's namespace below the Garden's places.
    pub mounts: usize,
    /// The host's ends of containers' links.
    pub links: usize,
    /// Lines of the Garden's table.
    pub rules: usize,
    /// Links with rules of their own.
    pub ruled_links: usize,
}

impl Traces {
    pub fn of(config: &Config) -> Self {
        let count = |path: PathBuf| fs::read_dir(path).map_or(0, Iterator::count);
        let (keeper, anchor) = supervisor(&config.run);
        let kept = |pid| descriptors(pid).keys().filter(|number| **number >= 1024).count();
        let children = children(keeper, anchor);
        let namespace = |pid: &i32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let mut namespaces: Vec<_> = children.iter().filter_map(namespace).collect();
        namespaces.sort();
        namespaces.dedup();
        let here = config.depot.parent().unwrap().to_str().unwrap().to_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let below = |line: &&str| {
            let target = line.split(' ').nth(4).unwrap_or_default();
            target.starts_with(&here) && target != here
        };
        let links = format!("w{}-", config.tag);
        let table = table(&config.tag);
        let chain = format!("\tchain {links}");
        Self {
            containers: count(config.depot.clone()),
            volumes: count(config.store.join("volumes")),
            cgroups: cgroups(&config.tag),
            processes: children.len(),
            namespaces: namespaces.len(),
            descriptors: [kept(keeper), kept(anchor)],
            mounts: mounts.lines().filter(below).count(),
            links: names("/sys/class/net").filter(|name| name.starts_with(&links)).count(),
            rules: table.len(),
            ruled_links: table.iter().filter(|line| line.starts_with(&chain)).count(),
        }
    }

    /// What there is of a Garden whose pool is full and that has so many containers and processes.
    pub fn settled(config: &Config, containers: usize, processes: usize) -> Self {
        let expected = config.pool + containers;
        let kept = expected + 4 * processes;
        let mut last = Self::default();
        until(|| {
            // The networker's part comes last; a Garden in a network namespace of its own has none
            // here. Seen twice the same, for the rest.
            let now = Self::of(config);
            let settled = now.cgroups == expected
                && now.volumes == expected
                && now.descriptors == [kept, kept]
                && now.processes == expected + processes
                && (now.ruled_links == expected || now.rules == 0)
                && now == last;
            last = now;
            settled
        });
        assert_eq!(last.cgroups, expected, "the pool is full: {last:?}");
        last
    }

    /// Waits until everything is as it was.
    pub fn expect_again(&self, config: &Config) {
        let mut now = Self::default();
        until(|| {
            now = Self::of(config);
            now == *self
        });
        assert_eq!(now, *self, "what is left behind");
    }
}

fn until(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    true
}

fn names(directory: impl AsRef<Path>) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok())
}

/// Slots of the v2 hierarchy, which every other one follows.
fn cgroups(tag: &str) -> usize {
    let roots = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(Path::new);
    let root = |root: &&Path| names(root.join(format!("bloomery-{tag}")));
    roots.iter().flat_map(root).filter(|name| name.parse::<u32>().is_ok()).count()
}

/// Lines of a Garden's table.
fn table(tag: &str) -> Vec<String> {
    let listed = Command::new("nft").args(["list", "ruleset"]).output();
    let listed = listed.expect("the tests need Debian's nftables").stdout;
    let listed = String::from_utf8(listed).unwrap();
    let table = format!("bloomery-{tag}");
    let own = |line: &&str| {
        let name = line.strip_prefix("table ").and_then(|rest| rest.split(' ').nth(1));
        name == Some(table.as_str())
    };
    let mut lines = listed.lines().skip_while(|line| !own(line));
    lines.by_ref().take_while(|line| *line != "}").map(str::to_owned).collect()
}

/// Pids of keeper and anchor: they write to the log of their directory.
pub fn supervisor(run: &Path) -> (i32, i32) {
    let log = run.join("supervisor.log");
    let mut found = (0, 0);
    let there = until(|| {
        found = (0, 0);
        for (pid, _) in processes() {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            let ours = || {
                fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|to| to == log)
                    && !is_a_containers(pid)
            };
            match name.trim() {
                "bloomery-keeper" if ours() => found.0 = pid,
                "bloomery-anchor" if ours() => found.1 = pid,
                _ => {}
            }
        }
        found.0 != 0 && found.1 != 0
    });
    assert!(there, "keeper and anchor are there");
    found
}

/// A child that has not yet executed its program looks like the keeper, but for its pid namespace.
fn is_a_containers(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let pids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    pids.is_none_or(|pids| pids.split_whitespace().count() > 1)
}

/// All that keeper and anchor have made.
pub fn children(keeper: i32, anchor: i32) -> Vec<i32> {
    let made = |&(pid, parent): &(i32, i32)| [keeper, anchor].contains(&parent) && pid != keeper;
    processes().filter(made).map(|(pid, _)| pid).collect()
}

/// Open descriptors of a process and what they are.
pub fn descriptors(pid: i32) -> BTreeMap<u32, PathBuf> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let described = |entry: fs::DirEntry| {
        Some((entry.file_name().to_str()?.parse().ok()?, fs::read_link(entry.path()).ok()?))
    };
    entries.filter_map(described).collect()
}

/// Every process and its parent.
pub fn processes() -> impl Iterator<Item = (i32, i32)> {
    fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
        let parent = stat.rsplit(") ").next()?.split(' ').nth(1)?.parse().ok()?;
        Some((pid, parent))
    })
}
