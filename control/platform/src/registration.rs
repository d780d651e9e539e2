//! Routes to the platform's own parts, told to the router as by the original's route registrar.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use bus::Bus;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Between two registrations; a router forgets what it has not heard of for 120 s.
pub const INTERVAL: Duration = Duration::from_secs(20);

/// A server that clients reach through the router.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its name.
    pub name: String,
    /// Its own address.
    pub host: String,
    /// Plain HTTP.
    pub port: Option<u16>,
    /// HTTP over TLS.
    pub tls_port: Option<u16>,
    /// What its certificate names; `host` if empty.
    pub server_cert_domain_san: String,
    /// Hosts that clients ask for, whole.
    pub hosts: Vec<String>,
    /// Of its requests' logs.
    pub tags: BTreeMap<String, String>,
}

impl Registration {
    /// One of the platform's own parts, without TLS.
    pub fn part(name: &str, address: SocketAddr, hosts: Vec<String>) -> Self {
        Self {
            name: name.to_owned(),
            host: address.ip().to_string(),
            port: Some(address.port()),
            tls_port: None,
            server_cert_domain_san: String::new(),
            hosts,
            tags: [("component".to_owned(), name.to_owned())].into(),
        }
    }

    fn message(&self) -> String {
        let port = self.port.or(self.tls_port).unwrap_or_default();
        let mut message = json!({
            "host": self.host,
            "uris": self.hosts,
            "tags": self.tags,
            "private_instance_id": format!("{}-{}-{port}", self.name, self.host),
        });
        for (key, port) in [("port", self.port), ("tls_port", self.tls_port)] {
            if let Some(port) = port {
                message[key] = port.into();
            }
        }
        if !self.server_cert_domain_san.is_empty() {
            message["server_cert_domain_san"] = self.server_cert_domain_san.as_str().into();
        }
        message.to_string()
    }
}

/// Registers now, which is said by `told`, whenever a router starts, and again and again; takes all
/// back when told to stop.
pub async fn keep(
    bus: Bus,
    registrations: Vec<Registration>,
    interval: Duration,
    told: oneshot::Sender<()>,
    stop: CancellationToken,
) -> Result<(), bus::Error> {
    let mut starts = bus.subscribe("router.start").await?;
    let say = async |subject: &str| {
        for registration in &registrations {
            if let Err(error) = bus.publish(subject, registration.message()).await {
                tracing::warn!(name = registration.name, %error, "a route is not told");
            }
        }
    };
    say("router.register").await;
    // Nobody may wait for it.
    let _ = told.send(());
    let mut again = tokio::time::interval(interval);
    again.reset();
    loop {
        tokio::select! {
            _ = again.tick() => say("router.register").await,
            start = starts.next() => match start {
                Some(_) => say("router.register").await,
                None => return Ok(()),
            },
            () = stop.cancelled() => {
                say("router.unregister").await;
                return Ok(());
            }
        }
    }
}
