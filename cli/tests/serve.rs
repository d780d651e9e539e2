//! `bloomery garden serve` and `cleanup` as an operator has them.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{SocketAddr, UnixDatagram, UnixStream};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit};

const PATIENCE: Duration = Duration::from_secs(60);
static SITES: AtomicU32 = AtomicU32::new(0);

/// Places and names of a test's own; cleaned up by the command under test.
struct Site {
    directory: tempfile::TempDir,
    tag: String,
}

impl Site {
    fn new() -> Self {
        // Two letters or digits that no other test at the same time has.
        let number = std::process::id() * 4 + SITES.fetch_add(1, Ordering::Relaxed);
        let tag = [number / 36 % 36, number % 36]
            .map(|digit| char::from_digit(digit, 36).unwrap())
            .iter()
            .collect();
        Self::tagged(tag)
    }

    /// Places of their own under a tag that may be another's.
    fn tagged(tag: String) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let image = directory.path().join("image");
        rootfs::busybox::build(&image, &rootfs::busybox::find().unwrap()).unwrap();
        Self { directory, tag }
    }

    fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn command(&self, verb: &str, more: &[&str]) -> Command {
        let mut command = Command::new("sh");
        let program = env!("CARGO_BIN_EXE_bloomery");
        command.args(["-c", "ulimit -n ${LIMIT:-20000}; exec \"$0\" \"$@\"", program]);
        command.args(["garden", verb, "--tag", &self.tag, "--pool-size", "1"]);
        let number: u32 = u32::from_str_radix(&self.tag, 36).unwrap();
        let pool = format!("10.{}.{}.0/26", 160 + number / 256, number % 256);
        command.args(["--network-pool", &pool]);
        for (flag, place) in [
            ("--bind-socket", "garden.sock"),
            ("--depot", "depot"),
            ("--keeper-dir", "keeper"),
            ("--store", "store"),
            ("--default-rootfs", "image"),
        ] {
            command.arg(flag).arg(self.place(place));
        }
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// A command with one flag's value another's than the site's own.
    fn command_but(&self, verb: &str, flag: &str, value: impl AsRef<OsStr>) -> Command {
        let usual = self.command(verb, &[]);
        let mut arguments: Vec<_> = usual.get_args().map(OsStr::to_owned).collect();
        if let Some(at) = arguments.iter().position(|argument| argument == flag) {
            arguments.drain(at..at + 2);
        }
        let mut command = Command::new(usual.get_program());
        command.args(arguments).arg(flag).arg(value);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn serve(&self, more: &[&str]) -> Serving<'_> {
        self.serve_by(&mut self.command("serve", more))
    }

    fn serve_by(&self, command: &mut Command) -> Serving<'_> {
        let mut process = command.spawn().unwrap();
        let log = BufReader::new(process.stderr.take().unwrap());
        let said = Arc::new(Mutex::new(String::new()));
        let heard = Arc::clone(&said);
        let reader = std::thread::spawn(move || {
            for line in log.lines().map_while(Result::ok) {
                *heard.lock().unwrap() += &(line + "\n");
            }
        });
        let serving = Serving { site: self, process, said, reader: Some(reader) };
        serving.wait_for_line("serving");
        serving
    }

    fn clean_up(&self) -> Output {
        self.command("cleanup", &[]).output().unwrap()
    }

    /// Whether a command in the container `c` succeeds.
    fn runs_in_c(&self, command: &[&str]) -> bool {
        let mut run = Command::new(env!("CARGO_BIN_EXE_bloomery"));
        run.args(["ctl", "run", "--no-stdin", "--socket"]).arg(self.place("garden.sock"));
        run.arg("c").args(command).output().unwrap().status.success()
    }
}

/// A server that runs.
struct Serving<'a> {
    site: &'a Site,
    process: Child,
    said: Arc<Mutex<String>>,
    reader: Option<std::thread::JoinHandle<()>>,
}

impl Serving<'_> {
    /// Waits until its log mentions something.
    fn wait_for_line(&self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        while !self.said.lock().unwrap().contains(text) {
            let said = || self.said.lock().unwrap().clone();
            let ended = self.reader.as_ref().is_none_or(std::thread::JoinHandle::is_finished);
            assert!(!ended || said().contains(text), "it ends: {}", said());
            assert!(Instant::now() < deadline, "not logged: {text}: {}", said());
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Limits how many descriptors it may have; what the limit was.
    fn limit_descriptors(&self, limit: Rlimit) -> Rlimit {
        let pid = Pid::from_child(&self.process);
        rustix::process::prlimit(Some(pid), Resource::Nofile, limit).unwrap()
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let mut socket = UnixStream::connect(self.site.place("garden.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        let length = body.len();
        write!(
            socket,
            "{method} {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .unwrap();
        let mut answer = String::new();
        while let Err(error) = socket.read_to_string(&mut answer) {
            assert_eq!(error.kind(), std::io::ErrorKind::Interrupted);
        }
        answer
    }

    /// Signals it and waits for its end; what it has logged.
    fn end(&mut self, signal: &str) -> (Option<i32>, Option<i32>, String) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
        let deadline = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = self.process.try_wait().unwrap() {
                break status;
            }
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        };
        self.reader.take().unwrap().join().unwrap();
        (status.code(), status.signal(), std::mem::take(&mut *self.said.lock().unwrap()))
    }
}

impl Drop for Serving<'_> {
    fn drop(&mut self) {
        if let Ok(None) = self.process.try_wait() {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
        if std::thread::panicking() {
            let _ = self.site.clean_up();
        }
    }
}

fn entries(directory: &Path) -> usize {
    std::fs::read_dir(directory).map_or(0, Iterator::count)
}

fn mentions(text: &str) -> impl Fn(&str) -> bool {
    move |line| line.contains(text)
}

#[test]
fn containers_outlive_a_stopped_server_and_cleanup_removes_them() {
    let site = Site::new();
    let mut first = site.serve(&["--skip-setup", "--graph=/x"]);
    let mode = std::fs::metadata(site.place("garden.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    assert!(first.ask("POST", "/containers", "{\"handle\":\"c\"}").contains("{\"Handle\":\"c\"}"));
    let second = site.command("serve", &[]).output().unwrap();
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(!second.status.success() && said.contains("another server is listening"), "{said}");
    let refused = site.clean_up();
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("another server is listening"), "{said}");

    let (code, _, log) = first.end("-TERM");
    assert_eq!(code, Some(0), "{log}");
    for flag in ["skip-setup", "graph"] {
        assert!(log.lines().any(mentions(&format!("--{flag} has no effect"))), "{log}");
    }
    assert!(!site.place("garden.sock").exists());

    let mut third = site.serve(&["--log-format", "json"]);
    assert!(third.ask("GET", "/containers", "").contains("{\"Handles\":[\"c\"]}"));
    let (_, signal, log) = third.end("-KILL");
    assert_eq!(signal, Some(9));
    assert!(log.lines().all(|line| line.starts_with('{')), "{log}");
    assert!(site.place("garden.sock").exists(), "a killed server leaves its socket");
    assert_eq!(entries(&site.place("depot")), 1);

    let asked = Instant::now();
    let cleaned = site.clean_up();
    let took = asked.elapsed();
    let said = String::from_utf8(cleaned.stderr).unwrap();
    assert!(cleaned.status.success(), "{said}");
    // A supervisor that was not told to end would stay for 5 s.
    assert!(took < Duration::from_secs(4), "cleanup took {took:?}");
    let left: Vec<_> = std::fs::read_dir(site.directory.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .filter(|name| name != "image")
        .collect();
    assert!(left.is_empty(), "{left:?}");
    let cgroup = format!("bloomery-{}", site.tag);
    let found = Command::new("find").args(["/sys/fs/cgroup", "-name", &cgroup]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&found.stdout), "");
    let keeper = site.place("keeper");
    let running = std::fs::read_dir("/proc").unwrap().flatten().any(|process| {
        std::fs::read_link(process.path().join("fd/2")).is_ok_and(|log| log.starts_with(&keeper))
    });
    assert!(!running, "the supervisor is gone");
}

#[test]
fn flags_come_from_a_file_and_from_the_line_and_unknown_ones_are_errors() {
    let site = Site::new();
    let file = site.place("garden.ini");
    std::fs::write(&file, "[server]\nmax-containers = 7\nread-header-timeout = 1s\n").unwrap();
    let file = file.to_str().unwrap();
    let mut from_file = site.serve(&["--config", file]);
    assert!(from_file.ask("GET", "/capacity", "").contains("\"max_containers\":7}"));
    from_file.end("-INT");
    let mut from_line = site.serve(&["--max-containers", "5", "--config", file]);
    assert!(from_line.ask("GET", "/capacity", "").contains("\"max_containers\":5}"));
    from_line.end("-TERM");
    let unknown = site.command("serve", &["--no-such-flag"]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    std::fs::write(file, "no-such-flag = 1\n").unwrap();
    let unknown = site.command("serve", &["--config", file]).output().unwrap();
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("--no-such-flag"));
    assert!(site.clean_up().status.success());
}

/// What the job of a garden-runc release makes of its defaults, without plugins and AppArmor.
const STOCK: &str = "\
[server]
; apparmor

; binaries
  iptables-bin = /sbin/iptables
  iptables-restore-bin = /sbin/iptables-restore
  init-bin = /var/vcap/data/garden/bin/init
  dadoo-bin = /var/vcap/packages/guardian/bin/dadoo
  nstar-bin = /var/vcap/packages/guardian/bin/nstar
  tar-bin = /var/vcap/packages/tar/tar

; containers
  default-grace-time = 0
  max-containers = 250
  cleanup-process-dirs-on-wait = true

; image and rootfs
  default-rootfs = /var/vcap/packages/busybox/busybox-1.36.1.tar
  no-image-plugin = true

; network
  mtu = 0
  network-pool = 10.254.0.0/22
  deny-network = 0.0.0.0/0
  additional-host-entry = \"192.0.2.7 seven\"

; properties
  properties-path = /var/vcap/data/garden/props.json
  port-pool-properties-path = /var/vcap/data/garden/port-pool-props.json

; resource limiting
  default-container-blockio-weight = 0
  cpu-quota-per-share = 0
  cpu-entitlement-per-share = 0
  enable-cpu-throttling = false
  cpu-throttling-check-interval = 15

; server
  bind-socket = /var/vcap/data/garden/garden.sock
  debug-bind-ip = 127.0.0.1
  debug-bind-port = 17019
  log-level = info
  time-format = unix-epoch
  skip-setup = true
  depot = /var/vcap/data/garden/depot
  runtime-plugin=/var/vcap/packages/runc/bin/runc
  read-header-timeout = 30s

; containerd
  containerd-socket = /var/vcap/sys/run/containerd/containerd.sock
";

#[test]
fn the_stock_file_of_a_release_starts_the_server() {
    let site = Site::new();
    let file = site.place("config.ini");
    std::fs::write(&file, STOCK).unwrap();
    // Places are the test's own: the line wins over the file.
    let mut server = site.serve(&["--config", file.to_str().unwrap(), "--debug-bind-port", "0"]);
    assert!(server.ask("GET", "/capacity", "").contains("\"max_containers\":16}"));
    let (code, _, log) = server.end("-TERM");
    assert_eq!(code, Some(0), "{log}");
    let ignored: Vec<_> = log
        .lines()
        .filter_map(|line| line.split_once(" has no effect in this server")?.0.rsplit("--").next())
        .collect();
    let expected = [
        "skip-setup",
        "no-image-plugin",
        "properties-path",
        "port-pool-properties-path",
        "dadoo-bin",
        "nstar-bin",
        "tar-bin",
        "init-bin",
        "iptables-bin",
        "iptables-restore-bin",
        "runtime-plugin",
        "containerd-socket",
        "cpu-throttling-check-interval",
    ];
    assert_eq!(ignored, expected, "{log}");
    assert!(site.clean_up().status.success());
}

#[test]
fn flags_that_would_change_what_containers_get_are_errors() {
    let site = Site::new();
    for (flag, reason) in [
        ("--uid-map-start=100000", "the highest id"),
        ("--gid-map-length=65536", "the highest id"),
        ("--enable-cpu-throttling", "not slowed down"),
        ("--device-cgroup-rule=c 10:200 rwm", "is fixed"),
        ("--container-io-max-write-bps=1", "not limited"),
        ("--tcp-keepalive-time=30", "settings of TCP"),
        ("--tcp-retries2=5", "settings of TCP"),
    ] {
        let refused = site.command("serve", &[flag]).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert_eq!(refused.status.code(), Some(2), "{flag}: {said}");
        assert!(said.contains(reason) && said.contains(flag.split('=').next().unwrap()), "{said}");
    }
    let nothing = [
        "--image-plugin=",
        "--network-plugin=",
        "--apparmor=",
        "--uid-map-length=0",
        "--enable-cpu-throttling=false",
    ];
    let mut server = site.serve(&nothing);
    let (_, _, log) = server.end("-TERM");
    assert!(!log.contains("no effect"), "{log}");
    assert!(site.clean_up().status.success());
}

#[test]
fn what_cannot_work_is_told_at_the_start() {
    let site = Site::new();
    for (flag, value, reason) in [
        ("--mtu", "10", "an MTU of 10 is not one of 68 to 65535 bytes"),
        ("--mtu", "65536", "an MTU of 65536 is not one of"),
        ("--network-pool", "10.9.0.0/31", "10.9.0.0/31 is smaller than the /30"),
        (
            "--network-plugin",
            "/no/such",
            "the network plugin /no/such cannot be used: No such file",
        ),
        (
            "--network-plugin",
            "/etc/passwd",
            "the network plugin /etc/passwd cannot be used: it is no exec",
        ),
    ] {
        let refused = site.command_but("serve", flag, value).output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains(reason), "{flag} {value}: {said}");
    }
    std::fs::rename(site.place("image"), site.place("away")).unwrap();
    let mut server = site.serve(&["--image-alias", "docker:///a=/no/such/place"]);
    let refused = server.ask("POST", "/containers", "{\"handle\":\"c\"}");
    let missing = format!("cannot use the image {}", site.place("image").display());
    assert!(refused.contains(&missing), "{refused}");
    let (_, _, log) = server.end("-TERM");
    for missing in [missing.as_str(), "cannot use the image /no/such/place"] {
        assert!(log.lines().any(|line| line.contains("WARN") && line.contains(missing)), "{log}");
    }
    assert!(site.clean_up().status.success());

    for verb in ["serve", "cleanup"] {
        let mut command = Command::new("setpriv");
        // The program may be below a directory that is closed to others.
        command.args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]);
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        command.args([env!("CARGO_BIN_EXE_bloomery"), "garden", verb]);
        let refused = command.output().unwrap();
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(!refused.status.success() && said.contains("must be started as root"), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

#[test]
fn connections_wait_for_as_long_as_there_are_no_descriptors() {
    const TROUBLE: &str = "cannot accept connections for a moment";
    let site = Site::new();
    let mut server = site.serve(&[]);
    let ping = |socket: &mut UnixStream, more: &str| {
        write!(socket, "GET /ping HTTP/1.1\r\nHost: api\r\n{more}\r\n").unwrap();
    };
    let answered = |socket: &mut UnixStream| {
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\n{}\n") {
            let mut piece = [0; 512];
            let length = socket.read(&mut piece).unwrap();
            assert!(length > 0, "{answer}");
            answer.push_str(std::str::from_utf8(&piece[..length]).unwrap());
        }
    };
    let connect = || {
        let socket = UnixStream::connect(site.place("garden.sock")).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    };
    let mut early = connect();
    ping(&mut early, "");
    answered(&mut early);

    let usual = server.limit_descriptors(Rlimit { current: Some(0), maximum: Some(20000) });
    let mut late: Vec<_> = (0..5).map(|_| connect()).collect();
    late.iter_mut().for_each(|socket| ping(socket, "Connection: close\r\n"));
    server.wait_for_line(TROUBLE);
    // Who is connected is served, and who is not is neither served nor refused.
    for _ in 0..3 {
        ping(&mut early, "");
        answered(&mut early);
    }
    for socket in &mut late {
        socket.set_nonblocking(true).unwrap();
        assert_eq!(socket.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
        socket.set_nonblocking(false).unwrap();
    }
    server.limit_descriptors(usual);
    late.iter_mut().for_each(answered);
    assert!(server.ask("GET", "/ping", "").ends_with("\r\n\r\n{}\n"));

    let (code, _, log) = server.end("-TERM");
    assert_eq!(code, Some(0), "{log}");
    assert_eq!(log.lines().filter(|line| line.contains(TROUBLE)).count(), 1, "{log}");
    assert!(site.clean_up().status.success());
}

#[test]
fn a_server_with_few_descriptors_keeps_some_for_requests() {
    let site = Site::new();
    let mut server = site.serve_by(site.command("serve", &[]).env("LIMIT", "256"));
    let socket = site.place("garden.sock");
    // More than the tenth of its descriptors that is for requests.
    let crowd: Vec<_> = (0..60).map_while(|_| UnixStream::connect(&socket).ok()).collect();
    assert_eq!(crowd.len(), 60);
    assert!(server.ask("GET", "/ping", "").ends_with("\r\n\r\n{}\n"));
    drop(crowd);
    let (code, _, log) = server.end("-TERM");
    assert_eq!(code, Some(0), "{log}");
    let crowded = "no more connections are accepted until some end";
    assert!(log.lines().any(mentions(crowded)), "{log}");
    assert!(site.clean_up().status.success());
}

#[test]
fn a_capability_that_the_server_lacks_is_named_and_given_to_nobody() {
    const SYS_TIME: u64 = 1 << 25;
    let site = Site::new();
    let plain = site.command("serve", &[]);
    let mut command = Command::new("setpriv");
    command.args(["--bounding-set=-sys_time", "--inh-caps=-sys_time", "sh"]);
    command.args(plain.get_args()).stdin(Stdio::null());
    let mut server = site.serve_by(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let spec = "{\"handle\":\"box\",\"privileged\":true}";
    assert!(server.ask("POST", "/containers", spec).contains("{\"Handle\":\"box\"}"));
    let run = Command::new(env!("CARGO_BIN_EXE_bloomery"))
        .args(["ctl", "run", "--no-stdin", "--socket"])
        .arg(site.place("garden.sock"))
        .args(["box", "grep", "^CapBnd", "/proc/self/status"])
        .output()
        .unwrap();
    let bounds = |status: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix("CapBnd:")).unwrap();
        u64::from_str_radix(line.trim(), 16).unwrap()
    };
    let own = bounds(&std::fs::read_to_string("/proc/self/status").unwrap());
    let given = bounds(&String::from_utf8(run.stdout).unwrap());
    assert_eq!(given, 0x3f_ffff_ffff & own & !SYS_TIME);
    let (_, _, log) = server.end("-TERM");
    let told: Vec<_> = log.lines().filter(|line| line.contains("lack capabilities")).collect();
    assert!(matches!(told.as_slice(), [one] if one.contains("\"SYS_TIME\"")), "{log}");
    assert!(site.clean_up().status.success());
}

#[test]
fn a_disk_limit_is_logged_once_for_each_container() {
    let site = Site::new();
    let mut server = site.serve(&[]);
    let create = |server: &Serving<'_>, handle: &str, limit: u64| {
        let limits = format!("{{\"disk_limits\":{{\"byte_hard\":{limit}}}}}");
        let spec = format!("{{\"handle\":\"{handle}\",\"limits\":{limits}}}");
        server.ask("POST", "/containers", &spec)
    };
    for (handle, limit) in [("one", 1 << 20), ("two", 1 << 30), ("free", 0)] {
        let answer = create(&server, handle, limit);
        assert!(answer.contains(&format!("{{\"Handle\":\"{handle}\"}}")), "{answer}");
    }
    assert!(create(&server, "one", 1 << 20).contains("already in use"));
    let (_, _, log) = server.end("-TERM");
    let mut next = site.serve(&[]);
    let (_, _, more) = next.end("-TERM");
    let log = log + &more;
    let told: Vec<_> =
        log.lines().filter(|line| line.contains("the disk limit is not enforced")).collect();
    assert_eq!(told.len(), 2, "{log}");
    for (line, handle) in told.iter().zip(["one", "two"]) {
        assert!(line.contains(&format!("handle=\"{handle}\"")), "{line}");
    }
    assert!(site.clean_up().status.success());
}

#[test]
fn the_daemon_takes_all_descriptors_that_it_is_allowed() {
    let site = Site::new();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -Sn 256; exec \"$0\" \"$@\""]);
    let usual = site.command("serve", &[]);
    command.args(usual.get_args().skip(2)).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut server = site.serve_by(&mut command);
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.process.id())).unwrap();
    let open: Vec<_> = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap()
        .split_whitespace()
        .collect();
    assert_eq!(open[3], open[4], "{limits}");
    assert_ne!(open[3], "256");
    server.end("-TERM");
    assert!(site.clean_up().status.success());
}

/// A cgroup of a test's own, as a service manager has one for each service.
struct Unit(PathBuf);

impl Unit {
    fn new(name: &str) -> Self {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        let mut kinds = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        let unified = kinds.find(|mount| mount[2] == "cgroup2").unwrap()[1].to_owned();
        let directory = PathBuf::from(unified).join(name);
        std::fs::create_dir(&directory).unwrap();
        Self(directory)
    }

    fn processes(&self) -> Vec<u32> {
        let inside = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap();
        inside.lines().map(|pid| pid.parse().unwrap()).collect()
    }
}

impl Drop for Unit {
    fn drop(&mut self) {
        let _ = std::fs::write(self.0.join("cgroup.kill"), "1");
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn who_kills_all_of_a_service_leaves_containers_alone() {
    let site = Site::new();
    let unit = Unit::new(&format!("bloomery-test-unit-{}", site.tag));
    let mut command = Command::new("sh");
    command.args(["-c", "echo $$ >\"$0/cgroup.procs\"; exec \"$@\""]).arg(&unit.0).arg("sh");
    let usual = site.command("serve", &[]);
    command.args(usual.get_args()).stderr(Stdio::piped()).stdin(Stdio::null());
    let mut first = site.serve_by(&mut command);
    assert!(first.ask("POST", "/containers", "{\"handle\":\"c\"}").contains("{\"Handle\":\"c\"}"));
    let written = "echo before >/root/file; sleep 1000 & echo $! >/root/pid; wait";
    let run = format!("{{\"id\":\"p\",\"path\":\"/bin/sh\",\"args\":[\"-c\",\"{written}\"]}}");
    let request = format!(
        "POST /containers/c/processes HTTP/1.1\r\nHost: api\r\nContent-Length: {}\r\n\r\n{run}",
        run.len()
    );
    let mut running = UnixStream::connect(site.place("garden.sock")).unwrap();
    running.write_all(request.as_bytes()).unwrap();
    let mut answer = [0; 12];
    running.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");
    let deadline = Instant::now() + Duration::from_secs(10);
    while !site.runs_in_c(&["test", "-s", "/root/pid"]) {
        assert!(Instant::now() < deadline);
    }
    assert_eq!(unit.processes(), [first.process.id()], "nobody else is in the service");
    std::fs::write(unit.0.join("cgroup.kill"), "1").unwrap();
    first.process.wait().unwrap();
    let mut again = site.serve(&[]);
    assert!(site.runs_in_c(&["sh", "-c", "grep -q before /root/file && kill -0 $(cat /root/pid)"]));
    again.end("-TERM");
    assert!(site.clean_up().status.success());
}

#[test]
fn a_second_depot_of_one_tag_is_refused_for_as_long_as_the_first_has_containers() {
    let site = Site::new();
    let other = Site::tagged(site.tag.clone());
    let depot = site.place("depot").display().to_string();
    let mut first = site.serve(&[]);
    assert!(first.ask("POST", "/containers", "{\"handle\":\"c\"}").contains("{\"Handle\":\"c\"}"));
    let run = "{\"id\":\"p\",\"path\":\"/bin/sleep\",\"args\":[\"1000\"]}";
    let mut running = UnixStream::connect(site.place("garden.sock")).unwrap();
    let length = run.len();
    write!(
        running,
        "POST /containers/c/processes HTTP/1.1\r\nHost: api\r\nContent-Length: {length}\r\n\r\n{run}"
    )
    .unwrap();
    let mut answer = [0; 12];
    running.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 201");

    let refused = |verb: &str| {
        let refused = other.command(verb, &[]).output().unwrap();
        assert_eq!(refused.status.code(), Some(1));
        String::from_utf8(refused.stderr).unwrap()
    };
    for verb in ["serve", "cleanup"] {
        let said = refused(verb);
        assert!(said.contains("another Garden (--depot "), "{said}");
        assert!(said.contains(&depot), "{said}");
    }
    first.end("-KILL");
    for verb in ["serve", "cleanup"] {
        let said = refused(verb);
        let way = format!("bloomery garden cleanup --tag {} --depot {depot}", site.tag);
        assert!(said.contains(&way), "{said}");
    }
    let mut again = site.serve(&[]);
    assert!(site.runs_in_c(&["pidof", "sleep"]), "the first one's process runs on");
    assert!(again.ask("DELETE", "/containers/c", "").starts_with("HTTP/1.1 200"));
    again.end("-TERM");
    // Nothing is the first one's any more.
    let mut second = other.serve(&[]);
    second.end("-TERM");
    assert!(other.clean_up().status.success());
    assert!(site.clean_up().status.success());
}

#[test]
fn places_of_one_daemon_are_different_directories() {
    let site = Site::new();
    for place in ["depot", "store"] {
        std::fs::create_dir(site.place(place)).unwrap();
    }
    std::os::unix::fs::symlink(site.place("store"), site.place("link")).unwrap();
    for (flag, place, pair) in [
        ("--keeper-dir", "store", "--keeper-dir and --store"),
        ("--depot", "link/.", "--depot and --store"),
        ("--keeper-dir", "depot/../depot", "--depot and --keeper-dir"),
    ] {
        for verb in ["serve", "cleanup"] {
            let refused = site.command_but(verb, flag, site.place(place)).output().unwrap();
            let said = String::from_utf8(refused.stderr).unwrap();
            assert_eq!(refused.status.code(), Some(1), "{said}");
            assert!(said.contains(&format!("{pair} are one directory")), "{said}");
        }
    }
    assert!(site.clean_up().status.success());
}

#[test]
fn a_keeper_and_a_store_are_one_depots_for_as_long_as_it_has_containers() {
    let site = Site::new();
    let other = Site::new();
    let depot = site.place("depot").display().to_string();
    let shared = [("--keeper-dir", "keeper"), ("--store", "store")];
    let refused = |reason: &str| {
        for (flag, place) in shared {
            for verb in ["serve", "cleanup"] {
                let mut command = other.command_but(verb, flag, site.place(place));
                let refused = command.output().unwrap();
                let said = String::from_utf8(refused.stderr).unwrap();
                assert_eq!(refused.status.code(), Some(1), "{said}");
                assert!(said.contains(reason) && said.contains(&depot), "{said}");
                assert!(said.contains(flag), "{said}");
            }
        }
    };
    let mut first = site.serve(&[]);
    assert!(first.ask("POST", "/containers", "{\"handle\":\"c\"}").contains("{\"Handle\":\"c\"}"));
    refused("another Garden");
    first.end("-KILL");
    refused("belongs to containers of a Garden");
    let mut again = site.serve(&[]);
    assert!(site.runs_in_c(&["touch", "/written"]));
    again.end("-TERM");
    assert!(site.clean_up().status.success());
    for (flag, place) in shared {
        let mut second = other.serve_by(&mut other.command_but("serve", flag, site.place(place)));
        second.end("-TERM");
        assert!(other.command_but("cleanup", flag, site.place(place)).status().unwrap().success());
    }
    assert!(other.clean_up().status.success());
}

/// Receives what a service manager is told, until it is what is waited for.
fn hear(manager: &UnixDatagram, expected: &str) {
    let deadline = Instant::now() + PATIENCE;
    let mut heard = [0; 256];
    loop {
        assert!(Instant::now() < deadline, "not told: {expected}");
        // A time-out is an error of another kind than one that would not pass.
        if let Ok(length) = manager.recv(&mut heard)
            && heard[..length] == *expected.as_bytes()
        {
            return;
        }
    }
}

#[test]
fn a_service_manager_is_told_of_the_start_the_life_and_the_end() {
    let site = Site::new();
    let by_path = UnixDatagram::bind(site.place("notify")).unwrap();
    let name = format!("bloomery-notify-{}", site.tag);
    let by_name = UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
    for (manager, address) in [
        (by_path, site.place("notify").to_str().unwrap().to_owned()),
        (by_name, format!("@{name}")),
    ] {
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let mut command = site.command("serve", &[]);
        command.env("NOTIFY_SOCKET", address).env("WATCHDOG_USEC", "100000");
        let mut server = site.serve_by(&mut command);
        hear(&manager, "READY=1\nSTATUS=serving");
        // Twice: it goes on.
        hear(&manager, "WATCHDOG=1");
        hear(&manager, "WATCHDOG=1");
        let (code, _, log) = server.end("-TERM");
        assert_eq!(code, Some(0), "{log}");
        hear(&manager, "STOPPING=1");
    }
    assert!(site.clean_up().status.success());
}
