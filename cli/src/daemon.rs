//! One of the platform's daemons alone.

use std::ffi::OsString;
use std::net::TcpListener;
use std::os::fd::AsFd as _;
use std::path::PathBuf;

use anyhow::Context;
use platform::daemon::{ConfigFile, Daemon};
use rustix::net::{AddressFamily, sockopt};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::log;

/// Where its settings are.
#[derive(clap::Args, Debug)]
pub struct Flags {
    /// Configuration file, JSON or YAML; also `-config FILE`, as the original's start scripts say.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// How lines of the log look.
    #[arg(long, value_name = "FORMAT", default_value = "text")]
    log_format: log::Format,
    /// How lager's lines give the time.
    #[arg(long, value_name = "FORMAT", default_value = "rfc3339")]
    time_format: log::TimeFormat,
}

/// What a daemon's help says of its file.
pub fn keys(daemon: Daemon) -> String {
    /// Columns, as clap's own text has at most.
    const WIDTH: usize = 96;
    let mut text =
        String::from("Keys of the configuration file, which docs/daemons.md explains:\n");
    let mut column = WIDTH;
    for key in daemon.keys().into_iter().chain(["log_level"]) {
        if column + key.len() + 1 > WIDTH {
            text.push_str("\n ");
            column = 1;
        }
        text.push(' ');
        text.push_str(key);
        column += key.len() + 1;
    }
    text
}

/// The arguments, with Go's spelling of the daemons' only flag made clap's.
pub fn as_flags(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = arguments.collect();
    let is_daemon = |name: &OsString| {
        name == "gorouter" || Daemon::ALL.iter().any(|daemon| name == daemon.name())
    };
    if arguments.get(1).is_some_and(is_daemon) {
        for argument in arguments.iter_mut().skip(2) {
            let text = argument.to_string_lossy();
            let (flag, value) =
                text.split_once('=').map_or((&*text, None), |(flag, value)| (flag, Some(value)));
            if ["-config", "-configPath", "--configPath"].contains(&flag) {
                *argument = match value {
                    Some(value) => format!("--config={value}").into(),
                    None => "--config".into(),
                };
            }
        }
    }
    arguments
}

/// Runs until SIGTERM or SIGINT.
pub fn run(daemon: Daemon, flags: &Flags) -> anyhow::Result<()> {
    let file = ConfigFile::read(&flags.config)?;
    log::start(file.log_level()?, flags.log_format, daemon.name(), flags.time_format);
    let runtime = tokio::runtime::Runtime::new().context("cannot start the runtime")?;
    runtime.block_on(async {
        let stop = CancellationToken::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let stopped = stop.clone();
        tokio::spawn(async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            stopped.cancel();
        });
        let held = if daemon.takes_socket() { held() } else { None };
        daemon.run(&file, held, stop).await.map_err(anyhow::Error::from)
    })
}

/// The standard input, if that is a listening socket: whoever has bound it holds it while the daemon
/// is started again.
fn held() -> Option<TcpListener> {
    let input = std::io::stdin();
    let is_tcp = matches!(
        sockopt::socket_domain(input.as_fd()),
        Ok(AddressFamily::INET | AddressFamily::INET6)
    );
    if !is_tcp || !sockopt::socket_acceptconn(input.as_fd()).unwrap_or(false) {
        return None;
    }
    input.as_fd().try_clone_to_owned().ok().map(TcpListener::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_flags_are_understood() {
        let flags = |line: &str| {
            let words = as_flags(line.split(' ').map(OsString::from));
            words.join(&OsString::from(" ")).into_string().unwrap()
        };
        assert_eq!(flags("bloomery bbs -config a.json"), "bloomery bbs --config a.json");
        assert_eq!(flags("bloomery rep -config=a.json"), "bloomery rep --config=a.json");
        assert_eq!(
            flags("bloomery route-registrar -configPath a.yml"),
            "bloomery route-registrar --config a.yml"
        );
        assert_eq!(flags("bloomery router -c a.yml"), "bloomery router -c a.yml");
        assert_eq!(flags("bloomery ctl -config a"), "bloomery ctl -config a");
    }
}
