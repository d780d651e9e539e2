//! `bloomery platform`: everything but Garden, as the supervisor starts it.

use std::net::TcpListener;
use std::os::fd::AsFd as _;

use anyhow::Context;
use platform::{Config, Listeners};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::log;

/// Made in the platform's own directory of sockets when everything answers.
pub const READY: &str = "ready";

/// Runs until SIGTERM. The router's socket is the standard input.
pub fn run(config: &str) -> anyhow::Result<()> {
    log::start_for_people();
    // Before there are other threads, which inherit it: no set-uid program gives rights to this user.
    rustix::thread::set_no_new_privs(true).context("cannot give up new privileges")?;
    let config: Config =
        serde_json::from_str(config).context("this is started by `bloomery up`")?;
    let socket =
        std::io::stdin().as_fd().try_clone_to_owned().context("the standard input is no socket")?;
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
        let file = config.run.join(READY);
        tokio::spawn(async move {
            if told.await.is_ok()
                && let Err(error) = std::fs::write(&file, "")
            {
                tracing::error!(%error, file = %file.display(), "cannot say that all is ready");
            }
        });
        let listeners = Listeners { http: vec![TcpListener::from(socket)] };
        platform::serve(config, listeners, ready, stop).await.map_err(anyhow::Error::from)
    })
}
