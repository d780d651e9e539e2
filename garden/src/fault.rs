//! Steps at which a test may have the daemon killed.
//!
//! With `BLOOMERY_DIE_AT=<step>` in the environment the daemon sends itself SIGKILL when it first
//! gets there; otherwise a step is one comparison. The steps stand before and after each durable
//! write of create, run, a process's end and destroy, and between all that these make or remove.

use std::sync::OnceLock;

/// Every step's name, in the order in which a container's life passes them. What comes after
/// `destroy/forgotten` is done when the destroy has been answered.
pub const STEPS: [&str; 30] = [
    "create/entered",
    "create/directory-made",
    "create/record-written",
    "create/image-ready",
    "create/unit-taken",
    "create/limited",
    "create/networked",
    "create/names-written",
    "create/root-built",
    "create/committed",
    "create/saved",
    "run/entered",
    "run/recorded",
    "run/asked",
    "run/launched",
    "run/followed",
    "end/heard",
    "end/recorded",
    "end/told",
    "end/released",
    "save/written",
    "destroy/entered",
    "destroy/recorded",
    "destroy/killed",
    "destroy/network-removed",
    "destroy/record-removed",
    "destroy/forgotten",
    "destroy/cgroup-removed",
    "destroy/released",
    "destroy/volume-removed",
];

static CHOSEN: OnceLock<Option<String>> = OnceLock::new();

/// Ends the daemon at once if this is the step to die at.
pub fn step(name: &'static str) {
    debug_assert!(STEPS.contains(&name), "{name} is listed");
    let chosen = CHOSEN.get_or_init(|| std::env::var("BLOOMERY_DIE_AT").ok());
    if chosen.as_deref() == Some(name) {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        // The signal is on its way; nothing of this thread may go on.
        loop {
            std::thread::park();
        }
    }
}
