//! What a Garden has on its host at this moment, counted from outside.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::{Plot, wait_until};

/// Numbers of everything that containers and processes leave behind when somebody forgets it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Traces {
    pub containers: usize,
    pub volumes: usize,
    pub cgroups: usize,
    /// Children of the supervisor, its parked ones included.
    pub processes: usize,
    /// Kept by keeper and anchor for children.
    pub descriptors: [usize; 2],
    /// Mounts of the host's namespace below the Garden's places.
    pub mounts: usize,
}

impl Plot {
    pub fn traces(&self) -> Traces {
        let count = |path: PathBuf| fs::read_dir(path).map_or(0, Iterator::count);
        let (keeper, anchor) = self.supervisor();
        let kept = |pid| descriptors(pid).keys().filter(|number| **number >= 1024).count();
        let parents = [keeper, anchor];
        let here = self.directory.path().to_str().unwrap().to_owned();
        Traces {
            containers: count(self.config.depot.clone()),
            volumes: count(self.config.store.join("volumes")),
            cgroups: self.cgroups(),
            processes: processes()
                .filter(|(pid, parent)| parents.contains(parent) && !parents.contains(pid))
                .count(),
            descriptors: [kept(keeper), kept(anchor)],
            mounts: fs::read_to_string("/proc/self/mountinfo").unwrap().matches(&here).count(),
        }
    }

    /// Waits until everything is as it was.
    pub fn expect(&self, before: &Traces) {
        let mut now = Traces::default();
        let deadline = std::time::Instant::now() + super::PATIENCE;
        while std::time::Instant::now() < deadline {
            now = self.traces();
            if now == *before {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        assert_eq!(now, *before, "what is left behind");
    }

    /// What there is of a Garden without containers whose pool is full.
    pub fn settled(&self) -> Traces {
        let pool = self.config.pool;
        wait_until("the pool is full", || {
            let now = self.traces();
            now.cgroups == pool && now.descriptors == [pool, pool] && now.processes == pool
        });
        self.traces()
    }

    /// Slots of the v2 hierarchy, which every other one follows.
    fn cgroups(&self) -> usize {
        let name = format!("bloomery-{}", self.config.tag);
        let roots =
            ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"].map(|root| Path::new(root).join(&name));
        let numbered = |entry: fs::DirEntry| entry.file_name().to_str()?.parse::<u32>().ok();
        roots
            .iter()
            .flat_map(|root| fs::read_dir(root).into_iter().flatten().flatten())
            .filter_map(numbered)
            .count()
    }

    /// Pids of keeper and anchor: they write to this Garden's log.
    pub fn supervisor(&self) -> (i32, i32) {
        let log = self.config.run.join("supervisor.log");
        let mut found = (0, 0);
        wait_until("keeper and anchor are there", || {
            found = (0, 0);
            for (pid, _) in processes() {
                let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
                let ours = || fs::read_link(format!("/proc/{pid}/fd/2")).is_ok_and(|to| to == log);
                match name.trim() {
                    "bloomery-keeper" if ours() => found.0 = pid,
                    "bloomery-anchor" if ours() => found.1 = pid,
                    _ => {}
                }
            }
            found.0 != 0 && found.1 != 0
        });
        found
    }
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
