//! Single machines: their start, processes, files, identity and power.

#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use machine::{Command, Event, Kernel, Machine, Outcome, Process, Window};

/// Longer than anything takes here, on the busiest host.
const PATIENCE: Duration = Duration::from_secs(120);

fn start(name: &str) -> Machine {
    Machine::start(Kernel::V6_1, name).unwrap()
}

fn shell(machine: &Machine, script: &str) -> Process {
    machine.spawn(&Command::new(&["sh", "-c", script])).unwrap()
}

/// What a script says; it must succeed.
fn told(machine: &Machine, script: &str) -> String {
    let outcome = machine.sh(script).unwrap();
    assert_eq!(outcome.status, 0, "{script}: {outcome}");
    outcome.output
}

/// Waits until a process has written this much to its standard output.
fn hear(process: &Process, wanted: &str) {
    let mut heard = Vec::new();
    while heard.len() < wanted.len() {
        match process.next(PATIENCE).unwrap() {
            Event::Output(piece) => heard.extend_from_slice(&piece),
            other => panic!("{other:?} after {:?}", String::from_utf8_lossy(&heard)),
        }
    }
    assert_eq!(String::from_utf8(heard).unwrap(), wanted);
}

#[test]
fn both_kernels_start_in_a_fraction_of_a_second_on_cgroup_v2_alone() {
    for kernel in Kernel::ALL {
        let machine = Machine::start(kernel, "first").unwrap();
        let release = told(&machine, "uname -r");
        assert!(release.starts_with(&format!("{kernel}.")), "{kernel}: {release}");
        assert_eq!(told(&machine, "grep -c cgroup /proc/mounts"), "1\n");
        let controllers = told(&machine, "cat /sys/fs/cgroup/cgroup.subtree_control");
        let controllers: BTreeSet<&str> = controllers.split_whitespace().collect();
        assert_eq!(controllers, BTreeSet::from(["cpu", "cpuset", "io", "memory", "pids"]));
        assert_eq!(told(&machine, "stat -f -c %T /var/lib"), "ext2/ext3\n");
        drop(machine);
        // The best of some: a busy host says nothing about the harness.
        let times: Vec<_> = (0..5)
            .map(|_| {
                let begin = Instant::now();
                let machine = Machine::start(kernel, "clone").unwrap();
                let ready = begin.elapsed();
                assert_eq!(machine.run(&["true"]).unwrap(), Outcome::default());
                ready
            })
            .collect();
        println!("kernel {kernel}: clones are ready in {times:?}");
        assert!(times.iter().min().unwrap() < &Duration::from_secs(5), "{times:?}");
    }
}

#[test]
fn statuses_and_streams_come_back_as_they_were() {
    let machine = start("statuses");
    let outcome = machine.sh("echo out; echo err >&2; exit 42").unwrap();
    let expected = Outcome { status: 42, output: "out\n".into(), error: "err\n".into() };
    assert_eq!(outcome, expected);
    assert_eq!(machine.sh("kill -9 $$").unwrap().status, 128 + 9);
    let refused = format!("{:#}", machine.run(&["no-such-program"]).unwrap_err());
    assert!(refused.contains("cannot start no-such-program"), "{refused}");
    let command = Command {
        environment: vec!["COLOUR=red".into()],
        directory: "/var/tmp".into(),
        ..Command::new(&["sh", "-c", "echo $COLOUR; pwd"])
    };
    let outcome = machine.spawn(&command).unwrap().outcome(PATIENCE).unwrap();
    assert_eq!(outcome.output, "red\n/var/tmp\n");
    // More than the pipes and frames on the way hold, to the last byte.
    let many = machine.sh("seq 1 100000").unwrap().output;
    assert_eq!(many.lines().count(), 100_000);
    assert!(many.ends_with("\n100000\n"));
}

#[test]
fn processes_run_side_by_side_and_hear_their_own_input_and_signals() {
    let machine = start("side-by-side");
    let mut echoes: Vec<Process> =
        (0..3).map(|n| shell(&machine, &format!("while read l; do echo {n} $l; done"))).collect();
    let inputs: Vec<_> = echoes.iter_mut().map(|echo| echo.take_input().unwrap()).collect();
    // One that never reads holds up nobody but who writes to it.
    let mut deaf = shell(&machine, "trap 'exit 7' USR1; echo set; while :; do sleep 0.05; done");
    hear(&deaf, "set\n");
    let to_deaf = deaf.take_input().unwrap();
    std::thread::scope(|scope| {
        let stuck = scope.spawn(move || to_deaf.write(&[b'x'; 300_000]));
        for round in 0..3 {
            for (n, (echo, input)) in echoes.iter().zip(&inputs).enumerate() {
                input.write(format!("round {round}\n").as_bytes()).unwrap();
                hear(echo, &format!("{n} round {round}\n"));
            }
        }
        deaf.signal(10).unwrap();
        assert_eq!(deaf.outcome(PATIENCE).unwrap().status, 7);
        stuck.join().unwrap().unwrap_err();
    });
    for (echo, input) in echoes.into_iter().zip(inputs) {
        input.end().unwrap();
        assert_eq!(echo.outcome(PATIENCE).unwrap().status, 0);
    }
    let group = shell(&machine, "sleep 600 & echo up; wait");
    hear(&group, "up\n");
    group.signal(9).unwrap();
    assert_eq!(group.outcome(PATIENCE).unwrap().status, 128 + 9);
    assert_eq!(told(&machine, "pgrep -f 'sleep 600' || echo none"), "none\n", "all of the group");
}

#[test]
fn what_a_process_leaves_running_keeps_nobody_waiting_and_is_reaped() {
    let machine = start("orphans");
    let outcome = machine.sh("sleep 600 & echo left").unwrap();
    assert_eq!((outcome.status, outcome.output.as_str()), (0, "left\n"));
    told(&machine, "for n in 1 2 3 4 5; do (sleep 0.01 &); done");
    let deadline = Instant::now() + PATIENCE;
    let zombies = "grep -l '^State:.Z' /proc/[0-9]*/status || true";
    while !told(&machine, zombies).is_empty() {
        assert!(Instant::now() < deadline, "zombies stay");
    }
}

#[test]
fn files_are_put_whole_or_not_at_all() {
    let machine = start("files");
    let content: Vec<u8> =
        (0..3_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    machine.put_bytes(&content, "/opt/deep/er/file", 0o640).unwrap();
    let expected = Machine::start(Kernel::V6_1, "other").unwrap();
    expected.put_bytes(&content, "/file", 0o600).unwrap();
    assert_eq!(told(&machine, "stat -c '%a %s' /opt/deep/er/file"), "640 3000000\n");
    let sum = |machine: &Machine, path: &str| told(machine, &format!("sha256sum <{path}"));
    assert_eq!(sum(&machine, "/opt/deep/er/file"), sum(&expected, "/file"));
    // A program that runs is replaced, and both go on.
    machine.put(Path::new("/bin/busybox"), "/opt/busybox").unwrap();
    let mut cat = machine.spawn(&Command::new(&["/opt/busybox", "cat"])).unwrap();
    machine.put(Path::new("/bin/busybox"), "/opt/busybox").unwrap();
    cat.take_input().unwrap().write(b"still here").unwrap();
    hear(&cat, "still here");
    let refused = machine.put_bytes(b"x", "/proc/file", 0o600).unwrap_err();
    assert!(format!("{refused:#}").contains("cannot put /proc/file"), "{refused:#}");
    assert_eq!(told(&machine, "ls /opt"), "busybox\ndeep\n");
}

#[test]
fn clones_differ_in_what_must_differ() {
    let machines = ["one", "two"].map(start);
    let of = |script: &str| machines.each_ref().map(|machine| told(machine, script));
    assert_eq!(of("hostname"), ["one\n", "two\n"]);
    for random in
        ["head -c 32 /dev/urandom | od -x", "cat /proc/sys/kernel/random/boot_id", "mktemp -u"]
    {
        let [one, two] = of(random);
        assert_ne!(one, two, "{random}");
    }
    let now = || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let before = now();
    for time in of("date +%s") {
        let time: u64 = time.trim().parse().unwrap();
        // A busy host gives an emulated clock its ticks late.
        assert!(time + 60 >= before && time <= now() + 1, "{before} {time}");
    }
    told(&machines[0], "echo mine >/var/lib/file");
    assert_eq!(told(&machines[1], "ls /var/lib"), "lost+found\n", "each has a disk of its own");
}

#[test]
fn a_paused_machine_stands_still_and_a_killed_one_is_gone() {
    let mut machine = start("power");
    let mut cat = machine.spawn(&Command::new(&["cat"])).unwrap();
    let input = cat.take_input().unwrap();
    input.write(b"before").unwrap();
    hear(&cat, "before");
    machine.pause().unwrap();
    std::thread::scope(|scope| {
        let written = scope.spawn(move || input.write(b"after"));
        cat.next(Duration::from_millis(500)).unwrap_err();
        machine.resume().unwrap();
        hear(&cat, "after");
        written.join().unwrap().unwrap();
    });
    machine.kill();
    cat.next(PATIENCE).unwrap_err();
    let deadline = Instant::now() + PATIENCE;
    while machine.run(&["true"]).is_ok() {
        assert!(Instant::now() < deadline, "a killed machine answers");
    }
}

#[test]
fn a_process_may_have_a_terminal() {
    let machine = start("terminal");
    let command = Command {
        terminal: Some(Window { rows: 24, columns: 80 }),
        ..Command::new(&["sh", "-c", "tty; stty size; read go; stty size; read end; echo over"])
    };
    let mut process = machine.spawn(&command).unwrap();
    hear(&process, "/dev/pts/0\r\n24 80\r\n");
    process.resize(Window { rows: 30, columns: 100 }).unwrap();
    let input = process.take_input().unwrap();
    input.write(b"go\n").unwrap();
    hear(&process, "go\r\n30 100\r\n");
    input.end().unwrap();
    let rest = process.outcome(PATIENCE).unwrap();
    assert_eq!((rest.status, rest.output.ends_with("over\r\n")), (0, true), "{rest}");
}
