//! Slots on this machine's kernel, whatever kind of cgroups it has. Runs as root.

mod actor;

use std::collections::BTreeSet;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use std::{fs, io};

use garden_cgroup::{
    CpuQuota, DeviceFilter, Error, Hierarchy, Leaf, Limits, OomWatch, Slot, cpu_weight,
    garden_default_devices,
};
use garden_sys::child::spawn_within;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};

use actor::Actor;

const UNDER: &str = "/sys/fs/cgroup";
const PATIENCE: Duration = Duration::from_secs(10);
const MIB: u64 = 1 << 20;

/// A root of a test's own, removed with all in it.
struct Stage {
    hierarchy: Hierarchy,
    name: String,
}

impl Stage {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("garden-test-{}-{count}", std::process::id());
        let hierarchy = Hierarchy::detect(&name, Path::new(UNDER)).unwrap();
        assert_eq!(hierarchy.lacks(), [], "this machine lacks what the tests are about");
        Self { hierarchy, name }
    }

    /// Every directory of this root, in all hierarchies.
    fn directories(&self) -> BTreeSet<PathBuf> {
        let mut found = BTreeSet::new();
        let mut unread: Vec<PathBuf> = vec![Path::new(UNDER).join(&self.name)];
        for entry in fs::read_dir(UNDER).unwrap() {
            unread.push(entry.unwrap().path().join(&self.name));
        }
        while let Some(directory) = unread.pop() {
            let Ok(entries) = fs::read_dir(&directory) else { continue };
            let entries = entries.map(Result::unwrap);
            unread.extend(entries.filter(|e| e.file_type().unwrap().is_dir()).map(|e| e.path()));
            found.insert(directory);
        }
        found
    }

    /// A file of a slot, by its name on v2 and its controller and name on v1.
    fn read(&self, slot: &Slot, v2: &str, v1: (&str, &str)) -> String {
        let path = if self.hierarchy.is_hybrid() {
            Path::new(UNDER).join(v1.0).join(&self.name).join(slot.number().to_string()).join(v1.1)
        } else {
            slot.path().join(v2)
        };
        fs::read_to_string(&path).unwrap_or_else(|err| panic!("{path:?}: {err}")).trim().to_owned()
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for number in self.hierarchy.slots().unwrap() {
            if let Ok(slot) = self.hierarchy.open(number) {
                slot.kill(PATIENCE).unwrap();
            }
            self.hierarchy.remove(number, PATIENCE).unwrap();
        }
        self.hierarchy.remove_root().unwrap();
        let left = self.directories();
        if !std::thread::panicking() {
            assert_eq!(left, BTreeSet::new(), "left behind");
        }
    }
}

fn kind(result: Result<impl std::fmt::Debug, Error>) -> io::ErrorKind {
    match result {
        Err(Error::Io { source, .. }) => source.kind(),
        other => panic!("not refused by the kernel: {other:?}"),
    }
}

#[test]
fn a_slot_is_made_found_again_and_removed_without_a_trace() {
    let stage = Stage::new();
    let before = stage.directories();
    let slot = stage.hierarchy.create(7).unwrap();
    assert_eq!(kind(stage.hierarchy.create(7)), io::ErrorKind::AlreadyExists);
    stage.hierarchy.create(12).unwrap();

    let again = Hierarchy::detect(&stage.name, Path::new(UNDER)).unwrap();
    assert_eq!(again.slots().unwrap(), [7, 12]);
    assert_eq!(again.open(7).unwrap().path(), slot.path());
    assert_eq!(kind(again.remove_root()), io::ErrorKind::DirectoryNotEmpty);

    for number in [7, 12, 7, 99] {
        again.remove(number, Duration::ZERO).unwrap();
    }
    assert_eq!(stage.directories(), before);
    assert!(again.open(7).unwrap_err().is_gone());
    slot.kill(PATIENCE).unwrap();
    assert!(slot.metrics().unwrap_err().is_gone());
}

#[test]
fn a_root_has_one_user_at_a_time_and_its_slots_one_owner() {
    let stage = Stage::new();
    let [ours, theirs] = ["/ours", "/theirs"].map(Path::new);
    let claim = |owner, patience| Hierarchy::claim(&stage.name, Path::new(UNDER), owner, patience);
    let in_use = |result| match result {
        Err(Error::InUse { owner, .. }) => owner.unwrap(),
        other => panic!("not refused: {other:?}"),
    };
    let first = claim(ours, Duration::ZERO).unwrap();
    assert_eq!(in_use(claim(ours, Duration::ZERO)), ours);
    let start = Instant::now();
    assert_eq!(in_use(claim(theirs, PATIENCE)), ours);
    assert!(start.elapsed() < PATIENCE, "nobody waits for another owner");

    // Without slots nothing is anybody's; with some it is.
    drop(first);
    let second = claim(theirs, Duration::ZERO).unwrap();
    second.create(1).unwrap();
    drop(second);
    match claim(ours, PATIENCE) {
        Err(Error::Owned { owner, .. }) => assert_eq!(owner, theirs),
        other => panic!("not refused: {other:?}"),
    }
    let again = claim(theirs, Duration::ZERO).unwrap();
    assert_eq!(again.slots().unwrap(), [1]);
    again.remove(1, PATIENCE).unwrap();

    // One who waits while the root is removed has the next one, which is nobody's.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| claim(theirs, PATIENCE));
        again.remove_root().unwrap();
        drop(again);
        let next = waiting.join().unwrap().unwrap();
        assert!(next.path().is_dir());
        assert_eq!(in_use(claim(ours, Duration::ZERO)), theirs);
    });
}

#[test]
fn slots_of_nobody_are_taken_over() {
    let stage = Stage::new();
    stage.hierarchy.create(4).unwrap();
    let claimed =
        Hierarchy::claim(&stage.name, Path::new(UNDER), Path::new("/ours"), PATIENCE).unwrap();
    assert_eq!(claimed.slots().unwrap(), [4]);
}

#[test]
fn a_thousand_slots_cost_no_descriptors() {
    let stage = Stage::new();
    stage.hierarchy.create(7).unwrap();
    let open = || fs::read_dir("/proc/self/fd").unwrap().count();
    let before = open();
    let slots: Vec<_> = (0..1000).map(|_| stage.hierarchy.open(7).unwrap()).collect();
    // Other tests of this program have some meanwhile.
    assert!(open() < before + 500, "{before} descriptors became {}", open());
    assert!(slots.iter().all(|slot| !slot.is_populated().unwrap()));
}

#[test]
fn what_a_crash_left_is_listed_and_removed() {
    let stage = Stage::new();
    let before = stage.directories();
    let slot = stage.hierarchy.create(3).unwrap();
    fs::create_dir_all(slot.path().join("processes/a/b/c")).unwrap();
    fs::remove_dir(slot.path().join("init")).unwrap();
    assert!(stage.hierarchy.open(3).unwrap_err().is_gone());

    assert_eq!(stage.hierarchy.slots().unwrap(), [3]);
    stage.hierarchy.remove(3, Duration::ZERO).unwrap();
    assert_eq!(stage.directories(), before);
}

#[test]
fn removal_waits_for_processes_only_so_long() {
    let stage = Stage::new();
    let slot = stage.hierarchy.create(1).unwrap();
    let actor = Actor::enter(&slot, Leaf::Processes, "hold");
    let patience = Duration::from_millis(50);
    assert!(matches!(slot.remove(patience), Err(Error::NotEmpty { .. })));
    assert!(!slot.wait_empty(patience).unwrap());

    let waiter = std::thread::scope(|scope| {
        let waiter = scope.spawn(|| slot.wait_empty(PATIENCE));
        assert!(actor.leave().success());
        waiter.join().unwrap()
    });
    assert!(waiter.unwrap());
    slot.remove(PATIENCE).unwrap();
}

#[test]
fn kill_leaves_none_alive() {
    let stage = Stage::new();
    let slot = stage.hierarchy.create(1).unwrap();
    let mut init = Actor::enter(&slot, Leaf::Init, "hold");
    let mut crowd = Actor::enter(&slot, Leaf::Processes, "crowd 5");
    let mut members = BTreeSet::from([crowd.id()]);
    loop {
        match crowd.line().as_str() {
            "all" => break,
            pid => assert!(members.insert(pid.parse().unwrap())),
        }
    }
    let pids = |pids: Vec<rustix::process::Pid>| -> BTreeSet<i32> {
        pids.into_iter().map(rustix::process::Pid::as_raw_pid).collect()
    };
    assert_eq!(pids(slot.workload().unwrap()), members);
    assert_eq!(pids(slot.pids(Leaf::Init).unwrap()), BTreeSet::from([init.id()]));

    slot.kill_leaf(Leaf::Processes, PATIENCE).unwrap();
    assert_eq!(crowd.wait().signal(), Some(9));
    assert_eq!(pids(slot.workload().unwrap()), BTreeSet::new());
    assert!(slot.is_populated().unwrap(), "init is not the workload's");

    slot.kill(PATIENCE).unwrap();
    assert!(!slot.is_populated().unwrap());
    assert_eq!(init.wait().signal(), Some(9));
    slot.kill(PATIENCE).unwrap();
    slot.remove(PATIENCE).unwrap();
}

/// Waits until `wanted` has been told of.
fn told(watch: &OomWatch, wanted: u32) -> bool {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if watch.wait(Some(PATIENCE)).unwrap().contains(&wanted) {
            return true;
        }
    }
    false
}

#[test]
fn a_hog_dies_at_its_limit_and_the_watch_tells_of_it() {
    let stage = Stage::new();
    let watch = OomWatch::new().unwrap();
    let slots = [4, 5, 6].map(|number| stage.hierarchy.create(number).unwrap());
    for slot in &slots {
        watch.add(slot).unwrap();
        let limits = Limits { memory: Some(32 * MIB), swap_counts: true, ..Limits::default() };
        assert_eq!(slot.limit(&limits).unwrap(), []);
    }
    let mut modest = Actor::enter(&slots[0], Leaf::Processes, "hog 16");
    assert_eq!(modest.line(), "fed");
    let used = slots[0].metrics().unwrap().memory.total_usage_toward_limit;
    assert!((16 * MIB..=32 * MIB).contains(&used), "{used}");

    let mut hog = Actor::enter(&slots[1], Leaf::Processes, "hog 64");
    assert_eq!(hog.try_line(), None);
    assert_eq!(hog.wait().signal(), Some(9));
    assert_eq!(slots.each_ref().map(|slot| slot.oom_kills().unwrap()), [0, 1, 0]);
    assert!(told(&watch, 5));

    drop(modest);
    for slot in &slots {
        slot.kill(PATIENCE).unwrap();
        slot.remove(PATIENCE).unwrap();
    }
    let short = Some(Duration::from_millis(100));
    assert_eq!(watch.wait(short).unwrap(), [], "a slot's end is no want of memory");
}

#[test]
fn a_limit_moves_both_ways() {
    let stage = Stage::new();
    let slot = stage.hierarchy.create(1).unwrap();
    for mib in [64, 128, 32] {
        let limits = Limits { memory: Some(mib * MIB), swap_counts: true, ..Limits::default() };
        assert_eq!(slot.limit(&limits).unwrap(), []);
        let memory = stage.read(&slot, "memory.max", ("memory", "memory.limit_in_bytes"));
        assert_eq!(memory, (mib * MIB).to_string());
        let swap = stage.read(&slot, "memory.swap.max", ("memory", "memory.memsw.limit_in_bytes"));
        let wanted = if stage.hierarchy.is_hybrid() { memory } else { "0".into() };
        assert_eq!(swap, wanted);
    }
}

#[test]
fn the_pid_limit_stops_the_next_thread() {
    const EAGAIN: &str = "11";
    let stage = Stage::new();
    let slot = stage.hierarchy.create(1).unwrap();
    slot.limit(&Limits { pids: Some(10), ..Limits::default() }).unwrap();
    let mut actor = Actor::enter(&slot, Leaf::Processes, "threads 20");
    assert_eq!(actor.line(), format!("8 {EAGAIN}"));
    let pids = slot.metrics().unwrap().pids;
    assert_eq!((pids.current, pids.max), (10, Some(10)));
    drop(actor);

    let free = stage.hierarchy.create(2).unwrap();
    let mut actor = Actor::enter(&free, Leaf::Processes, "threads 20");
    assert_eq!(actor.line(), "20 0");
    assert_eq!(free.metrics().unwrap().pids.max, None);
}

#[test]
fn a_quota_throttles_and_can_be_lifted() {
    let stage = Stage::new();
    let slot = stage.hierarchy.create(1).unwrap();
    let quota = CpuQuota::for_shares(100, 100);
    slot.limit(&Limits { cpu_quota: Some(quota), ..Limits::default() }).unwrap();
    let start = Instant::now();
    let mut actor = Actor::enter(&slot, Leaf::Processes, "spin 1000");
    assert_eq!(actor.line(), "done");
    let (cpu, time) = (slot.metrics().unwrap().cpu, start.elapsed());
    // A tenth of one CPU; how much more is used before the kernel looks depends on its clock.
    assert!(cpu.usage < time / 4, "{cpu:?} in {time:?}");
    assert!(cpu.throttled > Duration::ZERO, "{cpu:?}");
    assert!(cpu.user + cpu.system <= cpu.usage + Duration::from_millis(1), "{cpu:?}");

    let lifted = Limits { cpu_quota: Some(CpuQuota::Unlimited), ..Limits::default() };
    assert_eq!(slot.limit(&lifted).unwrap(), []);
    let before = slot.metrics().unwrap().cpu.throttled;
    let mut actor = Actor::enter(&slot, Leaf::Processes, "spin 200");
    assert_eq!(actor.line(), "done");
    assert_eq!(slot.metrics().unwrap().cpu.throttled, before);
}

#[test]
fn shares_are_weights() {
    let stage = Stage::new();
    let slot = stage.hierarchy.create(1).unwrap();
    for shares in [2, 1024, 5000] {
        slot.limit(&Limits { cpu_shares: Some(shares), ..Limits::default() }).unwrap();
        let wanted = if stage.hierarchy.is_hybrid() { shares } else { cpu_weight(shares) };
        let read = stage.read(&slot, "cpu.weight", ("cpu", "cpu.shares"));
        assert_eq!(read, wanted.to_string());
    }
}

#[test]
fn only_listed_devices_open() {
    const EPERM: &str = "1";
    let stage = Stage::new();
    let slot = stage.hierarchy.create(1).unwrap();
    let nodes = tempfile::tempdir().unwrap();
    let node = |name: &str, major, minor| {
        let path = nodes.path().join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from(0o666), makedev(major, minor))
            .unwrap();
        path.to_str().unwrap().to_owned()
    };
    let part = format!("open {} {}", node("null", 1, 3), node("kmsg", 1, 11));
    let opened = |slot: &Slot| {
        let mut actor = Actor::enter(slot, Leaf::Processes, &part);
        [actor.line(), actor.line()]
    };
    assert_eq!(opened(&slot), ["0", "0"], "without a filter");

    slot.restrict_devices(&DeviceFilter::new(garden_default_devices()).unwrap()).unwrap();
    assert_eq!(opened(&slot), ["0", EPERM]);

    let other = DeviceFilter::new(vec!["c 1:11 r".parse().unwrap()]).unwrap();
    slot.restrict_devices(&other).unwrap();
    assert_eq!(opened(&slot), [EPERM, "0"], "the new filter replaces the old");

    let neighbour = stage.hierarchy.create(2).unwrap();
    assert_eq!(opened(&neighbour), ["0", "0"]);
}

#[test]
fn a_pea_shares_the_limit_and_has_its_own_numbers() {
    let stage = Stage::new();
    let slot = stage.hierarchy.create(1).unwrap();
    let watch = OomWatch::new().unwrap();
    watch.add(&slot).unwrap();
    slot.create_pea(3).unwrap();
    assert_eq!(kind(slot.create_pea(3)), io::ErrorKind::AlreadyExists);
    let limits = Limits { memory: Some(48 * MIB), swap_counts: true, ..Limits::default() };
    slot.limit(&limits).unwrap();
    assert_eq!(slot.peas().unwrap(), [3]);

    let mut app = Actor::enter(&slot, Leaf::Processes, "hog 16");
    assert_eq!(app.line(), "fed");
    let mut pea = Actor::enter(&slot, Leaf::Pea(3), "hog 8");
    assert_eq!(pea.line(), "fed");
    let of_pea = slot.pea_metrics(3).unwrap();
    let of_all = slot.metrics().unwrap();
    assert!(of_pea.memory.total_usage_toward_limit >= 8 * MIB, "{of_pea:?}");
    assert!(of_pea.memory.total_usage_toward_limit < 16 * MIB, "{of_pea:?}");
    assert!(of_all.memory.total_usage_toward_limit >= 24 * MIB, "{of_all:?}");
    assert_eq!((of_pea.pids.current, of_all.pids.current), (2, 4), "two threads each");
    assert!(of_pea.cpu.usage > Duration::ZERO && of_pea.cpu.usage < of_all.cpu.usage);

    drop(pea);
    let mut pea = Actor::enter(&slot, Leaf::Pea(3), "hog 64");
    assert_eq!(pea.try_line(), None);
    assert_eq!(pea.wait().signal(), Some(9));
    assert_eq!(slot.oom_kills().unwrap(), 1);
    assert!(told(&watch, 1));

    slot.kill_leaf(Leaf::Pea(3), PATIENCE).unwrap();
    let forgotten = slot.remove_pea(3, PATIENCE).unwrap();
    assert_eq!(slot.oom_kills().unwrap() + forgotten, 1, "a kill is counted or told of");
    assert_eq!(slot.remove_pea(3, PATIENCE).unwrap(), 0);
    assert_eq!(slot.peas().unwrap(), [0; 0]);
    assert!(app.leave().success());
}

#[test]
fn all_that_a_plugin_has_started_ends_with_its_run() {
    let stage = Stage::new();
    let pids = || {
        let procs = stage.hierarchy.path().join("plugins");
        let runs = fs::read_dir(procs).into_iter().flatten().flatten();
        let read = |run: fs::DirEntry| fs::read_to_string(run.path().join("cgroup.procs")).ok();
        runs.filter_map(read).flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>())
    };
    let start = || {
        let run = stage.hierarchy.plugin_run().unwrap();
        let mut shell = std::process::Command::new("sh");
        shell.args(["-c", "setsid sleep 600 & exec sleep 600"]);
        let mut shell = spawn_within(shell, run.door().unwrap()).unwrap();
        let deadline = Instant::now() + PATIENCE;
        while pids().count() < 2 {
            assert!(Instant::now() < deadline, "both are inside");
            std::thread::sleep(Duration::from_millis(2));
        }
        assert!(shell.try_wait().unwrap().is_none());
        (run, shell)
    };
    let (run, mut shell) = start();
    // It is no slot.
    assert_eq!(stage.hierarchy.slots().unwrap(), []);
    run.end(PATIENCE).unwrap();
    assert_eq!(pids().count(), 0);
    assert_eq!(shell.wait().unwrap().signal(), Some(9));
    run.end(PATIENCE).unwrap();

    // Who comes later finds and ends what was left.
    let (_, mut shell) = start();
    let again = Hierarchy::detect(&stage.name, Path::new(UNDER)).unwrap();
    again.end_plugin_runs(PATIENCE).unwrap();
    assert_eq!(pids().count(), 0);
    assert_eq!(shell.wait().unwrap().signal(), Some(9));
}
