//! The route registrar: tells routers of servers that the runtime does not run.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bus::{Bus, Servers};
use serde::Deserialize;
use tokio::sync::oneshot;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use transport::Protocol;
use transport::configured::{self, ConfigError, period};

use super::Cause;
use crate::registration::{self, Registration};

/// The original's configuration file, as far as it is read here.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct RegistrarSettings {
    /// The NATS servers.
    message_bus_servers: Vec<MessageBusServer>,
    nats_mtls_config: NatsTls,
    /// The address of the routes' servers.
    host: String,
    routes: Vec<Route>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct MessageBusServer {
    /// `HOST:PORT`.
    host: String,
    user: String,
    password: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct NatsTls {
    enabled: bool,
    cert_path: PathBuf,
    key_path: PathBuf,
    ca_path: PathBuf,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Route {
    name: String,
    #[serde(default)]
    port: Option<u16>,
    #[serde(default)]
    tls_port: Option<u16>,
    uris: Vec<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    server_cert_domain_san: String,
    #[serde(deserialize_with = "period")]
    registration_interval: Duration,
}

impl RegistrarSettings {
    fn servers(&self) -> Result<Servers, ConfigError> {
        let Some(first) = self.message_bus_servers.first() else {
            return Err(ConfigError::missing("message_bus_servers"));
        };
        let NatsTls { enabled, cert_path, key_path, ca_path } = &self.nats_mtls_config;
        let tls = if *enabled {
            let key = "nats_mtls_config";
            let identity = configured::identity(key, ca_path, cert_path, key_path)?;
            let identity = identity.ok_or_else(|| ConfigError::missing(key))?;
            Some(identity.client_config(Protocol::Http1))
        } else {
            None
        };
        let login = (!first.user.is_empty()).then(|| (first.user.clone(), first.password.clone()));
        let addresses = self.message_bus_servers.iter().map(|server| server.host.clone()).collect();
        Ok(Servers { addresses, login, tls })
    }

    fn registrations(&self) -> Result<Vec<(Duration, Registration)>, ConfigError> {
        if self.host.is_empty() {
            return Err(ConfigError::missing("host"));
        }
        let one = |route: &Route| {
            if route.port.is_none() && route.tls_port.is_none() {
                return Err(ConfigError::value("routes", format!("{:?} has no port", route.name)));
            }
            let mut tags = BTreeMap::from([("component".to_owned(), route.name.clone())]);
            tags.extend(route.tags.clone());
            let registration = Registration {
                name: route.name.clone(),
                host: self.host.clone(),
                port: route.port,
                tls_port: route.tls_port,
                server_cert_domain_san: route.server_cert_domain_san.clone(),
                hosts: route.uris.clone(),
                tags,
            };
            Ok((route.registration_interval, registration))
        };
        self.routes.iter().map(one).collect()
    }
}

/// Registers until told to stop, and takes all back then.
pub async fn run(settings: RegistrarSettings, stop: CancellationToken) -> Result<(), Cause> {
    let registrations = settings.registrations()?;
    let bus = Bus::connect(settings.servers()?).await?;
    let mut keeping = JoinSet::new();
    for (interval, registration) in registrations {
        let (told, _) = oneshot::channel();
        let (bus, registrations) = (bus.clone(), vec![registration]);
        keeping.spawn(registration::keep(bus, registrations, interval, told, stop.clone()));
    }
    tracing::info!(routes = keeping.len(), "routes are registered");
    if keeping.is_empty() {
        stop.cancelled().await;
    }
    while let Some(ended) = keeping.join_next().await {
        ended??;
    }
    Ok(())
}
