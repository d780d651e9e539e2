//! A log-cache: its store, and what answers.

use std::sync::Arc;
use std::time::Instant;

use axum::Router;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use transport::configured::{self, Bare, ConfigError};
use transport::{Client, Identity, Server, Timeouts};
use uaa::{PublicKeys, TokenVerifier};

use crate::access::{Access, peer};
use crate::config::Config;
use crate::error::Error;
use crate::grpc::{MESSAGE, Services};
use crate::http_api;
use crate::messages::logcache::v1;
use crate::messages::loggregator::v2;
use crate::store::Store;

/// The answers to everybody who asks about a store. A clone is the same one.
#[derive(Clone, Debug)]
pub struct LogCache {
    store: Store,
    started: Instant,
    stop: CancellationToken,
}

/// Sockets that were bound by the caller. Those that are missing are bound as the configuration says.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For gRPC.
    pub grpc: Option<std::net::TcpListener>,
    /// For users.
    pub proxy: Option<std::net::TcpListener>,
}

impl LogCache {
    /// Answers about `store`.
    pub fn new(store: Store) -> Self {
        Self { store, started: Instant::now(), stop: CancellationToken::new() }
    }

    /// Answers that wait for lines wait no longer than until `stop`.
    pub fn until(self, stop: CancellationToken) -> Self {
        Self { stop, ..self }
    }

    pub(crate) async fn stopped(&self) {
        self.stop.cancelled().await;
    }

    /// What is kept.
    pub fn store(&self) -> &Store {
        &self.store
    }

    pub(crate) fn started(&self) -> Instant {
        self.started
    }

    /// The read API. With `access` readers need a token, as with the original's cf-auth-proxy;
    /// without, as with its gateway, everybody reads everything.
    pub fn routes(&self, access: Option<Access>) -> Router {
        http_api::routes(self.clone(), access.map(Arc::new))
    }

    /// The gRPC services: `loggregator.v2.Ingress`, `logcache.v1.Ingress`, `logcache.v1.Egress`.
    pub fn grpc(&self) -> Routes {
        let services = Services(self.store.clone());
        let agent = v2::ingress_server::IngressServer::new(services.clone());
        let ingress = v1::ingress_server::IngressServer::new(services.clone());
        let egress = v1::egress_server::EgressServer::new(services);
        Routes::new(agent.max_decoding_message_size(MESSAGE))
            .add_service(ingress.max_decoding_message_size(MESSAGE))
            .add_service(egress)
    }
}

/// Answers until told to stop. What is kept is forgotten then.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    stop: CancellationToken,
) -> Result<(), Error> {
    let identity = config.identity()?;
    let cache = LogCache::new(Store::new(config.limits())).until(stop.clone());
    let listen = async |key, address: &str, held| {
        let listener =
            configured::listener(key, address, Bare::Tls, identity.clone(), held).await?;
        Ok::<_, Error>(Server::new(listener))
    };

    let grpc = listen("addr", &config.addr, listeners.grpc).await?;
    let grpc = grpc.serve(cache.grpc(), stop.clone());
    let proxied = listeners.proxy.is_some() || !config.proxy_addr.is_empty();
    let proxy = if proxied {
        let access = access(&config, identity.as_ref())?;
        // Users have no certificates: what they reach is behind the router, on plain HTTP or TLS of
        // the platform's own.
        let server = listen("proxy_addr", &config.proxy_addr, listeners.proxy).await?;
        Some(server.serve(cache.routes(Some(access)), stop.clone()))
    } else {
        None
    };
    let gateway = if config.gateway_addr.is_empty() {
        None
    } else {
        let server = listen("gateway_addr", &config.gateway_addr, None).await?;
        Some(server.serve(cache.routes(None), stop.clone()))
    };

    tokio::join!(
        grpc,
        async {
            if let Some(proxy) = proxy {
                proxy.await;
            }
        },
        async {
            if let Some(gateway) = gateway {
                gateway.await;
            }
        },
    );
    Ok(())
}

fn access(config: &Config, identity: Option<&Identity>) -> Result<Access, Error> {
    let ask = |key, text: &str| {
        let address = configured::address(key, text, Bare::Tls)?;
        Client::new(address, identity.cloned(), Timeouts::default())
            .map(peer)
            .map_err(ConfigError::transport(key))
    };
    let keys = PublicKeys::remote(ask("uaa_addr", &config.uaa_addr)?);
    let verifier = TokenVerifier::new(keys, &config.uaa_issuer, None);
    Ok(Access::new(verifier, ask("capi_addr", &config.capi_addr)?))
}
