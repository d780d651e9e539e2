//! Processes with an image of their own.

mod plot;

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use bloomery_garden::Error;
use garden_api::{
    BindMount, BindMountMode, ContainerSpec, CpuLimits, ImageRef, Limits, MemoryLimits,
    ProcessLimits, ProcessSpec, ResourceLimits, Signal, TtySpec, WindowSize,
};
use garden_sys::supervisor::Exit;
use plot::running::shell;
use plot::traces::{Traces, children};
use plot::waiting::kernel_keeps_statuses;
use plot::{Outcome, Plot, wait_until};

/// A plot with one container, `box`, and an image that differs from the container's.
struct Bed {
    plot: Plot,
    image: PathBuf,
    before: Traces,
}

impl Bed {
    fn new() -> Self {
        Self::of(ContainerSpec::default())
    }

    fn of(spec: ContainerSpec) -> Self {
        let plot = Plot::new();
        let image = plot.directory.path().join("pea");
        rootfs::busybox::build(&image, &rootfs::busybox::find().unwrap()).unwrap();
        fs::write(image.join("which"), "the pea's\n").unwrap();
        let users = "root:x:0:0::/root:/bin/sh\npat:x:1500:1501::/home/pat:/bin/sh\n";
        fs::write(image.join("etc/passwd"), users).unwrap();
        plot.create_as(ContainerSpec { handle: "box".into(), ..spec });
        let before = Traces::settled(&plot.config, 1, 0);
        Self { plot, image, before }
    }

    fn pea(&self, id: &str, script: &str) -> ProcessSpec {
        let image = ImageRef { uri: self.image.display().to_string(), ..ImageRef::default() };
        ProcessSpec { id: id.into(), image, ..shell(script) }
    }

    /// The same beside the container, with these limits.
    fn sibling(&self, id: &str, script: &str, memory: u64) -> ProcessSpec {
        let memory = MemoryLimits { limit_in_bytes: memory };
        let limits = Some(ProcessLimits { memory, ..ProcessLimits::default() });
        ProcessSpec { limits, ..self.pea(id, script) }
    }

    /// What a pea writes that ends well.
    fn told(&self, script: &str) -> String {
        self.told_by(&self.pea("", script))
    }

    fn told_by(&self, spec: &ProcessSpec) -> String {
        let Outcome { exit, output, error } = self.plot.run("box", spec);
        assert_eq!((exit, error.as_str()), (Exit::Status(0), ""), "{spec:?}: {output}");
        output
    }

    /// What a process of the container writes that ends well.
    fn told_inside(&self, spec: &ProcessSpec) -> String {
        let image = ImageRef::default();
        let dir = "/".to_owned();
        self.told_by(&ProcessSpec { image, dir, limits: None, ..spec.clone() })
    }

    fn refused(&self, spec: &ProcessSpec) -> Error {
        self.plot.garden().run("box", spec).unwrap_err()
    }

    /// Numbers of the peas that the container's record names.
    fn peas(&self) -> Vec<u64> {
        let record = self.plot.config.depot.join("box/container.json");
        let record: serde_json::Value = serde_json::from_slice(&fs::read(record).unwrap()).unwrap();
        let processes = record["processes"].as_object().unwrap().values();
        processes.filter_map(|process| process["pea"]["number"].as_u64()).collect()
    }

    fn leaves_nothing(&self) {
        self.before.expect_again(&self.plot.config);
        assert_eq!(self.peas(), [0; 0]);
    }
}

fn pid_of(marker: &str) -> Option<i32> {
    plot::traces::processes().map(|(pid, _)| pid).find(|pid| {
        fs::read_to_string(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.contains(marker))
    })
}

/// A script that says so and then waits, under a name by which its process is found from outside.
fn waiting(marker: &str) -> String {
    format!(": {marker}; echo ready; read line; echo heard $line; exit 7")
}

fn marker(name: &str) -> String {
    format!("{name}-{}", std::process::id())
}

#[test]
fn a_pea_has_a_root_of_its_own_and_all_other_namespaces_of_the_container() {
    let env = vec!["FROM=container".to_owned()];
    let bed = Bed::of(ContainerSpec { env, ..ContainerSpec::default() });
    bed.plot.sh("box", "echo 10.1.2.3 friend >> /etc/hosts; echo of the container > /tmp/mine");
    let told = bed.told(
        "cat /which; cat /tmp/mine 2>&1; pwd; hostname; env | sort; echo written > /tmp/mine",
    );
    assert_eq!(
        told,
        "the pea's\ncat: can't open '/tmp/mine': No such file or directory\n/\nbox\nHOME=/root\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/\nSHLVL=1\nUSER=root\n"
    );
    assert_eq!(bed.plot.sh("box", "cat /tmp/mine").output, "of the container\n");
    assert!(!bed.image.join("tmp/mine").exists(), "the image stays as it is");
    let names = "cat /etc/hosts /etc/resolv.conf";
    let same = bed.told(names);
    assert!(same.contains("10.1.2.3 friend\n"), "{same}");
    assert_eq!(same, bed.plot.sh("box", names).output);

    let name = marker("namespaces");
    let (keeper, anchor) = bed.plot.supervisor();
    let others = children(keeper, anchor);
    let script = format!(": {name}; echo pid $$ ready; read line");
    let mut running = bed.plot.start("box", &bed.pea("one", &script));
    running.hear("ready\n");
    let pid = pid_of(&name).unwrap();
    let init = others.iter().copied().find(|init| {
        let link = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        link(*init) == link(pid)
    });
    let init = init.expect("it is in a container's network");
    for kind in ["net", "pid", "ipc", "uts", "user", "mnt", "cgroup"] {
        let link = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(link(pid) == link(init), kind != "mnt", "{kind}");
    }
    let more = children(keeper, anchor).len();
    assert_eq!(more, others.len() + 1, "a pea is one process");
    // Nothing of the supervisor's or the host's mounts is left in it.
    let mounts = fs::read_to_string(format!("/proc/{pid}/mounts")).unwrap();
    let outside = bed.plot.directory.path().to_str().unwrap();
    let targets: Vec<_> = mounts.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(targets.iter().filter(|target| **target == "/").count(), 1, "{mounts}");
    assert!(!targets.iter().any(|target| target.starts_with(outside) || *target == "/root"));
    // The container sees it among its processes, and can end it.
    let said = String::from_utf8(running.heard[0].clone()).unwrap();
    let inside = said.split(' ').nth(1).unwrap();
    let ended =
        bed.plot.sh("box", &format!("grep -c {name} /proc/{inside}/cmdline && kill -9 {inside}"));
    assert_eq!((ended.exit, ended.output.as_str()), (Exit::Status(0), "1\n"));
    assert_eq!(running.end_open().0, Exit::Status(128 + 9));
    bed.leaves_nothing();
}

#[test]
fn users_homes_and_directories_are_those_of_the_peas_image() {
    let bed = Bed::new();
    let who = "id -u; id -g; echo $HOME $USER; pwd";
    for (user, expected) in [
        ("", "0\n0\n/root root\n/\n"),
        ("pat", "1500\n1501\n/home/pat pat\n/\n"),
        ("1500", "1500\n1501\n/home/pat 1500\n/\n"),
        ("1500:7", "1500\n7\n/home/pat 1500:7\n/\n"),
        ("77:78", "77\n78\n/ 77:78\n/\n"),
    ] {
        let spec = ProcessSpec { user: user.into(), ..bed.pea("", who) };
        assert_eq!(bed.told_by(&spec), expected, "{user}");
    }
    // A user of the container's image is none of the pea's.
    let vcap = ProcessSpec { user: "vcap".into(), ..shell("id -u") };
    assert_eq!(bed.told_by(&vcap), "2000\n");
    let vcap = ProcessSpec { user: "vcap".into(), ..bed.pea("", "id -u") };
    assert_eq!(
        bed.refused(&vcap),
        Error::Plain("unable to find user vcap: no matching entries in passwd file".into())
    );
    let made = ProcessSpec {
        dir: "/new/deep".into(),
        user: "pat".into(),
        ..bed.pea("", "pwd; stat -c %U /new/deep")
    };
    assert_eq!(bed.told_by(&made), "/new/deep\npat\n");
    bed.leaves_nothing();
}

/// What is allowed, hidden and mounted, as far as it does not depend on the image.
const CONFINEMENT: &str = "grep -E '^(Cap|Seccomp:|NoNewPrivs)' /proc/self/status; \
    cat /proc/self/uid_map /proc/self/gid_map; umask; ls /proc/self/fd | wc -l; \
    cd /dev; stat -c '%n %F %t:%T %u:%g %a' . * pts/ptmx; \
    for f in kcore keys timer_list sched_debug latency_stats; do \
    [ ! -e /proc/$f ] || head -c 1 /proc/$f 2>&1 | wc -c; done; ls -A /sys/firmware /proc/scsi 2>/dev/null; \
    grep -v ' overlay ' /proc/self/mounts | cut -d' ' -f2-4 | sort; \
    mkdir /sys/x /sys/fs/cgroup/x 2>&1; mknod /tmp/mem c 1 1 2>&1; head -c 1 /tmp/mem 2>&1; \
    rm -f /tmp/mem; mount -t tmpfs none /tmp 2>&1 && umount /tmp; chroot / true 2>&1; ulimit -n; \
    cat /sys/fs/cgroup/memory.max /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null; true";

#[test]
fn a_pea_is_confined_as_every_process_of_its_container() {
    for privileged in [false, true] {
        let memory = MemoryLimits { limit_in_bytes: 64 << 20 };
        let limits = Limits { memory, ..Limits::default() };
        let bed = Bed::of(ContainerSpec { privileged, limits, ..ContainerSpec::default() });
        for user in ["", "1500:1501"] {
            let spec = ProcessSpec { user: user.into(), ..bed.pea("", CONFINEMENT) };
            let inside = bed.told_inside(&spec);
            assert!(inside.contains("/dev/shm tmpfs"), "{inside}");
            assert_eq!(bed.told_by(&spec), inside, "privileged {privileged}, user {user:?}");
            let sibling =
                ProcessSpec { user: user.into(), ..bed.sibling("", CONFINEMENT, 64 << 20) };
            assert_eq!(bed.told_by(&sibling), inside, "privileged {privileged}, user {user:?}");
        }
        bed.leaves_nothing();
    }
}

#[test]
fn a_pea_has_a_terminal_of_its_own_that_is_resized_and_attached_to() {
    let mut bed = Bed::new();
    let window_size = Some(WindowSize { columns: 100, rows: 30 });
    let script = "tty; stty size; [ -t 0 ] && [ -t 2 ] && stat -c %U $(tty); echo /dev/pts/*; \
                  read line; stty size; echo got $line; exit 4";
    let spec = ProcessSpec {
        tty: Some(TtySpec { window_size }),
        user: "pat".into(),
        ..bed.pea("tty", script)
    };
    let mut running = bed.plot.start("box", &spec);
    running.hear("/dev/pts/0\r\n30 100\r\npat\r\n/dev/pts/0 /dev/pts/ptmx\r\n");
    bed.plot.restart();
    drop(running);
    let running = bed.plot.attach(bed.plot.garden().process("box", "tty").unwrap());
    running.process.resize(WindowSize { columns: 90, rows: 20 }).unwrap();
    running.say("this\n");
    let (exit, output, _) = running.end_open();
    assert_eq!(exit, Exit::Status(4));
    assert!(output.ends_with("20 90\r\ngot this\r\n"), "{output:?}");
    // What it finds in its /dev is what a pea without a terminal finds, and a process.
    let spec = ProcessSpec { tty: Some(TtySpec::default()), ..bed.pea("", CONFINEMENT) };
    let untouched = |text: &str| {
        let lines = text.lines().filter(|line| line.parse::<u32>().is_err());
        lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>()
    };
    let on_terminal = untouched(&bed.told_by(&spec));
    assert_eq!(on_terminal, untouched(&bed.told_by(&ProcessSpec { tty: None, ..spec })));
    bed.leaves_nothing();
}

#[test]
fn bind_mounts_of_a_pea_are_its_own() {
    let bed = Bed::new();
    let given = bed.plot.directory.path().join("given");
    fs::create_dir(&given).unwrap();
    fs::write(given.join("file"), "from outside\n").unwrap();
    let bind = |dst_path: &str, mode| BindMount {
        src_path: given.display().to_string(),
        dst_path: dst_path.into(),
        mode,
        ..BindMount::default()
    };
    let with = |binds: Vec<BindMount>, script: &str| ProcessSpec {
        bind_mounts: binds,
        ..bed.pea("", script)
    };
    use BindMountMode::{ReadOnly, ReadWrite};
    let both = vec![bind("/new/ro", ReadOnly), bind("/rw", ReadWrite)];
    let spec = with(both, "cat /new/ro/file; echo x > /new/ro/x; echo made > /rw/made");
    // The directory is root's of the host.
    fs::set_permissions(&given, fs::Permissions::from_mode(0o777)).unwrap();
    let outcome = bed.plot.run("box", &spec);
    assert_eq!((outcome.exit, outcome.output.as_str()), (Exit::Status(0), "from outside\n"));
    assert!(outcome.error.contains("Read-only file system"), "{}", outcome.error);
    assert_eq!(fs::read_to_string(given.join("made")).unwrap(), "made\n");
    assert_eq!(bed.plot.sh("box", "ls /rw /new 2>/dev/null").output, "");
    let nowhere = BindMount { src_path: "/no/such/place".into(), ..bind("/x", ReadOnly) };
    let error = bed.refused(&with(vec![nowhere], "true")).to_string();
    assert!(error.contains("cannot bind mount /no/such/place"), "{error}");
    let error = bed.refused(&with(vec![bind("/", ReadOnly)], "true")).to_string();
    assert!(error.contains("is the container's root"), "{error}");
    let plain = ProcessSpec { bind_mounts: vec![bind("/x", ReadOnly)], ..shell("true") };
    assert_eq!(
        bed.refused(&plain).to_string(),
        "Running a process with bind mounts and no image provided is not allowed"
    );
    bed.leaves_nothing();
}

/// Takes 32 MiB and more, and says so.
const EAT: &str =
    "exec awk 'BEGIN { x = \"x\"; while (length(x) < 20000000) x = x x; print length(x) }'";

#[test]
fn a_pea_shares_the_containers_limits_unless_it_has_its_own() {
    let memory = MemoryLimits { limit_in_bytes: 24 << 20 };
    let limits = Limits { memory, ..Limits::default() };
    let mut bed = Bed::of(ContainerSpec { limits, ..ContainerSpec::default() });
    let events = |bed: &Bed| bed.plot.garden().info("box").unwrap().events.len();
    let neighbour = bed.plot.start_sh("box", "read line; exit 5");
    let killed = Exit::Status(128 + 9);
    let ended = |bed: &Bed, spec: &ProcessSpec| {
        let running = bed.plot.start("box", spec);
        let exit = bed.plot.runtime.block_on(running.process.wait());
        (exit, events(bed))
    };
    assert_eq!(ended(&bed, &bed.pea("", EAT)), (killed, 1), "known before the status");
    // With limits, even none, it is no part of the container.
    assert_eq!(bed.told_by(&bed.sibling("", EAT, 0)), "33554432\n");
    assert_eq!(ended(&bed, &bed.sibling("", EAT, 32 << 20)), (killed, 1), "its own limit");
    // Kills in cgroups that are gone by then are neither forgotten nor counted twice.
    wait_until("its cgroup is gone", || Traces::of(&bed.plot.config).cgroups == bed.before.cgroups);
    assert_eq!(ended(&bed, &shell(EAT)), (killed, 2));
    assert_eq!(ended(&bed, &bed.pea("", EAT)), (killed, 3));
    bed.plot.restart();
    drop(neighbour);
    assert_eq!(ended(&bed, &bed.pea("", EAT)), (killed, 4));
    assert_eq!(ended(&bed, &shell(EAT)), (killed, 5));
    bed.plot.garden().stop("box", true).unwrap();
    bed.leaves_nothing();
}

#[test]
fn a_peas_usage_is_told_by_its_id() {
    let bed = Bed::new();
    let write = "head -c 3000000 /dev/zero > /root/file; echo ready; read line";
    let cpu = CpuLimits { weight: 512, limit_in_shares: 0 };
    let limits = Some(ProcessLimits { cpu, ..ProcessLimits::default() });
    let peas = [bed.pea("child", write), ProcessSpec { limits, ..bed.pea("sibling", write) }];
    let running: Vec<_> = peas
        .iter()
        .map(|spec| {
            let mut running = bed.plot.start("box", spec);
            running.hear("ready\n");
            running
        })
        .collect();
    let garden = bed.plot.garden();
    let container = garden.metrics("box").unwrap();
    for id in ["child", "sibling"] {
        let used = garden.metrics(id).unwrap();
        assert_eq!((used.pid.current, used.pid.max), (1, 0), "{id}");
        assert!(used.cpu.usage > 0 && used.memory.total_usage_toward_limit > 0, "{id}: {used:?}");
        let written = used.disk.exclusive_bytes_used;
        assert!((3_000_000..4_000_000).contains(&written), "{id}: {written}");
        assert!(used.disk.total_bytes_used > written + 500_000, "{id}: with its image");
        assert!(used.age < container.age, "{id}");
        assert_eq!(used.cpu_entitlement > 0, id == "sibling", "{id}");
        assert_eq!(garden.metrics_untouched(id).unwrap().pid, used.pid);
    }
    // One of them is in the container's numbers, both are among its processes.
    assert_eq!(container.pid.current, 2, "process 1 and the child");
    assert!(container.disk.exclusive_bytes_used < 1_000_000, "its own files");
    running.into_iter().for_each(|running| assert_eq!(running.end().0, Exit::Status(1)));
    bed.leaves_nothing();
    assert_eq!(garden.metrics("child").unwrap_err(), Error::ContainerNotFound("child".into()));
}

#[test]
fn stop_ends_peas_and_destroy_leaves_nothing_of_them() {
    let bed = Bed::new();
    let name = marker("stopped");
    let deaf = format!(": {name}; trap '' TERM; echo ready; while :; do sleep 0.05; done");
    let start = |spec: &ProcessSpec| {
        let mut running = bed.plot.start("box", spec);
        running.hear("ready\n");
        running
    };
    let both = [bed.pea("", &deaf), bed.sibling("", &deaf, 0)].map(|spec| start(&spec));
    bed.plot.garden().stop("box", true).unwrap();
    assert_eq!(pid_of(&name), None);
    both.into_iter().for_each(|one| assert_eq!(one.end_open().0, Exit::Status(128 + 9)));
    bed.leaves_nothing();
    // Politely at first.
    let polite = [bed.pea("", &waiting(&name)), bed.sibling("", &waiting(&name), 0)];
    let polite = polite.map(|spec| start(&spec));
    bed.plot.garden().stop("box", false).unwrap();
    polite.into_iter().for_each(|one| assert_eq!(one.end_open().0, Exit::Status(128 + 15)));
    bed.leaves_nothing();

    let both = [bed.pea("one", &deaf), bed.sibling("two", &deaf, 0)].map(|spec| start(&spec));
    bed.plot.garden().destroy("box").unwrap();
    assert_eq!(pid_of(&name), None);
    both.into_iter().for_each(|one| assert_eq!(one.end_open().0, Exit::Status(128 + 9)));
    let empty = Traces::settled(&bed.plot.config, 0, 0);
    // Beside the keeper's a slot has as many as a parked one, of which there were two with the container.
    for (empty, with_one) in empty.cgroups.values().zip(bed.before.cgroups.values()) {
        assert_eq!(2 * (empty[1] - 1), with_one[1] - 1);
    }
}

#[test]
fn what_a_pea_leaves_running_goes_with_it() {
    let bed = Bed::new();
    let name = marker("orphan");
    let script = format!("sh -c ': {name}; while :; do sleep 0.05; done' >/dev/null 2>&1 & exit 3");
    for spec in [bed.pea("", &script), bed.sibling("", &script, 0)] {
        assert_eq!(bed.plot.run("box", &spec).exit, Exit::Status(3));
        wait_until("it is gone", || pid_of(&name).is_none());
        bed.leaves_nothing();
    }
}

#[test]
fn peas_outlive_the_daemon_and_are_taken_up_by_the_next_one() {
    let mut bed = Bed::new();
    let signs = bed.plot.directory.path().join("signs");
    fs::create_dir(&signs).unwrap();
    fs::set_permissions(&signs, fs::Permissions::from_mode(0o777)).unwrap();
    let names = [marker("kept-child"), marker("kept-sibling")];
    let specs =
        [bed.pea("child", &waiting(&names[0])), bed.sibling("sibling", &waiting(&names[1]), 0)];
    let clients = specs.map(|spec| {
        let mut running = bed.plot.start("box", &spec);
        running.hear("ready\n");
        running
    });
    let script = "while [ ! -e /signs/end ]; do sleep 0.02; done; echo while away; \
                  touch /signs/ended; exit 6";
    let mount = BindMount {
        src_path: signs.display().to_string(),
        dst_path: "/signs".into(),
        mode: BindMountMode::ReadWrite,
        ..BindMount::default()
    };
    let gone = ProcessSpec { bind_mounts: vec![mount], ..bed.sibling("gone", script, 0) };
    drop(bed.plot.garden().run("box", &gone).unwrap());
    let pids = || names.clone().map(|name| pid_of(&name).unwrap());
    let before = pids();
    assert_eq!(bed.peas().len(), 3);
    bed.plot.leave();
    drop(clients);
    fs::write(signs.join("end"), "").unwrap();
    wait_until("one has ended", || signs.join("ended").exists());
    bed.plot.come_back();
    let taken = |id: &str| bed.plot.attach(bed.plot.garden().process("box", id).unwrap());
    let (exit, output, _) = taken("gone").end_open();
    assert_eq!((exit, output.as_str()), (Exit::Status(6), "while away\n"));
    assert_eq!(pids(), before);
    let volumes = bed.plot.config.store.join("volumes");
    wait_until("what it had is gone, and nothing of the others", || bed.peas().len() == 2);
    for number in bed.peas() {
        assert!(volumes.join(number.to_string()).join("upper").exists());
    }
    // Neither do they notice anything of a supervisor that dies.
    let (keeper, anchor) = bed.plot.supervisor();
    for (pid, exit) in [(keeper, 2), (anchor, 3)] {
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        let next = bed.plot.run("box", &bed.pea("", &format!("exit {exit}")));
        assert_eq!(next.exit, Exit::Status(exit));
    }
    for id in ["child", "sibling"] {
        assert!(bed.plot.garden().metrics(id).unwrap().cpu.usage > 0, "{id}");
        let running = taken(id);
        running.say("on\n");
        let (exit, output, _) = running.end_open();
        assert!(output.ends_with("heard on\n"), "{id}: {output}");
        let lost = !kernel_keeps_statuses() && exit == Exit::Unknown;
        assert!(exit == Exit::Status(7) || lost, "{id}: {exit:?}");
    }
    // Those that were there when the supervisor died are the host's children now, and not counted.
    wait_until("nothing is left of them", || {
        let Traces { files, cgroups, descriptors, .. } = Traces::of(&bed.plot.config);
        let before = &bed.before;
        files["store/volumes"] == before.files["store/volumes"]
            && cgroups == before.cgroups
            && descriptors == before.descriptors
    });
}

#[test]
fn a_signal_ends_a_pea_and_its_id_can_be_told_from_others() {
    let bed = Bed::new();
    let mut running = bed.plot.start("box", &bed.pea("one", "echo ready; exec sleep 1000"));
    running.hear("ready\n");
    let again = bed.refused(&bed.pea("one", "true"));
    assert_eq!(again, Error::Plain("process ID 'one' already in use".into()));
    running.process.signal(Signal::Kill).unwrap();
    assert_eq!(running.end_open().0, Exit::Status(128 + 9));
    bed.leaves_nothing();
}

#[test]
fn a_pea_that_cannot_be_started_is_a_clear_error_and_leaves_nothing() {
    let bed = Bed::new();
    let no_image = ImageRef { uri: "/no/such/image".into(), ..ImageRef::default() };
    let program =
        |path: &str| ProcessSpec { path: path.into(), args: Vec::new(), ..bed.pea("again", "") };
    let sibling =
        |spec: ProcessSpec| ProcessSpec { limits: Some(ProcessLimits::default()), ..spec };
    for (spec, words) in [
        (ProcessSpec { image: no_image, ..bed.pea("", "true") }, "/no/such/image"),
        (
            program("/no/such/exe"),
            "exec: \"/no/such/exe\": stat /no/such/exe: no such file or directory",
        ),
        (sibling(program("/no/such/exe")), "stat /no/such/exe: no such file or directory"),
        (program("nowhere"), "executable file not found in $PATH"),
        (program("/etc"), "permission denied"),
        (ProcessSpec { user: "who".into(), ..program("/bin/true") }, "unable to find user who"),
        (ProcessSpec { dir: "/which".into(), ..program("/bin/true") }, "not a directory"),
        (ProcessSpec { args: vec!["\0".into()], ..program("/bin/true") }, "NUL byte"),
    ] {
        let error = bed.refused(&spec);
        assert!(matches!(&error, Error::Plain(text) if text.contains(words)), "{words}: {error:?}");
        bed.leaves_nothing();
    }
    // The id is free, and few descriptors are enough.
    let rlimits = ResourceLimits { nofile: Some(5), ..ResourceLimits::default() };
    let frugal = ProcessSpec { rlimits, ..bed.pea("again", "ulimit -n") };
    assert_eq!(bed.told_by(&frugal), "5\n");
    let unknown = bed.plot.garden().run("nope", &bed.pea("", "true")).unwrap_err();
    assert_eq!(unknown, Error::ContainerNotFound("nope".into()));
}

/// Images that lie get a pea that works within its own root, or a clear error.
#[test]
fn nothing_that_a_peas_image_names_is_the_hosts() {
    let bed = Bed::new();
    let witness = bed.plot.directory.path().join("witness");
    fs::create_dir(&witness).unwrap();
    let users = "root:x:0:0::/:/bin/sh\nmallory:x:1234:1234::/:/bin/sh\n";
    for name in ["passwd", "hosts", "null"] {
        fs::write(witness.join(name), users).unwrap();
    }
    let listed = || {
        let mut names: Vec<_> = fs::read_dir(&witness).unwrap().flatten().collect();
        names.sort_by_key(fs::DirEntry::file_name);
        let seen = names
            .iter()
            .map(|entry| (entry.file_name(), fs::read_to_string(entry.path()).unwrap()));
        seen.collect::<Vec<_>>()
    };
    let before = listed();
    for (name, target, words) in [
        ("dev", witness.clone(), "Mount of /dev: No such file or directory"),
        ("proc", PathBuf::from("/proc/self/cwd"), "Mount of /proc: Too many levels"),
        ("sys", PathBuf::from("."), "Mount of /sys: Too many levels"),
        ("etc/hosts", witness.join("hosts"), "Mount of /etc/hosts: No such file"),
        ("etc/hosts", PathBuf::from("/proc/self/fd/3"), "Mount of /etc/hosts: Too many levels"),
    ] {
        let path = bed.image.join(name);
        let kept = bed.image.join("kept");
        let was_there = fs::rename(&path, &kept).is_ok();
        symlink(&target, &path).unwrap();
        for tty in [None, Some(TtySpec::default())] {
            let spec = ProcessSpec { tty, ..bed.sibling("liar", "echo never", 0) };
            let error = bed.refused(&spec).to_string();
            let begin = format!("cannot build the process's root: {words}");
            assert!(error.starts_with(&begin), "{name}: {error}");
        }
        bed.leaves_nothing();
        fs::remove_file(&path).unwrap();
        if was_there {
            fs::rename(&kept, &path).unwrap();
        }
    }
    for place in
        [witness.join("passwd"), PathBuf::from("/proc/1/root").join(&witness).join("passwd")]
    {
        fs::remove_file(bed.image.join("etc/passwd")).unwrap();
        symlink(&place, bed.image.join("etc/passwd")).unwrap();
        let spec = ProcessSpec { user: "mallory".into(), ..bed.pea("", "true") };
        let error = bed.refused(&spec).to_string();
        assert_eq!(error, "unable to find user mallory: no matching entries in passwd file");
    }
    assert_eq!(listed(), before);
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(witness.to_str().unwrap()));
    bed.leaves_nothing();
}
