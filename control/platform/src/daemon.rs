//! One daemon alone, from a configuration file with the original's keys.
//!
//! Here are the parts that a daemon is given by whoever runs it: a bus, a way to Log Cache, clients of its
//! peers. Everything else is the daemon's own crate.

mod api;
mod file;
mod logs;
mod registrar;

use std::io;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;

use bus::Bus;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use self::api::{CloudControllerSettings, UaaSettings};
pub use self::file::ConfigFile;
use self::logs::{Told, with_logs};
use self::registrar::RegistrarSettings;

type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A daemon that runs alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the originals'")]
pub enum Daemon {
    Bbs,
    Locket,
    Auctioneer,
    Rep,
    RouteEmitter,
    Router,
    RouteRegistrar,
    LogCache,
    FileServer,
    CloudController,
    Uaa,
}

/// What keeps a daemon from serving.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration file cannot be read.
    #[error("cannot read {}", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not made of keys and values.
    #[error("{}: {reason}", .path.display())]
    Syntax {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A value in it makes no sense.
    #[error("{}: {key}: {reason}", .path.display())]
    Key {
        /// Which file.
        path: PathBuf,
        /// Which value.
        key: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The daemon has ended by itself.
    #[error("{daemon} of {}", .path.display())]
    Ended {
        /// Which.
        daemon: &'static str,
        /// Its file.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
}

impl Daemon {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::Bbs,
        Self::Locket,
        Self::Auctioneer,
        Self::Rep,
        Self::RouteEmitter,
        Self::Router,
        Self::RouteRegistrar,
        Self::LogCache,
        Self::FileServer,
        Self::CloudController,
        Self::Uaa,
    ];

    /// Its name, as a subcommand.
    pub fn name(self) -> &'static str {
        match self {
            Self::Bbs => "bbs",
            Self::Locket => "locket",
            Self::Auctioneer => "auctioneer",
            Self::Rep => "rep",
            Self::RouteEmitter => "route-emitter",
            Self::Router => "router",
            Self::RouteRegistrar => "route-registrar",
            Self::LogCache => "log-cache",
            Self::FileServer => "file-server",
            Self::CloudController => "cloud-controller",
            Self::Uaa => "uaa",
        }
    }

    /// The keys of its configuration file, without those inside others.
    pub fn keys(self) -> Vec<&'static str> {
        match self {
            Self::Bbs => keys_of::<bbs::Config, ()>(),
            Self::Locket => keys_of::<locket::Config, ()>(),
            Self::Auctioneer => keys_of::<auctioneer::Config, ()>(),
            Self::Rep => keys_of::<rep::Config, Told>(),
            Self::RouteEmitter => keys_of::<route_emitter::Config, ()>(),
            Self::Router => keys_of::<router::Config, Told>(),
            Self::RouteRegistrar => keys_of::<RegistrarSettings, ()>(),
            Self::LogCache => keys_of::<log_cache::Config, ()>(),
            Self::FileServer => keys_of::<file_server::Config, ()>(),
            Self::CloudController => keys_of::<cloud_controller::Config, CloudControllerSettings>(),
            Self::Uaa => keys_of::<uaa::Config, UaaSettings>(),
        }
    }

    /// Whether [`Daemon::run`] takes a socket.
    pub fn takes_socket(self) -> bool {
        !matches!(self, Self::Locket | Self::RouteEmitter | Self::RouteRegistrar)
    }

    /// Runs until it is told to stop, or cannot go on. `held` is taken in place of the socket of its
    /// first address: connections wait in it while the daemon is started again.
    pub async fn run(
        self,
        file: &ConfigFile,
        held: Option<TcpListener>,
        stop: CancellationToken,
    ) -> Result<(), Error> {
        file.warn_of_others(&self.keys());
        let ended = match self {
            Self::Bbs => {
                let sockets = bbs::Listeners { api: held, ..Default::default() };
                cause(bbs::serve(file.settings()?, sockets, stop).await)
            }
            Self::Locket => cause(locket::serve(file.settings()?, stop).await),
            Self::Auctioneer => {
                let sockets = auctioneer::Listeners { api: held };
                cause(auctioneer::serve(file.settings()?, sockets, stop).await)
            }
            Self::Rep => {
                let config = rep::Config {
                    healthcheck_program: Some("/proc/self/exe".into()),
                    ..file.settings()?
                };
                let sockets = rep::Listeners { network: held, admin: None };
                with_logs(file.settings()?, |logs| async {
                    rep::serve(config, sockets, Arc::new(logs), stop).await
                })
                .await
            }
            Self::RouteEmitter => emit(file.settings()?, stop).await,
            Self::Router => {
                let config: router::Config = file.settings()?;
                with_logs(file.settings()?, |logs| async {
                    let bus = Bus::connect(config.servers()?).await?;
                    let sockets = config.listen(held)?;
                    cause(router::serve(config, sockets, bus, Arc::new(logs), stop).await)
                })
                .await
            }
            Self::RouteRegistrar => registrar::run(file.settings()?, stop).await,
            Self::LogCache => {
                let sockets = log_cache::Listeners { grpc: held, proxy: None };
                cause(log_cache::serve(file.settings()?, sockets, stop).await)
            }
            Self::FileServer => {
                let sockets = file_server::Listeners { http: held, https: None };
                cause(file_server::serve(file.settings()?, sockets, stop).await)
            }
            Self::CloudController => {
                let (config, around) = (file.settings()?, file.settings()?);
                with_logs(file.settings()?, |logs| {
                    api::cloud_controller(config, around, logs, held, stop)
                })
                .await
            }
            Self::Uaa => api::uaa(file.settings()?, file.settings()?, held, stop).await,
        };
        let failed = |source| {
            let (daemon, path) = (self.name(), file.path().to_owned());
            Error::Ended { daemon, path, source }
        };
        ended.map_err(failed)
    }
}

fn keys_of<Own: DeserializeOwned, Around: DeserializeOwned>() -> Vec<&'static str> {
    [file::keys::<Own>(), file::keys::<Around>()].concat()
}

fn cause<E: Into<Cause>>(ended: Result<(), E>) -> Result<(), Cause> {
    ended.map_err(Into::into)
}

async fn emit(config: route_emitter::Config, stop: CancellationToken) -> Result<(), Cause> {
    let bus = Bus::connect(config.servers()?).await?;
    let bbs = config.bbs()?;
    cause(route_emitter::serve(config, bbs, bus, stop).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_told_of_in_the_documentation() {
        let page = include_str!("../../../docs/daemons.md");
        for daemon in Daemon::ALL {
            let title = format!("## {}\n", daemon.name());
            let (_, about) = page.split_once(&title).unwrap_or_else(|| panic!("{title}"));
            let about = about.split("\n## ").next().unwrap_or_default();
            let keys = daemon.keys();
            assert!(!keys.is_empty(), "{daemon:?}");
            let missing: Vec<_> =
                keys.iter().filter(|key| !about.contains(&format!("`{key}`"))).collect();
            assert!(missing.is_empty(), "{}: {missing:?}", daemon.name());
        }
    }
}
