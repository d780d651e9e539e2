//! The other crates' kernel tests inside machines: cgroup v2 alone with all controllers, and a root
//! that lacks nothing.

#![forbid(unsafe_code)]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use machine::{Command, Kernel, Machine, Programs};

/// A test program takes seconds outside.
const PATIENCE: Duration = Duration::from_secs(500);

/// Packages and tests that run inside.
const TESTS: &[(&str, &str)] = &[
    ("garden/cgroup", "kernel"),
    ("garden/sys", "supervisor"),
    ("garden/sys", "kills"),
    ("garden/sys", "seccomp"),
    ("garden", "containers"),
    ("garden", "limits"),
    ("garden", "sandbox"),
    ("garden", "network"),
    ("garden", "restart"),
    ("garden", "http"),
    ("garden", "descriptors"),
    ("garden/networker", "kernel"),
];

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| Programs::tests(TESTS).unwrap());

/// Runs a test program as root in a machine of its own. Its temporary files lie on ext4.
fn passes(kernel: Kernel, index: usize, environment: &[&str]) {
    let (package, name) = TESTS[index];
    let machine = Machine::start(kernel, &format!("{name}-{kernel}")).unwrap();
    let path = PROGRAMS.put(&machine, package, name).unwrap();
    let environment = environment.iter().chain(&["TMPDIR=/var/lib"]);
    let command = Command {
        environment: environment.map(ToString::to_string).collect(),
        ..Command::new(&[&path])
    };
    let start = Instant::now();
    let outcome = machine.spawn(&command).unwrap().outcome(PATIENCE).unwrap();
    println!("{name} on {kernel}, {:?}:\n{outcome}", start.elapsed());
    assert_eq!(outcome.status, 0, "{name} on {kernel}: {outcome}");
    assert!(outcome.output.contains("test result: ok. "), "{name} on {kernel}: {outcome}");
}

macro_rules! inside {
    ($($name:ident: $index:literal $environment:expr;)*) => {$(
        mod $name {
            use super::*;

            #[test]
            fn on_6_1() {
                passes(Kernel::V6_1, $index, &$environment);
            }

            #[test]
            fn on_6_12() {
                passes(Kernel::V6_12, $index, &$environment);
            }
        }
    )*};
}

inside! {
    cgroup: 0 [];
    supervisor: 1 [];
    kills: 2 ["BLOOMERY_KILLS=20"];
    kills_apart: 2 ["BLOOMERY_KILLS=20", "BLOOMERY_KILL_SPACING_MS=1000"];
    seccomp: 3 [];
    containers: 4 [];
    limits: 5 [];
    sandbox: 6 [];
    network: 7 [];
    restart: 8 [];
    http: 9 [];
    descriptors: 10 [];
    networker: 11 [];
}
