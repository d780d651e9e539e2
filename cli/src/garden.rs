//! `bloomery garden`: the container daemon.

use std::ffi::{OsStr, OsString};
use std::net::SocketAddr;
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::PathBuf;
use std::process;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use bloomery_garden::Gardener;
use bloomery_garden::config::Config;
use bloomery_garden::dropsonde;
use bloomery_garden::server::{self, DebugListener, Listener, Settings, Verbosity};
use clap::{Args, FromArgMatches, Subcommand};
use garden_api::Properties;
use rustix::process::Signal;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::filter::LevelFilter;

use crate::descriptors;
use crate::log;
use crate::notify::Notifier;
use crate::serve::{Flags, ini_flags};

/// What to do with a Garden.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Serve the Garden API until SIGTERM or SIGINT; containers live on.
    #[command(alias = "server")]
    Serve(Box<Flags>),
    /// Remove all that a server of these flags has left: containers, keeper, cgroups, links, rules,
    /// volumes. A server that runs is an error.
    Cleanup(Box<Flags>),
}

/// How others can watch a server.
struct Watching {
    /// Where the debug server listens.
    debug: Option<SocketAddr>,
    /// Where metrics are sent, by which name and how often.
    emission: Option<(SocketAddr, String, Duration)>,
    level: log::Level,
}

/// Runs it to its end.
pub fn run(command: Command) -> anyhow::Result<()> {
    if !rustix::process::geteuid().is_root() {
        bail!("a Garden makes namespaces, cgroups and links: it must be started as root");
    }
    match command {
        Command::Serve(flags) => {
            let file = flags.config.clone();
            serve(with_file(*flags, file, "bloomery garden serve", &["serve", "server"])?)
        }
        Command::Cleanup(flags) => {
            let file = flags.config.clone();
            clean_up(with_file(*flags, file, "bloomery garden cleanup", &["cleanup"])?)
        }
    }
}

/// Flags from an INI file come first, so that the command line's win. `names` are those of the
/// subcommand, which is called by `title`.
pub fn with_file<F: Args + FromArgMatches>(
    flags: F,
    file: Option<PathBuf>,
    title: &'static str,
    names: &[&str],
) -> anyhow::Result<F> {
    let Some(file) = file else { return Ok(flags) };
    let from_line = std::env::args_os()
        .skip_while(|argument| !names.iter().any(|name| argument == name))
        .skip(1);
    let all = std::iter::once(OsString::from(title)).chain(ini_flags(&file)?).chain(from_line);
    let command =
        F::augment_args(clap::Command::new(title).bin_name(title)).args_override_self(true);
    let matches = command.try_get_matches_from(all).unwrap_or_else(|error| error.exit());
    F::from_arg_matches(&matches).map_err(Into::into)
}

fn serve(flags: Flags) -> anyhow::Result<()> {
    let level = flags.start_log();
    descriptors::raise_limit();
    let watching = Watching { debug: flags.debug_address(), emission: flags.emission(), level };
    let settings = Settings { head_patience: flags.head_patience(), ..Settings::default() };
    let (config, ignored) = flags.into_config();
    for flag in ignored {
        tracing::warn!("--{flag} has no effect in this server");
    }
    let runtime = Runtime::new().context("cannot start the runtime")?;
    let served = runtime.block_on(until_stopped(config, settings, watching));
    // Calls that do not end are no reason to stay: a killed daemon loses nothing either.
    runtime.shutdown_background();
    served
}

/// Binds the socket first, so that whoever waits for the server sees it, and serves once what an
/// earlier server left has been taken over.
async fn until_stopped(
    config: Config,
    settings: Settings,
    watching: Watching,
) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("cannot await SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("cannot await SIGINT")?;
    let notifier = Arc::new(Notifier::from_environment().context("cannot use NOTIFY_SOCKET")?);
    let leaving = Arc::clone(&notifier);
    let (stopper, stop) = watch::channel(false);
    let mut stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("stopping; containers live on");
        leaving.tell("STOPPING=1");
        stopper.send_replace(true);
        // Held, since a sender that is dropped stops the server as well.
        stopper.closed().await;
    });
    let listener = Listener::bind(&config.listen)?;
    let debug = watching.debug.map(DebugListener::bind).transpose()?;
    if let Some((destination, origin, _)) = &watching.emission {
        dropsonde::start(*destination, origin.clone())
            .with_context(|| format!("cannot send metrics to {destination}"))?;
    }
    let address = format!("{:?}", config.listen);
    let handle = tokio::runtime::Handle::current();
    let starting = tokio::task::spawn_blocking(move || Gardener::start(config, handle));
    let gardener = tokio::select! {
        started = starting => started.context("the start was broken off")??,
        _ = stopped.wait_for(|stop| *stop) => return Ok(()),
    };
    if let Some(debug) = debug {
        let level = watching.level;
        let verbosity = move |verbosity: Verbosity| level.set(level_filter(verbosity));
        let listens = debug.address();
        tracing::info!(address = %listens, "the debug server listens");
        tokio::spawn(debug.serve(Arc::clone(&gardener), Arc::new(verbosity), stop.clone()));
    }
    if let Some((.., interval)) = watching.emission {
        tokio::spawn(report(Arc::clone(&gardener), interval));
    }
    tracing::info!(address, "serving");
    notifier.tell("READY=1\nSTATUS=serving");
    let alive = || {
        let gardener = Arc::clone(&gardener);
        let looked = tokio::task::spawn_blocking(move || gardener.list(&Properties::new()));
        async move { looked.await.is_ok() }
    };
    tokio::select! {
        () = server::serve(listener, Arc::clone(&gardener), settings, stop) => {}
        () = notifier.feed(alive) => {}
    }
    tokio::task::spawn_blocking(move || gardener.leave()).await.context("the end was broken off")
}

/// Has all removed that a server of these flags has left, by a process that Ctrl-C does not reach:
/// what is being put back is put back to the end.
pub fn clean_up_apart(flags: impl IntoIterator<Item = impl AsRef<OsStr>>) -> anyhow::Result<()> {
    let mut command = process::Command::new("/proc/self/exe");
    command.args(["garden", "cleanup", "--log-level", "error"]).args(flags).process_group(0);
    let status = loop {
        let status = command.status().context("cannot start `bloomery garden cleanup`")?;
        // It is in our group until it has one of its own, and may be hit there before it begins.
        if status.signal() != Some(Signal::INT.as_raw()) {
            break status;
        }
    };
    if !status.success() {
        bail!("`bloomery garden cleanup` failed: {status}");
    }
    Ok(())
}

/// Has a Garden report itself for as long as it lives.
async fn report(gardener: Arc<Gardener>, interval: Duration) {
    let gardener = Arc::downgrade(&gardener);
    loop {
        tokio::time::sleep(interval).await;
        let Some(gardener) = gardener.upgrade() else { return };
        // One that could not look looks again next time.
        let _ = tokio::task::spawn_blocking(move || gardener.report()).await;
    }
}

fn level_filter(verbosity: Verbosity) -> LevelFilter {
    match verbosity {
        Verbosity::Debug => LevelFilter::DEBUG,
        Verbosity::Info => LevelFilter::INFO,
        Verbosity::Warn => LevelFilter::WARN,
        Verbosity::Error => LevelFilter::ERROR,
        Verbosity::Fatal => LevelFilter::OFF,
    }
}

fn clean_up(flags: Flags) -> anyhow::Result<()> {
    flags.start_log();
    descriptors::raise_limit();
    let (config, _) = flags.into_config();
    let runtime = Runtime::new().context("cannot start the runtime")?;
    // Nobody may be listening, and a socket that is left is removed with this one.
    let socket = {
        let _inside = runtime.enter();
        Listener::bind(&config.listen)?
    };
    Gardener::clean_up(config, runtime.handle().clone())?;
    drop(socket);
    Ok(())
}
