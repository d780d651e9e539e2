//! A platform of the bench's own, under names that no other has.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::up;

/// Where and on what.
#[derive(clap::Args, Debug)]
pub struct Basis {
    /// The root file system of apps, instead of the one that `bloomery up` makes.
    #[arg(long, value_name = "PATH")]
    stack: Option<PathBuf>,
    /// The network pool of the bench's Garden.
    #[arg(long, value_name = "CIDR", default_value = "10.253.252.0/22")]
    network_pool: String,
    /// Write all rows with their samples, as JSON.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
}

/// It ends with this value, and all that it has made.
#[derive(Debug)]
pub struct Platform {
    directory: TempDir,
    port: u16,
    /// From the command until it returned.
    pub until_ready: Duration,
}

const DOMAIN: &str = "bloomery.localhost";

impl Platform {
    /// Starts it, and logs a client in.
    pub fn start(flags: &Basis) -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            bail!("the bench makes containers and needs to be root");
        }
        let stack = match &flags.stack {
            Some(path) => path.clone(),
            None => up::ensure_stack()?,
        };
        // Short, for sockets are in it (unix(7)); containers' root has to get at layers in it.
        let directory = tempfile::Builder::new()
            .prefix("bloomery-bench.")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o711))
            .tempdir()
            .context("cannot make a directory")?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .and_then(|socket| socket.local_addr())
            .context("no port is free on 127.0.0.1")?
            .port();
        let mut platform = Self { directory, port, until_ready: Duration::ZERO };
        let began = Instant::now();
        let mut command = platform.command(&["up"]);
        command
            .args(platform.place())
            .args(["--port", &port.to_string(), "--stack"])
            .arg(stack)
            .args([
                "--garden=--tag=zp",
                &format!("--garden=--network-pool={}", flags.network_pool),
            ]);
        run(&mut command)?;
        platform.until_ready = began.elapsed();
        let password = platform.password()?;
        platform.cf(&[
            "login",
            "-a",
            &platform.url("api"),
            "-u",
            "admin",
            "-p",
            &password,
            "-o",
            "dev",
            "-s",
            "dev",
        ])?;
        Ok(platform)
    }

    /// The administrator's.
    pub fn password(&self) -> anyhow::Result<String> {
        let said = run(self.command(&["credentials"]).args(self.place()))?;
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        said.split_whitespace().last().map(str::to_owned).context("there is no password")
    }

    /// A place for apps.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    fn place(&self) -> [PathBuf; 4] {
        let directory = self.directory.path();
        ["--data".into(), directory.join("data"), "--run".into(), directory.join("run")]
    }

    /// An address for clients.
    pub fn url(&self, host: &str) -> String {
        format!("http://{host}.{DOMAIN}:{}", self.port)
    }

    /// The port of its router.
    pub fn port(&self) -> u16 {
        self.port
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("/proc/self/exe");
        command
            .args(arguments)
            .env("BLOOMERY_HOME", self.directory.path().join("home"))
            .process_group(0)
            .stdin(Stdio::null());
        command
    }

    /// A command of the small client, and what it said.
    pub fn cf(&self, arguments: &[&str]) -> anyhow::Result<String> {
        let said = run(self.command(&["cf"]).args(arguments))?;
        Ok(String::from_utf8_lossy(&said.stdout).into_owned())
    }

    /// Its processes.
    pub fn processes(&self) -> anyhow::Result<Vec<(&'static str, u32)>> {
        let [_, data, _, run] = self.place();
        up::processes(&up::Place::new(data, run))
    }
}

impl Drop for Platform {
    fn drop(&mut self) {
        if let Err(error) = run(self.command(&["destroy", "--yes"]).args(self.place())) {
            eprintln!("the bench's platform leaves something behind: {error:#}");
        }
    }
}

/// Runs a command to its end; what it said is told where it fails.
pub fn run(command: &mut Command) -> anyhow::Result<Output> {
    let line = command.get_args().map(|word| word.to_string_lossy().into_owned());
    // Words behind the first two may be secret.
    let line = line.take(2).collect::<Vec<_>>().join(" ");
    let output = command.output().with_context(|| format!("cannot start `{line}`"))?;
    if !output.status.success() {
        bail!(
            "`{line}` ended with {}:\n{}{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(output)
}

/// Writes a static app whose page says this.
pub fn write_app(directory: &Path, page: &str) -> anyhow::Result<()> {
    fs::create_dir_all(directory)
        .and_then(|()| fs::write(directory.join("Staticfile"), ""))
        .and_then(|()| fs::write(directory.join("index.html"), page))
        .with_context(|| format!("cannot write an app to {}", directory.display()))
}
