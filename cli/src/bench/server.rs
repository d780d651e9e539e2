//! A server of the bench's own, in a place and with names of its own, and what can be seen of it
//! from outside.

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bloomery_garden::Gardener;
use bloomery_garden::config::{Config, Listen};
use rustix::process::{Pid, Signal, kill_process};

use super::http::Caller;
use crate::processes::{self, all, cpu, parent};

/// Longer than a start takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// `bloomery garden serve` as a child; it ends with this value, and all that it has made.
#[derive(Debug)]
pub struct Server {
    child: Child,
    config: Config,
    socket: PathBuf,
}

impl Server {
    /// Starts it and waits until it answers.
    pub fn start(config: Config) -> anyhow::Result<(Self, Caller)> {
        let Listen::Unix { path: socket, .. } = &config.listen else {
            bail!("the bench's servers listen on unix sockets");
        };
        let socket = socket.clone();
        if let Some(directory) = socket.parent() {
            fs::create_dir_all(directory)
                .with_context(|| format!("cannot make {}", directory.display()))?;
        }
        let program = std::env::current_exe().context("cannot find the own program")?;
        let image = config.default_rootfs.clone().context("the bench's servers have an image")?;
        let child = Command::new(program)
            .args(["garden", "serve", "--log-level", "fatal", "--bind-socket"])
            .arg(&socket)
            .arg("--depot")
            .arg(&config.depot)
            .arg("--keeper-dir")
            .arg(&config.run)
            .arg("--store")
            .arg(&config.store)
            .arg("--default-rootfs")
            .arg(image)
            .args(["--tag", &config.tag, "--network-pool", &config.network.pool])
            .args(["--pool-size", &config.pool.to_string()])
            // An interrupt is for the bench, which then ends its servers.
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("cannot start a server")?;
        let mut server = Self { child, config, socket };
        let caller = Caller::new(&server.socket)?;
        let deadline = Instant::now() + PATIENCE;
        while caller.ping().is_err() {
            if let Some(status) = server.child.try_wait().context("cannot look at a server")? {
                bail!("a server of the bench ended at once ({status})");
            }
            if Instant::now() > deadline {
                bail!("a server of the bench does not answer");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        Ok((server, caller))
    }

    /// Its pid, and those of its keeper and anchor.
    pub fn processes(&self) -> anyhow::Result<Vec<u32>> {
        let helpers = processes::helpers(&self.config.run)?;
        Ok(std::iter::once(self.child.id()).chain(helpers.map(|(_, pid)| pid)).collect())
    }

    /// The daemon's pid.
    pub fn daemon(&self) -> u32 {
        self.child.id()
    }

    fn cgroup(&self) -> PathBuf {
        let unified = Path::new("/sys/fs/cgroup/unified");
        let above = if unified.is_dir() { unified } else { Path::new("/sys/fs/cgroup") };
        above.join(format!("bloomery-{}", self.config.tag))
    }

    /// Pids of all containers' first processes, parked ones included.
    pub fn inits(&self) -> Vec<u32> {
        let slots = fs::read_dir(self.cgroup()).into_iter().flatten().flatten();
        slots
            .filter_map(|slot| fs::read_to_string(slot.path().join("init/cgroup.procs")).ok())
            .filter_map(|pids| pids.lines().next()?.parse().ok())
            .collect()
    }

    /// Cgroups, layers and links that it has on the host now.
    pub fn leavings(&self) -> usize {
        // Containers' have numbers; the keeper's stays.
        let count = |path: &Path| {
            let entries = fs::read_dir(path).into_iter().flatten().flatten();
            let numbered = |entry: &fs::DirEntry| {
                entry.file_name().to_str().is_some_and(|name| name.parse::<u32>().is_ok())
            };
            entries.filter(numbered).count()
        };
        let links = fs::read_dir("/sys/class/net").into_iter().flatten().flatten();
        // The built-in networker's names.
        let prefix = format!("w{}-", self.config.tag);
        let links =
            links.filter(|link| link.file_name().to_string_lossy().starts_with(&prefix)).count();
        let store = &self.config.store;
        count(&self.cgroup()) + count(&store.join("volumes")) + links
    }

    /// How long until nothing more is left than `count`; an error after a while.
    pub fn settle(&self, count: usize) -> anyhow::Result<Duration> {
        let started = Instant::now();
        while self.leavings() > count {
            if started.elapsed() > PATIENCE {
                bail!("after {PATIENCE:?} the server has still {} things", self.leavings());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        Ok(started.elapsed())
    }

    /// CPU time in milliseconds that the server, its supervisor and their ended children have had,
    /// and the kernel's own threads, which do what the kernel defers.
    pub fn cpu(&self) -> anyhow::Result<f64> {
        let own = self.processes()?;
        let threads = all().into_iter().filter(|pid| parent(*pid) == Some(2));
        let times =
            own.into_iter().map(|pid| cpu(pid, true)).chain(threads.map(|pid| cpu(pid, false)));
        Ok(times.flatten().sum())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(pid) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if let Err(error) = self.child.wait() {
            eprintln!("cannot end a server of the bench: {error}");
        }
        if let Err(error) = raze(self.config.clone()) {
            eprintln!("a server of the bench leaves something behind: {error:#}");
        }
    }
}

/// Removes all that a server has made, whether or not it still could.
fn raze(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build()
        .context("cannot start a runtime")?;
    let config = Config { destroy_on_start: true, pool: 0, ..config };
    let garden = Gardener::start(config, runtime.handle().clone())?;
    garden.raze()?;
    Ok(())
}
