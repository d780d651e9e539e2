//! What a Garden has on its host at this moment, counted from outside.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Entries of the depot, of the keeper's directory, of the store and of each directory in it.
    pub files: BTreeMap<String, usize>,
    /// Slots, and all directories below the Garden's, in each cgroup hierarchy that has any.
    pub cgroups: BTreeMap<PathBuf, [usize; 2]>,
    /// Children of the supervisor, its parked ones included, and whatever else is in the Garden's cgroups:
    /// those of an anchor that was killed are its children no more.
    pub processes: usize,
    /// Namespaces of these, by kind.
    pub namespaces: BTreeMap<&'static str, usize>,
    /// Of keeper and anchor: kept for children, and for themselves.
    pub descriptors: [[usize; 2]; 2],
    /// Mounts of the host's namespace below the Garden's places.
    pub mounts: usize,
    /// Mounts in the namespaces of keeper and anchor.
    pub supervisor_mounts: [usize; 2],
    /// The host's ends of containers' links.
    pub links: usize,
    /// Lines of the Garden's table.
    pub rules: usize,
    /// Links with rules of their own.
    pub ruled_links: usize,
}

impl Traces {
    pub fn of(config: &Config) -> Self {
        let (keeper, anchor) = supervisor(&config.run);
        let mut children = children(keeper, anchor);
        let others = |pid: &i32| ![keeper, anchor].contains(pid);
        children.extend(members(&config.tag).into_iter().filter(others));
        children.sort_unstable();
        children.dedup();
        let here = config.depot.parent().unwrap().to_str().unwrap().to_owned();
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let own = |line: &&str| {
            let target = line.split(' ').nth(4).unwrap_or_default();
            target.starts_with(&here) && target != here
        };
        let links = format!("w{}-", config.tag);
        let table = table(&config.tag);
        let chain = format!("\tchain {links}");
        Self {
            files: files(config),
            cgroups: cgroups(&config.tag),
            processes: children.len(),
            namespaces: NAMESPACES
                .map(|kind| (kind, namespaces(&children, kind).len()))
                .into_iter()
                .collect(),
            descriptors: [kept_and_own(keeper), kept_and_own(anchor)],
            mounts: mounts.lines().filter(own).count(),
            supervisor_mounts: [keeper, anchor].map(|pid| {
                let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo"));
                mounts.unwrap_or_default().lines().count()
            }),
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
            let settled = now.has_slots(expected)
                && now.files.get("store/volumes") == Some(&expected)
                && now.descriptors.map(|[kept, _]| kept) == [kept, kept]
                && now.processes == expected + processes
                && (now.ruled_links == expected || now.rules == 0)
                && now == last;
            last = now;
            settled
        });
        assert!(last.has_slots(expected), "the pool is full: {last:?}");
        last
    }

    /// Every hierarchy has so many slots.
    fn has_slots(&self, expected: usize) -> bool {
        !self.cgroups.is_empty() && self.cgroups.values().all(|[slots, _]| *slots == expected)
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

fn files(config: &Config) -> BTreeMap<String, usize> {
    let count = |path: &Path| names(path).count();
    let mut files = BTreeMap::from([
        ("depot".to_owned(), count(&config.depot)),
        ("run".to_owned(), count(&config.run)),
        ("store".to_owned(), count(&config.store)),
    ]);
    let directories = names(&config.store).filter(|name| config.store.join(name).is_dir());
    files
        .extend(directories.map(|name| (format!("store/{name}"), count(&config.store.join(name)))));
    files
}

/// The Garden's directories in the v2 hierarchy and in all of v1 where it has one.
fn roots(tag: &str) -> Vec<(PathBuf, PathBuf)> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    let hierarchies = mounts.lines().filter_map(|mount| {
        let fields: Vec<_> = mount.split(' ').collect();
        ["cgroup", "cgroup2"].contains(&fields[2]).then(|| PathBuf::from(fields[1]))
    });
    let roots = hierarchies.map(|hierarchy| {
        let root = hierarchy.join(format!("bloomery-{tag}"));
        (hierarchy, root)
    });
    roots.filter(|(_, root)| root.is_dir()).collect()
}

fn cgroups(tag: &str) -> BTreeMap<PathBuf, [usize; 2]> {
    let counted = |(hierarchy, root): (PathBuf, PathBuf)| {
        let slots = names(&root).filter(|name| name.parse::<u32>().is_ok()).count();
        // Made for the first plugin that runs, and there to stay.
        let standing = usize::from(root.join("plugins").is_dir());
        (hierarchy, [slots, below(&root).len() - standing])
    };
    roots(tag).into_iter().map(counted).collect()
}

fn members(tag: &str) -> Vec<i32> {
    let directories = roots(tag).into_iter().flat_map(|(_, root)| below(&root));
    let members = directories.flat_map(|directory| {
        let members = fs::read_to_string(directory.join("cgroup.procs")).unwrap_or_default();
        members.lines().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
    });
    // Of another pid namespace.
    members.filter(|pid| *pid != 0).collect()
}

/// All directories in it.
fn below(directory: &Path) -> Vec<PathBuf> {
    let inside = names(directory).map(|name| directory.join(name)).filter(|path| path.is_dir());
    inside.flat_map(|path| [below(&path), vec![path]].concat()).collect()
}

const NAMESPACES: [&str; 7] = ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"];

fn namespaces(pids: &[i32], kind: &str) -> BTreeSet<PathBuf> {
    pids.iter().filter_map(|pid| fs::read_link(format!("/proc/{pid}/ns/{kind}")).ok()).collect()
}

/// The numbers of those that are kept for children begin at 1024.
fn kept_and_own(pid: i32) -> [usize; 2] {
    let all = descriptors(pid);
    let kept = all.keys().filter(|number| **number >= 1024).count();
    [kept, all.len() - kept]
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
