//! From the kernel's first process to a machine that can run containers.

use std::ffi::CString;
use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::process::Command;

use rustix::io::Errno;
use rustix::mount::{MountFlags, mount, mount_bind, mount_move};
use rustix::process::{chdir, chroot};
use rustix::system::finit_module;

/// What the image says about its modules: lines of a path and parameters, dependencies first.
const MODULES: &str = "/lib/modules/order";
/// All controllers that a container's limits need.
const CONTROLLERS: &str = "+cpu +cpuset +memory +io +pids";

/// Boots the machine. Each step's error names what it was about.
pub fn boot() -> io::Result<()> {
    mount_all()?;
    load_modules()?;
    leave_rootfs()?;
    control_groups()?;
    write("/proc/sys/net/ipv4/ip_forward", "1")?;
    let loopback = ["ip", "link", "set", "lo", "up"];
    match Command::new("/bin/busybox").args(loopback).status().map_err(about("/bin/busybox"))? {
        status if status.success() => Ok(()),
        status => Err(io::Error::other(format!("ip link set lo up: {status}"))),
    }
}

fn about(what: impl AsRef<Path>) -> impl FnOnce(io::Error) -> io::Error {
    move |err| io::Error::new(err.kind(), format!("{}: {err}", what.as_ref().display()))
}

fn write(path: &str, text: &str) -> io::Result<()> {
    fs::write(path, text).map_err(about(path))
}

fn mount_all() -> io::Result<()> {
    let quiet = MountFlags::NOSUID | MountFlags::NODEV;
    for (kind, target, flags, data) in [
        ("devtmpfs", "/dev", MountFlags::NOSUID, c"mode=0755"),
        ("proc", "/proc", quiet | MountFlags::NOEXEC, c""),
        ("sysfs", "/sys", quiet | MountFlags::NOEXEC, c""),
        ("tmpfs", "/run", quiet, c"mode=0755"),
        // Device nodes work in here: tests about devices make them.
        ("tmpfs", "/tmp", MountFlags::NOSUID, c"mode=1777"),
        ("tmpfs", "/dev/shm", quiet, c"mode=1777"),
        ("devpts", "/dev/pts", MountFlags::NOSUID | MountFlags::NOEXEC, c"ptmxmode=0666"),
        ("mqueue", "/dev/mqueue", quiet | MountFlags::NOEXEC, c""),
    ] {
        fs::create_dir_all(target).map_err(about(target))?;
        mount(kind, target, kind, flags, data).map_err(io::Error::from).map_err(about(target))?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        std::os::unix::fs::symlink(target, format!("/dev/{name}"))?;
    }
    Ok(())
}

fn load_modules() -> io::Result<()> {
    let order = fs::read_to_string(MODULES).map_err(about(MODULES))?;
    for line in order.lines() {
        let (path, parameters) = line.split_once(' ').unwrap_or((line, ""));
        let file = File::open(path).map_err(about(path))?;
        match finit_module(&file, &CString::new(parameters)?, 0) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(err) => return Err(about(path)(err.into())),
        }
    }
    fs::remove_dir_all("/lib/modules").map_err(about("/lib/modules"))
}

/// Makes the root a mount that has a parent: pivot_root(2), so every container runtime, refuses to
/// work in the kernel's own first mount.
fn leave_rootfs() -> io::Result<()> {
    let moved = || -> Result<(), Errno> {
        mount_bind("/", "/mnt")?;
        for directory in ["dev", "proc", "sys", "run", "tmp"] {
            mount_move(format!("/{directory}"), format!("/mnt/{directory}"))?;
        }
        chdir("/mnt")?;
        mount_move(".", "/")?;
        chroot(".")?;
        chdir("/")
    };
    moved().map_err(io::Error::from).map_err(about("leaving the first root"))
}

/// One hierarchy, and nobody in its root.
fn control_groups() -> io::Result<()> {
    let root = Path::new("/sys/fs/cgroup");
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    mount("cgroup2", root, "cgroup2", flags, c"nsdelegate")
        .map_err(io::Error::from)
        .map_err(about(root))?;
    let init = root.join("init");
    fs::create_dir(&init).map_err(about(&init))?;
    fs::write(init.join("cgroup.procs"), "0").map_err(about(&init))?;
    fs::write(root.join("cgroup.subtree_control"), CONTROLLERS).map_err(about(root))
}
