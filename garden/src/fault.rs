//! Steps at which a test may have the daemon killed, or held.
//!
//! With `BLOOMERY_DIE_AT=<step>` in the environment the daemon sends itself SIGKILL when it first
//! gets there, with `<step>:<n>` when it gets there for the nth time. With
//! `BLOOMERY_HOLD_IN=<directory>` whoever comes to a step waits there as long as the directory has a
//! file of its name, `/` being `-`, and makes one beside it with `.reached` behind the name. Otherwise
//! a step is two comparisons. The steps stand before and after each durable write of create, run, a process's end and destroy,
//! and between all that these make or remove.

use std::fs::File;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

/// Every step's name, in the order in which a container's life passes them. Only peas pass those from
/// `run/cgroup-made` to `run/root-sent` and after `end/released`. What comes after `destroy/forgotten` is
/// done when the destroy has been answered.
pub const STEPS: [&str; 35] = [
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
    "run/cgroup-made",
    "run/volume-made",
    "run/root-sent",
    "run/asked",
    "run/launched",
    "run/followed",
    "end/heard",
    "end/recorded",
    "end/told",
    "end/released",
    "end/cgroup-removed",
    "end/volume-removed",
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

/// Steps of what is asked of plugins: the program runs; it has ended, and nobody has heard of it. A
/// daemon without plugins does not get there.
pub const PLUGIN_STEPS: [&str; 8] = [
    "plugin/create-started",
    "plugin/create-ended",
    "plugin/up-started",
    "plugin/up-ended",
    "plugin/down-started",
    "plugin/down-ended",
    "plugin/delete-started",
    "plugin/delete-ended",
];

/// Where a test has the daemon die.
struct Death {
    step: String,
    /// How often the daemon gets there before.
    spared: AtomicUsize,
}

static DEATH: LazyLock<Option<Death>> = LazyLock::new(|| {
    let chosen = std::env::var("BLOOMERY_DIE_AT").ok()?;
    let (step, arrival) = chosen.split_once(':').unwrap_or((&chosen, "1"));
    let spared = arrival.parse::<usize>().ok()?.checked_sub(1)?.into();
    Some(Death { step: step.to_owned(), spared })
});
static HOLDING: LazyLock<Option<PathBuf>> =
    LazyLock::new(|| std::env::var_os("BLOOMERY_HOLD_IN").map(PathBuf::from));

/// Ends the daemon at once if this is the step to die at, and waits while this is one to wait at.
pub fn step(name: &'static str) {
    debug_assert!(STEPS.contains(&name) || PLUGIN_STEPS.contains(&name), "{name} is listed");
    if let Some(death) = &*DEATH
        && death.step == name
        && death.spared.fetch_update(SeqCst, SeqCst, |spared| spared.checked_sub(1)).is_err()
    {
        let own = rustix::process::getpid();
        let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
        // The signal is on its way; nothing of this thread may go on.
        loop {
            std::thread::park();
        }
    }
    if let Some(directory) = &*HOLDING {
        let held = directory.join(name.replace('/', "-"));
        if held.exists() {
            let _ = File::create(held.with_extension("reached"));
        }
        while held.exists() {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// As [`step`], if this part of an action of a plugin's is one.
pub(crate) fn plugin_step(action: &str, part: &str) {
    let named = |step: &&&'static str| {
        step.strip_prefix("plugin/").and_then(|step| step.split_once('-')) == Some((action, part))
    };
    if let Some(name) = PLUGIN_STEPS.iter().find(named) {
        step(name);
    }
}
