//! What the host offers, and the root under which everything of ours lives.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::{fs, io};

use rustix::io::Errno;
use rustix::process::Pid;

use crate::claim;
use crate::devices;
use crate::directory::{Directory, ignore_gone};
use crate::error::Error;
use crate::mounts::{self, Mounted};
use crate::plugins::{self, PLUGINS, PluginRun};
use crate::slot::Slot;

/// A controller that limits need.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Controller {
    Cpu,
    Memory,
    Pids,
    /// Only where device filters cannot be BPF programs.
    Devices,
}

impl Controller {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Devices => "devices",
        }
    }
}

/// Something limits need that this host lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requirement {
    /// No cpu controller for us: no shares, no quota.
    Cpu,
    /// No memory controller for us: no memory limit, no OOM notice.
    Memory,
    /// No pids controller for us: no pid limit.
    Pids,
    /// Neither BPF device filters nor the v1 devices controller.
    Devices,
}

/// Our root in one v1 hierarchy.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) controllers: Vec<Controller>,
    pub(crate) root: Directory,
}

#[derive(Debug)]
pub(crate) struct Roots {
    name: String,
    /// Where the root is, in the v2 hierarchy and then in those of v1.
    above: Vec<Directory>,
    pub(crate) unified: Directory,
    /// Enabled for the slots in the v2 hierarchy.
    pub(crate) enabled: BTreeSet<Controller>,
    pub(crate) v1: Vec<Bound>,
    pub(crate) devices_by_bpf: bool,
    /// The v2 directory, locked, if it is claimed.
    claim: Option<OwnedFd>,
}

/// The host's cgroups as one place for slots. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Hierarchy {
    roots: Arc<Roots>,
}

impl Hierarchy {
    /// Finds the hierarchies and makes `root_name` in each that is needed, with
    /// all wanted controllers enabled down to its children.
    ///
    /// `under` is `/sys/fs/cgroup`, or on a pure v2 host any cgroup below it
    /// that is delegated to us and has no processes of its own (the kernel's
    /// no-internal-process rule does not bind the real root). Only
    /// `cgroup.subtree_control` of `under` is ever written outside the root.
    ///
    /// Fails without a v2 hierarchy (it may be without controllers).
    pub fn detect(root_name: &str, under: &Path) -> Result<Self, Error> {
        Ok(Self { roots: Arc::new(Roots::detect(root_name, under)?) })
    }

    /// As [`Self::detect`], for `owner` alone: nobody else claims the root for as long as this value
    /// or a clone of it lives, and whoever claims it next is refused while `owner` has slots in it.
    ///
    /// The claim is a lock (flock(2)) on the v2 directory and the owner an extended attribute of it.
    /// So the one ends with the process, however it ends, and the other with the root, as do the
    /// slots that it speaks of. Slots of nobody are taken over.
    ///
    /// Waits up to `patience` for an earlier process of the same owner, and for nobody else.
    pub fn claim(
        root_name: &str,
        under: &Path,
        owner: &Path,
        patience: Duration,
    ) -> Result<Self, Error> {
        let deadline = Instant::now() + patience;
        loop {
            let claimed = Roots::detect(root_name, under).and_then(|roots| roots.claimed(owner));
            let passes = match &claimed {
                Ok(Some(_)) => false,
                // Who had it has removed it at this moment.
                Ok(None) => true,
                Err(Error::InUse { owner: user, .. }) => {
                    user.as_deref().is_none_or(|user| user == owner)
                }
                Err(error) => error.is_gone(),
            };
            match claimed {
                Ok(Some(roots)) => return Ok(Self { roots: Arc::new(roots) }),
                Err(error) if !passes || Instant::now() >= deadline => return Err(error),
                _ => std::thread::sleep(Duration::from_millis(5)),
            }
        }
    }

    /// What of Garden's limits cannot work here, for a warning at start.
    pub fn lacks(&self) -> Vec<Requirement> {
        let controllers = [
            (Controller::Cpu, Requirement::Cpu),
            (Controller::Memory, Requirement::Memory),
            (Controller::Pids, Requirement::Pids),
        ];
        let mut lacking: Vec<_> = controllers
            .into_iter()
            .filter(|&(controller, _)| !self.roots.has(controller))
            .map(|(_, requirement)| requirement)
            .collect();
        if !self.roots.devices_by_bpf && !self.roots.has(Controller::Devices) {
            lacking.push(Requirement::Devices);
        }
        lacking
    }

    /// Whether some controllers are bound to v1, so that [`Slot::joins`] is not
    /// empty.
    pub fn is_hybrid(&self) -> bool {
        !self.roots.v1.is_empty()
    }

    /// Makes a new slot without limits. Fails if any part of it exists: a
    /// leftover may still hold another life's processes. After a failure nothing
    /// new is left behind.
    pub fn create(&self, number: u32) -> Result<Slot, Error> {
        Slot::create(&self.roots, number)
    }

    /// An existing slot, after a restart. [`Error::is_gone`] if it is not (or
    /// only partly) there.
    pub fn open(&self, number: u32) -> Result<Slot, Error> {
        Slot::open(&self.roots, number)
    }

    /// The numbers of all slots of which anything exists, in order.
    pub fn slots(&self) -> Result<Vec<u32>, Error> {
        Ok(self.roots.slots()?.into_iter().collect())
    }

    /// Removes what there is of a slot, bottom up; nothing there is a success.
    /// While processes are inside, tries again until `patience` is over.
    pub fn remove(&self, number: u32, patience: Duration) -> Result<(), Error> {
        self.roots.remove(number, patience)
    }

    /// Makes the cgroup of one run of a plugin.
    pub fn plugin_run(&self) -> Result<PluginRun, Error> {
        PluginRun::create(&self.roots)
    }

    /// Ends the runs that an earlier process has left; each may take `patience`.
    pub fn end_plugin_runs(&self, patience: Duration) -> Result<(), Error> {
        plugins::end_all(&self.roots, patience)
    }

    /// Takes a process that serves all slots into a cgroup of its own beside them, in each hierarchy.
    /// It is in none then of those of whoever started it, whose service manager may kill or limit all
    /// that it finds there.
    pub fn house(&self, pid: Pid) -> Result<(), Error> {
        let pid = pid.as_raw_nonzero().to_string();
        for root in self.roots.all() {
            let house = root.ensure(HOUSE)?;
            if !house.read(PROCESSES)?.lines().any(|inside| inside == pid) {
                bring(&pid, &house)?;
            }
        }
        Ok(())
    }

    /// Removes the root itself; it must not have slots. Processes that it houses move to where the
    /// caller is.
    pub fn remove_root(&self) -> Result<(), Error> {
        for root in self.roots.all() {
            let children = ignore_gone(root.children())?.unwrap_or_default();
            if children.iter().any(|child| child != HOUSE && child != PLUGINS) {
                return Err(root.io("remove it", "", io::ErrorKind::DirectoryNotEmpty.into()));
            }
        }
        self.roots.evict()?;
        // The claimed one last: until then nobody else makes the others.
        let mut above = self.roots.above.iter().rev();
        above.try_for_each(|above| above.remove_tree(&self.roots.name))
    }

    /// The v2 directory of all slots, for whoever must look at them from above.
    pub fn path(&self) -> &Path {
        self.roots.unified.path()
    }
}

impl Roots {
    fn detect(root_name: &str, under: &Path) -> Result<Self, Error> {
        if root_name.is_empty() || root_name.contains(['/', '.', '\0', '\n']) {
            return Err(Error::BadName(root_name.to_owned()));
        }
        let (unified_above, bindings) = locate(under)?;
        let devices_by_bpf = devices::kernel_takes_filters();

        let mut above = vec![unified_above];
        let mut v1 = Vec::new();
        for (controllers, directory) in bindings {
            let controllers: Vec<_> = controllers
                .into_iter()
                .filter(|&controller| controller != Controller::Devices || !devices_by_bpf)
                .collect();
            if !controllers.is_empty() {
                v1.push(Bound { controllers, root: directory.ensure(root_name)? });
                above.push(directory);
            }
        }
        enable(&above[0])?;
        let unified = above[0].ensure(root_name)?;
        let enabled = enable(&unified)?;
        let name = root_name.to_owned();
        Ok(Self { name, above, unified, enabled, v1, devices_by_bpf, claim: None })
    }

    /// Locks the root and writes down whose it is; `None` if it is not the root any more.
    fn claimed(mut self, owner: &Path) -> Result<Option<Self>, Error> {
        let root = self.unified.itself()?;
        let path = || self.unified.path().to_owned();
        let failed = |action| {
            let path = path();
            move |errno: rustix::io::Errno| Error::Io { action, path, source: errno.into() }
        };
        let locked = claim::lock(&root).map_err(failed("lock it"))?;
        let recorded = claim::owner(&root).map_err(failed("read its owner"))?;
        if !locked {
            return Err(Error::InUse { path: path(), owner: recorded });
        }
        if !self.above[0].leads_to(&self.name, &root)? {
            return Ok(None);
        }
        if let Some(other) = recorded.filter(|other| other != owner)
            && !self.slots()?.is_empty()
        {
            return Err(Error::Owned { path: path(), owner: other });
        }
        claim::set_owner(&root, owner).map_err(failed("record its owner"))?;
        self.claim = Some(root);
        Ok(Some(self))
    }

    /// Has what the root houses move to the cgroups of this process.
    fn evict(&self) -> Result<(), Error> {
        let own = fs::read_to_string("/proc/self/cgroup").map_err(|source| Error::Io {
            action: "read it",
            path: "/proc/self/cgroup".into(),
            source,
        })?;
        let controllers =
            |bound: &Bound| bound.controllers.first().map(|controller| controller.name());
        let kinds = std::iter::once(None).chain(self.v1.iter().map(controllers));
        for ((root, kind), above) in self.all().zip(kinds).zip(&self.above) {
            let Some(house) = ignore_gone(root.child(HOUSE))? else { continue };
            for pid in house.read(PROCESSES)?.lines() {
                // Wherever it cannot be: above all slots.
                let place = own_place(&own, kind).and_then(|own| above.child(own).ok());
                bring(pid, place.as_ref().unwrap_or(above))?;
            }
            root.remove_tree(HOUSE)?;
        }
        Ok(())
    }

    fn slots(&self) -> Result<BTreeSet<u32>, Error> {
        let mut numbers = BTreeSet::new();
        for root in self.all() {
            for name in ignore_gone(root.children())?.unwrap_or_default() {
                numbers.extend(parse_number(&name));
            }
        }
        Ok(numbers)
    }

    /// Our root in every hierarchy.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Directory> {
        std::iter::once(&self.unified).chain(self.v1.iter().map(|bound| &bound.root))
    }

    fn has(&self, controller: Controller) -> bool {
        self.enabled.contains(&controller)
            || self.v1.iter().any(|bound| bound.controllers.contains(&controller))
    }

    pub(crate) fn remove(&self, number: u32, patience: Duration) -> Result<(), Error> {
        let name = number.to_string();
        remove_patiently(&self.unified.path().join(&name), patience, || {
            self.all().try_for_each(|root| root.remove_tree(&name))
        })
    }
}

/// Removes a cgroup, again while it is busy until `patience` is over.
pub(crate) fn remove_patiently(
    path: &Path,
    patience: Duration,
    remove: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let start = Instant::now();
    let mut pause = Duration::from_micros(200);
    loop {
        let busy = match remove() {
            Ok(()) => return Ok(()),
            Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::ResourceBusy => {
                Error::NotEmpty { path: path.to_owned(), waited: patience }
            }
            Err(err) => return Err(err),
        };
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Err(busy);
        }
        std::thread::sleep(pause.min(left));
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// Moves a process into a cgroup. One that has ended is nowhere, which is as good.
fn bring(pid: &str, to: &Directory) -> Result<(), Error> {
    match to.write(PROCESSES, pid) {
        Err(Error::Io { source, .. }) if Errno::from_io_error(&source) == Some(Errno::SRCH) => {
            Ok(())
        }
        result => result,
    }
}

/// The path of a process's cgroup, from the lines of its `/proc/<pid>/cgroup` (cgroups(7)): in the v2
/// hierarchy, or in that of a v1 controller.
fn own_place<'a>(lines: &'a str, controller: Option<&str>) -> Option<&'a str> {
    lines.lines().find_map(|line| {
        let (_, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let found = match controller {
            None => controllers.is_empty(),
            Some(name) => controllers.split(',').any(|bound| bound == name),
        };
        found.then(|| path.trim_start_matches('/'))
    })
}

/// Slots are named as numbers print, so that one number has one name.
pub(crate) fn parse_number(name: &str) -> Option<u32> {
    name.parse().ok().filter(|number: &u32| number.to_string() == name)
}

type Bindings = Vec<(Vec<Controller>, Directory)>;

/// The v2 directory to make the root in, and the v1 hierarchies with the
/// controllers they bind.
pub(crate) fn locate(under: &Path) -> Result<(Directory, Bindings), Error> {
    let directory = Directory::open(under)?;
    let stat = rustix::fs::fstatfs(directory.any_fd())
        .map_err(|errno| directory.error("identify it", "", errno))?;
    if stat.f_type == CGROUP2_SUPER_MAGIC {
        return Ok((directory, Vec::new()));
    }
    let real = fs::canonicalize(under).map_err(|source| directory.io("resolve it", "", source))?;
    let mountinfo = fs::read("/proc/self/mountinfo").map_err(|source| Error::Io {
        action: "read it",
        path: "/proc/self/mountinfo".into(),
        source,
    })?;
    let mut unified = None;
    let mut bindings = Bindings::new();
    for mounted in mounts::parse(&mountinfo, &real) {
        match mounted {
            Mounted::Unified(point) => unified = Some(Directory::open(&point)?),
            Mounted::V1(point, names) => {
                let bound = |controller: &Controller| {
                    names.iter().any(|name| name == controller.name())
                        && !bindings.iter().any(|(taken, _)| taken.contains(controller))
                };
                let controllers: Vec<_> = ALL.into_iter().filter(bound).collect();
                if !controllers.is_empty() {
                    bindings.push((controllers, Directory::open(&point)?));
                }
            }
        }
    }
    let unified = unified.ok_or_else(|| Error::NoUnified(under.to_owned()))?;
    Ok((unified, bindings))
}

const ALL: [Controller; 4] =
    [Controller::Cpu, Controller::Memory, Controller::Pids, Controller::Devices];

/// Where processes are that serve all slots; no number, so no slot.
const HOUSE: &str = "keeper";
const PROCESSES: &str = "cgroup.procs";

/// `linux/magic.h`
const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

/// Enables what controllers it can for the children of a v2 cgroup; returns
/// those that are.
pub(crate) fn enable(directory: &Directory) -> Result<BTreeSet<Controller>, Error> {
    const FILE: &str = "cgroup.subtree_control";
    let here = present(&directory.read("cgroup.controllers")?);
    let enabled = present(&directory.read(FILE)?);
    for controller in here.difference(&enabled) {
        directory.write(FILE, &format!("+{}", controller.name()))?;
    }
    Ok(here)
}

pub(crate) fn present(names: &str) -> BTreeSet<Controller> {
    let named = |controller: &Controller| {
        names.split_ascii_whitespace().any(|name| name == controller.name())
    };
    ALL.into_iter().filter(named).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slot_names() {
        for (name, number) in [("0", Some(0)), ("17", Some(17)), ("4294967295", Some(u32::MAX))] {
            assert_eq!(parse_number(name), number);
        }
        for name in ["", "017", "+1", "-1", "1x", "4294967296", "cgroup.procs", "init"] {
            assert_eq!(parse_number(name), None, "{name}");
        }
    }

    #[test]
    fn controllers_of_a_v2_list() {
        let found = present("cpuset cpu io memory hugetlb pids rdma misc\n");
        assert_eq!(
            found.into_iter().collect::<Vec<_>>(),
            [Controller::Cpu, Controller::Memory, Controller::Pids]
        );
        assert!(present("\n").is_empty());
    }

    #[test]
    fn a_process_is_in_one_cgroup_of_each_hierarchy() {
        let lines = "5:cpu,cpuacct:/a\n4:name=systemd:/b\n1:memory:/\n0::/user.slice/c:d\n";
        for (controller, place) in [
            (None, Some("user.slice/c:d")),
            (Some("cpu"), Some("a")),
            (Some("memory"), Some("")),
            (Some("pids"), None),
        ] {
            assert_eq!(own_place(lines, controller), place, "{controller:?}");
        }
    }

    #[test]
    fn roots_have_names_of_their_own() {
        for name in ["", ".", "..", "a/b", "cgroup.procs", "a\0b"] {
            let result = Hierarchy::detect(name, Path::new("/sys/fs/cgroup"));
            assert!(matches!(result, Err(Error::BadName(_))), "{name:?}");
        }
    }
}
