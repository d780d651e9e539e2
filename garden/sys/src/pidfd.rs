//! Processes by a descriptor that stays theirs (pidfd_open(2)).

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use crate::supervisor::wait_readable;

/// Whether a process has ended, or does within `patience`: a pidfd becomes readable with the end.
pub fn ends_within(process: impl AsFd, patience: Duration) -> io::Result<bool> {
    match wait_readable(process.as_fd(), patience) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::TIMEDOUT) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}
