//! A limit on how many processes a Garden's supervisor may make, its own and containers' together.

use std::fs;
use std::path::PathBuf;

/// Removed when dropped.
pub struct Cage {
    directory: PathBuf,
    /// Where its processes come from and go back to; none where the cage is the Garden's own cgroup.
    above: Option<PathBuf>,
}

impl Cage {
    /// On v1 a cgroup with keeper and anchor in it, in which every child begins. On v2 a container's
    /// children begin in its own cgroup, and the one above all containers is the cage.
    pub fn around(tag: &str, supervisor: (i32, i32)) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let fields: Vec<Vec<&str>> = mounts.lines().map(|line| line.split(' ').collect()).collect();
        let v1 = fields.iter().find(|mount| {
            mount[2] == "cgroup" && mount[3].split(',').any(|option| option == "pids")
        });
        let Some(v1) = v1 else {
            let unified = fields.iter().find(|mount| mount[2] == "cgroup2").unwrap();
            let directory = PathBuf::from(unified[1]).join(format!("bloomery-{tag}"));
            return Self { directory, above: None };
        };
        let above = PathBuf::from(v1[1]);
        let directory = above.join(format!("cage-{tag}"));
        fs::create_dir(&directory).unwrap();
        for pid in [supervisor.0, supervisor.1] {
            fs::write(directory.join("cgroup.procs"), pid.to_string()).unwrap();
        }
        Self { directory, above: Some(above) }
    }

    /// How many more may be made.
    pub fn leave_room_for(&self, more: u64) {
        let current = fs::read_to_string(self.directory.join("pids.current")).unwrap();
        let most = current.trim().parse::<u64>().unwrap() + more;
        fs::write(self.directory.join("pids.max"), most.to_string()).unwrap();
    }

    pub fn open(&self) {
        let _ = fs::write(self.directory.join("pids.max"), "max");
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let Some(above) = &self.above else { return self.open() };
        let inside = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            let _ = fs::write(above.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.directory);
    }
}
