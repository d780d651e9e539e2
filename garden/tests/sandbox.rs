//! What a container is made of, as its processes see it.

mod plot;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use garden_api::{BindMount, BindMountMode, ContainerSpec, DiskLimits, Limits, ProcessSpec};
use garden_sys::supervisor::Exit;
use plot::Plot;
use plot::running::shell;

const CAPABILITIES: &str = "grep -E '^Cap' /proc/self/status | tr -d '\\t\\n'";

fn told(plot: &Plot, handle: &str, script: &str) -> String {
    let outcome = plot.sh(handle, script);
    assert_eq!((outcome.exit, outcome.error.as_str()), (Exit::Status(0), ""), "{script}");
    outcome.output
}

fn told_as(plot: &Plot, handle: &str, user: &str, script: &str) -> String {
    let outcome = plot.run(handle, &ProcessSpec { user: user.into(), ..shell(script) });
    assert_eq!((outcome.exit, outcome.error.as_str()), (Exit::Status(0), ""), "{script}");
    outcome.output
}

fn privileged(handle: &str) -> ContainerSpec {
    ContainerSpec { handle: handle.into(), privileged: true, ..ContainerSpec::default() }
}

/// The bounding set of this process, which a container cannot exceed.
fn own_bounds() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
    u64::from_str_radix(line.trim(), 16).unwrap()
}

#[test]
fn capabilities_are_those_of_the_reference_for_root_and_for_others() {
    let plot = Plot::new();
    plot.create("plain");
    plot.create_as(privileged("privileged"));
    let own = own_bounds();
    let sets = |effective: u64, bounding: u64| {
        format!(
            "CapInh:{:016x}CapPrm:{effective:016x}CapEff:{effective:016x}CapBnd:{bounding:016x}CapAmb:{:016x}",
            0, 0
        )
    };
    let (plain, full) = (0xa804_25fb & own, 0x3f_ffff_ffff & own);
    assert_eq!(told(&plot, "plain", CAPABILITIES), sets(plain, plain));
    assert_eq!(told_as(&plot, "plain", "vcap", CAPABILITIES), sets(0, plain));
    assert_eq!(told(&plot, "privileged", CAPABILITIES), sets(full, full));
    let others = 0xa824_25fb & own;
    assert_eq!(told_as(&plot, "privileged", "vcap", CAPABILITIES), sets(0, others));
}

#[test]
fn roots_files_belong_to_the_mapped_root_on_the_host() {
    let plot = Plot::new();
    plot.create("ids");
    assert_eq!(
        told(&plot, "ids", "tr -s ' ' < /proc/self/uid_map; cat /proc/self/gid_map | tr -s ' '"),
        " 0 4294967294 1\n 1 1 4294967293\n 0 4294967294 1\n 1 1 4294967293\n"
    );
    told(
        &plot,
        "ids",
        "echo root > /root/mine; echo vcap > /home/vcap/his; chown vcap /home/vcap/his",
    );
    let upper = plot.volume("ids").join("upper");
    let mine = fs::metadata(upper.join("root/mine")).unwrap();
    assert_eq!((mine.uid(), mine.gid()), (4_294_967_294, 4_294_967_294));
    assert_eq!(fs::metadata(upper.join("home/vcap/his")).unwrap().uid(), 2000);
    // The image is untouched, and inside it is root's own.
    let image = plot.config.default_rootfs.as_ref().unwrap();
    assert!(!image.join("root/mine").exists());
    assert_eq!(told(&plot, "ids", "stat -c %u:%g /bin/busybox /home/vcap"), "0:0\n2000:2000\n");
    plot.create_as(privileged("same"));
    told(&plot, "same", "echo root > /root/mine");
    let mine = fs::metadata(plot.volume("same").join("upper/root/mine")).unwrap();
    assert_eq!(mine.uid(), 0);
}

#[test]
fn devices_are_the_usual_ones_and_others_cannot_be_used() {
    let plot = Plot::new();
    plot.create("plain");
    plot.create_as(privileged("privileged"));
    let nodes = "cd /dev; stat -c '%n %F %t:%T %a' null zero full random urandom tty; \
                 for l in fd stdin stdout stderr ptmx; do readlink $l; done";
    let expected = "null character special file 1:3 666\nzero character special file 1:5 666\n\
        full character special file 1:7 666\nrandom character special file 1:8 666\n\
        urandom character special file 1:9 666\ntty character special file 5:0 666\n\
        /proc/self/fd\n/proc/self/fd/0\n/proc/self/fd/1\n/proc/self/fd/2\npts/ptmx\n";
    for handle in ["plain", "privileged"] {
        assert_eq!(told(&plot, handle, nodes), expected);
        told(&plot, handle, "head -c 8 /dev/urandom > /dev/null; head -c 8 /dev/zero > /dev/null");
    }
    assert_eq!(told(&plot, "plain", "ls /dev | grep -c fuse || true"), "0\n");
    assert_eq!(told(&plot, "privileged", "stat -c %t:%T /dev/fuse"), "a:e5\n");
    // A user namespace may make no nodes at all.
    let outcome = plot.sh("plain", "mknod /tmp/kmsg c 1 11");
    assert_eq!(outcome.exit, Exit::Status(1));
    assert!(outcome.error.contains("Operation not permitted"), "{}", outcome.error);
    // A privileged container may make any, and use only those it is given.
    for (name, numbers) in [("kmsg", "c 1 11"), ("mem", "c 1 1"), ("disk", "b 8 0")] {
        let script = format!("mknod /tmp/{name} {numbers} && head -c 1 /tmp/{name}");
        let outcome = plot.sh("privileged", &script);
        assert_eq!(outcome.exit, Exit::Status(1), "{name}");
        assert!(outcome.error.contains("Operation not permitted"), "{name}: {}", outcome.error);
    }
    told(&plot, "privileged", "mknod /tmp/zero c 1 5 && head -c 1 /tmp/zero > /dev/null");
}

#[test]
fn the_kernels_file_systems_are_read_only_views_with_what_tells_of_the_host_masked() {
    let plot = Plot::new();
    plot.create("views");
    for path in ["/sys", "/sys/fs/cgroup"] {
        let outcome = plot.sh("views", &format!("mkdir {path}/x"));
        assert_eq!(outcome.exit, Exit::Status(1), "{path}");
    }
    let mounts = told(&plot, "views", "cat /proc/self/mounts");
    let options = |target: &str| -> Vec<&str> {
        let line = mounts.lines().find(|line| line.split(' ').nth(1) == Some(target));
        let line = line.unwrap_or_else(|| panic!("{target} in {mounts}"));
        line.split(' ').nth(3).unwrap().split(',').collect()
    };
    for (target, wanted) in [
        ("/sys", ["ro", "nosuid", "nodev", "noexec"].as_slice()),
        ("/proc", &["nosuid", "nodev", "noexec"]),
        ("/dev", &["noexec", "mode=755"]),
        ("/dev/pts", &["nosuid", "noexec", "gid=5", "mode=620", "ptmxmode=666"]),
        ("/dev/shm", ["nosuid", "nodev", "noexec"].as_slice()),
        ("/dev/mqueue", &[]),
        ("/sys/firmware", &["ro"]),
    ] {
        let options = options(target);
        for option in wanted {
            assert!(options.contains(option), "{target}: {option} in {options:?}");
        }
    }
    assert_eq!(told(&plot, "views", "stat -c %a /dev/shm"), "1777\n");
    // The container sees limits of its own, and can write to none.
    let limits = "find /sys/fs/cgroup -name memory.max -o -name memory.limit_in_bytes | grep -c .";
    assert_ne!(told(&plot, "views", limits), "0\n");
    let writable = "find /sys/fs/cgroup -writable 2>/dev/null | wc -l";
    assert_eq!(told(&plot, "views", writable), "0\n");
    for masked in ["kcore", "keys", "timer_list", "sched_debug", "latency_stats"] {
        let script = format!("[ ! -e /proc/{masked} ] || head -c 1 /proc/{masked} | wc -c");
        assert!(["", "0\n"].contains(&told(&plot, "views", &script).as_str()), "{masked}");
    }
    for hidden in ["/sys/firmware", "/proc/scsi"] {
        assert_eq!(told(&plot, "views", &format!("[ ! -e {hidden} ] || ls -A {hidden}")), "");
    }
    // Nothing of the host's mounts is left.
    let outside = plot.directory.path().to_str().unwrap();
    assert!(!mounts.lines().any(|line| line.split(' ').nth(1).unwrap().starts_with(outside)));
    let outcome = plot.sh("views", "mount -t tmpfs none /tmp");
    assert_ne!(outcome.exit, Exit::Status(0));
}

#[test]
fn names_come_from_files_of_the_containers_root_and_the_handles_last_49_characters() {
    let plot = Plot::new();
    let image = plot.config.default_rootfs.as_ref().unwrap();
    fs::write(image.join("etc/hosts"), "10.0.0.1 image\n").unwrap();
    let long = format!("{}{}", "x".repeat(11), "y".repeat(49));
    plot.create(&long);
    assert_eq!(told(&plot, &long, "hostname"), format!("{}\n", "y".repeat(49)));
    let hosts = told(&plot, &long, "cat /etc/hosts");
    assert!(!hosts.contains("image"), "{hosts}");
    assert_eq!(told(&plot, &long, "stat -c %u:%g /etc/hosts /etc/resolv.conf"), "0:0\n0:0\n");
    told(
        &plot,
        &long,
        "echo 10.9.9.9 friend >> /etc/hosts; echo nameserver 10.9.9.8 >> /etc/resolv.conf",
    );
    let path = plot.volume(&long).join("hosts");
    assert!(fs::read_to_string(path).unwrap().ends_with("10.9.9.9 friend\n"));
    let outcome =
        plot.run(&long, &ProcessSpec { user: "vcap".into(), ..shell("echo >> /etc/hosts") });
    assert_ne!(outcome.exit, Exit::Status(0));
}

#[test]
fn bind_mounts_are_read_only_unless_asked_otherwise() {
    let plot = Plot::new();
    let source = plot.directory.path().join("given");
    fs::create_dir(&source).unwrap();
    fs::write(source.join("file"), "from outside\n").unwrap();
    for open in [&source, &source.join("file")] {
        fs::set_permissions(open, fs::Permissions::from_mode(0o777)).unwrap();
    }
    let bind = |from: &std::path::Path, to: &str, mode| BindMount {
        src_path: from.display().to_string(),
        dst_path: to.into(),
        mode,
        ..BindMount::default()
    };
    plot.create_as(ContainerSpec {
        handle: "binds".into(),
        bind_mounts: vec![
            bind(&source, "/new/deep/ro", BindMountMode::ReadOnly),
            bind(&source, "/rw", BindMountMode::ReadWrite),
            bind(&source.join("file"), "/etc/one-file", BindMountMode::ReadOnly),
        ],
        ..ContainerSpec::default()
    });
    assert_eq!(
        told(&plot, "binds", "cat /new/deep/ro/file /etc/one-file"),
        "from outside\nfrom outside\n"
    );
    for path in ["/new/deep/ro/made", "/etc/one-file"] {
        let outcome = plot.sh("binds", &format!("echo x >> {path}"));
        assert!(outcome.error.contains("Read-only file system"), "{path}: {}", outcome.error);
    }
    told(&plot, "binds", "echo inside > /rw/made");
    assert_eq!(fs::read_to_string(source.join("made")).unwrap(), "inside\n");
    let missing = plot.garden().create(ContainerSpec {
        handle: "missing".into(),
        bind_mounts: vec![bind(&source.join("nowhere"), "/x", BindMountMode::ReadOnly)],
        ..ContainerSpec::default()
    });
    let text = missing.unwrap_err().to_string();
    assert!(text.contains("cannot bind mount") && text.contains("nowhere"), "{text}");
    assert_eq!(
        plot.garden().list(&[("garden.state".to_owned(), "all".to_owned())].into()),
        ["binds"]
    );
}

#[test]
fn a_disk_limit_is_accepted_and_reported() {
    let plot = Plot::new();
    let disk = DiskLimits { byte_hard: 1 << 20, ..DiskLimits::default() };
    plot.create_as(ContainerSpec {
        handle: "disk".into(),
        limits: Limits { disk, ..Limits::default() },
        ..ContainerSpec::default()
    });
    assert_eq!(plot.garden().limits("disk").unwrap().disk, disk);
}
