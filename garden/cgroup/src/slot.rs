//! One container's place in the hierarchy.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags};
use rustix::fs::OFlags;
use rustix::process::Pid;
use rustix::time::Timespec;

use crate::devices::DeviceFilter;
use crate::directory::{Directory, ignore_gone};
use crate::error::Error;
use crate::hierarchy::{Controller, Roots, enable, remove_patiently};
use crate::limits::{Limits, NotEnforced};
use crate::metrics::Metrics;

/// Where in a slot a process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Leaf {
    /// Pid 1 and nothing else.
    Init,
    /// Processes in the container's own image.
    Processes,
    /// One process with its own image, numbered by the caller; it shares the
    /// slot's limits and has metrics of its own. (One with limits of its own
    /// gets a slot.)
    Pea(u32),
}

impl fmt::Display for Leaf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Init => f.write_str("init"),
            Self::Processes => f.write_str("processes"),
            Self::Pea(number) => write!(f, "pea-{number}"),
        }
    }
}

/// Where a controller's files of a slot are.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Home<'a> {
    V1(&'a Directory),
    V2(&'a Directory),
}

/// A numbered cgroup with its leaves. It can be used from several threads, and
/// opened more than once. It has no descriptors of its own: a daemon has a
/// thousand of these.
#[derive(Debug)]
pub struct Slot {
    number: u32,
    roots: Arc<Roots>,
    unified: Directory,
    /// In the order of `roots.v1`.
    v1: Vec<Directory>,
}

impl Slot {
    pub(crate) fn create(roots: &Arc<Roots>, number: u32) -> Result<Self, Error> {
        let name = number.to_string();
        let unified = roots.unified.create_named(&name)?;
        let rest = || {
            unified.create_named(&Leaf::Init.to_string())?;
            unified.create_named(&Leaf::Processes.to_string())?;
            roots.v1.iter().map(|bound| bound.root.create_named(&name)).collect()
        };
        match rest() {
            Ok(v1) => Ok(Self { number, roots: Arc::clone(roots), unified, v1 }),
            Err(err) => {
                // The reason for the failure matters more than what is left,
                // which `Hierarchy::slots` still shows.
                let _ = roots.remove(number, Duration::ZERO);
                Err(err)
            }
        }
    }

    pub(crate) fn open(roots: &Arc<Roots>, number: u32) -> Result<Self, Error> {
        let name = number.to_string();
        let unified = roots.unified.named_child(&name)?;
        for leaf in [Leaf::Init, Leaf::Processes] {
            unified.named_child(&leaf.to_string())?;
        }
        let v1 =
            roots.v1.iter().map(|bound| bound.root.named_child(&name)).collect::<Result<_, _>>()?;
        Ok(Self { number, roots: Arc::clone(roots), unified, v1 })
    }

    /// Its name under the root.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its v2 directory.
    pub fn path(&self) -> &Path {
        self.unified.path()
    }

    /// The slot's directories, each with its hierarchy's name below `/sys/fs/cgroup`: empty for the
    /// only hierarchy of a v2 host. What a container may see of its cgroups.
    pub fn views(&self) -> Vec<(String, PathBuf)> {
        if self.v1.is_empty() {
            return vec![(String::new(), self.path().to_owned())];
        }
        let view = |directory: &Directory| {
            let path = directory.path();
            // <hierarchy>/<root>/<slot>
            let hierarchy = path.ancestors().nth(2).and_then(Path::file_name)?;
            Some((hierarchy.to_string_lossy().into_owned(), path.to_owned()))
        };
        std::iter::once(&self.unified).chain(&self.v1).filter_map(view).collect()
    }

    /// Makes the leaf of a pea. Fails if it exists.
    pub fn create_pea(&self, number: u32) -> Result<(), Error> {
        let name = Leaf::Pea(number).to_string();
        // Without controllers below the slot a pea would have no memory and pid
        // numbers. Slots without peas are spared them.
        enable(&self.unified)?;
        let directories = std::iter::once(&self.unified).chain(&self.v1);
        for (made, directory) in directories.clone().enumerate() {
            if let Err(err) = directory.create(&name) {
                for directory in directories.take(made) {
                    let _ = directory.remove_tree(&name);
                }
                return Err(err);
            }
        }
        Ok(())
    }

    /// Removes the leaf of a pea, again until `patience` is over while it has
    /// processes; nothing there is a success. Answers how many kills
    /// [`Self::oom_kills`] counts no more.
    pub fn remove_pea(&self, number: u32, patience: Duration) -> Result<u64, Error> {
        let name = Leaf::Pea(number).to_string();
        let forgotten = crate::oom::kills_of_leaf(self, &name)?;
        remove_patiently(&self.path().join(&name), patience, || {
            let mut directories = self.v1.iter().chain([&self.unified]);
            directories.try_for_each(|directory| directory.remove_tree(&name))
        })?;
        Ok(forgotten)
    }

    /// The numbers of the peas that have leaves.
    pub fn peas(&self) -> Result<Vec<u32>, Error> {
        let names = self.unified.children()?;
        let number = |name: &String| name.strip_prefix("pea-")?.parse().ok();
        Ok(names.iter().filter_map(number).collect())
    }

    /// The directory to be born in: clone3(2)'s `cgroup` with
    /// `CLONE_INTO_CGROUP`. On a hybrid host the v1 hierarchies are then still
    /// to be joined.
    pub fn birth(&self, leaf: Leaf) -> Result<OwnedFd, Error> {
        self.unified.file(&leaf.to_string(), OFlags::PATH | OFlags::DIRECTORY)
    }

    /// Files into which a single-threaded child writes `0` to join the v1
    /// hierarchies, before it starts others; none on a v2 host.
    ///
    /// They are `tasks`, not `cgroup.procs`: a thread that moves only itself is
    /// spared the lock that stops all forks and exits of the machine, and which
    /// may wait for an RCU grace period (`kernel/cgroup/cgroup.c`).
    pub fn joins(&self, leaf: Leaf) -> Result<Vec<OwnedFd>, Error> {
        let tasks = |directory: &Directory| directory.file("tasks", OFlags::WRONLY);
        self.v1
            .iter()
            .map(|directory| match leaf {
                Leaf::Init | Leaf::Processes => tasks(directory),
                Leaf::Pea(_) => tasks(&directory.child(&leaf.to_string())?),
            })
            .collect()
    }

    /// Writes the limits that are given and leaves the others as they are.
    /// Returns what this host cannot enforce; the rest is in force.
    pub fn limit(&self, limits: &Limits) -> Result<Vec<NotEnforced>, Error> {
        limits.write(self)
    }

    /// Makes the filter the slot's only one. Applies to all processes in the
    /// slot from then on, and to none of their open descriptors.
    pub fn restrict_devices(&self, filter: &DeviceFilter) -> Result<(), Error> {
        let v1 = match self.home(Controller::Devices) {
            Some(Home::V1(directory)) => Some(directory),
            _ => None,
        };
        filter.apply(self.unified.itself()?.as_fd(), v1)
    }

    /// Usage by everything in the slot, dead processes included.
    pub fn metrics(&self) -> Result<Metrics, Error> {
        Metrics::read(
            &self.unified,
            self.home(Controller::Memory),
            self.home(Controller::Pids),
            self.home(Controller::Cpu),
        )
    }

    /// Usage by one pea.
    pub fn pea_metrics(&self, number: u32) -> Result<Metrics, Error> {
        let name = Leaf::Pea(number).to_string();
        let unified = self.unified.child(&name)?;
        let v1 = self.v1.iter().map(|slot| slot.child(&name)).collect::<Result<Vec<_>, _>>()?;
        let home = |controller| self.roots.home(controller, &unified, &v1);
        Metrics::read(
            &unified,
            home(Controller::Memory),
            home(Controller::Pids),
            home(Controller::Cpu),
        )
    }

    /// How many processes of the slot the kernel killed for want of memory. A
    /// victim is counted before it can be seen to be dead.
    pub fn oom_kills(&self) -> Result<u64, Error> {
        crate::oom::kills(self)
    }

    /// Pids, as the caller's pid namespace has them, of all processes but those
    /// in [`Leaf::Init`], nested cgroups included. Zombies are not among them.
    pub fn workload(&self) -> Result<Vec<Pid>, Error> {
        let mut pids = Vec::new();
        for name in self.unified.children()? {
            if name != Leaf::Init.to_string()
                && let Some(leaf) = ignore_gone(self.unified.child(&name))?
            {
                collect_pids(&leaf, &mut pids)?;
            }
        }
        Ok(pids)
    }

    /// Pids of one leaf, nested cgroups included.
    pub fn pids(&self, leaf: Leaf) -> Result<Vec<Pid>, Error> {
        let mut pids = Vec::new();
        collect_pids(&self.unified.child(&leaf.to_string())?, &mut pids)?;
        Ok(pids)
    }

    /// Whether any process is left, zombies aside.
    pub fn is_populated(&self) -> Result<bool, Error> {
        populated(&self.unified)
    }

    /// Sends SIGKILL to all processes of the slot at once, those being forked
    /// included, and waits until they are dead (not: reaped).
    /// [`Error::NotEmpty`] after `patience`; the signals stay sent. A slot that is
    /// gone has none.
    pub fn kill(&self, patience: Duration) -> Result<(), Error> {
        kill(&self.unified, patience)
    }

    /// The same for one leaf.
    pub fn kill_leaf(&self, leaf: Leaf, patience: Duration) -> Result<(), Error> {
        match ignore_gone(self.unified.child(&leaf.to_string()))? {
            Some(leaf) => kill(&leaf, patience),
            None => Ok(()),
        }
    }

    /// Waits until no process is left, zombies aside; `false` after `patience`.
    pub fn wait_empty(&self, patience: Duration) -> Result<bool, Error> {
        wait_empty(&self.unified, patience)
    }

    /// [`Hierarchy::remove`](crate::Hierarchy::remove) of this slot.
    pub fn remove(&self, patience: Duration) -> Result<(), Error> {
        self.roots.remove(self.number, patience)
    }

    pub(crate) fn home(&self, controller: Controller) -> Option<Home<'_>> {
        self.roots.home(controller, &self.unified, &self.v1)
    }
}

impl Roots {
    fn home<'a>(
        &self,
        controller: Controller,
        unified: &'a Directory,
        v1: &'a [Directory],
    ) -> Option<Home<'a>> {
        let bound = self.v1.iter().zip(v1).find(|(b, _)| b.controllers.contains(&controller));
        match bound {
            Some((_, directory)) => Some(Home::V1(directory)),
            None => self.enabled.contains(&controller).then_some(Home::V2(unified)),
        }
    }
}

fn collect_pids(leaf: &Directory, pids: &mut Vec<Pid>) -> Result<(), Error> {
    for directory in leaf.subtree()? {
        let text = match ignore_gone(directory.read("cgroup.procs")) {
            Ok(text) => text.unwrap_or_default(),
            // The processes of a threaded cgroup are listed by the first
            // ancestor that is not.
            Err(Error::Io { source, .. }) if is_threaded(&source) => continue,
            Err(err) => return Err(err),
        };
        // 0 stands for a process outside of our pid namespace.
        pids.extend(text.lines().filter_map(|line| Pid::from_raw(line.parse().ok()?)));
    }
    Ok(())
}

fn is_threaded(error: &std::io::Error) -> bool {
    rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::OPNOTSUPP)
}

pub(crate) fn kill(directory: &Directory, patience: Duration) -> Result<(), Error> {
    // Where there is no cgroup, there is no process in it.
    if ignore_gone(directory.write("cgroup.kill", "1"))?.is_none() {
        return Ok(());
    }
    if ignore_gone(wait_empty(directory, patience))?.unwrap_or(true) {
        Ok(())
    } else {
        Err(Error::NotEmpty { path: directory.path().to_owned(), waited: patience })
    }
}

const EVENTS: &str = "cgroup.events";

fn populated(directory: &Directory) -> Result<bool, Error> {
    is_populated(directory, &directory.read(EVENTS)?)
}

fn is_populated(directory: &Directory, events: &str) -> Result<bool, Error> {
    match events.lines().find_map(|line| line.strip_prefix("populated ")) {
        Some("0") => Ok(false),
        Some("1") => Ok(true),
        _ => Err(directory.malformed(EVENTS, events)),
    }
}

fn wait_empty(directory: &Directory, patience: Duration) -> Result<bool, Error> {
    let start = Instant::now();
    let events = directory.file(EVENTS, OFlags::RDONLY)?;
    let mut buffer = [0; 256];
    loop {
        // Reading also rearms the notification.
        let len = rustix::io::pread(&events, &mut buffer, 0)
            .map_err(|errno| directory.error("read it", EVENTS, errno))?;
        if !is_populated(directory, &String::from_utf8_lossy(&buffer[..len]))? {
            return Ok(true);
        }
        let left = patience.saturating_sub(start.elapsed());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = Timespec::try_from(left).ok();
        let mut fds = [PollFd::from_borrowed_fd(events.as_fd(), PollFlags::PRI)];
        match rustix::event::poll(&mut fds, timeout.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(directory.error("wait for it", EVENTS, errno)),
        }
    }
}
