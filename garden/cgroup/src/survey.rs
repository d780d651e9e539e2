//! What a host has for containers' limits, and whose cgroups are there, without changing anything.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use rustix::process::Pid;

use crate::claim;
use crate::devices;
use crate::directory::{Directory, ignore_gone};
use crate::error::Error;
use crate::hierarchy::{Controller, Requirement, locate, parse_number, present};

/// What enforces a requirement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Enforcer {
    /// A controller of the v2 hierarchy.
    Unified,
    /// A controller that is bound to the v1 hierarchy mounted here.
    V1(PathBuf),
    /// A BPF program of the kernel's cgroups.
    Program,
}

/// A root of somebody's slots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Root {
    /// Its name.
    pub name: String,
    /// Its v2 directory.
    pub path: PathBuf,
    /// Who has claimed it last, where this may be read.
    pub owner: Option<PathBuf>,
    /// The process that has it claimed now.
    pub user: Option<Pid>,
    /// How many slots are in it.
    pub slots: usize,
}

/// A host's cgroups as they are.
#[derive(Debug)]
pub struct Survey {
    unified: Directory,
    v1: Vec<(BTreeSet<Controller>, PathBuf)>,
    available: BTreeSet<Controller>,
    enabled: BTreeSet<Controller>,
    /// The kernel takes device filters.
    programs: bool,
}

impl Survey {
    /// Looks at the hierarchies at or below `under`. Fails without a v2 hierarchy.
    pub fn of(under: &Path) -> Result<Self, Error> {
        let (unified, bindings) = locate(under)?;
        let v1 = bindings
            .into_iter()
            .map(|(controllers, at)| (controllers.into_iter().collect(), at.path().to_owned()))
            .collect();
        let available = present(&unified.read("cgroup.controllers")?);
        let enabled = present(&unified.read("cgroup.subtree_control")?);
        Ok(Self { unified, v1, available, enabled, programs: devices::kernel_takes_filters() })
    }

    /// The v2 directory in which roots are made.
    pub fn path(&self) -> &Path {
        self.unified.path()
    }

    /// What would enforce a requirement; `None` if nothing does.
    pub fn enforcer(&self, requirement: Requirement) -> Option<Enforcer> {
        let controller = match requirement {
            Requirement::Cpu => Controller::Cpu,
            Requirement::Memory => Controller::Memory,
            Requirement::Pids => Controller::Pids,
            Requirement::Devices if self.programs => return Some(Enforcer::Program),
            Requirement::Devices => Controller::Devices,
        };
        let bound = self.v1.iter().find(|(controllers, _)| controllers.contains(&controller));
        let v1 = bound.map(|(_, path)| Enforcer::V1(path.clone()));
        v1.or_else(|| self.available.contains(&controller).then_some(Enforcer::Unified))
    }

    /// Controllers that are there, and that the first root has to enable for all cgroups beside it.
    pub fn not_enabled(&self) -> Vec<&'static str> {
        self.available.difference(&self.enabled).map(|controller| controller.name()).collect()
    }

    /// Whether processes keep controllers from being enabled: a cgroup other than the real root has
    /// either the one or the other in it (cgroup-v2.rst, "No Internal Process Constraint").
    pub fn is_occupied(&self) -> Result<bool, Error> {
        // The real root has no such file.
        if !self.unified.has("cgroup.type") {
            return Ok(false);
        }
        Ok(!self.unified.read("cgroup.procs")?.trim().is_empty())
    }

    /// All roots whose names begin with `prefix`.
    pub fn roots(&self, prefix: &str) -> Result<Vec<Root>, Error> {
        let locks = fs::read_to_string("/proc/locks").unwrap_or_default();
        let mut roots = Vec::new();
        for name in self.unified.children()? {
            if !name.starts_with(prefix) {
                continue;
            }
            let Some(directory) = ignore_gone(self.unified.named_child(&name))? else { continue };
            let Some(children) = ignore_gone(directory.children())? else { continue };
            let itself = directory.itself()?;
            roots.push(Root {
                path: directory.path().to_owned(),
                owner: claim::owner(&itself).ok().flatten(),
                user: user_of(&locks, itself.as_fd()),
                slots: children.iter().filter(|name| parse_number(name).is_some()).count(),
                name,
            });
        }
        Ok(roots)
    }
}

/// Who holds a flock(2) on a directory, from the text of `/proc/locks` (proc_locks(5)): trying the
/// lock would keep its owner from it.
fn user_of(locks: &str, directory: impl AsFd) -> Option<Pid> {
    let stat = rustix::fs::fstat(directory).ok()?;
    let (major, minor) = (rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev));
    holder(locks, &format!("{major:02x}:{minor:02x}:{}", stat.st_ino))
}

fn holder(locks: &str, file: &str) -> Option<Pid> {
    locks.lines().find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        // Who waits for a lock has an arrow here.
        fields.next().filter(|kind| *kind == "FLOCK")?;
        let pid = fields.nth(2)?.parse().ok();
        fields.next().filter(|found| *found == file)?;
        Pid::from_raw(pid?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_for_a_lock_does_not_hold_it() {
        let locks = "\
1: POSIX  ADVISORY  WRITE 12 00:1b:77 0 EOF
2: FLOCK  ADVISORY  WRITE 34 00:1b:78 0 EOF
2: -> FLOCK  ADVISORY  WRITE 56 00:1b:78 0 EOF
3: FLOCK  ADVISORY  WRITE 0 00:1b:79 0 EOF
";
        assert_eq!(holder(locks, "00:1b:78"), Pid::from_raw(34));
        for nobodys in ["00:1b:77", "00:1b:79", "00:1c:78"] {
            assert_eq!(holder(locks, nobodys), None, "{nobodys}");
        }
    }
}
