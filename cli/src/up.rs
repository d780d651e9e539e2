//! `bloomery up` and what belongs to it: the platform on this machine.
//!
//! ```text
//! up ──starts──> supervisor (root; holds the router's socket)
//!                   ├── bloomery garden serve     (root)
//!                   │      keeper, anchor, containers: they outlive everything here
//!                   └── bloomery platform         (a user without any rights)
//! ```

mod installation;
mod names;
mod place;
mod process;
mod sample;
mod stack;
mod supervisor;

use std::io::Write as _;
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

pub use installation::Installation;
pub use place::Place;
pub use process::{Holder, holder};
pub use sample::wait_for_answer;
use supervisor::Succession;
pub use supervisor::processes;

use crate::say::say;
use crate::{log, signals};

/// For a platform to be ready, beyond the making of its stack.
const PATIENCE: Duration = Duration::from_secs(120);

/// Flags of `bloomery up`.
#[derive(clap::Args, Debug)]
pub struct Flags {
    #[command(flatten)]
    place: Place,
    /// Stay, and end with Ctrl-C as `down` would.
    #[arg(long)]
    foreground: bool,
    /// The port of the router on 127.0.0.1 instead of 80, or 8080 if that is taken.
    #[arg(long, value_name = "PORT")]
    port: Option<u16>,
    /// Domain of the platform instead of bloomery.localhost, when it is started for the first time.
    #[arg(long, value_name = "DOMAIN")]
    domain: Option<String>,
    /// Write the platform's names into /etc/hosts, where the resolver does not know them.
    #[arg(long)]
    hosts: bool,
    /// MiB of memory for apps, instead of three quarters of what the machine has.
    #[arg(long, value_name = "MIB")]
    memory: Option<i64>,
    /// A directory or archive to use as root file system, instead of making one.
    #[arg(long, value_name = "PATH")]
    stack: Option<std::path::PathBuf>,
    /// Push the sample app as well, and return when its URL answers.
    #[arg(long, conflicts_with = "foreground")]
    sample: bool,
    /// Flags for `bloomery garden serve`, such as `--garden=--network-pool=10.90.0.0/22`.
    #[arg(long = "garden", value_name = "FLAG", allow_hyphen_values = true)]
    garden: Vec<String>,
}

/// Starts the platform, or says that it runs.
pub fn up(flags: &Flags) -> anyhow::Result<()> {
    let started = Instant::now();
    if !rustix::process::geteuid().is_root() {
        bail!("containers need root: run `sudo bloomery up`");
    }
    let place = &flags.place;
    if let Some(pid) = place.supervisor()? {
        let installation = running(place, flags)?;
        if flags.foreground {
            bail!("the platform runs already (process {pid}): --foreground after `bloomery down`");
        }
        println!("already running (process {pid})");
        names::check(&installation, flags.hosts)?;
        if flags.sample {
            sample::push(place, &installation)?;
        }
        return summary(place, &installation);
    }
    if place.is_default() {
        crate::demo::refuse_second()?;
    }
    place.make()?;
    let installation = if supervisor::is_left_alone(place)? {
        let installation = running(place, flags)?;
        println!("  platform  runs without a supervisor, and gets one");
        installation
    } else {
        place.forget_ready()?;
        Installation::settle(place, flags)?
    };
    println!(
        "  host      Linux {} · {} cores · {} MiB offered to apps",
        kernel(),
        std::thread::available_parallelism().map_or(1, usize::from),
        installation.memory_mb
    );
    if flags.foreground {
        let ready = || {
            names::check(&installation, flags.hosts)?;
            summary(place, &installation)
        };
        return supervisor::run(place, &installation, Succession::Caller, ready);
    }
    start_detached(place, started)?;
    names::check(&installation, flags.hosts)?;
    if flags.sample {
        sample::push(place, &installation)?;
    }
    summary(place, &installation)?;
    println!("\nReady in {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// The installation that runs, which flags cannot change.
fn running(place: &Place, flags: &Flags) -> anyhow::Result<Installation> {
    let installation = Installation::read(place)?;
    let contrary = installation.contrary(flags);
    if !contrary.is_empty() {
        bail!(
            "the platform runs, so this would have no effect before `bloomery down`: {}",
            contrary.join(", ")
        );
    }
    Ok(installation)
}

fn kernel() -> String {
    rustix::system::uname().release().to_string_lossy().into_owned()
}

/// The supervisor, as a process that stays, and the wait for its word.
fn start_detached(place: &Place, started: Instant) -> anyhow::Result<()> {
    let log = place.log(place::Logged::Supervisor)?;
    let mut child = Command::new("/proc/self/exe")
        .arg("supervise")
        .args(place.flags())
        .stdin(Stdio::null())
        .stdout(Stdio::from(log.try_clone()?))
        .stderr(log)
        .process_group(0)
        .spawn()
        .context("cannot start the supervisor")?;
    print!("  platform  starting ...");
    std::io::stdout().flush()?;
    while !place.is_ready() {
        if let Some(status) = child.try_wait()? {
            println!();
            place.print_logs(&place::Logged::ALL, 20, false)?;
            bail!("the supervisor ended: {status}");
        }
        if started.elapsed() > PATIENCE {
            println!();
            place.print_logs(&place::Logged::ALL, 20, false)?;
            bail!(
                "the platform is not ready after {} s; `bloomery down` ends it",
                PATIENCE.as_secs()
            );
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    println!("\r  platform  ready                 {:.1} s", started.elapsed().as_secs_f64());
    Ok(())
}

/// `bloomery supervise`, which `up` starts.
pub fn supervise(place: &Place, stand_by: bool) -> anyhow::Result<()> {
    log::start_for_people();
    if stand_by {
        return supervisor::succeed(place);
    }
    let installation = Installation::read(place)?;
    supervisor::run(place, &installation, Succession::StandBy, || Ok(()))
}

fn summary(place: &Place, installation: &Installation) -> anyhow::Result<()> {
    let program = std::env::args().next().unwrap_or_else(|| "bloomery".into());
    say!("\n  API       {}", installation.url("api"));
    say!("  Apps      http://<name>.{}", installation.apps_authority());
    say!("  Data      {}", place.data().display());
    say!(
        "\n  Next      eval \"$(sudo {program} env)\" && cf login -a {} -u admin -o dev -s dev",
        installation.url("api")
    );
    say!("  Password  sudo {program} credentials");
    Ok(())
}

/// Ends the platform and its apps; they are back after the next `up`.
pub fn down(place: &Place) -> anyhow::Result<()> {
    signals::hold_off()?;
    match place.end_supervisor(Duration::from_secs(60))? {
        Some(pid) => {
            say!("process {pid} has ended, and the apps with it; `bloomery up` brings them back")
        }
        None if supervisor::is_left_alone(place)? => {
            supervisor::end_left_over(place)?;
            supervisor::clean_up(place, &Installation::read(place)?)?;
            say!("the platform ran without a supervisor; it and its apps have ended");
        }
        None => say!("nothing runs"),
    }
    Ok(())
}

/// Ends the platform and removes all that it made.
pub fn destroy(place: &Place, certain: bool) -> anyhow::Result<()> {
    if !certain {
        bail!(
            "this removes all apps and {}; if that is meant: `bloomery destroy --yes`",
            place.data().display()
        );
    }
    down(place)?;
    if let Ok(installation) = Installation::read(place) {
        supervisor::clean_up(place, &installation)?;
        names::forget()?;
    }
    place.remove()?;
    say!("removed {} and {}", place.data().display(), place.run().display());
    Ok(())
}

/// What runs.
pub fn status(place: &Place) -> anyhow::Result<()> {
    if place.supervisor()?.is_none() {
        match supervisor::is_left_alone(place)? {
            true => println!("running without a supervisor; `bloomery up` starts one"),
            false => println!("not running"),
        }
        std::process::exit(4);
    }
    let installation = Installation::read(place)?;
    let state = if place.is_ready() { "ready" } else { "starting" };
    println!("bloomery {}   {state}   {}", env!("CARGO_PKG_VERSION"), installation.url("api"));
    let mut total = 0.0;
    let mut processes = Vec::new();
    for (name, pid) in supervisor::processes(place)? {
        // It may have ended since.
        let Ok(kib) = crate::processes::memory(pid) else { continue };
        total += kib / 1024.0;
        processes.push(format!("{name} {pid} ({:.0} MiB)", kib / 1024.0));
    }
    println!("processes {} · {total:.0} MiB in all", processes.join(" · "));
    let runtime = runtime()?;
    match runtime.block_on(platform::overview(&place.platform_run())) {
        Ok(seen) => {
            println!(
                "cells     {}, {} of {} MiB have apps, {} MiB of disk",
                seen.cells, seen.reserved_mb, seen.memory_mb, seen.disk_mb
            );
            println!(
                "instances {} running, {} starting, {} crashed",
                seen.running, seen.starting, seen.crashed
            );
        }
        Err(error) => println!("apps      unknown: {error:#}", error = anyhow::Error::from(error)),
    }
    println!("data      {}", place.data().display());
    Ok(())
}

/// Flags of `bloomery logs`.
#[derive(clap::Args, Debug)]
pub struct Logs {
    #[command(flatten)]
    place: Place,
    /// Of this process alone.
    process: Option<place::Logged>,
    /// Go on with what is written from now on, until Ctrl-C.
    #[arg(short, long)]
    follow: bool,
}

/// The logs of the platform's own processes.
pub fn logs(flags: &Logs) -> anyhow::Result<()> {
    let processes = flags.process.map_or(place::Logged::ALL.to_vec(), |one| vec![one]);
    flags.place.print_logs(&processes, 200, flags.follow)
}

/// Name and password of the administrator.
pub fn credentials(place: &Place) -> anyhow::Result<()> {
    let secrets = platform::Secrets::read(&place.platform_data())?;
    println!("user      admin\npassword  {}", secrets.admin);
    Ok(())
}

/// Variables for a shell, so that an existing set-up of cf is not touched.
pub fn env(place: &Place) -> anyhow::Result<()> {
    let installation = Installation::read(place)?;
    println!("export CF_HOME=\"$HOME/.bloomery\"");
    println!("mkdir -p \"$CF_HOME\"");
    println!("# cf login -a {} -u admin -o dev -s dev", installation.url("api"));
    Ok(())
}

/// The first port of these that is free on loopback.
fn free_port(wanted: Option<u16>) -> anyhow::Result<u16> {
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(|_| port);
    if let Some(port) = wanted {
        return free(port).with_context(|| format!("cannot listen on port {port}"));
    }
    for port in [80, 8080].into_iter().chain(8081..8100) {
        match free(port) {
            Ok(port) => return Ok(port),
            Err(error) => {
                println!("  port      {port} cannot be had ({error}): taking another one")
            }
        }
    }
    bail!("no port of 80 and 8080 to 8099 is free on 127.0.0.1; name one with --port")
}

/// Makes the root file system below a directory of data, if it is not there.
pub fn make_stack(data: &std::path::Path) -> anyhow::Result<()> {
    println!("{}", stack::ensure(data)?.display());
    Ok(())
}

/// The root file system that `up` makes, for the default place if there is none.
pub fn ensure_stack() -> anyhow::Result<std::path::PathBuf> {
    let place = Place::default();
    place.make()?;
    stack::ensure(place.data())
}

/// For one thing at a time.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")
}
