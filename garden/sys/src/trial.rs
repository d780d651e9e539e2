//! What the kernel does, tried on something that ends with the trial.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use crate::program::raw::{self, Errno};

/// How long the kernel may take to tell of a thread's end.
const PATIENCE: Duration = Duration::from_secs(2);

/// Exit code, or 128 + signal, of a process that has been reaped, by its pidfd; `None` where the
/// kernel does not keep it (Linux 6.15 and later do).
pub fn status_of_reaped(process: impl AsFd) -> Option<i32> {
    raw::reaped_status(process.as_fd().as_raw_fd())
}

/// Whether the kernel tells us of processes that are not our children (CONFIG_PROC_EVENTS): it is
/// asked, and a thread ends.
pub fn tells_of_ends() -> bool {
    let Ok(socket) = raw::exit_events() else { return false };
    let heard = hears_of_a_thread(socket);
    // Older kernels count listeners by what they say, not by their sockets.
    let _ = raw::ask_for_events(socket, false);
    raw::close(socket);
    heard
}

fn hears_of_a_thread(socket: raw::Fd) -> bool {
    let process = raw::getpid();
    if std::thread::spawn(|| {}).join().is_err() {
        return false;
    }
    let deadline = Instant::now() + PATIENCE;
    loop {
        match raw::next_exit(socket, true) {
            Ok(Some(exit)) if exit.process == process && !exit.leader => return true,
            Ok(_) => {}
            Err(Errno::EAGAIN) if Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(_) => return false,
        }
    }
}

/// Puts a thread under a seccomp filter (`instructions` are struct sock_filter) that refuses
/// setns(2) with EPERM, and has it make that call.
pub fn filters_calls(instructions: &[u8]) -> io::Result<bool> {
    let filtered = || {
        // No descriptor: without a filter the answer is EBADF.
        raw::set_seccomp_filter(instructions)?;
        Ok(raw::setns(-1, 0) == Err(Errno::EPERM))
    };
    let refused = std::thread::scope(|scope| {
        let thread = std::thread::Builder::new().name("filtered".into());
        Ok::<_, io::Error>(thread.spawn_scoped(scope, filtered)?.join())
    })?;
    refused
        .unwrap_or(Err(Errno::EINVAL))
        .map_err(|errno: Errno| io::Error::from_raw_os_error(errno.0))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;

    /// BPF_LD|BPF_W|BPF_ABS of the call's number, and two answers.
    fn filter(refused: u32) -> Vec<u8> {
        const SECCOMP_RET_ERRNO_EPERM: u32 = 0x0005_0001;
        const SECCOMP_RET_ALLOW: u32 = 0x7fff_0000;
        let instructions = [
            (0x20_u16, 0_u8, 0_u8, 0_u32),
            (0x15, 0, 1, refused),
            (0x06, 0, 0, SECCOMP_RET_ERRNO_EPERM),
            (0x06, 0, 0, SECCOMP_RET_ALLOW),
        ];
        let bytes = |(code, yes, no, k): (u16, u8, u8, u32)| {
            [&code.to_ne_bytes()[..], &[yes, no], &k.to_ne_bytes()].concat()
        };
        instructions.into_iter().flat_map(bytes).collect()
    }

    #[test]
    fn a_filter_holds_for_the_thread_that_ends_with_it() {
        assert!(filters_calls(&filter(u32::try_from(libc::SYS_setns).unwrap())).unwrap());
        assert!(!filters_calls(&filter(u32::MAX)).unwrap(), "this one refuses nothing");
        assert_eq!(filters_calls(b"").unwrap_err().raw_os_error(), Some(libc::EINVAL));
        assert_eq!(raw::setns(-1, 0), Err(Errno::EBADF), "nobody else is filtered");
    }

    #[test]
    fn a_reaped_childs_status_is_known_where_this_kernel_tells_it() {
        let mut shell = Command::new("sh").args(["-c", "exit 7"]).spawn().unwrap();
        let pid = Pid::from_child(&shell);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).unwrap();
        shell.wait().unwrap();
        let expected = raw::pidfds_tell_exits().then_some(7);
        assert_eq!(status_of_reaped(&pidfd), expected);
    }
}
