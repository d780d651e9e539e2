//! How tests wait, and for what this kernel lets anybody wait.

use std::time::{Duration, Instant};

/// Longer than anything takes here.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Polls until it is so.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "in time: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// From 6.15 on a pidfd tells the exit status of a process that somebody else has reaped
/// (PIDFD_GET_INFO).
pub fn kernel_keeps_statuses() -> bool {
    let release = rustix::system::uname().release().to_string_lossy().into_owned();
    let mut parts = release.split('.').filter_map(|part| part.parse::<u32>().ok());
    (parts.next(), parts.next()) >= (Some(6), Some(15))
}
