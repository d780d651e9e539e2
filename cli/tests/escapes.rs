//! Ways out of containers that other runtimes have had, each as far as it leads here.

mod site;

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bloomery_garden::client::{Client, Error, ProcessIo, RunningProcess};
use garden_api::{BindMount, BindMountMode, ContainerSpec, ProcessSpec, TtySpec};
use rustix::fs::SealFlags;
use site::{PATIENCE, Site, sh};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::time::timeout;

/// What a process did.
#[derive(Debug)]
struct Outcome {
    status: i64,
    output: String,
    error: String,
}

/// A daemon, and a client of it.
async fn served(number: u32, prepare: impl FnOnce(&Path)) -> (Site, Client) {
    let mut site = Site::apart(number, &[]);
    prepare(&site.place("image"));
    site.start(None);
    site.wait_up().await;
    let client = site.client();
    (site, client)
}

async fn create(client: &Client, handle: &str, privileged: bool) {
    let spec = ContainerSpec { handle: handle.into(), privileged, ..ContainerSpec::default() };
    client.create(&spec).await.unwrap();
}

async fn start(client: &Client, handle: &str, spec: &ProcessSpec) -> Result<RunningProcess, Error> {
    client.run(handle, spec, ProcessIo { stdin: None, stdout: true, stderr: true }).await
}

async fn end(process: &RunningProcess) -> Outcome {
    let all = async |output: Option<_>| text(output.unwrap()).await;
    let ending = async {
        tokio::join!(all(process.take_stdout()), all(process.take_stderr()), process.wait())
    };
    let (output, error, status) = timeout(PATIENCE, ending).await.expect("it ends");
    Outcome { status: status.unwrap(), output, error }
}

async fn text(mut output: impl AsyncRead + Unpin) -> String {
    let mut text = Vec::new();
    output.read_to_end(&mut text).await.unwrap();
    String::from_utf8_lossy(&text).into_owned()
}

async fn run(client: &Client, handle: &str, spec: &ProcessSpec) -> Result<Outcome, Error> {
    Ok(end(&start(client, handle, spec).await?).await)
}

/// What a script says; it must succeed.
async fn told(client: &Client, handle: &str, script: &str) -> String {
    let outcome = run(client, handle, &sh(script)).await.unwrap();
    assert_eq!((outcome.status, outcome.error.as_str()), (0, ""), "{script}: {outcome:?}");
    outcome.output
}

/// A file of the image that can be executed.
fn program(image: &Path, name: &str, content: &str) {
    fs::write(image.join(name), content).unwrap();
    fs::set_permissions(image.join(name), fs::Permissions::from_mode(0o755)).unwrap();
}

/// A directory of the host with something in it that no container may see or change.
struct Witness<'a>(&'a Path);

const SECRET: &str = "only the host's";

impl<'a> Witness<'a> {
    fn new(directory: &'a Path) -> Self {
        fs::create_dir(directory).unwrap();
        fs::write(directory.join("secret"), SECRET).unwrap();
        // Whoever gets here may do anything.
        for path in [directory, &directory.join("secret")] {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
        Self(directory)
    }

    fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }

    fn is_untouched(&self) {
        let names: Vec<_> =
            fs::read_dir(self.0).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["secret"]);
        assert_eq!(fs::read_to_string(self.0.join("secret")).unwrap(), SECRET);
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        assert!(!mounts.contains(self.name()), "something is mounted there");
    }
}

/// An archive with one small file.
fn archive() -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_ustar();
    header.set_size(5);
    header.set_mode(0o644);
    archive.append_data(&mut header, "given", &b"given"[..]).unwrap();
    archive.into_inner().unwrap()
}

/// CVE-2019-5736: a script whose interpreter is the runtime that starts it, and everything else that
/// opens a runtime's executable by `/proc`.
#[tokio::test]
async fn what_makes_processes_cannot_be_overwritten() {
    let (site, client) = served(0, |image| program(image, "bin/self", "#!/proc/self/exe\n")).await;
    let (keeper, anchor) = site::traces::supervisor(&site.config.run);
    let content = |pid: i32| fs::read(format!("/proc/{pid}/exe")).unwrap();
    let before = [keeper, anchor].map(content);
    for pid in [keeper, anchor] {
        let program = File::open(format!("/proc/{pid}/exe")).unwrap();
        let seals = rustix::fs::fcntl_get_seals(&program).unwrap();
        let wanted = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
        assert!(seals.contains(wanted), "{seals:?}");
    }
    let watching = "echo up; while [ ! -e /tmp/stop ]; do \
                    for process in /proc/[0-9]*; do \
                    (: >>$process/exe) 2>/dev/null && echo $process; done; done";
    for (handle, privileged) in [("plain", false), ("privileged", true)] {
        create(&client, handle, privileged).await;
        let watcher = start(&client, handle, &sh(watching)).await.unwrap();
        for _ in 0..40 {
            let spec = ProcessSpec { path: "/bin/self".into(), ..ProcessSpec::default() };
            if let Ok(outcome) = run(&client, handle, &spec).await {
                assert_ne!(outcome.status, 0, "{outcome:?}");
            }
        }
        told(&client, handle, "touch /tmp/stop").await;
        // Neither these nor the watcher's own, which run.
        assert_eq!(end(&watcher).await.output, "up\n", "{handle}");
    }
    assert_eq!([keeper, anchor].map(content), before);
    assert_eq!(site::traces::supervisor(&site.config.run), (keeper, anchor));
}

/// A process that is on its way into a container still is the host's in part.
#[tokio::test]
async fn who_joins_a_container_is_not_to_be_looked_at() {
    let (_site, client) = served(1, |_| {}).await;
    create(&client, "box", false).await;
    let watching = "echo up; while [ ! -e /tmp/stop ]; do for process in /proc/[0-9]*; do \
                    for name in exe cwd root fd/0 fd/3 fd/5 ns/mnt; do \
                    seen=$(readlink $process/$name 2>/dev/null) && case $seen in \
                    /bin/busybox|/|/root|pipe:*|mnt:*|/dev/null|/proc*) ;; \
                    *) echo $process/$name is $seen;; esac; done; done; done";
    let watchers = [
        start(&client, "box", &sh(watching)).await.unwrap(),
        start(&client, "box", &sh(watching)).await.unwrap(),
    ];
    for _ in 0..150 {
        told(&client, "box", "true").await;
    }
    let first = told(
        &client,
        "box",
        "for name in exe cwd root fd ns/mnt mem environ maps; do \
         (ls /proc/1/$name/ || cat /proc/1/$name) >/dev/null 2>&1 && echo $name; done; \
         readlink /proc/1/exe; touch /tmp/stop",
    )
    .await;
    assert_eq!(first, "", "of process 1");
    for watcher in watchers {
        assert_eq!(end(&watcher).await.output, "up\n");
    }
}

/// CVE-2024-21626: a working directory, or a path of an archive, by a descriptor that the runtime
/// forgot to close.
#[tokio::test]
async fn no_descriptor_leads_out() {
    let (_site, client) = served(2, |_| {}).await;
    for (handle, privileged) in [("plain", false), ("privileged", true)] {
        create(&client, handle, privileged).await;
        let open = ProcessSpec {
            path: "/bin/ls".into(),
            args: vec!["/proc/self/fd".into()],
            ..ProcessSpec::default()
        };
        // The last one is that of the directory itself.
        assert_eq!(run(&client, handle, &open).await.unwrap().output, "0\n1\n2\n3\n");
        for number in (0..20).chain(1022..1032) {
            for way in ["", "/..", "/../../../../.."] {
                let dir = format!("/proc/self/fd/{number}{way}");
                let spec = ProcessSpec {
                    path: "/bin/ls".into(),
                    args: vec!["-a".into()],
                    dir: dir.clone(),
                    ..ProcessSpec::default()
                };
                if let Ok(outcome) = run(&client, handle, &spec).await {
                    panic!("{handle}: {dir} is a directory: {outcome:?}");
                }
            }
            let path = format!("/proc/self/fd/{number}/");
            let into = client.stream_in_bytes(handle, "root", &path, &archive()).await;
            assert!(into.is_err(), "{handle}: archives are unpacked in {path}");
            let out = client.stream_out(handle, "root", &path).await;
            assert!(out.is_err(), "{handle}: there are archives of {path}");
        }
    }
}

/// CVE-2021-30465: the directory that a mount is to stand on is exchanged for a link to the host's,
/// by a container that has it as well.
#[tokio::test]
async fn a_mount_goes_nowhere_else_whoever_exchanges_its_place() {
    let (site, client) = served(3, |_| {}).await;
    let directory = site.place("witness");
    let witness = Witness::new(&directory);
    for name in ["shared", "given"] {
        fs::create_dir(site.place(name)).unwrap();
        fs::set_permissions(site.place(name), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let bind = |source: &str, target: &str| BindMount {
        src_path: site.place(source).display().to_string(),
        dst_path: target.into(),
        mode: BindMountMode::ReadWrite,
        ..BindMount::default()
    };
    let spec = |handle: String, bind_mounts| ContainerSpec {
        handle,
        bind_mounts,
        ..ContainerSpec::default()
    };
    client.create(&spec("attacker".into(), vec![bind("shared", "/shared")])).await.unwrap();
    let exchanging = format!(
        "cd /shared && echo up; while [ ! -e stop ]; do mkdir x; rmdir x/y x; ln -s {} x; rm x; \
         done 2>/dev/null",
        witness.name()
    );
    let attacker = start(&client, "attacker", &sh(&exchanging)).await.unwrap();
    let (mut made, mut refused) = (0, 0);
    while made + refused < 100 {
        let handle = format!("victim-{}", made + refused);
        let binds = vec![bind("shared", "/shared"), bind("given", "/shared/x/y")];
        match client.create(&spec(handle.clone(), binds)).await {
            Ok(_) => {
                made += 1;
                let places = told(&client, &handle, "cut -d' ' -f5 /proc/self/mountinfo").await;
                let elsewhere = places.lines().find(|place| {
                    place.contains(witness.name())
                        || place.ends_with("/y") && *place != "/shared/x/y"
                });
                assert_eq!(elsewhere, None, "{places}");
                client.destroy(&handle).await.unwrap();
            }
            Err(error) => {
                refused += 1;
                assert!(error.to_string().contains("Mount of /shared/x/y"), "{error}");
            }
        }
    }
    fs::write(site.place("shared/stop"), "").unwrap();
    assert_eq!(end(&attacker).await.output, "up\n");
    witness.is_untouched();
    // Nobody has written through a mount that went astray.
    assert_eq!(fs::read_dir(site.place("given")).unwrap().count(), 0);
}

/// CVE-2018-15664 and CVE-2019-14271: paths of archives through links, exchanged meanwhile, and
/// libraries of the container's for who reads its archives.
#[tokio::test]
async fn archives_stay_inside() {
    let (site, client) = served(4, |image| {
        for directory in ["lib", "lib64", "lib/x86_64-linux-gnu"] {
            fs::create_dir_all(image.join(directory)).unwrap();
        }
        for library in ["libc.so.6", "libnss_files.so.2", "libnss_compat.so.2", "evil.so"] {
            program(image, &format!("lib/x86_64-linux-gnu/{library}"), "no library");
        }
        program(image, "lib64/ld-linux-x86-64.so.2", "#!/bin/sh\necho >/loaded\n");
        fs::write(image.join("etc/ld.so.preload"), "/lib/x86_64-linux-gnu/evil.so\n").unwrap();
        fs::write(image.join("etc/nsswitch.conf"), "passwd: files compat\n").unwrap();
    })
    .await;
    let directory = site.place("witness");
    let witness = Witness::new(&directory);
    create(&client, "box", false).await;
    let secret = format!("{}/secret", witness.name());
    told(&client, "box", &format!("ln -s {} /link; ln -s {secret} /file", witness.name())).await;
    for path in ["/link/secret", "/link/", "/file", "/link"] {
        if let Ok(mut out) = client.stream_out("box", "root", path).await {
            let mut bytes = Vec::new();
            let _ = out.read_to_end(&mut bytes).await;
            let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
            assert!(!found, "{path}");
        }
        let _ = client.stream_in_bytes("box", "vcap", path, &archive()).await;
        let _ = client.stream_in_bytes("box", "root", path, &archive()).await;
        witness.is_untouched();
    }
    let exchanging = format!(
        "cd /home/vcap && echo up; while [ ! -e /tmp/stop ]; do mkdir x; echo inside >x/secret; \
         rm -r x; ln -s {} x; rm x; done 2>/dev/null",
        witness.name()
    );
    let attacker = start(&client, "box", &sh(&exchanging)).await.unwrap();
    for round in 0..40 {
        let _ = client.stream_in_bytes("box", "root", "/home/vcap/x", &archive()).await;
        let Ok(mut out) = client.stream_out("box", "root", "/home/vcap/x/secret").await else {
            continue;
        };
        let mut bytes = Vec::new();
        let _ = out.read_to_end(&mut bytes).await;
        let found = bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes());
        assert!(!found, "in round {round}");
    }
    told(&client, "box", "touch /tmp/stop").await;
    end(&attacker).await;
    witness.is_untouched();
    client.stream_in_bytes("box", "vcap", "/home/vcap/in", &archive()).await.unwrap();
    assert_eq!(
        told(&client, "box", "cat /home/vcap/in/given; ls /loaded 2>/dev/null || true").await,
        "given"
    );
}

/// CVE-2025-31133 and CVE-2025-52565: what covers the kernel's files, and what a terminal is opened
/// by, exchanged for links.
#[tokio::test]
async fn devices_that_a_container_exchanges_mislead_nobody() {
    let links = |image: &Path| {
        for name in ["null", "console", "ptmx", "pts"] {
            let link = image.join("dev").join(name);
            let _ = fs::remove_file(&link);
            std::os::unix::fs::symlink("/proc/sys/kernel/core_pattern", link).unwrap();
        }
    };
    let (_site, client) = served(5, links).await;
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap();
    create(&client, "box", false).await;
    let masked = "for name in kcore keys timer_list; do \
                  [ ! -e /proc/$name ] || head -c 1 /proc/$name; done";
    assert_eq!(told(&client, "box", masked).await, "");
    assert_eq!(
        told(&client, "box", "stat -c '%F %t:%T' /dev/null").await,
        "character special file 1:3\n"
    );
    told(
        &client,
        "box",
        "cd /dev; for name in null tty ptmx console; do \
         rm -f $name; ln -s /proc/sys/kernel/core_pattern $name; done; \
         ! mv pts other 2>/proc/self/oom_score_adj",
    )
    .await;
    for _ in 0..3 {
        let spec = ProcessSpec {
            tty: Some(TtySpec::default()),
            ..sh("tty; readlink /proc/self/fd/0; ls /proc/self/fd")
        };
        let outcome = run(&client, "box", &spec).await.unwrap();
        let words: Vec<_> = outcome.output.split_whitespace().collect();
        assert!(words[0].starts_with("/dev/pts/") && words[1] == words[0], "{outcome:?}");
        assert_eq!(words[2..], ["0", "1", "2", "3"], "{outcome:?}");
    }
    assert_eq!(told(&client, "box", masked).await, "");
    let uncovered = run(&client, "box", &sh("umount /proc/kcore || umount -l /proc/keys")).await;
    assert_ne!(uncovered.unwrap().status, 0);
    for file in ["/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger"] {
        let outcome = run(&client, "box", &sh(&format!("echo x >{file}"))).await.unwrap();
        assert_ne!(outcome.status, 0, "{file}");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap(), pattern);
}

/// CVE-2022-0492: a program that the kernel runs on the host when a cgroup is empty.
#[tokio::test]
async fn no_release_agent_can_be_named() {
    let (_site, client) = served(6, |_| {}).await;
    create(&client, "box", false).await;
    let script = "for file in $(find / -name release_agent 2>/dev/null); do \
                  (echo /x >$file) 2>/dev/null && echo $file; done; \
                  for kind in cgroup cgroup2; do mkdir -p /tmp/c; \
                  mount -t $kind -o memory none /tmp/c 2>/dev/null && echo $kind; \
                  mount -t $kind none /tmp/c 2>/dev/null && echo $kind; done; true";
    assert_eq!(told(&client, "box", script).await, "");
    // Nor by whom a namespace of his own makes root.
    for flags in ["-U", "-m", "-n", "-p"] {
        let outcome = run(&client, "box", &sh(&format!("unshare {flags} true"))).await.unwrap();
        assert_ne!(outcome.status, 0, "{flags}");
        assert!(outcome.error.contains("Operation not permitted"), "{flags}: {outcome:?}");
    }
}
