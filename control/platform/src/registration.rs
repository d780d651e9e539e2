//! Routes to the platform's own parts, told to the router as by the original's route registrar.

use std::net::SocketAddr;
use std::time::Duration;

use bus::Bus;
use serde_json::json;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Between two registrations; a router forgets what it has not heard of for 120 s.
const INTERVAL: Duration = Duration::from_secs(20);

/// A part of the platform that clients reach through the router.
#[derive(Clone, Debug)]
pub struct Registration {
    /// Its name, for the tag `component`.
    pub name: &'static str,
    /// Where it listens.
    pub address: SocketAddr,
    /// Hosts, whole.
    pub hosts: Vec<String>,
}

impl Registration {
    fn message(&self) -> String {
        json!({
            "host": self.address.ip().to_string(),
            "port": self.address.port(),
            "uris": self.hosts,
            "tags": { "component": self.name },
            "private_instance_id": format!("{}-{}", self.name, self.address.port()),
        })
        .to_string()
    }
}

/// Registers now, which is said by `told`, whenever a router starts, and again and again; takes all
/// back when told to stop.
pub async fn keep(
    bus: Bus,
    registrations: Vec<Registration>,
    told: oneshot::Sender<()>,
    stop: CancellationToken,
) -> Result<(), bus::Error> {
    let mut starts = bus.subscribe("router.start").await?;
    let say = async |subject: &str| {
        for registration in &registrations {
            if let Err(error) = bus.publish(subject, registration.message()).await {
                tracing::warn!(part = registration.name, %error, "a route is not told");
            }
        }
    };
    say("router.register").await;
    // Nobody may wait for it.
    let _ = told.send(());
    let mut again = tokio::time::interval(INTERVAL);
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
