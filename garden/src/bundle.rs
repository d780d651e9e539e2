//! What a container's root is made of, as a plan for its process 1: which mounts, in which order,
//! with which attributes. Pure: the descriptors have been opened by then.

use std::ffi::CString;
use std::os::fd::BorrowedFd;

use garden_sys::plan::Plan;
use garden_sys::program::plan::tag;
use garden_sys::supervisor::Failure;
use rustix::mount::MountAttrFlags as Attributes;

use crate::error::Error;

/// A detached mount and where it goes.
#[derive(Clone, Debug)]
pub struct Attachment<'a> {
    /// The detached mount.
    pub mount: BorrowedFd<'a>,
    /// Absolute path inside the container; missing parts are made.
    pub target: String,
    /// The mount's root is a file.
    pub file: bool,
}

/// A mount that belongs to an image.
#[derive(Clone, Debug)]
pub enum ImageMount<'a> {
    /// A part of the host's file system.
    Bound(Attachment<'a>),
    /// A file system in memory.
    Memory {
        /// Absolute path inside; missing parts are made.
        target: String,
        /// As for mount(8), without those that are attributes.
        options: Vec<String>,
        /// Of the mount.
        attributes: Attributes,
    },
}

/// What does not depend on whose the root is, but on its image.
#[derive(Debug)]
pub struct Furniture<'a> {
    /// The writable root file system.
    pub root: BorrowedFd<'a>,
    /// What stands in the image before all else.
    pub image: Vec<ImageMount<'a>>,
    /// Its `/dev`.
    pub dev: BorrowedFd<'a>,
    /// Its `/dev/pts`, where a terminal has been opened in it already.
    pub terminals: Option<BorrowedFd<'a>>,
    /// Read-only views of its cgroups, below `/sys/fs/cgroup`; empty for privileged containers.
    pub cgroups: Vec<Attachment<'a>>,
    /// Several hierarchies, which need a directory of their own to stand in.
    pub many_hierarchies: bool,
    /// Hides what a tenant must not read.
    pub masked: bool,
    /// Whether `ping` without privileges needs the group range opened.
    pub open_ping: bool,
    /// Files that mounts of [`Wishes::binds`] will stand on.
    pub files: Vec<String>,
}

/// What a container's client decides.
#[derive(Debug)]
pub struct Wishes<'a> {
    /// The container's name for itself, which its peas find given.
    pub hostname: Option<String>,
    /// Bind mounts in the user's order, then `/etc/hosts` and `/etc/resolv.conf`.
    pub binds: Vec<Attachment<'a>>,
}

/// Why a root cannot be built, for who must do something about it; `parts` is what the records of its
/// plan are about.
pub fn explain(attempt: &str, failure: &Failure, parts: &[String]) -> Error {
    let part = usize::try_from(failure.detail).ok().and_then(|index| parts.get(index));
    let part = part.map_or("its plan", String::as_str);
    let reason = std::io::Error::from_raw_os_error(failure.errno);
    let step = failure.step;
    Error::Plain(format!("{attempt}: {step:?} of {part}: {reason}"))
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

/// A plan, and what goes with it.
#[derive(Debug, Default)]
pub struct Bundle<'a> {
    /// What process 1 is to do.
    pub plan: Plan,
    /// The descriptors that go with it, in the plan's counting.
    pub descriptors: Vec<BorrowedFd<'a>>,
    /// What each record is about.
    parts: Vec<String>,
}

impl<'a> Bundle<'a> {
    /// What each of the plan's records is about.
    pub fn into_parts(self) -> Vec<String> {
        self.parts
    }

    /// A root, and what stands in every one.
    pub fn furnish(&mut self, furniture: &Furniture<'a>) -> Result<(), Error> {
        let no_device = Attributes::MOUNT_ATTR_NOSUID
            | Attributes::MOUNT_ATTR_NOEXEC
            | Attributes::MOUNT_ATTR_NODEV;
        let no_program = Attributes::MOUNT_ATTR_NOSUID | Attributes::MOUNT_ATTR_NOEXEC;
        let read_only = Attributes::MOUNT_ATTR_RDONLY;

        self.attach(furniture.root, false, "/")?;
        for mount in &furniture.image {
            match mount {
                ImageMount::Bound(bound) => self.attach(bound.mount, bound.file, &bound.target)?,
                ImageMount::Memory { target, options, attributes } => {
                    let options: Vec<_> = options.iter().map(String::as_str).collect();
                    self.mount(target, "tmpfs", &options, *attributes)?;
                }
            }
        }
        self.mount("/proc", "proc", &[], no_device)?;
        self.attach(furniture.dev, false, "/dev")?;
        match furniture.terminals {
            Some(terminals) => self.attach(terminals, false, "/dev/pts")?,
            None => self.mount(
                "/dev/pts",
                "devpts",
                &["newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
                no_program,
            )?,
        }
        self.mount("/dev/shm", "tmpfs", &["mode=1777", "size=65536k"], no_device)?;
        self.mount("/dev/mqueue", "mqueue", &[], no_device)?;
        self.mount("/sys", "sysfs", &[], no_device | read_only)?;
        if furniture.many_hierarchies && !furniture.cgroups.is_empty() {
            self.mount("/sys/fs/cgroup", "tmpfs", &["mode=755"], no_device)?;
        }
        for cgroup in &furniture.cgroups {
            self.attach(cgroup.mount, cgroup.file, &cgroup.target)?;
        }
        if furniture.many_hierarchies && !furniture.cgroups.is_empty() {
            self.text(tag::READ_ONLY, "/sys/fs/cgroup")?;
        }
        if furniture.masked {
            MASKED.iter().try_for_each(|path| self.text(tag::MASK, path))?;
        }
        if furniture.open_ping {
            self.parts.push("net.ipv4.ping_group_range".into());
            self.plan.texts(
                tag::SYSCTL,
                &c_text("/proc/sys/net/ipv4/ping_group_range")?,
                &c_text("1 65535")?,
            );
        }
        furniture.files.iter().try_for_each(|file| self.text(tag::MAKE_FILE, file))
    }

    /// What a client decides, in a root that is furnished.
    pub fn fulfil(&mut self, wishes: &Wishes<'a>) -> Result<(), Error> {
        for bind in &wishes.binds {
            self.attach(bind.mount, bind.file, &bind.target)?;
        }
        let Some(hostname) = &wishes.hostname else { return Ok(()) };
        self.parts.push("the host name".into());
        self.plan.text(tag::HOSTNAME, &c_text(hostname)?);
        Ok(())
    }

    fn text(&mut self, tag: u32, path: &str) -> Result<(), Error> {
        self.parts.push(path.to_owned());
        self.plan.text(tag, &c_text(path)?);
        Ok(())
    }

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
