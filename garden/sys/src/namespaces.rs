//! Namespaces without anything in them.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;

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
