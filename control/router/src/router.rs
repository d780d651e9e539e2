//! From the start to the end of a router: routes first, then health and requests; and back.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bus::Bus;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access_log::AccessLog;
use crate::config::Config;
use crate::dial::{Dialer, certificates, key};
use crate::error::Error;
use crate::front::{listen, listen_for_status};
use crate::proxy::Proxy;
use crate::table::{Rules, Table};
use crate::{registrar, status};

/// Where a router listens. The sockets are bound already, and whoever holds a duplicate of one keeps
/// clients waiting in its queue while the router is started again.
#[derive(Debug, Default)]
pub struct Listeners {
    /// For clients, in plain.
    pub http: Vec<TcpListener>,
    /// For clients, with TLS by `tls_pem`.
    pub https: Vec<TcpListener>,
    /// For `/health`.
    pub status: Option<TcpListener>,
    /// For `/routes`; meant for loopback only.
    pub routes: Option<TcpListener>,
    /// Told by registrars of the same process when all routes are on the bus. Clients are served then,
    /// and do not have to wait for `start_response_delay_interval` to end.
    pub filled: Option<oneshot::Receiver<()>>,
}

/// Routes requests until told to stop, then drains: `/health` says 503 while requests are still served
/// for `drain_wait`; then no more are taken, and those under way have `drain_timeout`.
pub async fn serve(
    config: Config,
    listeners: Listeners,
    bus: Bus,
    access_log: Arc<dyn AccessLog>,
    stop: CancellationToken,
) -> Result<(), Error> {
    let tls = if listeners.https.is_empty() { None } else { Some(server_tls(&config)?) };
    let rules = Rules {
        stale_threshold: config.droplet_stale_threshold,
        remembered: config.empty_pool_response_code_503.then_some(config.empty_pool_timeout),
    };
    let proxy = Arc::new(Proxy {
        dialer: Dialer::new(&config)?,
        table: Table::new(rules),
        access_log,
        healthy: AtomicBool::new(false),
        draining: CancellationToken::new(),
        config,
    });
    let config = &proxy.config;
    let ended = CancellationToken::new();
    // However this ends, what listens ends with it.
    let _ending = ended.clone().drop_guard();
    if let Some(listener) = listeners.status {
        let listener = ready("status", listener)?;
        tokio::spawn(listen_for_status(listener, proxy.clone(), status::health, ended.clone()));
    }
    if let Some(listener) = listeners.routes {
        let listener = ready("routes", listener)?;
        tokio::spawn(listen_for_status(listener, proxy.clone(), status::routes, ended.clone()));
    }

    let (connections, filled) = (TaskTracker::new(), CancellationToken::new());
    let serving = async {
        // A table that has just begun to fill would send clients away. Without a delay the router is
        // healthy before anybody can ask.
        if !config.start_response_delay_interval.is_zero() {
            // Late is as good as told: no registrar is waited for longer.
            let _ = timeout(config.start_response_delay_interval, filled.cancelled()).await;
        }
        for (listeners, tls) in [(listeners.http, None), (listeners.https, tls)] {
            for listener in listeners {
                let listener = ready("requests", listener)?;
                let (connections, closed) = (connections.clone(), proxy.draining.clone());
                tokio::spawn(listen(proxy.clone(), listener, tls.clone(), connections, closed));
            }
        }
        proxy.healthy.store(true, Ordering::Relaxed);
        std::future::pending::<Result<(), Error>>().await
    };
    let registrations = registrar::run(&proxy, &bus, listeners.filled, &filled);
    tokio::pin!(registrations);
    tokio::select! {
        biased;
        failed = serving => return failed,
        ended = &mut registrations => return ended,
        () = stop.cancelled() => {}
    }

    proxy.healthy.store(false, Ordering::Relaxed);
    // Routes still come and go meanwhile.
    tokio::select! {
        () = sleep(config.drain_wait) => {}
        ended = registrations => return ended,
    }
    proxy.draining.cancel();
    connections.close();
    if timeout(config.drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(left = connections.len(), "requests are cut off");
    }
    Ok(())
}

fn ready(what: &'static str, listener: TcpListener) -> Result<tokio::net::TcpListener, Error> {
    listener
        .set_nonblocking(true)
        .and_then(|()| tokio::net::TcpListener::from_std(listener))
        .map_err(|source| Error::Listener { what, source })
}

fn server_tls(config: &Config) -> Result<TlsAcceptor, Error> {
    let what = "tls_pem";
    let refused = |error: rustls::Error| Error::Certificate { what, source: error.into() };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut own = Vec::new();
    for pem in &config.tls_pem {
        let chain = certificates(what, &pem.cert_chain)?;
        let key = key(what, &pem.private_key)?;
        let certified = CertifiedKey::from_der(chain, key, &provider).map_err(refused)?;
        own.push(Arc::new(certified));
    }
    if own.is_empty() {
        return Err(Error::Certificate { what, source: "there is no certificate".into() });
    }
    let mut tls = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(refused)?
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(ByName(own)));
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(tls)))
}

/// The certificate for the host that a client names, the first for others.
#[derive(Debug)]
struct ByName(Vec<Arc<CertifiedKey>>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let named = hello.server_name().and_then(|name| {
            let name = rustls_pki_types::ServerName::try_from(name).ok()?;
            self.0.iter().find(|own| is_for(own, &name))
        });
        named.or(self.0.first()).cloned()
    }
}

fn is_for(own: &CertifiedKey, name: &rustls_pki_types::ServerName<'_>) -> bool {
    own.end_entity_cert()
        .and_then(rustls::server::ParsedCertificate::try_from)
        .and_then(|parsed| rustls::client::verify_server_name(&parsed, name))
        .is_ok()
}
