//! Programs that the system has to bring: which are missing, and how they are installed.

use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use machine::host::find;

use crate::elevated;

/// A program and the package that brings it, by distribution.
#[derive(Debug)]
pub struct Program {
    /// Its file name, looked for in `PATH` and the directories for administrators.
    name: &'static str,
    debian: &'static str,
    fedora: &'static str,
    arch: &'static str,
    /// What it is for, for who reads the list.
    purpose: &'static str,
}

const fn program(
    name: &'static str,
    [debian, fedora, arch]: [&'static str; 3],
    purpose: &'static str,
) -> Program {
    Program { name, debian, fedora, arch, purpose }
}

/// What `cargo xtask up` needs.
pub const UP: &[Program] = &[program(
    "mmdebstrap",
    // The keys are not among what it depends on, and only Debian has them anyway.
    [
        "mmdebstrap debian-archive-keyring",
        "mmdebstrap debian-keyring",
        "mmdebstrap debian-archive-keyring",
    ],
    "the root file system of apps, from Debian's packages",
)];

/// What `cargo xtask up --garden` needs.
pub const GARDEN: &[Program] = &[program(
    BUSYBOX,
    ["busybox-static", "busybox", "busybox"],
    "the small root file system of the demonstration; one without libraries",
)];

/// What its benchmark needs beyond that.
pub const BENCH: &[Program] = &[
    program("runc", ["runc", "runc", "runc"], "the benchmark's first peer"),
    program("crun", ["crun", "crun", "crun"], "the benchmark's second peer"),
];

/// What test machines need beyond these two.
pub const MACHINES: &[Program] = &[
    program(
        "qemu-system-x86_64",
        ["qemu-system-x86", "qemu-system-x86-core", "qemu-system-x86"],
        "test machines",
    ),
    program("mkfs.ext4", ["e2fsprogs", "e2fsprogs", "e2fsprogs"], "disks of test machines"),
    program("strip", ["binutils"; 3], "smaller programs in test machines"),
    program("ip", ["iproute2", "iproute", "iproute2"], "looking at links in tests"),
    program("nft", ["nftables", "nftables", "nftables"], "looking at rules in tests"),
];

/// What `cargo xtask test` needs beyond all of these.
pub const TEST: &[Program] = &[
    program("sysctl", ["procps", "procps-ng", "procps-ng"], "sysctls in tests"),
    program(
        "pip3",
        ["python3-pip", "python3-pip", "python-pip"],
        "Python's client of the platform",
    ),
    program("systemd-analyze", ["systemd"; 3], "looking at the unit file in tests"),
    program("nats-server", ["nats-server"; 3], "the bus of daemons that run alone"),
];

/// Other programs have this name as well: Debian's busybox of the package busybox needs libraries,
/// which a root file system of busybox alone has not.
const BUSYBOX: &str = "busybox";

impl Program {
    fn is_there(&self) -> bool {
        match self.name {
            BUSYBOX => rootfs::busybox::find().is_ok(),
            name => find(name).is_some(),
        }
    }
}

/// Installs the programs that are missing, or says how to.
pub fn provide(lists: &[&[Program]]) -> anyhow::Result<()> {
    let missing: Vec<_> =
        lists.iter().copied().flatten().filter(|program| !program.is_there()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    println!("==> missing on this system:");
    for program in &missing {
        println!("    {:<20} {}", program.name, program.purpose);
    }
    let packages = |of: fn(&Program) -> &'static str| {
        missing.iter().map(|program| of(program)).collect::<Vec<_>>().join(" ")
    };
    let debian = packages(|program| program.debian);
    if find("apt-get").is_none() || !elevated::possible() {
        bail!(
            "install these and run the command again:\n  Debian, Ubuntu  apt-get install {debian}\n  \
             Fedora          dnf install {}\n  Arch            pacman -S {}",
            packages(|program| program.fedora),
            packages(|program| program.arch),
        );
    }
    println!("==> apt-get install {debian}");
    apt(&["update", "-qq"])?;
    let arguments: Vec<_> = ["install", "-y", "-qq", "--no-install-recommends"]
        .into_iter()
        .chain(debian.split(' '))
        .collect();
    apt(&arguments)
}

fn apt(arguments: &[&str]) -> anyhow::Result<()> {
    // debconf asks no questions; dpkg's own chatter hides what matters.
    let status = elevated::command("env")
        .args(["DEBIAN_FRONTEND=noninteractive", "apt-get"])
        .args(arguments)
        .stdout(Stdio::null())
        .status()
        .context("cannot start apt-get")?;
    if !status.success() {
        bail!("apt-get {} failed: {status}", arguments.join(" "));
    }
    Ok(())
}

/// Runs a command to its end, showing it first.
pub fn run(command: &mut Command) -> anyhow::Result<()> {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ");
    println!("==> {line}");
    let status = command.status().with_context(|| format!("cannot start {line}"))?;
    if !status.success() {
        bail!("{line} failed: {status}");
    }
    Ok(())
}
