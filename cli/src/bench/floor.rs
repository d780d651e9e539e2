//! The floor: a container with the fewest system calls, everything made fresh.
//!
//! cgroups are the garden's own code (they are a few writes, and differ by host), `/dev` is too; the
//! rest is `garden_sys::floor`. Nothing is pooled, and the caller waits for all of the cleaning. The
//! writable layer is in memory, so that nobody else's writing to a disk is in the figures.

use std::ffi::CString;
use std::fs;
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, anyhow, bail};
use bloomery_garden::bundle::MASKED;
use bloomery_garden::{devices, identity};
use garden_cgroup::{DeviceFilter, Hierarchy, Leaf, Limits, Slot, garden_default_devices};
use garden_sys::floor::{self, Confinement};
use garden_sys::mounts::{self, Access};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag,
    fsconfig_set_string, fsmount, fsopen,
};

use super::contender::{Contender, Cycle, now, since};
use super::place::Place;
use super::security;

/// See the module.
#[derive(Debug)]
pub struct Floor {
    hierarchy: Hierarchy,
    devices: DeviceFilter,
    directory: PathBuf,
    image: PathBuf,
    seccomp: Vec<u8>,
    capabilities: u64,
    masked_files: Vec<CString>,
    masked_directories: Vec<CString>,
    turns: u32,
}

impl Floor {
    /// Prepares what does not depend on a container.
    pub fn prepare(place: &Place, seccomp: Vec<u8>, capabilities: u64) -> anyhow::Result<Self> {
        let directory = place.volatile().join("floor");
        fs::create_dir(&directory)
            .and_then(|()| fs::create_dir(directory.join("root")))
            .with_context(|| format!("cannot make {}", directory.display()))?;
        let root = format!("{}-floor", place.name());
        let (masked_directories, masked_files) = MASKED
            .iter()
            .map(Path::new)
            .filter(|path| path.exists())
            .partition::<Vec<_>, _>(|path| path.is_dir());
        let relative = |paths: Vec<&Path>| {
            let text = |path: &Path| CString::new(path.as_os_str().as_bytes().split_at(1).1);
            paths.into_iter().map(text).collect::<Result<Vec<_>, _>>()
        };
        Ok(Self {
            hierarchy: Hierarchy::detect(&root, "/sys/fs/cgroup".as_ref())
                .context("cannot use cgroups")?,
            devices: DeviceFilter::new(garden_default_devices())
                .context("cannot make a device filter")?,
            image: place.image(),
            seccomp,
            capabilities,
            masked_files: relative(masked_files)?,
            masked_directories: relative(masked_directories)?,
            directory,
            turns: 0,
        })
    }

    fn run(&self, slot: &Slot, layer: &Path, command: &[&str]) -> anyhow::Result<Vec<u8>> {
        slot.restrict_devices(&self.devices).context("cannot restrict devices")?;
        slot.limit(&Limits {
            memory: Some(security::MEMORY),
            swap_counts: true,
            cpu_shares: Some(security::SHARES),
            cpu_quota: None,
            pids: Some(security::TASKS),
        })
        .context("cannot limit")?;
        let birth = slot.birth(Leaf::Init).context("cannot open a cgroup")?;
        let joins = slot.joins(Leaf::Init).context("cannot open a cgroup")?;
        let joins: Vec<_> = joins.iter().map(AsFd::as_fd).collect();
        let mut views = Vec::new();
        let mut targets = Vec::new();
        for (name, path) in slot.views() {
            let access = Access { read_only: true, inert: true, ..Access::default() };
            views.push(mounts::bind(&path, access).context("cannot show a cgroup")?);
            targets.push(CString::new(format!("sys/fs/cgroup/{name}"))?);
        }
        let new_root = CString::new(self.directory.join("root").as_os_str().as_bytes())?;
        let arguments =
            command.iter().map(|text| CString::new(*text)).collect::<Result<Vec<_>, _>>()?;
        let program = arguments.first().ok_or_else(|| anyhow!("no program"))?;
        let (mut read, write) = std::io::pipe().context("cannot make a pipe")?;
        let child = floor::spawn(&Confinement {
            birth: birth.as_fd(),
            joins: &joins,
            new_root: &new_root,
            views: &targets,
            masked_files: &self.masked_files,
            masked_directories: &self.masked_directories,
            hostname: c"floor",
            seccomp: &self.seccomp,
            capabilities: self.capabilities,
            program,
            arguments: &arguments,
            output: write.as_fd(),
        })
        .context("cannot clone")?;
        drop(write);
        let mounts = (|| {
            for map in ["uid_map", "gid_map"] {
                fs::write(format!("/proc/{}/{map}", child.pid), identity::ID_MAP)?;
            }
            let users = fs::File::open(format!("/proc/{}/ns/user", child.pid))?;
            let root = self.overlay(layer, users.as_fd())?;
            Ok::<_, std::io::Error>((root, devices::file_system(identity::MAPPED_ROOT, false)?))
        })();
        let entered = mounts.and_then(|(root, dev)| {
            let all: Vec<_> = [root.as_fd(), dev.as_fd()]
                .into_iter()
                .chain(views.iter().map(AsFd::as_fd))
                .collect();
            child.enter(&all)
        });
        if let Err(error) = entered {
            child.kill();
            return Err(error).context("cannot furnish a container");
        }
        let mut output = Vec::new();
        read.read_to_end(&mut output).context("cannot read the output")?;
        match child.wait().context("cannot build a container")? {
            0 => Ok(output),
            status => bail!("the process ended with status {status}"),
        }
    }

    fn overlay(
        &self,
        layer: &Path,
        users: std::os::fd::BorrowedFd<'_>,
    ) -> std::io::Result<OwnedFd> {
        let owner = Some(identity::MAPPED_ROOT);
        fs::create_dir(layer)?;
        fs::create_dir(layer.join("upper"))?;
        fs::create_dir(layer.join("work"))?;
        std::os::unix::fs::chown(layer.join("upper"), owner, owner)?;
        let lower = mounts::bind(&self.image, Access::default())?;
        mounts::map_ids(lower.as_fd(), users)?;
        let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
        fsconfig_set_string(
            fs.as_fd(),
            "lowerdir",
            format!("/proc/self/fd/{}", lower.as_raw_fd()),
        )?;
        fsconfig_set_string(fs.as_fd(), "upperdir", layer.join("upper"))?;
        fsconfig_set_string(fs.as_fd(), "workdir", layer.join("work"))?;
        fsconfig_set_flag(fs.as_fd(), "volatile")?;
        fsconfig_create(fs.as_fd())?;
        Ok(fsmount(fs.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?)
    }
}

impl Contender for Floor {
    fn name(&self) -> &str {
        "floor"
    }

    fn cycle(&mut self, command: &[&str]) -> anyhow::Result<Cycle> {
        self.turns += 1;
        let layer = self.directory.join(self.turns.to_string());
        let began = now();
        let slot = self.hierarchy.create(self.turns).context("cannot make a cgroup")?;
        let run = self.run(&slot, &layer, command);
        let cleaned = slot
            .remove(Duration::from_secs(5))
            .context("cannot remove a cgroup")
            .and_then(|()| fs::remove_dir_all(&layer).context("cannot remove a layer"));
        let total = since(began);
        let output = run.context("the floor")?;
        cleaned.context("the floor")?;
        Ok(Cycle { began, total, output, ..Cycle::default() })
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        if let Err(error) = self.hierarchy.remove_root() {
            eprintln!("cannot remove the floor's cgroup: {error}");
        }
    }
}
