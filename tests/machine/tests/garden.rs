//! The program as an operator has it, on kernels that keep nothing from it: what shows only in the
//! first network namespace, with all capabilities, with swap, or after a loss of power.

#![forbid(unsafe_code)]

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use machine::{Command, Kernel, Machine, Process, Programs};

/// Longer than anything takes here, on the busiest host.
const PATIENCE: Duration = Duration::from_secs(120);
const PROGRAM: &str = "/opt/bloomery";
const LOG: &str = "/run/garden.log";

static BINARY: LazyLock<Programs> = LazyLock::new(|| Programs::binary("bloomery").unwrap());

/// A machine with the program, an image, and perhaps a daemon.
struct Cell {
    machine: Machine,
    daemon: Option<Process>,
}

impl Cell {
    fn new(machine: Machine) -> Self {
        let cell = Self { machine, daemon: None };
        cell.equip();
        cell
    }

    fn on(kernel: Kernel, name: &str) -> Self {
        Self::new(Machine::start(kernel, name).unwrap())
    }

    fn equip(&self) {
        assert_eq!(BINARY.put(&self.machine, "cli", "bloomery").unwrap(), PROGRAM);
        self.told(
            "mkdir -p /run/bloomery && cd /var/lib && mkdir -p image && cd image && \
             mkdir -p bin dev etc proc root sys tmp && cp /bin/busybox bin && \
             for name in awk cat grep nc seq sh; do ln -sf busybox bin/$name; done && \
             cp /etc/passwd /etc/group etc",
        );
    }

    /// What a script says; it must succeed.
    fn told(&self, script: &str) -> String {
        let outcome = self.machine.sh(script).unwrap();
        assert_eq!(outcome.status, 0, "{script}: {outcome}\n{}", self.log());
        outcome.output
    }

    fn log(&self) -> String {
        self.machine.run(&["cat", LOG]).map(|outcome| outcome.output).unwrap_or_default()
    }

    /// Starts a daemon and waits until it answers.
    fn start(&mut self, flags: &str) {
        let script = format!(
            "exec {PROGRAM} garden serve --default-rootfs /var/lib/image --pool-size 1 {flags} \
             >{LOG} 2>&1"
        );
        self.daemon = Some(self.machine.spawn(&Command::new(&["sh", "-c", &script])).unwrap());
        let deadline = Instant::now() + PATIENCE;
        while self.machine.run(&[PROGRAM, "ctl", "list"]).unwrap().status != 0 {
            assert!(Instant::now() < deadline, "the daemon serves: {}", self.log());
        }
    }

    /// Ends the daemon as an operator does; containers live on.
    fn stop(&mut self) {
        let daemon = self.daemon.take().unwrap();
        daemon.signal(15).unwrap();
        assert_eq!(daemon.outcome(PATIENCE).unwrap().status, 0, "{}", self.log());
    }

    /// What `bloomery ctl` says; it must succeed.
    fn ctl(&self, words: &str) -> String {
        self.told(&format!("{PROGRAM} ctl {words}"))
    }

    /// A number of a container, by its place in the server's JSON.
    fn metric(&self, handle: &str, pointer: &str) -> u64 {
        let metrics = self.ctl(&format!("metrics --json {handle}"));
        let metrics: serde_json::Value = serde_json::from_str(&metrics).unwrap();
        metrics.pointer(pointer).and_then(serde_json::Value::as_u64).unwrap_or_else(|| {
            panic!("no {pointer} in {metrics}");
        })
    }

    fn address(&self, handle: &str) -> String {
        let info = self.ctl(&format!("info --json {handle}"));
        let info: serde_json::Value = serde_json::from_str(&info).unwrap();
        info["ContainerIP"].as_str().unwrap_or_else(|| panic!("{info}")).to_owned()
    }
}

#[test]
fn the_kernels_log_has_one_line_for_each_connection_that_a_logging_rule_lets_through() {
    let handle = "a-handle-of-more-than-twenty-eight-characters";
    for kernel in Kernel::ALL {
        let mut cell = Cell::on(kernel, "net-out");
        cell.start("--deny-network 10.254.0.0/22");
        cell.ctl("create --handle server");
        let server = cell.address("server");
        // Enough for many packets each way.
        cell.ctl("run -d server -- nc -ll -p 80 -e seq 1 50000");
        let rule = format!("protocol=tcp,network={server},port=80");
        cell.ctl(&format!("create --handle {handle} --net-out {rule},log"));
        cell.ctl(&format!("create --handle silent --net-out {rule}"));
        let connect = |handle: &str| {
            let script = format!("until nc {server} 80 </dev/null | grep -c .; do :; done");
            cell.ctl(&format!("run --no-stdin {handle} -- sh -c '{script}'"))
        };
        let own = cell.address(handle);
        let lines = || -> Vec<String> {
            let log = cell.told("dmesg");
            log.lines().filter(|line| line.contains(" IN=w")).map(str::to_owned).collect()
        };
        // Once the server listens, so that each of the others is one connection.
        assert!(connect("silent").ends_with("50000\n"));
        assert!(lines().is_empty(), "{kernel}: a rule that does not log: {:#?}", lines());
        for count in 1..=2 {
            assert_eq!(connect(handle), "50000\n");
            let lines = lines();
            assert_eq!(lines.len(), count, "{kernel}: {lines:#?}");
            let line = lines.last().unwrap();
            let begin = format!("] {} IN=wb-", &handle[..28]);
            assert!(line.contains(&begin), "{kernel}: {begin} in {line}");
            for part in [&format!("SRC={own} DST={server} "), "PROTO=TCP ", "DPT=80 ", " SYN "] {
                assert!(line.contains(part), "{kernel}: {part} in {line}");
            }
        }
    }
}

#[test]
fn a_privileged_container_has_every_capability_of_the_reference() {
    for kernel in Kernel::ALL {
        let mut cell = Cell::on(kernel, "capabilities");
        cell.start("");
        cell.ctl("create --privileged --handle box");
        let sets = cell.ctl("run --no-stdin box -- grep ^Cap /proc/self/status");
        let full = "0000003fffffffff";
        let expected = format!(
            "CapInh:\t{0}\nCapPrm:\t{full}\nCapEff:\t{full}\nCapBnd:\t{full}\nCapAmb:\t{0}\n",
            "0000000000000000"
        );
        assert_eq!(sets, expected, "{kernel}");
        assert!(!cell.log().contains("lack capabilities"), "{}", cell.log());
    }
}

#[test]
fn swap_counts_towards_the_memory_limit_unless_the_operator_says_otherwise() {
    // Strings of a thousand bytes: half as much again as the limit.
    let hog = "awk 'BEGIN { for (i = 0; i < 48000; i++) a[i] = sprintf(\"%1000d\", i); print i }'";
    for kernel in Kernel::ALL {
        let mut cell = Cell::on(kernel, "swap");
        cell.told(
            "cd /var/lib && dd if=/dev/zero of=swap bs=1M count=128 && chmod 600 swap && \
             mkswap swap && swapon swap",
        );
        cell.start("");
        cell.ctl("create --handle box --memory 32M");
        let run = format!("{PROGRAM} ctl run --no-stdin box -- {hog}");
        let killed = cell.machine.sh(&run).unwrap();
        assert_eq!(killed.status, 128 + 9, "{kernel}: {killed}");
        assert!(cell.ctl("info box").contains("Out of memory"), "{kernel}");
        cell.ctl("destroy box");
        cell.stop();
        cell.start("--disable-swap-limit");
        cell.ctl("create --handle box --memory 32M");
        assert_eq!(cell.told(&run), "48000\n", "{kernel}");
        assert!(!cell.ctl("info box").contains("Out of memory"), "{kernel}");
    }
}

#[test]
fn who_has_more_shares_gets_more_of_a_processor() {
    for kernel in Kernel::ALL {
        let mut cell = Cell::on(kernel, "shares");
        cell.start("");
        for (handle, shares) in [("many", 1024), ("few", 256)] {
            cell.ctl(&format!("create --handle {handle} --cpu {shares}"));
            cell.ctl(&format!("run -d {handle} -- sh -c 'while :; do :; done'"));
        }
        let used = |handle: &str| {
            Duration::from_nanos(cell.metric(handle, &format!("/{handle}/Metrics/CPUStat/Usage")))
        };
        let before = ["many", "few"].map(used);
        let deadline = Instant::now() + PATIENCE;
        let ratio = loop {
            let [many, few] = ["many", "few"].map(used);
            let (many, few) = (many - before[0], few - before[1]);
            if few > Duration::from_secs(1) {
                break many.as_secs_f64() / few.as_secs_f64();
            }
            assert!(Instant::now() < deadline, "{kernel}: {many:?} and {few:?}");
        };
        // The weights are 100 and 35 (garden.md 5).
        assert!((2.0..4.0).contains(&ratio), "{kernel}: {ratio}");
    }
}

#[test]
fn after_a_loss_of_power_nothing_of_the_old_containers_is_left() {
    let flags = "--depot /var/lib/bloomery/depot --keeper-dir /var/lib/bloomery/keeper";
    let depot = "ls /var/lib/bloomery/depot";
    let written = "find /var/lib/bloomery/garden -name written";
    for kernel in Kernel::ALL {
        let mut cell = Cell::new(Machine::start_with_disk(kernel, "power").unwrap());
        cell.told("mkdir -p /var/lib/bloomery");
        cell.start(flags);
        cell.ctl("create --handle kept -p 61001:8080 --memory 64M");
        cell.ctl("create --handle other --privileged");
        cell.ctl("run -d --id server kept -- nc -ll -p 8080 -e echo hello");
        cell.ctl("run kept -- sh -c 'echo old >/root/written'");
        cell.told("sync");
        // This one is cut off wherever the disk happens to be.
        cell.ctl("create --handle late");
        let boot = "cat /proc/sys/kernel/random/boot_id";
        let first = cell.told(boot);
        cell.machine.restart().unwrap();
        assert_ne!(cell.told(boot), first);
        cell.equip();
        let held = cell.told(depot);
        for handle in ["kept", "other"] {
            assert!(held.lines().any(|line| line == handle), "{kernel}: {held}");
        }
        assert_eq!(cell.told(written).lines().count(), 1, "{kernel}");

        cell.start(flags);
        assert_eq!(cell.ctl("list --all"), "", "{kernel}");
        assert_eq!(cell.told(depot), "", "{kernel}: {}", cell.log());
        // What the pool has parked, and nothing else.
        let deadline = Instant::now() + PATIENCE;
        let counts = format!(
            "ls /sys/fs/cgroup/bloomery-b | grep -c '^[0-9]*$'; ls /sys/class/net | grep -c ^wb-; \
             ls /var/lib/bloomery/garden/volumes | wc -l; {written} | wc -l"
        );
        while cell.told(&counts) != "1\n1\n1\n0\n" {
            assert!(Instant::now() < deadline, "{kernel}: {}", cell.told(&counts));
        }
        cell.ctl("create --handle kept -p 61001:8080 --memory 64M");
        assert_eq!(cell.ctl("run kept -- sh -c 'cat /root/written || echo new'"), "new\n");
        cell.ctl("run -d --id server kept -- nc -ll -p 8080 -e echo hello");
        let hello = "until nc 127.0.0.1 61001 </dev/null | grep hello; do :; done";
        assert_eq!(cell.told(hello), "hello\n", "{kernel}");
        cell.ctl("destroy kept");
        assert_eq!(cell.told(depot), "", "{kernel}");
    }
}

/// A policy as the kernel takes it.
fn compiled(profile: &str) -> Vec<u8> {
    let package = machine::unpacked("apparmor").unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), profile).unwrap();
    // Neither this machine's kernel nor its settings decide: the features of 3.0, which Debian pins.
    let parser = std::process::Command::new(package.join("sbin/apparmor_parser"))
        .args(["--config-file=/dev/null", "-Q", "-K", "-S", "-M"])
        .arg(package.join("etc/apparmor.d/abi/3.0"))
        .arg(file.path())
        .output()
        .unwrap();
    assert!(parser.status.success(), "{}", String::from_utf8_lossy(&parser.stderr));
    parser.stdout
}

#[test]
fn processes_of_unprivileged_containers_run_under_the_chosen_profile_of_apparmor() {
    const PROFILE: &str = include_str!("../../../garden/apparmor/garden-default");
    const POLICY: &str = "/sys/kernel/security/apparmor";
    let stricter = PROFILE
        .replace("garden-default", "stricter")
        .replace("  deny mount,\n", "  deny mount,\n  deny /root/secret rw,\n");
    let policies = [compiled(PROFILE), compiled(&stricter)].concat();
    for kernel in Kernel::ALL {
        let mut cell = Cell::on(kernel, "apparmor");
        cell.told(&format!("[ -d {POLICY} ] || mount -t securityfs none /sys/kernel/security"));
        let refused = |cell: &Cell, profile: &str| {
            let start = format!("{PROGRAM} garden serve --apparmor {profile} 2>&1");
            let outcome = cell.machine.sh(&start).unwrap();
            assert_eq!(outcome.status, 1, "{kernel}: {outcome}");
            assert!(outcome.output.contains("this profile is not loaded"), "{kernel}: {outcome}");
        };
        refused(&cell, "garden-default");
        cell.machine.put_bytes(&policies, "/run/policies", 0o600).unwrap();
        cell.told(&format!("cat /run/policies >{POLICY}/.replace"));

        cell.start("--apparmor garden-default");
        cell.ctl("create --handle box");
        cell.ctl("create --handle privileged --privileged");
        let label = |cell: &Cell, handle: &str| {
            let read = "cat /proc/self/attr/apparmor/current";
            cell.ctl(&format!("run --no-stdin {handle} -- sh -c '{read}; sh -c \"{read}\"'"))
        };
        assert_eq!(label(&cell, "box"), "garden-default (enforce)\n".repeat(2), "{kernel}");
        assert_eq!(label(&cell, "privileged"), "unconfined\n".repeat(2), "{kernel}");
        // What processes do all day they still do, signals from outside among it.
        cell.ctl(
            "run --no-stdin box -- sh -c 'set -e; echo 1 >/proc/self/oom_score_adj; \
             echo x >/root/secret; cat /root/secret; nc -l -p 80 & kill -9 $!; ! wait $!'",
        );
        cell.ctl("run -d --id long box -- seq inf");
        cell.ctl("stop --kill box");

        cell.stop();
        cell.start("--apparmor stricter");
        assert_eq!(label(&cell, "box"), "stricter (enforce)\n".repeat(2), "{kernel}");
        let script = format!("{PROGRAM} ctl run --no-stdin box -- cat /root/secret 2>&1");
        let denied = cell.machine.sh(&script).unwrap();
        assert_eq!(denied.status, 1, "{kernel}: {denied}");
        assert!(denied.output.contains("Permission denied"), "{kernel}: {denied}");
        cell.stop();
        cell.told(&format!("printf stricter >{POLICY}/.remove"));
        refused(&cell, "stricter");
    }
}

#[test]
fn the_demonstration_leaves_a_gardens_containers_alone_whether_that_runs_or_not() {
    let refuses = |cell: &Cell, reason: &str| {
        let refused = cell.machine.run(&[PROGRAM, "demo"]).unwrap();
        assert_eq!(refused.status, 1, "{refused}");
        assert!(refused.error.contains(reason), "{reason}: {refused}");
        let down = cell.told(&format!("{PROGRAM} demo --down"));
        assert_eq!(down, "nothing of a demonstration is here\n");
    };
    for kernel in Kernel::ALL {
        let mut cell = Cell::on(kernel, "others");
        cell.start("");
        cell.ctl("create --handle box");
        cell.ctl("run -d box -- nc -ll -p 80 -e echo hello");
        let process = "for p in /proc/[0-9]*; do \
             tr '\\0' ' ' <$p/cmdline | grep -q '^nc -ll -p 80 ' && echo $p; done; :";
        let pid = cell.told(process);
        assert_eq!(pid.lines().count(), 1, "{kernel}: {pid}");
        refuses(&cell, "a Garden is running at /run/bloomery/garden.sock (process ");
        cell.told("mv /run/bloomery/garden.sock /run/elsewhere.sock");
        refuses(
            &cell,
            "another Garden is running (`bloomery garden serve --depot /run/bloomery/depot`)",
        );
        cell.stop();
        refuses(&cell, "`bloomery garden cleanup --depot /run/bloomery/depot`");
        assert_eq!(cell.told(process), pid, "{kernel}");
        cell.start("");
        assert_eq!(cell.ctl("list"), "box\n", "{kernel}");
        assert_eq!(cell.told(process), pid, "{kernel}");
    }
}
