//! Namespaces of a thread's own.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// A new network namespace: nothing but a loopback that is down. It lives as long as the descriptor,
/// or whatever enters it.
pub fn network() -> io::Result<OwnedFd> {
    let made = std::thread::Builder::new().name("netns".into()).spawn(|| {
        // SAFETY: what makes unshare(2) dangerous is a table of descriptors that threads no longer
        // share, as with CLONE_FILES; CLONE_NEWNET changes this thread's network namespace only,
        // and the thread ends with this closure.
        unsafe { unshare_unsafe(UnshareFlags::NEWNET) }?;
        File::open("/proc/thread-self/ns/net").map(OwnedFd::from)
    })?;
    made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Runs `act` on a thread with a mount namespace of its own, of which no other sees what is mounted in
/// it. Descriptors are shared as ever.
pub(crate) fn in_own_mounts<T: Send>(
    name: &str,
    act: impl FnOnce() -> io::Result<T> + Send,
) -> io::Result<T> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name(name.into()).spawn_scoped(scope, || {
            // SAFETY: unshare_unsafe asks that nobody relies on what is no longer shared. File
            // descriptors stay shared. The mount namespace, and with it root and working directory,
            // become those of this thread alone, which runs nothing but this closure.
            unsafe { unshare_unsafe(UnshareFlags::NEWNS | UnshareFlags::FS) }?;
            mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?;
            act()
        })?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}
