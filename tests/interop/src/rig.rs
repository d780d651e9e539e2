//! The conditions under which the exchanges were recorded, made again around our server.
//!
//! ```text
//! test ──stdin──> rig (in a network and a mount namespace of its own) ──> daemon
//! ```
//!
//! The daemon is a process, so that it can be stopped and started again like the original. Paths,
//! addresses and ports are the recorded ones: `/srv` and `/run` are binds of the test's directory,
//! seen by the rig and its children only.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::image;
use anyhow::{Context, bail, ensure};
use bloomery_garden::Gardener;
use bloomery_garden::config::{Config, Listen, NetworkConfig};
use bloomery_garden::server::{self, Listener, Settings};
use rootfs::inside;
use rootfs::layers::Layers;
use rootfs::reference::Place;
use rustix::process::{Pid, Signal, kill_process};

/// Longer than anything takes here.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the image is unpacked, once: each store gets a copy. To unpack is to wait for the disk.
const STORE: &str = "store";

/// What all scenarios share and none changes: the image and the bind source, as `/srv`.
pub fn furnish(srv: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(srv.join("share"))?;
    fs::write(srv.join("share/file"), "shared\n")?;
    let files = tempfile::tempdir()?;
    let root = files.path().join("rootfs");
    rootfs::busybox::build(&root, &rootfs::busybox::find()?)?;
    fs::write(
        root.join("etc/passwd"),
        "root:x:0:0:root:/root:/bin/sh\n\
         alice:x:1000:1000::/home/alice:/bin/sh\n\
         bob:x:1001:1001::/home/bob:/bin/sh\n",
    )?;
    fs::write(
        root.join("etc/group"),
        "root:x:0:\ntty:x:5:\nstaff:x:50:alice\nalice:x:1000:\nbob:x:1001:\n",
    )?;
    fs::write(root.join("etc/config.txt"), "some content\n")?;
    for (home, id) in [("home/alice", 1000), ("home/bob", 1001)] {
        fs::create_dir_all(root.join(home))?;
        chown(root.join(home), Some(id), Some(id))?;
    }
    fs::set_permissions(root.join("root"), fs::Permissions::from_mode(0o700))?;
    let layout = srv.join("rootfs");
    image::wrap(&root, &["IMAGE_VAR=from-image"], &layout)?;
    Layers::open(&srv.join(STORE))?.image(&Place::Layout(layout, None))?;
    Ok(())
}

/// A running server with its surroundings.
#[derive(Debug)]
pub struct Rig {
    directory: tempfile::TempDir,
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Rig {
    /// Starts a server with these flags of the original. `number` tells apart a program's rigs at one
    /// time; other programs' rigs have other process ids.
    pub fn start(srv: &Path, number: usize, flags: &str) -> anyhow::Result<Self> {
        let directory = tempfile::Builder::new().prefix("interop-").tempdir()?;
        fs::create_dir(directory.path().join("run"))?;
        fs::create_dir(directory.path().join("store"))?;
        fs::create_dir(held(directory.path()))?;
        let copied = Command::new("cp")
            .arg("-a")
            .arg(srv.join(STORE).join("layers"))
            .arg(directory.path().join("store"))
            .status()?;
        ensure!(copied.success(), "cp: {copied}");
        let log = fs::File::create(directory.path().join("log"))?;
        let mut process = Command::new("unshare")
            .args(["--net", "--mount", "--"])
            .arg(std::env::current_exe()?)
            .arg("rig")
            .arg(srv)
            .arg(directory.path())
            .arg(format!("{:x}", (std::process::id() as usize * 16 + number) & 0xfff))
            .arg(flags)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("cannot run unshare(1)")?;
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().context("no stdout")?);
        let mut rig = Self { directory, process, orders, answers };
        rig.hear("up").with_context(|| format!("the server does not start: {}", rig.log()))?;
        Ok(rig)
    }

    /// The server's socket.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("garden.sock")
    }

    /// Its network namespace, as its processes' links in `/proc` name it.
    pub fn namespace(&self) -> anyhow::Result<PathBuf> {
        Ok(fs::read_link(format!("/proc/{}/ns/net", self.process.id()))?)
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Has calls wait when they come to a step of [`bloomery_garden::fault`].
    pub fn hold(&self, step: &str) -> anyhow::Result<()> {
        let file = held(self.directory.path()).join(step.replace('/', "-"));
        fs::write(&file, "").with_context(|| format!("cannot write {}", file.display()))
    }

    /// Lets them go on.
    pub fn let_go(&self, step: &str) -> anyhow::Result<()> {
        let file = held(self.directory.path()).join(step.replace('/', "-"));
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
    }

    /// Has the rig do something: `down`, `up`, `kill daemon`, `kill keeper`, `stop keeper` or
    /// `kill init`.
    pub fn order(&mut self, order: &str) -> anyhow::Result<()> {
        let orders = self.orders.as_mut().context("the rig has been dismantled")?;
        writeln!(orders, "{order}").with_context(|| format!("cannot order {order}"))?;
        self.hear(order)
    }

    fn hear(&mut self, expected: &str) -> anyhow::Result<()> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        ensure!(line.trim() == expected, "the rig says {line:?} to {expected}");
        Ok(())
    }

    /// Destroys all containers and ends the server; an error if anything is left.
    pub fn dismantle(mut self) -> anyhow::Result<()> {
        drop(self.orders.take());
        let mut rest = String::new();
        self.answers.read_to_string(&mut rest)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the rig ends with {status}: {rest}{}", self.log());
        Ok(())
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        drop(self.orders.take());
        let _ = self.process.wait();
    }
}

/// What `rig` does, in namespaces of its own: obeys orders from stdin until its end.
pub fn run_rig(arguments: &[String]) -> anyhow::Result<()> {
    let [srv, directory, ..] = arguments else { bail!("rig SRV DIRECTORY NUMBER FLAGS") };
    let own_run = Path::new(directory).join("run");
    rustix::mount::mount_bind(srv.as_str(), "/srv").context("cannot bind /srv")?;
    rustix::mount::mount_bind(&own_run, "/run").context("cannot bind /run")?;
    let up = Command::new("ip").args(["link", "set", "lo", "up"]).status()?;
    ensure!(up.success(), "ip link set lo up: {up}");
    let mut daemon = Some(Daemon::start(arguments)?);
    println!("up");
    let obeyed = obey(arguments, &mut daemon);
    // A stopped one would obey nobody, the daemon included.
    if let Ok(keeper) = keeper() {
        signal(keeper, Signal::CONT)?;
    }
    // A call that is held would never end.
    for step in fs::read_dir(held(Path::new(&arguments[1])))? {
        fs::remove_file(step?.path())?;
    }
    let ended = daemon.context("the daemon is down at the end").and_then(Daemon::raze);
    let outcome = obeyed.and(ended);
    if outcome.is_err() {
        let cleaned =
            Command::new(std::env::current_exe()?).arg("cleanup").args(arguments).status();
        if !cleaned?.success() {
            kill_supervisor()?;
        }
    }
    outcome
}

fn obey(arguments: &[String], daemon: &mut Option<Daemon>) -> anyhow::Result<()> {
    for order in std::io::stdin().lines() {
        let order = order?;
        match order.as_str() {
            "down" => daemon.take().context("the daemon is down")?.stop()?,
            "up" => *daemon = Some(Daemon::start(arguments)?),
            "kill daemon" => daemon.as_mut().context("the daemon is down")?.process.kill()?,
            "kill keeper" => signal(keeper()?, Signal::KILL)?,
            "stop keeper" => signal(keeper()?, Signal::STOP)?,
            "kill init" => signal(init_of(keeper()?)?, Signal::KILL)?,
            other => bail!("unknown order {other}"),
        }
        println!("{order}");
    }
    Ok(())
}

#[derive(Debug)]
struct Daemon {
    process: Child,
}

impl Daemon {
    fn start(arguments: &[String]) -> anyhow::Result<Self> {
        let socket = socket_in(Path::new(&arguments[1]));
        let mut process = Command::new(std::env::current_exe()?)
            .arg("daemon")
            .args(arguments)
            .env("BLOOMERY_HOLD_IN", held(Path::new(&arguments[1])))
            .stdin(Stdio::piped())
            .spawn()?;
        let deadline = Instant::now() + PATIENCE;
        while UnixStream::connect(&socket).is_err() {
            if let Some(status) = process.try_wait()? {
                bail!("the daemon ends with {status}");
            }
            ensure!(Instant::now() < deadline, "the daemon does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok(Self { process })
    }

    /// Has it destroy its containers and end.
    fn raze(mut self) -> anyhow::Result<()> {
        drop(self.process.stdin.take());
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.process.try_wait()? {
                ensure!(status.success(), "the daemon ends with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the daemon does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn stop(mut self) -> anyhow::Result<()> {
        let pid = Pid::from_child(&self.process);
        // Kept, because wait would close it, and its end means something else to the daemon.
        let _input = self.process.stdin.take();
        kill_process(pid, Signal::TERM)?;
        let status = self.process.wait()?;
        ensure!(status.success(), "the daemon ends with {status} on SIGTERM");
        Ok(())
    }
}

/// Ends the daemon if it has not ended by itself.
impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn socket_in(directory: &Path) -> PathBuf {
    directory.join("garden.sock")
}

/// Where the steps are named at which calls wait.
fn held(directory: &Path) -> PathBuf {
    directory.join("held")
}

fn signal(pid: i32, signal: Signal) -> anyhow::Result<()> {
    let pid = Pid::from_raw(pid).context("no pid")?;
    kill_process(pid, signal).with_context(|| format!("cannot send {signal:?} to {pid:?}"))
}

/// The field of `/proc/<pid>/status`.
fn status_field(pid: i32, name: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim().to_owned())
}

fn processes() -> anyhow::Result<Vec<i32>> {
    let names =
        fs::read_dir("/proc")?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    Ok(names.filter_map(|name| name.parse().ok()).collect())
}

/// Processes in a network namespace.
pub fn members(namespace: &Path) -> anyhow::Result<Vec<i32>> {
    let is_member = |pid: &i32| {
        fs::read_link(format!("/proc/{pid}/ns/net")).is_ok_and(|theirs| theirs == namespace)
    };
    Ok(processes()?.into_iter().filter(is_member).collect())
}

/// Processes that have a parent among these and are none of them.
pub fn children(parents: &[i32]) -> anyhow::Result<Vec<i32>> {
    let is_child = |pid: &i32| {
        let parent = status_field(*pid, "PPid").and_then(|parent| parent.parse().ok());
        parent.is_some_and(|parent| parents.contains(&parent)) && !parents.contains(pid)
    };
    Ok(processes()?.into_iter().filter(is_child).collect())
}

/// The supervisor's processes of this rig: in our network namespace, under names of their own.
fn supervisor() -> anyhow::Result<Vec<(i32, String)>> {
    let members = members(&fs::read_link("/proc/self/ns/net")?)?;
    let named = |pid: i32| Some((pid, status_field(pid, "Name")?));
    Ok(members.into_iter().filter_map(named).filter(|(_, n)| n.starts_with("bloomery-")).collect())
}

fn keeper() -> anyhow::Result<i32> {
    let keeper = supervisor()?.into_iter().find(|(_, name)| name == "bloomery-keeper");
    keeper.map(|(pid, _)| pid).context("no keeper is found")
}

/// Ends what no daemon could: the supervisor, and the containers that it keeps.
fn kill_supervisor() -> anyhow::Result<()> {
    let mut doomed: Vec<_> = supervisor()?.into_iter().map(|(pid, _)| pid).collect();
    // The keeper would start a new anchor, and the anchor a new keeper.
    for pid in &doomed {
        signal(*pid, Signal::STOP)?;
    }
    doomed.extend(children(&doomed)?);
    for pid in doomed {
        // One that is gone already is as good.
        let _ = signal(pid, Signal::KILL);
    }
    Ok(())
}

fn init_of(keeper: i32) -> anyhow::Result<i32> {
    for pid in processes()? {
        let child = status_field(pid, "PPid") == Some(keeper.to_string());
        let namespaces = status_field(pid, "NSpid").unwrap_or_default();
        if child && namespaces.split_whitespace().nth(1) == Some("1") {
            return Ok(pid);
        }
    }
    bail!("no container's process 1 is found")
}

/// What `daemon` does: serves until SIGTERM, which leaves the containers, or until the end of
/// stdin, which destroys them.
pub fn run_daemon(arguments: &[String]) -> anyhow::Result<()> {
    let [_, directory, number, flags] = arguments else {
        bail!("daemon SRV DIRECTORY NUMBER FLAGS")
    };
    let config = configuration(Path::new(directory), number, flags)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let gardener = Gardener::start(config.clone(), runtime.handle().clone())?;
    let razed = runtime.block_on(async {
        let listener = Listener::bind(&config.listen)?;
        let mut terminate =
            tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        let (stop, stopped) = tokio::sync::watch::channel(false);
        let serving = tokio::spawn(server::serve(
            listener,
            std::sync::Arc::clone(&gardener),
            Settings::default(),
            stopped,
        ));
        let input_ended =
            tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
        let raze = tokio::select! {
            _ = terminate.recv() => false,
            _ = input_ended => true,
        };
        stop.send(true)?;
        serving.await?;
        anyhow::Ok(raze)
    })?;
    if razed {
        gardener.raze()?;
    } else {
        gardener.leave();
    }
    // The thread that reads stdin is not waited for.
    runtime.shutdown_background();
    Ok(())
}

/// What `cleanup` does: removes what a daemon that is gone has left.
pub fn run_cleanup(arguments: &[String]) -> anyhow::Result<()> {
    let [_, directory, number, flags] = arguments else {
        bail!("cleanup SRV DIRECTORY NUMBER FLAGS")
    };
    let runtime = tokio::runtime::Runtime::new()?;
    let config = configuration(Path::new(directory), number, flags)?;
    Ok(Gardener::clean_up(config, runtime.handle().clone())?)
}

/// What `inside` does: the daemon runs its own executable inside containers for their streams.
pub fn run_inside(arguments: &[String]) -> anyhow::Result<()> {
    match arguments {
        [what, user, path] if what == "stream-in" => {
            Ok(inside::stream_in(user, path, std::io::stdin())?)
        }
        [what, user, path] if what == "stream-out" => {
            Ok(inside::stream_out(user, path, std::io::stdout())?)
        }
        _ => bail!("inside stream-in|stream-out USER PATH"),
    }
}

fn configuration(directory: &Path, number: &str, flags: &str) -> anyhow::Result<Config> {
    let rootfs = PathBuf::from("/srv/rootfs");
    let mut config = Config {
        listen: Listen::Unix { path: socket_in(directory), mode: 0o600 },
        depot: "/var/run/gdn/depot".into(),
        run: "/run/keeper".into(),
        store: directory.join("store"),
        tag: format!("i{number}"),
        default_rootfs: Some(rootfs.clone()),
        image_aliases: ["docker:///busybox", "docker:///busybox#1.36"]
            .map(|reference| (reference.to_owned(), rootfs.clone()))
            .into(),
        pool: 0,
        network: NetworkConfig {
            external_ip: Some(Ipv4Addr::new(192, 0, 2, 10)),
            dns_servers: vec![Ipv4Addr::new(192, 0, 2, 53).into()],
            mtu: Some(1500),
            ..NetworkConfig::default()
        },
        ..Config::default()
    };
    let mut flags = flags.split_whitespace();
    while let Some(flag) = flags.next() {
        let mut value = || flags.next().context("a flag without its value");
        match flag {
            "--cleanup-process-dirs-on-wait" => config.forget_processes_on_wait = true,
            "--max-containers" => config.max_containers = value()?.parse()?,
            "--disable-privileged-containers" => config.disable_privileged = true,
            "--port-pool-size" => config.network.port_pool_size = value()?.parse()?,
            "--network-pool" => config.network.pool = value()?.to_owned(),
            "--cpu-entitlement-per-share" => {
                config.cpu_entitlement_per_share = Some(value()?.parse()?);
            }
            "--enable-container-network-metrics" => config.network_metrics = true,
            other => bail!("unknown flag {other}"),
        }
    }
    Ok(config)
}
