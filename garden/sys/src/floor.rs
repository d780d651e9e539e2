//! The floor under a container's start: the fewest system calls with the same security work.
//!
//! Benchmarks measure against it. Everything is made fresh, nothing is pooled and nobody is asked:
//! one clone3(2), one straight line of system calls in the child, one execve(2). It shares no code
//! with the supervisor but the raw calls, so that what is slow there is not slow here.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use rustix::process::{Pid, WaitId, WaitIdOptions, waitid};

use crate::program::raw::{self, Answer, CloneArguments, Errno, Fd, clone};

/// A static x86_64 executable that writes the time of its first instructions to standard output.
pub const STAMP: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/stamp"));

/// What [`STAMP`] has written, in nanoseconds of CLOCK_MONOTONIC.
pub fn stamped(output: &[u8]) -> Option<u64> {
    let (seconds, rest) = output.split_first_chunk()?;
    let nanoseconds = u64::from_ne_bytes(rest.try_into().ok()?);
    u64::from_ne_bytes(*seconds).checked_mul(1_000_000_000)?.checked_add(nanoseconds)
}

/// Everything the child needs to know; nothing of it is allocated after the clone.
#[derive(Debug)]
pub struct Confinement<'a> {
    /// Descriptor of a cgroup v2 directory to be born in.
    pub birth: BorrowedFd<'a>,
    /// v1 cgroup files to join by.
    pub joins: &'a [BorrowedFd<'a>],
    /// A directory of the host to attach the new root on; the container's root may search it.
    pub new_root: &'a CStr,
    /// Directories below the new root that stand for the cgroup views, in their order.
    pub views: &'a [CString],
    /// Files to hide behind /dev/null, relative to the new root.
    pub masked_files: &'a [CString],
    /// Directories to hide behind an empty file system, relative to the new root.
    pub masked_directories: &'a [CString],
    /// The container's name for itself.
    pub hostname: &'a CStr,
    /// A seccomp filter: an array of struct sock_filter.
    pub seccomp: &'a [u8],
    /// Bounding, permitted and effective set.
    pub capabilities: u64,
    /// What to run, by its path inside.
    pub program: &'a CStr,
    /// Its arguments, the first its name.
    pub arguments: &'a [CString],
    /// What becomes its standard output.
    pub output: BorrowedFd<'a>,
}

/// A child that waits to be let in.
#[derive(Debug)]
pub struct Child {
    /// Its pid.
    pub pid: i32,
    pidfd: OwnedFd,
    control: OwnedFd,
}

/// Clones the child into namespaces of its own (user, mount, network, pid, ipc, uts). It waits for
/// [`Child::enter`]; its id maps must have been written by then.
pub fn spawn(confinement: &Confinement<'_>) -> io::Result<Child> {
    use clone::{INTO_CGROUP, NEWIPC, NEWNET, NEWNS, NEWPID, NEWUSER, NEWUTS, PIDFD};
    const SIGCHLD: u64 = 17;
    let (ours, theirs) =
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let mut arguments: Vec<*const u8> =
        confinement.arguments.iter().map(|text| text.as_ptr().cast()).collect();
    arguments.push(std::ptr::null());
    let mut pidfd: Fd = -1;
    let request = CloneArguments {
        flags: NEWUSER | NEWNS | NEWNET | NEWPID | NEWIPC | NEWUTS | PIDFD | INTO_CGROUP,
        pidfd: (&raw mut pidfd).expose_provenance() as u64,
        exit_signal: SIGCHLD,
        cgroup: u64::from(confinement.birth.as_raw_fd().cast_unsigned()),
        ..CloneArguments::default()
    };
    let (control, parents) = (theirs.as_raw_fd(), ours.as_raw_fd());
    // SAFETY: no CLONE_VM is asked for, `pidfd` is valid for the kernel's write, and the child stays
    // with raw system calls on memory that exists already until it execs or exits: `begin` neither
    // allocates nor locks nor returns.
    let pid = match unsafe { raw::clone3(&request) } {
        Ok(0) => begin(confinement, arguments.as_ptr(), control, parents),
        other => other.map_err(|errno| io::Error::from_raw_os_error(errno.0))?,
    };
    // SAFETY: CLONE_PIDFD stored a new descriptor that nobody else knows.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    Ok(Child { pid, pidfd, control: ours })
}

impl Child {
    /// Lets it build its root of these detached mounts (the root file system, its `/dev`, then the
    /// views) and execute its program.
    pub fn enter(&self, mounts: &[BorrowedFd<'_>]) -> io::Result<()> {
        let mounts: Vec<_> = mounts.iter().map(AsRawFd::as_raw_fd).collect();
        raw::send(self.control.as_raw_fd(), b"go", &mounts)
            .map_err(|errno| io::Error::from_raw_os_error(errno.0))
    }

    /// Waits for its end and answers its status. A child that could not build its container says at
    /// which step.
    pub fn wait(self) -> io::Result<i32> {
        let ended = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED)?;
        let status = ended
            .and_then(|ended| ended.exit_status().or(ended.terminating_signal().map(|n| 128 + n)))
            .ok_or_else(|| io::Error::other("a child without a status"))?;
        let mut report = [0; 8];
        match raw::receive(self.control.as_raw_fd(), &mut report, false) {
            Ok(received) if received.length == report.len() => {
                let word = |half: [u8; 4]| i32::from_ne_bytes(half);
                let [a, b, c, d, e, f, g, h] = report;
                let reason = io::Error::from_raw_os_error(word([e, f, g, h]));
                let step = word([a, b, c, d]);
                Err(io::Error::new(reason.kind(), format!("step {step} of the floor: {reason}")))
            }
            _ => Ok(status),
        }
    }

    /// Ends it; for who gives up between [`spawn`] and [`Child::enter`].
    pub fn kill(self) {
        const SIGKILL: i32 = 9;
        let _ = raw::pidfd_signal(self.pidfd.as_raw_fd(), SIGKILL);
        let _ = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED);
    }

    /// Its pid as others take it.
    pub fn id(&self) -> Option<Pid> {
        Pid::from_raw(self.pid)
    }
}

/// The child's whole life before its program.
fn begin(
    confinement: &Confinement<'_>,
    arguments: *const *const u8,
    control: Fd,
    parents: Fd,
) -> ! {
    raw::close(parents);
    let mut step = 0;
    let errno = match build(confinement, control, &mut step) {
        Ok(()) => {
            let environment: *const u8 = core::ptr::null();
            // SAFETY: `arguments` points to NUL-terminated texts and ends with a null pointer, both
            // copied with the parent's memory; the environment is the null that ends it.
            unsafe {
                raw::execveat(
                    raw::AT_FDCWD,
                    confinement.program,
                    arguments,
                    &raw const environment,
                    0,
                )
            }
        }
        Err(errno) => errno,
    };
    let mut report = [0; 8];
    report[..4].copy_from_slice(&i32::to_ne_bytes(step));
    report[4..].copy_from_slice(&errno.0.to_ne_bytes());
    let _ = raw::send(control, &report, &[]);
    raw::exit(127)
}

/// From a fresh clone to the instruction before execve(2). `step` counts what has been done.
fn build(confinement: &Confinement<'_>, control: Fd, step: &mut i32) -> Answer<()> {
    const NOSUID: usize = 2;
    const NODEV: usize = 4;
    const NOEXEC: usize = 8;
    const RDONLY: usize = 1;
    const BIND: usize = 0x1000;
    const PRIVATE: usize = 0x4_4000;
    let mut order = [0_u8; 2];
    let mounts = raw::receive(control, &mut order, true)?;
    if mounts.length != order.len() {
        raw::exit(0);
    }
    let [root, dev, views @ ..] = mounts.descriptors() else { return Err(Errno::EPROTO) };
    for join in confinement.joins {
        raw::write(join.as_raw_fd(), b"0")?;
    }
    *step += 1;
    raw::setgroups(&[])?;
    raw::set_gid(0)?;
    raw::set_uid(0)?;
    raw::set_undumpable();
    raw::setsid();
    raw::umask(0o022);
    *step += 1;
    raw::set_loopback_up()?;
    *step += 1;
    raw::mount(c"none", c"/", c"", PRIVATE)?;
    attach(*root, confinement.new_root)?;
    raw::chdir(confinement.new_root)?;
    *step += 1;
    raw::mount_new(c"proc", c"proc", NOSUID | NODEV | NOEXEC, c"")?;
    *step += 1;
    attach(*dev, c"dev")?;
    let terminals = c"newinstance,ptmxmode=0666,mode=0620,gid=5";
    raw::mount_new(c"devpts", c"dev/pts", NOSUID | NOEXEC, terminals)?;
    raw::mount_new(c"tmpfs", c"dev/shm", NOSUID | NODEV | NOEXEC, c"mode=1777,size=65536k")?;
    raw::mount_new(c"mqueue", c"dev/mqueue", NOSUID | NODEV | NOEXEC, c"")?;
    *step += 1;
    raw::mount_new(c"sysfs", c"sys", NOSUID | NODEV | NOEXEC | RDONLY, c"")?;
    *step += 1;
    if views.len() > 1 {
        raw::mount_new(c"tmpfs", c"sys/fs/cgroup", NOSUID | NODEV | NOEXEC, c"mode=755")?;
        for target in confinement.views {
            raw::mkdir(raw::AT_FDCWD, target, 0o755)?;
        }
    }
    for (view, target) in views.iter().zip(confinement.views) {
        attach(*view, target)?;
    }
    *step += 1;
    for path in confinement.masked_files {
        raw::mount(c"dev/null", path, c"", BIND)?;
    }
    for path in confinement.masked_directories {
        raw::mount_new(c"tmpfs", path, NOSUID | NODEV | NOEXEC | RDONLY, c"mode=555,size=0")?;
    }
    *step += 1;
    raw::sethostname(confinement.hostname.to_bytes())?;
    raw::pivot_root_here()?;
    raw::detach(c".")?;
    raw::chdir(c"/")?;
    *step += 1;
    raw::dup3(confinement.output.as_raw_fd(), 1, false)?;
    raw::set_seccomp_filter(confinement.seccomp)?;
    *step += 1;
    raw::bound_capabilities(confinement.capabilities)?;
    raw::set_capabilities(confinement.capabilities)?;
    *step += 1;
    Ok(())
}

fn attach(mount: Fd, path: &CStr) -> Answer<()> {
    let target = raw::open(raw::AT_FDCWD, path, raw::flag::PATH | raw::flag::DIRECTORY, 0)?;
    raw::move_mount(mount, target)?;
    raw::close(target);
    raw::close(mount);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_stamp_tells_when_it_ran() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("stamp");
        std::fs::write(&path, STAMP).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, mode).unwrap();
        let now = || {
            let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
            now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
        };
        let before = now();
        let output = Command::new(&path).output().unwrap();
        let after = now();
        assert!(output.status.success());
        let told = stamped(&output.stdout).unwrap();
        assert!((before..after).contains(&told), "{before} {told} {after}");
    }

    #[test]
    fn only_sixteen_bytes_are_a_stamp() {
        assert_eq!(stamped(&[0; 15]), None);
        assert_eq!(stamped(&[0; 17]), None);
        assert_eq!(stamped(&[0xff; 16]), None);
        let told = [2_u64.to_ne_bytes(), 5_u64.to_ne_bytes()].concat();
        assert_eq!(stamped(&told), Some(2_000_000_005));
    }
}
