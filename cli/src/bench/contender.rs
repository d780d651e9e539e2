//! Who is measured, and what one turn of theirs yields.

use std::time::Duration;

/// One container's life, from nothing to nothing, as its caller saw it.
#[derive(Debug, Default)]
pub struct Cycle {
    /// Nanoseconds of CLOCK_MONOTONIC at the start of the first call.
    pub began: u64,
    /// When the call that starts the process began, where that is another than the first.
    pub running: Option<u64>,
    /// How long the caller waited in all.
    pub total: Duration,
    /// How long the call that creates took.
    pub create: Option<Duration>,
    /// How long the call that destroys took.
    pub destroy: Option<Duration>,
    /// What the process wrote.
    pub output: Vec<u8>,
}

/// A runtime under measurement.
pub trait Contender {
    /// Its name in rows.
    fn name(&self) -> &str;

    /// Makes a container, runs `command` in it to its end, and removes it.
    fn cycle(&mut self, command: &[&str]) -> anyhow::Result<Cycle>;

    /// How long to wait afterwards until what it deferred no longer weighs on the next one's turn.
    fn settles(&self) -> Duration {
        Duration::from_millis(4)
    }
}

/// Nanoseconds of CLOCK_MONOTONIC, the clock of [`garden_sys::floor::STAMP`].
pub fn now() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec.cast_unsigned() * 1_000_000_000 + now.tv_nsec.cast_unsigned()
}

/// Time since such a moment.
pub fn since(began: u64) -> Duration {
    Duration::from_nanos(now().saturating_sub(began))
}

/// Where the stamp is in every image.
pub const STAMP: &str = "/bin/stamp";
