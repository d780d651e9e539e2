//! Limits, on this host's controllers.

mod plot;

use std::time::{Duration, Instant};

use garden_api::{
    ContainerSpec, CpuLimits, Limits, MemoryLimits, Nanoseconds, PidLimits, Properties,
};
use garden_sys::supervisor::Exit;
use plot::{Plot, wait_until};

fn limited(handle: &str, limits: Limits) -> ContainerSpec {
    ContainerSpec { handle: handle.into(), limits, ..ContainerSpec::default() }
}

#[test]
fn a_process_that_eats_too_much_memory_is_killed_and_that_is_known_before_its_status() {
    let plot = Plot::new();
    let memory = MemoryLimits { limit_in_bytes: 32 << 20 };
    plot.create_as(limited("memory", Limits { memory, ..Limits::default() }));
    assert_eq!(plot.garden().memory_limits("memory").unwrap(), memory);
    for kills in 1..=2 {
        // A string that doubles until it no longer fits.
        let running = plot.start_sh("memory", "exec awk 'BEGIN { x = \"x\"; while (1) x = x x }'");
        let process = running.process.clone();
        let exit = plot.runtime.block_on(process.wait());
        let events = plot.garden().info("memory").unwrap().events;
        assert_eq!(exit, Exit::Status(128 + 9));
        assert_eq!(events, vec!["Out of memory"; kills]);
    }
    // Those who eat less live on.
    assert_eq!(plot.sh("memory", "head -c 8000000 /dev/zero | wc -c").output, "8000000\n");
    let metrics = plot.garden().metrics("memory").unwrap();
    assert!(metrics.memory.total_usage_toward_limit < 32 << 20, "{metrics:?}");
}

#[test]
fn processes_beyond_the_limit_are_refused_inside() {
    let plot = Plot::new();
    let pids = PidLimits { max: 12 };
    plot.create_as(limited("pids", Limits { pid: pids, ..Limits::default() }));
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do sleep 1000 & done; wait";
    let (exit, _, error) = plot.start_sh("pids", script).end();
    assert_ne!(exit, Exit::Status(0));
    assert!(error.contains("can't fork"), "{error}");
    let used = plot.garden().metrics("pids").unwrap().pid;
    assert_eq!((used.current, used.max), (11, 12), "the shell itself has ended");
    // The twelfth may be one that the daemon starts. A thirteenth is refused on v2; on v1 one may
    // join a full cgroup, but make no child in it.
    let last = plot.start_sh("pids", "exec sleep 1000");
    match plot.garden().run("pids", &plot::running::shell("(true); exit 0")) {
        Ok(process) => {
            let (exit, _, error) = plot.attach(process).end();
            assert_ne!(exit, Exit::Status(0));
            assert!(error.contains("can't fork"), "{error}");
        }
        Err(error) => {
            let text = error.to_string();
            assert!(text.starts_with("cannot start the process: "), "{text}");
        }
    }
    plot.garden().stop("pids", true).unwrap();
    assert_eq!(last.end().0, Exit::Status(128 + 9));
    assert_eq!(plot.sh("pids", "exit 4").exit, Exit::Status(4));
}

#[test]
fn cpu_shares_are_set_and_a_quota_holds_a_process_back() {
    let plot = Plot::with(|config| config.cpu_quota_per_share = 100);
    let cpu = CpuLimits { weight: 100, limit_in_shares: 0 };
    plot.create_as(limited("cpu", Limits { cpu, ..Limits::default() }));
    // 100 shares at 100 µs each are a tenth of a core.
    let begun = Instant::now();
    let outcome =
        plot.sh("cpu", "end=$(($(date +%s) + 2)); while [ $(date +%s) -lt $end ]; do :; done");
    assert_eq!(outcome.exit, Exit::Status(0));
    let used = Duration::from_nanos(plot.garden().metrics("cpu").unwrap().cpu.usage);
    assert!(used < begun.elapsed() / 4, "{used:?} of {:?}", begun.elapsed());
    assert!(used > Duration::from_millis(20), "{used:?}");
}

#[test]
fn an_unused_container_is_destroyed_after_its_grace_time_and_calls_hold_it() {
    let plot = Plot::new();
    plot.create_as(ContainerSpec {
        handle: "grace".into(),
        grace_time: Nanoseconds::from_duration(Duration::from_millis(600)),
        ..ContainerSpec::default()
    });
    // A call that takes longer than the grace time.
    let held = plot.garden().hold("grace").unwrap();
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_millis(1500) {
        assert_eq!(plot.garden().list(&Properties::new()), ["grace"]);
        std::thread::sleep(Duration::from_millis(20));
    }
    drop(held);
    let begun = Instant::now();
    wait_until("the container is gone", || plot.garden().list(&Properties::new()).is_empty());
    assert!(begun.elapsed() >= Duration::from_millis(500), "the time starts again in full");
    plot.create("for-ever");
    plot.garden().set_grace_time("for-ever", Duration::from_millis(100)).unwrap();
    wait_until("the other one is gone, too", || plot.garden().list(&Properties::new()).is_empty());
}
