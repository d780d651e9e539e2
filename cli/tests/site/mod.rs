//! A real daemon in places of a test's own, to be killed and started again.

#![allow(dead_code, reason = "each test program uses a part of it")]

use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};

use bloomery_garden::client::{Address, Client};
use bloomery_garden::config::Config;
use garden_api::{ContainerSpec, ProcessSpec};

#[path = "../../../garden/networker/tests/kernel/place.rs"]
pub mod place;
#[path = "../../../garden/tests/plot/traces.rs"]
pub mod traces;
#[path = "../../../garden/sys/tests/cell/waiting.rs"]
pub mod waiting;

use place::Place;
pub use waiting::PATIENCE;

/// A container as it comes.
pub fn named(handle: &str) -> ContainerSpec {
    ContainerSpec { handle: handle.into(), ..ContainerSpec::default() }
}

/// A shell script as a process, whose id is the server's choice.
pub fn sh(script: &str) -> ProcessSpec {
    let args = vec!["-c".into(), script.into()];
    ProcessSpec { path: "/bin/sh".into(), args, ..ProcessSpec::default() }
}

/// The same under an id of its own.
pub fn shell(id: &str, script: &str) -> ProcessSpec {
    ProcessSpec { id: id.into(), ..sh(script) }
}

pub struct Site {
    /// Where everything is; what the daemon is given as flags.
    pub config: Config,
    /// The network that the daemon is in, if it is not this process's.
    pub host: Option<Place>,
    flags: Vec<String>,
    directory: tempfile::TempDir,
    daemon: Option<Child>,
}

impl Site {
    /// A site among up to 8 of this process.
    pub fn new(number: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| -> PathBuf { directory.path().join(name) };
        rootfs::busybox::build(&place("image"), &rootfs::busybox::find().unwrap()).unwrap();
        let unique = std::process::id() * 8 + number;
        let tag = [unique / 36 % 36, unique % 36].map(|digit| char::from_digit(digit, 36).unwrap());
        let config = Config {
            depot: place("depot"),
            run: place("run"),
            store: place("store"),
            tag: tag.iter().collect(),
            default_rootfs: Some(place("image")),
            pool: 2,
            ..Config::default()
        };
        Self { config, host: None, flags: Vec::new(), directory, daemon: None }
    }

    /// A site on a host of its own as far as the network goes, with more flags for its daemon. Up
    /// to 16 of these may be in one process at a time.
    pub fn apart(number: u32, flags: &[&str]) -> Self {
        let mut site = Self::new(0);
        // An upper case letter first: no other kind of site has one in its tag.
        let unique = std::process::id() * 16 + number;
        let first = char::from_digit(10 + unique / 36 % 26, 36).unwrap().to_ascii_uppercase();
        site.config.tag = format!("{first}{}", char::from_digit(unique % 36, 36).unwrap());
        let host = Place::new();
        host.run("ip link set lo up");
        site.host = Some(host);
        site.flags = flags.iter().map(ToString::to_string).collect();
        site
    }

    /// One more flag for the next daemon.
    pub fn add_flag(&mut self, flag: &str) {
        self.flags.push(flag.to_owned());
    }

    /// The next daemon has none of the flags that were given so far.
    pub fn take_flags(&mut self) -> Vec<String> {
        std::mem::take(&mut self.flags)
    }

    pub fn set_flags(&mut self, flags: Vec<String>) {
        self.flags = flags;
    }

    /// A place in the site's directory.
    pub fn place(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Does something where the daemon is.
    pub fn inside<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        match &self.host {
            Some(host) => host.inside(work),
            None => work(),
        }
    }

    pub fn client(&self) -> Client {
        Client::new(Address::Unix(self.directory.path().join("garden.sock")))
    }

    /// Starts the daemon, to die at a step where one is named, at its nth arrival there with `:n`
    /// behind the name. It waits at each step that has a file in the place `held`.
    pub fn start(&mut self, die_at: Option<&str>) {
        let place = |name: &str| self.directory.path().join(name);
        let log = std::fs::File::options().create(true).append(true).open(place("log")).unwrap();
        // Two tests at once must not meet in their addresses.
        let unique = std::process::id() / 4 % 4096;
        let pool = format!("10.{}.{}.0/24", 160 + unique / 256, unique % 256);
        let mut command = Command::new(env!("CARGO_BIN_EXE_bloomery"));
        command
            .args(["garden", "serve", "--pool-size", "2"])
            .args(["--tag", &self.config.tag])
            .arg("--bind-socket")
            .arg(place("garden.sock"))
            .arg("--depot")
            .arg(&self.config.depot)
            .arg("--keeper-dir")
            .arg(&self.config.run)
            .arg("--store")
            .arg(&self.config.store)
            .arg("--default-rootfs")
            .arg(place("image"))
            .args(&self.flags)
            .env("BLOOMERY_HOLD_IN", place("held"))
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        if self.host.is_none() {
            command.args(["--network-pool", &pool]);
        }
        match die_at {
            Some(step) => command.env("BLOOMERY_DIE_AT", step),
            None => command.env_remove("BLOOMERY_DIE_AT"),
        };
        let daemon = self.inside(|| command.spawn().unwrap());
        self.daemon = Some(daemon);
    }

    /// Waits until the daemon answers; fails where it has ended instead.
    pub async fn wait_up(&mut self) {
        let client = self.client();
        let deadline = Instant::now() + PATIENCE;
        while client.ping().await.is_err() {
            let ended = self.daemon.as_mut().unwrap().try_wait().unwrap();
            assert!(ended.is_none(), "the daemon has ended: {ended:?}\n{}", self.log());
            assert!(Instant::now() < deadline, "the daemon serves\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    pub fn daemon(&self) -> i32 {
        i32::try_from(self.daemon.as_ref().unwrap().id()).unwrap()
    }

    pub fn kill(&mut self) {
        self.daemon.as_mut().unwrap().kill().unwrap();
        self.ended();
    }

    /// SIGTERM, and waits for the end.
    pub fn stop(&mut self) -> ExitStatus {
        signal(self.daemon(), rustix::process::Signal::TERM);
        self.ended()
    }

    /// Waits for the daemon's end.
    pub fn ended(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().unwrap();
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = daemon.try_wait().unwrap() {
                return status;
            }
            if Instant::now() >= deadline {
                let _ = daemon.kill();
                panic!("the daemon ends\n{}", self.log());
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// The daemon has died by SIGKILL of its own.
    pub fn expect_death(&mut self, step: &str) {
        let status = self.ended();
        assert_eq!(status.signal(), Some(9), "{step}\n{}", self.log());
    }
}

pub fn signal(pid: i32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid).unwrap();
    let _ = rustix::process::kill_process(pid, signal);
}

impl Drop for Site {
    /// Takes everything along: containers by the next daemon, then that one and its supervisor.
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        let config = Config { destroy_on_start: true, pool: 0, ..self.config.clone() };
        // A thread of its own: a test may end inside a runtime.
        let raze = || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            bloomery_garden::Gardener::start(config, runtime.handle().clone())
                .and_then(|garden| garden.raze())
        };
        let razed = std::thread::scope(|scope| scope.spawn(|| self.inside(raze)).join());
        if !std::thread::panicking() {
            razed.unwrap().unwrap();
        }
    }
}
