//! The other crates' kernel tests inside machines: cgroup v2 alone with all controllers, and a root
//! that lacks nothing.

#![forbid(unsafe_code)]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use machine::{Command, Kernel, Machine, Programs};

/// A test program takes seconds outside.
const PATIENCE: Duration = Duration::from_secs(500);

/// A test program that runs inside.
struct Inside {
    /// Its package's directory and its name.
    program: (&'static str, &'static str),
    environment: &'static [&'static str],
    arguments: &'static [&'static str],
}

static PROGRAMS: LazyLock<Programs> = LazyLock::new(|| {
    let tests: Vec<_> = TESTS.iter().map(|inside| inside.program).collect();
    Programs::tests(&tests).unwrap()
});

impl Inside {
    /// Runs it as root in a machine of its own. Its temporary files lie on ext4.
    fn passes_on(&self, kernel: Kernel) {
        let (package, name) = self.program;
        let machine = Machine::start(kernel, &format!("{name}-{kernel}")).unwrap();
        let path = PROGRAMS.put(&machine, package, name).unwrap();
        let words: Vec<&str> = [path.as_str()].iter().chain(self.arguments).copied().collect();
        let environment = self.environment.iter().chain(&["TMPDIR=/var/lib"]);
        let command = Command {
            environment: environment.map(ToString::to_string).collect(),
            ..Command::new(&words)
        };
        let start = Instant::now();
        let outcome = machine.spawn(&command).unwrap().outcome(PATIENCE).unwrap();
        println!("{name} on {kernel}, {:?}:\n{outcome}", start.elapsed());
        let passed = outcome.status == 0 && outcome.output.contains("test result: ok. ");
        assert!(passed, "{name} on {kernel}: status {}, see above", outcome.status);
    }
}

macro_rules! inside {
    ($($name:ident: $package:literal $program:literal [$($variable:literal),*]
        [$($argument:literal),*] [$($test:ident $kernel:ident),*];)*) => {
        const TESTS: &[Inside] = &[$($name::INSIDE),*];

        $(mod $name {
            use super::*;

            pub const INSIDE: Inside = Inside {
                program: ($package, $program),
                environment: &[$($variable),*],
                arguments: &[$($argument),*],
            };

            $(#[test]
            fn $test() {
                INSIDE.passes_on(Kernel::$kernel);
            })*
        })*
    };
}

// Packages and programs, with environment, arguments and kernels.
inside! {
    cgroup: "garden/cgroup" "kernel" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    supervisor: "garden/sys" "supervisor" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    kills: "garden/sys" "kills" ["BLOOMERY_KILLS=20"] [] [on_6_1 V6_1, on_6_12 V6_12];
    kills_apart: "garden/sys" "kills" ["BLOOMERY_KILLS=20", "BLOOMERY_KILL_SPACING_MS=1000"] []
        [on_6_1 V6_1, on_6_12 V6_12];
    seccomp: "garden/sys" "seccomp" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    containers: "garden" "containers" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    limits: "garden" "limits" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    sandbox: "garden" "sandbox" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    network: "garden" "network" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    restart: "garden" "restart" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    peas: "garden" "peas" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    http: "garden" "http" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    descriptors: "garden" "descriptors" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    descriptor_budget: "garden" "descriptor_budget" [] [] [on_6_12 V6_12];
    supervisor_upgrade: "garden/sys" "upgrade" ["BLOOMERY_UPGRADES=6"] []
        [on_6_1 V6_1, on_6_12 V6_12];
    upgrade: "garden" "upgrade" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    networker: "garden/networker" "kernel" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    exhaustion: "garden" "exhaustion" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    processes: "garden" "processes" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    // A whole distribution would be in the machine's memory: that one stays outside.
    images: "garden" "images" [] ["--skip", "a_distributions_programs_run"]
        [on_6_1 V6_1, on_6_12 V6_12];
    hijack: "garden" "hijack" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    // Hundreds of random archives say nothing about a kernel.
    archive: "rootfs" "archive" []
        ["--skip", "no_damage_makes_it_panic_or_leave", "--skip", "what_is_packed_comes_out_again"]
        [on_6_1 V6_1, on_6_12 V6_12];
    streams: "cli" "streams" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    image_plugin: "cli" "image_plugin" [] [] [on_6_12 V6_12];
    serve: "cli" "serve" [] [] [on_6_1 V6_1, on_6_12 V6_12];
    doctor: "cli" "doctor" [] [] [on_6_12 V6_12];
    debug: "cli" "debug" [] [] [on_6_12 V6_12];
    faults: "cli" "faults" ["BLOOMERY_KILLS=6", "BLOOMERY_KILL_SPACING_MS=2000"]
        ["--skip", "a_daemon_killed_at_any_step", "--skip", "a_supervisor_killed_while"]
        [on_6_1 V6_1, on_6_12 V6_12];
    // Forty starts of a daemon: one kernel is enough to see them on cgroup v2.
    steps: "cli" "faults" [] ["a_daemon_killed_at_any_step_leaves"] [on_6_1 V6_1];
}
