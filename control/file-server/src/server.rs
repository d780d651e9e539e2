//! The sockets.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::response::Response;
use http::{StatusCode, header};
use tokio_util::sync::CancellationToken;
use transport::configured::{self, Bare, ConfigError};
use transport::{Address, Server};

use crate::answer::answer;
use crate::config::Config;
use crate::directory::Directory;

/// What keeps a file server from starting.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration makes no sense.
    #[error("the file server's configuration")]
    Config(#[from] ConfigError),
    /// There is no such directory, or it may not be opened.
    #[error("opening the static directory {}", .path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Sockets that were bound by the caller. Those that are missing are bound as the configuration says.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For plain HTTP.
    pub http: Option<std::net::TcpListener>,
    /// For TLS, if that is enabled.
    pub https: Option<std::net::TcpListener>,
}

/// What answers for a directory. It is opened now and served even if its path is given to another.
pub fn routes(directory: &Path) -> Result<Router, Error> {
    let opened = Directory::open(directory).map_err(|source| {
        let path = directory.to_owned();
        Error::Directory { path, source }
    })?;
    Ok(Router::new().fallback(answer).with_state(Arc::new(opened)))
}

/// Serves until told to stop.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> Result<(), Error> {
    let routes = routes(&config.static_directory)?;
    let Listeners { http, https } = listeners;
    let plain = &config.server_address;
    let http = configured::listener("server_address", plain, Bare::Plain, None, http).await?;
    if !config.https_server_enabled {
        Server::new(http).serve(routes, stop).await;
        return Ok(());
    }
    let Config { ca_file, cert_file, key_file, https_listen_addr, .. } = &config;
    let own = configured::identity("cert_file", ca_file, cert_file, key_file)?;
    let key = "https_listen_addr";
    let https = configured::listener(key, https_listen_addr, Bare::Tls, own, https).await?;
    let port = match https.address() {
        Ok(Address::Https { port, .. }) => port,
        _ => 443,
    };
    tokio::join!(
        Server::new(https).serve(routes, stop.clone()),
        Server::new(http).serve(elsewhere(port), stop),
    );
    Ok(())
}

/// Leads to the same host's TLS.
fn elsewhere(port: u16) -> Router {
    Router::new().fallback(async move |request: Request| {
        let named = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let host = named.unwrap_or("localhost");
        let host = match host.rfind(':') {
            Some(colon) if !host.ends_with(']') => &host[..colon],
            _ => host,
        };
        let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
        Response::builder()
            .status(StatusCode::MOVED_PERMANENTLY)
            .header(header::LOCATION, format!("https://{host}:{port}{path}"))
            .body(axum::body::Body::empty())
            .unwrap_or_default()
    })
}
