//! The seccomp filter of a container, call by call, as a program inside sees it.

#[path = "../../tests/plot/mod.rs"]
mod plot;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::process::Command;

use garden_api::{ContainerSpec, ProcessSpec};
use garden_sys::supervisor::Exit;
use plot::Plot;

const EPERM: i32 = 1;
const ENOSYS: i32 = 38;
const SIGSEGV: i32 = 11;

/// Calls that a filter lets through, so that they fail for their arguments or not at all.
const ALLOWED: [&str; 17] = [
    "getpid",
    "clone",
    "ptrace",
    "faccessat2",
    "membarrier",
    "close_range",
    "pidfd_open",
    "rseq",
    "seccomp",
    "prctl",
    "socket",
    "chroot",
    "mknodat",
    "setuid",
    "personality-0",
    "personality-8",
    "personality-ask",
];

fn probe(plot: &Plot, handle: &str, arguments: &[&str]) -> (Exit, BTreeMap<String, i32>) {
    let spec = ProcessSpec {
        path: "/probe".into(),
        args: arguments.iter().map(|argument| (*argument).to_owned()).collect(),
        ..ProcessSpec::default()
    };
    let outcome = plot.run(handle, &spec);
    let line = |line: &str| {
        let (name, errno) = line.split_once(' ').unwrap();
        (name.to_owned(), errno.parse().unwrap())
    };
    (outcome.exit, outcome.output.lines().map(line).collect())
}

fn plot() -> Plot {
    let plot = Plot::new();
    let image = plot.config.default_rootfs.as_ref().unwrap();
    fs::copy(env!("CARGO_BIN_EXE_syscall-probe"), image.join("probe")).unwrap();
    plot
}

#[test]
fn each_call_of_an_unprivileged_container_is_answered_as_the_profile_says() {
    let plot = plot();
    plot.create("calls");
    let (exit, answers) = probe(&plot, "calls", &[]);
    assert_eq!(exit, Exit::Status(0));
    assert!(answers.len() > 80, "{answers:?}");
    for (name, errno) in &answers {
        let expected = match name.as_str() {
            "clone3" | "no-such-call" => *errno == ENOSYS,
            allowed if ALLOWED.contains(&allowed) => ![EPERM, ENOSYS].contains(errno),
            _ => *errno == EPERM,
        };
        assert!(expected, "{name}: errno {errno}");
    }
}

#[test]
fn the_other_two_interfaces_lead_past_nothing() {
    let plot = plot();
    plot.create("interfaces");
    let (_, x32) = probe(&plot, "interfaces", &["x32"]);
    for refused in ["mount", "unshare", "keyctl"] {
        assert_eq!(x32[refused], EPERM, "x32 {refused}");
    }
    let (exit, ia32) = probe(&plot, "interfaces", &["ia32"]);
    // A kernel without that interface answers with SIGSEGV, which is then so outside as well.
    let outside = Command::new(env!("CARGO_BIN_EXE_syscall-probe")).arg("ia32").output().unwrap();
    if outside.status.signal() == Some(SIGSEGV) {
        assert_eq!((exit, ia32), (Exit::Status(128 + SIGSEGV), BTreeMap::new()));
        return;
    }
    assert!(outside.status.success(), "{outside:?}");
    assert_eq!(exit, Exit::Status(0));
    let expected = [
        ("getpid", 0),
        ("personality-0", 0),
        ("personality-no-randomize", EPERM),
        ("mount", EPERM),
        ("unshare", EPERM),
        ("keyctl", EPERM),
        ("clone3", ENOSYS),
    ];
    assert_eq!(ia32, expected.map(|(name, errno)| (name.to_owned(), errno)).into());
}

#[test]
fn a_privileged_container_has_no_filter() {
    let plot = plot();
    plot.create_as(ContainerSpec {
        handle: "privileged".into(),
        privileged: true,
        ..ContainerSpec::default()
    });
    let (exit, answers) = probe(&plot, "privileged", &[]);
    assert_eq!(exit, Exit::Status(0));
    for name in ["mount", "unshare", "unshare-net", "clone-user", "setns", "keyctl", "clone3"] {
        assert!(![EPERM, ENOSYS].contains(&answers[name]), "{name}: errno {}", answers[name]);
    }
}
