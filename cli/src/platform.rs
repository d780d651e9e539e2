//! `bloomery platform`: everything but Garden, as the supervisor starts it.

use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::Context;
use platform::{Config, Listeners, Stack};
use rustix::process::{Signal, set_parent_process_death_signal};
use serde::{Deserialize, Serialize};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::filter::LevelFilter;

use crate::log;
use crate::up::stack_name;

/// What the supervisor says.
#[derive(Debug, Serialize, Deserialize)]
pub struct Settings {
    pub data: PathBuf,
    pub run: PathBuf,
    pub domain: String,
    pub apps_domain: String,
    pub port: u16,
    pub garden: PathBuf,
    pub stack: PathBuf,
    pub memory_mb: i64,
}

/// Runs until SIGTERM. The router's socket is the standard input.
pub fn run(settings: &str) -> anyhow::Result<()> {
    log::start(LevelFilter::INFO, log::Format::Text);
    let settings: Settings =
        serde_json::from_str(settings).context("this is started by `bloomery up`")?;
    // Nobody would start it again.
    set_parent_process_death_signal(Some(Signal::TERM)).context("cannot follow the supervisor")?;
    let socket =
        std::io::stdin().as_fd().try_clone_to_owned().context("the standard input is no socket")?;
    let (name, description) = stack_name();
    let config = Config {
        data: settings.data,
        run: settings.run,
        domain: settings.domain,
        apps_domain: settings.apps_domain,
        port: settings.port,
        garden: settings.garden.to_string_lossy().into_owned(),
        lifecycle: "/proc/self/exe".into(),
        stack: Stack {
            name: name.into(),
            description: description.into(),
            rootfs: settings.stack.to_string_lossy().into_owned(),
        },
        memory_mb: Some(settings.memory_mb),
        disk_mb: None,
    };
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let stopped = stop.clone();
        tokio::spawn(async move {
            terminate.recv().await;
            stopped.cancel();
        });
        let (ready, told) = tokio::sync::oneshot::channel();
        tokio::spawn(async move {
            if told.await.is_ok() {
                println!("ready");
            }
        });
        let listeners = Listeners { http: vec![TcpListener::from(socket)] };
        platform::serve(config, listeners, ready, stop).await.map_err(anyhow::Error::from)
    })
}
