//! What a container's root is made of, as a plan for its process 1: which mounts, in which order,
//! with which attributes. Pure: the descriptors have been opened by then.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use garden_sys::plan::Plan;
use garden_sys::program::plan::tag;
use rustix::mount::MountAttrFlags as Attributes;

use crate::error::Error;

/// A detached mount and where it goes.
#[derive(Debug)]
pub struct Attachment<'a> {
    /// The detached mount.
    pub mount: BorrowedFd<'a>,
    /// Absolute path inside the container; missing parts are made.
    pub target: String,
    /// The mount's root is a file.
    pub file: bool,
}

/// The parts of a container's root.
#[derive(Debug)]
pub struct Bundle<'a> {
    /// The container's name for itself.
    pub hostname: String,
    /// The writable root file system.
    pub root: BorrowedFd<'a>,
    /// Its `/dev`.
    pub dev: BorrowedFd<'a>,
    /// Read-only views of its cgroups, below `/sys/fs/cgroup`; empty for privileged containers.
    pub cgroups: Vec<Attachment<'a>>,
    /// Several hierarchies, which need a directory of their own to stand in.
    pub many_hierarchies: bool,
    /// Bind mounts in the user's order, then `/etc/hosts` and `/etc/resolv.conf`.
    pub binds: Vec<Attachment<'a>>,
    /// Hides what a tenant must not read.
    pub masked: bool,
    /// Whether `ping` without privileges needs the group range opened.
    pub open_ping: bool,
}

/// Files and directories of the kernel that tell about the host. Files are covered by `/dev/null`,
/// directories by an empty read-only tmpfs; what does not exist is passed over.
pub const MASKED: [&str; 8] = [
    "/proc/kcore",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/keys",
    "/sys/firmware",
];

/// Longest host name given: the last so many characters of a handle.
const LONGEST_HOSTNAME: usize = 49;

/// A handle as a host name: its last 49 characters.
pub fn hostname(handle: &str) -> &str {
    let skip = handle.chars().count().saturating_sub(LONGEST_HOSTNAME);
    handle.char_indices().nth(skip).map_or("", |(at, _)| &handle[at..])
}

fn c_text(text: &str) -> Result<CString, Error> {
    CString::new(text).map_err(|_| Error::Plain(format!("a path contains a NUL byte: {text:?}")))
}

impl<'a> Bundle<'a> {
    /// What the plan's record of this index is about, for who must say why it failed.
    pub fn part(&self, index: u32) -> String {
        let parts = self.build().map(|build| build.parts).unwrap_or_default();
        let part = usize::try_from(index).ok().and_then(|index| parts.into_iter().nth(index));
        part.unwrap_or_else(|| "its plan".into())
    }

    /// The plan and the descriptors that go with it, in the plan's counting.
    pub fn plan(&self) -> Result<(Plan, Vec<BorrowedFd<'a>>), Error> {
        self.build().map(|build| (build.plan, build.descriptors))
    }

    fn build(&self) -> Result<Build<'a>, Error> {
        let mut build = Build { plan: Plan::new(), descriptors: Vec::new(), parts: Vec::new() };
        let no_device = Attributes::MOUNT_ATTR_NOSUID
            | Attributes::MOUNT_ATTR_NOEXEC
            | Attributes::MOUNT_ATTR_NODEV;
        let no_program = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
        let read_only = Attributes::MOUNT_ATTR_RDONLY;

        build.attach(self.root, false, "/")?;
        build.mount("/proc", "proc", &[], no_device)?;
        build.attach(self.dev, false, "/dev")?;
        build.mount(
            "/dev/pts",
            "devpts",
            &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
            no_program,
        )?;
        build.mount("/dev/shm", "tmpfs", &["mode=1777", "size=65536k"], no_device)?;
        build.mount("/dev/mqueue", "mqueue", &[], no_device)?;
        build.mount("/sys", "sysfs", &[], no_device | read_only)?;
        if self.many_hierarchies && !self.cgroups.is_empty() {
            build.mount("/sys/fs/cgroup", "tmpfs", &["mode=755"], no_device)?;
        }
        for cgroup in &self.cgroups {
            build.attach(cgroup.mount, cgroup.file, &cgroup.target)?;
        }
        if self.many_hierarchies && !self.cgroups.is_empty() {
            build.parts.push("/sys/fs/cgroup".into());
            build.plan.text(tag::READ_ONLY, &c_text("/sys/fs/cgroup")?);
        }
        if self.masked {
            for path in MASKED {
                build.plan.text(tag::MASK, &c_text(path)?);
                build.parts.push(path.to_owned());
            }
        }
        if self.open_ping {
            build.parts.push("net.ipv4.ping_group_range".into());
            build.plan.texts(
                tag::SYSCTL,
                &c_text("/proc/sys/net/ipv4/ping_group_range")?,
                &c_text("1 65535")?,
            );
        }
        for bind in &self.binds {
            build.attach(bind.mount, bind.file, &bind.target)?;
        }
        build.parts.push("the host name".into());
        build.plan.text(tag::HOSTNAME, &c_text(&self.hostname)?);
        Ok(build)
    }
}

struct Build<'a> {
    plan: Plan,
    descriptors: Vec<BorrowedFd<'a>>,
    /// What each record is about.
    parts: Vec<String>,
}

impl<'a> Build<'a> {
    fn attach(&mut self, mount: BorrowedFd<'a>, file: bool, target: &str) -> Result<(), Error> {
        self.parts.push(target.to_owned());
        self.descriptors.push(mount);
        // The plan itself is descriptor 0.
        self.plan.attach(self.descriptors.len(), file, &c_text(target)?);
        Ok(())
    }

    fn mount(
        &mut self,
        target: &str,
        kind: &str,
        options: &[&str],
        attributes: Attributes,
    ) -> Result<(), Error> {
        self.parts.push(target.to_owned());
        let options = options.iter().map(|option| c_text(option)).collect::<Result<Vec<_>, _>>()?;
        self.plan.mount(&c_text(target)?, &c_text(kind)?, &options, u64::from(attributes.bits()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_handle_is_cut_from_the_front() {
        assert_eq!(hostname("short"), "short");
        let long = format!("{}{}", "x".repeat(31), "y".repeat(49));
        assert_eq!(hostname(&long), "y".repeat(49));
    }
}
