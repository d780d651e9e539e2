//! A limit on how many processes some processes may make together: a cgroup of a test's own.

use std::fs;
use std::path::PathBuf;

/// Removed when dropped; who is in it then goes back to where the test itself is.
pub struct Cage {
    directory: PathBuf,
    above: PathBuf,
}

impl Cage {
    /// In the hierarchy that has the pids controller.
    pub fn new(name: &str) -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let fields: Vec<Vec<&str>> = mounts.lines().map(|line| line.split(' ').collect()).collect();
        let v1 = fields.iter().find(|mount| {
            mount[2] == "cgroup" && mount[3].split(',').any(|option| option == "pids")
        });
        let above = match v1 {
            Some(mount) => PathBuf::from(mount[1]),
            None => {
                let unified = fields.iter().find(|mount| mount[2] == "cgroup2").unwrap();
                let above = PathBuf::from(unified[1]);
                fs::write(above.join("cgroup.subtree_control"), "+pids").unwrap();
                above
            }
        };
        let directory = above.join(name);
        fs::create_dir(&directory).unwrap();
        Self { directory, above }
    }

    pub fn put(&self, pid: i32) {
        fs::write(self.directory.join("cgroup.procs"), pid.to_string()).unwrap();
    }

    /// How many more may be made.
    pub fn leave_room_for(&self, more: u64) {
        let current = fs::read_to_string(self.directory.join("pids.current")).unwrap();
        let most = current.trim().parse::<u64>().unwrap() + more;
        fs::write(self.directory.join("pids.max"), most.to_string()).unwrap();
    }

    pub fn open(&self) {
        fs::write(self.directory.join("pids.max"), "max").unwrap();
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let inside = fs::read_to_string(self.directory.join("cgroup.procs")).unwrap_or_default();
        for pid in inside.lines() {
            let _ = fs::write(self.above.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.directory);
    }
}
